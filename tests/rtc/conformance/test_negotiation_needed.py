"""When negotiationneeded fires, and when it must not (webrtc-pc 4.7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from calllab.rtc import AudioStreamTrack, MediaStream, RTCPeerConnection, RTCRtpSender, VideoStreamTrack
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import Log, answer, local, negotiate, offer, peers
from tests.rtc.peers import turns

FIRED = ["negotiationneeded"]


def needed(peer: RTCPeerConnection) -> Log:
    """Write down each negotiationneeded of a peer."""
    return Log().watch(peer, "negotiationneeded")


@pytest.mark.parametrize(
    "change",
    [
        lambda peer: peer.addTransceiver("audio"),
        lambda peer: peer.addTrack(AudioStreamTrack()),
        lambda peer: peer.createDataChannel("x"),
    ],
    ids=["addTransceiver", "addTrack", "createDataChannel"],
)
@clause("4.7.3", "a first transceiver or data channel needs negotiation")
async def test_4_7_3_first_changes(change: Callable[[RTCPeerConnection], object]) -> None:
    """The event fires once, later than the call, and only if the change is still there."""
    async with peers(1) as (a,):
        log = needed(a)
        change(a)
        assert log.take() == []
        assert await log.settled() == FIRED
        change(a)
        assert await log.settled() == []


@clause("4.7.3", "nothing is needed where nothing was changed")
async def test_4_7_3_nothing_to_negotiate() -> None:
    """A new connection, restartIce() on it, and reading everything fire nothing."""
    async with peers(1) as (a,):
        log = needed(a)
        a.restartIce()
        await a.createOffer()
        a.getTransceivers()
        await a.getStats()
        assert await log.settled() == []


@clause("4.7.3", "step 2: the check is queued, so that several changes fire one event")
async def test_4_7_3_changes_in_one_turn_fire_once() -> None:
    """Any number of changes before the event loop turns is one event."""
    async with peers(1) as (a,):
        log = needed(a)
        for _ in range(3):
            a.addTransceiver("audio")
            a.createDataChannel("x")
        assert await log.settled() == FIRED


@clause("4.7.3", "steps 1 and 2: nothing fires while operations run; it is made up for when they have ended")
async def test_4_7_3_not_while_operations_run() -> None:
    """With operations under way the event waits until the last one has ended."""
    async with peers(1) as (a,):
        log = needed(a)
        pending = [asyncio.ensure_future(a.createOffer()) for _ in range(5)]
        a.addTransceiver("audio")
        for task in pending:
            await task
            assert log.take() == [] or task is pending[-1]
        assert await log.settled() == FIRED


@clause("4.7.3", "step 2.3: nothing fires unless the state is stable; stable makes up for it")
async def test_4_7_3_not_unless_stable() -> None:
    """What is added in have-local-offer or have-remote-offer fires at stable, on each side for itself."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await offer(a, b)
        logs = needed(a), needed(b)
        a.addTransceiver("audio")
        b.addTransceiver("video")
        for log in logs:
            assert await log.settled() == []
        await answer(a, b)
        for log in logs:
            assert await log.settled() == FIRED


@clause("4.7.3", "steps 2.5 and 2.6: the event does not repeat until it was dealt with")
async def test_4_7_3_no_repetition() -> None:
    """Once fired it is silent until the connection was stable anew; what is still missing fires again."""
    async with peers() as (a, b):
        log = needed(a)
        a.addTransceiver("audio")
        assert await log.settled() == FIRED
        a.addTransceiver("audio")
        assert await log.settled() == []
        await offer(a, b)
        a.addTransceiver("audio")
        await answer(a, b)
        assert await log.settled() == FIRED
        await negotiate(a, b)
        assert await log.settled() == []


@clause("4.7.2", "stable clears the flag: a rollback fires again for what is still wanted")
async def test_4_7_2_rollback_fires_again() -> None:
    """After a rollback the event comes once more, since the offer's work is still to be done."""
    async with peers(1) as (a,):
        log = needed(a)
        a.addTransceiver("audio")
        assert await log.settled() == FIRED
        await a.setLocalDescription()
        await a.setLocalDescription({"type": "rollback"})
        assert await log.settled() == FIRED


