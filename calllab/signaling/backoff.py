"""How long to wait before the next attempt to reconnect."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Backoff", "BackoffSettings"]


@dataclass(frozen=True, kw_only=True)
class BackoffSettings:
    """Exponential growth up to a cap, each delay shortened at random so that clients spread out."""

    first_s: float = 0.25
    """The longest delay before the first attempt."""
    factor: float = 2.0
    """How much longer each delay may be than the one before."""
    cap_s: float = 10.0
    """The longest delay of all."""
    jitter: float = 0.5
    """The part of each delay that is random, 0 to 1."""
    stable_after_s: float = 5.0
    """A connection that held so long is forgiven: the delays start again with the first."""

    def __post_init__(self) -> None:
        if not (0 < self.first_s <= self.cap_s and self.factor >= 1 and 0 <= self.jitter <= 1):
            raise ValueError(f"{self!r}: need 0 < first_s <= cap_s, factor >= 1 and jitter within 0 to 1")


class Backoff:
    """Counts attempts and says how long to wait before each; no clock and no sleep of its own."""

    def __init__(self, settings: BackoffSettings, entropy: random.Random) -> None:
        self._settings = settings
        self._entropy = entropy
        self._longest_s = settings.first_s
        self.attempt = 0
        """The number of the attempt for which the latest delay was given; 0: none yet."""

    def next_delay_s(self, at_least_s: float = 0.0) -> float:
        """Return the delay before the next attempt; ``at_least_s`` is what the service asked for."""
        settings = self._settings
        longest_s = self._longest_s
        self.attempt += 1
        self._longest_s = min(settings.cap_s, longest_s * settings.factor)
        delay_s = longest_s * (1.0 - settings.jitter * self._entropy.random())
        return max(delay_s, at_least_s)

    def connected_for(self, held_s: float) -> None:
        """Take note of how long the connection held that is lost now."""
        if held_s >= self._settings.stable_after_s:
            self._longest_s = self._settings.first_s
        self.attempt = 0
