"""Faults on a running channel."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from calllab.errors import ChannelClosed, SignalingError, WireError
from calllab.protocol import RelayLimits
from calllab.signaling import ChannelState, FaultyChannel, MemoryHub
from tests.signaling.helpers import MS, StateLog, typing


@pytest.fixture
async def hub() -> AsyncIterator[MemoryHub]:
    hub = MemoryHub()
    yield hub
    await hub.close()


@pytest.fixture
async def alice(hub: MemoryHub) -> AsyncIterator[FaultyChannel]:
    async with FaultyChannel(hub.connect("alice"), entropy=random.Random(1)) as channel:
        yield channel


@pytest.fixture
async def bob(hub: MemoryHub) -> AsyncIterator[FaultyChannel]:
    async with FaultyChannel(hub.connect("bob"), entropy=random.Random(2)) as channel:
        yield channel


async def ids(channel: FaultyChannel, count: int) -> list[str]:
    """Receive so many messages and return their ids."""
    async with asyncio.timeout(5):
        return [(await channel.receive())["id"] for _ in range(count)]


async def test_without_faults_nothing_changes(alice: FaultyChannel, bob: FaultyChannel) -> None:
    """Messages pass both ways, ids are given, errors come back."""
    await alice.send(typing("bob"))
    got = await bob.receive()
    assert (got["senderId"], got["senderDevice"]) == ("alice", alice.device_id)
    await bob.send(typing("alice", id="back"))
    assert await ids(alice, 1) == ["back"]
    await alice.send(typing("nobody"))
    assert (await alice.receive())["code"] == "recipient-unknown"


async def test_two_offers_can_be_made_to_cross(alice: FaultyChannel, bob: FaultyChannel) -> None:
    """Both sides' offers are held until both exist, then both arrive: glare on demand."""
    offer = {"type": "call-offer", "callId": "c-1", "sdp": "v=0\r\n"}
    with alice.hold("call-offer") as one, bob.hold("call-offer") as other:
        await alice.send({**offer, "recipientId": "bob", "id": "a"})
        await alice.send(typing("bob", id="after"))
        arriving = asyncio.gather(one.arrived(1), other.arrived(1))
        await asyncio.sleep(0)
        assert not arriving.done()
        await bob.send({**offer, "recipientId": "alice", "id": "b"})
        held = await arriving
        assert [[message["id"] for message in side] for side in held] == [["a"], ["b"]]
    assert await ids(bob, 2) == ["a", "after"]
    assert await ids(alice, 1) == ["b"]
    assert one.count == other.count == 1
    assert one.messages == ()


async def test_faults_on_the_way_in_hit_what_is_received(alice: FaultyChannel, bob: FaultyChannel) -> None:
    """direction="in" holds, drops and doubles messages that have already crossed the relay."""
    with bob.hold("typing", "in") as hold:
        await alice.send(typing("bob", id="held"))
        await hold.arrived()
    assert await ids(bob, 1) == ["held"]
    with bob.drop("typing", "in", count=1) as drop, bob.duplicate("typing", "in", count=1) as twice:
        await alice.send(typing("bob", id="lost"))
        await alice.send(typing("bob", id="twice"))
        assert await ids(bob, 2) == ["twice", "twice"]
    assert (drop.count, twice.count) == (1, 1)


async def test_a_dropped_message_is_lost_without_a_word(alice: FaultyChannel, bob: FaultyChannel) -> None:
    """send() succeeds, nothing arrives, and no error comes back."""
    with alice.drop("typing") as drop:
        await alice.send(typing("bob", id="lost"))
        await alice.send({"type": "read", "recipientId": "bob", "messageId": "m", "id": "other type"})
        assert drop.count == 1
    await alice.send(typing("bob", id="after"))
    assert await ids(bob, 2) == ["other type", "after"]


