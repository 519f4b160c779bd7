"""The rules of a call: ringing, accepting, refusing, missing, and two users who call each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from calllab.call.core import (
    ABANDONED_RING_S,
    CONNECT_TIMEOUT_S,
    MAX_HELD_MESSAGES,
    RECONNECT_TIMEOUT_S,
    RING_TIMEOUT_S,
    CallCore,
    Effect,
    Feed,
    Rename,
    Ring,
    Send,
    StartNegotiation,
    StateChanged,
)
from calllab.errors import InvalidCallState


def sent(effects: list[Effect]) -> list[Mapping[str, Any]]:
    """Return the messages among the effects."""
    return [effect.message for effect in effects if isinstance(effect, Send)]


def states(effects: list[Effect]) -> list[tuple[str, str | None]]:
    """Return the state changes among the effects, with their reasons."""
    return [(e.state, e.reason) for e in effects if isinstance(e, StateChanged)]


def wire(kind: str, sender: str, call_id: str = "c1", device: str = "d1", **members: Any) -> dict[str, Any]:
    """Return a forwarded message as the relay delivers it."""
    return {"type": kind, "senderId": sender, "senderDevice": device, "callId": call_id, **members}


def offer(sender: str, call_id: str = "c1", device: str = "d1") -> dict[str, Any]:
    """Return a forwarded call-offer."""
    return wire("call-offer", sender, call_id, device, sdp="v=0")


def ringing_in() -> CallCore:
    """Return Bob's core while Alice's call rings."""
    core = CallCore("bob")
    core.message(offer("alice"), 0.0)
    return core


def connected() -> CallCore:
    """Return Alice's core in a connected call with Bob."""
    core = CallCore("alice")
    core.dial("bob", "c1", 0.0)
    core.message(wire("call-accept", "bob"), 1.0)
    core.connection_state("c1", "connected", 2.0)
    return core


def test_an_offer_rings_and_waits_for_accept() -> None:
    """The callee's offer and candidates are held until accept, then fed in order to a polite connection."""
    core = CallCore("bob")
    assert core.message(offer("alice"), 0.0) == [StateChanged("c1", "ringing"), Ring("c1", "alice")]
    candidate = wire("call-ice-candidate", "alice", candidate=None)
    assert core.message(candidate, 0.1) == []
    effects = core.accept("c1", 1.0)
    assert sent(effects) == [
        {"type": "call-accept", "recipientId": "alice", "callId": "c1", "recipientDevice": "d1"}
    ]
    assert effects[1:] == [
        StateChanged("c1", "connecting"),
        StartNegotiation("c1", "alice", polite=True),
        Feed("c1", offer("alice")),
        Feed("c1", candidate),
    ]


def test_the_caller_is_impolite_and_starts_at_once() -> None:
    """Dialling makes the connection, whose offer is what rings."""
    effects = CallCore("alice").dial("bob", "c1", 0.0)
    assert effects == [StateChanged("c1", "ringing"), StartNegotiation("c1", "bob", polite=False)]


def test_the_first_accept_wins() -> None:
    """A second device's accept is hung up, and only the first device is heard and addressed."""
    core = CallCore("alice")
    core.dial("bob", "c1", 0.0)
    assert states(core.message(wire("call-accept", "bob", device="phone"), 1.0)) == [("connecting", None)]
    late = core.message(wire("call-accept", "bob", device="laptop"), 1.1)
    assert [(m["type"], m["recipientDevice"]) for m in sent(late)] == [("call-hangup", "laptop")]
    assert core.message(wire("call-answer", "bob", device="laptop", sdp="v=0"), 1.2) == []
    answer = wire("call-answer", "bob", device="phone", sdp="v=0")
    assert core.message(answer, 1.3) == [Feed("c1", answer)]
    assert core.address({"type": "call-offer", "callId": "c1"})["recipientDevice"] == "phone"


