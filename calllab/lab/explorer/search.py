"""Both peers and their channels together: what can happen in which state, and the way that led there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from calllab.lab.explorer.agreement import Disagreement, disagreements, end_of
from calllab.lab.explorer.channels import Channels
from calllab.lab.explorer.graph import StateGraph
from calllab.lab.explorer.message import kind_of
from calllab.lab.explorer.moves import LOCAL_ACTIONS, Messages, PeerGraph, PeerName, PeerView, Wishes
from calllab.lab.explorer.mutant import Mutant
from calllab.lab.explorer.trace import PEERS, Action, Sent, Step, Trace

__all__ = ["Search", "State"]

ACTIONS: Final[tuple[Action, ...]] = (*LOCAL_ACTIONS, "deliver", "drop", "duplicate")
_BITS: Final = 24
_MASK: Final = (1 << _BITS) - 1


class State(NamedTuple):
    """Numbers of: Alice's state, Bob's, what is on its way to each, and the faults that may still happen."""

    alice: int
    bob: int
    to_alice: int
    to_bob: int
    drops: int = 0
    duplicates: int = 0

    def pack(self) -> int:
        """Return the state as one number: millions of them are kept."""
        number = (self.duplicates << 4) | self.drops
        for part in (self.to_bob, self.to_alice, self.bob, self.alice):
            number = (number << _BITS) | part
        return number

    @classmethod
    def unpack(cls, number: int) -> State:
        """Return the state that :meth:`pack` made a number of."""
        faults = number >> (4 * _BITS)
        return cls(
            number & _MASK,
            (number >> _BITS) & _MASK,
            (number >> 2 * _BITS) & _MASK,
            (number >> 3 * _BITS) & _MASK,
            faults & 15,
            faults >> 4,
        )


_INDEX: Final = {action: number for number, action in enumerate(ACTIONS)}
_DELIVER, _DROP, _DUPLICATE = (_INDEX[action] for action in ("deliver", "drop", "duplicate"))
_POSITION_AT: Final = 8
_PEER_AT: Final = 4


class Search:
    """The states of both peers and how they follow from each other; an exploration under way."""

    def __init__(
        self, wishes: tuple[Wishes, Wishes], mutant: Mutant, established: int, candidates: int
    ) -> None:
        self.wishes = wishes
        self.mutant = mutant
        self.established = established
        self.candidates = candidates
        self.messages = Messages()
        names: dict[object, int] = {}
        first = (Wishes(adds=established), Wishes())
        self.peers = tuple(
            PeerGraph(name, wish, mutant, self.messages, names, candidates)
            for name, wish in zip(PEERS, first, strict=True)
        )
        self.channels = Channels(ordered=mutant.ordered)
        alice, bob = self.peers
        self.before = State(alice.start, bob.start, 0, 0)
        self.setup, agreed = self._set_up()
        self.start = State(
            alice.wishing(agreed.alice, wishes[0]),
            bob.wishing(agreed.bob, wishes[1]),
            0,
            0,
            mutant.drops,
            mutant.duplicates,
        )
        self.graph = StateGraph(self.start.pack())

    def successors(self, state: State) -> Iterator[tuple[int, State]]:
        """Return all that can happen next, each with a code that tells it from the others."""
        for peer, graph in enumerate(self.peers):
            code = peer << _PEER_AT
            for move in graph.moves(state[peer]):
                yield code | _INDEX[move.action], self._after(state, peer, move.to, move.sent)
            for at, message, rest in self.channels.waiting(state[2 + peer]):
                code = (at << _POSITION_AT) | (peer << _PEER_AT)
                to, sent = graph.receive(state[peer], message)
                after = self._after(state, peer, to, sent)
                yield code | _DELIVER, _with_inbox(after, peer, rest)
                if state.drops:
                    yield code | _DROP, _with_inbox(state, peer, rest)._replace(drops=state.drops - 1)
                if state.duplicates:
                    yield code | _DUPLICATE, after._replace(duplicates=state.duplicates - 1)

    def broken_by_error(self, state: State) -> bool:
        """Whether an error has come to the surface."""
        alice, bob = self.peers
        return alice.has_errors(state.alice) or bob.has_errors(state.bob)

    def views(self, state: State) -> dict[PeerName, PeerView]:
        """Return what both peers are in a state."""
        alice, bob = self.peers
        return {"alice": alice.view(state.alice), "bob": bob.view(state.bob)}

    def judge(self, state: State) -> tuple[Disagreement, ...]:
        """Return what is wrong in a state in which nothing more can happen."""
        return disagreements(self.views(state), self.established + sum(wish.adds for wish in self.wishes))

    def error(self, state: State) -> Disagreement:
        """Return in words which error has come to the surface."""
        name, error = next(
            (name, error) for name, view in self.views(state).items() for error in view.rest.errors
        )
        sentence = f"{name}'s {error.operation} fails with {error.name}: {error.message}"
        return Disagreement(kind=f"error {name} {error.operation} {error.name}", sentence=sentence)

    def trace(self, index: int, *, kind: str = "end", sentence: str = "") -> Trace:
        """Return a shortest way to a state."""
        steps, state = self._steps(self.graph.path(index))
        return Trace(
            mutant=self.mutant.name,
            alice=self.wishes[0],
            bob=self.wishes[1],
            established=self.established,
            candidates=self.candidates,
            setup=len(self.setup),
            steps=tuple(steps),
            kind=kind,
            sentence=sentence,
            end={
                name: end_of(
                    view.jsep,
                    needs_negotiation=view.needs_negotiation,
                    errors=tuple(f"{error.operation}: {error.name}" for error in view.rest.errors),
                )
                for name, view in self.views(state).items()
            },
        )

    # Inside

    def _after(self, state: State, peer: int, to: int, sent: tuple[int, ...]) -> State:
        """Return the state after a move of one peer's that sends something."""
        alice, bob, to_alice, to_bob, drops, duplicates = state
        if peer == 0:
            return State(to, bob, to_alice, self.channels.push(to_bob, sent), drops, duplicates)
        return State(alice, to, self.channels.push(to_alice, sent), to_bob, drops, duplicates)

    def _set_up(self) -> tuple[list[int], State]:
        """Negotiate the m-lines that are there from the beginning, in one order without any glare."""
        codes: list[int] = []
        state = self.before
        while (way := next(self.successors(state), None)) is not None:
            codes.append(way[0])
            state = way[1]
        return codes, state

    def _steps(self, path: list[int]) -> tuple[list[Step], State]:
        state = self.before
        steps: list[Step] = []
        on_way: tuple[list[int], list[int]] = ([], [])
        count = 0
        for code in self.setup:
            step, state = self._step(state, code, on_way, count)
            steps.append(step)
            count += len(step.sent)
        state = self.start
        for code in path:
            step, state = self._step(state, code, on_way, count)
            steps.append(step)
            count += len(step.sent)
        return steps, state

    def _step(
        self, state: State, code: int, on_way: tuple[list[int], list[int]], count: int
    ) -> tuple[Step, State]:
        """Return one step as it is told, and the state after it; ``on_way`` are the messages' numbers."""
        peer, position = (code >> _PEER_AT) & 1, code >> _POSITION_AT
        graph, action = self.peers[peer], ACTIONS[code & 15]
        message = None
        sent: tuple[int, ...] = ()
        note: Literal["", "ignored", "rolls back"] = ""
        if action in LOCAL_ACTIONS:
            what = graph.describe(state[peer], action)
            if graph.rolls_back(state[peer], action):
                note = "rolls back"
            elif graph.hushes(state[peer], action):
                note = "ignored"
            sent = next(move.sent for move in graph.moves(state[peer]) if move.action == action)
        else:
            content = self.channels.content(state[2 + peer])[position]
            what = kind_of(self.messages[content])
            message = on_way[peer][position]
            if action != "duplicate":
                del on_way[peer][position]
            if action != "drop":
                sent = graph.receive(state[peer], content)[1]
                note = "ignored" if graph.ignores(state[peer], content) else ""
        numbered = tuple(
            Sent(number=count + at, kind=kind_of(self.messages[content])) for at, content in enumerate(sent)
        )
        on_way[1 - peer].extend(one.number for one in numbered)
        after = next(after for other, after in self.successors(state) if other == code)
        step = Step(peer=PEERS[peer], action=action, what=what, note=note, message=message, sent=numbered)
        return step, after


def _with_inbox(state: State, peer: int, inbox: int) -> State:
    return state._replace(to_alice=inbox) if peer == 0 else state._replace(to_bob=inbox)
