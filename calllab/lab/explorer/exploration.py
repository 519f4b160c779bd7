"""Every order of events between two peers, explored.

Theory.  Two peers negotiate over two channels.  What is explored is the code itself: of each peer the real
:class:`~calllab.negotiation.negotiator.PerfectNegotiator` over the real :class:`~calllab.rtc.jsep.JsepCore`,
taken back and forth through their snapshots.  One step is one event: the application adds a transceiver or
restarts ICE, negotiationneeded fires, an operation takes effect, its promise resolves, a candidate is told, a
message arrives.  A state is both peers, both channels, the wishes that remain and the faults that may still
happen.  Breadth-first search visits each state once, so each way of failing is found with a shortest
sequence of events that leads to it.

Three things keep the number of states small, and none of them leaves anything out.

* States are equal if their canonical keys are: they differ in nothing that any later event depends on.
* Random tokens follow from how many transceivers and ICE generations a peer has made, not from the order of
  events (:mod:`calllab.lab.explorer.memo`).
* A peer acts on its own state and on the message that it gets, nothing else; so each move of a peer is
  computed once, however many states of the other it meets (:mod:`calllab.lab.explorer.moves`).

What must hold: no operation's error comes to the surface; when nothing more can happen both peers agree
(:mod:`calllab.lab.explorer.agreement`); and there is no cycle, so that every sequence of events ends.
Media, ICE and DTLS themselves are not explored: they say nothing to the other peer's negotiation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from calllab.errors import LabError
from calllab.lab.explorer.moves import Wishes
from calllab.lab.explorer.mutant import UNCHANGED, Mutant, find_mutant
from calllab.lab.explorer.search import Search, State
from calllab.lab.explorer.trace import PEERS, PeerName, Trace

__all__ = ["Break", "Exploration", "Progress", "explore"]

_TOLD_EVERY: Final = 20_000
# The numbers of all parts of a state fit into one number then.
_MOST_STATES: Final = 16_000_000


class Progress(NamedTuple):
    """How far an exploration has come."""

    states: int
    explored: int
    transitions: int


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which the invariants are broken, with a shortest sequence of events that leads to it."""

    kind: str
    """``error``, ``livelock``, or the kind of a :class:`~calllab.lab.explorer.agreement.Disagreement`."""
    sentence: str
    trace: Trace


class Exploration(msgspec.Struct, frozen=True, kw_only=True):
    """What was explored and what was found."""

    mutant: str
    alice: Wishes
    bob: Wishes
    established: int
    candidates: int
    complete: bool
    """Whether every state was visited."""
    states: int
    transitions: int
    finals: int
    """States in which nothing more can happen."""
    depth: int
    """Steps to the farthest state."""
    peer_states: dict[PeerName, int]
    operations: int
    """Operations of the JSEP core that were carried out; all others were known already."""
    breaks: tuple[Break, ...]
    """The distinct ways of failing, the one with the shortest trace first."""
    sample: Trace | None
    """A shortest way to an end where all is well; None if there is no such end."""

    @property
    def holds(self) -> bool:
        """Whether every order of events was explored and none breaks an invariant."""
        return self.complete and not self.breaks

    def to_plain(self) -> dict[str, Any]:
        """Return the exploration as JSON-like objects."""
        return {**msgspec.to_builtins(self), "holds": self.holds}


def explore(
    alice: Wishes,
    bob: Wishes,
    *,
    mutant: Mutant | str = UNCHANGED,
    established: int = 0,
    candidates: int = 1,
    max_states: int = 5_000_000,
    until_broken: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Exploration:
    """Explore every order of events in which two peers get what they wish.

    :param established: how many m-lines are negotiated before anything else happens.
    :param candidates: how many candidates each ICE generation has.
    :param max_states: where to give up; the exploration is not complete then.
    :param until_broken: end at the first state that breaks an invariant: its trace is a shortest one of all.
    :param on_progress: called now and then.

    Raises LabError for an unknown mutant, a number that cannot be explored, or peers that wish for nothing
    that they would negotiate about.
    """
    if not 0 <= established <= 9 or not 0 <= candidates <= 9 or not 1 <= max_states <= _MOST_STATES:
        raise LabError(
            f"established={established}, candidates={candidates}, max_states={max_states}: "
            f"the first two are numbers from 0 to 9, the last one from 1 to {_MOST_STATES}"
        )
    if not (alice.adds or bob.adds or (established and (alice.restarts or bob.restarts))):
        raise LabError(
            "these peers would never negotiate, and nothing can be said of that: give one of them adds=1, or "
            "restarts=1 and an m-line that is negotiated before (--established 1)"
        )
    mutation = find_mutant(mutant) if isinstance(mutant, str) else mutant
    search = Search((alice, bob), mutation, established, candidates)
    graph = search.graph
    found: dict[str, tuple[int, str]] = {}
    finals, sample, explored = 0, None, 0
    while explored < len(graph) <= max_states and not (until_broken and found):
        state = State.unpack(graph.states[explored])
        graph.begin()
        if search.broken_by_error(state):
            error = search.error(state)
            found.setdefault(error.kind, (explored, error.sentence))
            explored += 1
            continue
        is_final = True
        for code, after in search.successors(state):
            is_final = False
            graph.edge(explored, code, after.pack())
        if is_final:
            finals += 1
            wrong = search.judge(state)
            for disagreement in wrong:
                found.setdefault(disagreement.kind, (explored, disagreement.sentence))
            if not wrong and sample is None:
                sample = explored
        explored += 1
        if on_progress is not None and explored % _TOLD_EVERY == 0:
            on_progress(Progress(len(graph), explored, graph.transitions))
    complete = explored == len(graph)
    if complete and (entry := graph.cycle_entry()) is not None:
        sentence = "from here events can go on for ever, in a circle, without anything being achieved"
        found["livelock"] = (entry, sentence)
    breaks = [
        Break(
            kind=kind.split(" ")[0],
            sentence=sentence,
            trace=search.trace(index, kind=kind.split(" ")[0], sentence=sentence),
        )
        for kind, (index, sentence) in found.items()
    ]
    return Exploration(
        mutant=mutation.name,
        alice=alice,
        bob=bob,
        established=established,
        candidates=candidates,
        complete=complete,
        states=len(graph),
        transitions=graph.transitions,
        finals=finals,
        depth=graph.depth(),
        peer_states={name: peer.size for name, peer in zip(PEERS, search.peers, strict=True)},
        operations=sum(peer.computed for peer in search.peers),
        breaks=tuple(sorted(breaks, key=lambda broken: broken.trace.length)),
        sample=None if sample is None else search.trace(sample),
    )