def test_an_answer_that_overtook_its_accept_counts_as_accept() -> None:
    """A reordered or lost accept does not lose the call."""
    core = CallCore("alice")
    core.dial("bob", "c1", 0.0)
    answer = wire("call-answer", "bob", sdp="v=0")
    assert core.message(answer, 1.0) == [StateChanged("c1", "connecting"), Feed("c1", answer)]
    assert core.message(wire("call-accept", "bob"), 1.1) == []


def test_reject_ends_both_sides() -> None:
    """The callee's reject is sent with its reason and ends the caller's call as rejected."""
    effects = ringing_in().reject("c1", "in a meeting")
    assert [(m["type"], m["reason"]) for m in sent(effects)] == [("call-reject", "in a meeting")]
    caller = CallCore("alice")
    caller.dial("bob", "c1", 0.0)
    assert states(caller.message(wire("call-reject", "bob", reason="in a meeting"), 1.0)) == [
        ("ended", "rejected")
    ]


def test_a_second_caller_gets_busy() -> None:
    """While a call lasts, another one is refused as busy without ringing, and the first goes on."""
    core = connected()
    effects = core.message(offer("carol", "c2"), 3.0)
    assert [(m["type"], m["recipientId"], m["reason"]) for m in sent(effects)] == [
        ("call-reject", "carol", "busy")
    ]
    assert core.message(wire("call-ice-candidate", "carol", "c2", candidate=None), 3.1) == []
    caller = CallCore("carol")
    caller.dial("alice", "c2", 0.0)
    assert states(caller.message(wire("call-reject", "alice", "c2", reason="busy"), 1.0)) == [
        ("ended", "busy")
    ]


def test_nobody_answers() -> None:
    """The caller gives up after the ring timeout and says so; both sides call it missed."""
    caller = CallCore("alice")
    caller.dial("bob", "c1", 5.0)
    assert caller.timeout() == 5.0 + RING_TIMEOUT_S
    assert caller.tick(caller.timeout() - 0.001) == []
    effects = caller.tick(caller.timeout())
    assert [(m["type"], m["reason"]) for m in sent(effects)] == [("call-hangup", "timeout")]
    assert states(effects) == [("ended", "missed")]
    assert states(ringing_in().message(wire("call-hangup", "alice", reason="timeout"), 30.0)) == [
        ("ended", "missed")
    ]


def test_a_vanished_caller_stops_ringing() -> None:
    """The callee does not ring for ever when no hang-up ever comes."""
    core = ringing_in()
    assert core.timeout() == ABANDONED_RING_S
    assert states(core.tick(ABANDONED_RING_S)) == [("ended", "missed")]


@pytest.mark.parametrize(
    ("sender", "reason", "end"),
    [
        ("bob", "answered-elsewhere", "answered-elsewhere"),
        ("bob", "declined-elsewhere", "declined-elsewhere"),
        ("alice", None, "cancelled"),
        ("alice", "replaced", "cancelled"),
    ],
)
def test_a_ringing_call_is_taken_away(sender: str, reason: str | None, end: str) -> None:
    """A hang-up while it rings says why the ringing stopped; the relay speaks in the callee's own name."""
    members = {} if reason is None else {"reason": reason}
    assert states(ringing_in().message(wire("call-hangup", sender, **members), 1.0)) == [("ended", end)]


def test_reconnecting_and_back() -> None:
    """A broken path is reconnecting, not ended, until it is back or the deadline passes."""
    core = connected()
    assert states(core.connection_state("c1", "disconnected", 3.0)) == [("reconnecting", None)]
    assert core.connection_state("c1", "failed", 4.0) == []
    assert states(core.connection_state("c1", "connected", 5.0)) == [("connected", None)]
    core.connection_state("c1", "failed", 6.0)
    assert states(core.tick(6.0 + RECONNECT_TIMEOUT_S)) == [("ended", "failed")]


