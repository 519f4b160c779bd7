"""CoDel, the controlled-delay queue discipline of RFC 8289."""

from __future__ import annotations

from math import sqrt
from typing import Final

from calllab.network.settings import LinkSettings

__all__ = ["CoDel"]

_RECENT_INTERVALS: Final = 16
_MAX_PACKET_BYTES: Final = 1514


class CoDel:
    """Decides at the head of a queue which datagrams to drop, so that the queue does not stand.

    Theory.  A queue that absorbs a burst is good, one that stays is not.  What tells them apart is the least
    time that anything spent in it over one interval.  When that has been above the target for an interval,
    the drop state begins: it drops one datagram, and then further ones at ever shorter distances (the
    interval over the square root of their number), until the time in the queue falls below the target.

    Each datagram is shown once, in the order and with the time of its dequeuing.
    """

    __slots__ = ("_above_from", "_count", "_drop_at", "_dropping", "_interval_s", "_last_count", "_target_s")

    def __init__(self, settings: LinkSettings) -> None:
        self._above_from = 0.0  # when the time in the queue will have been too long; 0: it is not
        self._dropping = False
        self._drop_at = 0.0
        self._count = 0
        self._last_count = 0
        self.set(settings)

    def set(self, settings: LinkSettings) -> None:
        """Follow ``settings`` from the next datagram on; where it stands, it stays."""
        self._target_s = settings.codel_target_ms / 1000.0
        self._interval_s = settings.codel_interval_ms / 1000.0

    def drops(self, at: float, sojourn_s: float, queued_bytes: int) -> bool:
        """Whether the datagram that is dequeued ``at`` is dropped, after ``sojourn_s`` in the queue.

        ``queued_bytes`` are waiting besides; a queue of no more than one large datagram is left alone.
        """
        if sojourn_s < self._target_s or queued_bytes <= _MAX_PACKET_BYTES:
            self._above_from = 0.0
            self._dropping = False
            return False
        if self._above_from == 0.0:
            self._above_from = at + self._interval_s
            self._dropping = False
            return False
        if at < self._above_from:
            self._dropping = False
            return False
        if self._dropping:
            if at < self._drop_at:
                return False
            self._count += 1
            self._drop_at += self._interval_s / sqrt(self._count)
            return True
        # If the last drop state ended a short while ago, go on about where it was (RFC 8289 section 4.2).
        since_last = self._count - self._last_count
        recent = at - self._drop_at < _RECENT_INTERVALS * self._interval_s
        self._count = self._last_count = since_last if since_last > 1 and recent else 1
        self._drop_at = at + self._interval_s / sqrt(self._count)
        self._dropping = True
        return True
