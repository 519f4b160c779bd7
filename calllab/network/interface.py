"""The network interface of one peer: its link on real datagrams, changed live and on a timeline.

Every datagram that the sockets of a peer send passes the peer's link (its egress); what they receive is only
counted, for it has already passed the link of the other side.  One heap holds what is under way, and one
timer of the running loop wakes for the next datagram or the next step of the timeline, whichever is first.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from calllab.network.counters import InterfaceCounters, LinkCounters
from calllab.network.link import Link
from calllab.network.settings import CLEAN, LinkSettings
from calllab.network.timeline import Fault, Timeline, TimelineStep, check_time

if TYPE_CHECKING:
    from calllab.network.virtual_host import VirtualHost

__all__ = ["Deliver", "NetworkEvent", "NetworkInterface"]

MAX_UNDER_WAY_BYTES: Final = 64 * 1024 * 1024
"""More than this under way at once is refused: a fast sender on a long link must not eat the memory."""

Address: TypeAlias = tuple[str, int]
Deliver: TypeAlias = Callable[[bytes, Address], None]
"""Hands a datagram on: to the operating system on the way out, to the ICE agent on the way in."""


@dataclass(frozen=True)
class NetworkEvent:
    """Something about the network changed; the ground truth of a recording is made of these."""

    at_s: float
    """Seconds from the epoch.  Datagrams offered from this moment on meet the new settings."""
    event: Literal["planned", "started", "ended", "cancelled", "set", "network-changed"]
    fault: Fault | None
    settings: LinkSettings
    """What the link does from now on."""
    realised: LinkCounters | None = None
    """At ``ended``: what the link did while the fault lasted."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    at: float
    sequence: int
    socket: object
    data: bytes
    address: Address
    deliver: Deliver

    def __lt__(self, other: _UnderWay) -> bool:
        return (self.at, self.sequence) < (other.at, other.sequence)


