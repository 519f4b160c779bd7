"""Real peer connections over real sockets of this host."""

from __future__ import annotations

import asyncio
import logging

import pytest

from calllab.rtc import (
    AudioStreamTrack,
    MediaStream,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
)
from tests.rtc.peers import Pair, audio_call, finish, pair, turns, until


def ufrags(call: Pair) -> tuple[str, str]:
    """Return the ICE user name fragments that a faces and uses."""
    transport = call.a.getTransceivers()[0].sender.transport
    assert transport is not None
    local, remote = transport.iceTransport.getLocalParameters(), transport.iceTransport.getRemoteParameters()
    assert local is not None
    assert remote is not None
    return local.usernameFragment, remote.usernameFragment


async def test_call_with_trickle_and_data() -> None:
    """Audio, video and a data channel come up over trickled candidates, each announced once."""
    async with pair() as call:
        stream = MediaStream(id="stream")
        audio, video = AudioStreamTrack(), VideoStreamTrack()
        call.a.addTrack(audio, stream)
        call.a.addTrack(video, stream)
        call.b.addTrack(AudioStreamTrack())
        channel = call.a.createDataChannel("chat", protocol="p")
        received: asyncio.Queue[str | bytes] = asyncio.Queue()
        accepted: list[RTCDataChannel] = []

        def accept(incoming: RTCDataChannel) -> None:
            accepted.append(incoming)
            incoming.on("message", received.put_nowait)

        call.b.on("datachannel", accept)
        channel.on("open", lambda: channel.send("hello"))
        await call.exchange()
        sdp = call.a.localDescription
        assert sdp is not None
        assert "candidate:" not in sdp.sdp
        await call.connected()
        async with asyncio.timeout(10):
            assert await received.get() == "hello"
        accepted[0].send(b"\x00\x01")
        assert (accepted[0].label, accepted[0].protocol, accepted[0].ordered) == ("chat", "p", True)
        await call.media_flows()
        assert [(name, track.kind) for name, track, _, _ in call.tracks] == [
            ("b", "audio"), ("b", "video"), ("a", "audio"),
        ]  # fmt: skip
        # The first of b's took the transceiver of its own track.
        assert call.tracks[0][1].id != audio.id
        assert call.tracks[1][1].id == video.id
        assert call.tracks[0][3] == call.tracks[1][3]
        assert call.tracks[0][3][0].id == "stream"
        assert call.states("a", "connectionstatechange") == ["connecting", "connected"]
        for sent in call.candidates:
            assert sent.sent[-1] is None
            assert sent.sent[-2] is not None
            assert sent.sent[-2].candidate == ""
        assert call.a.iceGatheringState == "complete"
        assert "a=end-of-candidates" in (call.a.localDescription or sdp).sdp


async def test_initial_glare() -> None:
    """Both offer at once, one gives way: one shared m-line a kind, connected without a flap."""
    async with pair() as call:
        call.a.addTrack(AudioStreamTrack())
        call.b.addTrack(AudioStreamTrack())
        await call.a.setLocalDescription()
        await call.b.setLocalDescription()
        await finish(call.b, call.a)
        for candidates in call.candidates:
            candidates.open()
        assert ("a", "rollback", "True") in call.events
        assert call.states("a", "signalingstatechange") == [
            "have-local-offer", "stable", "have-remote-offer", "stable",
        ]  # fmt: skip
        await call.connected()
        await call.media_flows()
        assert len(call.a.getTransceivers()) == len(call.b.getTransceivers()) == 1
        assert call.states("a", "connectionstatechange") == ["connecting", "connected"]


async def test_mid_call_glare() -> None:
    """Both add video at once in a call: the polite offer is rolled back, renegotiated, and nothing breaks."""
    async with audio_call() as call:
        before = ufrags(call)
        call.a.addTransceiver(VideoStreamTrack())
        call.b.addTransceiver(VideoStreamTrack())
        await call.a.setLocalDescription()
        await call.b.setLocalDescription()
        await finish(call.b, call.a)
        await call.exchange()
        await call.media_flows()
        assert [t.currentDirection for t in call.a.getTransceivers()] == ["sendrecv", "sendonly", "recvonly"]
        assert ufrags(call) == before
        assert call.states("a", "connectionstatechange") == ["connecting", "connected"]
        assert call.states("b", "connectionstatechange") == ["connecting", "connected"]


