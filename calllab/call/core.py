"""The calls of one device as a state machine without IO.

Theory.  A call is made of signaling messages that carry its ``callId`` and of one peer connection.  Signaling
decides who rings, who accepts and when it is over; the peer connection decides when it is *connected*.

========== ======================================== =====================================================
state       entered by                               left by
========== ======================================== =====================================================
ringing     dialling; an unknown call-offer          accept, reject, hang-up, cancel, ring timeout, glare
connecting  accepting; the other side's call-accept  the peer connection's first *connected*; deadline
connected   connectionState connected                hang-up; connectionState disconnected or failed
reconnecting connectionState disconnected or failed  connectionState connected; hang-up; deadline
ended       any of the above                         never: an ended call's messages are ignored
========== ======================================== =====================================================

Rules that the table does not show:

* The callee is polite for the whole call.  What arrives for a ringing call is kept, in order, until it is
  accepted.
* A device has one call at a time; a second caller gets call-reject with the reason ``busy``.
* *Call glare*: two users who dial each other have two calls.  The one with the lexicographically lesser
  callId survives, the other's dialler becomes its callee, and neither side rings.
* A caller rings all devices of a user.  The first accept wins; accepts from further devices are hung up.
  From then on only the accepted device is heard and addressed.  The relay tells the callee's other devices,
  in the name of the callee itself, that the call was answered or declined elsewhere.

Every method takes ``now`` in seconds where time matters and returns what the driver has to do, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from calllab.errors import InvalidCallState, WireError
from calllab.protocol.wire import MAX_REASON_CHARS

__all__ = [
    "CallCore",
    "CallState",
    "Effect",
    "EndReason",
    "Feed",
    "Rename",
    "Ring",
    "Send",
    "StartNegotiation",
    "StateChanged",
]

CallState: TypeAlias = Literal["idle", "ringing", "connecting", "connected", "reconnecting", "ended"]
EndReason: TypeAlias = Literal[
    "hung-up",
    "remote-hung-up",
    "cancelled",
    "rejected",
    "busy",
    "missed",
    "answered-elsewhere",
    "declined-elsewhere",
    "unreachable",
    "failed",
]

RING_TIMEOUT_S = 30.0
# A caller that vanishes sends no hang-up: the callee stops ringing by itself, well after the caller would
# have.
ABANDONED_RING_S = 45.0
CONNECT_TIMEOUT_S = 30.0
RECONNECT_TIMEOUT_S = 60.0

# What a stranger can make us keep: offers and candidates of a call that nobody has accepted.
MAX_HELD_MESSAGES = 256
REMEMBERED_ENDED_CALLS = 1024

_NEGOTIATION = frozenset({"call-offer", "call-answer", "call-ice-candidate"})


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message of the wire protocol."""

    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ring:
    """Somebody calls: tell the user."""

    call_id: str
    remote_user_id: str


@dataclass(frozen=True, slots=True)
class StartNegotiation:
    """Make the peer connection of this call."""

    call_id: str
    remote_user_id: str
    polite: bool


