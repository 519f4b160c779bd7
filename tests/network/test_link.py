from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from calllab.network import Link, LinkSettings, gilbert, gilbert_elliott
from tests.network.helpers import STEADY, lost_indices, offer_all

SHARES = st.floats(0, 1)

SETTINGS = st.builds(
    LinkSettings,
    loss=SHARES,
    loss_before_queue=st.booleans(),
    delay_ms=st.floats(0, 200),
    jitter_ms=st.floats(0, 100),
    jitter_distribution=st.sampled_from(["normal", "uniform", "exponential", "pareto"]),
    jitter_correlation=st.floats(0, 0.99),
    allow_reordering=st.booleans(),
    reorder=SHARES,
    duplicate=SHARES,
    rate_kbps=st.none() | st.floats(1, 10_000),
    queue_bytes=st.none() | st.integers(0, 20_000),
    queue_packets=st.none() | st.integers(1, 50),
    queue_discipline=st.sampled_from(["drop-tail", "codel"]),
    burst_bytes=st.integers(0, 5_000),
    blackout=st.booleans(),
) | st.builds(gilbert_elliott, st.floats(0.001, 1), st.floats(0.001, 1))
SETTINGS |= st.builds(
    LinkSettings,
    loss=st.floats(0.3, 1),
    loss_block=st.integers(2, 30),
    trace=st.sampled_from(["1 5*2 30", "40", "0*3 0 2"]),
    queue_discipline=st.sampled_from(["drop-tail", "codel"]),
)

ORDERLY = SETTINGS.map(lambda settings: settings.replace(allow_reordering=False, reorder=0.0))

STEPS = st.lists(
    st.tuples(st.floats(0, 0.1), st.integers(0, 1500), st.none() | ORDERLY), min_size=1, max_size=60
)


@STEADY
@given(st.lists(st.tuples(st.floats(0, 0.1), st.integers(0, 1500), st.none() | SETTINGS), max_size=60))
def test_every_datagram_is_accounted_for(steps: list[tuple[float, int, LinkSettings | None]]) -> None:
    """However the settings change, deliveries are offers and copies less what was dropped."""
    link = Link(seed=1)
    now, deliveries, delivered_bytes = 0.0, 0, 0
    for wait_s, size, settings in steps:
        now += wait_s
        if settings is not None:
            link.set(settings)
        times = link.offer(now, size)
        assert all(at >= now for at in times), "nothing arrives before it is sent"
        assert len(times) <= 2
        deliveries += len(times)
        delivered_bytes += size * len(times)
    counters = link.counters
    assert counters.offered == len(steps)
    assert counters.offered_bytes == sum(size for _, size, _ in steps)
    assert counters.delivered == deliveries == counters.offered + counters.duplicated - counters.dropped
    assert counters.delivered_bytes == delivered_bytes


@STEADY
@given(STEPS)
def test_order_is_kept_through_live_changes(steps: list[tuple[float, int, LinkSettings | None]]) -> None:
    """Without reordering asked for, no change of settings lets a datagram overtake another."""
    link = Link(seed=2)
    now, latest = 0.0, 0.0
    for wait_s, size, settings in steps:
        now += wait_s
        if settings is not None:
            link.set(settings)
        for at in link.offer(now, size):
            assert at >= latest
            latest = at


@STEADY
@given(SETTINGS, st.integers(0, 2**31))
def test_the_same_seed_decides_alike(settings: LinkSettings, seed: int) -> None:
    """Seed, name, settings and input determine everything."""
    assert offer_all(Link(settings, seed=seed), 50) == offer_all(Link(settings, seed=seed), 50)


def test_names_and_seeds_tell_links_apart() -> None:
    """Two links of one run, or one link of two runs, lose different datagrams."""
    settings = LinkSettings(loss=0.3)
    patterns = {
        (seed, name): tuple(not times for _, times in offer_all(Link(settings, seed=seed, name=name), 200))
        for seed in (1, 2)
        for name in ("alice->bob", "bob->alice")
    }
    assert len(set(patterns.values())) == 4


OTHER_STAGES: list[dict[str, Any]] = [
    {"delay_ms": 50, "jitter_ms": 20, "jitter_correlation": 0.5},
    {"duplicate": 0.3},
    {"reorder": 0.2},
    {"rate_kbps": 10_000},
    {"loss_before_queue": True},
    {"allow_reordering": True, "jitter_ms": 10, "duplicate": 0.1, "reorder": 0.1},
]


@pytest.mark.parametrize("loss", [LinkSettings(loss=0.1), gilbert(0.1, 4)], ids=["uniform", "bursts"])
@pytest.mark.parametrize("others", OTHER_STAGES)
def test_which_datagrams_are_lost_depends_on_their_index_alone(
    loss: LinkSettings, others: dict[str, Any]
) -> None:
    """Switching other stages on leaves the pattern of losses as it was."""
    expected = lost_indices(loss)
    assert 300 < len(expected) < 700
    assert lost_indices(loss.replace(**others)) == expected


