"""Taking offers back, ours and theirs, and what happens to transceivers and tracks (webrtc-pc 4.4.1.5)."""

from __future__ import annotations

import pytest

from calllab.rtc import (
    AudioStreamTrack,
    InvalidAccessError,
    MediaStream,
    RTCRtpTransceiver,
    VideoStreamTrack,
)
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import Log, answer, local, negotiate, offer, peers, without_candidates
from tests.rtc.peers import turns


@clause("4.4.1.5", "rolling back a local offer gives the mids back")
async def test_4_4_1_5_local_rollback_disassociates() -> None:
    """A transceiver that the offer gave a mid has none afterwards, and remains; others keep theirs."""
    async with peers() as (a, b):
        old = a.addTransceiver("audio")
        await negotiate(a, b)
        new = a.addTransceiver("video")
        await a.setLocalDescription()
        assert (old.mid, new.mid) == ("0", "1")
        await a.setLocalDescription({"type": "rollback"})
        assert (old.mid, new.mid) == ("0", None)
        assert a.getTransceivers() == [old, new]
        assert a.signalingState == "stable"
        assert a.pendingLocalDescription is None


@clause("4.4.1.5", "rolling back a local offer gives the transports back")
@clause("5.2", "transport is null until a description of ours has the section")
async def test_4_4_1_5_rollback_of_transports() -> None:
    """sender.transport comes with our own description, never with the peer's, and goes with a rollback."""
    async with peers() as (a, b):
        mine = a.addTransceiver("audio")
        assert mine.sender.transport is mine.receiver.transport is None
        await a.setLocalDescription()
        assert mine.sender.transport is mine.receiver.transport is not None
        await a.setLocalDescription({"type": "rollback"})
        assert mine.sender.transport is None
        await offer(a, b)
        (theirs,) = b.getTransceivers()
        assert (theirs.mid, theirs.sender.transport) == ("0", None)
        await answer(a, b)
        assert theirs.sender.transport is theirs.receiver.transport is not None


@clause("4.4.1.5", "rolling back the first offer takes the gathering back")
async def test_4_4_1_5_rollback_of_gathering() -> None:
    """iceGatheringState is new again after the rollback of the first offer, with its event."""
    async with peers(1) as (a,):
        a.addTransceiver("audio")
        log = Log().watch(a, "icegatheringstatechange", name=lambda: a.iceGatheringState)
        await a.setLocalDescription()
        await turns(24)
        assert log.entries[:1] == ["gathering"]
        await a.setLocalDescription({"type": "rollback"})
        assert (await log.settled())[-1] == "new"
        assert a.iceGatheringState == "new"
        await a.setLocalDescription()
        assert (await log.settled())[0] == "gathering"


@clause("4.4.1.5", "rolling back a remote offer removes the transceivers that it made")
async def test_4_4_1_5_remote_rollback_removes_transceivers() -> None:
    """What the offer made is stopped and gone, its track has ended; the next offer makes another one."""
    async with peers() as (a, b):
        a.addTrack(AudioStreamTrack())
        await offer(a, b)
        (made,) = b.getTransceivers()
        await b.setRemoteDescription({"type": "rollback"})
        assert b.getTransceivers() == []
        assert (made.direction, made.currentDirection, made.mid) == ("stopped", "stopped", None)
        assert made.receiver.track.readyState == "ended"
        assert (b.signalingState, b.remoteDescription) == ("stable", None)
        await b.setRemoteDescription(local(a))
        (again,) = b.getTransceivers()
        assert again is not made
        await answer(a, b)


@clause("4.4.1.5", "a transceiver that addTrack() has used outlives the rollback of the offer that made it")
async def test_4_4_1_5_remote_rollback_keeps_what_add_track_used() -> None:
    """It stays, without a mid and with its own direction, even if the track was removed again."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await offer(a, b)
        (made,) = b.getTransceivers()
        sender = b.addTrack(AudioStreamTrack())
        assert sender is made.sender
        b.removeTrack(sender)
        await b.setRemoteDescription({"type": "rollback"})
        assert b.getTransceivers() == [made]
        assert (made.mid, made.currentDirection, made.direction) == (None, None, "recvonly")
        assert made.receiver.track.readyState == "live"


@clause("4.4.1.5", "a transceiver of replaceTrack() only does not outlive the rollback")
async def test_4_4_1_5_remote_rollback_drops_what_replace_track_used() -> None:
    """replaceTrack() and a direction do not keep a transceiver that a remote offer made."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await offer(a, b)
        (made,) = b.getTransceivers()
        await made.sender.replaceTrack(AudioStreamTrack())
        made.direction = "sendrecv"
        await b.setRemoteDescription({"type": "rollback"})
        assert b.getTransceivers() == []


