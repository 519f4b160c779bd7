"""The delay stage: a constant, and jitter of a given distribution and correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist, fmean, pstdev
from typing import Final

from calllab.network.settings import JitterDistribution, LinkSettings

__all__ = ["JITTER_STEPS", "DelayModel"]

JITTER_STEPS: Final = 8192
"""How many values a jitter distribution is tabulated with."""

PARETO_SHAPE: Final = 3.0


@cache
def jitter_table(distribution: JitterDistribution) -> Sequence[float]:
    """Return the inverse distribution function, tabulated, scaled to mean 0 and standard deviation 1."""
    points = [(step + 0.5) / JITTER_STEPS for step in range(JITTER_STEPS)]
    match distribution:
        case "normal":
            normal = NormalDist()
            values = [normal.inv_cdf(point) for point in points]
        case "uniform":
            values = points
        case "exponential":
            values = [-math.log(1.0 - point) for point in points]
        case "pareto":
            values = [(1.0 - point) ** (-1.0 / PARETO_SHAPE) for point in points]
    mean, deviation = fmean(values), pstdev(values)
    return tuple((value - mean) / deviation for value in values)


class DelayModel:
    """Works out how long each datagram travels."""

    __slots__ = ("_correlation", "_delay_s", "_fresh_weight", "_jitter_s", "_previous", "_table")

    def __init__(self, settings: LinkSettings) -> None:
        self._previous: float | None = None
        self.set(settings)

    def set(self, settings: LinkSettings) -> None:
        """Follow ``settings`` from the next datagram on."""
        self._delay_s = settings.delay_ms / 1000.0
        self._jitter_s = settings.jitter_ms / 1000.0
        self._correlation = settings.jitter_correlation
        self._fresh_weight = math.sqrt(1.0 - settings.jitter_correlation**2)
        self._table = jitter_table(settings.jitter_distribution) if settings.jitter_ms else ()
        if not settings.jitter_ms:
            self._previous = None

    def delay_s(self, draw: int) -> float:
        """Return the delay of the next datagram, never negative; ``draw`` is uniform below JITTER_STEPS."""
        if not self._jitter_s:
            return self._delay_s
        value = self._table[draw]
        if self._correlation:
            # The first value stands alone: weighing it with a zero before it would make it too small.
            if self._previous is not None:
                value = self._correlation * self._previous + self._fresh_weight * value
            self._previous = value
        delay_s = self._delay_s + self._jitter_s * value
        return delay_s if delay_s > 0.0 else 0.0
