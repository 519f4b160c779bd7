"""The scan and its statistics."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calllab.diagnosis.binomial import clopper_pearson, dispersion_p, scan


def test_the_interval_is_the_published_one() -> None:
    """Clopper and Pearson's interval for 8 of 100, and its ends at none and all."""
    assert clopper_pearson(8, 100) == pytest.approx((0.0352, 0.1516), abs=1e-4)
    assert clopper_pearson(0, 50)[0] == 0.0
    assert clopper_pearson(50, 50)[1] == 1.0


@given(
    counts=st.lists(
        st.integers(0, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), max_size=40
    )
)
def test_episodes_never_overlap_and_always_exceed_the_background(counts: list[tuple[int, int]]) -> None:
    """Whatever the counts: episodes are disjoint, hold their own sums and stand out as far as was asked."""
    hits, trials = [k for k, _ in counts], [n for _, n in counts]
    episodes = scan(hits, trials, background=0.01, threshold=5.0, longest=20)
    taken: set[int] = set()
    for episode in episodes:
        span = set(range(episode.first, episode.last + 1))
        assert not span & taken
        taken |= span
        assert episode.hits == sum(hits[i] for i in span)
        assert episode.trials == sum(trials[i] for i in span)
        assert episode.hits > 0.01 * episode.trials
        assert episode.log_likelihood_ratio > 5.0


def test_even_counts_are_no_bursts_and_uneven_ones_are() -> None:
    """Independent losses pass the test of dispersion nearly always; all and nothing in turn never do."""
    chance = random.Random(1)
    calm = [
        dispersion_p([sum(chance.random() < 0.08 for _ in range(100)) for _ in range(10)], [100] * 10)
        for _ in range(100)
    ]
    assert sum(p < 0.001 for p in calm) <= 2
    assert dispersion_p([0, 30] * 5, [100] * 10) < 1e-6
    assert dispersion_p([], []) == 1.0