async def test_a_delay_delays_and_keeps_the_order(alice: FaultyChannel, bob: FaultyChannel) -> None:
    """A late message arrives no sooner than it should, and later ones behind it."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with alice.delay(40 * MS, "typing", count=1):
        await alice.send(typing("bob", id="late"))
        await alice.send(typing("bob", id="behind"))
        assert loop.time() - began_s < 40 * MS
    await alice.send(typing("bob", id="sent after the fault has ended"))
    assert await ids(bob, 3) == ["late", "behind", "sent after the fault has ended"]
    assert loop.time() - began_s >= 39 * MS


async def test_a_delay_out_of_order_lets_later_messages_pass(
    alice: FaultyChannel, bob: FaultyChannel
) -> None:
    """in_order=False reorders."""
    with alice.delay(20 * MS, count=1, in_order=False):
        await alice.send(typing("bob", id="late"))
        await alice.send(typing("bob", id="early"))
    assert await ids(bob, 2) == ["early", "late"]


async def test_what_is_no_message_is_refused_even_under_a_fault(alice: FaultyChannel) -> None:
    """A held or dropped message is checked as well: faults hide no mistakes."""
    with alice.hold() as hold, alice.drop():
        for wrong in ({"type": "nonsense"}, {"recipientId": "bob"}, typing("bob", colour="red")):
            with pytest.raises(WireError):
                await alice.send(wrong)
        assert hold.count == 0


async def test_waiting_for_a_hold_ends_when_it_cannot_be_fulfilled(alice: FaultyChannel) -> None:
    """A release or the end of the channel ends arrived() with an error that counts."""
    hold = alice.hold()
    waiting = asyncio.create_task(hold.arrived(2))
    await alice.send(typing("bob"))
    await asyncio.sleep(0)
    hold.release()
    with pytest.raises(SignalingError, match="1 of 2"):
        await waiting
    another = alice.hold()
    waiting = asyncio.create_task(another.arrived())
    await asyncio.sleep(0)
    await alice.close()
    with pytest.raises(ChannelClosed, match="0 of 1"):
        await waiting
    another.release()


async def test_closing_closes_the_channel_inside(alice: FaultyChannel, hub: MemoryHub) -> None:
    """close() ends both channels, with messages on their way or not, and iteration ends quietly."""
    log = StateLog(alice)
    alice.hold()
    await alice.send(typing("bob"))
    reading = asyncio.create_task(_count(alice))
    await asyncio.sleep(0)
    await alice.close()
    await alice.close()
    assert await reading == 0
    assert hub.core.devices_of("alice") == ()
    assert log.states == [ChannelState.CLOSED]
    with pytest.raises(ChannelClosed):
        await alice.send(typing("bob"))


async def _count(channel: FaultyChannel) -> int:
    count = 0
    async for _ in channel:
        count += 1
    return count


async def test_the_state_is_that_of_the_channel_inside(hub: MemoryHub) -> None:
    """Interruptions and the end from the far side show through."""
    inner = hub.connect("carol")
    async with FaultyChannel(inner) as carol:
        log = StateLog(carol)
        hub.interrupt(inner)
        hub.resume(inner)
        hub.log_out("carol")
        assert log.states == [ChannelState.RECONNECTING, ChannelState.CONNECTED, ChannelState.CLOSED]
        with pytest.raises(ChannelClosed) as caught:
            await carol.receive()
        assert caught.value.code == 4401


async def test_a_late_message_that_cannot_be_sent_is_logged(
    alice: FaultyChannel, hub: MemoryHub, caplog: pytest.LogCaptureFixture
) -> None:
    """When the connection is gone by the time a message is due, a warning says so."""
    hold = alice.hold()
    await alice.send(typing("bob"))
    hub.log_out("alice")
    hold.release()
    async with asyncio.timeout(5):
        while "a late typing was not sent" not in caplog.text:
            await asyncio.sleep(0)


async def test_what_is_not_received_still_counts_against_the_limits() -> None:
    """The wrapper takes over only a few messages: a stalled reader is as slow as without it."""
    hub = MemoryHub(limits=RelayLimits(queued_bytes=3000))
    async with FaultyChannel(hub.connect("bob")) as bob, hub.connect("alice") as alice:
        error = asyncio.create_task(alice.receive())
        for _ in range(200):
            await alice.send(typing("bob"))
            await asyncio.sleep(0)
        assert (await error)["code"] == "recipient-slow"
        async with asyncio.timeout(5):
            for _ in range(64):
                await bob.receive()


async def test_directions_are_checked(alice: FaultyChannel) -> None:
    """A direction that does not exist is named."""
    with pytest.raises(ValueError, match="sideways"):
        alice.hold(direction="sideways")  # type: ignore[arg-type]
