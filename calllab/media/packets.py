"""Tracks that hand out media which was encoded before the call: real packets without the work of encoding.

A short film and a few words are encoded once for each size and rate, and repeated without end.  Their bitrate
is what it is: such a sender does not follow what its peer asks for, and has a key frame every second instead
of on demand.  Their pictures and sounds carry no time code, for it would tell the time of the first round.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from av import AudioFrame, CodecContext
from av.packet import Packet

from calllab.errors import InvalidSetting
from calllab.media.audio_code import SAMPLE_RATE, SLOT_S, SLOT_SAMPLES
from calllab.media.pacing import PacedTrack
from calllab.media.pattern import TestPattern
from calllab.media.speech import SpeechVoice

__all__ = ["EncodedSpeechTrack", "EncodedVideoTrack"]

FILM_S: Final = 4
_VIDEO_CLOCK: Final = 90_000
_OPUS_BITRATE: Final = 96_000
_BITS_PER_PIXEL: Final = 0.1


@dataclass(frozen=True, slots=True)
class _Reel:
    """What is repeated: one encoded frame for each tick."""

    frames: tuple[bytes, ...]


@functools.lru_cache(maxsize=16)
def _film(width: int, height: int, fps: int, bitrate: int, seed: int) -> _Reel:
    codec: Any = CodecContext.create("libvpx", "w")
    codec.width, codec.height = width, height
    codec.pix_fmt = "yuv420p"
    codec.bit_rate = bitrate
    codec.gop_size = fps
    codec.time_base = Fraction(1, fps)
    codec.thread_count = 1
    codec.options = {"cpu-used": "-6", "deadline": "realtime", "lag-in-frames": "0"}
    pattern = TestPattern(width, height, seed=seed)
    frames = []
    for number in range(FILM_S * fps):
        picture = pattern.draw(None, number / fps)
        picture.pts, picture.time_base = number, codec.time_base
        frames.append(b"".join(bytes(packet) for packet in codec.encode(picture)))
    return _Reel(tuple(frames))


@functools.lru_cache(maxsize=16)
def _words(seed: int) -> _Reel:
    codec: Any = CodecContext.create("libopus", "w")
    codec.bit_rate = _OPUS_BITRATE
    codec.format, codec.layout, codec.sample_rate = "s16", "mono", SAMPLE_RATE
    codec.options = {"application": "voip"}
    codec.time_base = Fraction(1, SAMPLE_RATE)
    voice = SpeechVoice(seed)
    frames: list[bytes] = []
    number = 0
    while len(frames) < round(FILM_S / SLOT_S):
        integers = (np.clip(voice.frame(number), -1.0, 1.0) * 32767).astype(np.int16)
        sound = AudioFrame.from_ndarray(integers[None, :], format="s16", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE, number * SLOT_SAMPLES, codec.time_base
        frames += [bytes(packet) for packet in codec.encode(sound)]
        number += 1
    return _Reel(tuple(frames))


def _packet(frames: Sequence[bytes], number: int, pts: int, time_base: Fraction) -> Packet[Any]:
    packet: Packet[Any] = Packet(frames[number % len(frames)])
    packet.pts, packet.time_base = pts, time_base
    return packet


class EncodedVideoTrack(PacedTrack):
    """A video track of VP8 frames that were encoded beforehand: a :class:`TestPattern`, over and over.

    The call must have negotiated VP8.

    :param fps: a whole number, 1 to 120.
    :param bitrate: in bits per second; None: a tenth of a bit for each pixel.

    Raises :exc:`~calllab.errors.InvalidSetting` for what cannot be encoded.
    """

    kind = "video"

    def __init__(
        self,
        width: int = 640,
        height: int = 480,
        fps: float = 30.0,
        *,
        bitrate: int | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(fps, bool) or fps != int(fps) or not 1 <= fps <= 120:
            raise InvalidSetting(f"fps={fps!r}: give a whole number from 1 to 120")
        super().__init__(1.0 / fps, patience_s=1.0 / fps)
        self.width, self.height, self.fps = width, height, float(fps)
        chosen = bitrate if bitrate is not None else max(50_000, int(width * height * fps * _BITS_PER_PIXEL))
        self._reel = _film(width, height, int(fps), chosen, seed)

    async def recv(self) -> Packet[Any]:
        """Return the next picture when it is due; raises MediaStreamError once the track has ended."""
        number, _ = await self._next_frame()
        pts = round(number * _VIDEO_CLOCK / self.fps)
        return _packet(self._reel.frames, number, pts, Fraction(1, _VIDEO_CLOCK))


class EncodedSpeechTrack(PacedTrack):
    """An audio track of Opus packets that were encoded beforehand: some words, over and over.

    The call must have negotiated Opus.
    """

    kind = "audio"

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(SLOT_S, patience_s=10 * SLOT_S)
        self._reel = _words(seed)

    async def recv(self) -> Packet[Any]:
        """Return the next 20 ms when they are due; raises MediaStreamError once the track has ended."""
        number, _ = await self._next_frame()
        return _packet(self._reel.frames, number, number * SLOT_SAMPLES, Fraction(1, SAMPLE_RATE))