def test_a_full_queue_and_a_blackout_do_not_shift_the_pattern() -> None:
    """Datagrams that something else drops still use up their share of chance."""
    expected = set(lost_indices(LinkSettings(loss=0.2)))
    narrow = set(lost_indices(LinkSettings(loss=0.2, rate_kbps=400, queue_bytes=5000)))
    assert narrow < expected, "what the queue dropped cannot be lost on top, and nothing else is"
    assert len(narrow) > 300

    link = Link(LinkSettings(loss=0.2), seed=7)
    lost = []
    for index in range(1000):
        link.set(LinkSettings(loss=0.2, blackout=300 <= index < 500))
        before = link.counters.lost
        link.offer(index * 0.01, 1000)
        if link.counters.lost > before:
            lost.append(index)
    assert lost == sorted(index for index in expected if index < 300 or 500 <= index < 1000)


@pytest.mark.parametrize("share", [0.01, 0.08, 0.5])
@pytest.mark.parametrize("member", ["loss", "duplicate", "reorder"])
def test_shares_are_met(member: str, share: float) -> None:
    """The realised share lies in the central 99.9 % of the binomial distribution, for a fixed seed."""
    count = 50_000
    link = Link(LinkSettings().replace(**{member: share}), seed=11)
    offer_all(link, count)
    counters = link.counters
    got = {"loss": counters.lost, "duplicate": counters.duplicated, "reorder": counters.held_back}[member]
    low, high = stats.binom.interval(0.999, count, share)
    assert low <= got <= high


def bursts(lost: list[int]) -> list[int]:
    """Return the lengths of the runs of consecutive losses."""
    runs = [1]
    for earlier, later in itertools.pairwise(lost):
        if later == earlier + 1:
            runs[-1] += 1
        else:
            runs.append(1)
    return runs


@pytest.mark.parametrize(("loss", "mean_burst"), [(0.02, 3), (0.1, 8), (0.3, 1.5)])
def test_bursts_are_as_long_as_asked(loss: float, mean_burst: float) -> None:
    """Mean loss and mean burst of a Gilbert link come within 5 % over many bursts."""
    count = 400_000
    lost = lost_indices(gilbert(loss, mean_burst), seed=5, count=count)
    assert len(lost) / count == pytest.approx(loss, rel=0.05)
    assert statistics.fmean(bursts(lost)) == pytest.approx(mean_burst, rel=0.05)


def test_a_short_fault_of_bursts_has_the_right_mean() -> None:
    """A chain that has just been switched on is already in its long-run balance."""
    settings = gilbert(0.3, 20)
    runs, length = 3000, 10
    lost = sum(len(lost_indices(settings, seed=seed, count=length)) for seed in range(runs))
    assert lost / (runs * length) == pytest.approx(0.3, rel=0.1)


def test_a_bad_state_may_lose_only_some() -> None:
    """With loss in both states, the mean over both is what was asked for."""
    settings = gilbert_elliott(0.05, 0.2, loss_good=0.01, loss_bad=0.5)
    lost = lost_indices(settings, seed=3, count=200_000)
    assert len(lost) / 200_000 == pytest.approx(settings.loss, rel=0.05)


def delays(settings: LinkSettings, count: int = 40_000, *, spacing_s: float = 10.0) -> list[float]:
    """Return each datagram's time under way; by default, so far apart that none waits for another."""
    return [times[0] - at for at, times in offer_all(Link(settings, seed=4), count, spacing_s=spacing_s)]


@pytest.mark.parametrize("delay_ms", [0.1, 37.5, 600])
def test_a_constant_delay_is_met(delay_ms: float) -> None:
    """Without jitter each datagram takes the delay, within a tenth of a millisecond."""
    seen = delays(LinkSettings(delay_ms=delay_ms), 1000)
    assert max(seen) - 1e-4 < delay_ms / 1000 < min(seen) + 1e-4


@pytest.mark.parametrize("distribution", ["normal", "uniform", "exponential", "pareto"])
@pytest.mark.parametrize(("allow_reordering", "spacing_s"), [(False, 10.0), (True, 0.001)])
def test_jitter_has_its_mean_and_deviation(
    distribution: Any, allow_reordering: bool, spacing_s: float
) -> None:
    """Whatever the shape, the mean stays the delay, within 0.1 ms, and the deviation is the jitter: at any
    pace where datagrams may overtake each other, else where they are further apart than the jitter is wide.
    """
    settings = LinkSettings(
        delay_ms=100, jitter_ms=10, jitter_distribution=distribution, allow_reordering=allow_reordering
    )
    seen = delays(settings, spacing_s=spacing_s)
    assert statistics.fmean(seen) == pytest.approx(0.100, abs=0.0001)
    assert statistics.pstdev(seen) == pytest.approx(0.010, rel=0.06 if distribution == "pareto" else 0.02)
    skew = stats.skew(seen)
    assert (skew > 1) == (distribution in ("exponential", "pareto"))