@clause("4.7.3", "step 2.4: a change that is taken back before the check fires nothing")
async def test_4_7_3_taken_back() -> None:
    """A direction turned and turned back in one turn fires nothing; turned for good it does."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio", direction="sendonly")
        await negotiate(a, b)
        log = needed(a)
        transceiver.direction = "inactive"
        transceiver.direction = "sendonly"
        assert await log.settled() == []
        transceiver.direction = "inactive"
        assert await log.settled() == FIRED


@clause("4.7.3", "in the offerer's view a direction that either description has needs nothing")
async def test_4_7_3_directions_of_the_offerer() -> None:
    """After sendrecv was answered recvonly, both sendrecv and what is left of it (sendonly) are settled."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio")
        await negotiate(a, b)
        assert transceiver.currentDirection == "sendonly"
        log = needed(a)
        for direction, fires in (("sendonly", []), ("sendrecv", []), ("recvonly", FIRED)):
            transceiver.direction = direction
            assert await log.settled() == fires


@clause("4.7.3", "in the answerer's view the direction counts within what was offered")
async def test_4_7_3_directions_of_the_answerer() -> None:
    """To a sendonly offer recvonly and sendrecv are the same; inactive is another direction."""
    async with peers() as (a, b):
        a.addTransceiver("audio", direction="sendonly")
        await negotiate(a, b)
        (transceiver,) = b.getTransceivers()
        log = needed(b)
        assert transceiver.currentDirection == "recvonly"
        transceiver.direction = "inactive"
        assert await log.settled() == FIRED


@clause("4.7.3", "an answerer that wants to send needs its streams announced")
async def test_4_7_3_the_answerer_announces_its_streams() -> None:
    """A track added to the transceiver of a recvonly answer needs negotiation, once."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await negotiate(a, b)
        log = needed(b)
        b.addTrack(AudioStreamTrack())
        assert await log.settled() == FIRED
        await negotiate(b, a)
        assert await log.settled() == []
        assert b.getTransceivers()[0].currentDirection == "sendrecv"


@clause("4.7.3", "streams that are not those of the a=msid lines need negotiation")
async def test_4_7_3_streams() -> None:
    """Adding, replacing and removing streams fires; naming the same ones in another order does not."""
    async with peers() as (a, b):
        one, two = MediaStream(id="one"), MediaStream(id="two")
        sender = a.addTrack(AudioStreamTrack(), one)
        await negotiate(a, b)
        log = needed(a)

        async def fires(*streams: MediaStream) -> bool:
            sender.setStreams(*streams)
            fired = await log.settled()
            await negotiate(a, b)
            await log.settled()
            return fired == FIRED

        assert await fires(one, two)
        assert not await fires(two, one)
        assert not await fires(two, one, two)
        assert await fires(two)
        assert await fires()
        assert not await fires()


@clause("4.7.3", "a transceiver that is stopping needs negotiation, a stopped one no more")
async def test_4_7_3_stopping() -> None:
    """stop() fires once; after the negotiation neither side needs anything."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await negotiate(a, b)
        logs = needed(a), needed(b)
        a.getTransceivers()[0].stop()
        assert await logs[0].settled() == FIRED
        await negotiate(a, b)
        for log in logs:
            assert await log.settled() == []
        assert not a.negotiationIsNeeded
        assert not b.negotiationIsNeeded


@clause("4.7.3", "a second data channel needs nothing, a first one does once")
async def test_4_7_3_data_channels() -> None:
    """Data channels share a section: only the first one is negotiated, whoever makes it."""
    async with peers() as (a, b):
        a.createDataChannel("x")
        await negotiate(a, b)
        logs = needed(a), needed(b)
        a.createDataChannel("y")
        b.createDataChannel("z")
        for log in logs:
            assert await log.settled() == []


@clause("4.7.3", "what does not change the description needs nothing")
async def test_4_7_3_changes_that_need_nothing() -> None:
    """replaceTrack(), setParameters() and codec preferences need no negotiation."""
    async with peers() as (a, b):
        sender = a.addTrack(VideoStreamTrack())
        await negotiate(a, b)
        log = needed(a)
        await sender.replaceTrack(None)
        await sender.replaceTrack(VideoStreamTrack())
        parameters = sender.getParameters()
        parameters["encodings"][0]["active"] = False
        await sender.setParameters(parameters)
        capabilities = RTCRtpSender.getCapabilities("video")
        assert capabilities is not None
        sender.transceiver.setCodecPreferences(capabilities.codecs[:2])
        assert await log.settled() == []


