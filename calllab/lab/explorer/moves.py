"""What one peer can do, as a graph: its states are numbered, and each move is computed once.

The two peers of a call touch each other only through their channels, so what one of them does depends on its
own state and on the message that it gets.  There are far fewer states of a peer than of both: all costly
work is done here, and the exploration of the whole only puts numbers together.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from calllab.errors import LabError
from calllab.lab.explorer.memo import MemoCore
from calllab.lab.explorer.message import Message, canonical_message
from calllab.lab.explorer.mutant import CoreWithoutRollback, Mutant, make_negotiator
from calllab.lab.explorer.peer import PeerState, ScriptedPeer, operation_name
from calllab.negotiation.negotiator import SetRemoteDescription
from calllab.rtc.errors import RtcError
from calllab.rtc.jsep import JsepCore
from calllab.rtc.jsep_state import JsepState

__all__ = ["LOCAL_ACTIONS", "LocalAction", "Messages", "Move", "PeerGraph", "PeerName", "PeerView", "Wishes"]

PeerName: TypeAlias = Literal["alice", "bob"]
LocalAction: TypeAlias = Literal["add", "restart", "fire", "effect", "resolve", "trickle"]
LOCAL_ACTIONS: Final[tuple[LocalAction, ...]] = ("add", "restart", "fire", "effect", "resolve", "trickle")


class Wishes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the application of one peer will want, whenever it wants it."""

    adds: int = 0
    """How often it adds a transceiver: audio, video, audio and so on."""
    restarts: int = 0
    """How often it restarts ICE."""

    def __post_init__(self) -> None:
        for name in ("adds", "restarts"):
            if not 0 <= (value := getattr(self, name)) <= 9:
                raise LabError(f"{name}={value}: a number from 0 to 9 can be explored")

    @classmethod
    def parse(cls, text: str) -> Wishes:
        """Return wishes written as in ``adds=2,restarts=1``; raises LabError if they are not."""
        wishes: dict[str, int] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            if name not in cls.__struct_fields__ or not value.isascii() or not value.isdigit():
                raise LabError(f"{part!r} is no wish: write adds=2, restarts=1, or both with a comma between")
            wishes[name] = int(value)
        return cls(**wishes)


class Messages:
    """Messages by number; equal ones have the same number."""

    def __init__(self) -> None:
        self._numbers: dict[Message, int] = {}
        self._known: list[Message] = []

    def number(self, message: Message) -> int:
        """Return the number of a message."""
        number = self._numbers.setdefault(canonical_message(message), len(self._known))
        if number == len(self._known):
            self._known.append(message)
        return number

    def __getitem__(self, number: int) -> Message:
        return self._known[number]


class Move(NamedTuple):
    """Something that a peer can do, where it leads and what it sends."""

    action: LocalAction
    to: int
    sent: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Whole:
    """The state of a peer: its core by number, its negotiator, and the rest."""

    core: int
    negotiator: Hashable
    rest: PeerState
    adds: int
    restarts: int
    replaced: frozenset[str]
    """ICE generations that a restart wants gone."""


@dataclass(frozen=True, slots=True)
class PeerView:
    """What is to be known of a peer when nothing more can happen."""

    jsep: JsepState
    rest: PeerState
    replaced: frozenset[str]
    needs_negotiation: bool


