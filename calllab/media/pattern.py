"""A moving test picture: colour bars, a sweeping clock, a ball in orbit, and a strip for machines."""

from __future__ import annotations

import asyncio
import colorsys
import fractions
import math
import random
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from av import VideoFrame

from calllab.errors import InvalidSetting
from calllab.media.frame_code import STRIP_SHARE, FrameStamp, write_stamp
from calllab.media.lettering import GLYPH_HEIGHT, text_mask, text_width
from calllab.media.pacing import PacedTrack

__all__ = ["TestPattern", "TestPatternTrack"]

Plane: TypeAlias = npt.NDArray[np.uint8]
Real: TypeAlias = npt.NDArray[np.float32]

CLOCK_RATE: Final = 90_000
TIME_BASE: Final = fractions.Fraction(1, CLOCK_RATE)
MIN_WIDTH, MIN_HEIGHT, MAX_SIZE = 160, 120, 4096
MAX_LABEL: Final = 12

# BT.601 colours, 75 % bars: grey, yellow, cyan, green, magenta, red, blue.
_BARS: Final = (
    (191, 191, 191),
    (191, 191, 0),
    (0, 191, 191),
    (0, 191, 0),
    (191, 0, 191),
    (191, 0, 0),
    (0, 0, 191),
)
_INK: Final = (235, 128, 128)
_NIGHT: Final = (30, 132, 125)
_SWEEP_S: Final = 2.0
"""The hand turns once in so many seconds."""


def _yuv(red: float, green: float, blue: float) -> tuple[float, float, float]:
    """Return the BT.601 limited-range colour of an RGB colour (0..255)."""
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return (
        16 + luma * 219 / 255,
        128 + (blue - luma) * 112 / (0.886 * 255),
        128 + (red - luma) * 112 / (0.701 * 255),
    )


