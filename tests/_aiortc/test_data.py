from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiortc.rtcsctptransport import Chunk, SackChunk

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
            channel.on_closing = lambda: events.append("closing there")
            channel.on_close = lambda: events.append("closed there")

        b.on_data_channel = adopt
        channel = a.create_channel("grüße \N{GRINNING FACE}", protocol="ø", ordered=True)
        assert channel.state == "connecting"
        channel.on_open = lambda: events.append("open")
        channel.on_closing = lambda: events.append("never here")
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
        assert events[:2] == ["open", "closing there"]
        assert "never here" not in events
        assert (a.ledger.opened, a.ledger.closed) == (1, 1)
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
        await until(lambda: sorted(closed) == [1, 2])
        assert channel.state == never.state == "closed"
        assert states[-1] == "closed"
        with pytest.raises(ConnectionError):
            a.create_channel("late")
        await until(lambda: b.state == "closed")


async def test_a_peer_that_breaks_the_protocol_loses_data_not_media() -> None:
    """An impossible SCTP packet aborts the association, and both lose their channels; DTLS stays up."""
    async with associated() as (c, a, b):
        lost: list[str] = []
        channel = a.create_channel("victim")
        channel.on_error = lambda error: lost.append(f"{error.detail}: {error.text}")
        channel.on_close = lambda: lost.append("closed")
        await until(lambda: channel.state == "open")
        # An acknowledgement of something that was never asked for: aiortc reads beyond its end.
        broken = Chunk(body=b"\x00")
        broken.type = SackChunk.type
        await a._inner._send_chunk(broken)
        await until(lambda: b.state == a.state == "closed")
        await until(lambda: len(lost) == 2)
        assert lost == ["sctp-failure: the peer aborted the association", "closed"]
        assert c.bob.dtls.state == "connected"


@pytest.mark.parametrize(
    "announcement",
    [
        b"\x03",
        b"\x03\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\xc3\x28",
        b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\xff\x00\x00short",
    ],
)
async def test_a_bad_announcement_costs_one_stream(announcement: bytes) -> None:
    """A DATA_CHANNEL_OPEN that cannot be is answered by closing its stream (RFC 8832 section 6), no more."""
    async with associated() as (_, a, b):
        announced: list[DataChannel] = []
        b.on_data_channel = announced.append
        channel = a.create_channel("good")
        await until(lambda: announced and channel.state == "open")
        await a._inner._send(77, 50, announcement)
        channel.send("still here")
        heard: list[Any] = []
        announced[0].on_message = heard.append
        await until(lambda: heard)
        assert a.state == b.state == "connected"
        assert len(announced) == 1
        assert 77 not in b._inner._data_channels or (b._inner._data_channels[77].readyState == "closing")


async def test_a_second_announcement_of_a_stream_closes_its_channel() -> None:
    """Which of the two is meant nobody can know."""
    async with associated() as (_, a, _b):
        channel = a.create_channel("twice")
        await until(lambda: channel.state == "open")
        assert channel.id is not None
        await a._inner._send(channel.id, 50, b"\x03" + bytes(11))
        await until(lambda: channel.state == "closed")
        assert a.state == "connected"


async def test_when_no_id_is_left() -> None:
    """A channel made then is refused; one that was waiting for its id is closed with an error."""
    async with associated() as (c, a, _b):
        taken = a.create_channel("one", role_is_known=True)
        assert c.alice.dtls.role == "server"
        assert taken.id == 1
        a._inner._data_channels.update(dict.fromkeys(range(3, 65535, 2), taken.inner))
        with pytest.raises(ValueError, match="no id is left below 65535"):
            a.create_channel("two", role_is_known=True)
        events: list[str] = []
        waiting = a.create_channel("three")
        waiting.on_error = lambda error: events.append(error.text)
        waiting.on_close = lambda: events.append("closed")
        a.assign_ids()
        await until(lambda: len(events) == 2)
        assert events == ["no id is left for this data channel", "closed"]
        assert waiting.state == "closed"
        assert [channel.label for channel in a.ledger.statistics().channels] == ["one", "three"]
        for number in range(3, 65535, 2):
            del a._inner._data_channels[number]


async def test_counters_of_closed_channels_are_bounded() -> None:
    """Who opens and closes channels for hours keeps the counters of the latest ones, and the sums of all."""
    async with associated() as (_, a, _b):
        for number in range(70):
            channel = a.create_channel(str(number), negotiated=True, id=number)
            channel.close()
        await until(lambda: len(a.ledger.statistics().channels) == 64 or a.ledger.closed == 70)
        await until(lambda: all(channel.state == "closed" for channel in a.ledger.statistics().channels))
        assert len(a.ledger.statistics().channels) == 64
