"""How long a channel waits before it tries again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calllab.signaling.backoff import Backoff, BackoffSettings


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_delays_grow_to_the_cap_within_their_jitter(seed: int, attempts: int) -> None:
    """Each delay lies between half and all of an exponential that stops at the cap."""
    settings = BackoffSettings(first_s=0.25, factor=2, cap_s=10, jitter=0.5)
    backoff = Backoff(settings, random.Random(seed))
    for attempt in range(1, attempts + 1):
        longest_s = min(10.0, 0.25 * 2 ** (attempt - 1))
        assert longest_s / 2 <= backoff.next_delay_s() <= longest_s
        assert backoff.attempt == attempt


def test_the_service_may_ask_for_more_patience() -> None:
    """A Retry-After of the service is a lower bound."""
    backoff = Backoff(BackoffSettings(), random.Random(1))
    assert backoff.next_delay_s(30.0) == 30.0
    assert backoff.next_delay_s(0.0) <= 0.5


def test_only_a_connection_that_held_is_forgiven() -> None:
    """A connection that dies at once does not start the delays anew; one that held does."""
    backoff = Backoff(BackoffSettings(jitter=0.0), random.Random(1))
    assert [backoff.next_delay_s() for _ in range(3)] == [0.25, 0.5, 1.0]
    backoff.connected_for(0.1)
    assert backoff.attempt == 0
    assert backoff.next_delay_s() == 2.0
    backoff.connected_for(60.0)
    assert backoff.next_delay_s() == 0.25


@pytest.mark.parametrize("wrong", [{"first_s": 0}, {"first_s": 20}, {"factor": 0.5}, {"jitter": 1.5}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    """Delays are positive, grow, and lie below their cap."""
    with pytest.raises(ValueError, match="first_s"):
        BackoffSettings(**wrong)
