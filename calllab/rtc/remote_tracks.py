"""What the application sees of the peer's tracks: MediaStreams and events (webrtc-pc section 5.1.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from calllab._aiortc import MediaStreamTrack
from calllab.emitter import Emitter
from calllab.rtc.mediastream import MediaStream
from calllab.rtc.transceiver import RTCRtpTransceiver

__all__ = ["RemoteTracks", "TrackChanges"]


@dataclass(slots=True)
class TrackChanges:
    """What a description does to remote tracks, collected to be told after the signaling state."""

    muted: list[RTCRtpTransceiver] = field(default_factory=list)
    left: list[tuple[MediaStream, MediaStreamTrack]] = field(default_factory=list)
    joined: list[tuple[MediaStream, MediaStreamTrack]] = field(default_factory=list)
    started: list[tuple[int, RTCRtpTransceiver]] = field(default_factory=list)
    ended: list[RTCRtpTransceiver] = field(default_factory=list)


class RemoteTracks:
    """The MediaStreams that the peer names, and which tracks it puts into them.

    A stream is the same object for as long as the connection lives, even while nothing is in it.  The
    application may change its contents as it likes: what the peer does is reckoned from what the peer said
    before, not from what is in the stream.
    """

    def __init__(self) -> None:
        self._streams: dict[str, MediaStream] = {}
        self._associated: dict[int, tuple[str, ...]] = {}

    def associate(
        self, id_: int, transceiver: RTCRtpTransceiver, stream_ids: tuple[str, ...], changes: TrackChanges
    ) -> None:
        """Note that the track belongs to exactly these streams from now on ("set the associated remote
        streams").
        """
        track, before = transceiver.receiver.track, self._associated.get(id_, ())
        changes.left += [(self._streams[known], track) for known in before if known not in stream_ids]
        for stream_id in stream_ids:
            stream = self._streams.setdefault(stream_id, MediaStream(id=stream_id))
            if stream_id not in before:
                changes.joined.append((stream, track))
        self._associated[id_] = stream_ids

    @staticmethod
    def start(id_: int, transceiver: RTCRtpTransceiver, changes: TrackChanges) -> None:
        """Note that the track is to be announced ("process the addition of a remote track")."""
        changes.started.append((id_, transceiver))

    def stop(self, id_: int, transceiver: RTCRtpTransceiver, changes: TrackChanges) -> None:
        """Note that the track ends ("stop the RTCRtpTransceiver")."""
        self.associate(id_, transceiver, (), changes)
        del self._associated[id_]
        changes.started = [entry for entry in changes.started if entry[1] is not transceiver]
        changes.ended.append(transceiver)

    def tell(self, changes: TrackChanges, events: Emitter) -> None:
        """Carry the changes out and fire their events, in the order of webrtc-pc 4.4.1.5."""
        for transceiver in changes.muted:
            transceiver.receiver.media.set_active(False)
        for stream, track in changes.left:
            if track in stream.getTracks():
                stream.removeTrack(track)
                stream.emit("removetrack", track)
        for stream, track in changes.joined:
            if track not in stream.getTracks():
                stream.addTrack(track)
                stream.emit("addtrack", track)
        # What a handler changes does not change what the others are told.
        announced = [
            (transceiver, [self._streams[stream_id] for stream_id in self._associated.get(id_, ())])
            for id_, transceiver in changes.started
        ]
        for transceiver, streams in announced:
            events.emit("track", transceiver.receiver.track, transceiver.receiver, transceiver, streams)
        for transceiver in changes.ended:
            transceiver.receiver.media.track.end()