@pytest.mark.parametrize(
    ("spacing_s", "mean_ms", "deviation_ms"), [(0.02, 100.5, 9.5), (0.005, 105.0, 7.5), (0.001, 112.1, 5.7)]
)
def test_keeping_the_order_shifts_the_delay(spacing_s: float, mean_ms: float, deviation_ms: float) -> None:
    """In a dense stream that keeps its order, each waits for the latest before it: the delay is longer and
    steadier than ``delay_ms`` and ``jitter_ms`` say, as their description warns.
    """
    seen = delays(LinkSettings(delay_ms=100, jitter_ms=10), spacing_s=spacing_s)
    assert statistics.fmean(seen) * 1000 == pytest.approx(mean_ms, abs=0.3)
    assert statistics.pstdev(seen) * 1000 == pytest.approx(deviation_ms, abs=0.2)


def test_jitter_correlation_is_met() -> None:
    """Consecutive delays correlate as asked, and their deviation does not change with it."""
    seen = delays(LinkSettings(delay_ms=100, jitter_ms=10, jitter_correlation=0.75))
    assert statistics.correlation(seen[:-1], seen[1:]) == pytest.approx(0.75, abs=0.02)
    assert statistics.pstdev(seen) == pytest.approx(0.010, rel=0.05)


def test_overtaking_is_only_by_request() -> None:
    """Jitter reorders if that is allowed, and not otherwise."""
    settings = LinkSettings(delay_ms=50, jitter_ms=20)

    def times(settings: LinkSettings) -> list[float]:
        return [times[0] for _, times in offer_all(Link(settings, seed=6), 500)]

    assert times(settings) == sorted(times(settings))
    loose = times(settings.replace(allow_reordering=True))
    assert loose != sorted(loose)


def test_held_back_datagrams_are_overtaken_by_those_behind() -> None:
    """A held-back datagram arrives late by the hold, and does not hold up the others."""
    link = Link(LinkSettings(delay_ms=5, reorder=0.1, reorder_hold_ms=25), seed=8)
    seen = [round((times[0] - at) * 1000, 6) for at, times in offer_all(link, 2000)]
    assert set(seen) == {5.0, 30.0}
    assert seen.count(30.0) == link.counters.held_back > 100


@pytest.mark.parametrize("burst_bytes", [0, 4000])
@pytest.mark.parametrize("rate_kbps", [50, 2_000, 40_000])
def test_the_rate_is_met(rate_kbps: float, burst_bytes: int) -> None:
    """Under overload, what passes with its overhead is the rate, within 1 %."""
    settings = LinkSettings(rate_kbps=rate_kbps, burst_bytes=burst_bytes, queue_bytes=20_000)
    link = Link(settings)
    spacing_s = 1000 * 8 / (rate_kbps * 1000) / 1.5
    passed = [times[0] for _, times in offer_all(link, 5000, spacing_s=spacing_s) if times]
    span_s = passed[-1] - passed[100]
    got_kbps = (len(passed) - 101) * (1000 + 28) * 8 / span_s / 1000
    assert got_kbps == pytest.approx(rate_kbps, rel=0.01)


def test_a_burst_passes_at_once_and_the_rest_at_the_rate() -> None:
    """A full token bucket lets its depth through without delay."""
    link = Link(LinkSettings(rate_kbps=80, burst_bytes=3000, overhead_bytes=0))
    times = [link.offer(0.0, 1000)[0] for _ in range(5)]
    assert times == pytest.approx([0.0, 0.0, 0.0, 0.1, 0.2])


@pytest.mark.parametrize(("before_kbps", "after_kbps", "at_once"), [(8, 8000, 10), (80, 8, 100), (8, 8, 10)])
def test_credit_is_worth_what_the_rate_was_when_it_was_earned(
    before_kbps: float, after_kbps: float, at_once: int
) -> None:
    """A bucket that fills for ten seconds at one rate holds just that when the rate becomes another."""
    settings = LinkSettings(rate_kbps=before_kbps, burst_bytes=100_000, queue_bytes=10**6)
    link = Link(settings)
    assert [link.offer(0.0, 972) for _ in range(100)] == [(0.0,)] * 100, "a new bucket is full"
    link.set(settings.replace(rate_kbps=after_kbps), 10.0)
    passed = [link.offer(10.0, 972)[0] for _ in range(100)]
    assert sum(at == 10.0 for at in passed) == at_once
    assert passed[-1] - 10.0 == pytest.approx((100 - at_once) * 8 / after_kbps)


