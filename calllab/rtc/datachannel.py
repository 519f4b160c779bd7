"""Data channels as applications see them (webrtc-pc section 6.2)."""

from __future__ import annotations

from typing import Literal

from calllab._aiortc import DataChannel
from calllab.rtc.emitter import Emitter
from calllab.rtc.errors import InvalidStateError

__all__ = ["RTCDataChannel", "check_data_channel"]

_MAX_NAME_BYTES = 65535


class RTCDataChannel(Emitter):
    """One data channel.

    Events: ``open``, ``message`` (payload: str or bytes), ``bufferedamountlow``, ``closing``, ``close``.
    """

    def __init__(self, channel: DataChannel) -> None:
        super().__init__()
        self._channel = channel
        channel.on_open = lambda: self._fire("open")
        channel.on_closing = lambda: self._fire("closing")
        channel.on_close = lambda: self._fire("close")
        channel.on_message = lambda data: self._fire("message", data)
        channel.on_buffered_amount_low = lambda: self._fire("bufferedamountlow")

    @property
    def label(self) -> str:
        """The name that the application gave."""
        return self._channel.label

    @property
    def protocol(self) -> str:
        """The subprotocol that the application named."""
        return self._channel.protocol

    @property
    def ordered(self) -> bool:
        """Whether messages arrive in the order in which they were sent."""
        return self._channel.ordered

    @property
    def maxPacketLifeTime(self) -> int | None:
        """For how many milliseconds a message is retransmitted, None: no such limit."""
        return self._channel.max_packet_life_time

    @property
    def maxRetransmits(self) -> int | None:
        """How often a message is retransmitted, None: no such limit."""
        return self._channel.max_retransmits

    @property
    def negotiated(self) -> bool:
        """Whether both applications made this channel by the same id, without announcing it in band."""
        return self._channel.negotiated

    @property
    def id(self) -> int | None:
        """The stream id, None before one is assigned."""
        return self._channel.id

    @property
    def readyState(self) -> Literal["connecting", "open", "closing", "closed"]:
        """``connecting``, ``open``, ``closing`` or ``closed``."""
        return self._channel.state

    @property
    def bufferedAmount(self) -> int:
        """How many bytes wait to be sent."""
        return self._channel.buffered_amount

    @property
    def bufferedAmountLowThreshold(self) -> int:
        """At how many waiting bytes ``bufferedamountlow`` fires."""
        return self._channel.buffered_amount_low_threshold

    @bufferedAmountLowThreshold.setter
    def bufferedAmountLowThreshold(self, value: int) -> None:
        self._channel.buffered_amount_low_threshold = value

    def send(self, data: str | bytes) -> None:
        """Send a message; raises InvalidStateError unless open, TypeError if it is larger than the peer
        takes.
        """
        if not isinstance(data, str | bytes):
            raise TypeError(f"a message is str or bytes, not {type(data).__name__}")
        if self.readyState != "open":
            raise InvalidStateError(
                f"data channel {self.label!r} is {self.readyState}: wait for its open event"
            )
        try:
            self._channel.send(data)
        except ConnectionError as exc:
            raise InvalidStateError(f"data channel {self.label!r}: {exc}") from exc
        except ValueError as exc:
            raise TypeError(f"data channel {self.label!r}: {exc}") from exc

    def close(self) -> None:
        """Close the channel after what was sent has gone out; closing twice does nothing."""
        self._channel.close()

    def _fire(self, event: str, *arguments: object) -> None:
        self.emit(event, *arguments)

    def __repr__(self) -> str:
        return f"<RTCDataChannel {self.label!r} {self.readyState}>"


def check_data_channel(
    label: str,
    protocol: str,
    max_packet_life_time: int | None,
    max_retransmits: int | None,
    negotiated: bool,
    id_: int | None,
) -> None:
    """Raise TypeError or ValueError for what a browser would not make a channel of (webrtc-pc 6.1)."""
    for what, text in (("label", label), ("protocol", protocol)):
        if len(text.encode()) > _MAX_NAME_BYTES:
            raise TypeError(f"the {what} of a data channel has at most {_MAX_NAME_BYTES} bytes")
    if max_packet_life_time is not None and max_retransmits is not None:
        raise TypeError("maxPacketLifeTime and maxRetransmits exclude each other: give one of them")
    for what, number in (("maxPacketLifeTime", max_packet_life_time), ("maxRetransmits", max_retransmits)):
        if number is not None and not 0 <= number <= 65535:
            raise ValueError(f"{what} is a number from 0 to 65535, not {number}")
    if negotiated and id_ is None:
        raise TypeError("a negotiated data channel needs the id that both applications agreed on")
    if negotiated and id_ is not None and not 0 <= id_ <= 65534:
        raise TypeError(f"the id of a data channel is a number from 0 to 65534, not {id_}")