@dataclass(frozen=True, slots=True)
class Feed:
    """Give this offer, answer or candidate to the peer connection, after all that were fed before."""

    call_id: str
    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rename:
    """Call glare was lost: the user's call goes on under another id, with a new peer connection."""

    call_id: str
    new_call_id: str


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The call is in another state; ``reason`` and ``detail`` are given when it has ended."""

    call_id: str
    state: CallState
    reason: EndReason | None = None
    detail: str | None = None


Effect: TypeAlias = Send | Ring | StartNegotiation | Feed | Rename | StateChanged


@dataclass(slots=True)
class _Leg:
    """One call as this device sees it."""

    call_id: str
    remote_user_id: str
    outgoing: bool
    deadline: float
    state: CallState = "ringing"
    remote_device: str | None = None
    held: deque[Mapping[str, Any]] = field(default_factory=deque)


class CallCore:
    """The calls of one device of ``user_id``: at most one that has not ended."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self._leg: _Leg | None = None
        self._ended: deque[str] = deque(maxlen=REMEMBERED_ENDED_CALLS)

    # What the user does

    def dial(self, remote_user_id: str, call_id: str, now: float) -> list[Effect]:
        """Call somebody.  If that very user is calling us already, this accepts.

        Raises :exc:`~calllab.errors.InvalidCallState` while another call has not ended.
        """
        if remote_user_id == self.user_id:
            raise InvalidCallState(f"{self.user_id} cannot call itself: dial another user")
        leg = self._leg
        if leg is not None:
            if not leg.outgoing and leg.state == "ringing" and leg.remote_user_id == remote_user_id:
                return self.accept(leg.call_id, now)
            raise InvalidCallState(
                f"{self.user_id} is in a call with {leg.remote_user_id} ({leg.state}): hang up first"
            )
        self._leg = _Leg(call_id, remote_user_id, outgoing=True, deadline=now + RING_TIMEOUT_S)
        return [
            StateChanged(call_id, "ringing"),
            StartNegotiation(call_id, remote_user_id, polite=False),
        ]

    def accept(self, call_id: str, now: float) -> list[Effect]:
        """Take an incoming call that rings."""
        leg = self._require(call_id)
        if leg.outgoing or leg.state != "ringing":
            raise InvalidCallState(f"call {call_id} cannot be accepted: it is {_what(leg)}")
        return self._take(leg, now)

    def reject(self, call_id: str, reason: str | None = None) -> list[Effect]:
        """Decline an incoming call that rings."""
        leg = self._require(call_id)
        if leg.outgoing or leg.state != "ringing":
            raise InvalidCallState(f"call {call_id} cannot be rejected: it is {_what(leg)}")
        if reason is not None and len(reason) > MAX_REASON_CHARS:
            raise WireError(
                "bad-message", f"the reason has {len(reason)} characters: shorten it to {MAX_REASON_CHARS}"
            )
        return [self._message(leg, "call-reject", reason), self._end(leg, "rejected")]

    def hang_up(self, call_id: str) -> list[Effect]:
        """End a call in whatever state it is; an ended one stays as it is."""
        leg = self._leg
        if leg is None or leg.call_id != call_id:
            return []
        if leg.state == "ringing":
            if not leg.outgoing:
                return self.reject(call_id)
            return [self._message(leg, "call-hangup", None), self._end(leg, "cancelled")]
        return [self._message(leg, "call-hangup", None), self._end(leg, "hung-up")]

    def fail(self, call_id: str, detail: str) -> list[Effect]:
        """End a call because this side cannot go on with it."""
        leg = self._leg
        if leg is None or leg.call_id != call_id:
            return []
        return [self._message(leg, "call-hangup", "failed"), self._end(leg, "failed", detail)]

    # What happens to it

    def connection_state(self, call_id: str, state: str, now: float) -> list[Effect]:
        """Take the new ``connectionState`` of the call's peer connection."""
        leg = self._leg
        if leg is None or leg.call_id != call_id:
            return []
        if state == "connected" and leg.state in ("connecting", "reconnecting"):
            return [self._enter(leg, "connected", float("inf"))]
        if state in ("disconnected", "failed") and leg.state == "connected":
            return [self._enter(leg, "reconnecting", now + RECONNECT_TIMEOUT_S)]
        return []

    def undeliverable(self, call_id: str, code: str, detail: str) -> list[Effect]:
        """Take a relay error for a message of this call."""
        leg = self._leg
        if leg is None or leg.call_id != call_id:
            return []
        # A call that is up does not need signaling; it may come back before anyone notices.
        if leg.state in ("ringing", "connecting") and code in ("recipient-unknown", "recipient-offline"):
            return [self._end(leg, "unreachable", detail)]
        return []

    def message(self, message: Mapping[str, Any], now: float) -> list[Effect]:
        """Take a message from the wire; those that are not about calls are none of our business."""
        kind, call_id = message.get("type"), message.get("callId")
        if not isinstance(kind, str) or not kind.startswith("call-") or not isinstance(call_id, str):
            return []
        leg = self._leg
        if leg is not None and leg.call_id == call_id:
            if message.get("senderId") == leg.remote_user_id:
                return self._in_call(leg, kind, message, now)
            if message.get("senderId") == self.user_id and kind == "call-hangup" and leg.state == "ringing":
                return [self._end(leg, *_hangup_reason(leg, message.get("reason")))]
            return []
        if kind == "call-offer" and call_id not in self._ended:
            return self._new_offer(message, call_id, now)
        return []

    def timeout(self) -> float:
        """Return when :meth:`tick` has something to do; infinity if never."""
        return self._leg.deadline if self._leg is not None else float("inf")

    def tick(self, now: float) -> list[Effect]:
        """End what has lasted too long."""
        leg = self._leg
        if leg is None or now < leg.deadline:
            return []
        if leg.state == "ringing" and not leg.outgoing:
            return [self._end(leg, "missed", "the caller was not heard of again")]
        if leg.state == "ringing":
            return [
                self._message(leg, "call-hangup", "timeout"),
                self._end(leg, "missed", f"{leg.remote_user_id} did not answer in {RING_TIMEOUT_S:g} s"),
            ]
        limit = CONNECT_TIMEOUT_S if leg.state == "connecting" else RECONNECT_TIMEOUT_S
        return self.fail(leg.call_id, f"no connection after {limit:g} s of {leg.state}")

    def address(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an outgoing message of the call, addressed to the accepted device once that is known."""
        leg = self._leg
        if leg is None or leg.remote_device is None or message.get("callId") != leg.call_id:
            return message
        return {**message, "recipientDevice": leg.remote_device}

    # Inside

    def _in_call(self, leg: _Leg, kind: str, message: Mapping[str, Any], now: float) -> list[Effect]:
        device = message.get("senderDevice")
        if leg.remote_device is not None and device != leg.remote_device:
            # A second device of the callee accepted as well: it is told that it was too late.
            if kind == "call-accept":
                return [
                    Send(
                        {
                            "type": "call-hangup",
                            "recipientId": leg.remote_user_id,
                            "recipientDevice": device,
                            "callId": leg.call_id,
                            "reason": "answered-elsewhere",
                        }
                    )
                ]
            return []
        if kind == "call-hangup":
            return [self._end(leg, *_hangup_reason(leg, message.get("reason")))]
        if kind == "call-reject":
            if not leg.outgoing or leg.state != "ringing":
                return []
            reason = message.get("reason")
            return [self._end(leg, "busy" if reason == "busy" else "rejected", reason)]
        if kind == "call-accept":
            return self._accepted(leg, device, now)
        if leg.state != "ringing":
            return [Feed(leg.call_id, message)]
        if leg.outgoing and kind == "call-answer":
            # The accept was lost or overtaken, but an answer can only come from a device that accepted.
            return [*self._accepted(leg, device, now), Feed(leg.call_id, message)]
        if len(leg.held) < MAX_HELD_MESSAGES:
            leg.held.append(message)
        return []

    def _accepted(self, leg: _Leg, device: str | None, now: float) -> list[Effect]:
        if not leg.outgoing or leg.state != "ringing":
            return []
        leg.remote_device = device
        effects: list[Effect] = [self._enter(leg, "connecting", now + CONNECT_TIMEOUT_S)]
        effects += [Feed(leg.call_id, held) for held in leg.held if held.get("senderDevice") == device]
        leg.held.clear()
        return effects

    def _new_offer(self, message: Mapping[str, Any], call_id: str, now: float) -> list[Effect]:
        sender, device = str(message.get("senderId")), message.get("senderDevice")
        leg = self._leg
        if leg is None:
            leg = self._leg = self._incoming(message, call_id, sender, device, now)
            return [StateChanged(call_id, "ringing"), Ring(call_id, sender)]
        if leg.outgoing and leg.state == "ringing" and leg.remote_user_id == sender:
            return self._glare(leg, message, call_id, sender, device, now)
        self._ended.append(call_id)
        rejected = _Leg(call_id, sender, outgoing=False, deadline=now, remote_device=device)
        return [self._message(rejected, "call-reject", "busy")]

    def _glare(
        self,
        own: _Leg,
        message: Mapping[str, Any],
        call_id: str,
        sender: str,
        device: str | None,
        now: float,
    ) -> list[Effect]:
        if own.call_id < call_id:
            self._ended.append(call_id)
            return []
        # Ours is dropped.  The dialler on the other side knows that; devices that merely ring do not.
        self._ended.append(own.call_id)
        withdrawn = self._message(own, "call-hangup", "replaced")
        leg = self._leg = self._incoming(message, call_id, sender, device, now)
        return [withdrawn, Rename(own.call_id, call_id), *self._take(leg, now)]

    def _incoming(
        self, message: Mapping[str, Any], call_id: str, sender: str, device: str | None, now: float
    ) -> _Leg:
        leg = _Leg(call_id, sender, outgoing=False, deadline=now + ABANDONED_RING_S, remote_device=device)
        leg.held.append(message)
        return leg

    def _take(self, leg: _Leg, now: float) -> list[Effect]:
        effects: list[Effect] = [
            self._message(leg, "call-accept", None),
            self._enter(leg, "connecting", now + CONNECT_TIMEOUT_S),
            StartNegotiation(leg.call_id, leg.remote_user_id, polite=True),
        ]
        effects += [Feed(leg.call_id, held) for held in leg.held]
        leg.held.clear()
        return effects

    def _require(self, call_id: str) -> _Leg:
        if self._leg is None or self._leg.call_id != call_id:
            known = "has ended" if call_id in self._ended else "is not known"
            raise InvalidCallState(f"call {call_id} {known}")
        return self._leg

    def _enter(self, leg: _Leg, state: CallState, deadline: float) -> StateChanged:
        leg.state, leg.deadline = state, deadline
        return StateChanged(leg.call_id, state)

    def _end(self, leg: _Leg, reason: EndReason, detail: str | None = None) -> StateChanged:
        leg.state = "ended"
        self._leg = None
        self._ended.append(leg.call_id)
        return StateChanged(leg.call_id, "ended", reason, detail)

    def _message(self, leg: _Leg, kind: str, reason: str | None) -> Send:
        message = {"type": kind, "recipientId": leg.remote_user_id, "callId": leg.call_id}
        if leg.remote_device is not None:
            message["recipientDevice"] = leg.remote_device
        if reason is not None:
            message["reason"] = reason
        return Send(message)


def _what(leg: _Leg) -> str:
    return f"{'outgoing' if leg.outgoing else 'incoming'} and {leg.state}"


def _hangup_reason(leg: _Leg, reason: str | None) -> tuple[EndReason, str | None]:
    ringing_in = leg.state == "ringing" and not leg.outgoing
    match reason:
        case "answered-elsewhere" if ringing_in:
            return "answered-elsewhere", None
        case "declined-elsewhere" if ringing_in:
            return "declined-elsewhere", None
        case "timeout" if ringing_in:
            return "missed", None
        case "failed":
            return "failed", "the other side could not go on with the call"
        case _ if ringing_in:
            return "cancelled", reason
    return "remote-hung-up", reason
