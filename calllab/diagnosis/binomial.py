"""Where in a row of counts a rate stands out, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["Episode", "clopper_pearson", "dispersion_p", "scan"]


@dataclass(frozen=True)
class Episode:
    """A run of intervals, ``first`` to ``last`` inclusive, whose rate stands out."""

    first: int
    last: int
    hits: int
    trials: int
    log_likelihood_ratio: float


def scan(
    hits: Sequence[int], trials: Sequence[int], *, background: float, threshold: float, longest: int
) -> list[Episode]:
    """Return the runs in which ``hits`` of ``trials`` exceed ``background``, the clearest first.

    A binomial likelihood-ratio scan over all runs of up to ``longest`` intervals; each found run is taken
    out and the rest scanned again, until none reaches ``threshold``.  A run that bridges a calm stretch is
    two runs: it is cut where the background explains the stretch better than the rate of the run does, by
    the same threshold.
    """
    found: list[Episode] = []
    k = np.asarray(hits, dtype=np.float64)
    n = np.asarray(trials, dtype=np.float64)
    free = np.ones(len(k), dtype=bool)
    while True:
        best = _best(k, n, free, background, longest)
        if best is None or best.log_likelihood_ratio <= threshold:
            return found
        if (calm := _calm_stretch(k, n, best, background, threshold)) is not None:
            free[calm] = False
            continue
        found.append(best)
        # One interval of margin: the edges of an episode are shared with its neighbours.
        free[max(0, best.first - 1) : best.last + 2] = False


def _calm_stretch(
    k: NDArray[np.float64], n: NDArray[np.float64], run: Episode, background: float, threshold: float
) -> slice | None:
    """Return the stretch inside a run for which the background speaks most, if it speaks clearly."""
    rate = run.hits / run.trials
    if rate >= 1:
        return None
    hits, trials = k[run.first : run.last + 1], n[run.first : run.last + 1]
    for_background = hits * np.log(background / rate)
    for_background += (trials - hits) * np.log((1 - background) / (1 - rate))
    best, stretch, total, start = 0.0, (0, 0), 0.0, 0
    for index, value in enumerate(for_background):
        if total <= 0:
            total, start = 0.0, index
        total += float(value)
        if total > best:
            best, stretch = total, (start, index)
    if best <= threshold:
        return None
    return slice(run.first + stretch[0], run.first + stretch[1] + 1)


def _best(
    k: NDArray[np.float64], n: NDArray[np.float64], free: NDArray[np.bool_], background: float, longest: int
) -> Episode | None:
    best: Episode | None = None
    sum_k, sum_n = np.concatenate(([0.0], np.cumsum(k))), np.concatenate(([0.0], np.cumsum(n)))
    taken = np.concatenate(([0], np.cumsum(~free)))
    for length in range(1, min(longest, len(k)) + 1):
        hits = sum_k[length:] - sum_k[:-length]
        trials = sum_n[length:] - sum_n[:-length]
        usable = (taken[length:] == taken[:-length]) & (trials > 0) & (hits > background * trials)
        if not usable.any():
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.where(usable, hits / trials, background)
            rest = trials - hits
            ratio = hits * np.log(rate / background)
            ratio += np.where(rest > 0, rest * np.log((1 - rate) / (1 - background)), 0.0)
        ratio = np.where(usable, ratio, -np.inf)
        at = int(np.argmax(ratio))
        if best is None or ratio[at] > best.log_likelihood_ratio:
            best = Episode(at, at + length - 1, int(hits[at]), int(trials[at]), float(ratio[at]))
    return best


def clopper_pearson(hits: int, trials: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a rate (exact; Clopper and Pearson 1934)."""
    interval = stats.binomtest(hits, trials).proportion_ci(0.95, "exact")
    return float(interval.low), float(interval.high)


def dispersion_p(hits: Sequence[int], trials: Sequence[int]) -> float:
    """Return how likely counts so uneven are if each trial is hit independently (chi-squared)."""
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    k, n = k[n > 0], n[n > 0]
    if len(k) < 3 or not 0 < k.sum() < n.sum():
        return 1.0
    rate = k.sum() / n.sum()
    statistic = float(np.sum((k - n * rate) ** 2 / (n * rate * (1 - rate))))
    return float(stats.chi2.sf(statistic, len(k) - 1))