@clause("4.4.1.5", "rolling back a remote offer takes its tracks out of their streams")
async def test_4_4_1_5_remote_rollback_empties_streams() -> None:
    """The stream that the offer named is empty again, and tells of it, after the signaling state."""
    async with peers() as (a, b):
        a.addTrack(AudioStreamTrack(), MediaStream(id="s"))
        streams: list[MediaStream] = []
        b.on("track", lambda track, receiver, transceiver, found: streams.extend(found))
        await offer(a, b)
        (stream,) = streams
        assert len(stream.getTracks()) == 1
        log = Log().watch(b, "signalingstatechange").watch(stream, "removetrack", "addtrack")
        await b.setRemoteDescription({"type": "rollback"})
        assert log.take() == ["signalingstatechange", "removetrack"]
        assert stream.getTracks() == []


@clause("4.4.1.5", "rolling back a remote offer that took tracks away announces them again")
async def test_4_4_1_5_remote_rollback_announces_tracks_again() -> None:
    """A track that a rolled back offer had removed is back in its stream, with a new track event."""
    async with peers() as (a, b):
        sender = a.addTrack(AudioStreamTrack(), MediaStream(id="s"))
        streams: list[MediaStream] = []
        b.on("track", lambda track, receiver, transceiver, found: streams.extend(found))
        await negotiate(a, b)
        stream = streams[0]
        (track,) = stream.getTracks()
        a.removeTrack(sender)
        await offer(a, b)
        assert stream.getTracks() == []
        log = Log().watch(b, "track", "signalingstatechange").watch(stream, "addtrack", "removetrack")
        await b.setRemoteDescription({"type": "rollback"})
        assert log.take() == ["signalingstatechange", "addtrack", "track"]
        assert stream.getTracks() == [track]
        assert streams == [stream, stream]
        assert b.getTransceivers()[0].currentDirection == "recvonly"


@clause("4.4.1.5", "rolling back a remote offer takes back the streams that it changed")
async def test_4_4_1_5_remote_rollback_of_streams() -> None:
    """A track that an offer moved to another stream moves back."""
    async with peers() as (a, b):
        sender = a.addTrack(AudioStreamTrack(), MediaStream(id="one"))
        await negotiate(a, b)
        sender.setStreams(MediaStream(id="two"))
        seen: list[list[str]] = []
        b.on("track", lambda track, receiver, transceiver, found: seen.append([s.id for s in found]))
        await offer(a, b)
        await b.setRemoteDescription({"type": "rollback"})
        assert seen == [["two"], ["one"]]


@clause("4.4.1.5", "a rollback restores currentDirection and never touches direction")
async def test_4_4_1_5_rollback_keeps_what_the_application_wants() -> None:
    """direction, codec preferences, streams and tracks set while an offer was pending stay."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio", direction="sendonly")
        await negotiate(a, b)
        assert transceiver.currentDirection == "sendonly"
        await a.setLocalDescription()
        transceiver.direction = "inactive"
        track = AudioStreamTrack()
        await transceiver.sender.replaceTrack(track)
        await a.setLocalDescription({"type": "rollback"})
        assert (transceiver.direction, transceiver.currentDirection) == ("inactive", "sendonly")
        assert transceiver.sender.track is track


@clause("4.4.1.5", "a stop() while an offer is pending is not rolled back")
async def test_4_4_1_5_rollback_does_not_undo_stop() -> None:
    """A transceiver that was stopped during an offer is still stopping after its rollback."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio")
        await negotiate(a, b)
        await a.setLocalDescription()
        transceiver.stop()
        await a.setLocalDescription({"type": "rollback"})
        assert (transceiver.direction, transceiver.currentDirection) == ("stopped", "sendonly")
        log = Log().watch(a, "negotiationneeded")
        await turns(24)
        assert transceiver in a.getTransceivers()
        await negotiate(a, b)
        assert a.getTransceivers() == b.getTransceivers() == []
        assert log.take() in ([], ["negotiationneeded"])


