"""The relay's routing core: who is connected, who gets what, and what a sender is told.

Theory of operation.  A :class:`Connection` is one socket of one device of one user.  The driver tells the
core of four things -- a socket came (:meth:`RelayCore.connect`), a text frame came
(:meth:`RelayCore.receive`), bytes went out (:meth:`RelayCore.flushed`), a socket is gone
(:meth:`RelayCore.disconnect`) -- and does the returned outputs in their order.  From that alone follow the
promises of the wire:

* Order: outputs come back in the order of the frames, and a driver does them in that order.
* At most once: the core keeps no message.  What cannot be delivered now is answered with an error.
* A slow reader harms itself alone: the bytes that wait for a socket are counted, and what would go over the
  limit is refused with ``recipient-slow``, so a driver's queue is bounded without ever blocking a sender.
* Nobody speaks for another: the sender's name comes from the connection, never from the frame.

A connection leaves the core in the moment the core decides to close it: frames that are still on their way
from it are ignored, and nothing more is delivered to it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable
from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from calllab.errors import WireError
from calllab.protocol.limits import RefusalRun, RelayLimits, TokenBucket
from calllab.protocol.wire import (
    MAX_DEVICE_CHARS,
    MAX_FRAME_BYTES,
    CallAccept,
    CallHangup,
    CallMessage,
    CallReject,
    ClientMessage,
    CloseCode,
    ErrorCode,
    ErrorMessage,
    decode_client,
    encode,
    is_device_id,
)

__all__ = [
    "ANSWERED_ELSEWHERE",
    "DECLINED_ELSEWHERE",
    "Close",
    "Connection",
    "Deliver",
    "Output",
    "RelayCore",
    "RelayCounters",
]

ANSWERED_ELSEWHERE: Final = "answered-elsewhere"
"""The reason of the call-hangup that a user's other devices get when one has accepted the call."""
DECLINED_ELSEWHERE: Final = "declined-elsewhere"
"""The reason of the call-hangup that a user's other devices get when one has rejected the call."""

_FIRST_SWEEP: Final = 1024


class Connection:
    """One socket of one device of one user; drivers use it as a key, by identity."""

    __slots__ = ("_refusals", "_signature", "device_id", "is_open", "queued_bytes", "session", "user_id")

    def __init__(self, user_id: str, device_id: str, session: Hashable, refusals: RefusalRun) -> None:
        self.user_id = user_id
        self.device_id = device_id
        self.session = session
        self.queued_bytes = 0
        """Bytes that were to be delivered and that the driver has not yet called flushed."""
        self.is_open = True
        self._refusals = refusals
        # What replaces the closing brace of a message that this connection sends on.
        names = msgspec.json.encode({"senderId": user_id, "senderDevice": device_id})
        self._signature = b"," + names[1:]

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<Connection {self.user_id}/{self.device_id} {state}, {self.queued_bytes} bytes queued>"


class Deliver(msgspec.Struct, frozen=True):
    """Write one text frame to a connection; call ``flushed`` with its length when it has left."""

    connection: Connection
    frame: bytes


class Close(msgspec.Struct, frozen=True):
    """Write what was delivered before, then close the socket with this code and reason."""

    connection: Connection
    code: CloseCode
    reason: str


Output: TypeAlias = Deliver | Close


class RelayCounters(msgspec.Struct):
    """What a relay has done since it was made."""

    received: int = 0
    """Frames from clients, refused ones included."""
    delivered: int = 0
    """Frames to clients, errors not included."""
    refused: dict[ErrorCode, int] = msgspec.field(default_factory=dict)
    """Errors answered, by code."""
    closed: dict[CloseCode, int] = msgspec.field(default_factory=dict)
    """Connections closed by the relay, by code."""


