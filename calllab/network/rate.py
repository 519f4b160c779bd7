"""The bottleneck: a rate, a token bucket and a drop-tail queue counted in bytes."""

from __future__ import annotations

import math
from collections import deque

from calllab.network.settings import LinkSettings

__all__ = ["Bottleneck"]


class Bottleneck:
    """Works out when each datagram has passed a link of limited rate, or that it finds no room.

    Datagrams leave in the order they came.  What has been admitted keeps its time: a new rate counts from
    the end of the present backlog on, and without a rate newcomers still leave behind it.
    """

    __slots__ = ("_backlog", "_backlog_bytes", "_bucket", "_bytes_per_s", "_free_at", "_limit", "_overhead",
                 "_tokens", "_tokens_at")  # fmt: skip

    def __init__(self, settings: LinkSettings) -> None:
        # The datagrams that wait or are being sent: (when the last byte has left, bytes charged).
        self._backlog: deque[tuple[float, int]] = deque()
        self._backlog_bytes = 0
        self._free_at = -math.inf
        self._bucket = 0
        self._tokens = 0.0
        self._tokens_at = 0.0
        self.set(settings)

    def set(self, settings: LinkSettings) -> None:
        """Follow ``settings`` from the next datagram on."""
        self._bytes_per_s = math.inf if settings.rate_kbps is None else settings.rate_kbps * 125.0
        self._limit = settings.queue_limit_bytes
        self._overhead = settings.overhead_bytes
        # A new bucket starts full; a known one keeps its level, as far as it still holds it.
        if not self._bucket:
            self._tokens = settings.burst_bytes
            self._tokens_at = self._free_at
        self._bucket = settings.burst_bytes
        self._tokens = min(self._tokens, self._bucket)

    def queued_bytes(self, now: float) -> int:
        """Return how many bytes, with overhead, have not left yet."""
        while self._backlog and self._backlog[0][0] <= now:
            self._backlog_bytes -= self._backlog.popleft()[1]
        return self._backlog_bytes

    def admit(self, now: float, size: int) -> float | None:
        """Return when a datagram of ``size`` bytes of payload has left, or None if the queue is full."""
        start = now if now > self._free_at else self._free_at
        if self._bytes_per_s == math.inf:
            return start
        charge = size + self._overhead
        backlog = self.queued_bytes(now)
        if backlog and backlog + charge > self._limit:
            return None
        leaves = self._leaves_at(start, charge)
        self._free_at = leaves
        self._backlog.append((leaves, charge))
        self._backlog_bytes += charge
        return leaves

    def _leaves_at(self, start: float, charge: int) -> float:
        if not self._bucket:
            return start + charge / self._bytes_per_s
        if start > self._tokens_at:
            refill = (start - self._tokens_at) * self._bytes_per_s
            self._tokens = min(self._bucket, self._tokens + refill)
            self._tokens_at = start
        if self._tokens >= charge:
            self._tokens -= charge
            return start
        leaves = start + (charge - self._tokens) / self._bytes_per_s
        self._tokens = 0.0
        self._tokens_at = leaves
        return leaves
