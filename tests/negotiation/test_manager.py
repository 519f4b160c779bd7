"""The peer connection manager by its contract: configuration, callbacks, wire messages, recovery, close."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from calllab.errors import ServiceUnavailable, TurnError
from calllab.media import SpeechTrack
from calllab.negotiation import PeerConnectionConfig, PeerConnectionManager, create_peer_connection, manager
from calllab.network import NetworkInterface, simulate
from calllab.rtc import MediaStream


class Wire:
    """Signaling to one other manager; what is sent is kept in ``sent``."""

    def __init__(self) -> None:
        self.sent: list[Mapping[str, Any]] = []
        self.other: PeerConnectionManager | None = None

    async def send(self, message: Mapping[str, Any]) -> None:
        """Deliver a message on the next turn of the loop."""
        self.sent.append(message)
        asyncio.get_running_loop().call_soon(self._deliver, message)

    def _deliver(self, message: Mapping[str, Any]) -> None:
        if self.other is None:
            return
        if message["type"] == "call-ice-candidate":
            self.other.handle_ice_candidate(message["candidate"])
        else:
            kind = message["type"].removeprefix("call-")
            self.other.handle_remote_description({"type": kind, "sdp": message["sdp"]})


class End:
    """One end with everything that its callbacks told."""

    def __init__(self, name: str, remote: str, polite: bool) -> None:
        self.wire = Wire()
        self.interface = NetworkInterface(name=name)
        self.streams: list[MediaStream] = []
        self.states: list[str] = []
        self.track = SpeechTrack(seed=len(name))
        self.config = PeerConnectionConfig(
            is_polite=polite,
            on_track=self.streams.append,
            on_ice_connection_state_change=self._state,
            signaling=self.wire,
            call_id="c1",
            remote_user_id=remote,
            interface=self.interface,
        )
        self.manager: PeerConnectionManager

    async def _state(self, state: str) -> None:
        await asyncio.sleep(0)
        self.states.append(state)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[End, End]]:
    """Connect two managers; close them and their media at the end."""
    ends = End("alice", "bob", polite=False), End("bob", "alice", polite=True)
    for end in ends:
        end.manager = await create_peer_connection(end.config)
    ends[0].wire.other, ends[1].wire.other = ends[1].manager, ends[0].manager
    try:
        for end in ends:
            end.manager.add_local_stream(MediaStream([end.track]))
        async with asyncio.timeout(10):
            await asyncio.gather(*(end.manager.wait_connected() for end in ends))
        yield ends
    finally:
        for end in ends:
            await end.manager.close()
            end.track.stop()
            end.interface.close()


async def test_two_managers_connect_and_tell() -> None:
    """Streams and ICE states reach function and coroutine callbacks; messages carry call and recipient."""
    async with pair() as (alice, bob):
        for end in (alice, bob):
            async with asyncio.timeout(5):
                while not (end.streams and end.states and end.states[-1] in ("connected", "completed")):
                    await asyncio.sleep(0.01)
            assert end.manager.errors == []
        assert alice.streams[0].getAudioTracks()
        for message in (*alice.wire.sent, *bob.wire.sent):
            assert message["callId"] == "c1"
            assert message["type"] in ("call-offer", "call-answer", "call-ice-candidate")
        assert {m["recipientId"] for m in alice.wire.sent} == {"bob"}
        ends_of_candidates = [
            m["candidate"]
            for m in alice.wire.sent
            if m["type"] == "call-ice-candidate" and not m["candidate"]["candidate"]
        ]
        assert all(init["usernameFragment"] for init in ends_of_candidates)
        report = await alice.manager.get_stats()
        assert any(entry["type"] == "outbound-rtp" for entry in report.values())


async def test_a_dead_path_is_restarted_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a network change the manager restarts ICE once disconnected, and the connection is back."""
    monkeypatch.setattr(manager, "DISCONNECTED_GRACE_S", 0.1)
    async with pair() as (alice, bob):
        alice.interface.change_network()
        async with asyncio.timeout(15):
            while "disconnected" not in alice.states or alice.manager.pc.connectionState != "connected":
                await asyncio.sleep(0.05)
        assert bob.manager.pc.signalingState == "stable"
        assert alice.manager.errors == bob.manager.errors == []


