"""Data channels (webrtc-pc section 6; RFC 8831, RFC 8832)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from calllab.rtc import (
    InvalidStateError,
    NotSupportedError,
    OperationError,
    RTCDataChannel,
    RTCError,
    RTCErrorEvent,
    RTCPeerConnection,
)
from tests.rtc.conformance.channels import WiredPair, events_of, inbox_of, wired_pair
from tests.rtc.conformance.clauses import clause
from tests.rtc.peers import finish, turns, until

APPLICATION_DATA = 23
"""The first byte of a DTLS record that carries SCTP (RFC 6347 section 4.1)."""

MAX_SENT = 16.0 * 1024 * 1024
"""What may wait on a channel, and so the largest message that can be sent."""


async def rewritten_answer(pair: WiredPair, *changes: str) -> None:
    """Exchange descriptions, changing texts of the answer on its way: old, new, old, new."""
    await pair.a.setLocalDescription()
    assert pair.a.localDescription is not None
    await pair.b.setRemoteDescription(pair.a.localDescription)
    await pair.b.setLocalDescription()
    assert pair.b.localDescription is not None
    sdp = pair.b.localDescription.sdp
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in sdp
        sdp = sdp.replace(old, new)
    await pair.a.setRemoteDescription({"type": "answer", "sdp": sdp})
    for candidates in pair.candidates:
        candidates.open()


# Making them


@clause("6.1", "createDataChannel, steps 2 to 12: the slots of a new channel")
async def test_6_1_a_new_channel_is_what_was_asked_for() -> None:
    """A channel begins as connecting, reliable and ordered, without an id; its options are kept."""
    async with RTCPeerConnection() as peer:
        plain = peer.createDataChannel("")
        assert (plain.label, plain.protocol, plain.ordered, plain.negotiated) == ("", "", True, False)
        assert (plain.maxPacketLifeTime, plain.maxRetransmits, plain.id) == (None, None, None)
        assert (plain.readyState, plain.bufferedAmount, plain.bufferedAmountLowThreshold) == (
            "connecting",
            0,
            0,
        )
        special = peer.createDataChannel(
            "x" * 65535, ordered=False, maxRetransmits=0, protocol="p" * 65535, negotiated=True, id=3
        )
        assert (special.ordered, special.maxRetransmits, special.negotiated, special.id) == (
            False,
            0,
            True,
            3,
        )
        assert peer.createDataChannel("", maxPacketLifeTime=0).maxPacketLifeTime == 0
        assert peer.createDataChannel("").label == plain.label


@clause("6.1", "createDataChannel: what Web IDL or a step refuses with a TypeError")
@pytest.mark.parametrize(
    "arguments",
    [
        {"label": None},
        {"label": b"bytes"},
        {"protocol": 1},
        {"label": "x" * 65536},
        {"label": "\N{MICRO SIGN}" * 32768},
        {"protocol": "p" * 65536},
        {"maxRetransmits": -1},
        {"maxRetransmits": 65536},
        {"maxPacketLifeTime": -1},
        {"maxPacketLifeTime": 1.5},
        {"id": -1},
        {"id": 65536},
        {"negotiated": True},
        {"negotiated": True, "id": 65535},
        {"maxRetransmits": 0, "maxPacketLifeTime": 0},
    ],
)
async def test_6_1_arguments_that_are_type_errors(arguments: dict[str, Any]) -> None:
    """Names of more than 65535 bytes, numbers beyond 16 bits, both limits, no id or 65535: TypeError."""
    async with RTCPeerConnection() as peer:
        with pytest.raises(TypeError):
            peer.createDataChannel(**{"label": "x", **arguments})
        assert not (await peer.getStats()).of_type("data-channel")


@clause("6.1", "createDataChannel, step 1: closed comes before the steps, but after Web IDL's conversions")
async def test_6_1_order_of_errors() -> None:
    """On a closed connection a number out of range is a TypeError, too long a label an InvalidStateError."""
    peer = RTCPeerConnection()
    await peer.close()
    with pytest.raises(InvalidStateError):
        peer.createDataChannel("x" * 65536, negotiated=True)
    with pytest.raises(TypeError):
        peer.createDataChannel("x", id=65536)


@clause("6.1", "createDataChannel, step 12: an id counts only for a negotiated channel")
@pytest.mark.parametrize("id_", [0, 1, 65534, 65535])
async def test_6_1_an_id_without_negotiated_is_ignored(id_: int) -> None:
    """The id of a channel that is announced in band is not the application's choice."""
    async with RTCPeerConnection() as peer:
        assert peer.createDataChannel("x", id=id_).id is None


