"""The states of a connection, as a table and in calls whose path fails in virtual time (webrtc-pc 4.3)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from calllab.network import NetworkInterface, VirtualNetwork, simulate
from calllab.rtc import AudioStreamTrack, RTCIceCandidate, RTCPeerConnection
from calllab.rtc.states import connection_state
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import Log, answer, local, negotiate, offer, peers
from tests.rtc.peers import audio_call, pair

ICE = ("new", "checking", "connected", "completed", "disconnected", "failed", "closed")
DTLS = ("new", "connecting", "connected", "closed", "failed")


@pytest.mark.parametrize("dtls", DTLS)
@pytest.mark.parametrize("ice", ICE)
@clause("4.3.3", "connectionState from the states of ICE and DTLS: the first row that applies")
def test_4_3_3_each_cell_of_the_connection_state(ice: str, dtls: str) -> None:
    """Each of the 35 pairs gives the state of the specification's list, and a closed connection is closed."""
    if "failed" in (ice, dtls):
        expected = "failed"
    elif ice == "disconnected":
        expected = "disconnected"
    elif {ice, dtls} <= {"new", "closed"}:
        expected = "new"
    elif ice in ("connected", "completed", "closed") and dtls in ("connected", "closed"):
        expected = "connected"
    else:
        expected = "connecting"
    assert connection_state(ice, dtls, closed=False) == expected
    assert connection_state(ice, dtls, closed=True) == "closed"


@clause("4.3.1", "a new connection is stable, and everything else is new")
async def test_4_3_states_of_a_new_connection() -> None:
    """Nothing has begun: no descriptions, no transports, no transceivers."""
    async with peers(1) as (a,):
        assert (a.signalingState, a.iceGatheringState) == ("stable", "new")
        assert (a.iceConnectionState, a.connectionState) == ("new", "new")
        assert (a.localDescription, a.remoteDescription, a.sctp) == (None, None, None)


@clause("4.3.2", "iceGatheringState: gathering from the local description on, then complete")
@clause("4.4.1.4", "the state changes with its event, and null follows complete")
async def test_4_4_1_4_gathering_state() -> None:
    """Each state has its event, the last candidate event is null, and nothing gathers before."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        log = Log().watch(a, "icegatheringstatechange", name=lambda: a.iceGatheringState)
        log.watch(
            a, "icecandidate", name=lambda c: "null" if c is None else "end" if not c.candidate else "one"
        )
        await a.createOffer()
        assert await log.settled() == []
        await a.setLocalDescription()
        while a.iceGatheringState != "complete":
            await asyncio.sleep(0.01)
        found = log.take()
        assert found[0] == "gathering"
        assert found[-3:] == ["end", "complete", "null"]
        assert set(found[1:-3]) == {"one"}
        await b.setRemoteDescription(local(a))
        assert b.iceGatheringState == "new"


@clause("4.3.2", "iceGatheringState: an ICE restart gathers again, anything else does not")
async def test_4_3_2_gathering_again() -> None:
    """complete, gathering, complete once more for a restart; no event for a plain renegotiation."""
    async with pair() as call:
        call.a.addTrack(AudioStreamTrack())
        await call.exchange()
        await call.connected()
        log = Log().watch(call.a, "icegatheringstatechange", name=lambda: call.a.iceGatheringState)
        while call.a.iceGatheringState != "complete":
            await asyncio.sleep(0.01)
        log.take()
        await negotiate(call.a, call.b)
        assert await log.settled() == []
        call.a.restartIce()
        await call.exchange()
        while call.a.iceGatheringState != "complete" or "complete" not in log.entries:
            await asyncio.sleep(0.01)
        assert log.take() == ["gathering", "complete"]


@clause("4.3.3", "connectionState and iceConnectionState go from new to connected without a flap")
@clause("4.4.1.3", "each change of state has one event, with the state already changed")
async def test_4_3_3_states_of_a_call() -> None:
    """new, checking, connected (completed) and new, connecting, connected, each told once."""
    async with audio_call() as call:
        for name in ("a", "b"):
            ice = call.states(name, "iceconnectionstatechange")
            assert ice[0] == "checking"
            assert ice[1:] in (["connected"], ["connected", "completed"], ["completed"])
            assert call.states(name, "connectionstatechange") == ["connecting", "connected"]


@clause("4.3.4", "no state of the transport changes before an answer or a pranswer is set")
async def test_4_3_4_offers_connect_nothing() -> None:
    """Offers, rollbacks and offers again leave iceConnectionState and connectionState new."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        b.addTransceiver("audio")
        log = Log().watch(a, "iceconnectionstatechange", "connectionstatechange")
        for _ in range(2):
            await offer(a, b)
            await b.setRemoteDescription({"type": "rollback"})
            await offer(b, a)
            await b.setLocalDescription({"type": "rollback"})
            await a.setRemoteDescription({"type": "rollback"})
        assert await log.settled() == []
        assert a.iceConnectionState == b.connectionState == "new"