async def test_explicit_rollback() -> None:
    """An offer taken back leaves the call as it was: the same descriptions, the media uninterrupted."""
    async with audio_call() as call:
        local, remote = call.a.localDescription, call.a.remoteDescription
        added = call.a.addTransceiver("video")
        await call.a.setLocalDescription()
        assert added.mid == "1"
        assert call.a.localDescription is not local
        await call.a.setLocalDescription({"type": "rollback"})
        assert added.mid is None
        assert added in call.a.getTransceivers()
        assert call.a.signalingState == "stable"
        assert call.a.localDescription == local
        assert call.a.remoteDescription is remote
        assert ("a", "rollback", "False") in call.events
        await call.media_flows()


async def test_rollback_of_a_remote_offer_takes_its_transceivers_along() -> None:
    """What a remote offer brought goes when it is rolled back: the transceiver, its track and its stream."""
    async with audio_call() as call:
        call.a.addTransceiver(VideoStreamTrack(), streams=[MediaStream(id="extra")])
        await call.a.setLocalDescription()
        assert call.a.localDescription is not None
        await call.b.setRemoteDescription(call.a.localDescription)
        _, track, transceiver, streams = call.tracks[-1]
        assert (track.kind, [stream.id for stream in streams]) == ("video", ["extra"])
        await call.b.setRemoteDescription({"type": "rollback"})
        await call.a.setLocalDescription({"type": "rollback"})
        assert transceiver not in call.b.getTransceivers()
        assert transceiver.direction == transceiver.currentDirection == "stopped"
        assert streams[0].getTracks() == []
        await until(lambda: track.readyState == "ended", "the end of the track")
        await call.media_flows()


@pytest.mark.parametrize("who", ["a", "b", "both"])
async def test_ice_restart(who: str) -> None:
    """An ICE restart by either peer, or by both at once, moves the call to new credentials; DTLS goes on."""
    async with audio_call() as call:
        before = ufrags(call)
        if who in ("a", "both"):
            call.a.restartIce()
        if who in ("b", "both"):
            call.b.restartIce()
        await call.a.setLocalDescription() if who != "b" else await call.b.setLocalDescription()
        if who == "both":
            await call.b.setLocalDescription()
            await finish(call.b, call.a)
        else:
            await finish(*((call.a, call.b) if who == "a" else (call.b, call.a)))
        await until(lambda: not set(ufrags(call)) & set(before), "new credentials in use")
        await call.connected()
        await call.media_flows()
        assert call.states("a", "connectionstatechange")[:2] == ["connecting", "connected"]
        assert "failed" not in [state for _, _, state in call.events]


async def test_remove_and_add_again() -> None:
    """A removed track is muted at the peer and leaves its stream; a new one gets a new m-line and flows."""
    async with audio_call() as call:
        sender = call.a.getSenders()[0]
        track = call.b.getReceivers()[0].track
        stream = next(streams[0] for name, _, _, streams in call.tracks if name == "b")
        call.a.removeTrack(sender)
        await call.exchange()
        assert track.muted
        assert stream.getTracks() == []
        assert [t.currentDirection for t in call.b.getTransceivers()] == ["sendonly"]
        call.a.addTrack(AudioStreamTrack(), MediaStream(id="again"))
        await call.exchange()
        await call.media_flows()
        assert [t.currentDirection for t in call.a.getTransceivers()] == ["recvonly", "sendonly"]


async def test_stop_and_recycle() -> None:
    """A stopped transceiver goes on both sides, and its m-line serves the next one under another mid."""
    async with audio_call() as call:
        video = call.a.addTransceiver(VideoStreamTrack())
        await call.exchange()
        await call.media_flows()
        theirs = call.b.getTransceivers()[1]
        video.stop()
        assert video.direction == "stopped"
        assert video.currentDirection == "sendonly"
        await call.exchange()
        for transceiver, peer in ((video, call.a), (theirs, call.b)):
            assert transceiver.currentDirection == "stopped"
            assert transceiver.mid is None
            assert transceiver not in peer.getTransceivers()
        await until(lambda: theirs.receiver.track.readyState == "ended", "the end of the track")
        again = call.a.addTransceiver(VideoStreamTrack())
        await call.exchange()
        assert again.mid == "2"
        assert call.a.localDescription is not None
        assert call.a.localDescription.sdp.count("m=") == 2
        await call.media_flows()


