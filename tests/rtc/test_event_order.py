"""When a peer connection tells what a description set in motion."""

from __future__ import annotations

from collections.abc import Callable

from calllab.rtc import AudioStreamTrack, RTCPeerConnection
from tests.rtc.peers import pair, turns, until


def told_by(peer: RTCPeerConnection) -> list[str]:
    """Return a list that grows with the states that a peer tells, and with its candidates."""
    told: list[str] = []

    def watch(event: str, state: Callable[[], str]) -> None:
        peer.on(event, lambda: told.append(f"{event.removesuffix('change')} {state()}"))

    watch("signalingstatechange", lambda: peer.signalingState)
    watch("icegatheringstatechange", lambda: peer.iceGatheringState)
    watch("iceconnectionstatechange", lambda: peer.iceConnectionState)
    peer.on("icecandidate", lambda candidate: told.append("candidate" if candidate else "end of candidates"))
    return told


async def test_checking_begins_with_the_first_remote_candidate() -> None:
    """Descriptions alone leave iceConnectionState "new", however long they are in force (5.6.3)."""
    async with pair() as call:
        call.a.addTrack(AudioStreamTrack())
        told = told_by(call.a)
        await call.a.setLocalDescription()
        offer = call.a.localDescription
        assert offer is not None
        await call.b.setRemoteDescription(offer)
        await call.b.setLocalDescription()
        answer = call.b.localDescription
        assert answer is not None
        assert "a=candidate" not in answer.sdp
        await call.a.setRemoteDescription(answer)
        await until(lambda: call.a.iceGatheringState == "complete", "gathered")
        await turns(24)
        assert call.a.iceConnectionState == call.a.connectionState == "new"
        call.candidates[1].open()
        await until(lambda: "iceconnectionstate checking" in told, "checking")
        call.candidates[0].open()
        await call.connected()
        states = [entry for entry in told if entry.startswith("iceconnection")]
        assert states[0] == "iceconnectionstate checking"
        assert set(states[1:]) <= {"iceconnectionstate connected", "iceconnectionstate completed"}


async def test_a_check_of_the_peer_is_as_good_as_a_candidate() -> None:
    """Who is only checked, and gets no candidate at all, goes from new over checking to connected."""
    async with pair() as call:
        call.a.addTrack(AudioStreamTrack())
        told = told_by(call.b)
        await call.a.setLocalDescription()
        offer = call.a.localDescription
        assert offer is not None
        await call.b.setRemoteDescription(offer)
        await call.b.setLocalDescription()
        answer = call.b.localDescription
        assert answer is not None
        await call.a.setRemoteDescription(answer)
        call.candidates[1].open()  # b's candidates to a, and none the other way
        await call.connected()
        states = [entry for entry in told if entry.startswith("iceconnection")]
        assert states[0] == "iceconnectionstate checking"
        assert set(states[1:]) <= {"iceconnectionstate connected", "iceconnectionstate completed"}


async def test_gathering_is_told_before_the_rollback_that_ends_it() -> None:
    """News of an offer comes before what rolls it back, and nothing of its candidates after."""
    async with pair() as call:
        call.a.addTrack(AudioStreamTrack())
        call.b.addTrack(AudioStreamTrack())
        told = told_by(call.b)
        await call.a.setLocalDescription()
        await call.b.setLocalDescription()
        assert call.a.localDescription is not None
        await call.b.setRemoteDescription(call.a.localDescription)
        await turns(24)
        assert told == [
            "signalingstate have-local-offer",
            "icegatheringstate gathering",
            "signalingstate stable",
            "signalingstate have-remote-offer",
            "icegatheringstate new",
        ]