@clause("6.1", "createDataChannel, step 17: an id that is in use is an OperationError")
async def test_6_1_an_id_can_be_used_once() -> None:
    """Neither a negotiated channel nor one with an id of its own lets another have it."""
    async with wired_pair() as pair:
        pair.a.createDataChannel("agreed", negotiated=True, id=42)
        with pytest.raises(OperationError, match="42"):
            pair.a.createDataChannel("again", negotiated=True, id=42)
        here, _ = await pair.channel_pair()
        with pytest.raises(OperationError):
            pair.a.createDataChannel("mine", negotiated=True, id=here.id)


@clause("6.1", "createDataChannel, last steps: the first channel, and no other, needs negotiation")
async def test_6_1_the_first_channel_needs_negotiation() -> None:
    """negotiationneeded fires for the first channel of a connection only."""
    async with wired_pair() as pair:
        needed: list[None] = []
        pair.a.on("negotiationneeded", lambda: needed.append(None))
        pair.a.createDataChannel("first")
        pair.a.createDataChannel("second")
        await turns()
        assert len(needed) == 1
        await pair.channel_pair("third")
        assert len(needed) == 1
        assert not pair.a.negotiationIsNeeded


# Identifiers


@clause("4.4.1.5", "set a description: an answer that settles the DTLS role gives every channel its id")
@clause("6", "the DTLS client has even ids, the server odd ones", document="RFC 8832")
async def test_6_1_ids_follow_the_dtls_role() -> None:
    """Ids come with the answer, in order of creation, even for the DTLS client; later ones at once."""
    async with wired_pair() as pair:
        ours = [pair.a.createDataChannel("x") for _ in range(2)]
        pair.a.createDataChannel("agreed", negotiated=True, id=3)
        theirs = pair.b.createDataChannel("y")
        await pair.a.setLocalDescription()
        assert [channel.id for channel in ours] == [None, None]
        await finish(pair.a, pair.b)
        # The answerer is active, hence the client (RFC 8842 section 5.3).
        assert [channel.id for channel in ours] == [1, 5]
        assert theirs.id == 0
        for candidates in pair.candidates:
            candidates.open()
        await pair.connected()
        assert pair.a.createDataChannel("late").id == 7
        await until(lambda: len(pair.channels) == 3, "the peer's channels")
        assert [channel.id for channel in pair.channels] == [1, 5, 7]


@clause("6.7", "an id is free again when the channel is closed in both directions", document="RFC 8831")
async def test_6_1_an_id_is_used_again() -> None:
    """After a close the lowest free id is given again, and the new channel carries its own messages."""
    async with wired_pair() as pair:
        first, other = await pair.channel_pair("first")
        first.send("old")
        first.close()
        await until(lambda: first.readyState == other.readyState == "closed", "both ends closed")
        second, there = await pair.channel_pair("second")
        assert second.id == first.id
        heard = inbox_of(there)
        second.send("new")
        await until(lambda: bool(heard), "the message")
        assert (heard, there.label) == (["new"], "second")


# Opening


@clause("6.1", "announcing: the peer's channel is open before datachannel fires, its open event comes after")
async def test_6_1_an_announced_channel_is_open_in_its_event() -> None:
    """In the datachannel event the channel is open and can send; then its open event fires."""
    async with wired_pair() as pair:
        order: list[str] = []

        def accept(channel: RTCDataChannel) -> None:
            order.append(f"datachannel {channel.readyState}")
            channel.on("open", lambda: order.append("open"))
            channel.send("early")

        pair.b.on("datachannel", accept)
        channel = pair.a.createDataChannel("x", ordered=False, maxRetransmits=7, protocol="chat")
        heard = inbox_of(channel)
        await pair.connect()
        await until(lambda: len(order) == 2 and bool(heard), "the answer")
        assert order == ["datachannel open", "open"]
        assert heard == ["early"]
        theirs = pair.channels[0]
        assert (theirs.ordered, theirs.maxRetransmits, theirs.maxPacketLifeTime) == (False, 7, None)
        assert (theirs.protocol, theirs.negotiated, theirs.id) == ("chat", False, channel.id)