class RelayCore:
    """Routes the messages of all users; no sockets, no clock, no store.

    Args:
        knows_user: says whether a user exists; asked only about recipients that are not connected.
        entropy: names devices that do not name themselves.
        limits: what one user and one socket may do.

    All methods that take ``now`` must be given seconds of the same clock.

    """

    def __init__(
        self,
        *,
        knows_user: Callable[[str], bool],
        entropy: random.Random,
        limits: RelayLimits | None = None,
    ) -> None:
        self.limits = limits or RelayLimits()
        self.counters = RelayCounters()
        self._knows_user = knows_user
        self._entropy = entropy
        self._users: dict[str, dict[str, Connection]] = {}
        # Outlives the user's connections until it is full again: connecting anew gives no new allowance.
        self._buckets: dict[str, TokenBucket] = {}
        self._sweep_at = _FIRST_SWEEP

    # What drivers tell the core.

    def connect(
        self, user_id: str, device_id: str | None, now: float, *, session: Hashable = None
    ) -> tuple[Connection, tuple[Output, ...]]:
        """Add a socket of an authenticated user.

        ``device_id`` None names a new device.  A socket of the same device that is still here is closed with
        4409.  A user with too many devices gets the new socket back already closed, with 1008 in the outputs.
        ``session`` is whatever :meth:`drop_session` will be called with.

        Raises:
            ValueError: ``device_id`` is none that :func:`~calllab.protocol.wire.is_device_id` allows.

        """
        if device_id is None:
            device_id = f"{self._entropy.getrandbits(64):016x}"
        elif not is_device_id(device_id):
            raise ValueError(
                f"{device_id!r} is not a device id: "
                f"use 1 to {MAX_DEVICE_CHARS} letters, digits, dots, underscores, tildes or hyphens"
            )
        connection = Connection(user_id, device_id, session, RefusalRun(self.limits))
        outputs: tuple[Output, ...] = ()
        devices = self._users.get(user_id, {})
        if (older := devices.get(device_id)) is not None:
            outputs = self._close(older, CloseCode.REPLACED, "a newer socket of this device took over")
        elif len(devices) >= self.limits.devices_per_user:
            reason = f"more than {self.limits.devices_per_user} devices of one user"
            return connection, self._close(connection, CloseCode.ABUSE, reason)
        self._users.setdefault(user_id, {})[device_id] = connection
        if user_id not in self._buckets:
            self._sweep(now)
            self._buckets[user_id] = TokenBucket(self.limits.messages_per_s, self.limits.burst, now)
        return connection, outputs

    def receive(self, connection: Connection, frame: bytes, now: float) -> tuple[Output, ...]:
        """Take the payload of one text frame, as it came from the socket."""
        if not connection.is_open:
            return ()
        if len(frame) > MAX_FRAME_BYTES:
            return self.receive_too_big(connection)
        try:
            message = decode_client(frame)
        except WireError as error:
            if not _is_utf8(frame):
                return self.receive_invalid_utf8(connection)
            self.counters.received += 1
            if not self._buckets[connection.user_id].take(now):
                return self._refuse(
                    connection, ErrorCode.RATE_LIMITED, self._rate_text(), error.in_reply_to, now
                )
            return self._refuse(connection, ErrorCode(error.code), str(error), error.in_reply_to, now)
        self.counters.received += 1
        if not self._buckets[connection.user_id].take(now):
            return self._refuse(connection, ErrorCode.RATE_LIMITED, self._rate_text(), message, now)
        return self._route(connection, message)

    def receive_binary(self, connection: Connection) -> tuple[Output, ...]:
        """Take note of a binary frame."""
        return self._close(connection, CloseCode.BINARY_FRAME, "binary frame: send JSON text")

    def receive_too_big(self, connection: Connection) -> tuple[Output, ...]:
        """Take note of a frame that is too long, noticed here or by the driver."""
        return self._close(connection, CloseCode.TOO_BIG, f"a frame has more than {MAX_FRAME_BYTES} bytes")

    def receive_invalid_utf8(self, connection: Connection) -> tuple[Output, ...]:
        """Take note of a text frame that is not UTF-8, noticed here or by the driver."""
        return self._close(connection, CloseCode.INVALID_UTF8, "a text frame is not UTF-8")

    def flushed(self, connection: Connection, byte_count: int) -> None:
        """Take note that so many bytes of delivered frames no longer wait for this socket."""
        if not 0 <= byte_count <= connection.queued_bytes:
            raise ValueError(
                f"{byte_count} bytes cannot have left a queue of {connection.queued_bytes}: "
                "report the length of each delivered frame once"
            )
        connection.queued_bytes -= byte_count

    def disconnect(self, connection: Connection) -> None:
        """Take note that the socket is gone; may be called again, and after a close."""
        connection.is_open = False
        devices = self._users.get(connection.user_id)
        if devices is not None and devices.get(connection.device_id) is connection:
            del devices[connection.device_id]
            if not devices:
                del self._users[connection.user_id]

    # What the service tells the core.

    def drop_user(self, user_id: str) -> tuple[Output, ...]:
        """Close all sockets of a user with 4401."""
        return self._unauthorize(self._users.get(user_id, {}).values())

    def drop_session(self, session: Hashable) -> tuple[Output, ...]:
        """Close with 4401 all sockets that were connected with this session; None is no session."""
        if session is None:
            return ()
        return self._unauthorize(c for c in self._all() if c.session == session)

    def shutdown(self) -> tuple[Output, ...]:
        """Close all sockets with 1001."""
        return self._close_each(self._all(), CloseCode.GOING_AWAY, "the service is shutting down")

    # What anyone may ask.

    @property
    def connections(self) -> int:
        """How many sockets there are."""
        return sum(map(len, self._users.values()))

    def devices_of(self, user_id: str) -> tuple[str, ...]:
        """Return the devices of a user that are connected now, the oldest first."""
        return tuple(self._users.get(user_id, ()))

    # Routing.

    def _route(self, sender: Connection, message: ClientMessage) -> tuple[Output, ...]:
        outputs: list[Output] = []
        targets = self._targets(sender, message)
        # Written anew from what was validated, with the sender's name last.
        frame = encode(message)[:-1] + sender._signature
        for target in targets:
            if self._has_room(target, frame):
                outputs.append(self._deliver(target, frame))
        delivered = len(outputs)
        if isinstance(message, CallAccept):
            outputs += self._tell_other_devices(sender, message, targets, ANSWERED_ELSEWHERE)
        elif isinstance(message, CallReject):
            outputs += self._tell_other_devices(sender, message, targets, DECLINED_ELSEWHERE)
        if not delivered:
            outputs += self._undeliverable(sender, message, targets)
        return tuple(outputs)

    def _targets(self, sender: Connection, message: ClientMessage) -> list[Connection]:
        devices = self._users.get(message.recipient_id)
        if devices is None:
            return []
        if message.recipient_device is not UNSET:
            target = devices.get(message.recipient_device)
            return [] if target is None else [target]
        # A message to one's own user is for one's other devices.
        return [target for target in devices.values() if target is not sender]

    def _tell_other_devices(
        self,
        sender: Connection,
        message: CallAccept | CallReject,
        targets: list[Connection],
        reason: str,
    ) -> list[Output]:
        """Stop the ringing on the user's other devices, whether or not the caller can be reached."""
        outputs: list[Output] = []
        for other in self._users[sender.user_id].values():
            if other is sender or other in targets:
                continue
            hangup = CallHangup(
                recipient_id=sender.user_id,
                recipient_device=other.device_id,
                call_id=message.call_id,
                reason=reason,
            )
            frame = encode(hangup)[:-1] + sender._signature
            # A device that is too slow for this learns it from its own ring timeout.
            if self._has_room(other, frame):
                outputs.append(self._deliver(other, frame))
        return outputs

    def _undeliverable(
        self, sender: Connection, message: ClientMessage, targets: list[Connection]
    ) -> tuple[Output, ...]:
        recipient = message.recipient_id
        if targets:
            code = ErrorCode.RECIPIENT_SLOW
            text = f"{recipient} does not read what it is sent: send again later"
        elif recipient not in self._users and not self._knows_user(recipient):
            code = ErrorCode.RECIPIENT_UNKNOWN
            text = f"there is no user {recipient!r}: check the name"
        elif message.recipient_device is not UNSET and recipient in self._users:
            code = ErrorCode.RECIPIENT_OFFLINE
            text = f"device {message.recipient_device!r} of {recipient} is not connected"
        else:
            code = ErrorCode.RECIPIENT_OFFLINE
            text = f"{recipient} is not connected: try again later"
        return self._answer(sender, code, text, message)

    # Refusing and closing.

    def _refuse(
        self,
        connection: Connection,
        code: ErrorCode,
        text: str,
        about: ClientMessage | str | None,
        now: float,
    ) -> tuple[Output, ...]:
        """Answer a breach of the rules, or end a run of them."""
        if connection._refusals.is_abuse(now):
            return self._close(connection, CloseCode.ABUSE, f"too many refused messages, the last: {code}")
        return self._answer(connection, code, text, about)

    def _answer(
        self, connection: Connection, code: ErrorCode, text: str, about: ClientMessage | str | None
    ) -> tuple[Output, ...]:
        self.counters.refused[code] = self.counters.refused.get(code, 0) + 1
        recipient_id: str | UnsetType = UNSET
        call_id: str | UnsetType = UNSET
        in_reply_to: str | UnsetType = UNSET
        if isinstance(about, str):
            in_reply_to = about
        elif about is not None:
            recipient_id = about.recipient_id
            in_reply_to = about.id
            if isinstance(about, CallMessage):
                call_id = about.call_id
        frame = encode(
            ErrorMessage(
                code=code, message=text, recipient_id=recipient_id, call_id=call_id, in_reply_to=in_reply_to
            )
        )
        # A client that does not read its errors must not make the relay keep them.
        if not self._has_room(connection, frame):
            return ()
        connection.queued_bytes += len(frame)
        return (Deliver(connection, frame),)

    def _rate_text(self) -> str:
        return f"more than {self.limits.messages_per_s:g} messages a second: send less"

    def _has_room(self, connection: Connection, frame: bytes) -> bool:
        return connection.queued_bytes + len(frame) <= self.limits.queued_bytes

    def _deliver(self, connection: Connection, frame: bytes) -> Deliver:
        connection.queued_bytes += len(frame)
        self.counters.delivered += 1
        return Deliver(connection, frame)

    def _close(self, connection: Connection, code: CloseCode, reason: str) -> tuple[Output, ...]:
        if not connection.is_open:
            return ()
        self.disconnect(connection)
        self.counters.closed[code] = self.counters.closed.get(code, 0) + 1
        return (Close(connection, code, reason),)

    def _close_each(
        self, connections: Iterable[Connection], code: CloseCode, reason: str
    ) -> tuple[Output, ...]:
        return tuple(output for c in list(connections) for output in self._close(c, code, reason))

    def _unauthorize(self, connections: Iterable[Connection]) -> tuple[Output, ...]:
        return self._close_each(connections, CloseCode.UNAUTHORIZED, "logged out: log in again")

    def _all(self) -> list[Connection]:
        return [connection for devices in self._users.values() for connection in devices.values()]

    def _sweep(self, now: float) -> None:
        """Forget the allowances that are full again, each time their number has doubled."""
        if len(self._buckets) < self._sweep_at:
            return
        for user_id in [u for u, b in self._buckets.items() if u not in self._users and b.is_full(now)]:
            del self._buckets[user_id]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._buckets))


def _is_utf8(frame: bytes) -> bool:
    try:
        frame.decode()
    except UnicodeDecodeError:
        return False
    return True
