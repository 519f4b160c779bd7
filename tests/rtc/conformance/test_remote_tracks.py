"""Remote tracks and streams, and the order of their events (webrtc-pc 4.4.1.5, 5.1.1)."""

from __future__ import annotations

from typing import Any

from calllab.rtc import AudioStreamTrack, MediaStream, VideoStreamTrack
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import Log, answer, local, negotiate, offer, peers
from tests.rtc.peers import audio_call


class Tracks:
    """Collects the track events of a peer."""

    def __init__(self, peer: Any) -> None:
        self.events: list[tuple[Any, Any, Any, list[MediaStream]]] = []
        peer.on("track", lambda *event: self.events.append(event))

    def streams(self) -> list[list[str]]:
        """Return the ids of the streams of each event."""
        return [[stream.id for stream in event[3]] for event in self.events]


@clause("5.7", "the track event has track, receiver, transceiver and streams")
async def test_5_7_track_event() -> None:
    """They belong together, and the track of a new transceiver has the id and kind that the sender's had."""
    async with peers() as (a, b):
        track = AudioStreamTrack()
        a.addTrack(track, MediaStream(id="s"))
        seen = Tracks(b)
        await offer(a, b)
        ((remote, receiver, transceiver, streams),) = seen.events
        assert receiver is transceiver.receiver
        assert remote is receiver.track
        assert (remote.kind, remote.id) == ("audio", track.id)
        assert [stream.id for stream in streams] == ["s"]
        assert streams[0].getTracks() == [remote]
        assert remote.muted


@clause("5.1.1", "a track event comes for each track that begins to be received, in the order of sections")
async def test_5_1_1_one_event_a_track() -> None:
    """Tracks that are only received here are announced; those that are only sent are not."""
    async with peers() as (a, b):
        for kind, direction in (("audio", "sendonly"), ("video", "recvonly"), ("video", "sendrecv")):
            a.addTransceiver(kind, direction=direction)  # type: ignore[arg-type]
        seen = Tracks(b)
        await offer(a, b)
        assert [event[2].mid for event in seen.events] == ["0", "2"]
        await answer(a, b)
        assert len(seen.events) == 2


@clause("5.1.1", "nothing is announced twice")
async def test_5_1_1_no_second_event() -> None:
    """Renegotiating without a change fires nothing, whoever offers."""
    async with peers() as (a, b):
        a.addTrack(AudioStreamTrack(), MediaStream())
        b.addTrack(AudioStreamTrack(), MediaStream())
        await negotiate(a, b)
        seen = Tracks(a), Tracks(b)
        await negotiate(a, b)
        await negotiate(b, a)
        assert [tracks.events for tracks in seen] == [[], []]


@clause("5.1.1", "the offerer is told with the answer")
async def test_5_1_1_the_offerer_is_told_with_the_answer() -> None:
    """The track of the answerer is announced when its answer is set."""
    async with peers() as (a, b):
        a.addTrack(AudioStreamTrack())
        b.addTrack(AudioStreamTrack(), MediaStream(id="b"))
        seen = Tracks(a)
        await offer(a, b)
        assert seen.events == []
        await answer(a, b)
        assert seen.streams() == [["b"]]


@clause("4.4.1.5", "events come after the state, streams before tracks, and all before the promise")
async def test_4_4_1_5_order_of_events() -> None:
    """signalingstatechange, then streams filled, then track; then setRemoteDescription() returns."""
    async with peers() as (a, b):
        a.addTrack(AudioStreamTrack(), MediaStream(id="s"))
        await negotiate(a, b)
        seen = Tracks(b)
        log = Log()
        b.on("signalingstatechange", lambda: log.entries.append(b.signalingState))
        b.on("track", lambda track, r, t, streams: log.entries.append(f"track {len(streams[0].getTracks())}"))
        a.addTrack(VideoStreamTrack(), MediaStream(id="s"))
        await offer(a, b)
        log.entries.append("returned")
        assert log.take() == ["have-remote-offer", "track 2", "returned"]
        assert seen.streams() == [["s"]]