@clause("6.2", "messages: none is lost for a handler that is set in the datachannel event")
async def test_6_1_a_coroutine_handler_misses_nothing() -> None:
    """A datachannel handler that is a coroutine function still sees open and the first messages."""
    async with wired_pair() as pair:
        seen: list[Any] = []

        async def accept(channel: RTCDataChannel) -> None:
            channel.on("open", lambda: seen.append("open"))
            channel.on("message", seen.append)

        pair.b.on("datachannel", accept)
        channel = pair.a.createDataChannel("x")
        channel.on("open", lambda: [channel.send(str(number)) for number in range(5)])
        await pair.connect()
        await until(lambda: len(seen) == 6, "all messages")
        assert seen == ["open", "0", "1", "2", "3", "4"]


@clause("6.1", "a negotiated channel is announced to nobody and opens on both sides")
@pytest.mark.parametrize("early", [True, False])
async def test_6_1_negotiated_channels_open_without_announcement(early: bool) -> None:
    """Made before or after the connection, both ends open and no datachannel event fires."""
    async with wired_pair() as pair:
        if not early:
            await pair.channel_pair("first")
        told = len(pair.channels)
        ends = [peer.createDataChannel("x", negotiated=True, id=9) for peer in (pair.a, pair.b)]
        events = [events_of(end) for end in ends]
        await pair.connect()
        await until(lambda: events == [["open"], ["open"]], "both open events")
        heard = inbox_of(ends[1])
        ends[0].send("hello")
        await until(lambda: heard == ["hello"], "the message")
        assert len(pair.channels) == told


@clause("4.4.1.5", "set a description: a provisional answer makes the SCTP transport too")
async def test_4_4_1_5_a_provisional_answer_brings_data() -> None:
    """Channels open over a pranswer, before the final answer."""
    async with wired_pair() as pair:
        channel = pair.a.createDataChannel("x")
        await pair.a.setLocalDescription()
        assert pair.a.localDescription is not None
        await pair.b.setRemoteDescription(pair.a.localDescription)
        answer = await pair.b.createAnswer()
        await pair.b.setLocalDescription({"type": "pranswer", "sdp": answer.sdp})
        await pair.a.setRemoteDescription({"type": "pranswer", "sdp": answer.sdp})
        for candidates in pair.candidates:
            candidates.open()
        await until(lambda: channel.readyState == "open", "the channel open")
        assert pair.a.signalingState == "have-remote-pranswer"
        await pair.b.setLocalDescription()
        assert pair.b.localDescription is not None
        await pair.a.setRemoteDescription(pair.b.localDescription)
        assert channel.readyState == "open"


# Sending


@clause("6.2", "send: text and binary messages arrive as they were sent, empty ones too")
@pytest.mark.parametrize("negotiated", [False, True])
async def test_6_2_messages_of_all_kinds(negotiated: bool) -> None:
    """Text, bytes and what has a buffer arrive whole, in order, with their kind; surrogates as U+FFFD."""
    async with wired_pair() as pair:
        options: dict[str, Any] = {"negotiated": True, "id": 0} if negotiated else {}
        here, there = await pair.channel_pair(**options)
        heard = inbox_of(there)
        for message in (
            "",
            b"",
            "é\N{GRINNING FACE}\x00",
            bytearray(b"\x00\xff"),
            memoryview(b"abc"),
            "\ud800",
        ):
            here.send(message)
        here.send(b"x" * 262144)
        await until(lambda: len(heard) == 7, "all messages")
        assert heard[:6] == [
            "",
            b"",
            "é\N{GRINNING FACE}\x00",
            b"\x00\xff",
            b"abc",
            "\N{REPLACEMENT CHARACTER}",
        ]
        assert heard[6] == b"x" * 262144


