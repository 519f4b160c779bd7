"""One data channel, around aiortc's RTCDataChannel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from aiortc.exceptions import InvalidStateError
from aiortc.rtcdatachannel import RTCDataChannel

if TYPE_CHECKING:
    from calllab._aiortc.data import SctpTransport

__all__ = ["MAX_BUFFERED", "ChannelState", "DataChannel", "DataChannelSnapshot", "DataError", "ErrorDetail"]

logger = logging.getLogger(__name__)

ChannelState = Literal["connecting", "open", "closing", "closed"]
ErrorDetail = Literal["sctp-failure", "dtls-failure"]

MAX_BUFFERED: Final = 16 * 1024 * 1024
"""How many bytes may wait on one channel."""


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

        Raises ConnectionError unless the channel is open, ValueError if the message is larger than can ever
        be sent, BufferError if too much waits already.
        """
        if self.state != "open":
            raise ConnectionError(f"the data channel {self.label!r} is {self.state}, not open")
        size = len(data.encode() if isinstance(data, str) else data)
        limit = self._transport.max_message_size
        if size > limit:
            raise ValueError(f"the message has {size} bytes, no more than {limit:.0f} can be sent")
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
        self._transport.ledger.opened += 1

    def _count_left_open(self) -> None:
        if self._was_open:
            self._was_open = False
            self._transport.ledger.closed += 1

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
