"""The SCTP transport and its data channels, as the W3C layer needs them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from aiortc.exceptions import InvalidStateError
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpCapabilities

from calllab._aiortc.dtls import DtlsTransport
from calllab._aiortc.sctp import MAX_ID, Association

__all__ = [
    "ChannelState",
    "DataChannel",
    "DataChannelSnapshot",
    "DataError",
    "SctpSnapshot",
    "SctpState",
    "SctpTransport",
]

logger = logging.getLogger(__name__)

ChannelState = Literal["connecting", "open", "closing", "closed"]
SctpState = Literal["connecting", "connected", "closed"]
ErrorDetail = Literal["sctp-failure", "dtls-failure"]

MAX_BUFFERED: Final = 16 * 1024 * 1024
"""How many bytes may wait on one channel."""
# Closed channels of which the counters are kept.
_MAX_CLOSED = 64


def _nothing(*_: object) -> None:
    """What a callback does until somebody sets it."""


@dataclass(frozen=True, slots=True)
class DataError:
    """Why a channel was lost (W3C RTCError); ``detail`` is its errorDetail, None for the channel alone."""

    text: str
    detail: ErrorDetail | None
    cause_code: int | None = None


@dataclass(frozen=True, slots=True)
class DataChannelSnapshot:
    """The counters of one data channel."""

    key: int
    label: str
    protocol: str
    identifier: int | None
    state: ChannelState
    messages_sent: int
    bytes_sent: int
    messages_received: int
    bytes_received: int


@dataclass(frozen=True, slots=True)
class SctpSnapshot:
    """The channels of an association, and how many ever opened, and of these are not open any more."""

    channels: tuple[DataChannelSnapshot, ...]
    channels_opened: int
    channels_closed: int


class SctpTransport:
    """The SCTP association of a peer connection; channels can be made before it starts.

    Raises ConnectionError if DTLS is closed already.
    """

    def __init__(self, dtls: DtlsTransport, *, port: int = 5000) -> None:
        self.on_state_change: Callable[[], None] = _nothing
        self.on_data_channel: Callable[[DataChannel], None] = _nothing
        self.channels_opened = 0
        self.channels_closed = 0
        self._dtls = dtls
        self._channels: dict[RTCDataChannel, DataChannel] = {}
        self._nameless: list[DataChannel] = []
        self._closed_channels: deque[DataChannel] = deque(maxlen=_MAX_CLOSED)
        self._keys = 0
        self._started = self._stopped = self._silent = False
        self._told: SctpState = "connecting"
        try:
            self._inner = Association(dtls, port, self)
        except InvalidStateError as error:
            raise ConnectionError("the DTLS transport is closed: no data channel can be made") from error
        dtls.end_listeners.add(self._dtls_ended)

    @property
    def state(self) -> SctpState:
        """The W3C RTCSctpTransportState."""
        if self._stopped or self._silent:
            return "closed"
        state = self._inner.state
        return "connecting" if state == "new" else cast(SctpState, state)

    @property
    def max_message_size(self) -> float:
        """The largest message that the peer takes, in bytes; infinite if it sets no limit."""
        return float(self._inner._remote_max_message_size or "inf")

    @property
    def max_channels(self) -> int | None:
        """How many channels can be open; None before the association is there."""
        return self._inner.maxChannels

    def create_channel(
        self,
        label: str,
        *,
        ordered: bool = True,
        max_packet_life_time: int | None = None,
        max_retransmits: int | None = None,
        protocol: str = "",
        negotiated: bool = False,
        id: int | None = None,
        role_is_known: bool = False,
    ) -> DataChannel:
        """Make a channel; it opens when the association is up and, unless negotiated, the peer knows of it.

        With ``role_is_known`` it gets its identifier now, else in :meth:`assign_ids`.  Raises ValueError for
        an identifier that is in use, or if there is none left, and ConnectionError once closed.
        """
        if self.state == "closed":
            raise ConnectionError("the SCTP transport is closed: no data channel can be made")
        limit = self.max_channels
        if negotiated and id is not None and limit is not None and id >= limit:
            raise ValueError(f"the id {id} is too high: the association has {limit} channels")
        parameters = RTCDataChannelParameters(
            label=label,
            ordered=ordered,
            maxPacketLifeTime=max_packet_life_time,
            maxRetransmits=max_retransmits,
            protocol=protocol,
            negotiated=negotiated,
            id=id if negotiated else None,
        )
        channel = self._adopt(RTCDataChannel(self._inner, parameters))
        if role_is_known and not negotiated and not self._give_id(channel):
            channel.inner.close()
            channel.mute()
            self._forget(channel)
            raise ValueError(f"no id is left below {min(limit or MAX_ID + 1, MAX_ID + 1)}")
        if channel.id is None:
            self._nameless.append(channel)
        return channel

    def assign_ids(self) -> None:
        """Give an identifier to each channel that has none: the DTLS role is known (webrtc-pc 4.4.1.5).

        A channel for which none is left is closed with an error.
        """
        nameless, self._nameless = self._nameless, []
        for channel in nameless:
            if channel.id is None and channel.state == "connecting" and not self._give_id(channel):
                channel.fail(DataError("no id is left for this data channel", None))

    def _give_id(self, channel: DataChannel) -> bool:
        return self._inner.give_id(channel.inner, role=self._dtls.role or "server")

    async def start(self, remote_port: int, remote_max_message_size: int) -> None:
        """Set the association up; DTLS must be connected.

        Called again, it only takes a new limit of the size of messages.
        """
        if self._stopped:
            return
        if self._started:
            self._inner._remote_max_message_size = remote_max_message_size
            return
        self._started = True
        await self._inner.start(RTCSctpCapabilities(maxMessageSize=remote_max_message_size), remote_port)

    def silence(self) -> None:
        """Close all channels at once and tell nobody (webrtc-pc 4.4.2, close()); :meth:`stop` must follow."""
        self._silent = True
        self.on_state_change = self.on_data_channel = _nothing
        for channel in list(self._channels.values()):
            channel.mute()

    async def stop(self) -> None:
        """Abort the association; all channels close. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        self._dtls.end_listeners.discard(self._dtls_ended)
        if self._started:
            await self._inner.stop()
        for channel in list(self._channels.values()):
            channel.lost(None)
        self.association_changed()

    def statistics(self) -> SctpSnapshot:
        """Return the counters as they stand; of closed channels only the latest are kept."""
        channels = sorted([*self._closed_channels, *self._channels.values()], key=lambda c: c.key)
        return SctpSnapshot(
            tuple(channel.statistics() for channel in channels), self.channels_opened, self.channels_closed
        )

    def _adopt(self, inner: RTCDataChannel) -> DataChannel:
        self._keys += 1
        channel = self._channels[inner] = DataChannel(inner, self, self._keys)
        return channel

    def _forget(self, channel: DataChannel) -> None:
        self._channels.pop(channel.inner, None)

    def channel_closed(self, channel: DataChannel) -> None:
        """A channel has told of its end."""
        if channel.inner in self._channels:
            self._forget(channel)
            self._closed_channels.append(channel)

    def _dtls_ended(self) -> None:
        text = self._dtls.error_text or "the peer closed the DTLS transport"
        self._inner.break_off(text)

    # What the association tells (AssociationOwner)

    def association_changed(self) -> None:
        """Tell of a change of state, once; with the association its channels end."""
        if self._inner.state == "closed" and not self._stopped:
            error = None
            if self._inner.failure is not None:
                detail: ErrorDetail = "dtls-failure" if self._dtls.state == "failed" else "sctp-failure"
                error = DataError(self._inner.failure, detail, self._inner.cause_code)
            for channel in list(self._channels.values()):
                channel.lost(error)
        state = self.state
        if state != self._told:
            self._told = state
            _call(self.on_state_change)

    def identifiers_due(self) -> None:
        """Give identifiers before anything is sent."""
        self.assign_ids()

    def channel_announced(self, inner: RTCDataChannel) -> None:
        """Hand a channel of the peer's on, open; what comes over it waits until the loop has turned.

        So a handler that is a coroutine function, and begins one turn later, misses neither the event that it
        is open nor the first messages.
        """
        channel = self._adopt(inner)
        channel.hold()
        _call(self.on_data_channel, channel)
        asyncio.get_running_loop().call_soon(channel.release)

    def channel_closing(self, inner: RTCDataChannel) -> None:
        """Pass it on."""
        if (channel := self._channels.get(inner)) is not None:
            channel.closing()

    def message_received(self, inner: RTCDataChannel, data: str | bytes) -> None:
        """Pass it on."""
        if (channel := self._channels.get(inner)) is not None:
            channel.received(data)

    def bytes_left(self, inner: RTCDataChannel, count: int) -> None:
        """Pass it on."""
        if (channel := self._channels.get(inner)) is not None:
            channel.bytes_left(count)