@clause("6.2", "send, step 1: only an open channel sends")
@clause("6.2", "send: the type of data is looked at before the state")
async def test_6_2_send_needs_an_open_channel() -> None:
    """send() before open and after close() is an InvalidStateError; a wrong type is a TypeError even then."""
    async with wired_pair() as pair:
        channel = pair.a.createDataChannel("x")
        with pytest.raises(InvalidStateError, match="connecting"):
            channel.send("early")
        with pytest.raises(TypeError):
            channel.send(5)  # type: ignore[arg-type]
        here, _ = await pair.channel_pair("y")
        here.close()
        with pytest.raises(InvalidStateError, match="closing"):
            here.send("late")


@clause("6.2", "send, step 4: more than maxMessageSize is a TypeError")
@clause(
    "6.1.1",
    "update the data max message size: the smaller of what the peer said, 64 KiB if it said nothing and "
    "anything if it said 0, and of what can be sent here",
)
@pytest.mark.parametrize(
    ("line", "limit"),
    [
        ("a=max-message-size:1000\r\n", 1000.0),
        ("", 65536.0),
        ("a=max-message-size:0\r\n", MAX_SENT),
        ("a=max-message-size:9000000000\r\n", MAX_SENT),
    ],
)
async def test_6_2_max_message_size(line: str, limit: float) -> None:
    """A message of as many bytes as the limit passes, one more is refused before it is sent."""
    async with wired_pair() as pair:
        channel = pair.a.createDataChannel("x")
        await rewritten_answer(pair, "a=max-message-size:262144\r\n", line)
        await until(lambda: channel.readyState == "open", "the channel open")
        assert pair.a.sctp is not None
        assert pair.a.sctp.maxMessageSize == limit
        size = int(limit)
        await until(lambda: bool(pair.channels), "the channel at the peer")
        heard = inbox_of(pair.channels[0])
        with pytest.raises(TypeError, match=str(size + 1)):
            channel.send("x" * (size + 1))
        with pytest.raises(TypeError):
            channel.send("é" * (size // 2 + 1))
        passes = min(size, 300_000)
        channel.send(b"x" * passes)
        await until(lambda: len(heard) == 1, "the message")
        assert len(heard[0]) == passes
        channel.send(b"x" * size)
        assert channel.bufferedAmount == size


@clause("4.4.1.5", "set a description: a new max-message-size counts without a new association")
async def test_4_4_1_5_max_message_size_can_change() -> None:
    """A later description's limit holds from then on; the association and its channels stay."""
    async with wired_pair() as pair:
        here, _ = await pair.channel_pair()
        sctp = pair.a.sctp
        assert sctp is not None
        await rewritten_answer(pair, "a=max-message-size:262144\r\n", "a=max-message-size:100\r\n")
        await until(lambda: sctp.maxMessageSize == 100, "the new limit")
        with pytest.raises(TypeError):
            here.send("x" * 101)
        here.send("x" * 100)
        assert pair.a.sctp is sctp
        assert here.readyState == "open"


@clause("6.2", "bufferedAmount: grows in send(), falls as bytes are sent, never within the task of send()")
async def test_6_2_buffered_amount_is_what_was_not_sent() -> None:
    """It counts bytes of messages, nothing for empty ones, and stays while the network takes nothing."""
    async with wired_pair() as pair:
        here, there = await pair.channel_pair()
        heard = inbox_of(there)
        here.send("")
        assert here.bufferedAmount == 0
        here.send("é")
        here.send(b"abc")
        assert here.bufferedAmount == 5
        await until(lambda: len(heard) == 3, "the messages")
        assert here.bufferedAmount == 0
        pair.wires[0].drop = lambda data: data[0] == APPLICATION_DATA
        here.send(b"x" * 60_000)
        assert here.bufferedAmount == 60_000
        await asyncio.sleep(0.05)
        # The first few packets went out, and were lost; the rest waits for them to be acknowledged.
        assert 50_000 < here.bufferedAmount < 60_000
        pair.wires[0].drop = lambda data: False
        await until(lambda: here.bufferedAmount == 0 and len(heard) == 4, "everything sent")


@clause("6.2", "bufferedamountlow fires when the amount falls from above the threshold to it or below")
async def test_6_2_buffered_amount_low() -> None:
    """It fires once for each fall through the threshold, and not where nothing falls."""
    async with wired_pair() as pair:
        here, there = await pair.channel_pair()
        heard = inbox_of(there)
        amounts: list[int] = []
        here.on("bufferedamountlow", lambda: amounts.append(here.bufferedAmount))
        here.send("x")
        await until(lambda: amounts == [0], "the event for a threshold of 0")
        amounts.clear()
        here.bufferedAmountLowThreshold = 1000
        here.send(b"x" * 1000)
        await until(lambda: len(heard) == 2, "the second message")
        await turns()
        assert amounts == []
        for _ in range(3):
            here.send(b"x" * 1000)
        assert amounts == []
        await until(lambda: bool(amounts), "the event")
        assert amounts[0] <= 1000
        await until(lambda: len(heard) == 5, "the others")
        assert len(amounts) == 1
        for bad, error in ((-1, ValueError), (1 << 32, ValueError), ("1", TypeError)):
            with pytest.raises(error):
                here.bufferedAmountLowThreshold = bad  # type: ignore[assignment]


@clause("6.2", "send, step 5: an OperationError when no more can be buffered")
async def test_6_2_send_buffer_is_bounded() -> None:
    """16 MiB may wait; what does not fit is refused, and counts nowhere."""
    async with wired_pair() as pair:
        here, _ = await pair.channel_pair()
        pair.wires[0].drop = lambda data: data[0] == APPLICATION_DATA
        block = bytes(65536)
        for _ in range(256):
            here.send(block)
        before = here.bufferedAmount
        with pytest.raises(OperationError, match="bufferedamountlow"):
            here.send(b"x" * (16 * 1024 * 1024 - before + 1))
        assert here.bufferedAmount == before


@clause("6.2", "binaryType: bytes are the only form that binary messages have here")
async def test_6_2_binary_type() -> None:
    """binaryType is arraybuffer; blob is not supported and anything else a TypeError."""
    async with RTCPeerConnection() as peer:
        channel = peer.createDataChannel("x")
        assert channel.binaryType == "arraybuffer"
        channel.binaryType = "arraybuffer"
        with pytest.raises(NotSupportedError):
            channel.binaryType = "blob"  # type: ignore[assignment]
        with pytest.raises(TypeError):
            channel.binaryType = "text"  # type: ignore[assignment]


# Reliability


@clause("6.1", "ordered and reliable is the default: a loss delays, nothing is missing")
@clause("6.6", "messages of an unordered channel overtake a lost one", document="RFC 8831")
@pytest.mark.parametrize("ordered", [True, False])
async def test_6_1_ordering_under_loss(ordered: bool) -> None:
    """With one packet lost all messages arrive: in order, or the lost one last."""
    async with wired_pair() as pair:
        here, there = await pair.channel_pair(ordered=ordered)
        heard = inbox_of(there)
        drop_next(pair, size=900)
        for number in range(6):
            here.send(bytes([number]) * (900 if number == 1 else 50))
        await until(lambda: len(heard) == 6, "all messages")
        arrived = [message[0] for message in heard]
        assert arrived == ([0, 1, 2, 3, 4, 5] if ordered else [0, 2, 3, 4, 5, 1])


@clause("6.1", "maxRetransmits and maxPacketLifeTime: what is lost is given up, what follows arrives")
@clause("6.6", "partially reliable channels give a message up", document="RFC 8831")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    "limit", [{"maxRetransmits": 0}, {"maxPacketLifeTime": 0}, {"maxPacketLifeTime": 200}]
)
async def test_6_1_partial_reliability_under_loss(ordered: bool, limit: dict[str, int]) -> None:
    """A lost message of a channel that must not retransmit is missing, all others arrive in order."""
    async with wired_pair() as pair:
        here, there = await pair.channel_pair(ordered=ordered, **limit)
        heard = inbox_of(there)
        drop_next(pair, size=900)
        here.send(bytes(900))
        await asyncio.sleep(limit.get("maxPacketLifeTime", 0) / 1000 * 1.5 + 0.01)
        for number in range(6):
            here.send(str(number))
            await turns(4)
        await until(lambda: len(heard) == 6, "all but the lost message")
        assert heard == list("012345")


@clause("6.1", "maxPacketLifeTime: a message that waited longer is not sent any more")
async def test_6_1_life_time_counts_while_waiting() -> None:
    """Behind a message that takes long, one that has outlived its time is left out."""
    async with wired_pair() as pair:
        here, there = await pair.channel_pair(maxPacketLifeTime=100)
        slow, slow_there = await pair.channel_pair("slow")
        heard, big = inbox_of(there), inbox_of(slow_there)
        pair.wires[0].drop = lambda data: data[0] == APPLICATION_DATA
        slow.send(bytes(60_000))
        await turns()
        here.send("too late")
        await asyncio.sleep(0.3)
        pair.wires[0].drop = lambda data: False
        await until(lambda: len(big) == 1, "the big message")
        here.send("in time")
        await until(lambda: bool(heard), "a message")
        assert heard == ["in time"]
        assert here.bufferedAmount == 0


def drop_next(pair: WiredPair, *, size: int) -> None:
    """Lose the first packet of a's with data of at least so many bytes."""
    lost: list[bytes] = []

    def drop(data: bytes) -> bool:
        if data[0] == APPLICATION_DATA and len(data) >= size and not lost:
            lost.append(data)
            return True
        return False

    pair.wires[0].drop = drop


# Closing


@clause("6.2", "close: the caller is closing at once, the peer is told of closing, both of close")
@pytest.mark.parametrize("negotiated", [False, True])
async def test_6_2_closing_handshake(negotiated: bool) -> None:
    """What was sent before close() arrives; only the other side has a closing event."""
    async with wired_pair() as pair:
        options: dict[str, Any] = {"negotiated": True, "id": 0} if negotiated else {}
        here, there = await pair.channel_pair(**options)
        ours, theirs, heard = events_of(here), events_of(there), inbox_of(there)
        states: list[str] = []
        there.on("closing", lambda: states.append(there.readyState))
        for number in range(20):
            here.send(str(number) * 5000)
        here.close()
        here.close()
        assert here.readyState == "closing"
        await until(lambda: "close" in ours and "close" in theirs, "both closed")
        assert len(heard) == 20
        assert ours == ["close"]
        assert theirs == ["closing", "close"]
        assert states == ["closing"]
        assert here.readyState == there.readyState == "closed"
        there.close()


@clause("6.2", "close: a channel that never opened closes too, in a later task")
async def test_6_2_closing_what_never_opened() -> None:
    """close() on a connecting channel: closing, then a close event; the peer hears nothing of it."""
    async with wired_pair() as pair:
        channel = pair.a.createDataChannel("never")
        seen = events_of(channel)
        channel.close()
        assert (channel.readyState, seen) == ("closing", [])
        await until(lambda: seen == ["close"], "the close event")
        assert channel.readyState == "closed"
        await pair.channel_pair("other")
        assert [incoming.label for incoming in pair.channels] == ["other"]


@clause("6.2", "messages that arrive when a channel is not open any more are dropped")
async def test_6_2_nothing_is_heard_after_close() -> None:
    """Who has called close() gets no further message, though the peer may still send."""
    async with wired_pair() as pair:
        here, there = await pair.channel_pair()
        heard = inbox_of(here)
        here.close()
        there.send("into the void")
        await until(lambda: there.readyState == "closed" == here.readyState, "both closed")
        assert heard == []


@clause("4.4.2", "close: channels are closed at once, without events")
@clause("6.2", "the transport ends with an error: error, then close")
@pytest.mark.parametrize("lost", [False, True])
async def test_6_2_the_peer_goes_away(lost: bool) -> None:
    """The peer's close() is an error event and a close event here, even if only the end of DTLS arrives."""
    async with wired_pair() as pair:
        here, there = await pair.channel_pair()
        ours, theirs = events_of(here), events_of(there)
        errors: list[Any] = []
        there.on("error", errors.append)
        if lost:
            pair.wires[0].drop = lambda data: data[0] == APPLICATION_DATA
        closing = pair.a.close()
        assert here.readyState == "closed"
        assert pair.a.sctp is not None
        assert pair.a.sctp.state == "closed"
        await until(lambda: "close" in theirs, "the end at the peer")
        assert theirs == ["error", "close"]
        assert isinstance(errors[0], RTCErrorEvent)
        assert isinstance(errors[0].error, RTCError)
        assert (errors[0].error.name, errors[0].error.errorDetail) == ("OperationError", "sctp-failure")
        assert pair.b.sctp is not None
        assert pair.b.sctp.state == "closed"
        await closing
        assert ours == []


@clause("6.2", "a channel that is closed already hears nothing of the end of the connection")
async def test_6_2_no_events_after_close() -> None:
    """After both ends are closed, the close() of a connection fires nothing on them."""
    async with wired_pair() as pair:
        here, there = await pair.channel_pair()
        here.close()
        await until(lambda: here.readyState == there.readyState == "closed", "both closed")
        ours, theirs = events_of(here), events_of(there)
        await pair.a.close()
        await asyncio.sleep(0.05)
        assert ours == theirs == []


@clause("4.4.1.5", "set a description: rejecting the data section ends the association")
async def test_4_4_1_5_data_can_be_rejected_later() -> None:
    """A remote description without data closes the channels, and sctp is None on that side."""
    async with wired_pair() as pair:
        pair.a.addTransceiver("audio")
        here, _ = await pair.channel_pair()
        seen = events_of(here)
        await pair.a.setLocalDescription()
        assert pair.a.localDescription is not None
        await pair.b.setRemoteDescription(pair.a.localDescription)
        await pair.b.setLocalDescription()
        assert pair.b.localDescription is not None
        head, _, data = pair.b.localDescription.sdp.partition("m=application ")
        await pair.a.setRemoteDescription(
            {"type": "answer", "sdp": head.replace("BUNDLE 0 1", "BUNDLE 0") + "m=application 0 " + data[2:]}
        )
        assert pair.a.sctp is None
        await until(lambda: "close" in seen, "the channel closed")


@clause("4.4.1.5", "set a description: an answer that refuses the data section closes what waits for it")
@clause("4.7.3", "negotiation is needed for data that was never negotiated, not for data that was refused")
@pytest.mark.parametrize("at_first", [True, False], ids=["in the first answer", "later"])
async def test_4_4_1_5_data_can_be_refused(at_first: bool) -> None:
    """The channels are closed and nobody asks again, until the application makes the next one."""
    async with wired_pair() as pair:
        pair.a.addTransceiver("audio")
        if not at_first:
            await pair.channel_pair()
        refused = pair.a.createDataChannel("x")
        seen = events_of(refused)
        await rewritten_answer(pair, "BUNDLE 0 1", "BUNDLE 0", "m=application 9", "m=application 0")
        await until(lambda: refused.readyState == "closed", "the channel closed")
        assert seen[-1] == "close"
        assert pair.a.sctp is None
        needed: list[str] = []
        pair.a.on("negotiationneeded", lambda: needed.append("again"))
        await turns(24)
        assert needed == []
        assert not pair.a.negotiationIsNeeded
        pair.a.createDataChannel("y")
        await turns(24)
        assert needed == ["again"]
        assert "m=application 9" in (await pair.a.createOffer()).sdp


# Over time


@clause("6.2", "channels outlive an ICE restart, with what waits in them")
async def test_6_2_an_ice_restart_changes_nothing() -> None:
    """A channel stays open over an ICE restart; what is sent meanwhile arrives."""
    async with wired_pair() as pair:
        here, there = await pair.channel_pair()
        heard, seen = inbox_of(there), events_of(here)
        pair.a.restartIce()
        here.send("before")
        await pair.exchange()
        here.send("meanwhile")
        await pair.connected()
        here.send("after")
        await until(lambda: heard == ["before", "meanwhile", "after"], "all messages")
        assert (seen, here.readyState) == ([], "open")


@clause("6.2", "a short outage delays messages and closes nothing")
async def test_6_2_an_outage_delays() -> None:
    """Messages sent while nothing passes arrive afterwards, each once and in order."""
    async with wired_pair() as pair:
        here, there = await pair.channel_pair()
        heard = inbox_of(there)
        pair.wires[0].cut_out = True
        for number in range(5):
            here.send(str(number))
        await asyncio.sleep(0.3)
        assert heard == []
        pair.wires[0].cut_out = False
        await until(lambda: heard == list("01234"), "the messages")
