"""Rate limits by key: how often an address or a user may try something."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

__all__ = ["RateLimiter"]

_MAX_KEYS: Final = 10_000


@dataclass(slots=True)
class _Allowance:
    tokens: float
    at_s: float


class RateLimiter:
    """Token buckets by key, the least recently used ones forgotten beyond ``max_keys``.

    Args:
        rate_per_s: how fast an allowance grows back.
        burst: the most that can be saved up, and what a new key starts with.
        max_keys: how many keys are remembered; who fills the table with others' keys gains a fresh start for
            the oldest of them, and no more.

    """

    def __init__(self, *, rate_per_s: float, burst: int, max_keys: int = _MAX_KEYS) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self.max_keys = max_keys
        self._allowances: OrderedDict[Hashable, _Allowance] = OrderedDict()

    def __len__(self) -> int:
        return len(self._allowances)

    def take(self, key: Hashable, now: float) -> float:
        """Spend one of the key's tokens; return 0, or the seconds until there is one."""
        if wait_s := self.wait_s(key, now):
            return wait_s
        self._grown(key, now).tokens -= 1.0
        return 0.0

    def give_back(self, key: Hashable) -> None:
        """Return a token that was taken for something that turned out not to count."""
        allowance = self._allowances.get(key)
        if allowance is not None:
            allowance.tokens = min(float(self.burst), allowance.tokens + 1.0)

    def wait_s(self, key: Hashable, now: float) -> float:
        """Return the seconds until the key has a token, 0 if it has one now; spends nothing."""
        missing = 1.0 - self._grown(key, now).tokens
        return max(0.0, missing / self.rate_per_s)

    def _grown(self, key: Hashable, now: float) -> _Allowance:
        allowance = self._allowances.get(key)
        if allowance is None:
            while len(self._allowances) >= self.max_keys:
                self._allowances.popitem(last=False)
            allowance = self._allowances[key] = _Allowance(float(self.burst), now)
            return allowance
        self._allowances.move_to_end(key)
        elapsed_s = max(0.0, now - allowance.at_s)
        allowance.at_s = now
        allowance.tokens = min(float(self.burst), allowance.tokens + elapsed_s * self.rate_per_s)
        return allowance