class NetworkInterface:
    """Impairs what a peer sends, at the datagram endpoint of its ICE agent.

    It belongs to the event loop that runs when it is first used, and all its methods are called there.  The
    sockets are known by identity only.  :meth:`close` it at the end.

    :param settings: what the link does as long as no fault is on.
    :param seed: the seed of the run.
    :param name: the link's name, like ``"alice->bob"``.
    :param epoch: the loop time at which the timeline is at 0 s; None: the time of the first use.
    :param host: the host of a virtual network that its sockets are on; None: this machine.
    """

    def __init__(
        self,
        settings: LinkSettings | None = None,
        *,
        seed: int = 0,
        name: str = "link",
        epoch: float | None = None,
        host: VirtualHost | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.interface_counters = InterfaceCounters()
        self.events: list[NetworkEvent] = []
        """Everything that changed so far."""
        self._base = settings if settings is not None else CLEAN
        self._link = Link(self._base, seed=seed, name=name)
        self._timeline = Timeline()
        self._listeners: list[Callable[[NetworkEvent], None]] = []
        self._at_start: dict[int, LinkCounters] = {}
        # Sockets by identity; the references keep the identities from being used again.
        self._alive: dict[int, object] = {}
        self._dead: dict[int, object] = {}
        self._under_way: list[_UnderWay] = []
        self._under_way_bytes = 0
        self._sequence = 0
        self._last_delivered = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._epoch = epoch
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._closed = False

    # What it does, and what it did.

    @property
    def settings(self) -> LinkSettings:
        """What the link does now, faults included."""
        return self._link.settings

    @property
    def base_settings(self) -> LinkSettings:
        """What the link does as long as no fault is on."""
        return self._base

    @property
    def counters(self) -> LinkCounters:
        """What the link did so far; live, so copy() it to keep it."""
        return self._link.counters

    @property
    def running_faults(self) -> tuple[Fault, ...]:
        """The faults that are on now."""
        return self._timeline.running

    @property
    def under_way(self) -> int:
        """How many datagrams wait for their time."""
        return len(self._under_way)

    def realised(self, fault: Fault) -> LinkCounters | None:
        """Return what the link did since ``fault`` began, or None if it is not on."""
        start = self._at_start.get(fault.id)
        return None if start is None else self._link.counters - start

    def on_event(self, listener: Callable[[NetworkEvent], None]) -> Callable[[], None]:
        """Call ``listener`` with each change from now on; return a function that ends this."""
        self._listeners.append(listener)

        def remove() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return remove

    # Changing it.

    def set(self, **changes: Any) -> LinkSettings:
        """Change the base settings now and return what the link does then.

        A running fault that governs one of the settings keeps it until it ends.  What is under way keeps its
        time and its place.  Raises :exc:`~calllab.errors.InvalidSetting`, and changes nothing then.
        """
        base = self._base.replace(**changes)
        now_s = self._now() - self._start()
        self._advance(now_s)
        self._base = base
        self._apply(now_s)
        self._tell(NetworkEvent(now_s, "set", None, self.settings))
        return self.settings

    def fault(self, *, at_s: float | None = None, for_s: float | None = None, **changes: Any) -> Fault:
        """Plan a fault: ``changes`` to the settings, from ``at_s`` for ``for_s`` seconds.

        A time that is past, or None, means now; without ``for_s`` the fault stays until :meth:`cancel` or
        :meth:`close`.  How faults overlap: :class:`~calllab.network.timeline.Timeline`.  Raises
        :exc:`~calllab.errors.InvalidSetting`, and plans nothing then.
        """
        now_s = self._now() - self._start()
        self._advance(now_s)
        if at_s is not None:
            check_time(at_s)
        starts_s = max(0.0, now_s, at_s or 0.0)
        fault = self._timeline.plan(starts_s, for_s, changes)
        self._tell(NetworkEvent(now_s, "planned", fault, self.settings))
        self._advance(now_s)
        self._arm()
        return fault

    def cancel(self, fault: Fault) -> None:
        """End a fault that is on, or strike one that is planned; nothing happens if it is over."""
        now_s = self._now() - self._start()
        self._advance(now_s)
        if self._timeline.is_over(fault):
            return
        steps = self._timeline.cancel(fault, now_s)
        self._take(steps)
        if not steps:
            self._tell(NetworkEvent(now_s, "cancelled", fault, self.settings))
        self._arm()

    def change_network(self) -> None:
        """Kill all sockets known so far, for good and in both directions, as when Wi-Fi becomes cellular.

        What they have under way is lost too.  Sockets opened afterwards work; a virtual host has another
        address then.
        """
        now_s = self._now() - self._start()
        self._advance(now_s)
        self._dead.update(self._alive)
        self._alive.clear()
        if self.host is not None:
            self.host.change_address()
        self._tell(NetworkEvent(now_s, "network-changed", None, self.settings))

    def close(self) -> None:
        """End the faults, drop what is under way, and from then on drop everything; may be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._loop is not None:
            now_s = self._loop.time() - self._start()
            self._advance(now_s)
            for fault in self._timeline.running:
                self._take(self._timeline.cancel(fault, now_s))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.interface_counters.dead_dropped += len(self._under_way)
        self._under_way.clear()
        self._under_way_bytes = 0
        self._alive.clear()
        self._dead.clear()

    # The datagram seam.

    def opened(self, socket: object) -> None:
        """Make a socket known before it sends or receives, so that a network change finds it."""
        if not self._closed and id(socket) not in self._dead:
            self._alive[id(socket)] = socket

    def send(self, socket: object, data: bytes, address: Address, deliver: Deliver) -> None:
        """Take a datagram on its way out, and call ``deliver`` when, and as often as, the link says."""
        if self._refuses(socket):
            return
        if self._under_way_bytes + len(data) > MAX_UNDER_WAY_BYTES:
            self.interface_counters.overflow_dropped += 1
            return
        now = self._now()
        self._advance(now - self._start())
        sequence = self._sequence
        self._sequence += 1
        for at in self._link.offer(now, len(data)):
            datagram = _UnderWay(at, sequence, socket, data, address, deliver)
            if at <= now and (not self._under_way or self._under_way[0].at > at):
                self._hand_over(datagram)
            else:
                heapq.heappush(self._under_way, datagram)
                self._under_way_bytes += len(data)
        self._arm()

    def receive(self, socket: object, data: bytes, address: Address, deliver: Deliver) -> None:
        """Take a datagram that came in, and deliver it at once unless its socket is dead."""
        if self._refuses(socket):
            return
        self.interface_counters.received += 1
        self.interface_counters.received_bytes += len(data)
        deliver(data, address)

    def closed(self, socket: object) -> None:
        """Forget a socket that its owner closed; what it has under way is lost."""
        self._alive.pop(id(socket), None)
        self._dead.pop(id(socket), None)

    def _refuses(self, socket: object) -> bool:
        if self._closed or id(socket) in self._dead:
            self.interface_counters.dead_dropped += 1
            return True
        self._alive[id(socket)] = socket
        return False

    def _hand_over(self, datagram: _UnderWay) -> None:
        counters = self.interface_counters
        if id(datagram.socket) not in self._alive:
            counters.dead_dropped += 1
            return
        counters.sent += 1
        counters.sent_bytes += len(datagram.data)
        if datagram.sequence < self._last_delivered:
            counters.reordered += 1
        else:
            self._last_delivered = datagram.sequence
        datagram.deliver(datagram.data, datagram.address)

    # Time.

    def _now(self) -> float:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def _start(self) -> float:
        if self._epoch is None:
            self._epoch = self._now()
        return self._epoch

    def _advance(self, now_s: float) -> None:
        if self._timeline.next_at_s <= now_s:
            self._take(self._timeline.advance(now_s))

    def _take(self, steps: tuple[TimelineStep, ...]) -> None:
        """Put steps of the timeline into effect; no datagram was offered since the first of them."""
        if not steps:
            return
        self._apply(steps[-1].at_s)
        for step in steps:
            realised = None
            if step.event == "started":
                self._at_start[step.fault.id] = self._link.counters.copy()
            else:
                realised = self._link.counters - self._at_start.pop(step.fault.id)
            self._tell(NetworkEvent(step.at_s, step.event, step.fault, self.settings, realised))

    def _apply(self, now_s: float) -> None:
        settings = self._timeline.over(self._base)
        if settings != self._link.settings:
            self._link.set(settings, self._start() + now_s)

    def _tell(self, event: NetworkEvent) -> None:
        self.events.append(event)
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception as exc:
                self._report("a listener of a network interface failed", exc)

    def _report(self, message: str, exc: Exception) -> None:
        if self._loop is not None:
            self._loop.call_exception_handler({"message": f"{self.name}: {message}", "exception": exc})

    def _arm(self) -> None:
        """Set the one timer to what comes next."""
        if self._closed or self._loop is None:
            return
        at = self._start() + self._timeline.next_at_s
        if self._under_way:
            at = min(at, self._under_way[0].at)
        if self._timer is not None:
            if at == self._timer_at:
                return
            self._timer.cancel()
            self._timer = None
        if at < math.inf:
            self._timer_at = at
            self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        # A loop may fire a timer early by the resolution of its clock.
        now = max(self._now(), self._timer_at)
        self._advance(now - self._start())
        while self._under_way and self._under_way[0].at <= now:
            datagram = heapq.heappop(self._under_way)
            self._under_way_bytes -= len(datagram.data)
            try:
                self._hand_over(datagram)
            except Exception as exc:
                # One socket's error must not hold up the datagrams of the others.
                self.interface_counters.failed += 1
                self._report("a socket refused a datagram", exc)
        self._arm()
