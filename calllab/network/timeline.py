"""Faults planned over time, and what they come to together at each moment."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from calllab.errors import InvalidSetting
from calllab.network.settings import LinkSettings, causes_of, fault_members

__all__ = ["Fault", "Timeline", "TimelineStep"]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_time(at_s: float) -> None:
    """Raise InvalidSetting unless ``at_s`` is a time on a timeline."""
    if not (_is_number(at_s) and 0.0 <= at_s < math.inf):
        raise InvalidSetting(f"at_s={at_s!r}: give seconds from the start, 0 or more")


@dataclass(frozen=True)
class Fault:
    """A change of a link's settings for a while; times are seconds from the start of the timeline."""

    id: int
    at_s: float
    for_s: float | None
    """How long it lasts; None: until it is cancelled or the run ends."""
    changes: dict[str, Any] = field(hash=False)
    """The settings as they were asked for."""

    @property
    def end_s(self) -> float:
        """When it ends; infinite if nobody has said."""
        return math.inf if self.for_s is None else self.at_s + self.for_s

    @property
    def causes(self) -> tuple[str, ...]:
        """What a diagnosis would call it."""
        return causes_of(self.changes)


@dataclass(frozen=True)
class TimelineStep:
    """A fault began or ended."""

    at_s: float
    event: Literal["started", "ended"]
    fault: Fault


@dataclass(frozen=True, order=True)
class _Entry:
    at_s: float
    rank: int  # at one instant, ends come before starts, so that back-to-back faults do not overlap
    sequence: int
    fault: Fault = field(compare=False)


_END, _START = 0, 1


class Timeline:
    """Keeps the planned faults of one link and says which of them hold.

    Overlap: each fault governs the settings it names (and those that mean something only with them, see
    :func:`~calllab.network.settings.fault_members`).  Where running faults govern the same setting, the one
    that started last wins; when it ends, the one below it shows again, and below all faults the base.
    Faults that start at the same instant count as started in the order in which they were planned.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._running: dict[int, tuple[Fault, dict[str, Any]]] = {}
        self._gone: set[int] = set()
        self._count = 0

    @property
    def running(self) -> tuple[Fault, ...]:
        """The faults that hold now, the one that started first first."""
        return tuple(fault for fault, _ in self._running.values())

    @property
    def next_at_s(self) -> float:
        """When something happens next; infinite if nothing is planned."""
        while self._entries and self._entries[0].fault.id in self._gone:
            heapq.heappop(self._entries)
        return self._entries[0].at_s if self._entries else math.inf

    def plan(self, at_s: float, for_s: float | None, changes: dict[str, Any]) -> Fault:
        """Plan a fault and return it; it takes effect when :meth:`advance` reaches ``at_s``.

        Raises :exc:`~calllab.errors.InvalidSetting` if a setting or a time makes no sense.
        """
        check_time(at_s)
        if for_s is not None and not (_is_number(for_s) and 0.0 < for_s < math.inf):
            raise InvalidSetting(f"for_s={for_s!r}: give seconds, more than 0, or None for no end")
        fault_members(changes)
        self._count += 1
        fault = Fault(self._count, at_s, for_s, dict(changes))
        heapq.heappush(self._entries, _Entry(at_s, _START, fault.id, fault))
        if for_s is not None:
            heapq.heappush(self._entries, _Entry(fault.end_s, _END, fault.id, fault))
        return fault

    def is_over(self, fault: Fault) -> bool:
        """Whether ``fault`` has ended or was cancelled."""
        return fault.id in self._gone

    def cancel(self, fault: Fault, now_s: float) -> tuple[TimelineStep, ...]:
        """End a running fault now, or strike a planned one; nothing happens if it is over."""
        if fault.id in self._gone:
            return ()
        self._gone.add(fault.id)
        if self._running.pop(fault.id, None) is None:
            return ()
        return (TimelineStep(now_s, "ended", fault),)

    def advance(self, now_s: float) -> tuple[TimelineStep, ...]:
        """Begin and end the faults whose time has come, and return the steps in their order."""
        steps = []
        while self.next_at_s <= now_s:
            entry = heapq.heappop(self._entries)
            fault = entry.fault
            if entry.rank == _START:
                self._running[fault.id] = (fault, fault_members(fault.changes))
                steps.append(TimelineStep(entry.at_s, "started", fault))
            else:
                del self._running[fault.id]
                self._gone.add(fault.id)
                steps.append(TimelineStep(entry.at_s, "ended", fault))
        return tuple(steps)

    def over(self, base: LinkSettings) -> LinkSettings:
        """Return the settings that hold now, the running faults laid over ``base``."""
        settings = base
        for _, members in self._running.values():
            settings = settings.replace(**members)
        return settings
