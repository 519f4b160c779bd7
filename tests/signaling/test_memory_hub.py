"""Channels in memory: the same promises as the service's, without a socket."""

from __future__ import annotations

import asyncio
import random

import pytest

from calllab.errors import ChannelClosed, ServiceUnavailable, WireError
from calllab.protocol import RelayLimits
from calllab.signaling import ChannelState, MemoryHub, StateChange, rejection
from tests.signaling.helpers import MS, StateLog, typing


async def test_a_message_arrives_with_its_sender_and_an_id() -> None:
    """What is sent arrives once, signed; a message without an id is given one, others keep theirs."""
    hub = MemoryHub()
    async with hub.connect("alice", "laptop") as alice, hub.connect("bob") as bob:
        await alice.send(typing("bob"))
        await alice.send(typing("bob", id="mine"))
        signed = {"senderId": "alice", "senderDevice": "laptop"}
        assert await bob.receive() == {**typing("bob"), "id": "laptop.1", **signed}
        assert await bob.receive() == {**typing("bob"), "id": "mine", **signed}


async def test_what_the_relay_refuses_comes_back_as_an_error_message() -> None:
    """Offline and unknown recipients are told apart, and rejection() makes an exception of either."""
    hub = MemoryHub(users=["bob"])
    async with hub.connect("alice") as alice:
        await alice.send(typing("bob"))
        await alice.send(typing("nobody"))
        codes = []
        for _ in range(2):
            error = rejection(await alice.receive())
            codes.append((error.code, error.recipient_id))
        assert codes == [("recipient-offline", "bob"), ("recipient-unknown", "nobody")]


@pytest.mark.parametrize(
    "message",
    [
        {"recipientId": "bob"},
        {"type": "nonsense", "recipientId": "bob"},
        typing("bob", senderId="carol"),
        typing("bob", colour="red"),
        typing("bob", id=b"bytes"),
        typing("bob", id="\ud800"),
        {"type": "message", "recipientId": "bob", "encryptedContent": "x" * 70_000},
    ],
)
async def test_what_the_relay_would_refuse_is_refused_at_once(message: dict[str, object]) -> None:
    """A message that is none raises where it is sent, and reaches nobody."""
    hub = MemoryHub()
    async with hub.connect("alice") as alice, hub.connect("bob") as bob:
        with pytest.raises(WireError):
            await alice.send(message)
        await alice.send(typing("bob", id="next"))
        assert (await bob.receive())["id"] == "next"


async def test_iteration_ends_quietly_when_the_owner_closes() -> None:
    """``async for`` over a channel ends at close(), and close() may be called again."""
    hub = MemoryHub()
    alice, bob = hub.connect("alice"), hub.connect("bob")
    got: list[str] = []

    async def read() -> None:
        async for message in bob:
            got.append(message["id"])
            if message["id"] == "last":
                await bob.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        await alice.send(typing("bob", id="first"))
        await alice.send(typing("bob", id="last"))
    assert got == ["first", "last"]
    assert bob.state is ChannelState.CLOSED
    await bob.close()
    with pytest.raises(ChannelClosed):
        await bob.send(typing("alice"))
    with pytest.raises(ChannelClosed):
        await bob.receive()
    await alice.close()
    assert hub.core.connections == 0


async def test_a_close_wakes_whoever_waits_for_a_message() -> None:
    """A pending receive() ends with ChannelClosed."""
    hub = MemoryHub()
    alice = hub.connect("alice")
    waiting = asyncio.create_task(alice.receive())
    await asyncio.sleep(0)
    await alice.close()
    with pytest.raises(ChannelClosed, match="closed here"):
        await waiting


@pytest.mark.parametrize(("how", "code"), [("logout", 4401), ("replaced", 4409), ("shutdown", 1001)])
async def test_an_end_from_the_far_side_is_an_error_after_the_last_message(how: str, code: int) -> None:
    """What came before is received; then ChannelClosed says why, with the close code."""
    hub = MemoryHub()
    alice, bob = hub.connect("alice"), hub.connect("bob", "phone")
    log = StateLog(bob)
    await alice.send(typing("bob"))
    if how == "logout":
        hub.log_out("bob")
    elif how == "replaced":
        hub.connect("bob", "phone")
    else:
        await hub.close()
    messages = aiter(bob)
    assert (await anext(messages))["senderId"] == "alice"
    with pytest.raises(ChannelClosed) as caught:
        await anext(messages)
    assert caught.value.code == code
    assert [(change.state, change.code) for change in log.changes] == [(ChannelState.CLOSED, code)]
    await hub.close()