def test_connecting_has_a_deadline() -> None:
    """A call that never connects fails and tells the other side."""
    core = CallCore("alice")
    core.dial("bob", "c1", 0.0)
    core.message(wire("call-accept", "bob"), 1.0)
    effects = core.tick(1.0 + CONNECT_TIMEOUT_S)
    assert [(m["type"], m["reason"]) for m in sent(effects)] == [("call-hangup", "failed")]
    assert states(effects) == [("ended", "failed")]


@pytest.mark.parametrize(
    ("make", "kind", "end"),
    [(connected, "call-hangup", "hung-up"), (ringing_in, "call-reject", "rejected")],
)
def test_hang_up_fits_the_state(make: Any, kind: str, end: str) -> None:
    """hang_up ends a call in any state, and a second hang_up does nothing."""
    core = make()
    effects = core.hang_up("c1")
    assert [m["type"] for m in sent(effects)] == [kind]
    assert states(effects) == [("ended", end)]
    assert core.hang_up("c1") == []


def test_the_relay_says_that_nobody_is_there() -> None:
    """An unreachable callee ends the call at once; once connected, signaling trouble does not."""
    caller = CallCore("alice")
    caller.dial("bob", "c1", 0.0)
    assert states(caller.undeliverable("c1", "recipient-offline", "bob is offline")) == [
        ("ended", "unreachable")
    ]
    assert connected().undeliverable("c1", "recipient-offline", "bob is offline") == []


def test_messages_of_ended_and_unknown_calls_are_ignored() -> None:
    """Late candidates, duplicated offers and answers to nothing change nothing."""
    core = ringing_in()
    core.reject("c1")
    assert core.message(offer("alice"), 2.0) == []
    assert core.message(wire("call-answer", "alice", "c9", sdp="v=0"), 2.0) == []
    assert core.message({"type": "typing", "senderId": "alice"}, 2.0) == []


def test_a_third_user_cannot_speak_in_a_call() -> None:
    """A message with the call's id from somebody else is ignored."""
    assert connected().message(wire("call-hangup", "mallory"), 3.0) == []


def test_a_stranger_cannot_fill_the_memory() -> None:
    """What is held for a ringing call is bounded."""
    core = ringing_in()
    for _ in range(2 * MAX_HELD_MESSAGES):
        core.message(wire("call-ice-candidate", "alice", candidate=None), 0.1)
    fed = [effect for effect in core.accept("c1", 1.0) if isinstance(effect, Feed)]
    assert len(fed) == MAX_HELD_MESSAGES


@pytest.mark.parametrize("action", ["accept", "reject"])
def test_what_cannot_be_done_is_refused_with_the_reason(action: str) -> None:
    """Accepting or rejecting a call that does not ring here says what it is."""
    with pytest.raises(InvalidCallState, match=r"outgoing and connected"):
        getattr(connected(), action)("c1", *([3.0] if action == "accept" else []))
    with pytest.raises(InvalidCallState, match="not known"):
        getattr(CallCore("bob"), action)("c1", *([0.0] if action == "accept" else []))


def test_dialling_is_refused_while_in_a_call_and_to_oneself() -> None:
    """One call at a time, and never with oneself."""
    with pytest.raises(InvalidCallState, match="hang up first"):
        connected().dial("carol", "c2", 3.0)
    with pytest.raises(InvalidCallState, match="itself"):
        CallCore("alice").dial("alice", "c1", 0.0)


def test_dialling_who_is_calling_accepts() -> None:
    """Calling back somebody whose call rings is taking that call."""
    effects = ringing_in().dial("alice", "c2", 1.0)
    assert StartNegotiation("c1", "alice", polite=True) in effects


