"""SCTP and data channels, around aiortc's RTCSctpTransport and RTCDataChannel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from struct import pack
from typing import Any, Literal, cast

from aiortc.exceptions import InvalidStateError
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import (
    DATA_CHANNEL_OPEN,
    WEBRTC_DCEP,
    RTCSctpCapabilities,
    RTCSctpTransport,
)

from calllab._aiortc.dtls import DtlsTransport

__all__ = ["ChannelState", "DataChannel", "DataChannelSnapshot", "SctpSnapshot", "SctpState", "SctpTransport"]

logger = logging.getLogger(__name__)

ChannelState = Literal["connecting", "open", "closing", "closed"]
SctpState = Literal["connecting", "connected", "closed"]


def _nothing(*_: object) -> None:
    """What a callback does until somebody sets it."""


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
    """The channels of an association, and how many ever opened and closed."""

    channels: tuple[DataChannelSnapshot, ...]
    channels_opened: int
    channels_closed: int


class _Sctp(RTCSctpTransport):
    """aiortc's transport, which a peer cannot break, and which tells of its state."""

    def __init__(self, dtls: DtlsTransport, port: int, owner: SctpTransport) -> None:
        self._owner = owner
        super().__init__(dtls.inner, port=port)

    async def _handle_data(self, data: bytes) -> None:
        """Take what the peer sent.

        aiortc checks the peer's conduct by assertion (rtcsctptransport.py:939, 1990), and an exception here
        ends the task that reads for media too (rtcdtlstransport.py:527).
        """
        try:
            await super()._handle_data(data)
        except ConnectionError:
            raise
        except Exception as error:
            logger.warning("the SCTP association is aborted: the peer broke the protocol (%r)", error)
            await self._abort()
            self._set_state(self.State.CLOSED)

    def _set_state(self, state: Any) -> None:
        super()._set_state(state)
        self._owner.inner_state_changed()

    def _data_channel_open(self, channel: RTCDataChannel) -> None:
        """Announce a channel, with the lengths of its names in bytes (RFC 8832 section 5.1).

        aiortc writes their lengths in characters (rtcsctptransport.py:1973), so that a name outside ASCII is
        cut, and the rest taken for the protocol.
        """
        waiting = len(self._data_channel_queue)
        super()._data_channel_open(channel)
        label, protocol = channel.label.encode(), channel.protocol.encode()
        _, pp_id, message = self._data_channel_queue[waiting]
        fixed = message[:8] + pack("!HH", len(label), len(protocol))
        self._data_channel_queue[waiting] = (channel, pp_id, fixed + label + protocol)
        assert message[0] == DATA_CHANNEL_OPEN and pp_id == WEBRTC_DCEP


class SctpTransport:
    """The SCTP association of a peer connection; channels can be made before it starts."""

    def __init__(self, dtls: DtlsTransport, *, port: int = 5000) -> None:
        self.on_state_change: Callable[[], None] = _nothing
        self.on_data_channel: Callable[[DataChannel], None] = _nothing
        self.channels_opened = 0
        self.channels_closed = 0
        self._channels: list[DataChannel] = []
        self._keys = 0
        self._started = self._stopped = False
        self._told: SctpState = "connecting"
        self._inner = _Sctp(dtls, port, self)
        self._inner.on("datachannel", self._announced)

    @property
    def state(self) -> SctpState:
        """The W3C RTCSctpTransportState."""
        if self._stopped:
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
    ) -> DataChannel:
        """Make a channel; it opens when the association is up and, unless negotiated, the peer knows of it.

        Raises ValueError for an identifier out of 0..65534 or in use, and ConnectionError once closed.
        """
        if self.state == "closed":
            raise ConnectionError("the SCTP transport is closed: no data channel can be made")
        parameters = RTCDataChannelParameters(
            label=label,
            ordered=ordered,
            maxPacketLifeTime=max_packet_life_time,
            maxRetransmits=max_retransmits,
            protocol=protocol,
            negotiated=negotiated,
            id=id,
        )
        return self._adopt(RTCDataChannel(self._inner, parameters))

    async def start(self, remote_port: int, remote_max_message_size: int) -> None:
        """Set the association up; DTLS must be connected. Idempotent."""
        if self._started or self._stopped:
            return
        self._started = True
        await self._inner.start(RTCSctpCapabilities(maxMessageSize=remote_max_message_size), remote_port)

    async def stop(self) -> None:
        """Abort the association; all channels close. Idempotent."""
        if self._stopped:
            return
        if self._started:
            await self._inner.stop()
        self._stopped = True
        for channel in list(self._channels):
            channel.lost()
        self.inner_state_changed()

    def statistics(self) -> SctpSnapshot:
        """Return the counters as they stand; changes nothing."""
        return SctpSnapshot(
            tuple(channel.statistics() for channel in self._channels),
            self.channels_opened,
            self.channels_closed,
        )

    def _adopt(self, inner: RTCDataChannel) -> DataChannel:
        self._keys += 1
        channel = DataChannel(inner, self, self._keys)
        self._channels.append(channel)
        return channel

    def _announced(self, inner: RTCDataChannel) -> None:
        channel = self._adopt(inner)
        channel.opened()
        _call(self.on_data_channel, channel)

    def inner_state_changed(self) -> None:
        """Tell of a change of state, once."""
        state = self.state
        if state != self._told:
            self._told = state
            _call(self.on_state_change)


