"""Groups of tracks that belong together (W3C mediacapture-streams section 4.2)."""

from __future__ import annotations

from collections.abc import Iterable

from calllab._aiortc import MediaStreamTrack, new_uuid
from calllab.emitter import Emitter, EventHandler

__all__ = ["MediaStream", "ids_of"]


class MediaStream(Emitter):
    """A set of tracks with an id.

    The events ``addtrack`` and ``removetrack`` (payload: the track) fire when the peer changes the set, not
    when the application does.
    """

    onaddtrack = EventHandler()
    onremovetrack = EventHandler()

    def __init__(
        self, tracks: Iterable[MediaStreamTrack] | MediaStream = (), *, id: str | None = None
    ) -> None:
        super().__init__()
        self._id = id or new_uuid()
        source = tracks.getTracks() if isinstance(tracks, MediaStream) else tracks
        self._tracks: list[MediaStreamTrack] = list(dict.fromkeys(source))

    @property
    def id(self) -> str:
        """The id by which both peers know this stream."""
        return self._id

    @property
    def active(self) -> bool:
        """Whether a track of it is live."""
        return any(track.readyState == "live" for track in self._tracks)

    def getTracks(self) -> list[MediaStreamTrack]:
        """Return the tracks in the order in which they came."""
        return list(self._tracks)

    def getAudioTracks(self) -> list[MediaStreamTrack]:
        """Return the audio tracks."""
        return [track for track in self._tracks if track.kind == "audio"]

    def getVideoTracks(self) -> list[MediaStreamTrack]:
        """Return the video tracks."""
        return [track for track in self._tracks if track.kind == "video"]

    def getTrackById(self, track_id: str) -> MediaStreamTrack | None:
        """Return the track with this id, None if there is none."""
        return next((track for track in self._tracks if track.id == track_id), None)

    def addTrack(self, track: MediaStreamTrack) -> None:
        """Add a track; one that is in already is left there."""
        if track not in self._tracks:
            self._tracks.append(track)

    def removeTrack(self, track: MediaStreamTrack) -> None:
        """Remove a track; one that is not in is no error."""
        if track in self._tracks:
            self._tracks.remove(track)

    def clone(self) -> MediaStream:
        """Return a stream with another id and the same tracks (aiortc's tracks cannot be cloned)."""
        return MediaStream(self._tracks)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{track.kind} {track.id}" for track in self._tracks)
        return f"<MediaStream {self._id}: {kinds}>"


def ids_of(streams: Iterable[MediaStream]) -> list[str]:
    """Return the ids of ``streams``; raises TypeError for what is no stream."""
    found: list[str] = []
    for stream in streams:
        if not isinstance(stream, MediaStream):
            raise TypeError(f"a MediaStream is needed, not {type(stream).__name__}")
        found.append(stream.id)
    return found