def test_a_smaller_bucket_spills_and_a_larger_one_fills_at_its_rate() -> None:
    """What a bucket holds beyond its new depth is gone, and more depth brings no credit by itself."""
    settings = LinkSettings(rate_kbps=8, burst_bytes=10_000, queue_bytes=10**6)
    link = Link(settings)
    link.set(settings.replace(burst_bytes=2000), 1.0)
    link.set(settings.replace(burst_bytes=50_000), 2.0)
    assert [link.offer(5.0, 972)[0] for _ in range(6)] == pytest.approx([5.0] * 5 + [6.0])


def test_the_queue_is_counted_in_bytes_and_drops_at_its_tail() -> None:
    """What does not fit is dropped, room comes back as bytes leave, and an empty queue takes anything."""
    link = Link(LinkSettings(rate_kbps=8, queue_bytes=3000, overhead_bytes=0))  # 1000 bytes a second
    assert [bool(link.offer(0.0, 1000)) for _ in range(5)] == [True, True, True, False, False]
    assert link.queued_bytes(0.0) == 3000
    assert not link.offer(0.99, 1000)
    assert link.offer(1.0, 1000) == pytest.approx((4.0,))
    assert link.offer(10.0, 9000) == pytest.approx((19.0,)), "bigger than the queue, but the queue is empty"
    assert link.counters.queue_dropped == 3


def test_the_default_queue_holds_300_ms() -> None:
    """Without a size, the queue's delay is bounded by time, not by memory."""
    link = Link(LinkSettings(rate_kbps=2000))
    waits = [times[0] - at for at, times in offer_all(link, 5000, spacing_s=0.001) if times]
    assert 0.28 < max(waits) < 0.31


def test_lost_datagrams_use_capacity_unless_lost_before_the_queue() -> None:
    """Loss on the air comes after the bottleneck; loss on the access spares it."""
    settings = LinkSettings(loss=0.5, rate_kbps=100, queue_bytes=10_000)
    after, before = Link(settings), Link(settings.replace(loss_before_queue=True))
    for link in (after, before):
        offer_all(link, 2000, spacing_s=0.041)  # twice the capacity
    assert before.counters.delivered / after.counters.delivered == pytest.approx(2.0, rel=0.1)


def test_a_new_rate_does_not_retime_what_is_queued() -> None:
    """What was admitted at the old rate keeps its time, and the new rate counts from behind it."""
    link = Link(LinkSettings(rate_kbps=8, overhead_bytes=0))
    assert [link.offer(0.0, 1000)[0] for _ in range(2)] == [1.0, 2.0]
    link.set(LinkSettings(rate_kbps=80, overhead_bytes=0))
    assert link.offer(0.5, 1000) == pytest.approx((2.1,))
    assert link.queued_bytes(0.5) == 3000
    link.set(LinkSettings())
    assert link.offer(0.6, 1000) == pytest.approx((2.1,)), "without a rate, but still behind the others"
    assert link.offer(2.2, 1000) == (2.2,)


def test_less_delay_does_not_let_later_datagrams_overtake() -> None:
    """When the delay falls, newcomers wait behind those that are still under way."""
    link = Link(LinkSettings(delay_ms=200))
    assert link.offer(0.0, 100) == (0.2,)
    link.set(LinkSettings())
    assert link.offer(0.1, 100) == (0.2,)
    assert link.offer(0.3, 100) == (0.3,)


def test_a_blackout_takes_what_is_offered_and_not_what_is_under_way() -> None:
    """A blackout drops from its first moment to its last, and counts it."""
    link = Link(LinkSettings(delay_ms=100))
    assert link.offer(0.0, 100) == (0.1,)
    link.set(LinkSettings(blackout=True))
    assert link.offer(0.05, 100) == ()
    link.set(LinkSettings())
    assert link.offer(0.06, 100) == (0.1,)
    assert link.counters.blackout_dropped == 1
    assert link.counters.loss_share == pytest.approx(1 / 3)


def test_time_that_runs_backwards_stands_still() -> None:
    """A clock that steps back never yields deliveries in the past of earlier ones."""
    link = Link(LinkSettings(rate_kbps=100))
    first = link.offer(5.0, 100)[0]
    assert link.offer(1.0, 100)[0] > first


def test_a_clean_link_delivers_at_once() -> None:
    """Without settings, nothing happens to a datagram."""
    link = Link()
    assert offer_all(link, 10) == [(index * 0.01, (index * 0.01,)) for index in range(10)]
    assert not math.isnan(link.counters.loss_share)