class DataChannel:
    """One data channel; its callbacks are attributes."""

    def __init__(self, inner: RTCDataChannel, transport: SctpTransport, key: int) -> None:
        self.on_open: Callable[[], None] = _nothing
        self.on_closing: Callable[[], None] = _nothing
        self.on_close: Callable[[], None] = _nothing
        self.on_message: Callable[[str | bytes], None] = _nothing
        self.on_buffered_amount_low: Callable[[], None] = _nothing
        self._inner = inner
        self._transport = transport
        self._key = key
        self._was_open = self._was_closed = False
        self._messages_sent = self._bytes_sent = 0
        self._messages_received = self._bytes_received = 0
        inner.on("open", self.opened)
        inner.on("close", self._closed)
        inner.on("message", self._received)
        inner.on("bufferedamountlow", lambda: _call(self.on_buffered_amount_low))
        if inner.readyState == "open" and inner.negotiated:
            # Negotiated over an association that is up: open from the start, told after the caller has had
            # a chance to listen.
            asyncio.get_running_loop().call_soon(self.opened)

    @property
    def id(self) -> int | None:
        """The stream identifier; None until it is known."""
        return self._inner.id

    @property
    def label(self) -> str:
        """The name of the channel."""
        return self._inner.label

    @property
    def protocol(self) -> str:
        """The name of the protocol spoken on it."""
        return self._inner.protocol

    @property
    def ordered(self) -> bool:
        """Whether messages arrive in order."""
        return self._inner.ordered

    @property
    def max_packet_life_time(self) -> int | None:
        """For how many milliseconds a message is tried."""
        return self._inner.maxPacketLifeTime

    @property
    def max_retransmits(self) -> int | None:
        """How many times a message is sent again."""
        return self._inner.maxRetransmits

    @property
    def negotiated(self) -> bool:
        """Whether the peers agreed on the channel by other means."""
        return self._inner.negotiated

    @property
    def state(self) -> ChannelState:
        """The W3C RTCDataChannelState."""
        return "closed" if self._was_closed else cast(ChannelState, self._inner.readyState)

    @property
    def buffered_amount(self) -> int:
        """Bytes that wait to be sent."""
        return self._inner.bufferedAmount

    @property
    def buffered_amount_low_threshold(self) -> int:
        """The amount at or below which :attr:`on_buffered_amount_low` is called."""
        return self._inner.bufferedAmountLowThreshold

    @buffered_amount_low_threshold.setter
    def buffered_amount_low_threshold(self, value: int) -> None:
        self._inner.bufferedAmountLowThreshold = value

    def send(self, data: str | bytes) -> None:
        """Send a message.

        Raises ConnectionError unless the channel is open, ValueError if the message is larger than the peer
        takes.
        """
        if self.state != "open":
            raise ConnectionError(f"the data channel {self.label!r} is {self.state}, not open")
        try:
            self._inner.send(data)
        except InvalidStateError as error:
            raise ConnectionError(f"the data channel {self.label!r} is not open") from error
        self._messages_sent += 1
        self._bytes_sent += len(data.encode() if isinstance(data, str) else data)

    def close(self) -> None:
        """Close the channel in both directions, after what was sent. Idempotent."""
        if self.state in ("connecting", "open"):
            self._inner.close()
            if self._inner.readyState == "closing":
                _call(self.on_closing)

    def statistics(self) -> DataChannelSnapshot:
        """Return the counters as they stand."""
        return DataChannelSnapshot(
            key=self._key,
            label=self.label,
            protocol=self.protocol,
            identifier=self.id,
            state=self.state,
            messages_sent=self._messages_sent,
            bytes_sent=self._bytes_sent,
            messages_received=self._messages_received,
            bytes_received=self._bytes_received,
        )

    def opened(self) -> None:
        """The channel is open: count it and tell, once."""
        if not self._was_open and self._inner.readyState == "open":
            self._was_open = True
            self._transport.channels_opened += 1
            _call(self.on_open)

    def lost(self) -> None:
        """The association is gone, and the channel with it."""
        self._inner._setReadyState("closed")
        self._closed()

    def _closed(self) -> None:
        if not self._was_closed:
            self._was_closed = True
            self._transport.channels_closed += self._was_open
            _call(self.on_close)

    def _received(self, data: str | bytes) -> None:
        self._messages_received += 1
        self._bytes_received += len(data.encode() if isinstance(data, str) else data)
        _call(self.on_message, data)


def _call(callback: Callable[..., None], *args: Any) -> None:
    try:
        callback(*args)
    except Exception:
        logger.exception("a callback of a data channel raised")
