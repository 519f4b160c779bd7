"""The bottleneck: a capacity, and the queue in front of it."""

from __future__ import annotations

import math
import sys
from collections import deque

from calllab.network.codel import CoDel
from calllab.network.counters import LinkCounters
from calllab.network.settings import LinkSettings
from calllab.network.trace import DeliveryTrace, Opportunities

__all__ = ["Bottleneck"]


class Bottleneck:
    """Works out when each datagram has passed a link of limited capacity, or that it does not.

    Datagrams leave in the order they came.  What has been admitted keeps its time: a new rate counts from
    the end of the present backlog on, and without a rate newcomers still leave behind it.

    All is decided when a datagram comes.  That suits CoDel, which decides when one is dequeued, because it
    never takes what is behind into account, with one exception: a datagram is not dropped if hardly anything
    waits behind it.  Here what it found waiting when it came counts instead; in a queue that stands, the one
    is distributed like the other, and the number of drops is the same within a tenth or so.  What CoDel will
    drop takes room until its turn, and no capacity.

    :param counters: count what is dropped here.
    """

    __slots__ = ("_backlog", "_backlog_bytes", "_bucket", "_bytes_per_s", "_codel", "_counters", "_free_at",
                 "_is_limited", "_is_plain", "_max_bytes", "_max_packets", "_opportunities", "_overhead",
                 "_tokens", "_tokens_at", "_traces")  # fmt: skip

    def __init__(self, settings: LinkSettings, counters: LinkCounters) -> None:
        self._counters = counters
        # The datagrams that wait or are being sent: (when the last byte has left, bytes charged).
        self._backlog: deque[tuple[float, int]] = deque()
        self._backlog_bytes = 0
        self._free_at = -math.inf
        self._bucket = 0
        self._tokens = 0.0
        self._tokens_at = -math.inf
        self._codel: CoDel | None = None
        # Each trace it ever had, by its text: one that comes back has gone on meanwhile.
        self._traces: dict[str, Opportunities] = {}
        self._opportunities: Opportunities | None = None
        self.set(settings, -math.inf)

    def set(self, settings: LinkSettings, now: float) -> None:
        """Follow ``settings`` from ``now`` on; time goes on in a trace whether it is in effect or not."""
        if now > self._tokens_at:
            self._tokens, self._tokens_at = self._tokens_by(now), now
        self._bytes_per_s = math.inf if settings.rate_kbps is None else settings.rate_kbps * 125.0
        self._max_bytes = settings.queue_limit_bytes
        self._max_packets = sys.maxsize if settings.queue_packets is None else settings.queue_packets
        self._overhead = settings.overhead_bytes
        # A new bucket starts full; a known one keeps its level, as far as it still holds it.
        if not self._bucket:
            self._tokens = settings.burst_bytes
            self._tokens_at = self._free_at
        self._bucket = settings.burst_bytes
        self._tokens = min(self._tokens, self._bucket)
        if settings.trace is not None and settings.trace not in self._traces:
            self._traces[settings.trace] = Opportunities(DeliveryTrace.parse(settings.trace))
        self._opportunities = None if settings.trace is None else self._traces[settings.trace]
        self._is_limited = settings.rate_kbps is not None or settings.trace is not None
        if settings.queue_discipline != "codel" or not self._is_limited:
            self._codel = None
        elif self._codel is None:
            self._codel = CoDel(settings)
        else:
            self._codel.set(settings)
        self._is_plain = self._codel is None and self._opportunities is None and not self._bucket

    def queued_bytes(self, now: float) -> int:
        """Return how many bytes, with overhead, have not left yet."""
        while self._backlog and self._backlog[0][0] <= now:
            self._backlog_bytes -= self._backlog.popleft()[1]
        return self._backlog_bytes

    def admit(self, now: float, size: int) -> float | None:
        """Return when a datagram of ``size`` bytes of payload has left, or None if it is dropped."""
        free_at = self._free_at
        if not self._is_limited:
            return now if now > free_at else free_at
        charge = size + self._overhead
        backlog = self._backlog
        # What has left is taken off the backlog only when it matters, which is cheaper: when all has, or when
        # what comes seems to find no room.
        if free_at <= now:
            start = now
            waiting = charge
            backlog.clear()
        else:
            start = free_at
            waiting = self._backlog_bytes + charge
            if waiting > self._max_bytes or len(backlog) >= self._max_packets:
                waiting = self.queued_bytes(now) + charge
                if waiting > self._max_bytes or len(backlog) >= self._max_packets:
                    self._counters.queue_dropped += 1
                    return None
        self._backlog_bytes = waiting
        if self._is_plain:
            leaves = start + charge / self._bytes_per_s
        else:
            begins, leaves = self._schedule(start, now, charge)
            if self._codel is not None:
                behind = self.queued_bytes(now) - charge - backlog[0][1] if backlog else 0
                if self._codel.drops(begins, begins - now, behind):
                    self._counters.codel_dropped += 1
                    self._free_at = begins
                    backlog.append((begins, charge))
                    return None
            self._spend(start, leaves, charge)
        self._free_at = leaves
        backlog.append((leaves, charge))
        return leaves

    def _schedule(self, start: float, now: float, charge: int) -> tuple[float, float]:
        """Return when a datagram is dequeued and when it has left, without using capacity yet."""
        if self._opportunities is not None:
            return self._opportunities.schedule(start, now, charge)
        if not self._bucket:
            return start, start + charge / self._bytes_per_s
        tokens = self._tokens_by(start)
        if tokens >= charge:
            return start, start
        leaves = start + (charge - tokens) / self._bytes_per_s
        return leaves, leaves

    def _spend(self, start: float, leaves: float, charge: int) -> None:
        if self._opportunities is not None:
            self._opportunities.carry(charge)
        elif self._bucket:
            tokens = self._tokens_by(start)
            self._tokens = max(0.0, tokens - charge)
            self._tokens_at = leaves

    def _tokens_by(self, at: float) -> float:
        if at <= self._tokens_at:
            return self._tokens
        return min(self._bucket, self._tokens + (at - self._tokens_at) * self._bytes_per_s)
