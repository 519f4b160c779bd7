"""The rate limiter against a plain model, and its bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calllab_server.limits import RateLimiter

_STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 30, allow_nan=False)), max_size=60)


@given(_STEPS)
def test_never_more_than_the_burst_and_the_rate(steps: list[tuple[str, float]]) -> None:
    """In any stretch of time a key gets at most the burst and what has grown back, whatever others do."""
    limiter = RateLimiter(rate_per_s=0.5, burst=3)
    now = 0.0
    granted: dict[str, list[float]] = {"a": [], "b": []}
    for key, pause_s in steps:
        now += pause_s
        if limiter.take(key, now) == 0:
            granted[key].append(now)
    for times in granted.values():
        for first, start_s in enumerate(times):
            for last in range(first, len(times)):
                allowance = 3 + 0.5 * (times[last] - start_s)
                assert last - first + 1 <= allowance + 1e-6


@given(_STEPS)
def test_who_waits_as_told_is_let_in(steps: list[tuple[str, float]]) -> None:
    """The seconds that a refusal names are enough, and nothing shorter is."""
    limiter = RateLimiter(rate_per_s=0.5, burst=3)
    now = 0.0
    for key, pause_s in steps:
        now += pause_s
        if wait_s := limiter.take(key, now):
            assert limiter.wait_s(key, now + wait_s * 0.9) > 0
            now += wait_s + 1e-6
            assert limiter.take(key, now) == 0


def test_given_back_tokens_count_no_further_than_the_burst() -> None:
    """What turned out not to count is returned, and returning saves up nothing."""
    limiter = RateLimiter(rate_per_s=1, burst=2)
    for _ in range(10):
        assert limiter.take("key", 0.0) == 0
        limiter.give_back("key")
    limiter.give_back("key")
    assert [limiter.take("key", 0.0) for _ in range(3)] == [0, 0, pytest.approx(1.0)]


def test_a_clock_that_steps_back_gives_nothing() -> None:
    """Going back in time and forward again grows no allowance twice."""
    limiter = RateLimiter(rate_per_s=1, burst=1)
    assert limiter.take("key", 100.0) == 0
    assert limiter.take("key", 50.0) > 0
    assert limiter.take("key", 50.5) > 0


def test_memory_is_bounded() -> None:
    """A million addresses take the room of the last ones alone."""
    limiter = RateLimiter(rate_per_s=1, burst=1, max_keys=100)
    limiter.take("first", 0.0)
    for number in range(1000):
        limiter.take(number, 0.0)
    assert len(limiter) == 100
    assert limiter.take(999, 0.0) > 0
