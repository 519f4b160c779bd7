"""What a peer connection does without its peer, and the exact moments of negotiationneeded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from calllab.rtc import (
    AudioStreamTrack,
    InvalidAccessError,
    InvalidModificationError,
    InvalidStateError,
    MediaStream,
    NotSupportedError,
    OperationError,
    RTCConfiguration,
    RTCIceCandidate,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
    SyntaxError_,
    VideoStreamTrack,
)
from tests.rtc.peers import Pair, finish, pair, turns


class Needed:
    """Counts the negotiationneeded events of a peer."""

    def __init__(self, peer: RTCPeerConnection) -> None:
        self.count = 0
        self._seen = 0
        peer.on("negotiationneeded", self._add)

    def _add(self) -> None:
        self.count += 1

    async def since(self) -> int:
        """Return how many came since the last call."""
        await turns()
        new, self._seen = self.count - self._seen, self.count
        return new


async def test_one_event_for_several_changes() -> None:
    """Several changes in one turn fire once; further ones not at all until it is negotiated."""
    async with pair() as call:
        needed = Needed(call.a)
        call.a.restartIce()
        assert await needed.since() == 0
        call.a.addTransceiver("audio")
        call.a.addTransceiver("video")
        call.a.createDataChannel("x")
        assert await needed.since() == 1
        call.a.addTransceiver("video")
        assert await needed.since() == 0
        await call.exchange()
        assert await needed.since() == 0


async def test_a_change_that_is_taken_back_fires_nothing_more() -> None:
    """A direction changed and changed back needs nothing; the next change fires again."""
    async with pair() as call:
        transceiver = call.a.addTransceiver("audio")
        await call.exchange()
        needed = Needed(call.a)
        transceiver.direction = "inactive"
        assert await needed.since() == 1
        transceiver.direction = "sendrecv"
        assert await needed.since() == 0
        transceiver.direction = "sendonly"  # what the answer left of it
        assert await needed.since() == 0
        transceiver.direction = "recvonly"
        assert await needed.since() == 1


async def test_a_change_while_an_offer_is_pending_fires_when_stable() -> None:
    """What is added in have-local-offer fires at stable, and not before."""
    async with pair() as call:
        call.a.addTransceiver("audio")
        needed = Needed(call.a)
        await call.a.setLocalDescription()
        call.a.addTransceiver("audio")
        assert await needed.since() == 0
        await finish(call.a, call.b)
        assert await needed.since() == 1


async def test_rollback_fires_again() -> None:
    """After a rollback what the offer would have brought is still needed."""
    async with pair() as call:
        call.a.addTransceiver("audio")
        needed = Needed(call.a)
        assert await needed.since() == 1
        await call.a.setLocalDescription()
        await call.a.setLocalDescription({"type": "rollback"})
        assert await needed.since() == 1


async def test_state_seen_by_handlers_is_the_new_one() -> None:
    """In a signalingstatechange handler the state has changed, and descriptions with it."""
    async with pair() as call:
        call.a.addTrack(AudioStreamTrack())
        seen: list[tuple[str, bool, bool]] = []
        call.a.on(
            "signalingstatechange",
            lambda: seen.append((
                call.a.signalingState,
                call.a.pendingLocalDescription is not None,
                call.a.currentLocalDescription is not None,
            )),
        )  # fmt: skip
        await call.exchange()
        assert seen == [("have-local-offer", True, False), ("stable", False, True)]


async def test_track_events_come_after_the_state_and_before_the_promise() -> None:
    """signalingstatechange, then track, then setRemoteDescription() returns (webrtc-pc 4.4.1.5)."""
    async with pair() as call:
        order: list[str] = []
        call.a.addTrack(AudioStreamTrack())
        call.b.on("signalingstatechange", lambda: order.append("state"))
        call.b.on("track", lambda *_: order.append("track"))
        await call.a.setLocalDescription()
        assert call.a.localDescription is not None
        await call.b.setRemoteDescription(call.a.localDescription)
        order.append("returned")
        assert order == ["state", "track", "returned"]


async def test_wrong_arguments() -> None:
    """Each wrong argument raises what a browser would raise, with a sentence."""
    async with RTCPeerConnection() as peer, RTCPeerConnection() as stranger:
        track = AudioStreamTrack()
        peer.addTrack(track)
        foreign = stranger.addTrack(AudioStreamTrack())
        candidate = "candidate:1 1 udp 1 192.0.2.1 9 typ host"
        sync: list[tuple[Callable[[], object], type[Exception]]] = [
            (lambda: peer.addTrack(track), InvalidAccessError),
            (lambda: peer.addTrack("audio"), TypeError),  # type: ignore[arg-type]
            (lambda: peer.removeTrack(foreign), InvalidAccessError),
            (lambda: peer.addTransceiver("text"), TypeError),
            (lambda: peer.addTransceiver("audio", direction="both"), TypeError),  # type: ignore[arg-type]
            (
                lambda: peer.addTransceiver("video", sendEncodings=[{"rid": "a"}, {"rid": "a"}]),
                TypeError,
            ),
            (lambda: peer.createDataChannel("x" * 65536), TypeError),
            (lambda: peer.createDataChannel("x", maxRetransmits=1, maxPacketLifeTime=1), TypeError),
            (lambda: peer.createDataChannel("x", maxRetransmits=-1), TypeError),
            (lambda: peer.createDataChannel("x", negotiated=True), TypeError),
            (lambda: peer.createDataChannel("x", negotiated=True, id=65535), TypeError),
            (lambda: RTCIceCandidate(candidate), TypeError),
            (lambda: RTCSessionDescription("bid"), TypeError),  # type: ignore[arg-type]
            (lambda: peer.setConfiguration(RTCConfiguration(iceCandidatePoolSize=1)), NotSupportedError),
            (lambda: setattr(peer.getTransceivers()[0], "direction", "stopped"), TypeError),
        ]
        for call, error in sync:
            with pytest.raises(error):
                call()
        awaited: list[tuple[Callable[[], Awaitable[object]], type[Exception]]] = [
            (lambda: peer.createAnswer(), InvalidStateError),
            (lambda: peer.setLocalDescription({"type": "answer"}), InvalidStateError),
            (lambda: peer.setLocalDescription({"type": "rollback"}), InvalidStateError),
            (lambda: peer.setLocalDescription({"type": "offer", "sdp": "v=0"}), InvalidModificationError),
            (lambda: peer.setLocalDescription({"type": "bid"}), TypeError),
            (lambda: peer.setRemoteDescription({"type": "answer", "sdp": ""}), InvalidStateError),
            (lambda: peer.setRemoteDescription({"type": "offer", "sdp": "nonsense"}), OperationError),
            (lambda: peer.addIceCandidate({"candidate": candidate}), TypeError),
            (lambda: peer.addIceCandidate({"candidate": 5, "sdpMid": "0"}), TypeError),
            (lambda: peer.addIceCandidate({"candidate": candidate, "sdpMid": "0"}), InvalidStateError),
            (lambda: peer.addIceCandidate(), InvalidStateError),
            (lambda: peer.getStats(AudioStreamTrack()), InvalidAccessError),
        ]
        for begin, error in awaited:
            with pytest.raises(error):
                await begin()
        assert peer.signalingState == "stable"


@pytest.mark.parametrize(
    ("configuration", "error"),
    [
        (RTCConfiguration(iceServers=[RTCIceServer("turn:127.0.0.1:3478")]), InvalidAccessError),
        (RTCConfiguration(iceServers=[RTCIceServer([])]), SyntaxError_),
        (RTCConfiguration(iceServers=[RTCIceServer("http://example.org")]), SyntaxError_),
        (RTCConfiguration(iceTransportPolicy="some"), TypeError),  # type: ignore[arg-type]
        (RTCConfiguration(bundlePolicy="balanced"), NotSupportedError),  # type: ignore[arg-type]
    ],
)
async def test_bad_configurations(configuration: RTCConfiguration, error: type[Exception]) -> None:
    """A configuration that cannot work is refused by the constructor."""
    with pytest.raises(error):
        RTCPeerConnection(configuration)


async def test_default_has_no_servers() -> None:
    """Nobody's server is used unless one is named; a credential never shows in a representation."""
    async with RTCPeerConnection() as peer:
        assert list(peer.getConfiguration().iceServers) == []
        server = RTCIceServer("turn:192.0.2.1", "user", "secret")
        peer.setConfiguration(RTCConfiguration(iceServers=[server]))
        assert list(peer.getConfiguration().iceServers) == [server]
        assert "secret" not in repr(peer.getConfiguration())