async def test_replace_track_needs_no_negotiation() -> None:
    """Another track goes out over the same sender at once; the peer's track stays the same object."""
    async with audio_call() as call:
        needed: list[None] = []
        call.a.on("negotiationneeded", lambda: needed.append(None))
        sender, other = call.a.getSenders()[0], AudioStreamTrack()
        await sender.replaceTrack(other)
        assert sender.track is other
        await call.media_flows()
        await turns()
        assert not needed
        with pytest.raises(TypeError, match="sends audio"):
            await sender.replaceTrack(VideoStreamTrack())


async def test_both_ends_of_a_negotiated_channel() -> None:
    """A channel that both made under one id opens on both sides and carries messages both ways."""
    async with pair() as call:
        ends = [peer.createDataChannel("x", negotiated=True, id=5) for peer in (call.a, call.b)]
        inboxes: list[asyncio.Queue[str]] = [asyncio.Queue(), asyncio.Queue()]
        for end, inbox in zip(ends, inboxes, strict=True):
            end.on("message", inbox.put_nowait)
        await call.exchange()
        await until(lambda: all(end.readyState == "open" for end in ends), "both ends open")
        ends[0].send("to b")
        ends[1].send("to a")
        async with asyncio.timeout(10):
            assert await inboxes[0].get() == "to a"
            assert await inboxes[1].get() == "to b"
        assert call.a.sctp is not None
        assert call.a.sctp.state == "connected"


@pytest.mark.parametrize("wrap", ["plain", "wait_for", "shield", "task"])
async def test_no_candidate_overtakes_its_description(wrap: str) -> None:
    """However setLocalDescription() is wrapped, its caller goes on before the first candidate event."""
    async with RTCPeerConnection() as peer:
        order: list[str] = []
        peer.addTransceiver("audio")
        peer.on("icecandidate", lambda candidate: order.append("candidate"))
        setting = peer.setLocalDescription()
        if wrap == "plain":
            await setting
        elif wrap == "wait_for":
            await asyncio.wait_for(asyncio.shield(asyncio.wait_for(setting, 5)), 5)
        elif wrap == "shield":
            await asyncio.shield(setting)
        else:
            await asyncio.create_task(setting)
        order.append("description")
        await until(lambda: peer.iceGatheringState == "complete", "complete gathering")
        assert order[0] == "description"
        assert len(order) > 2


async def test_handlers_cannot_harm_an_operation(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that raises is logged; the operation goes on as if it had not."""
    async with RTCPeerConnection() as peer:
        peer.addTransceiver("audio")

        def fails() -> None:
            raise ZeroDivisionError("in a handler")

        async def fails_later() -> None:
            raise ZeroDivisionError("in a coroutine handler")

        peer.on("signalingstatechange", fails)
        peer.on("signalingstatechange", fails_later)
        with caplog.at_level(logging.ERROR, "calllab.rtc"):
            await peer.setLocalDescription()
            await turns()
        assert peer.signalingState == "have-local-offer"
        assert [record.getMessage() for record in caplog.records] == [
            "a handler of 'signalingstatechange' failed",
            "a handler of 'signalingstatechange' failed",
        ]


async def test_close_shows_at_once_and_frees_everything() -> None:
    """Right after close() all states are closed, before anything is awaited; tracks end; twice is fine."""
    async with audio_call() as call:
        track = call.a.getReceivers()[0].track
        before = len(call.events)
        closing = call.a.close()
        assert call.a.signalingState == call.a.connectionState == call.a.iceConnectionState == "closed"
        await closing
        await call.a.close()
        assert track.readyState == "ended"
        assert not [event for event in call.events[before:] if event[0] == "a"]
        with pytest.raises(Exception, match="closed"):
            await call.a.setLocalDescription()
        with pytest.raises(Exception, match="closed"):
            call.a.addTransceiver("audio")


async def test_descriptions_keep_their_identity() -> None:
    """localDescription is one object until it changes, and so are transceivers, senders and receivers."""
    async with RTCPeerConnection() as peer:
        peer.addTransceiver("audio")
        offer = await peer.createOffer()
        await peer.setLocalDescription(offer)
        assert peer.localDescription is peer.localDescription
        assert peer.localDescription == RTCSessionDescription("offer", offer.sdp)
        assert peer.getTransceivers()[0] is peer.getTransceivers()[0]
        assert peer.getSenders()[0] is peer.getTransceivers()[0].sender
