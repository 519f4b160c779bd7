"""Calls between phones: what the two users see, through real peer connections and the real relay core."""

from __future__ import annotations

import asyncio

import pytest

from calllab.call import Call, core
from calllab.errors import CallFailed, InvalidCallState, WireError
from calllab.signaling import MemoryChannel
from tests.call.phones import connected, desk


async def test_a_call_rings_connects_and_ends() -> None:
    """Both sides go through the states of a call, in order, and a hang-up ends both."""
    async with desk() as office:
        alice, bob = await office.phone("alice"), await office.phone("bob")
        outgoing, incoming = await connected(alice, bob)
        assert (outgoing.is_polite, incoming.is_polite) == (False, True)
        assert incoming.remote_user_id == "alice"
        assert outgoing.id == incoming.id
        await outgoing.hang_up()
        assert await incoming.wait_ended(5) == "remote-hung-up"
        assert outgoing.end_reason == "hung-up"
        for states in office.states.values():
            assert states == ["ringing", "connecting", "connected", "ended"]
        assert outgoing.pc.signalingState == "closed"


async def test_the_callee_may_take_its_time() -> None:
    """A call rings until the user accepts; nothing is negotiated before."""
    async with desk() as office:
        rings: asyncio.Queue[Call] = asyncio.Queue()
        alice = await office.phone("alice")
        await office.phone("bob", on_incoming=rings.put_nowait)
        outgoing = await alice.call("bob")
        incoming = await asyncio.wait_for(rings.get(), 5)
        assert incoming.state == "ringing"
        with pytest.raises(InvalidCallState, match="no peer connection"):
            _ = incoming.pc
        await incoming.accept()
        await outgoing.wait_connected(10)


async def test_a_rejected_call_says_so() -> None:
    """The caller gets CallFailed with the reason; the callee's call has ended as rejected."""
    async with desk() as office:
        alice = await office.phone("alice")
        bob = await office.phone("bob", on_incoming=lambda call: call.reject("not now"))
        outgoing = await alice.call("bob")
        with pytest.raises(CallFailed, match=r"rejected.*not now") as caught:
            await outgoing.wait_connected(5)
        assert caught.value.reason == "rejected"
        assert bob.current is not None
        assert bob.current.end_reason == "rejected"


async def test_a_busy_callee_is_not_disturbed() -> None:
    """A third user gets busy, and the call that is up stays connected."""
    async with desk() as office:
        alice, bob, carol = [await office.phone(name) for name in ("alice", "bob", "carol")]
        outgoing, _ = await connected(alice, bob)
        refused = await carol.call("bob")
        assert await refused.wait_ended(5) == "busy"
        assert outgoing.state == "connected"
        assert office.states["bob"] == ["ringing", "connecting", "connected"]


async def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the ring timeout passes, both sides have a missed call."""
    monkeypatch.setattr(core, "RING_TIMEOUT_S", 0.2)
    async with desk() as office:
        alice, bob = await office.phone("alice"), await office.phone("bob", on_incoming=lambda _: None)
        outgoing = await alice.call("bob")
        assert await outgoing.wait_ended(5) == "missed"
        assert bob.current is not None
        assert await bob.current.wait_ended(5) == "missed"


async def test_nobody_is_there() -> None:
    """Calling a user without a connected device ends at once as unreachable."""
    async with desk() as office:
        alice = await office.phone("alice")
        office.hub.register("bob")
        outgoing = await alice.call("bob")
        assert await outgoing.wait_ended(5) == "unreachable"


async def test_two_users_who_call_each_other_are_connected_once() -> None:
    """Call glare gives one connected call with one id on both sides, and nobody hears a ring."""
    async with desk() as office:
        rings: list[Call] = []
        alice = await office.phone("alice", on_incoming=rings.append)
        bob = await office.phone("bob", on_incoming=rings.append)
        first, second = await alice.call("bob"), await bob.call("alice")
        await asyncio.gather(first.wait_connected(10), second.wait_connected(10))
        assert first.id == second.id
        assert first.is_polite != second.is_polite
        assert rings == []
        await first.hang_up()
        assert await second.wait_ended(5) == "remote-hung-up"


async def test_one_device_answers_and_the_other_stops_ringing() -> None:
    """A user's second device learns that the call was answered elsewhere."""
    async with desk() as office:
        alice = await office.phone("alice")
        laptop = await office.phone("bob", device="laptop", on_incoming=lambda _: None)
        await office.phone("bob", device="phone")
        outgoing = await alice.call("bob")
        await outgoing.wait_connected(10)
        assert laptop.current is not None
        assert await laptop.current.wait_ended(5) == "answered-elsewhere"


