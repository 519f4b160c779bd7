"""How much one user and one socket of the relay may do, measured on the caller's clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["RefusalRun", "RelayLimits", "TokenBucket"]

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class RelayLimits:
    """What the relay allows; the defaults suit people in calls, with room for bursts of candidates."""

    messages_per_s: float = 100.0
    """How fast a user's allowance of messages grows, over all of the user's devices."""
    burst: int = 300
    """The most messages a user may have saved up."""
    queued_bytes: int = _MIB
    """The most bytes that may wait for one socket; what does not fit is refused with recipient-slow."""
    devices_per_user: int = 16
    """The most sockets of one user; a message without a device named goes to each of them."""
    abuse_after_s: float = 10.0
    """How long a client may go on breaking the rules without a pause before its socket is closed."""
    abuse_after_refusals: int = 20_000
    """How many refusals without a pause close the socket sooner than that."""
    calm_s: float = 1.0
    """How long a pause without a refusal has to be to count as one."""

    def __post_init__(self) -> None:
        for name in (
            "messages_per_s",
            "burst",
            "queued_bytes",
            "devices_per_user",
            "abuse_after_s",
            "abuse_after_refusals",
            "calm_s",
        ):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"{name} is {value!r}: it must be greater than 0")


class TokenBucket:
    """An allowance that grows with time up to a limit, and is spent one at a time."""

    __slots__ = ("_at_s", "_burst", "_rate_per_s", "_tokens")

    def __init__(self, rate_per_s: float, burst: int, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = float(burst)
        self._at_s = now

    def take(self, now: float) -> bool:
        """Spend one token; False if there is none."""
        self._grow(now)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def is_full(self, now: float) -> bool:
        """Say whether nothing is remembered of the past: a new bucket would be the same."""
        self._grow(now)
        return self._tokens >= self._burst

    def _grow(self, now: float) -> None:
        # A clock that steps back gives nothing and takes nothing.
        elapsed_s = now - self._at_s
        self._at_s = now
        if elapsed_s > 0:
            self._tokens = min(float(self._burst), self._tokens + elapsed_s * self._rate_per_s)


class RefusalRun:
    """Tells one bad burst, which is answered and forgotten, from a client that never stops."""

    __slots__ = ("_count", "_last_s", "_limits", "_since_s")

    def __init__(self, limits: RelayLimits) -> None:
        self._limits = limits
        self._count = 0
        self._since_s = 0.0
        self._last_s = 0.0

    def is_abuse(self, now: float) -> bool:
        """Count a refusal; True if it is one too many without a pause."""
        if self._count == 0 or now - self._last_s > self._limits.calm_s:
            self._count = 0
            self._since_s = now
        self._count += 1
        self._last_s = now
        return (
            self._count > self._limits.abuse_after_refusals
            or now - self._since_s > self._limits.abuse_after_s
        )
