"""The SCTP transport and its data channels, as the W3C layer needs them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Literal, cast

from aiortc.exceptions import InvalidStateError
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpCapabilities

from calllab._aiortc.channel_ledger import ChannelLedger
from calllab._aiortc.data_channel import MAX_BUFFERED, ChannelState, DataChannel, DataError, ErrorDetail
from calllab._aiortc.dtls import DtlsTransport
from calllab._aiortc.sctp import MAX_ID, Association

__all__ = [
    "ChannelState",
    "DataChannel",
    "DataError",
    "SctpState",
    "SctpTransport",
]

logger = logging.getLogger(__name__)

SctpState = Literal["connecting", "connected", "closed"]


def _nothing(*_: object) -> None:
    """What a callback does until somebody sets it."""


class SctpTransport:
    """The SCTP association of a peer connection; channels can be made before it starts.

    Its channels are numbered and counted in ``ledger``.  Raises ConnectionError if DTLS is closed already.
    """

    def __init__(self, dtls: DtlsTransport, *, port: int = 5000, ledger: ChannelLedger | None = None) -> None:
        self.on_state_change: Callable[[], None] = _nothing
        self.on_data_channel: Callable[[DataChannel], None] = _nothing
        self.ledger = ledger if ledger is not None else ChannelLedger()
        self._dtls = dtls
        self._channels: dict[RTCDataChannel, DataChannel] = {}
        self._nameless: list[DataChannel] = []
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
        """The largest message that can be sent, in bytes: the smaller of what the peer takes and what may
        wait here (webrtc-pc 6.1.1.2).
        """
        return float(min(self._inner._remote_max_message_size or MAX_BUFFERED, MAX_BUFFERED))

    def limit_messages(self, size: int) -> None:
        """Take what the peer says of the largest message that it takes, 0 being no limit."""
        self._inner._remote_max_message_size = size

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
            del self._channels[channel.inner]
            self.ledger.strike(channel)
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
            self.limit_messages(remote_max_message_size)
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

    def _adopt(self, inner: RTCDataChannel) -> DataChannel:
        channel = self._channels[inner] = DataChannel(inner, self, self.ledger.new_key())
        self.ledger.enter(channel)
        return channel

    def channel_closed(self, channel: DataChannel) -> None:
        """A channel has told of its end."""
        self._channels.pop(channel.inner, None)
        self.ledger.close(channel)

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


def _call(callback: Callable[..., Any], *args: Any) -> None:
    try:
        callback(*args)
    except Exception:
        logger.exception("a callback of a data channel raised")
