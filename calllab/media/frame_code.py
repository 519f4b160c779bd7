"""A strip in a picture that machines can read, after lossy coding and scaling: frame number, capture time.

The strip is the lowest 4/30 of the picture, a grid of 20 x 4 cells, black or white.  The four corner cells
are references (white, black / black, white), from which the reader takes its threshold; the other 76, row by
row, carry, most significant bit first::

    frame number   20 bits
    capture time   30 bits, in units of 0.1 ms, modulo 29.8 hours
    check          26 bits, the low ones of the CRC-32 of the above

Cells lie at fixed fractions of the picture, so a picture scaled as a whole stays readable.

A VP8 encoder that denoises now and then leaves a changed cell as it was in the frame before.  So one or two
wrong cells are repaired with the help of the check; a repaired stamp counts only if its time is plausible,
which makes up for the weaker check.
"""

from __future__ import annotations

import binascii
import itertools
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from av import VideoFrame

__all__ = ["STRIP_SHARE", "FrameStamp", "luma_of", "read_stamp", "write_stamp"]

Luma: TypeAlias = npt.NDArray[np.uint8]

COLUMNS: Final = 20
ROWS: Final = 4
STRIP_SHARE: Final = ROWS / 30
"""How much of the height the strip takes."""

NUMBER_BITS: Final = 20
TIME_BITS: Final = 30
CHECK_BITS: Final = 26
TICKS_PER_S: Final = 10_000

WHITE: Final = 235
BLACK: Final = 16
REPAIR_WINDOW_S: Final = 300.0
MIN_CONTRAST: Final = 48
"""Less luma than this between white and black reference cells is no strip."""

_WHITE_CORNERS: Final = (0, COLUMNS * ROWS - 1)
_BLACK_CORNERS: Final = (COLUMNS - 1, COLUMNS * (ROWS - 1))
_DATA_CELLS: Final = np.array(
    [cell for cell in range(COLUMNS * ROWS) if cell not in _WHITE_CORNERS + _BLACK_CORNERS]
)
_BITS: Final = NUMBER_BITS + TIME_BITS + CHECK_BITS
_WEIGHTS: Final = tuple(1 << shift for shift in reversed(range(_BITS)))


@dataclass(frozen=True, slots=True)
class FrameStamp:
    """What a picture says about itself."""

    frame_number: int
    """Counts from 0, modulo 2**20."""
    captured_at: float
    """Loop time, in seconds, exact to 0.1 ms."""


def luma_of(frame: VideoFrame) -> Luma:
    """Return the brightness of a frame, height x width, without copying where its format allows it."""
    if not frame.format.name.startswith("yuv"):
        frame = frame.reformat(format="yuv420p")
    plane = frame.planes[0]
    rows: Luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
    return rows[: frame.height, : frame.width]


def write_stamp(luma: Luma, stamp: FrameStamp) -> None:
    """Draw ``stamp`` into the lowest rows of ``luma``, in place."""
    cells = np.full(COLUMNS * ROWS, BLACK, np.uint8)
    cells[list(_WHITE_CORNERS)] = WHITE
    word = _encode(stamp)
    cells[_DATA_CELLS] = [WHITE if word & weight else BLACK for weight in _WEIGHTS]
    height, width = luma.shape
    column_of = np.arange(width) * COLUMNS // width
    for row in range(ROWS):
        line = cells[row * COLUMNS : (row + 1) * COLUMNS][column_of]
        luma[_row_edge(height, row) : _row_edge(height, row + 1)] = line


def read_stamp(luma: Luma, *, near: float) -> FrameStamp | None:
    """Return the stamp of a picture, or None if it has none that passes its check.

    ``near`` is the loop time of the reading; it settles the part of the time that is not sent, and a stamp
    that needs repair must have been made in the five minutes before it.
    """
    height, width = luma.shape
    if width < 2 * COLUMNS or height < 30:
        return None
    levels = np.concatenate([_row_levels(luma, height, width, row) for row in range(ROWS)])
    white = float(levels[list(_WHITE_CORNERS)].mean())
    black = float(levels[list(_BLACK_CORNERS)].mean())
    if white - black < MIN_CONTRAST:
        return None
    bits = levels[_DATA_CELLS] > (white + black) / 2
    word = 0
    for bit in bits.tolist():
        word = word << 1 | bit
    return _decode(word, near)


def _row_edge(height: int, row: int) -> int:
    return height - round(height * STRIP_SHARE * (ROWS - row) / ROWS)


def _row_levels(luma: Luma, height: int, width: int, row: int) -> npt.NDArray[np.floating[Any]]:
    """Return the mean brightness of the middle of each cell of a row; its rim is blurred by the codec."""
    top, bottom = _row_edge(height, row), _row_edge(height, row + 1)
    rim = (bottom - top) // 4
    line = luma[top + rim : bottom - rim].mean(axis=0)
    edges = np.arange(COLUMNS + 1) * width / COLUMNS
    rims = width / COLUMNS / 4
    first = np.ceil(edges[:-1] + rims).astype(int)
    last = np.maximum(np.floor(edges[1:] - rims).astype(int), first + 1)
    sums = np.concatenate(([0.0], np.cumsum(line)))
    levels: npt.NDArray[np.floating[Any]] = (sums[last] - sums[first]) / (last - first)
    return levels


def _check(payload: int) -> int:
    return binascii.crc32(payload.to_bytes(7, "big")) & ((1 << CHECK_BITS) - 1)


def _encode(stamp: FrameStamp) -> int:
    number = stamp.frame_number % (1 << NUMBER_BITS)
    ticks = round(stamp.captured_at * TICKS_PER_S) % (1 << TIME_BITS)
    payload = number << TIME_BITS | ticks
    return payload << CHECK_BITS | _check(payload)


def _decode(word: int, near: float) -> FrameStamp | None:
    syndrome = _syndrome(word)
    repair = _REPAIRS.get(syndrome, 0)
    if syndrome and not repair:
        return None
    payload = (word ^ repair) >> CHECK_BITS
    period = 1 << TIME_BITS
    ticks = payload & (period - 1)
    ticks += round((near * TICKS_PER_S - ticks) / period) * period
    captured_at = ticks / TICKS_PER_S
    if repair and not 0.0 <= near - captured_at <= REPAIR_WINDOW_S:
        return None
    return FrameStamp(payload >> TIME_BITS, captured_at)


def _repairs() -> dict[int, int]:
    """Return which bits to turn for a syndrome: each single bit, and each pair of bits, has its own."""
    right = _syndrome(0)
    single = [(_syndrome(1 << shift) ^ right, 1 << shift) for shift in range(_BITS)]
    double = [(a ^ b, mask | other) for (a, mask), (b, other) in itertools.combinations(single, 2)]
    return dict(single + double)


def _syndrome(word: int) -> int:
    """Return 0 for a word that passes its check, else a number that depends only on what is wrong."""
    return _check(word >> CHECK_BITS) ^ word & ((1 << CHECK_BITS) - 1)


_REPAIRS: Final = _repairs()