@pytest.mark.parametrize("wrap", ["plain", "task", "wait_for"])
@clause("4.4.1.3", "states change in tasks of their own: whoever set the description goes on first")
async def test_4_4_1_3_the_caller_goes_on_before_transport_states(wrap: str) -> None:
    """signalingstatechange comes first, then the caller goes on, then iceconnectionstatechange."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await offer(a, b)
        await b.addIceCandidate(
            {"candidate": "candidate:1 1 udp 2122260223 127.0.0.1 9 typ host", "sdpMid": "0"}
        )
        log = Log().watch(b, "signalingstatechange", "iceconnectionstatechange", "connectionstatechange")
        pending = b.setLocalDescription()
        if wrap == "plain":
            await pending
        elif wrap == "task":
            await asyncio.create_task(pending)
        else:
            await asyncio.wait_for(asyncio.shield(pending), 5)
        log.entries.append("caller")
        found = await log.settled()
        assert found[:3] == ["signalingstatechange", "caller", "iceconnectionstatechange"]
        assert b.iceConnectionState == "checking"


Story = Callable[["Wire"], Awaitable[None]]


class Wire:
    """Two peers of a call on a virtual network, and what became of their states."""

    def __init__(self) -> None:
        network = VirtualNetwork(seed=1)
        self.interfaces = [
            NetworkInterface(name=name, seed=1, host=network.add_host(name)) for name in ("a", "b")
        ]
        self.a, self.b = (
            RTCPeerConnection(interface=interface, entropy=random.Random(interface.name))
            for interface in self.interfaces
        )
        self.states: list[tuple[str, float]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.a.on("connectionstatechange", self._note)
        for source, target in ((self.a, self.b), (self.b, self.a)):
            source.on("icecandidate", lambda c, target=target: self._carry(c, target))

    def _note(self) -> None:
        self.states.append((self.a.connectionState, asyncio.get_running_loop().time()))

    def _carry(self, candidate: RTCIceCandidate | None, target: RTCPeerConnection) -> None:
        if candidate is not None:
            self._tasks.append(asyncio.ensure_future(self._deliver(candidate, target)))

    async def _deliver(self, candidate: RTCIceCandidate, target: RTCPeerConnection) -> None:
        def described() -> bool:
            found = target.remoteDescription
            return found is not None and f"a=ice-ufrag:{candidate.usernameFragment}" in found.sdp

        while not described():
            await asyncio.sleep(0.05)
        await target.addIceCandidate(candidate)

    def dark(self, *, at_s: float = 0.0, for_s: float | None = None) -> None:
        """Let nothing through in either direction."""
        for interface in self.interfaces:
            interface.fault(at_s=at_s or None, for_s=for_s, blackout=True)

    async def until(self, state: str) -> float:
        """Wait for a state of a; return how long that took."""
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(300):
            while self.a.connectionState != state:
                await asyncio.sleep(0.05)
        return asyncio.get_running_loop().time() - began

    async def close(self) -> None:
        """Close everything."""
        await asyncio.gather(*self._tasks)
        await self.a.close()
        await self.b.close()
        for interface in self.interfaces:
            interface.close()


def play(story: Story) -> list[str]:
    """Connect two peers in virtual time, let the story go on from there; return the states of the first."""

    async def main() -> list[str]:
        wire = Wire()
        try:
            wire.a.addTrack(AudioStreamTrack())
            wire.b.addTrack(AudioStreamTrack())
            await negotiate(wire.a, wire.b)
            await wire.until("connected")
            await story(wire)
            return [state for state, _ in wire.states]
        finally:
            await wire.close()

    return simulate(main, codecs="stand-in")


@clause("4.3.3", "disconnected: the path is interrupted; connected: it came back by itself")
@clause("4.3.4", "iceConnectionState goes with it")
def test_4_3_3_an_interruption_passes() -> None:
    """After an outage of ten seconds the connection is connected again, and was never failed."""

    async def story(wire: Wire) -> None:
        log = Log().watch(wire.a, "iceconnectionstatechange", name=lambda: wire.a.iceConnectionState)
        wire.dark(for_s=10)
        assert 2 < await wire.until("disconnected") < 10
        assert wire.a.iceConnectionState == "disconnected"
        await wire.until("connected")
        assert log.entries[0] == "disconnected"
        assert log.entries[-1] in ("connected", "completed")

    assert play(story) == ["connecting", "connected", "disconnected", "connected"]


@clause("4.3.3", "failed: the path is lost; a restart brings the connection back")
@clause("4.4.2", "restartIce: it is how a failed connection is saved")
def test_4_3_3_failed_and_restarted() -> None:
    """A path that stays dark fails; restartIce() over a path that works connects again."""

    async def story(wire: Wire) -> None:
        wire.dark(for_s=45)
        await wire.until("disconnected")
        await wire.until("failed")
        assert wire.a.iceConnectionState == "failed"
        await asyncio.sleep(30)
        assert wire.a.connectionState == "failed"
        wire.a.restartIce()
        await negotiate(wire.a, wire.b)
        await wire.until("connected")

    found = play(story)
    assert found[:4] == ["connecting", "connected", "disconnected", "failed"]
    assert found[-1] == "connected"
    assert set(found[4:-1]) <= {"connecting"}


@clause("4.3.3", "the closing of one side is not seen as such by the other")
def test_4_3_3_the_other_side_closes() -> None:
    """When the peer closes, DTLS says so: this side leaves connected, and is never closed by itself."""

    async def story(wire: Wire) -> None:
        await wire.b.close()
        async with asyncio.timeout(120):
            while wire.a.connectionState == "connected":
                await asyncio.sleep(0.1)
        assert wire.a.signalingState == "stable"

    found = play(story)
    assert found[:2] == ["connecting", "connected"]
    assert "closed" not in found


@clause("4.3.3", "a connection whose path never works fails")
def test_4_3_3_no_path_at_all() -> None:
    """With the network dark from the beginning the states are connecting and failed."""

    async def main() -> list[Any]:
        wire = Wire()
        try:
            wire.dark()
            wire.a.addTrack(AudioStreamTrack())
            await offer(wire.a, wire.b)
            await answer(wire.a, wire.b)
            await wire.until("failed")
            return [state for state, _ in wire.states]
        finally:
            await wire.close()

    assert simulate(main, codecs="stand-in") == ["connecting", "failed"]
