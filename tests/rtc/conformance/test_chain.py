"""The operations chain, and what closing does to it (webrtc-pc 4.4.1.2, 4.4.2 close)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from calllab.rtc import (
    AudioStreamTrack,
    InvalidAccessError,
    InvalidStateError,
    MediaStream,
    RTCConfiguration,
    RTCPeerConnection,
    VideoStreamTrack,
)
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import PC_EVENTS, Log, local, negotiate, offer, peers
from tests.rtc.peers import audio_call, turns

OPERATIONS: dict[str, Callable[[RTCPeerConnection], Any]] = {
    "createOffer": lambda peer: peer.createOffer(),
    "createAnswer": lambda peer: peer.createAnswer(),
    "setLocalDescription": lambda peer: peer.setLocalDescription(),
    "setRemoteDescription": lambda peer: peer.setRemoteDescription({"type": "offer", "sdp": ""}),
    "addIceCandidate": lambda peer: peer.addIceCandidate(),
    "replaceTrack": lambda peer: peer.getTransceivers()[0].sender.replaceTrack(None),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@clause("4.4.1.2", "step 2: on a closed connection an operation is refused")
async def test_4_4_1_2_closed(operation: str) -> None:
    """Each operation on a closed connection is an InvalidStateError that says so."""
    async with peers(1) as (a,):
        a.addTransceiver("audio")
        await a.close()
        with pytest.raises(InvalidStateError, match="closed"):
            await OPERATIONS[operation](a)


@pytest.mark.parametrize("operation", ["setLocalDescription", "createOffer", "replaceTrack"])
@clause("4.4.1.2", "what was waiting when the connection was closed never takes effect")
async def test_4_4_1_2_closed_while_waiting(operation: str) -> None:
    """An operation that close() overtakes ends with InvalidStateError, and fires nothing."""
    async with peers(1) as (a,):
        a.addTransceiver("audio")
        log = Log().watch(a, *PC_EVENTS)
        pending = OPERATIONS[operation](a)
        closing = a.close()
        with pytest.raises(InvalidStateError, match="closed"):
            await pending
        await closing
        assert a.localDescription is None
        assert await log.settled() == []


@clause("4.4.1.2", "operations take effect in the order of their calls")
async def test_4_4_1_2_order() -> None:
    """An offer set twice with a rollback in between goes through all states, whoever is awaited first."""
    async with peers(1) as (a,):
        a.addTransceiver("audio")
        log = Log().watch(a, "signalingstatechange", name=lambda: a.signalingState)
        pending = [
            asyncio.ensure_future(a.setLocalDescription()),
            asyncio.ensure_future(a.setLocalDescription({"type": "rollback"})),
            asyncio.ensure_future(a.setLocalDescription()),
        ]
        await pending[2]
        assert log.take() == ["have-local-offer", "stable", "have-local-offer"]
        assert all(task.done() for task in pending)


@clause("4.4.2", "setLocalDescription: what is made is decided when its turn comes, not at the call")
async def test_4_4_2_bare_calls_race_with_offers() -> None:
    """Called right after setRemoteDescription(offer) it answers; called twice then, it answers and offers."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        b.addTransceiver("video")
        await a.setLocalDescription()
        setting = asyncio.ensure_future(b.setRemoteDescription(local(a)))
        first = asyncio.ensure_future(b.setLocalDescription())
        second = asyncio.ensure_future(b.setLocalDescription())
        await setting
        await first
        assert b.currentLocalDescription is not None
        assert b.currentLocalDescription.type == "answer"
        await second
        assert b.pendingLocalDescription is not None
        assert b.pendingLocalDescription.type == "offer"


