"""What a signaling channel is, whatever carries it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self, TypeAlias

from calllab.errors import RelayRejected, WireError
from calllab.protocol.wire import ErrorCode, decode_client

__all__ = [
    "Channel",
    "ChannelState",
    "Message",
    "StateChange",
    "StateListener",
    "encode_message",
    "rejection",
]

Message: TypeAlias = dict[str, Any]
"""A message in its wire form (camelCase); what the relay forwards carries senderId and senderDevice."""


class ChannelState(StrEnum):
    """Whether messages can pass."""

    CONNECTING = "connecting"
    """The first connection is being made."""
    CONNECTED = "connected"
    """Messages pass."""
    RECONNECTING = "reconnecting"
    """The connection is lost and is being made anew; messages on their way may have been lost with it."""
    CLOSED = "closed"
    """The end: nothing will come or go any more."""


@dataclass(frozen=True, kw_only=True)
class StateChange:
    """A channel's new state, and what is known of why."""

    state: ChannelState
    reason: str = ""
    """What happened, in words."""
    code: int | None = None
    """The WebSocket close code, if there was one."""
    attempt: int = 0
    """While reconnecting: the number of the attempt that comes next, from 1."""
    retry_in_s: float = 0.0
    """While reconnecting: how long until that attempt."""


StateListener: TypeAlias = Callable[[StateChange], None]


class Channel(Protocol):
    """A user's way to send messages to other users and to receive theirs.

    Per recipient the order is kept.  A message is delivered at most once: it is never sent a second time,
    and when the connection is lost, what was on its way may be lost too.  What the relay cannot deliver is
    answered with a message of type ``error`` (see :func:`rejection`).
    """

    @property
    def user_id(self) -> str:
        """The user's name."""

    @property
    def device_id(self) -> str:
        """The device's id; it stays the same over reconnects."""

    @property
    def state(self) -> ChannelState:
        """The state now."""

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; one without ``id`` gets one.

        While the channel reconnects this waits for its turn, up to a limit of the channel's.

        Raises:
            WireError: the relay would refuse this message.
            ServiceUnavailable: the connection did not come back in time; the message was not sent.
            ChannelClosed: the channel is closed for good; the message was not sent.

        """

    async def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            ChannelClosed: the channel is closed, and all that came before has been received.

        """

    def __aiter__(self) -> AsyncIterator[Message]:
        """Iterate over messages.

        Ends when the channel's owner closes it; raises :exc:`ChannelClosed` if the service ended it.
        """

    def on_state(self, listener: StateListener) -> Callable[[], None]:
        """Call ``listener`` at each change of state from now on; returns a function that stops this."""

    def interrupt(self, reason: str = "interrupted") -> None:
        """Cut the connection to the relay, and keep it away until :meth:`resume`.

        The state is ``reconnecting`` meanwhile, and the relay takes the user for gone; nothing happens to a
        channel that is closed.
        """

    def resume(self) -> None:
        """Let the connection come back; nothing happens if it was not kept away."""

    async def close(self) -> None:
        """Close the channel for good; may be called again."""

    async def __aenter__(self) -> Self:
        """Return the channel; it is closed at the end of the block."""

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the channel."""


def encode_message(message: Mapping[str, Any]) -> bytes:
    """Return a message as the payload of a text frame, checked as the relay will check it.

    Raises:
        WireError: the relay would refuse it.

    """
    try:
        frame = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(ErrorCode.BAD_MESSAGE, f"the message is not JSON: {error}") from error
    decode_client(frame)
    return frame


def rejection(message: Mapping[str, Any]) -> RelayRejected:
    """Return a received message of type ``error`` as an exception, to raise or to show."""
    return RelayRejected(message["code"], message["message"], recipient_id=message.get("recipientId"))