class _Canvas:
    """The three planes of a yuv420p picture in one block of memory, as PyAV takes it."""

    def __init__(self, width: int, height: int) -> None:
        self.block = np.empty((height * 3 // 2, width), np.uint8)
        flat = self.block.reshape(-1)
        size, quarter = width * height, width * height // 4
        self.y = flat[:size].reshape(height, width)
        self.u = flat[size : size + quarter].reshape(height // 2, width // 2)
        self.v = flat[size + quarter :].reshape(height // 2, width // 2)

    def fill(self, top: int, bottom: int, left: int, right: int, colour: tuple[float, float, float]) -> None:
        self.y[top:bottom, left:right] = round(colour[0])
        self.u[top // 2 : bottom // 2, left // 2 : right // 2] = round(colour[1])
        self.v[top // 2 : bottom // 2, left // 2 : right // 2] = round(colour[2])

    def blend(self, top: int, left: int, cover: Real, colour: tuple[float | Real, float, float]) -> None:
        """Lay ``colour`` over a patch at even coordinates, as opaque as ``cover`` (0..1) says."""
        height, width = cover.shape
        # A chroma sample is shared by four pixels.
        coarse = (cover[::2, ::2] + cover[1::2, ::2] + cover[::2, 1::2] + cover[1::2, 1::2]) * np.float32(
            0.25
        )
        box = (slice(top, top + height), slice(left, left + width))
        half = (slice(top // 2, (top + height) // 2), slice(left // 2, (left + width) // 2))
        for plane, place, value, opaque in zip(
            (self.y, self.u, self.v), (box, half, half), colour, (cover, coarse, coarse), strict=True
        ):
            patch = plane[place].astype(np.float32)
            patch += (np.asarray(value, np.float32) - patch) * opaque
            plane[place] = patch

    def write(self, text: str, top: int, left: int, scale: int, colour: tuple[float, float, float]) -> None:
        mask = text_mask(text, scale)
        height, width = mask.shape
        self.y[top : top + height, left : left + width][mask] = round(colour[0])


def _even(value: float) -> int:
    return int(value) // 2 * 2


class TestPattern:
    """Draws the picture of any moment; no clock of its own.

    :param width, height: even, at least 160 x 120.
    :param seed: colours and orbits.
    :param label: a short name, shown in the picture.
    """

    __test__ = False  # not a test, though its name begins like one

    def __init__(self, width: int = 640, height: int = 480, *, seed: int = 0, label: str = "") -> None:
        for name, value, least in (("width", width, MIN_WIDTH), ("height", height, MIN_HEIGHT)):
            if not isinstance(value, int) or not least <= value <= MAX_SIZE or value % 2:
                raise InvalidSetting(
                    f"{name}={value!r}: give an even number of pixels from {least} to {MAX_SIZE}"
                )
        self.width, self.height = width, height
        chance = random.Random(f"pattern/{seed}")
        hue = chance.random()
        self._accent = _yuv(*(255 * part for part in colorsys.hsv_to_rgb(hue, 0.75, 1.0)))
        self._orbit = (chance.uniform(0, math.tau), chance.uniform(0, math.tau), chance.choice((-1, 1)))
        self._strip_top = height - round(height * STRIP_SHARE)
        self._scale = max(1, height // 170)
        self._label = label[:MAX_LABEL]
        bar = GLYPH_HEIGHT * self._scale + 2 * max(4, height // 60)
        self._info_top = _even(self._strip_top - bar)
        self._dial_radius = _even(self._info_top * 0.36)
        self._centre = (_even(self._info_top / 2), _even(width / 2))
        self._ball_radius = max(6, round(height * 0.055))
        self._background = self._draw_background()
        self._measure_sweep()

    def draw(self, stamp: FrameStamp | None, elapsed_s: float) -> VideoFrame:
        """Return the picture ``elapsed_s`` seconds into the film, stamped if there is a stamp."""
        canvas = _Canvas(self.width, self.height)
        canvas.block[:] = self._background.block
        self._draw_hand(canvas, elapsed_s)
        self._draw_ball(canvas, elapsed_s)
        self._draw_info(canvas, 0 if stamp is None else stamp.frame_number, elapsed_s)
        if stamp is not None:
            write_stamp(canvas.y, stamp)
        return VideoFrame.from_ndarray(canvas.block, format="yuv420p")

    def _draw_background(self) -> _Canvas:
        canvas = _Canvas(self.width, self.height)
        width, top = self.width, self._info_top
        canvas.fill(0, self.height, 0, width, _NIGHT)
        bars_end, ramp_end = _even(top * 0.72), _even(top * 0.86)
        for index, rgb in enumerate(_BARS):
            left, right = _even(index * width / 7), _even((index + 1) * width / 7)
            canvas.fill(0, bars_end, left, right, _yuv(*rgb))
            # Below the bars: the same colours in reverse, darker, so that hue errors meet at the seam.
            reverse = [part * 0.55 for part in _BARS[6 - index]]
            canvas.fill(ramp_end, top, left, right, _yuv(*reverse))
        canvas.fill(bars_end, ramp_end, 0, width, _NIGHT)
        canvas.y[bars_end:ramp_end] = np.linspace(16, 235, width).astype(np.uint8)
        canvas.u[bars_end // 2 : ramp_end // 2] = 128
        canvas.v[bars_end // 2 : ramp_end // 2] = 128
        # The lower part is one dark panel: lettering, then the strip.
        canvas.fill(top, self.height, 0, width, _NIGHT)
        canvas.u[self._strip_top // 2 :] = 128
        canvas.v[self._strip_top // 2 :] = 128
        self._draw_dial(canvas)
        return canvas

    def _box(self, reach: int) -> tuple[int, int, Real, Real]:
        """Return the top and left of a box around the centre, and its pixels' distances and clock angles."""
        line = np.arange(2 * reach, dtype=np.float32) - reach + np.float32(0.5)
        down, right = line[:, None], line[None, :]
        angle = np.arctan2(right, -down)
        angle[angle < 0] += math.tau
        return self._centre[0] - reach, self._centre[1] - reach, np.hypot(down, right), angle

    def _draw_dial(self, canvas: _Canvas) -> None:
        radius = self._dial_radius
        top, left, distance, angle = self._box(radius + 4)
        canvas.blend(top, left, np.clip(radius + 2.5 - distance, 0, 1), _INK)
        canvas.blend(top, left, np.clip(radius - distance, 0, 1), _NIGHT)
        for tick in range(12):
            long = tick % 3 == 0
            apart = np.abs(angle - tick * math.tau / 12)
            off = np.minimum(apart, math.tau - apart) * distance
            inner = radius * (0.82 if long else 0.89)
            thick = max(1.0, radius / (45 if long else 80))
            on = np.clip(thick + 0.5 - off, 0, 1) * np.clip(distance - inner, 0, 1)
            canvas.blend(top, left, on * np.clip(radius * 0.96 - distance, 0, 1), _INK)

    def _measure_sweep(self) -> None:
        reach = self._dial_radius * 0.78
        box = self._box(_even(reach) + 2)
        self._sweep_top, self._sweep_left, self._sweep_distance, self._sweep_angle = box
        self._sweep_inside = np.clip(reach - self._sweep_distance, 0, 1)
        self._hub = np.clip(self._dial_radius * 0.07 + 0.5 - self._sweep_distance, 0, 1)

    def _draw_hand(self, canvas: _Canvas, elapsed_s: float) -> None:
        """Draw a hand with a tail that fades behind it."""
        behind = np.float32(elapsed_s / _SWEEP_S % 1.0 * math.tau) - self._sweep_angle
        behind[behind < 0] += math.tau
        tail = np.clip(np.float32(0.7) - behind * np.float32(0.5), 0, 1) * self._sweep_inside
        canvas.blend(self._sweep_top, self._sweep_left, tail, self._accent)
        off = np.minimum(behind, math.tau - behind) * self._sweep_distance
        thick = max(1.0, self._dial_radius / 60)
        hand = np.clip(thick + 0.5 - off, 0, 1) * self._sweep_inside
        canvas.blend(self._sweep_top, self._sweep_left, np.maximum(hand, self._hub), _INK)

    def _draw_ball(self, canvas: _Canvas, elapsed_s: float) -> None:
        """Draw a lit ball on a Lissajous orbit around the dial."""
        phase_x, phase_y, turn = self._orbit
        radius = self._ball_radius
        reach_x = self.width / 2 - radius - 4
        reach_y = self._info_top / 2 - radius - 4
        x = self.width / 2 + reach_x * math.sin(turn * elapsed_s * math.tau / 5.0 + phase_x)
        y = self._info_top / 2 + reach_y * math.sin(elapsed_s * math.tau / 3.0 + phase_y)
        side = 2 * (radius + 2)
        left, top = _even(x - radius - 1), _even(y - radius - 1)
        down = np.arange(side, dtype=np.float32)[:, None] + top + 0.5 - y
        right = np.arange(side, dtype=np.float32)[None, :] + left + 0.5 - x
        cover = np.clip(radius - np.hypot(down, right), 0, 1)
        light = 1.0 - np.hypot(down + 0.4 * radius, right + 0.4 * radius) / (1.9 * radius)
        luma = 60 + 175 * np.clip(light, 0, 1) ** 0.9
        canvas.blend(top, left, cover, (luma, self._accent[1], self._accent[2]))

    def _draw_info(self, canvas: _Canvas, number: int, elapsed_s: float) -> None:
        scale = self._scale
        top = self._info_top + (self._strip_top - self._info_top - GLYPH_HEIGHT * scale) // 2
        margin = max(4, self.width // 40)
        minutes, seconds = divmod(elapsed_s, 60)
        clock = f"{int(minutes) % 100:02}:{seconds:05.2f}"
        count = f"#{number % 1_000_000:06}"
        count_left = self.width - margin - text_width(count, scale)
        clock_left = (self.width - text_width(clock, scale)) // 2
        canvas.write(count, top, count_left, scale, _INK)
        label_room = self.width - 2 * margin - text_width(count, scale)
        if self._label:
            label = self._label
            while text_width(label, scale) > clock_left - 2 * margin:
                label = label[:-1]
            canvas.write(label, top, margin, scale, _INK)
        else:
            clock_left = margin
        if clock_left + text_width(clock, scale) < margin + label_room:
            canvas.write(clock, top, clock_left, scale, _INK)


class TestPatternTrack(PacedTrack):
    """A video track that shows a :class:`TestPattern`, stamped with frame number and capture time.

    :param width, height: even, at least 160 x 120.
    :param fps: 1 to 120.
    :param seed: colours and orbits.
    :param label: a short name, shown in the picture.
    """

    __test__ = False  # not a test, though its name begins like one

    kind = "video"

    def __init__(
        self, width: int = 640, height: int = 480, fps: float = 30.0, *, seed: int = 0, label: str = ""
    ) -> None:
        if isinstance(fps, bool) or not isinstance(fps, int | float) or not 1.0 <= fps <= 120.0:
            raise InvalidSetting(f"fps={fps!r}: give a number from 1 to 120")
        # A frame that is a whole interval late is worth nothing: the next one is due.
        super().__init__(1.0 / fps, patience_s=1.0 / fps)
        self._pattern = TestPattern(width, height, seed=seed, label=label)
        self.width, self.height, self.fps = width, height, float(fps)

    async def recv(self) -> VideoFrame:
        """Return the next picture when it is due; raises MediaStreamError once the track has ended."""
        number, _ = await self._next_frame()
        stamp = FrameStamp(number, asyncio.get_running_loop().time())
        frame = self._pattern.draw(stamp, number / self.fps)
        frame.pts = round(number * CLOCK_RATE / self.fps)
        frame.time_base = TIME_BASE
        return frame
