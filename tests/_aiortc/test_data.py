from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from calllab._aiortc import DataChannel, SctpTransport
from tests._aiortc.helpers import Call, call, until


@asynccontextmanager
async def associated(
    remote_max_message_size: int = 65536,
) -> AsyncIterator[tuple[Call, SctpTransport, SctpTransport]]:
    async with call() as c:
        a = c.alice.sctp = SctpTransport(c.alice.dtls)
        b = c.bob.sctp = SctpTransport(c.bob.dtls)
        await asyncio.gather(a.start(5000, remote_max_message_size), b.start(5000, 65536))
        yield c, a, b


async def test_channels_open_carry_messages_and_close() -> None:
    """Text and bytes, empty ones too, arrive in order on a channel whose names are not ASCII."""
    async with associated() as (_, a, b):
        arrived: list[DataChannel] = []
        heard: list[Any] = []
        events: list[str] = []

        def adopt(channel: DataChannel) -> None:
            assert channel.state == "open"
            arrived.append(channel)
            channel.on_message = heard.append
            channel.on_close = lambda: events.append("closed there")

        b.on_data_channel = adopt
        channel = a.create_channel("grüße \N{GRINNING FACE}", protocol="ø", ordered=True)
        assert channel.state == "connecting"
        channel.on_open = lambda: events.append("open")
        channel.on_closing = lambda: events.append("closing")
        channel.on_close = lambda: events.append("closed")
        await until(lambda: arrived)
        await until(lambda: channel.state == "open")
        assert (arrived[0].label, arrived[0].protocol) == ("grüße \N{GRINNING FACE}", "ø")
        messages: list[str | bytes] = ["", b"", "é", b"\x00\xff", "x" * 50_000]
        for message in messages:
            channel.send(message)
        await until(lambda: len(heard) == len(messages))
        assert heard == messages
        channel.close()
        channel.close()
        await until(lambda: "closed" in events and "closed there" in events)
        assert events[:2] == ["open", "closing"]
        assert (a.channels_opened, a.channels_closed) == (1, 1)
        with pytest.raises(ConnectionError, match="is closed, not open"):
            channel.send("late")


async def test_a_channel_made_before_the_association_opens_with_it() -> None:
    """So does a negotiated one on both sides, without an announcement."""
    async with call() as c:
        a = c.alice.sctp = SctpTransport(c.alice.dtls)
        b = c.bob.sctp = SctpTransport(c.bob.dtls)
        early = a.create_channel("early")
        ours = a.create_channel("agreed", negotiated=True, id=7)
        theirs = b.create_channel("agreed", negotiated=True, id=7)
        announced: list[str] = []
        b.on_data_channel = lambda channel: announced.append(channel.label)
        await asyncio.gather(a.start(5000, 65536), b.start(5000, 65536))
        await until(lambda: early.state == ours.state == theirs.state == "open")
        await until(lambda: announced)
        assert announced == ["early"]
        with pytest.raises(ValueError, match="already registered"):
            a.create_channel("again", negotiated=True, id=7)


async def test_too_big_is_a_value_error() -> None:
    """The peer's limit is kept before anything is sent."""
    async with associated(remote_max_message_size=1000) as (_, a, _b):
        channel = a.create_channel("small")
        await until(lambda: channel.state == "open")
        assert a.max_message_size == 1000
        with pytest.raises(ValueError, match="1001 bytes"):
            channel.send(b"x" * 1001)
        channel.send(b"x" * 1000)


async def test_stop_closes_every_channel_once() -> None:
    """Those that never opened too; a stopped transport makes no more."""
    async with associated() as (_, a, b):
        states: list[str] = []
        a.on_state_change = lambda: states.append(a.state)
        channel = a.create_channel("one")
        closed: list[int] = []
        channel.on_close = lambda: closed.append(1)
        await until(lambda: channel.state == "open")
        never = a.create_channel("never")
        never.on_close = lambda: closed.append(2)
        await a.stop()
        await a.stop()
        assert sorted(closed) == [1, 2]
        assert channel.state == never.state == "closed"
        assert states[-1] == "closed"
        with pytest.raises(ConnectionError):
            a.create_channel("late")
        await until(lambda: b.state == "closed")


async def test_a_peer_that_breaks_the_protocol_loses_data_not_media() -> None:
    """An impossible SCTP packet aborts the association; DTLS stays up."""
    async with associated() as (c, a, b):
        channel = a.create_channel("victim")
        await until(lambda: channel.state == "open")
        announce = a._inner._data_channel_queue
        # A second announcement of a stream that is open: aiortc asserts that this cannot be.
        announce.append((channel._inner, 50, b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
        await a._inner._data_channel_flush()
        await until(lambda: b.state == "closed")
        assert c.bob.dtls.state == "connected"