@clause("4.4.2", "setRemoteDescription: an offer in have-local-offer rolls ours back first")
async def test_4_4_2_implicit_rollback() -> None:
    """The state goes through stable, each time with an event, and a shared m-line comes of two addTrack()."""
    async with peers() as (a, b):
        mine = a.addTrack(AudioStreamTrack())
        b.addTrack(AudioStreamTrack())
        await a.setLocalDescription()
        await b.setLocalDescription()
        log = Log().watch(a, "signalingstatechange", name=lambda: a.signalingState)
        await a.setRemoteDescription(local(b))
        assert log.take() == ["stable", "have-remote-offer"]
        assert a.pendingLocalDescription is None
        assert [t.sender for t in a.getTransceivers()] == [mine]
        await answer(b, a)
        assert a.getTransceivers()[0].currentDirection == "sendrecv"


@clause("4.4.2", "setRemoteDescription: the implicit rollback stays even if the offer is refused")
async def test_4_4_2_implicit_rollback_of_a_refused_offer() -> None:
    """After a refused offer the state is stable, ours is gone, and negotiation is asked for again."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        b.addTransceiver("audio")
        await a.setLocalDescription()
        made = await b.createOffer()
        log = Log().watch(a, "negotiationneeded", "signalingstatechange")
        with pytest.raises(InvalidAccessError):
            await a.setRemoteDescription({"type": "offer", "sdp": made.sdp.replace("a=fingerprint", "a=x")})
        assert a.signalingState == "stable"
        assert a.localDescription is None
        assert await log.settled() == ["signalingstatechange", "negotiationneeded"]


@clause("4.4.1.5", "an offer may be set again after its rollback")
async def test_4_4_1_5_an_offer_can_be_set_again() -> None:
    """The last created offer can be set, rolled back and set again, and is then answered."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio")
        made = await a.createOffer()
        for _ in range(2):
            await a.setLocalDescription(made)
            assert transceiver.mid == "0"
            await a.setLocalDescription({"type": "rollback"})
            assert transceiver.mid is None
        await a.setLocalDescription(made)
        assert local(a).sdp.count("a=candidate") == 0
        await b.setRemoteDescription(local(a))
        await answer(a, b)


@clause("4.4.1.5", "rollbacks of either side leave a call as it was")
async def test_4_4_1_5_rollbacks_leave_an_established_session_alone() -> None:
    """After rollbacks on both sides descriptions, mids and directions are those of before."""
    async with peers() as (a, b):
        a.addTrack(AudioStreamTrack())
        b.addTrack(AudioStreamTrack())
        await negotiate(a, b)

        def state(transceivers: list[RTCRtpTransceiver]) -> list[tuple[object, ...]]:
            return [(t, t.mid, t.direction, t.currentDirection, t.sender.transport) for t in transceivers]

        before = [state(peer.getTransceivers()) for peer in (a, b)]

        def described() -> list[object]:
            return [
                without_candidates(description)
                for peer in (a, b)
                for description in (peer.localDescription, peer.remoteDescription)
            ]

        descriptions = described()
        a.addTransceiver(VideoStreamTrack())
        await offer(a, b)
        await b.setRemoteDescription({"type": "rollback"})
        await a.setLocalDescription({"type": "rollback"})
        a.getTransceivers()[1].stop()
        assert [state(peer.getTransceivers()) for peer in (a, b)] == before
        assert described() == descriptions


@clause("5.10", "an offer that replaces a pending one leaves nothing of it behind", document="RFC 9429")
async def test_9429_5_10_a_replaced_offer_is_forgotten() -> None:
    """A transceiver of ours that the first offer had taken, and the second does not mention, has no mid."""
    async with peers(3) as (a, b, c):
        b.addTrack(VideoStreamTrack())
        for kind in ("audio", "video"):
            c.addTransceiver(kind)  # type: ignore[arg-type]
        a.addTransceiver("audio")
        await offer(c, b)
        assert sorted((t.kind, t.mid) for t in b.getTransceivers()) == [("audio", "0"), ("video", "1")]
        await offer(a, b)
        await b.setLocalDescription()
        assert [(t.kind, t.mid) for t in b.getTransceivers()] == [("video", None), ("audio", "0")]
        assert b.negotiationIsNeeded


@clause("5.1.1", "nothing is kept of the tracks of offers that were taken back")
async def test_5_1_1_rolled_back_tracks_are_forgotten() -> None:
    """Offers and rollbacks in turn do not make a connection grow."""
    async with peers() as (a, b):
        for _ in range(4):
            a.addTransceiver("video")
            await offer(a, b)
            await a.setLocalDescription({"type": "rollback"})
            await b.setRemoteDescription({"type": "rollback"})
        assert b._session._remote._associated == {}
        assert b.getTransceivers() == []