class DataChannel:
    """One data channel; its callbacks are attributes.

    ``on_closing`` is called if the peer closes it, ``on_error`` before ``on_close`` if it is lost.
    """

    def __init__(self, inner: RTCDataChannel, transport: SctpTransport, key: int) -> None:
        self.on_open: Callable[[], None] = _nothing
        self.on_closing: Callable[[], None] = _nothing
        self.on_close: Callable[[], None] = _nothing
        self.on_error: Callable[[DataError], None] = _nothing
        self.on_message: Callable[[str | bytes], None] = _nothing
        self.on_buffered_amount_low: Callable[[], None] = _nothing
        self.inner = inner
        """aiortc's own channel: for this room alone."""
        self.key = key
        self.buffered_amount = 0
        """Bytes of messages that were not sent yet."""
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._low_threshold = 0
        self._error: DataError | None = None
        self._held: list[str | bytes] | None = None
        self._closing_here = False
        self._was_open = self._was_closed = self._ending = False
        self._messages_sent = self._bytes_sent = 0
        self._messages_received = self._bytes_received = 0
        inner.on("open", self._opened)
        inner.on("close", self._ended)
        if inner.readyState == "open" and inner.negotiated:
            # Negotiated over an association that is up: open from the start, told after the caller has had
            # a chance to listen.
            self._loop.call_soon(self._opened)

    @property
    def id(self) -> int | None:
        """The stream identifier; None until it is known."""
        return self.inner.id

    @property
    def label(self) -> str:
        """The name of the channel."""
        return self.inner.label

    @property
    def protocol(self) -> str:
        """The name of the protocol spoken on it."""
        return self.inner.protocol

    @property
    def ordered(self) -> bool:
        """Whether messages arrive in order."""
        return self.inner.ordered

    @property
    def max_packet_life_time(self) -> int | None:
        """For how many milliseconds a message is tried."""
        return self.inner.maxPacketLifeTime

    @property
    def max_retransmits(self) -> int | None:
        """How many times a message is sent again."""
        return self.inner.maxRetransmits

    @property
    def negotiated(self) -> bool:
        """Whether the peers agreed on the channel by other means."""
        return self.inner.negotiated

    @property
    def state(self) -> ChannelState:
        """The W3C RTCDataChannelState."""
        if self._was_closed:
            return "closed"
        return "closing" if self._ending else cast(ChannelState, self.inner.readyState)

    @property
    def buffered_amount_low_threshold(self) -> int:
        """The amount at or below which :attr:`on_buffered_amount_low` is called."""
        return self._low_threshold

    @buffered_amount_low_threshold.setter
    def buffered_amount_low_threshold(self, value: int) -> None:
        if not 0 <= value <= 0xFFFFFFFF:
            raise ValueError(f"bufferedAmountLowThreshold is a number from 0 to 4294967295, not {value}")
        self._low_threshold = value

    def send(self, data: str | bytes) -> None:
        """Send a message.

        Raises ConnectionError unless the channel is open, ValueError if the message is larger than the peer
        takes, BufferError if too much waits already.
        """
        if self.state != "open":
            raise ConnectionError(f"the data channel {self.label!r} is {self.state}, not open")
        size = len(data.encode() if isinstance(data, str) else data)
        limit = self._transport.max_message_size
        if size > limit:
            raise ValueError(f"the message has {size} bytes, the peer takes no more than {limit:.0f}")
        if self.buffered_amount + size > MAX_BUFFERED:
            raise BufferError(f"{self.buffered_amount} bytes wait already: send more after bufferedamountlow")
        try:
            self.inner.send(data)
        except InvalidStateError as error:
            raise ConnectionError(f"the data channel {self.label!r} is not open") from error
        self.buffered_amount += size
        self._messages_sent += 1
        self._bytes_sent += size

    def close(self) -> None:
        """Close the channel in both directions, after what was sent. Idempotent."""
        if self.state in ("connecting", "open"):
            self._closing_here = True
            self.inner.close()

    def statistics(self) -> DataChannelSnapshot:
        """Return the counters as they stand."""
        return DataChannelSnapshot(
            key=self.key,
            label=self.label,
            protocol=self.protocol,
            identifier=self.id,
            state=self.state,
            messages_sent=self._messages_sent,
            bytes_sent=self._bytes_sent,
            messages_received=self._messages_received,
            bytes_received=self._bytes_received,
        )

    # What happens to it

    def hold(self) -> None:
        """Keep what arrives until :meth:`release`; the channel counts as open."""
        self._held = []
        self._count_open()

    def release(self) -> None:
        """Tell that it is open, and hand out what was kept."""
        held, self._held = self._held or [], None
        if not self._was_closed:
            _call(self.on_open)
        if not self._closing_here:
            for data in held:
                self._deliver(data)
        if self._ending:
            self._finish()

    def _opened(self) -> None:
        """The channel is open: count it and tell, once."""
        if not self._was_open and self.state == "open":
            self._count_open()
            _call(self.on_open)

    def _count_open(self) -> None:
        self._was_open = True
        self._transport.channels_opened += 1

    def _count_left_open(self) -> None:
        if self._was_open:
            self._was_open = False
            self._transport.channels_closed += 1

    def received(self, data: str | bytes) -> None:
        """Hand a message out; what comes when the channel is not open any more is dropped."""
        if self._held is not None:
            self._held.append(data)
        elif self.state == "open":
            self._deliver(data)

    def _deliver(self, data: str | bytes) -> None:
        self._messages_received += 1
        self._bytes_received += len(data.encode() if isinstance(data, str) else data)
        _call(self.on_message, data)

    def bytes_left(self, count: int) -> None:
        """Count messages that wait no more."""
        before, self.buffered_amount = self.buffered_amount, self.buffered_amount - count
        if before > self._low_threshold >= self.buffered_amount:
            self._loop.call_soon(self._tell_low)

    def _tell_low(self) -> None:
        if not self._was_closed:
            _call(self.on_buffered_amount_low)

    def closing(self) -> None:
        """The channel begins to close; the application is told if the peer wanted it."""
        self._count_left_open()
        if not self._closing_here and not self._ending:
            self._loop.call_soon(self._tell_closing)

    def _tell_closing(self) -> None:
        if not self._was_closed:
            _call(self.on_closing)

    def fail(self, error: DataError) -> None:
        """Close the channel for a reason of its own."""
        self._error = error
        self.close()

    def lost(self, error: DataError | None) -> None:
        """The association is gone, and the channel with it."""
        if self._error is None:
            self._error = error
        self.inner._setReadyState("closed")
        self._ended()

    def mute(self) -> None:
        """Closed at once; nothing is told any more."""
        self._count_left_open()
        self._was_closed = True
        self.on_open = self.on_closing = self.on_close = self.on_buffered_amount_low = _nothing
        self.on_error = self.on_message = _nothing

    def _ended(self) -> None:
        """The transport of the channel is closed: tell so in a task of its own (webrtc-pc 6.2)."""
        if not self._ending and not self._was_closed:
            self._ending = True
            self._count_left_open()
            if self._held is None:
                self._loop.call_soon(self._finish)

    def _finish(self) -> None:
        if self._was_closed:
            return
        self._was_closed = True
        self._transport.channel_closed(self)
        if self._error is not None:
            _call(self.on_error, self._error)
        _call(self.on_close)


def _call(callback: Callable[..., Any], *args: Any) -> None:
    try:
        callback(*args)
    except Exception:
        logger.exception("a callback of a data channel raised")