class PeerGraph:
    """All states of one peer that were met so far."""

    def __init__(
        self,
        name: str,
        wishes: Wishes,
        mutant: Mutant,
        messages: Messages,
        names: dict[object, int],
        candidates: int,
    ) -> None:
        self.name = name
        self._messages = messages
        kind = CoreWithoutRollback if mutant.without_rollback else JsepCore
        self._core = MemoCore(name, names, kind)
        self._peer = ScriptedPeer(self._core, make_negotiator(mutant, name), candidates=candidates)
        self._states: list[_Whole] = []
        self._numbers: dict[_Whole, int] = {}
        self._moves: dict[int, tuple[Move, ...]] = {}
        self._received: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {}
        self.start, _ = self._number(wishes.adds, wishes.restarts, frozenset())

    @property
    def size(self) -> int:
        """How many states of this peer are known."""
        return len(self._states)

    @property
    def computed(self) -> int:
        """How many operations of the JSEP core were really carried out."""
        return self._core.computed

    def moves(self, state: int) -> tuple[Move, ...]:
        """Return all that this peer can do by itself."""
        if (known := self._moves.get(state)) is None:
            known = self._moves[state] = tuple(
                self._move(state, action) for action in LOCAL_ACTIONS if self._can(state, action)
            )
        return known

    def receive(self, state: int, message: int) -> tuple[int, tuple[int, ...]]:
        """Return where it leads that a message arrives, and what is sent at once."""
        key = (state, message)
        if (known := self._received.get(key)) is None:
            whole = self._restore(state)
            self._peer.receive(self._messages[message])
            known = self._received[key] = self._number(whole.adds, whole.restarts, whole.replaced)
        return known

    def has_errors(self, state: int) -> bool:
        """Whether an error has come to the surface."""
        return bool(self._states[state].rest.errors)

    def view(self, state: int) -> PeerView:
        """Return what this state is."""
        whole = self._restore(state)
        needed = self._core.signaling_state == "stable" and self._core.negotiation_needed()
        return PeerView(self._core.state, whole.rest, whole.replaced, needed)

    def describe(self, state: int, action: LocalAction) -> str:
        """Return in words what a move of this peer does."""
        whole = self._restore(state)
        operation = self._peer.head
        match action:
            case "add":
                return "addTransceiver"
            case "restart":
                return "restartIce"
            case "fire":
                return "negotiationneeded"
            case "trickle":
                return "icecandidate"
            case "effect" | "resolve" if operation is not None:
                refused = whole.rest.outcome if action == "resolve" else self._refusal(state)
                name = operation_name(operation)
                return f"{name}: {refused.name}" if isinstance(refused, RtcError) else name
        return action

    def rolls_back(self, state: int, action: LocalAction) -> bool:
        """Whether a move takes an offer back to make room for the other peer's."""
        self._restore(state)
        match action, self._peer.head:
            case "effect", SetRemoteDescription(description):
                pending = description.type == "offer" and self._core.signaling_state == "have-local-offer"
                return pending and self._refusal(state) is None
        return False

    def hushes(self, state: int, action: LocalAction) -> bool:
        """Whether a move ends an operation with an error that the application is not told."""
        rest = self._states[state].rest
        if action != "resolve" or not isinstance(rest.outcome, RtcError):
            return False
        (after,) = (move.to for move in self.moves(state) if move.action == action)
        return self._states[after].rest.errors == rest.errors

    def ignores(self, state: int, message: int) -> bool:
        """Whether this peer ignores a message that arrives."""
        self._restore(state)
        self._peer.notices.clear()
        self._peer.receive(self._messages[message])
        self._peer.outbox.clear()
        return "offer-ignored" in self._peer.notices

    def wishing(self, state: int, wishes: Wishes) -> int:
        """Return the same state with other wishes."""
        whole = replace(self._states[state], adds=wishes.adds, restarts=wishes.restarts)
        return self._intern(whole)

    # Inside

    def _refusal(self, state: int) -> RtcError | None:
        (after,) = (move.to for move in self.moves(state) if move.action == "effect")
        outcome = self._states[after].rest.outcome
        return outcome if isinstance(outcome, RtcError) else None

    def _can(self, state: int, action: LocalAction) -> bool:
        whole, peer = self._restore(state), self._peer
        match action:
            case "add":
                return whole.adds > 0
            case "restart":
                return whole.restarts > 0
            case "fire":
                return peer.can_fire
            case "effect":
                return peer.can_step and not peer.has_effect
            case "resolve":
                return peer.can_step and peer.has_effect
            case "trickle":
                return peer.can_trickle

    def _move(self, state: int, action: LocalAction) -> Move:
        whole = self._restore(state)
        adds, restarts, replaced = whole.adds, whole.restarts, whole.replaced
        match action:
            case "add":
                own = sum(not transceiver.by_remote for transceiver in self._core.state.transceivers)
                self._core.add_transceiver("audio" if own % 2 == 0 else "video")
                adds -= 1
            case "restart":
                self._core.restart_ice()
                restarts -= 1
                replaced |= {credentials.ufrag for credentials in self._core.state.ice_to_replace}
            case "fire":
                self._peer.fire()
            case "effect" | "resolve":
                self._peer.step()
            case "trickle":
                self._peer.trickle()
        return Move(action, *self._number(adds, restarts, replaced))

    def _restore(self, state: int) -> _Whole:
        whole = self._states[state]
        self._core.at = whole.core
        self._peer.negotiator.restore(whole.negotiator)
        self._peer.restore(whole.rest)
        return whole

    def _number(self, adds: int, restarts: int, replaced: frozenset[str]) -> tuple[int, tuple[int, ...]]:
        """Return the number of the state in which the peer is now, and what it has just sent."""
        sent = tuple(self._messages.number(message) for message in self._peer.outbox)
        self._peer.outbox.clear()
        negotiator = self._peer.negotiator.snapshot()
        whole = _Whole(self._core.at, negotiator, self._peer.snapshot(), adds, restarts, replaced)
        return self._intern(whole), sent

    def _intern(self, whole: _Whole) -> int:
        number = self._numbers.setdefault(whole, len(self._states))
        if number == len(self._states):
            self._states.append(whole)
        return number