async def test_entropy_decides_all_names() -> None:
    """The same random source gives the same credentials, SSRCs and ids."""
    offers = []
    for _ in range(2):
        async with RTCPeerConnection(entropy=random.Random(7)) as peer:
            peer.addTransceiver("video")
            offer = await peer.createOffer()
            offers.append([line for line in offer.sdp.split("\r\n") if not line.startswith("a=fingerprint")])
    assert offers[0] == offers[1]


async def test_candidates_are_understood() -> None:
    """A candidate string is taken apart into its members; what is not understood leaves them empty."""
    text = (
        "candidate:842163049 1 udp 1677729535 203.0.113.4 46154 typ srflx raddr 10.0.0.5 rport 46154 "
        "generation 0 ufrag EEtu network-cost 999"
    )
    candidate = RTCIceCandidate(text, sdpMid="0", sdpMLineIndex=0)
    assert (candidate.foundation, candidate.component, candidate.protocol) == ("842163049", "rtp", "udp")
    assert (candidate.priority, candidate.address, candidate.port) == (1677729535, "203.0.113.4", 46154)
    assert (candidate.type, candidate.relatedAddress, candidate.relatedPort) == ("srflx", "10.0.0.5", 46154)
    assert candidate.usernameFragment is None
    assert RTCIceCandidate(**candidate.toJSON()) == candidate
    assert RTCIceCandidate("nonsense", sdpMid="0").foundation is None