def test_call_glare_is_won_by_the_lesser_id() -> None:
    """The winner goes on as if nothing had come; the loser becomes the callee without ringing."""
    alice, bob = CallCore("alice"), CallCore("bob")
    alice.dial("bob", "c1", 0.0)
    bob.dial("alice", "c2", 0.0)
    assert alice.message(offer("bob", "c2"), 0.1) == []
    effects = bob.message(offer("alice", "c1"), 0.1)
    assert Rename("c2", "c1") in effects
    assert StartNegotiation("c1", "alice", polite=True) in effects
    assert not any(isinstance(effect, Ring) for effect in effects)
    withdrawn, accept = sent(effects)
    assert (withdrawn["type"], withdrawn["callId"]) == ("call-hangup", "c2")
    assert "recipientDevice" not in withdrawn
    assert alice.message({**withdrawn, "senderId": "bob", "senderDevice": "d2"}, 0.2) == []
    assert states(alice.message({**accept, "senderId": "bob", "senderDevice": "d2"}, 0.2)) == [
        ("connecting", None)
    ]


class TwoUsers(RuleBasedStateMachine):
    """Two users who do anything at any time, over channels that keep the order."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.dialled = 0
        self.users = {name: CallCore(name) for name in ("alice", "bob")}
        self.channels: dict[str, deque[Mapping[str, Any]]] = {name: deque() for name in self.users}
        self.calls: dict[str, str | None] = dict.fromkeys(self.users)
        self.state: dict[str, str] = dict.fromkeys(self.users, "idle")
        self.rings: dict[str, int] = dict.fromkeys(self.users, 0)

    def do(self, name: str, effects: list[Effect]) -> None:
        other = "bob" if name == "alice" else "alice"
        for effect in effects:
            match effect:
                case Send(message):
                    self.channels[other].append(
                        {**self.users[name].address(message), "senderId": name, "senderDevice": f"{name}-1"}
                    )
                case StartNegotiation(call_id, _, polite) if not polite:
                    self.channels[other].append(offer(name, call_id, f"{name}-1"))
                case Rename(_, new):
                    self.calls[name] = new
                case StateChanged(call_id, state):
                    self.calls[name], self.state[name] = call_id, state

    @rule(name=st.sampled_from(["alice", "bob"]), low=st.booleans())
    def dial(self, name: str, low: bool) -> None:
        other = "bob" if name == "alice" else "alice"
        self.dialled += 1
        call_id = f"{'a' if low else 'b'}{self.dialled:04}"
        try:
            self.do(name, self.users[name].dial(other, call_id, self.now))
        except InvalidCallState:
            assert self.state[name] not in ("idle", "ended")

    @rule(name=st.sampled_from(["alice", "bob"]))
    def accept(self, name: str) -> None:
        call_id = self.calls[name]
        if call_id is None:
            return
        try:
            self.do(name, self.users[name].accept(call_id, self.now))
        except InvalidCallState:
            pass

    @rule(name=st.sampled_from(["alice", "bob"]))
    def hang_up(self, name: str) -> None:
        if (call_id := self.calls[name]) is not None:
            self.do(name, self.users[name].hang_up(call_id))

    @precondition(lambda self: any(self.channels.values()))
    @rule(name=st.sampled_from(["alice", "bob"]))
    def deliver(self, name: str) -> None:
        if self.channels[name]:
            self.do(name, self.users[name].message(self.channels[name].popleft(), self.now))

    @rule(seconds=st.sampled_from([0.1, 5.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for name, user in self.users.items():
            self.do(name, user.tick(self.now))

    @invariant()
    def two_live_calls_are_one_once_all_is_delivered(self) -> None:
        if any(self.channels.values()):
            return
        live = {name: self.calls[name] for name in self.users if self.state[name] not in ("idle", "ended")}
        if len(live) == 2 and "ringing" not in self.state.values():
            assert len(set(live.values())) == 1, live
        for name in self.users:
            if self.state[name] in ("connecting", "connected"):
                assert len(live) == 2, (name, self.state)


TestTwoUsers = TwoUsers.TestCase
TestTwoUsers.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
