from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calllab.media import FrameStamp, TestPattern, frame_code, luma_of, read_stamp, write_stamp
from tests.media.helpers import through_vp8
from tests.network.helpers import STEADY

NOW = 5_000_000.0
STAMP = FrameStamp(123_456, NOW - 0.25)


def stamped(stamp: FrameStamp, width: int = 320, height: int = 240) -> np.ndarray:
    luma = np.full((height, width), 100, np.uint8)
    write_stamp(luma, stamp)
    return luma


@STEADY
@given(
    number=st.integers(0, 2**20 - 1),
    ticks=st.integers(0, 10**13),
    age_s=st.floats(0, 50_000),
    width=st.integers(40, 700),
    height=st.integers(60, 500),
)
def test_every_stamp_comes_back_from_any_size(
    number: int, ticks: int, age_s: float, width: int, height: int
) -> None:
    """Number and time are read as they were written, to 0.1 ms, whatever the size of the picture."""
    stamp = FrameStamp(number, ticks / 10_000)
    seen = read_stamp(stamped(stamp, width, height), near=stamp.captured_at + age_s)
    assert seen is not None
    assert seen.frame_number == number
    assert seen.captured_at == pytest.approx(stamp.captured_at, abs=6e-5)


@STEADY
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=200)))
def test_other_pictures_have_no_stamp(luma: np.ndarray) -> None:
    """A picture without a strip, of any size, is refused and not misread."""
    assert read_stamp(luma, near=NOW) is None


def flip(luma: np.ndarray, *cells: int) -> np.ndarray:
    """Turn cells of the strip of a 320 x 240 picture."""
    for cell in cells:
        row, column = divmod(cell, 20)
        area = luma[208 + 8 * row : 216 + 8 * row, 16 * column : 16 * column + 16]
        area[:] = 251 - area
    return luma


def test_two_wrong_cells_are_repaired() -> None:
    """Any cell may be wrong, and any second one with it."""
    cells = [cell for cell in range(80) if cell not in (0, 19, 60, 79)]
    for cell in cells:
        assert read_stamp(flip(stamped(STAMP), cell), near=NOW) == STAMP
    for pair in itertools.islice(itertools.combinations(cells, 2), 0, None, 17):
        assert read_stamp(flip(stamped(STAMP), *pair), near=NOW) == STAMP


def test_no_two_repairs_are_confused() -> None:
    """Each single wrong bit, and each pair, leads to a repair of its own."""
    bits = frame_code.NUMBER_BITS + frame_code.TIME_BITS + frame_code.CHECK_BITS
    assert len(frame_code._REPAIRS) == bits + bits * (bits - 1) // 2
    assert 0 not in frame_code._REPAIRS


def test_what_cannot_be_repaired_is_refused() -> None:
    """Cells wrong in several places make a picture unreadable, not wrong."""
    refused = sum(
        read_stamp(flip(stamped(STAMP), 1 + i, 21 + j, 61 + k), near=NOW) is None
        for i in range(0, 18, 3)
        for j in range(0, 18, 3)
        for k in range(0, 18, 3)
    )
    assert refused == 216


def test_a_repair_must_make_a_plausible_time() -> None:
    """A repaired stamp from the future, or of long ago, is taken for noise."""
    assert read_stamp(flip(stamped(STAMP), 9), near=NOW - 1) is None
    assert read_stamp(flip(stamped(STAMP), 9), near=NOW + 301) is None
    assert read_stamp(stamped(STAMP), near=NOW + 301) == STAMP


@pytest.mark.parametrize(("width", "height", "share"), [(640, 480, 0.97), (320, 240, 0.97), (160, 120, 0.85)])
def test_the_strip_survives_vp8_at_its_lowest_rate_and_scaling(width: int, height: int, share: float) -> None:
    """After a call's VP8 at its lowest rate, nearly all are readable, also scaled down, and none is wrong."""
    pattern = TestPattern(width, height, seed=1, label="alice")
    stamps = [FrameStamp(number, NOW + round(number / 30, 4)) for number in range(90)]
    pictures = [pattern.draw(stamp, stamp.frame_number / 30) for stamp in stamps]
    read, small = 0, 0
    decoded = list(through_vp8(pictures, bitrate=250_000))
    assert len(decoded) == len(stamps)
    for stamp, picture in zip(stamps, decoded, strict=True):
        for size, luma in (
            ("full", luma_of(picture)),
            ("small", luma_of(picture.reformat(width=160, height=120))),
        ):
            seen = read_stamp(luma, near=NOW + 10)
            if seen is not None:
                assert seen.frame_number == stamp.frame_number
                assert seen.captured_at == pytest.approx(stamp.captured_at, abs=1e-4)
                read += size == "full"
                small += size == "small"
    assert read >= share * len(stamps)
    assert small >= share * len(stamps)


def test_the_strip_is_read_from_rgb_pictures() -> None:
    """A picture in another format is converted first."""
    frame = TestPattern(320, 240).draw(STAMP, 1.0)
    assert read_stamp(luma_of(frame.reformat(format="rgb24")), near=NOW) == STAMP