async def test_a_call_can_be_given_up_before_it_is_answered() -> None:
    """Hanging up while it rings stops the ringing at the other side."""
    async with desk() as office:
        alice, bob = await office.phone("alice"), await office.phone("bob", on_incoming=lambda _: None)
        outgoing = await alice.call("bob")
        while bob.current is None:
            await asyncio.sleep(0)
        await outgoing.hang_up()
        assert outgoing.end_reason == "cancelled"
        assert await bob.current.wait_ended(5) == "cancelled"


async def test_a_cancelled_caller_leaves_nothing_behind() -> None:
    """Cancelling whoever waits for the connection, and closing the phone, ends the call and all its tasks."""
    async with desk() as office:
        alice, bob = await office.phone("alice"), await office.phone("bob")
        outgoing = await alice.call("bob")
        waiting = asyncio.create_task(outgoing.wait_connected())
        while outgoing.state == "ringing":
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await alice.close()
        assert outgoing.state == "ended"
        assert bob.current is not None
        assert await bob.current.wait_ended(5) in ("remote-hung-up", "cancelled")


async def test_a_closed_phone_cannot_call() -> None:
    """Dialling on a closed phone says what to do."""
    async with desk() as office:
        alice = await office.phone("alice")
        await alice.close()
        with pytest.raises(InvalidCallState, match="closed"):
            await alice.call("bob")


async def test_an_offer_that_was_lost_with_the_connection_is_sent_again() -> None:
    """When signaling comes back, an offer that nobody got is repeated, and negotiation goes on."""
    async with desk() as office:
        alice, bob = await office.phone("alice"), await office.phone("bob")
        outgoing, incoming = await connected(alice, bob)
        assert isinstance(alice.channel, MemoryChannel)
        assert outgoing.manager is not None
        assert incoming.manager is not None
        outgoing.manager.config.signaling.send = _swallow  # type: ignore[method-assign]
        outgoing.pc.addTransceiver("video")
        while outgoing.pc.signalingState == "stable":
            await asyncio.sleep(0)
        del outgoing.manager.config.signaling.send
        office.hub.interrupt(alice.channel)
        office.hub.resume(alice.channel)
        async with asyncio.timeout(5):
            while not (outgoing.manager.is_settled and len(incoming.pc.getTransceivers()) == 2):
                await asyncio.sleep(0.01)


async def _swallow(_: object) -> None:
    """Lose a message, as a connection that is dead without knowing it does."""


async def test_a_reason_that_is_too_long_is_refused_and_the_call_still_rings() -> None:
    """reject() says how long a reason may be; nothing has changed, and the call can be taken."""
    async with desk() as office:
        rings: asyncio.Queue[Call] = asyncio.Queue()
        alice = await office.phone("alice")
        await office.phone("bob", on_incoming=rings.put_nowait)
        outgoing = await alice.call("bob")
        incoming = await asyncio.wait_for(rings.get(), 5)
        with pytest.raises(WireError, match="shorten it to"):
            await incoming.reject("x" * 10_000)
        assert incoming.state == "ringing"
        await incoming.accept()
        await outgoing.wait_connected(10)


async def test_a_message_that_the_wire_refuses_ends_the_call_and_not_the_phone() -> None:
    """An offer beyond the wire's limit fails the call with its reason; the next call works."""
    async with desk() as office:
        alice, bob = await office.phone("alice"), await office.phone("bob")
        outgoing, incoming = await connected(alice, bob)
        offer = {"type": "call-offer", "recipientId": "bob", "callId": outgoing.id, "sdp": "x" * 100_000}
        await alice.send(offer)
        assert await outgoing.wait_ended(5) == "failed"
        assert "call-offer cannot be sent" in str(outgoing.end_detail)
        assert await incoming.wait_ended(5) == "failed"
        await connected(alice, bob)


async def test_handlers_that_fail_do_not_end_the_phone(caplog: pytest.LogCaptureFixture) -> None:
    """Errors in on_incoming and in a state listener are logged; the phone goes on ringing and calling."""

    def broken(_: Call) -> None:
        raise ZeroDivisionError

    async with desk() as office:
        alice, bob = await office.phone("alice"), await office.phone("bob", on_incoming=broken)
        outgoing = await alice.call("bob")
        outgoing.on_state(broken)
        async with asyncio.timeout(5):
            while bob.current is None:
                await asyncio.sleep(0)
        await bob.current.accept()
        await outgoing.wait_connected(10)
        assert "on_incoming failed" in caplog.text
        assert "a listener of" in caplog.text