def test_restarts_that_do_not_help_become_rare() -> None:
    """The first comes at once, the next ones after longer and longer pauses, until the connection is up."""
    pauses: list[float] = []

    async def fail_often() -> None:
        clock = asyncio.get_running_loop().time
        began = clock()

        def note(event: str, _: Mapping[str, Any]) -> None:
            if event == "restartIce":
                pauses.append(clock() - began)

        made = PeerConnectionManager(replace(End("alice", "bob", polite=True).config, on_event=note))
        made.initialize()
        for state in (*["failed"] * 8, "connected", "failed"):
            began = clock()
            made.pc._session.connection_state = state  # type: ignore[assignment]
            made._on_connection_state_change()
            await asyncio.sleep(50)
        await made.close()

    simulate(fail_often)
    assert pauses == pytest.approx([0, 1, 2, 4, 8, 16, 30, 30, 0])


async def test_close_is_complete_at_any_time_and_twice() -> None:
    """Closing before initialize, right after it, and again leaves nothing and raises nothing."""
    config = End("alice", "bob", polite=True).config
    early = PeerConnectionManager(config)
    await early.close()
    fresh = PeerConnectionManager(config)
    fresh.initialize()
    with pytest.raises(RuntimeError, match="before"):
        fresh.initialize()
    fresh.restart_ice()
    await fresh.close()
    await fresh.close()
    assert fresh.pc.signalingState == "closed"
    await fresh.handle_remote_description({"type": "offer", "sdp": "v=0"})
    await fresh.handle_ice_candidate(None)


async def test_a_handler_may_close_the_manager() -> None:
    """A callback that is a coroutine, and closes, goes on afterwards."""
    closed = asyncio.Event()

    async def close(_: str) -> None:
        await made.close()
        closed.set()

    config = End("alice", "bob", polite=False).config
    made = PeerConnectionManager(replace(config, on_ice_connection_state_change=close))
    made.initialize()
    made._on_ice_connection_state_change()
    async with asyncio.timeout(5):
        await closed.wait()
    assert made.pc.signalingState == "closed"


async def test_the_peer_connection_needs_initialize() -> None:
    """Using the connection before it exists says what to call."""
    with pytest.raises(RuntimeError, match="initialize"):
        _ = PeerConnectionManager(End("alice", "bob", polite=True).config).pc


async def test_a_handler_that_fails_does_not_end_the_call(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a callback is logged, and negotiation goes on."""
    alice = End("alice", "bob", polite=False)

    def broken(_: object) -> None:
        raise ZeroDivisionError

    made = PeerConnectionManager(
        PeerConnectionConfig(
            **{
                **{name: getattr(alice.config, name) for name in ("is_polite", "on_track", "signaling")},
                "on_ice_connection_state_change": broken,
                "call_id": "c1",
                "remote_user_id": "bob",
            }
        )
    )
    made.initialize()
    made._on_ice_connection_state_change()
    assert "a handler of call c1 failed" in caplog.text
    await made.close()


async def test_what_the_credential_service_says_passes_through() -> None:
    """create_peer_connection fails with the service's own error and leaves no connection."""

    class Down:
        async def get_credentials(self) -> Any:
            raise ServiceUnavailable("the service does not answer: is it running?")

    config = End("alice", "bob", polite=False).config
    broken = PeerConnectionConfig(
        **{name: getattr(config, name) for name in config.__dataclass_fields__ if name != "turn_api"},
        turn_api=Down(),
    )
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        await create_peer_connection(broken)


async def test_a_silent_turn_server_is_an_error_within_seconds() -> None:
    """With the policy relay and nobody at the TURN address, wait_connected() raises TurnError 701."""

    class Lender:
        async def get_credentials(self) -> Any:
            from calllab.protocol.turn_credentials import make_credentials

            return make_credentials("s" * 32, "alice", now=0, ttl=60, uris=["turn:127.0.0.1:9?transport=udp"])

    config = End("alice", "bob", polite=False).config
    members = {name: getattr(config, name) for name in config.__dataclass_fields__}
    members |= {"turn_api": Lender(), "ice_transport_policy": "relay", "interface": None}
    made = await create_peer_connection(PeerConnectionConfig(**members))
    try:
        made.pc.addTransceiver("audio")
        async with asyncio.timeout(10):
            with pytest.raises(TurnError, match=r"turn:127\.0\.0\.1:9.*did not answer") as caught:
                await made.wait_connected()
        assert caught.value.code == 701
    finally:
        await made.close()