async def test_a_channel_that_nobody_reads_makes_its_senders_see_recipient_slow() -> None:
    """Unread messages count against the queue limit, and reading makes room again."""
    hub = MemoryHub(limits=RelayLimits(queued_bytes=2000))
    async with hub.connect("alice") as alice, hub.connect("bob") as bob:
        for _ in range(30):
            await alice.send(typing("bob"))
        error = await alice.receive()
        assert error["code"] == "recipient-slow"
        missed = int(error["inReplyTo"].split(".")[1])
        for _ in range(missed - 1):
            await bob.receive()
        await alice.send(typing("bob", id="again"))
        assert (await bob.receive())["id"] == "again"


async def test_an_interruption_looks_like_one_of_the_network() -> None:
    """The user is offline for others, its messages wait in order, and its device keeps its id."""
    hub = MemoryHub()
    async with hub.connect("alice") as alice, hub.connect("bob") as bob:
        log = StateLog(bob)
        hub.interrupt(bob, "gone into a tunnel")
        assert bob.state is ChannelState.RECONNECTING
        await alice.send(typing("bob"))
        assert (await alice.receive())["code"] == "recipient-offline"
        sending = [asyncio.create_task(bob.send(typing("alice", id=str(n)))) for n in range(5)]
        await asyncio.sleep(0)
        device = bob.device_id
        hub.resume(bob)
        await asyncio.gather(*sending)
        assert [(await alice.receive())["id"] for _ in range(5)] == ["0", "1", "2", "3", "4"]
        assert bob.device_id == device
        assert log.states == [ChannelState.RECONNECTING, ChannelState.CONNECTED]
        assert log.changes[0].reason == "gone into a tunnel"


async def test_a_message_does_not_wait_for_ever_for_a_connection() -> None:
    """After the limit send() says that the message was not sent, and it is not sent later either."""
    hub = MemoryHub(send_timeout_s=20 * MS)
    async with hub.connect("alice") as alice, hub.connect("bob") as bob:
        hub.interrupt(alice)
        with pytest.raises(ServiceUnavailable, match="was not sent"):
            await alice.send(typing("bob", id="late"))
        hub.resume(alice)
        await alice.send(typing("bob", id="next"))
        assert (await bob.receive())["id"] == "next"


async def test_interrupted_channels_end_like_all_others() -> None:
    """close() of the channel or of the hub ends an interruption, and with it the messages that wait."""
    hub = MemoryHub()
    first, second = hub.connect("alice"), hub.connect("bob")
    hub.interrupt(first)
    hub.interrupt(second)
    waiting = [asyncio.create_task(channel.send(typing("carol"))) for channel in (first, second)]
    await asyncio.sleep(0)
    await first.close()
    await hub.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [ChannelClosed] * 2
    hub.resume(first)
    assert hub.core.connections == 0


async def test_too_many_devices_are_refused() -> None:
    """connect() raises when the relay does not admit the device."""
    hub = MemoryHub(limits=RelayLimits(devices_per_user=1))
    async with hub.connect("alice"):
        with pytest.raises(ChannelClosed) as caught:
            hub.connect("alice")
        assert caught.value.code == 1008


async def test_a_state_listener_that_fails_or_sends_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """One listener's exception is logged and the next is called; sending from a listener keeps the order."""
    hub = MemoryHub()
    alice, bob, phone = hub.connect("alice"), hub.connect("bob"), hub.connect("alice", "phone")
    tasks: list[asyncio.Task[None]] = []

    def fail(change: StateChange) -> None:
        raise RuntimeError("a broken listener")

    def send(change: StateChange) -> None:
        tasks.append(asyncio.ensure_future(alice.send(typing("bob", id="from listener"))))

    phone.on_state(fail)
    stop = phone.on_state(send)
    hub.connect("alice", "phone")
    assert "a broken listener" in caplog.text
    await asyncio.gather(*tasks)
    assert (await bob.receive())["id"] == "from listener"
    stop()
    stop()
    await hub.close()


async def test_one_seed_gives_the_same_devices_and_ids() -> None:
    """Two hubs with the same seed name devices and messages alike."""
    ids = []
    for _ in range(2):
        hub = MemoryHub(entropy=random.Random(5))
        async with hub.connect("alice") as alice, hub.connect("bob") as bob:
            await alice.send(typing("bob"))
            ids.append((await bob.receive())["id"])
    assert ids[0] == ids[1]
