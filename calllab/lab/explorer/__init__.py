"""The explorer: every order of events between two peers that negotiate, and what goes wrong in which.

:func:`explore` visits all states that two peers can get into and shows that Perfect Negotiation holds in
each, or the shortest way to where it does not.  A :class:`Mutant` is the same with one part of the pattern
missing.  What is found is a :class:`Trace`: it can be written to a file, drawn as a ladder
(:mod:`calllab.report.ladder_explore`) and replayed on real peer connections (:func:`replay_in_virtual_time`,
:func:`replay`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calllab.lab.explorer.agreement import Disagreement, PeerEnd
    from calllab.lab.explorer.connection_replay import ConnectionDriver
    from calllab.lab.explorer.exploration import Break, Exploration, Progress, explore
    from calllab.lab.explorer.moves import Wishes
    from calllab.lab.explorer.mutant import MUTANTS, UNCHANGED, Mutant, find_mutant
    from calllab.lab.explorer.peer import ScriptedPeer
    from calllab.lab.explorer.scripted_replay import Driver, Replay, ScriptedDriver, replay
    from calllab.lab.explorer.trace import PEERS, Sent, Step, Trace
    from calllab.lab.explorer.virtual_replay import replay_in_virtual_time

__all__ = [
    "MUTANTS",
    "PEERS",
    "UNCHANGED",
    "Break",
    "ConnectionDriver",
    "Disagreement",
    "Driver",
    "Exploration",
    "Mutant",
    "PeerEnd",
    "Progress",
    "Replay",
    "ScriptedDriver",
    "ScriptedPeer",
    "Sent",
    "Step",
    "Trace",
    "Wishes",
    "explore",
    "find_mutant",
    "replay",
    "replay_in_virtual_time",
]

# Names of mutants and traces are needed without numpy and aiortc: each name loads only what it needs.
_HOMES = {
    "MUTANTS": "mutant",
    "PEERS": "trace",
    "UNCHANGED": "mutant",
    "Break": "exploration",
    "ConnectionDriver": "connection_replay",
    "Disagreement": "agreement",
    "Driver": "scripted_replay",
    "Exploration": "exploration",
    "Mutant": "mutant",
    "PeerEnd": "agreement",
    "Progress": "exploration",
    "Replay": "scripted_replay",
    "ScriptedDriver": "scripted_replay",
    "ScriptedPeer": "peer",
    "Sent": "trace",
    "Step": "trace",
    "Trace": "trace",
    "Wishes": "moves",
    "explore": "exploration",
    "find_mutant": "mutant",
    "replay": "scripted_replay",
    "replay_in_virtual_time": "virtual_replay",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'calllab.lab.explorer' has no attribute {name!r}")
    return getattr(import_module(f"calllab.lab.explorer.{_HOMES[name]}"), name)
