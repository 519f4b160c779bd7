"""Faults of signaling planned over time, without a clock: which of them are on at each moment."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from calllab.signaling.fault_setting import SignalingFault

__all__ = ["PlannedFault", "SignalingStep", "SignalingTimeline"]

StepKind: TypeAlias = Literal["started", "ended"]


@dataclass(frozen=True)
class PlannedFault:
    """A fault that has its place on the timeline."""

    id: int
    at_s: float
    """When it begins: what was asked for, or the moment of planning if that was later."""
    fault: SignalingFault

    @property
    def end_s(self) -> float:
        """When it ends; infinite if nobody has said."""
        return math.inf if self.fault.for_s is None else self.at_s + self.fault.for_s


@dataclass(frozen=True)
class SignalingStep:
    """A fault began or ended."""

    at_s: float
    event: StepKind
    planned: PlannedFault


@dataclass(frozen=True, order=True)
class _Entry:
    at_s: float
    rank: int
    sequence: int
    planned: PlannedFault = field(compare=False)


# At one instant ends come before starts, so that back-to-back faults do not overlap; but what lasts no time
# begins before it ends.
_END, _START, _INSTANT_END = 0, 1, 2


class SignalingTimeline:
    """Keeps planned faults and says which of them are on; they all add up, whatever their overlap."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._running: dict[int, PlannedFault] = {}
        self._gone: set[int] = set()
        self._count = 0

    @property
    def running(self) -> tuple[PlannedFault, ...]:
        """The faults that are on now, the one that began first first."""
        return tuple(self._running.values())

    @property
    def next_at_s(self) -> float:
        """When something happens next; infinite if nothing is planned."""
        while self._entries and self._entries[0].planned.id in self._gone:
            heapq.heappop(self._entries)
        return self._entries[0].at_s if self._entries else math.inf

    def plan(self, fault: SignalingFault, now_s: float) -> PlannedFault:
        """Plan a fault; it takes effect when :meth:`advance` reaches its time, or now if that is past."""
        self._count += 1
        planned = PlannedFault(self._count, max(fault.at_s, now_s, 0.0), fault)
        heapq.heappush(self._entries, _Entry(planned.at_s, _START, planned.id, planned))
        if planned.end_s < math.inf:
            rank = _INSTANT_END if planned.end_s == planned.at_s else _END
            heapq.heappush(self._entries, _Entry(planned.end_s, rank, planned.id, planned))
        return planned

    def is_over(self, planned: PlannedFault) -> bool:
        """Whether a fault has ended or was cancelled."""
        return planned.id in self._gone

    def cancel(self, planned: PlannedFault, now_s: float) -> tuple[SignalingStep, ...]:
        """End a fault that is on, or strike one that is planned; nothing happens if it is over."""
        if planned.id in self._gone:
            return ()
        self._gone.add(planned.id)
        if self._running.pop(planned.id, None) is None:
            return ()
        return (SignalingStep(now_s, "ended", planned),)

    def advance(self, now_s: float) -> tuple[SignalingStep, ...]:
        """Begin and end the faults whose time has come, and return the steps in their order."""
        steps = []
        while self.next_at_s <= now_s:
            entry = heapq.heappop(self._entries)
            if entry.rank == _START:
                self._running[entry.planned.id] = entry.planned
                steps.append(SignalingStep(entry.at_s, "started", entry.planned))
            else:
                del self._running[entry.planned.id]
                self._gone.add(entry.planned.id)
                steps.append(SignalingStep(entry.at_s, "ended", entry.planned))
        return tuple(steps)