async def test_media_streams() -> None:
    """A stream holds each track once, tells audio from video, and is active while one is live."""
    audio, video = AudioStreamTrack(), VideoStreamTrack()
    stream = MediaStream([audio, audio])
    stream.addTrack(video)
    assert stream.getTracks() == [audio, video]
    assert (stream.getAudioTracks(), stream.getVideoTracks()) == ([audio], [video])
    assert stream.getTrackById(video.id) is video
    assert stream.active
    audio.stop()
    video.stop()
    assert not stream.active
    copy = stream.clone()
    stream.removeTrack(audio)
    assert (stream.getTracks(), copy.getTracks()) == ([video], [audio, video])
    assert copy.id != stream.id


async def test_operations_that_overlap_keep_their_order() -> None:
    """Operations begun in one turn take effect in that order."""
    async with pair() as call:
        call.a.addTransceiver("audio")
        async with asyncio.TaskGroup() as group:
            group.create_task(call.a.setLocalDescription())
            group.create_task(call.a.setLocalDescription({"type": "rollback"}))
            group.create_task(call.a.setLocalDescription())
        assert call.states("a", "signalingstatechange") == ["have-local-offer", "stable", "have-local-offer"]


async def test_provisional_answer() -> None:
    """A pranswer connects; the final answer makes it stable."""
    call = Pair()
    try:
        call.a.addTrack(AudioStreamTrack())
        call.b.addTrack(AudioStreamTrack())
        await call.a.setLocalDescription()
        assert call.a.localDescription is not None
        await call.b.setRemoteDescription(call.a.localDescription)
        answer = await call.b.createAnswer()
        await call.b.setLocalDescription({"type": "pranswer", "sdp": answer.sdp})
        assert call.b.signalingState == "have-local-pranswer"
        assert call.b.pendingLocalDescription is not None
        await call.a.setRemoteDescription(call.b.pendingLocalDescription)
        assert call.a.signalingState == "have-remote-pranswer"
        for candidates in call.candidates:
            candidates.open()
        await call.connected()
        await call.b.setLocalDescription()
        assert call.b.localDescription is not None
        await call.a.setRemoteDescription(call.b.localDescription)
        assert call.a.signalingState == call.b.signalingState == "stable"
        await call.media_flows()
    finally:
        await call.close()
