"""The relay against a model that is simple enough to be believed, over any course of events."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from calllab.protocol import Close, CloseCode, Connection, Deliver, Output, RelayCore, RelayLimits

LIMITS = RelayLimits(messages_per_s=1, burst=6, queued_bytes=1500, devices_per_user=3)
REGISTERED = ("alice", "bob")
users = st.sampled_from(REGISTERED)
devices = st.sampled_from(["phone", "laptop", "watch", None])


@dataclass(eq=False)
class Socket:
    """The model of one socket: who it is, what waits for it, whether it is here."""

    connection: Connection
    user: str
    device: str
    waiting: list[bytes] = field(default_factory=list)
    here: bool = True


class RelayMachine(RuleBasedStateMachine):
    """Sockets come, go, send, stall and are replaced, in any order."""

    sockets: Bundle[Socket] = Bundle("sockets")

    @initialize()
    def start(self) -> None:
        """Begin with an empty relay."""
        self.core = RelayCore(knows_user=REGISTERED.__contains__, entropy=random.Random(3), limits=LIMITS)
        self.here: list[Socket] = []
        self.tokens = dict.fromkeys(REGISTERED, float(LIMITS.burst))
        self.now = 0.0
        self.sent = 0

    @rule(target=sockets, user=users, device=devices)
    def connect(self, user: str, device: str | None) -> Socket:
        """A socket comes; an older one of the same device is replaced, one too many refused."""
        same = [s for s in self.here if (s.user, s.device) == (user, device)]
        full = not same and len(self.devices_of(user)) == LIMITS.devices_per_user
        connection, outputs = self.core.connect(user, device, self.now)
        socket = Socket(connection, user, connection.device_id)
        if full:
            socket.here = False
            (refusal,) = outputs
            assert isinstance(refusal, Close)
            assert (refusal.connection, refusal.code) == (connection, CloseCode.ABUSE)
            return socket
        assert [(o.connection, o.code) for o in outputs if isinstance(o, Close)] == [
            (s.connection, CloseCode.REPLACED) for s in same
        ]
        assert len(outputs) == len(same)
        for old in same:
            self.leave(old)
        self.here.append(socket)
        return socket

    @rule(socket=consumes(sockets))
    def disconnect(self, socket: Socket) -> None:
        """A socket goes, perhaps one that the relay has closed before."""
        self.core.disconnect(socket.connection)
        self.leave(socket)

    @rule(socket=sockets, count=st.integers(0, 5))
    def read(self, socket: Socket, count: int) -> None:
        """The driver writes some of what waits."""
        taken, socket.waiting = socket.waiting[:count], socket.waiting[count:]
        self.core.flushed(socket.connection, sum(map(len, taken)))

    @rule(elapsed_s=st.integers(0, 32).map(lambda quarters: quarters / 4))
    def wait(self, elapsed_s: float) -> None:
        """Time passes, in quarters of a second so that sums are exact."""
        self.now += elapsed_s
        for user, tokens in self.tokens.items():
            self.tokens[user] = min(LIMITS.burst, tokens + elapsed_s * LIMITS.messages_per_s)

    @rule(user=users)
    def log_out(self, user: str) -> None:
        """A user logs out everywhere."""
        outputs = self.core.drop_user(user)
        assert {o.connection for o in outputs} == {s.connection for s in self.devices_of(user)}
        assert all(isinstance(o, Close) and o.code == CloseCode.UNAUTHORIZED for o in outputs)
        for socket in self.devices_of(user):
            self.leave(socket)

    @rule(socket=sockets)
    def send_binary(self, socket: Socket) -> None:
        """A binary frame ends its socket."""
        outputs = self.core.receive_binary(socket.connection)
        assert [type(o) for o in outputs] == [Close] * socket.here
        self.leave(socket)

    @rule(socket=sockets, frame=st.sampled_from([b"", b"[]", b'{"type":"typing","recipientId":"bob","x":1}']))
    def send_nonsense(self, socket: Socket, frame: bytes) -> None:
        """What is no message is refused, and costs allowance all the same."""
        outputs = self.core.receive(socket.connection, frame, self.now)
        if not socket.here:
            assert outputs == ()
            return
        code = {b"": "bad-json"}.get(frame, "bad-message")
        self.expect(outputs, [], socket, code if self.spend(socket.user) else "rate-limited")

    @rule(
        socket=sockets,
        to=st.sampled_from([*REGISTERED, "nobody"]),
        device=st.sampled_from([None, None, "phone", "laptop", "watch"]),
        kind=st.sampled_from(["message", "call-accept", "call-reject"]),
        size=st.integers(0, 1400),
    )
    def send(self, socket: Socket, to: str, device: str | None, kind: str, size: int) -> None:
        """A message goes to whom the model says, or is answered with the error that it says."""
        self.sent += 1
        message: dict[str, Any] = {"type": kind, "recipientId": to, "id": f"{self.sent}"}
        if device is not None:
            message["recipientDevice"] = device
        if kind == "message":
            message["encryptedContent"] = "x" * size
        else:
            message["callId"] = "c"
        outputs = self.core.receive(socket.connection, json.dumps(message).encode(), self.now)
        if not socket.here:
            assert outputs == ()
            return
        if not self.spend(socket.user):
            self.expect(outputs, [], socket, "rate-limited")
            return
        signed = {**message, "senderId": socket.user, "senderDevice": socket.device}
        targets = [
            s for s in self.devices_of(to) if (s.device == device if device is not None else s is not socket)
        ]
        expected = [(s, signed) for s in targets if self.has_room(s, signed)]
        error = None
        if not expected:
            error = "recipient-slow" if targets else "recipient-offline"
            if to == "nobody":
                error = "recipient-unknown"
        if kind != "message":
            for other in self.devices_of(socket.user):
                hangup = {
                    "type": "call-hangup",
                    "recipientId": socket.user,
                    "recipientDevice": other.device,
                    "callId": "c",
                    "reason": {"call-accept": "answered-elsewhere"}.get(kind, "declined-elsewhere"),
                    "senderId": socket.user,
                    "senderDevice": socket.device,
                }
                if other is not socket and other not in targets and self.has_room(other, hangup):
                    expected.append((other, hangup))
        self.expect(outputs, expected, socket, error)

    def expect(
        self,
        outputs: tuple[Output, ...],
        deliveries: list[tuple[Socket, dict[str, Any]]],
        sender: Socket,
        error: str | None,
    ) -> None:
        """Compare outputs with what the model says, and put the frames where they wait."""
        got: list[tuple[Connection, Any]] = []
        for output in outputs:
            assert isinstance(output, Deliver)
            content = json.loads(output.frame)
            if content["type"] == "error":
                assert output.connection is sender.connection
                assert content["code"] == error
                error = None
            else:
                got.append((output.connection, content))
            next(s for s in self.here if s.connection is output.connection).waiting.append(output.frame)
        assert got == [(s.connection, message) for s, message in deliveries]
        # An answer is left out only when its sender's own queue has no room for one.
        assert error is None or self.waiting_bytes(sender) > LIMITS.queued_bytes - 300

    def devices_of(self, user: str) -> list[Socket]:
        """Return the sockets of a user, the oldest first."""
        return [s for s in self.here if s.user == user]

    def spend(self, user: str) -> bool:
        """Take one message from the user's allowance, if there is one."""
        if self.tokens[user] < 1:
            return False
        self.tokens[user] -= 1
        return True

    def leave(self, socket: Socket) -> None:
        """Take a socket out of the model."""
        socket.here = False
        self.here = [s for s in self.here if s is not socket]

    def has_room(self, socket: Socket, message: dict[str, Any]) -> bool:
        """Say whether a message still fits into what may wait for a socket."""
        size = len(json.dumps(message, separators=(",", ":")))
        return self.waiting_bytes(socket) + size <= LIMITS.queued_bytes

    @staticmethod
    def waiting_bytes(socket: Socket) -> int:
        """Count what waits for a socket."""
        return sum(map(len, socket.waiting))

    @invariant()
    def the_core_agrees_on_who_is_here_and_what_waits(self) -> None:
        """The core knows the same sockets and counts the same bytes."""
        for user in REGISTERED:
            assert sorted(self.core.devices_of(user)) == sorted(s.device for s in self.devices_of(user))
        assert self.core.connections == len(self.here)
        for socket in self.here:
            assert socket.connection.is_open
            assert socket.connection.queued_bytes == self.waiting_bytes(socket) <= LIMITS.queued_bytes


TestRelayMachine = RelayMachine.TestCase
TestRelayMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