@clause("4.4.2", "restartIce: negotiation is needed until new local credentials are agreed on")
async def test_4_4_2_restart_ice() -> None:
    """It survives rollbacks and remote offers, and an offer with new credentials settles it."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await negotiate(a, b)
        log = needed(a)
        a.restartIce()
        assert await log.settled() == FIRED
        await a.setLocalDescription()
        await a.setLocalDescription({"type": "rollback"})
        assert await log.settled() == FIRED
        await negotiate(b, a)
        assert await log.settled() == FIRED
        await negotiate(a, b)
        assert await log.settled() == []


@pytest.mark.parametrize("by", ["offerer", "answerer"])
@pytest.mark.parametrize("provisional", [False, True])
@clause("4.4.2", "restartIce: it may be called in every signaling state")
async def test_4_4_2_restart_ice_while_an_offer_is_pending(by: str, provisional: bool) -> None:
    """Called while an offer or a pranswer is pending, it asks for negotiation at stable, on either side."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await negotiate(a, b)
        peer = a if by == "offerer" else b
        before = local(peer).sdp.split("a=ice-ufrag:")[1][:8]
        log = needed(peer)
        await offer(a, b)
        if provisional:
            await b.setLocalDescription({"type": "pranswer"})
            await a.setRemoteDescription(local(b))
        peer.restartIce()
        assert await log.settled() == []
        await answer(a, b)
        assert await log.settled() == FIRED
        await negotiate(peer, b if by == "offerer" else a)
        assert await log.settled() == []
        assert before not in local(peer).sdp


@clause("4.4.2", "restartIce: the peer's restart settles it too, since both sides get new credentials")
async def test_4_4_2_restart_ice_of_the_peer() -> None:
    """A restart that the peer offers gives us new credentials in our answer: nothing is left to do."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await negotiate(a, b)
        log = needed(a)
        a.restartIce()
        assert await log.settled() == FIRED
        b.restartIce()
        await negotiate(b, a)
        assert await log.settled() == []


@pytest.mark.parametrize("wrap", ["plain", "task", "shield", "wait_for"])
@clause("4.7.3", "the event is a task of its own: whoever awaited the operation goes on before it")
async def test_4_7_3_the_caller_goes_on_first(wrap: str) -> None:
    """The continuation of setLocalDescription() and setRemoteDescription() runs before the event."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await offer(a, b)
        log = needed(a).watch(b, "negotiationneeded")
        a.addTransceiver("video")
        b.addTransceiver("video")
        steps: list[tuple[RTCPeerConnection, Callable[[], object]]] = [
            (b, lambda: b.setLocalDescription()),
            (a, lambda: a.setRemoteDescription(local(b))),
        ]
        for _, begin in steps:
            pending = begin()
            assert asyncio.iscoroutine(pending)
            if wrap == "plain":
                await pending
            elif wrap == "task":
                await asyncio.create_task(pending)
            elif wrap == "shield":
                await asyncio.shield(pending)
            else:
                await asyncio.wait_for(asyncio.shield(asyncio.wait_for(pending, 5)), 5)
            assert log.take() == []
            assert await log.settled() == FIRED


@clause("4.7.3", "a handler may negotiate at once, and nothing fires in between")
async def test_4_7_3_negotiating_in_the_handler() -> None:
    """A handler that negotiates leads to exactly one event for two changes on each side."""
    async with peers() as (a, b):
        log = needed(a)
        done = asyncio.Event()

        async def handle() -> None:
            await negotiate(a, b)
            done.set()

        a.on("negotiationneeded", handle)
        a.addTransceiver("audio")
        a.addTrack(VideoStreamTrack())
        async with asyncio.timeout(5):
            await done.wait()
        await turns(24)
        assert log.take() == FIRED
        assert not a.negotiationIsNeeded


@clause("4.7.3", "step 2.1: a closed connection fires nothing")
async def test_4_7_3_closed() -> None:
    """A change right before close() fires nothing afterwards."""
    async with peers(1) as (a,):
        log = needed(a)
        a.addTransceiver("audio")
        closing = a.close()
        a.restartIce()
        await closing
        assert await log.settled() == []
        assert not a.negotiationIsNeeded
