"""Media tracks: aiortc's base classes, and the track that carries what a peer sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeAlias

from aiortc.contrib.media import MediaPlayer
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, MediaStreamTrack, VideoStreamTrack
from aiortc.rtcrtpreceiver import RemoteStreamTrack
from av.frame import Frame

from calllab.emitter import Emitter, EventHandler

__all__ = [
    "AudioStreamTrack",
    "Kind",
    "MediaPlayer",
    "MediaStreamError",
    "MediaStreamTrack",
    "RemoteStreamTrack",
    "RemoteTrack",
    "VideoStreamTrack",
]

Kind = Literal["audio", "video"]

OnDecoded: TypeAlias = Callable[[Frame], Callable[[], None]]
"""Called with a decoded frame in the decoder thread; what it returns is called on the loop."""

# How many decoded frames wait for a reader: 2 s of audio, 1 s of video.
_MAX_WAITING = {"audio": 100, "video": 30}


class FrameQueue(asyncio.Queue[Frame | None]):
    """Decoded frames on their way to the reader of a track; None marks the end.

    The decoder thread puts without regard to whether anybody reads (rtcrtpreceiver.py:103), so the queue is
    bounded: the oldest frame gives way, as with a renderer that is late.
    """

    def __init__(self, limit: int, on_decoded: OnDecoded, on_late: Callable[[], None]) -> None:
        super().__init__()
        self._limit = limit
        self._on_decoded = on_decoded
        self._on_late = on_late

    def put(self, item: Frame | None) -> Coroutine[Any, Any, None]:
        """Add a frame; never waits.

        The decoder thread calls this; what it returns runs on the loop, when the thread may be at another
        frame already.
        """
        return self._added(item, self._on_decoded(item) if item is not None else None)

    async def _added(self, item: Frame | None, told: Callable[[], None] | None) -> None:
        if told is not None:
            told()
            while self.qsize() >= self._limit:
                self.get_nowait()
                self._on_late()
        self.put_nowait(item)


class RemoteTrack(Emitter, RemoteStreamTrack):  # type: ignore[misc]  # what a handler is has two types
    """The track of an RTP receiver (W3C mediacapture MediaStreamTrack, remote source).

    It emits ``mute`` and ``unmute`` when ``muted`` changes, and ``ended`` once.  It is an :class:`Emitter`
    because aiortc's own would let an application's handler of ``unmute`` raise into the task that reads all
    packets, and end the DTLS session (rtcdtlstransport.py:527).
    """

    onmute = EventHandler()
    onunmute = EventHandler()
    onended = EventHandler()

    def __init__(self, kind: Kind, on_decoded: OnDecoded, on_late: Callable[[], None]) -> None:
        Emitter.__init__(self)
        RemoteStreamTrack.__init__(self, kind)
        self._frames = FrameQueue(_MAX_WAITING[kind], on_decoded, on_late)
        # The decoder thread puts what it decodes here (rtcrtpreceiver.py:103).
        self._queue = self._frames
        self._muted = True
        self.read = False
        """Whether anybody ever asked for a frame."""

    @property
    def muted(self) -> bool:
        """Whether the peer sends nothing to it."""
        return self._muted

    def set_muted(self, muted: bool) -> None:
        """Change ``muted`` and say so, unless the track has ended."""
        if muted != self._muted and self.readyState == "live":
            self._muted = muted
            self.emit("mute" if muted else "unmute")

    def set_id(self, track_id: str) -> None:
        """Take the identifier that the peer signalled for it."""
        self._id = track_id

    def end(self) -> None:
        """End it for good: a waiting reader gets MediaStreamError."""
        if self.readyState == "live":
            self.stop()
        self._frames.put_nowait(None)

    async def recv(self) -> Any:
        """Receive the next frame; raise MediaStreamError once the track has ended."""
        self.read = True
        return await super().recv()
