"""Perfect Negotiation holds in every order of events, and no part of it can be left out."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from calllab.errors import LabError
from calllab.lab.explorer import (
    MUTANTS,
    PEERS,
    UNCHANGED,
    Exploration,
    Mutant,
    ScriptedDriver,
    Wishes,
    explore,
    replay,
)
from calllab.lab.explorer.agreement import disagreements
from calllab.lab.explorer.message import Message, canonical_message
from calllab.lab.explorer.mutant import make_negotiator
from calllab.lab.explorer.peer import ScriptedPeer
from calllab.lab.explorer.search import Search, State
from calllab.rtc.jsep import JsepCore
from calllab.rtc.parameters import Fingerprint

ONE = Wishes(adds=1)


def assert_holds(found: Exploration) -> None:
    assert found.breaks == ()
    assert found.complete
    assert found.holds
    assert found.finals > 0
    assert found.sample is not None


# What holds


@pytest.mark.timeout(240)
def test_two_additions_on_each_side_always_end_in_agreement() -> None:
    """With candidates, in every order of events; 150,000 states."""
    found = explore(Wishes(adds=2), Wishes(adds=2))
    assert_holds(found)
    assert found.states > 100_000
    assert found.transitions > 2 * found.states


def test_a_restart_on_each_side_of_a_call_always_ends_in_agreement() -> None:
    """Both get new credentials, whoever asks first, and in the middle of what."""
    assert_holds(explore(Wishes(restarts=1), Wishes(restarts=1), established=1))


def test_an_addition_and_a_restart_against_an_addition() -> None:
    """A restart may come before there is anything to restart, or into a negotiation."""
    assert_holds(explore(Wishes(adds=1, restarts=1), ONE))


@pytest.mark.parametrize("candidates", [0, 2])
def test_the_number_of_candidates_does_not_matter(candidates: int) -> None:
    """Without any candidate, and with several of each generation."""
    assert_holds(explore(ONE, ONE, candidates=candidates))


@pytest.mark.parametrize(
    ("alice", "bob", "established"),
    [
        (Wishes(), Wishes(), 0),
        (Wishes(), Wishes(), 1),
        (Wishes(restarts=1), Wishes(restarts=1), 0),
        (Wishes(), Wishes(restarts=2), 0),
    ],
)
def test_peers_that_would_never_negotiate_are_not_explored(
    alice: Wishes, bob: Wishes, established: int
) -> None:
    """Nothing holds of what never happens: the error says what to wish for."""
    with pytest.raises(LabError, match=r"never negotiate.* adds=1"):
        explore(alice, bob, established=established)


def test_the_same_exploration_finds_the_same() -> None:
    """Nothing in it is left to chance."""
    assert explore(ONE, ONE) == explore(ONE, ONE)


# What does not


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_breaks(name: str) -> None:
    """Each part of the pattern, and each promise of the signaling, is needed."""
    found = explore(ONE, ONE, mutant=name, until_broken=True)
    assert not found.holds
    shortest = found.breaks[0]
    assert shortest.sentence
    assert shortest.trace.kind == shortest.kind
    assert all(broken.trace.length >= shortest.trace.length for broken in found.breaks)


@pytest.mark.parametrize(
    ("name", "kind", "length"),
    [
        ("both-impolite", "deadlock", 18),
        ("without-answer-pending", "deadlock", 25),
        ("without-rollback", "error", 11),
        ("duplicated", "error", 15),
    ],
)
def test_how_a_mutant_breaks_first(name: str, kind: str, length: int) -> None:
    """The kind of the shortest trace and its length are what the theory says."""
    (shortest,) = explore(ONE, ONE, mutant=name, until_broken=True).breaks
    assert (shortest.kind, shortest.trace.length) == (kind, length)


def test_a_lost_message_breaks_in_several_ways() -> None:
    """Going on after the first break finds the others: an error, a deadlock, a candidate that is missing."""
    kinds = {broken.kind for broken in explore(ONE, ONE, mutant="dropped").breaks}
    assert {"error", "deadlock", "candidates"} <= kinds


def test_a_limit_leaves_an_exploration_incomplete() -> None:
    """What was not explored to the end does not hold, even if nothing was found."""
    found = explore(ONE, ONE, max_states=50)
    assert not found.complete
    assert not found.holds
    assert found.breaks == ()


def test_progress_is_told() -> None:
    """Whoever waits learns how many states are known, and how many of them were explored."""
    told: list[tuple[int, int, int]] = []
    explore(Wishes(adds=2), ONE, on_progress=told.append)
    assert told
    assert all(explored <= states <= transitions + 1 for states, explored, transitions in told)


@pytest.mark.parametrize("bad", [{"established": 10}, {"candidates": -1}, {"max_states": 0}])
def test_what_cannot_be_explored_is_refused(bad: dict[str, int]) -> None:
    """With a sentence that names the value."""
    with pytest.raises(LabError, match=f"{next(iter(bad))}={next(iter(bad.values()))}"):
        explore(ONE, ONE, **bad)  # type: ignore[arg-type]


def test_an_unknown_mutant_is_refused() -> None:
    """The sentence says which there are."""
    with pytest.raises(LabError, match="both-polite"):
        explore(ONE, ONE, mutant="polite")


# What is remembered is what would happen


def run(search: Search) -> None:
    explored = 0
    while explored < len(search.graph):
        state = State.unpack(search.graph.states[explored])
        search.graph.begin()
        for code, after in search.successors(state):
            search.graph.edge(explored, code, after.pack())
        explored += 1


@pytest.mark.parametrize("mutant", [UNCHANGED, MUTANTS["duplicated"]], ids=lambda mutant: mutant.name)
async def test_what_is_remembered_is_what_peers_do(mutant: Mutant) -> None:
    """Any state that was put together from known moves is one into which fresh peers get."""
    search = Search((Wishes(adds=1, restarts=1), ONE), mutant, 0, 1)
    entropy = random.Random(5)
    explored = 0
    while explored < len(search.graph) < 20_000:
        state = State.unpack(search.graph.states[explored])
        search.graph.begin()
        if not search.broken_by_error(state):
            for code, after in search.successors(state):
                search.graph.edge(explored, code, after.pack())
        explored += 1
    for _ in range(150):
        trace = search.trace(entropy.randrange(len(search.graph)))
        assert (await replay(trace, ScriptedDriver(trace))).differences == ()


class WithoutMemory:
    """Two peers that are taken back by their snapshots alone, with nothing remembered of what they did."""

    def __init__(self) -> None:
        self._entropies = {name: random.Random(name) for name in PEERS}
        self.peers = []
        for name, entropy in self._entropies.items():
            core = JsepCore(entropy, (Fingerprint("sha-256", ":".join(["AA"] * 32)),), f"cname-{name}")
            self.peers.append(ScriptedPeer(core, make_negotiator(UNCHANGED, name), candidates=1))

    def snapshot(self) -> tuple[Any, ...]:
        """Return all of both peers."""
        return tuple((p.core.snapshot(), p.negotiator.snapshot(), p.snapshot()) for p in self.peers)

    def restore(self, ends: tuple[Any, ...]) -> None:
        """Become again what a snapshot saw; what is drawn next is the same each time."""
        for peer, (core, negotiator, rest) in zip(self.peers, ends, strict=True):
            peer.core.restore(core)
            peer.negotiator.restore(negotiator)
            peer.restore(rest)
        for name, entropy in self._entropies.items():
            entropy.seed(name)

    def key(self) -> str:
        """Return all of both peers in canonical form."""
        names: dict[object, int] = {}
        return repr([(p.core.key(names), p.negotiator.key(), p.snapshot()) for p in self.peers])

    def moves(self, side: int, adds: int, inbox: tuple[Message, ...]) -> list[str]:
        """Return what one peer can do."""
        peer = self.peers[side]
        able = {"add": side == 0 and adds > 0, "fire": peer.can_fire, "step": peer.can_step}
        able |= {"trickle": peer.can_trickle, "receive": bool(inbox)}
        return [move for move, can in able.items() if can]


@pytest.mark.parametrize("adds", [1, 2])
def test_exploring_without_any_memory_finds_as_many_states(adds: int) -> None:
    """That moves are computed once and put together neither adds a state nor leaves one out."""
    pair = WithoutMemory()
    known: dict[Message, Message] = {}
    seen: set[object] = set()
    todo = deque([(pair.snapshot(), adds, ((), ()))])
    while todo:
        ends, left, boxes = todo.popleft()
        pair.restore(ends)
        if (identity := (pair.key(), left, boxes)) in seen:
            continue
        seen.add(identity)
        possible = [(at, move) for at in (0, 1) for move in pair.moves(at, left, boxes[at])]
        for side, move in possible:
            pair.restore(ends)
            peer, after = pair.peers[side], [*boxes]
            match move:
                case "add":
                    peer.core.add_transceiver("video" if (adds - left) % 2 else "audio")
                case "receive":
                    message, *after[side] = boxes[side]
                    peer.receive(message)
                case _:
                    getattr(peer, move)()
            # Messages that differ only in what no receiver acts on are the same message.
            sent = [known.setdefault(canonical_message(message), message) for message in peer.outbox]
            after[1 - side] = (*boxes[1 - side], *sent)
            todo.append((pair.snapshot(), left - (move == "add"), tuple(map(tuple, after))))
    assert len(seen) == explore(Wishes(adds=adds), Wishes()).states


# What counts as agreement


def agreed() -> Search:
    search = Search((ONE, ONE), UNCHANGED, 0, 1)
    run(search)
    return search


def test_every_kind_of_disagreement_is_seen() -> None:
    """An end that is tampered with is no agreement any more, and the sentence is about what was changed."""
    search = agreed()
    final = next(
        state
        for state in map(State.unpack, reversed(search.graph.states))
        if next(search.successors(state), None) is None
    )
    views = search.views(final)
    assert disagreements(views, 2) == ()
    alice = views["alice"]
    ice = alice.jsep.session.local_ice
    assert ice is not None
    tampered = {
        "deadlock": replace(alice, jsep=replace(alice.jsep, signaling="have-local-offer")),
        "lost-negotiation": replace(alice, needs_negotiation=True),
        "m-lines": replace(
            alice,
            jsep=replace(alice.jsep, session=replace(alice.jsep.session, lines=alice.jsep.session.lines[:1])),
        ),
        "directions": replace(
            alice,
            jsep=replace(
                alice.jsep,
                transceivers=tuple(
                    replace(t, negotiated=replace(t.negotiated, current_direction="recvonly"))
                    for t in alice.jsep.transceivers
                ),
            ),
        ),
        "ice": replace(alice, jsep=replace(alice.jsep, session=replace(alice.jsep.session, remote_ice=ice))),
        "candidates": replace(alice, jsep=replace(alice.jsep, remote_candidates=())),
    }
    for kind, view in tampered.items():
        found = disagreements(
            {**views, "alice": view} if kind != "directions" else {"bob": views["bob"], "alice": view}, 2
        )
        assert kind in {disagreement.kind for disagreement in found}, kind
    assert [d.kind for d in disagreements(views, 3)] == ["lost-negotiation"]
    replaced = {**views, "alice": replace(alice, replaced=frozenset({ice.ufrag}))}
    assert [d.kind for d in disagreements(replaced, 2)] == ["lost-negotiation"]
