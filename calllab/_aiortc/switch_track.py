"""The track that an RTP sender really reads: its source may come, go, change and end."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, AudioResampler, VideoFrame

from calllab._aiortc.levels import AudioLevel, FrameRate

__all__ = ["SourceSnapshot", "SwitchTrack"]

logger = logging.getLogger(__name__)

_FRAMES_PER_S = 50
_OPUS_RATE = 48000
# webrtc-pc 5.2 has one black frame a second for a video track that has ended.
_BLACK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """What came from the track of a sender (W3C media-source)."""

    number: int
    """Of the sources that the sender had: one that comes back is another, and counts anew."""
    track_id: str
    frames: int
    frames_per_s: float | None
    width: int | None
    height: int | None
    audio_level: float | None
    total_audio_energy: float
    total_samples_duration_s: float


class SwitchTrack(MediaStreamTrack):
    """Stands between an RTP sender and the application's track.

    aiortc's RTP task ends for good when its track ends or raises (rtcrtpsender.py:408), and stops that track.
    This one never ends before the sender is stopped: it waits while there is no source, reads and drops while
    nothing may be sent, and lets the source be replaced while a read is under way.  A video source that has
    ended is black from then on, one frame a second of its last size; one that never gave a frame has no size
    and stays dark.
    """

    def __init__(self, kind: str, may_send: Callable[[], bool], on_asked: Callable[[], None]) -> None:
        super().__init__()
        self.kind = kind
        self.epoch = 0
        """Counts the sources; frames of different epochs share no time line."""
        self.handed_at = 0.0
        """Loop time at which the latest frame was handed out."""
        self._event_loop = asyncio.get_running_loop()
        self._may_send = may_send
        self._on_asked = on_asked
        self._source: MediaStreamTrack | None = None
        self._number = 0
        self._changed: asyncio.Future[None] = self._event_loop.create_future()
        self._chunker: _Chunker | None = None
        self._shape: tuple[str, str, int] | None = None
        self._ready: deque[Any] = deque()
        self._frames = 0
        self._size: tuple[int, int] | None = None
        self._shown: tuple[int, Fraction] | None = None
        """The time stamp of the latest picture, and its unit."""
        self._shown_at = 0.0
        self._black_from: float | None = None
        self._level = AudioLevel()
        self._rate = FrameRate()

    @property
    def source(self) -> MediaStreamTrack | None:
        """The application's track."""
        return self._source

    def set_source(self, source: MediaStreamTrack | None) -> None:
        """Read from another track, or from none."""
        if source is self._source:
            return
        self._source = source
        self._number += source is not None
        self.epoch += 1
        self._chunker = self._shape = None
        self._ready.clear()
        self._frames, self._size = 0, None
        self._shown = self._black_from = None
        self._level, self._rate = AudioLevel(), FrameRate()
        self._wake()

    def snapshot(self) -> SourceSnapshot | None:
        """Return what came from the present source so far; None without one."""
        if self._source is None:
            return None
        width, height = self._size if self._size is not None else (None, None)
        return SourceSnapshot(
            number=self._number,
            track_id=self._source.id,
            frames=self._frames,
            frames_per_s=self._rate.per_second(self._event_loop.time()) if self.kind == "video" else None,
            width=width,
            height=height,
            audio_level=self._level.level,
            total_audio_energy=self._level.energy,
            total_samples_duration_s=self._level.duration_s,
        )

    async def recv(self) -> Any:
        """Return the next frame that may be sent; raise MediaStreamError once the sender is stopped."""
        self._on_asked()
        while True:
            if self.readyState != "live":
                raise MediaStreamError
            if not self._ready:
                await self._read()
                continue
            frame = self._ready.popleft()
            if self._may_send():
                self.handed_at = self._event_loop.time()
                return frame

    async def _read(self) -> None:
        """Wait for a frame of the source, or for another source."""
        if self._changed.done():
            self._changed = self._event_loop.create_future()
        changed, source = self._changed, self._source
        if source is None:
            await asyncio.wait({changed})
            return
        if self._black_from is not None:
            await self._read_black(changed)
            return
        read: asyncio.Future[Any] = asyncio.ensure_future(source.recv())
        try:
            await asyncio.wait({read, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not read.done():
                read.cancel()
                await asyncio.wait({read})
        if read.cancelled() or self._source is not source:
            return
        error = read.exception()
        if error is not None:
            if not isinstance(error, MediaStreamError):
                logger.error(
                    "the %s track %s raised; it counts as ended", self.kind, source.id, exc_info=error
                )
            # W3C: an ended track stays the sender's track; its sound is not sent, its picture is black.
            self._black_from = self._event_loop.time()
            return
        self._take(read.result())

    async def _read_black(self, changed: asyncio.Future[None]) -> None:
        """Wait for the next black frame to be due, if there are to be any, or for another source."""
        now = self._event_loop.time()
        if self._size is None or self._shown is None or self._black_from is None:
            await asyncio.wait({changed})
        elif now < self._black_from:
            await asyncio.wait({changed}, timeout=self._black_from - now)
        else:
            self._black_from = now + _BLACK_EVERY_S
            pts, unit = self._shown
            black = _black(*self._size)
            black.pts, black.time_base = pts + max(1, round((now - self._shown_at) / unit)), unit
            self._ready.append(black)

    def _take(self, frame: Any) -> None:
        self._frames += 1
        if isinstance(frame, AudioFrame):
            self._level.add(frame)
            if self._chunker is None:
                self._chunker = _Chunker()
            chunks = self._chunker.chunks(frame)
            shape = _shape(chunks[0]) if chunks else self._shape
            if shape != self._shape:
                # An encoder is made for one shape: the next one begins a new line.
                self.epoch += self._shape is not None
                self._shape = shape
            self._ready.extend(chunks)
            return
        if isinstance(frame, VideoFrame):
            self._size = (frame.width, frame.height)
            self._shown_at = self._event_loop.time()
            self._rate.add(self._shown_at)
            if frame.pts is not None and frame.time_base:
                self._shown = frame.pts, frame.time_base
        self._ready.append(frame)

    def stop(self) -> None:
        """End the reading; the source is the application's and goes on."""
        super().stop()
        self._wake()

    def _wake(self) -> None:
        if not self._changed.done():
            self._changed.set_result(None)


def _black(width: int, height: int) -> VideoFrame:
    """Return a black frame, in the format that encoders take as it is."""
    black = VideoFrame(width, height, "yuv420p")
    for plane, value in zip(black.planes, (16, 128, 128), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return black


def _shape(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


class _Chunker:
    """Makes 20 ms frames of 16-bit samples of any audio.

    aiortc's encoders refuse other formats by assertion, and pack what is longer than 20 ms into several
    packets with one RTP timestamp (rtcrtpsender.py:384), which no receiver can take apart.
    """

    def __init__(self) -> None:
        self._resampler: AudioResampler | None = None
        self._shape: tuple[str, str, int] | None = None

    def chunks(self, frame: AudioFrame) -> list[AudioFrame]:
        shape = _shape(frame)
        fits = (
            self._resampler is None
            and shape[0] == "s16"
            and shape[1] in ("mono", "stereo")
            and frame.samples * _FRAMES_PER_S == frame.sample_rate
            and self._shape in (None, shape)
        )
        if fits:
            self._shape = shape
            return [frame]
        if self._resampler is None or shape != self._shape:
            self._resampler = AudioResampler(
                format="s16", layout="stereo", rate=_OPUS_RATE, frame_size=_OPUS_RATE // _FRAMES_PER_S
            )
            self._shape = shape
        return list(self._resampler.resample(frame))
