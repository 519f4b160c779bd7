"""Data channels as applications see them (webrtc-pc section 6.2)."""

from __future__ import annotations

from typing import Final, Literal

from calllab._aiortc import DataChannel, DataError
from calllab.emitter import Emitter, EventHandler
from calllab.rtc.errors import InvalidStateError, NotSupportedError, OperationError
from calllab.rtc.transport_errors import RTCError, RTCErrorEvent

__all__ = ["RTCDataChannel", "check_data_channel", "check_data_channel_types"]

_MAX_NAME_BYTES: Final = 65535
_MAX_UNSIGNED_SHORT: Final = 65535
_MAX_ID: Final = 65534


class RTCDataChannel(Emitter):
    """One data channel.

    Events: ``open``, ``message`` (payload: str or bytes), ``bufferedamountlow``, ``closing`` (the peer closes
    it), ``error`` (an RTCErrorEvent: the channel was lost), ``close``.
    """

    onopen = EventHandler()
    onmessage = EventHandler()
    onbufferedamountlow = EventHandler()
    onclosing = EventHandler()
    onerror = EventHandler()
    onclose = EventHandler()

    def __init__(self, channel: DataChannel) -> None:
        super().__init__()
        self._channel = channel
        channel.on_open = lambda: self._fire("open")
        channel.on_closing = lambda: self._fire("closing")
        channel.on_close = lambda: self._fire("close")
        channel.on_error = lambda error: self._fire("error", RTCErrorEvent(_error_of(error)))
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
        """How many bytes of messages wait to be sent; it stays as it is when the channel closes."""
        return self._channel.buffered_amount

    @property
    def bufferedAmountLowThreshold(self) -> int:
        """At how many waiting bytes ``bufferedamountlow`` fires."""
        return self._channel.buffered_amount_low_threshold

    @bufferedAmountLowThreshold.setter
    def bufferedAmountLowThreshold(self, value: int) -> None:
        if not isinstance(value, int):
            raise TypeError(f"bufferedAmountLowThreshold is a number, not {type(value).__name__}")
        self._channel.buffered_amount_low_threshold = value

    @property
    def binaryType(self) -> Literal["arraybuffer"]:
        """``arraybuffer``: binary messages arrive as bytes, which is what it means in Python."""
        return "arraybuffer"

    @binaryType.setter
    def binaryType(self, value: str) -> None:
        if value == "blob":
            raise NotSupportedError("there are no blobs in Python: binary messages arrive as bytes")
        if value != "arraybuffer":
            raise TypeError(f'binaryType is "arraybuffer", not {value!r}')

    def send(self, data: str | bytes | bytearray | memoryview) -> None:
        """Send a message: text as str, anything else as bytes.

        Raises InvalidStateError unless open, TypeError if it is larger than can be sent
        (:attr:`RTCSctpTransport.maxMessageSize`), OperationError if too much waits already.
        """
        if not isinstance(data, str | bytes | bytearray | memoryview):
            raise TypeError(f"a message is str or bytes, not {type(data).__name__}")
        if self.readyState != "open":
            raise InvalidStateError(
                f"data channel {self.label!r} is {self.readyState}: wait for its open event"
            )
        try:
            self._channel.send(_scalar(data) if isinstance(data, str) else bytes(data))
        except ConnectionError as exc:
            raise InvalidStateError(f"data channel {self.label!r}: {exc}") from exc
        except BufferError as exc:
            raise OperationError(f"data channel {self.label!r}: {exc}") from exc
        except ValueError as exc:
            raise TypeError(f"data channel {self.label!r}: {exc}") from exc

    def close(self) -> None:
        """Close the channel after what was sent has gone out; closing twice does nothing."""
        self._channel.close()

    def _fire(self, event: str, *arguments: object) -> None:
        self.emit(event, *arguments)

    def __repr__(self) -> str:
        return f"<RTCDataChannel {self.label!r} {self.readyState}>"


def _error_of(error: DataError) -> OperationError:
    if error.detail is None:
        return OperationError(error.text)
    return RTCError(error.text, error.detail, sctpCauseCode=error.cause_code)


def _scalar(text: str) -> str:
    """Return what a browser would send: lone surrogates become U+FFFD (Web IDL, USVString)."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check_data_channel_types(
    label: object, protocol: object, max_packet_life_time: object, max_retransmits: object, id_: object
) -> None:
    """Raise TypeError for what could not even be handed to createDataChannel() in a browser (Web IDL)."""
    for what, text in (("label", label), ("protocol", protocol)):
        if not isinstance(text, str):
            raise TypeError(f"the {what} of a data channel is a string, not {type(text).__name__}")
    numbers = (("maxPacketLifeTime", max_packet_life_time), ("maxRetransmits", max_retransmits), ("id", id_))
    for what, number in numbers:
        if number is None:
            continue
        if not isinstance(number, int) or not 0 <= number <= _MAX_UNSIGNED_SHORT:
            raise TypeError(f"{what} is a number from 0 to {_MAX_UNSIGNED_SHORT}, not {number!r}")


def check_data_channel(
    label: str,
    protocol: str,
    max_packet_life_time: int | None,
    max_retransmits: int | None,
    negotiated: bool,
    id_: int | None,
) -> None:
    """Raise TypeError for what createDataChannel() refuses, in the order of its steps (webrtc-pc 6.1)."""
    for what, text in (("label", label), ("protocol", protocol)):
        if len(text.encode(errors="surrogatepass")) > _MAX_NAME_BYTES:
            raise TypeError(f"the {what} of a data channel has at most {_MAX_NAME_BYTES} bytes")
    if negotiated and id_ is None:
        raise TypeError("a negotiated data channel needs the id that both applications agreed on")
    if max_packet_life_time is not None and max_retransmits is not None:
        raise TypeError("maxPacketLifeTime and maxRetransmits exclude each other: give one of them")
    if negotiated and id_ is not None and id_ > _MAX_ID:
        raise TypeError(f"the id of a data channel is a number from 0 to {_MAX_ID}, not {id_}")
