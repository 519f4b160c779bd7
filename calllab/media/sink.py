"""The far end of a track: takes its frames as they come and measures what a person would have got."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Self

import numpy as np
from av import AudioFrame, VideoFrame

from calllab._aiortc import MediaStreamError, MediaStreamTrack
from calllab.media.audio_code import SAMPLE_RATE, AudioTimeReader, Samples
from calllab.media.frame_code import luma_of, read_stamp
from calllab.media.playout import PlayoutMeter, PlayoutSummary

__all__ = ["MediaSink"]

logger = logging.getLogger(__name__)

_RTP_PERIOD: Final = 1 << 32
_NEW_SOURCE_S: Final = 60.0
"""Timestamps of sound that jump further belong to a new source."""


class MediaSink:
    """Consumes a track in a task of its own, until the track ends or the sink is stopped.

    Use it as an async context manager, or :meth:`start` and :meth:`stop` it.  It never stops the track.  A
    track that fails in an unforeseen way ends the sink, and :meth:`stop` raises what happened.

    :param track: audio or video; each frame that this sink takes, no other consumer gets.
    :param on_frame: called with each frame after it was measured.
    """

    def __init__(
        self,
        track: MediaStreamTrack,
        *,
        on_frame: Callable[[AudioFrame | VideoFrame], None] | None = None,
    ) -> None:
        if track.kind not in ("audio", "video"):
            raise ValueError(f"a track of kind {track.kind!r} cannot be played: give an audio or video track")
        self.track = track
        self.ended = False
        """Whether the track has ended."""
        self._on_frame = on_frame
        self._meter: PlayoutMeter | None = None
        self._task: asyncio.Task[None] | None = None
        self._reader = AudioTimeReader()
        self._timestamp: int | None = None  # audio: of the next sample that continues the sound
        self._count = 0  # audio: the frame that the timestamps have come to
        self._stopped_at: float | None = None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin to take frames; the loop that runs must be the track's."""
        if self._task is not None:
            raise RuntimeError("this sink was started before: make a new one for the track")
        loop = asyncio.get_running_loop()
        self._meter = PlayoutMeter("audio" if self.track.kind == "audio" else "video", loop.time())
        self._task = loop.create_task(
            self._run(loop, self._meter), name=f"sink {self.track.kind} {self.track.id}"
        )

    async def stop(self) -> None:
        """Take no more frames; what was measured stays.  May be called twice."""
        if self._task is None:
            return
        self._task.cancel()
        # Waits without taking over the task's outcome: a cancellation that comes out is the caller's own.
        await asyncio.wait((self._task,))
        self._end()
        if not self._task.cancelled() and (failure := self._task.exception()) is not None:
            raise failure

    async def wait_ended(self) -> None:
        """Return once the track has ended, or the sink was stopped."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    @property
    def total(self) -> PlayoutSummary:
        """What arrived since the start."""
        return self._running_meter().total(self._now())

    def take(self) -> PlayoutSummary:
        """Return what arrived since the last take, or the start."""
        return self._running_meter().take(self._now())

    def _running_meter(self) -> PlayoutMeter:
        if self._meter is None:
            raise RuntimeError("the sink was not started: use `async with sink`, or call start() first")
        return self._meter

    def _now(self) -> float:
        return asyncio.get_running_loop().time() if self._stopped_at is None else self._stopped_at

    def _end(self) -> None:
        # A track that has ended is not frozen, so the measuring ends with it.
        if self._stopped_at is None:
            self._stopped_at = asyncio.get_running_loop().time()

    async def _run(self, loop: asyncio.AbstractEventLoop, meter: PlayoutMeter) -> None:
        try:
            while True:
                frame = await self.track.recv()
                now = loop.time()
                meter.arrived(now)
                if isinstance(frame, VideoFrame):
                    self._watch(meter, frame, now)
                elif isinstance(frame, AudioFrame):
                    self._listen(meter, frame, now)
                if self._on_frame is not None and isinstance(frame, AudioFrame | VideoFrame):
                    self._show(self._on_frame, frame)
        except MediaStreamError:
            self.ended = True
        finally:
            self._end()

    def _show(
        self, on_frame: Callable[[AudioFrame | VideoFrame], None], frame: AudioFrame | VideoFrame
    ) -> None:
        try:
            on_frame(frame)
        except Exception:
            logger.exception("the on_frame callback of a sink failed; the sink goes on")

    def _watch(self, meter: PlayoutMeter, frame: VideoFrame, now: float) -> None:
        meter.size = (frame.width, frame.height)
        stamp = read_stamp(luma_of(frame), near=now)
        if stamp is None:
            meter.unreadable()
            return
        meter.stamped(stamp.frame_number, stamp.captured_at)
        meter.measured(now - stamp.captured_at)

    def _listen(self, meter: PlayoutMeter, frame: AudioFrame, now: float) -> None:
        continues = True
        if frame.pts is not None and frame.samples:
            # RTP timestamps wrap; a difference is the shortest way round.
            ahead = 0
            if self._timestamp is not None:
                ahead = (frame.pts - self._timestamp + _RTP_PERIOD // 2) % _RTP_PERIOD - _RTP_PERIOD // 2
                if abs(ahead) > _NEW_SOURCE_S * frame.sample_rate:
                    meter.restarted()
                self._count += 1 + round(ahead / frame.samples)
            self._timestamp = frame.pts + frame.samples
            continues = ahead == 0
            meter.stamped(self._count)
        if frame.sample_rate != SAMPLE_RATE:
            return
        if not continues:
            self._reader.reset()
        for latency_s in self._reader.hear(_mono(frame), now):
            meter.measured(latency_s)


def _mono(frame: AudioFrame) -> Samples:
    """Return the samples of a frame, all channels mixed, of full scale 1."""
    values = frame.to_ndarray()
    scale = 1.0 if values.dtype.kind == "f" else 2.0 ** (8 * values.dtype.itemsize - 1)
    channels = frame.layout.nb_channels
    planes = values if frame.format.is_planar else values.reshape(-1, channels).T
    mono: Samples = (planes.mean(axis=0) / scale).astype(np.float32)
    return mono