@clause("4.4.2", "an offer of ours and one of theirs in one task: ours is set, then rolled back")
async def test_4_4_2_local_and_remote_offer_at_once() -> None:
    """Both operations take effect in order, and the remote offer is the one that is pending."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        b.addTransceiver("audio")
        await b.setLocalDescription()
        log = Log().watch(a, "signalingstatechange", name=lambda: a.signalingState)
        mine = asyncio.ensure_future(a.setLocalDescription())
        await a.setRemoteDescription(local(b))
        assert mine.done()
        assert log.take() == ["have-local-offer", "stable", "have-remote-offer"]
        assert a.pendingLocalDescription is None


@clause("4.4.1.2", "an operation that fails does not hold up the next one")
async def test_4_4_1_2_failures_do_not_block() -> None:
    """After a refused operation the following ones run, in order."""
    async with peers(1) as (a,):
        a.addTransceiver("audio")
        failing = asyncio.ensure_future(a.setLocalDescription({"type": "answer"}))
        following = asyncio.ensure_future(a.setLocalDescription())
        with pytest.raises(InvalidStateError):
            await failing
        await following
        assert a.signalingState == "have-local-offer"


@clause("4.4.1.2", "a candidate waits for the description that was set before it")
async def test_4_4_1_2_candidates_wait_for_descriptions() -> None:
    """addIceCandidate() right after setRemoteDescription() finds the description set."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await a.setLocalDescription()
        setting = asyncio.ensure_future(b.setRemoteDescription(local(a)))
        await b.addIceCandidate(
            {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0", "sdpMLineIndex": 0}
        )
        assert setting.done()


@clause("4.4.1.2", "replaceTrack takes its place in the chain at the call")
async def test_5_2_replace_track_is_chained() -> None:
    """A track replaced after a description was set is replaced when that has ended, not before."""
    async with peers(1) as (a,):
        sender = a.addTrack(AudioStreamTrack())
        other = AudioStreamTrack()
        order: list[str] = []
        a.on("signalingstatechange", lambda: order.append("same" if sender.track is not other else "other"))
        setting = asyncio.ensure_future(a.setLocalDescription())
        await sender.replaceTrack(other)
        assert order == ["same"]
        assert sender.track is other
        await setting


@clause("4.4.2", "addTrack right after setRemoteDescription was called still meets its offer")
@clause("4.4.1.5", "a track that is added while a remote offer is being applied is taken into account")
async def test_4_4_1_5_tracks_added_during_a_remote_offer() -> None:
    """The track gets the offered section; no second one is made for it."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await a.setLocalDescription()
        setting = asyncio.ensure_future(b.setRemoteDescription(local(a)))
        sender = b.addTrack(AudioStreamTrack())
        await setting
        assert [t.sender for t in b.getTransceivers()] == [sender]
        assert sender.transceiver.mid == "0"


@clause("4.4.2", "close: all states are closed at once, and nobody is told")
async def test_4_4_2_close_is_immediate() -> None:
    """Before close() is awaited the states are closed, tracks have ended, transceivers are stopped."""
    async with audio_call() as call:
        (transceiver,) = call.a.getTransceivers()
        log = Log().watch(call.a, *PC_EVENTS).watch(transceiver.receiver.track, "mute")
        closing = call.a.close()
        assert (call.a.signalingState, call.a.connectionState) == ("closed", "closed")
        assert call.a.iceConnectionState == "closed"
        assert (transceiver.direction, transceiver.currentDirection) == ("stopped", "stopped")
        assert transceiver.receiver.track.readyState == "ended"
        assert call.a.getTransceivers() == [transceiver]
        assert call.a.getSenders() == call.a.getReceivers() == []
        assert call.a.localDescription is not None
        await closing
        assert await log.settled() == []


@clause("4.4.2", "close: a second close does nothing")
async def test_4_4_2_close_twice() -> None:
    """close() may be called again, before and after the first one has ended."""
    async with peers(1) as (a,):
        first, second = a.close(), a.close()
        await first
        await second
        await a.close()
        assert a.signalingState == "closed"


@clause("4.4.2", "methods that change a closed connection throw InvalidStateError")
@clause("5.1", "addTrack, removeTrack and addTransceiver throw on a closed connection")
async def test_4_4_2_methods_of_a_closed_connection() -> None:
    """What changes a closed connection throws; what reads it, and restartIce(), does not."""
    async with peers() as (a, b):
        sender = a.addTrack(AudioStreamTrack())
        await negotiate(a, b)
        transceiver = sender.transceiver
        parameters = sender.getParameters()
        await a.close()
        throwing: list[Callable[[], object]] = [
            lambda: a.addTrack(VideoStreamTrack()),
            lambda: a.removeTrack(sender),
            lambda: a.addTransceiver("audio"),
            lambda: a.createDataChannel("x"),
            lambda: a.setConfiguration(RTCConfiguration()),
            lambda: transceiver.stop(),
            lambda: sender.setStreams(MediaStream()),
            lambda: setattr(transceiver, "direction", "inactive"),
            lambda: sender.setParameters(parameters),
        ]
        for call in throwing:
            with pytest.raises(InvalidStateError):
                call()
        a.restartIce()
        transceiver.setCodecPreferences([])
        assert a.getConfiguration() is not None
        assert sender.getParameters()["encodings"] == [{"active": True}]
        assert len(await a.getStats()) > 0


@clause("4.4.2", "arguments of the wrong type are a TypeError even on a closed connection")
async def test_4_4_2_types_are_checked_first() -> None:
    """A wrong type is found before the state, as in a browser's bindings."""
    async with peers(1) as (a,):
        sender = a.addTransceiver("audio").sender
        await a.close()
        with pytest.raises(TypeError):
            a.addTrack("audio")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            a.addTransceiver("text")
        with pytest.raises(TypeError):
            await sender.replaceTrack(VideoStreamTrack())


@clause("4.4.2", "close in a handler ends what is under way")
async def test_4_4_2_close_in_a_handler() -> None:
    """A handler that closes the connection in the middle of a description leaves nothing half done."""
    async with peers() as (a, b):
        a.addTrack(AudioStreamTrack(), MediaStream(id="s"))
        closing: list[Any] = []
        b.on("signalingstatechange", lambda: closing.append(b.close()))
        await offer(a, b)
        await closing[0]
        assert b.signalingState == "closed"
        assert [t.receiver.track.readyState for t in b.getTransceivers()] == ["ended"]


@clause("4.4.2", "close does not end the script that calls it")
async def test_4_4_2_a_coroutine_handler_closes() -> None:
    """Coroutine handlers that await close() go on afterwards; others that still run are cancelled."""
    async with peers(1) as (a,):
        after: list[str] = []

        async def close(name: str) -> None:
            await a.close()
            after.append(name)

        async def wait() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                after.append("cancelled")

        a.on("negotiationneeded", wait)
        a.on("negotiationneeded", lambda: close("first"))
        a.on("negotiationneeded", lambda: close("second"))
        a.addTransceiver("audio")
        await turns(24)
        await a.close()
        await turns()
        assert after == ["cancelled", "first", "second"]


@clause("5.1", "addTrack, removeTrack, addTransceiver and setStreams: wrong types are TypeErrors")
async def test_5_1_wrong_types() -> None:
    """What is no track, no stream, no sender or no candidate is a TypeError with a sentence."""
    bad: Any
    async with peers(1) as (a,):
        track = AudioStreamTrack()
        calls: list[Callable[[Any], Any]] = [
            a.addTrack,
            lambda bad: a.addTrack(track, bad),
            lambda bad: a.addTransceiver(track, streams=[bad]),
            a.removeTrack,
        ]
        for call in calls:
            for bad in (None, "x", {}):
                with pytest.raises(TypeError, match="needed"):
                    call(bad)
        assert a.getTransceivers() == []
        with pytest.raises(TypeError, match="MediaStream is needed"):
            a.addTransceiver("audio").sender.setStreams("x")  # type: ignore[arg-type]
        for bad in ("candidate", 5, {"candidate": "", "sdpMid": 5}, {"candidate": "", "sdpMLineIndex": "0"}):
            with pytest.raises(TypeError, match=r"candidate|sdpM"):
                await a.addIceCandidate(bad)


@clause("5.1", "removeTrack: the sender of another connection is an InvalidAccessError")
async def test_5_1_remove_track_of_a_stranger() -> None:
    """A sender can only be removed where it was made; nothing happens to it elsewhere."""
    async with peers() as (a, b):
        sender = a.addTrack(AudioStreamTrack())
        with pytest.raises(InvalidAccessError):
            b.removeTrack(sender)
        assert sender.track is not None