@clause("4.4.1.5", "a removed track is muted and leaves its stream after the state, in this order")
@clause("5.1", "removeTrack: the peer's track leaves its streams and is muted")
async def test_4_4_1_5_order_of_removal() -> None:
    """signalingstatechange, mute, removetrack; and the track lives on in its transceiver."""
    async with audio_call() as call:
        stream = call.tracks[0][3][0] if call.tracks[0][0] == "b" else call.tracks[1][3][0]
        (track,) = stream.getTracks()
        assert not track.muted  # type: ignore[attr-defined]
        log = Log().watch(call.b, "signalingstatechange").watch(track, "mute", "ended")
        log.watch(stream, "removetrack", "addtrack")
        call.a.removeTrack(call.a.getSenders()[0])
        await offer(call.a, call.b)
        assert log.take() == ["signalingstatechange", "mute", "removetrack"]
        assert (track.readyState, track.muted) == ("live", True)  # type: ignore[attr-defined]
        assert call.b.getReceivers()[0].track is track


@clause("4.4.1.5", "an answer of ours that refuses a track takes it away with the same events")
async def test_4_4_1_5_removal_by_our_own_answer() -> None:
    """A direction set before answering mutes and removes the track when the answer is set."""
    async with audio_call() as call:
        (transceiver,) = call.b.getTransceivers()
        stream = next(event[3][0] for event in call.tracks if event[0] == "b")
        track = transceiver.receiver.track
        await offer(call.a, call.b)
        transceiver.direction = "sendonly"
        log = Log().watch(call.b, "signalingstatechange").watch(track, "mute").watch(stream, "removetrack")
        await answer(call.a, call.b)
        assert log.take() == ["signalingstatechange", "mute", "removetrack"]
        assert transceiver.currentDirection == "sendonly"


@clause("5.1.1", "a track that comes back is announced again, as the same object")
async def test_5_1_1_a_track_comes_back() -> None:
    """sendrecv to recvonly and back: the second event has the same track, and its stream is filled again."""
    async with peers() as (a, b):
        transceiver = a.addTrack(AudioStreamTrack(), MediaStream(id="s")).transceiver
        seen = Tracks(b)
        await negotiate(a, b)
        for direction in ("inactive", "sendonly"):
            transceiver.direction = direction  # type: ignore[assignment]
            await negotiate(a, b)
        first, second = seen.events
        assert first[0] is second[0]
        assert first[3][0] is second[3][0]
        assert second[3][0].getTracks() == [first[0]]


@clause("5.1.1", "a track that joins another stream is announced again")
@clause("5.2", "setStreams: the peer is told of other streams by negotiation")
async def test_5_1_1_streams_change() -> None:
    """A new stream means a track event; a stream that is only left means none."""
    async with peers() as (a, b):
        one, two = MediaStream(id="one"), MediaStream(id="two")
        sender = a.addTrack(AudioStreamTrack(), one)
        seen = Tracks(b)
        await negotiate(a, b)
        left = seen.events[0][3][0]
        log = Log().watch(left, "removetrack", "addtrack")
        for streams in ((one, two), (two,), ()):
            sender.setStreams(*streams)
            await negotiate(a, b)
        assert seen.streams() == [["one"], ["one", "two"]]
        assert log.take() == ["removetrack"]
        assert left.getTracks() == []
        assert b.getReceivers()[0].track.readyState == "live"


@clause("5.1.1", "the streams of an event are in the order of the a=msid lines")
@clause("2", "a track may be in several streams", document="RFC 8830")
async def test_5_1_1_several_streams() -> None:
    """A track in three streams is in three streams at the other end, in the same order, each named once."""
    async with peers() as (a, b):
        streams = [MediaStream(id=name) for name in ("z", "a", "m")]
        a.addTrack(AudioStreamTrack(), streams[1])
        a.addTrack(VideoStreamTrack(), *streams, streams[0])
        seen = Tracks(b)
        await negotiate(a, b)
        assert seen.streams() == [["a"], ["z", "a", "m"]]
        assert seen.events[0][3][0] is seen.events[1][3][1]
        assert len(seen.events[0][3][0].getTracks()) == 2


