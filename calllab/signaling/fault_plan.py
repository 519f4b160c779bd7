"""Planned faults of signaling on the running loop's clock, for all the channels of one run."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from calllab.signaling.fault_setting import SignalingFault
from calllab.signaling.fault_timeline import PlannedFault, SignalingStep, SignalingTimeline
from calllab.signaling.faults import Fault, HoldBack, make_fault
from calllab.signaling.lane import Lane

__all__ = ["FaultPoint", "SignalingEvent", "SignalingFaults"]

_log = logging.getLogger(__name__)


class FaultPoint(Protocol):
    """Where faults happen to one user's signaling: the two lanes of a connection."""

    @property
    def lanes(self) -> tuple[Lane[Any], Lane[Any]]:
        """What goes out and what comes in."""

    @property
    def user_id(self) -> str | None:
        """Whose connection it is; None: not known yet."""

    def wake(self) -> None:
        """Look again at what may go on."""

    def interrupt(self, reason: str) -> None:
        """Cut the connection, and keep it away until :meth:`resume`."""

    def resume(self) -> None:
        """Let the connection come back."""


@dataclass(frozen=True)
class SignalingEvent:
    """Something about the planned faults changed; ground truth is made of these."""

    at_s: float
    """Seconds from the epoch."""
    event: Literal["planned", "started", "ended", "cancelled"]
    planned: PlannedFault
    count: int = 0
    """How many messages it has happened to by then, or how many connections it has cut."""


class SignalingFaults:
    """Plans faults of signaling, and applies them to the channels that are attached.

    A message meets them once: on its way out if its sender's channel is attached, else on its way in.

    Args:
        seed: the seed of the run; each fault has a random source of its own, by its place in the plan.
        epoch: the loop time at which the timeline is at 0 s; None: the time of the first use.

    """

    def __init__(self, *, seed: int = 0, epoch: float | None = None) -> None:
        self.events: list[SignalingEvent] = []
        """Everything that changed so far."""
        self._seed = seed
        self._epoch = epoch
        self._timeline = SignalingTimeline()
        self._points: list[FaultPoint] = []
        self._users: Counter[str | None] = Counter()
        self._faults: dict[int, Fault] = {}
        self._cuts: Counter[str] = Counter()
        self._cut_counts: Counter[int] = Counter()
        self._listeners: list[Callable[[SignalingEvent], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> tuple[PlannedFault, ...]:
        """The faults that are on now."""
        return self._timeline.running

    @property
    def users(self) -> Counter[str | None]:
        """The users whose channels are attached; live."""
        return self._users

    def count(self, planned: PlannedFault) -> int:
        """Return how many messages a fault has happened to so far, or how many connections it has cut."""
        fault = self._faults.get(planned.id)
        return self._cut_counts[planned.id] if fault is None else fault.count

    def is_cut(self, user_id: str | None) -> bool:
        """Say whether a user's connection has to stay away now."""
        self._advance()
        return user_id is not None and self._cuts[user_id] > 0

    def on_event(self, listener: Callable[[SignalingEvent], None]) -> Callable[[], None]:
        """Call ``listener`` with each change from now on; returns a function that stops this."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def plan(self, fault: SignalingFault) -> PlannedFault:
        """Plan a fault; one whose time is past begins now."""
        now_s = self._advance()
        planned = self._timeline.plan(fault, now_s)
        self._tell(SignalingEvent(now_s, "planned", planned))
        self._advance()
        self._arm()
        return planned

    def cancel(self, planned: PlannedFault) -> None:
        """End a fault that is on, or strike one that is planned; nothing happens if it is over."""
        now_s = self._advance()
        if self._timeline.is_over(planned):
            return
        steps = self._timeline.cancel(planned, now_s)
        self._take(steps)
        if not steps:
            self._tell(SignalingEvent(now_s, "cancelled", planned))
        self._arm()

    def attach(self, point: FaultPoint) -> None:
        """Let the faults happen to what passes ``point`` too; it is called back until :meth:`detach`."""
        self._advance()
        self._points.append(point)
        self._users[point.user_id] += 1
        for lane in point.lanes:
            lane.faults.extend(self._faults[p.id] for p in self._timeline.running if p.id in self._faults)
        if self.is_cut(point.user_id):
            point.interrupt("a planned fault keeps this connection away")

    def detach(self, point: FaultPoint) -> None:
        """Forget a point; what its lanes have delayed or held is its own affair."""
        if point not in self._points:
            return
        self._points.remove(point)
        self._users[point.user_id] -= 1
        if not self._users[point.user_id]:
            del self._users[point.user_id]
        for lane in point.lanes:
            lane.faults[:] = [fault for fault in lane.faults if not fault.is_everywhere]

    def close(self) -> None:
        """End all faults: what is held is released, what is cut may come back; may be called again."""
        if self._loop is not None:
            for planned in self._timeline.running:
                self.cancel(planned)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Steps

    def _take(self, steps: tuple[SignalingStep, ...]) -> None:
        for step in steps:
            if step.planned.fault.kind == "disconnect":
                self._cut_or_restore(step)
            elif step.event == "started":
                self._begin(step.planned)
            else:
                self._end(self._faults[step.planned.id])
            count = 0 if step.event == "started" else self.count(step.planned)
            self._tell(SignalingEvent(step.at_s, step.event, step.planned, count))

    def _begin(self, planned: PlannedFault) -> None:
        digest = hashlib.blake2b(f"{self._seed}/signaling/{planned.id}".encode(), digest_size=16).digest()
        fault = make_fault(planned.fault, random.Random(int.from_bytes(digest, "big")))
        self._faults[planned.id] = fault
        for point in self._points:
            for lane in point.lanes:
                lane.faults.append(fault)

    def _end(self, fault: Fault) -> None:
        for point in self._points:
            for lane in point.lanes:
                if fault in lane.faults:
                    lane.faults.remove(fault)
                if isinstance(fault, HoldBack):
                    lane.release(fault)
            point.wake()

    def _cut_or_restore(self, step: SignalingStep) -> None:
        user_id = step.planned.fault.peer
        assert user_id is not None
        points = [point for point in self._points if point.user_id == user_id]
        if step.event == "started":
            self._cuts[user_id] += 1
            for point in points:
                self._cut_counts[step.planned.id] += 1
                point.interrupt("cut by a planned fault")
            return
        self._cuts[user_id] -= 1
        if not self._cuts[user_id]:
            for point in points:
                point.resume()

    def _tell(self, event: SignalingEvent) -> None:
        self.events.append(event)
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                _log.exception("a listener of signaling faults failed")

    # Time

    def _now_s(self) -> float:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        if self._epoch is None:
            self._epoch = now
        return now - self._epoch

    def _advance(self, at_least_s: float = -math.inf) -> float:
        now_s = max(self._now_s(), at_least_s)
        if self._timeline.next_at_s <= now_s:
            self._take(self._timeline.advance(now_s))
        return now_s

    def _arm(self) -> None:
        """Set the one timer to what comes next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        next_s = self._timeline.next_at_s
        if next_s < math.inf:
            assert self._loop is not None and self._epoch is not None
            self._timer = self._loop.call_at(self._epoch + next_s, self._fire, next_s)

    def _fire(self, due_s: float) -> None:
        self._timer = None
        # A loop may fire a timer early by the resolution of its clock.
        self._advance(due_s)
        self._arm()
