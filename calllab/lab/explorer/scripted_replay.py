"""Replaying a trace: the same events in the same order, on peers that somebody else drives."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Protocol

import msgspec

from calllab.errors import LabError
from calllab.lab.explorer.agreement import PeerEnd, end_of
from calllab.lab.explorer.message import Message
from calllab.lab.explorer.mutant import CoreWithoutRollback, Mutant, make_negotiator
from calllab.lab.explorer.peer import ScriptedPeer
from calllab.lab.explorer.trace import PEERS, PeerName, Step, Trace
from calllab.rtc.jsep import JsepCore
from calllab.rtc.parameters import Fingerprint

__all__ = ["Driver", "Replay", "ScriptedDriver", "make_core", "replay"]

_MOST_SETTLING_STEPS = 10_000


class Driver(Protocol):
    """Two peers and the signaling between them, one event at a time."""

    async def perform(self, step: Step) -> bool:
        """Let one event happen; return False if it cannot, with nothing changed."""

    async def settle(self) -> None:
        """Let all happen that still can, in the order in which it comes."""

    async def end(self) -> Mapping[PeerName, PeerEnd]:
        """Return how both peers are now."""


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a trace."""

    end: Mapping[PeerName, PeerEnd]
    performed: int
    """How many steps happened."""
    left_out: int
    """How many could not happen."""
    differences: tuple[str, ...]
    """What is not as it should be, in words."""

    @property
    def as_expected(self) -> bool:
        """Whether the end is the trace's own, or, after settling, an agreement."""
        return not self.differences


async def replay(trace: Trace, driver: Driver, *, then_settle: bool = False) -> Replay:
    """Perform the steps of a trace and compare what comes of it with what the exploration says.

    With ``then_settle`` the trace is only a beginning, as for peers without the mutant's fault: what cannot
    happen there is left out, then all runs on undisturbed, and both peers must end in agreement.

    Raises LabError if a step cannot happen and ``then_settle`` is not set.
    """
    performed = 0
    for number, step in enumerate(trace.steps, start=1):
        if await driver.perform(step):
            performed += 1
        elif not then_settle:
            raise LabError(
                f"step {number} of the trace ({step.peer}: {step.action} {step.what}) cannot happen here: "
                "are these the peers and the mutant of the trace?"
            )
    if then_settle:
        await driver.settle()
    end = await driver.end()
    return Replay(
        end=end,
        performed=performed,
        left_out=len(trace.steps) - performed,
        differences=_disagreement(end) if then_settle else _differences(trace.end, end),
    )


def _differences(expected: Mapping[PeerName, PeerEnd], found: Mapping[PeerName, PeerEnd]) -> tuple[str, ...]:
    return tuple(
        f"{name}: {member} is {getattr(found[name], member)!r}, not {getattr(expected[name], member)!r}"
        for name in PEERS
        for member in PeerEnd.__struct_fields__
        if getattr(found[name], member) != getattr(expected[name], member)
    )


def _disagreement(end: Mapping[PeerName, PeerEnd]) -> tuple[str, ...]:
    found = [f"{name} is in {end[name].signaling}" for name in PEERS if end[name].signaling != "stable"]
    found += [f"{name} still needs to negotiate" for name in PEERS if end[name].needs_negotiation]
    found += [f"{name}: {error}" for name in PEERS for error in end[name].errors]
    one, other = (end[name].lines for name in PEERS)
    if one != other:
        found.append(f"the m-lines differ: {', '.join(one) or 'none'}; {', '.join(other) or 'none'}")
    return tuple(found)


def make_core(name: str, kind: type[JsepCore] = JsepCore) -> JsepCore:
    """Return a JSEP core whose fingerprint and random source follow from its name."""
    entropy = random.Random(name)
    digest = ":".join(f"{entropy.getrandbits(8):02X}" for _ in range(32))
    return kind(entropy, (Fingerprint("sha-256", digest),), f"cname-{name}")


class ScriptedDriver:
    """Replays on scripted peers, without what the exploration remembers of them.

    :param mutant: what is wrong with them; None: what the trace says.
    """

    def __init__(self, trace: Trace, mutant: Mutant | None = None) -> None:
        self._mutant = mutant or trace.mutation
        kind = CoreWithoutRollback if self._mutant.without_rollback else JsepCore
        self._peers: dict[PeerName, ScriptedPeer[JsepCore]] = {
            name: ScriptedPeer(
                make_core(name, kind), make_negotiator(self._mutant, name), candidates=trace.candidates
            )
            for name in PEERS
        }
        self._on_way: dict[PeerName, list[tuple[int, Message]]] = {name: [] for name in PEERS}
        self._added = dict.fromkeys(PEERS, 0)
        self._settling = -1

    async def perform(self, step: Step) -> bool:
        """Let one event happen; return False if it cannot."""
        if step.message is not None:
            return self._carry(step)
        peer = self._peers[step.peer]
        possible = {
            "fire": peer.can_fire,
            "effect": peer.can_step and not peer.has_effect,
            "resolve": peer.can_step and peer.has_effect,
            "trickle": peer.can_trickle,
        }
        if not possible.get(step.action, True):
            return False
        match step.action:
            case "add":
                self._added[step.peer] += 1
                peer.core.add_transceiver("audio" if self._added[step.peer] % 2 else "video")
            case "restart":
                peer.core.restart_ice()
            case "fire":
                peer.fire()
            case "trickle":
                peer.trickle()
            case _:
                peer.step()
        self._collect(step.peer, [message.number for message in step.sent])
        return True

    async def settle(self) -> None:
        """Let all happen that still can."""
        for _ in range(_MOST_SETTLING_STEPS):
            moved = [self._advance(name) for name in PEERS]
            if not any(moved):
                return
        raise LabError(f"the peers still negotiate after {_MOST_SETTLING_STEPS} steps")

    async def end(self) -> Mapping[PeerName, PeerEnd]:
        """Return how both peers are now."""
        return {
            name: end_of(
                peer.core.state,
                needs_negotiation=peer.core.negotiation_needed(),
                errors=tuple(f"{error.operation}: {error.name}" for error in peer.errors),
            )
            for name, peer in self._peers.items()
        }

    def _carry(self, step: Step) -> bool:
        inbox = self._on_way[step.peer]
        position = next((at for at, (number, _) in enumerate(inbox) if number == step.message), None)
        if position is None or (position and self._mutant.ordered):
            return False
        if step.action == "drop" and not self._mutant.drops:
            return False
        _, message = inbox[position]
        if step.action != "duplicate" or not self._mutant.duplicates:
            del inbox[position]
        if step.action != "drop":
            self._peers[step.peer].receive(message)
        return True

    def _collect(self, sender: PeerName, numbers: list[int]) -> None:
        """Put what a peer has sent on its way, under the numbers of the trace as far as they go."""
        receiver = PEERS[1 - PEERS.index(sender)]
        outbox = self._peers[sender].outbox
        while outbox:
            if numbers:
                number = numbers.pop(0)
            else:
                number, self._settling = self._settling, self._settling - 1
            self._on_way[receiver].append((number, outbox.popleft()))

    def _advance(self, name: PeerName) -> bool:
        peer = self._peers[name]
        if peer.can_step:
            peer.step()
        elif self._on_way[name]:
            peer.receive(self._on_way[name].pop(0)[1])
        elif peer.can_trickle:
            peer.trickle()
        elif peer.can_fire:
            peer.fire()
        else:
            return False
        self._collect(name, [])
        return True