@clause("5.1.1", "a track without streams is announced without streams")
@clause("2", "a stream id of - means none", document="RFC 8830")
async def test_5_1_1_no_streams() -> None:
    """A track that was added alone comes with an empty list, and its id is signalled all the same."""
    async with peers() as (a, b):
        track = AudioStreamTrack()
        a.addTrack(track)
        seen = Tracks(b)
        await offer(a, b)
        assert f"a=msid:- {track.id}" in local(a).sdp
        assert seen.streams() == [[]]
        assert seen.events[0][0].id == track.id


@clause("5.10", "the tracks of a peer that signals no msid are in one default stream", document="RFC 9429")
async def test_9429_5_10_no_msid() -> None:
    """Tracks are announced with ids of our own, and with a stream that all of them share, now and later."""
    async with peers() as (a, b):
        a.addTrack(AudioStreamTrack(), MediaStream(id="s"))
        a.addTrack(VideoStreamTrack(), MediaStream(id="t"))
        made = await a.createOffer()
        kept = [line for line in made.sdp.split("\r\n") if "msid" not in line]
        seen = Tracks(b)
        await b.setRemoteDescription({"type": "offer", "sdp": "\r\n".join(kept)})
        (audio, _, _, (stream,)), (video, _, _, (same,)) = seen.events
        assert stream is same
        assert stream.getTracks() == [audio, video]
        assert stream.id not in ("s", "t")
        assert audio.id != video.id
        await b.setRemoteDescription({"type": "rollback"})
        await b.setRemoteDescription({"type": "offer", "sdp": "\r\n".join(kept)})
        assert seen.events[2][3] == [stream]


@clause("4.3", "the id of a track never changes", document="mediacapture-streams")
async def test_streams_4_3_the_id_of_a_track_stays() -> None:
    """A transceiver that was made here has a track with an id of its own, whatever the peer calls it."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio")
        before = transceiver.receiver.track.id
        sent = AudioStreamTrack()
        b.addTrack(sent, MediaStream(id="s"))
        seen = Tracks(a)
        await negotiate(a, b)
        assert seen.events[0][0].id == before != sent.id


@clause("5.1.1", "what the application does to a stream is not undone, and does not confuse what is told")
async def test_5_1_1_the_application_may_change_streams() -> None:
    """A track that the application took out of a stream comes back when the peer adds it to it again."""
    async with peers() as (a, b):
        sender = a.addTrack(AudioStreamTrack(), MediaStream(id="s"))
        seen = Tracks(b)
        await negotiate(a, b)
        track, _, _, (stream,) = seen.events[0]
        log = Log().watch(stream, "addtrack", "removetrack")
        stream.removeTrack(track)
        await negotiate(a, b)
        assert stream.getTracks() == []
        sender.setStreams()
        await negotiate(a, b)
        assert log.take() == []
        sender.setStreams(MediaStream(id="s"))
        await negotiate(a, b)
        assert log.take() == ["addtrack"]
        assert stream.getTracks() == [track]


@clause("5.1.1", "a handler may add tracks before the answer is made")
async def test_5_1_1_a_track_handler_may_answer_with_a_track() -> None:
    """What addTrack() does in a track handler is in the answer, in the same section."""
    async with peers() as (a, b):
        a.addTrack(AudioStreamTrack())
        b.on("track", lambda *event: b.addTrack(AudioStreamTrack()))
        await negotiate(a, b)
        assert [t.currentDirection for t in a.getTransceivers()] == ["sendrecv"]


@clause("5.1.1", "the track of a section that is refused for want of a codec is not announced")
async def test_5_1_1_no_track_without_codec() -> None:
    """A section that cannot be accepted brings no track, and the others are told."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        a.addTransceiver("video")
        made = await a.createOffer()
        seen = Tracks(b)
        text = made.sdp.replace("VP8/90000", "X/90000").replace("H264/90000", "Y/90000")
        await b.setRemoteDescription({"type": "offer", "sdp": text})
        assert [event[0].kind for event in seen.events] == ["audio"]
