from __future__ import annotations

import random
import statistics
from collections import Counter, deque
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from calllab.network import LinkSettings, causes_of
from calllab.network.codel import CoDel
from calllab.network.link import Link
from tests.network.helpers import STEADY, lost_indices, offer_all

CODEL: dict[str, Any] = {"queue_discipline": "codel"}
TRACE_12MS = " ".join(str(at) for at in range(12, 1201, 12))  # 1 Mbit/s: 1500 bytes each 12 ms


# Packets as the measure of a queue


def test_a_queue_may_be_limited_in_packets() -> None:
    """So many wait or are being sent, whatever their size; room comes back with each that has left."""
    link = Link(LinkSettings(rate_kbps=8, queue_packets=3, overhead_bytes=0))  # 1000 bytes a second
    assert [bool(link.offer(0.0, size)) for size in (1000, 10, 10, 1)] == [True, True, True, False]
    assert link.offer(1.0, 60_000) == pytest.approx((61.02,)), "no bytes are counted besides"
    assert not link.offer(1.0, 1)
    assert link.counters.queue_dropped == 2


def test_packets_and_bytes_limit_a_queue_together() -> None:
    """With both limits, the one that is reached first drops."""
    link = Link(LinkSettings(rate_kbps=8, queue_packets=3, queue_bytes=1500, overhead_bytes=0))
    assert [bool(link.offer(0.0, size)) for size in (1000, 600, 400, 50, 50)] == [
        True,
        False,
        True,
        True,
        False,
    ]


# CoDel


def waits_ms(link: Link, rate_kbps: float, overload: float, count: int = 6000) -> list[float]:
    """Overload a link evenly with datagrams of 1000 bytes; return the time each one that passes took."""
    spacing_s = 1028 * 8 / (rate_kbps * 1000) / overload
    return [(times[0] - at) * 1000 for at, times in offer_all(link, count, spacing_s=spacing_s) if times]


@pytest.mark.parametrize("rate_kbps", [2_000, 10_000])
def test_codel_keeps_the_standing_queue_near_its_target(rate_kbps: float) -> None:
    """Under a steady overload of 5 %, CoDel's queue stays of the order of its target, drop-tail's is full."""
    settings = LinkSettings(rate_kbps=rate_kbps, queue_bytes=int(rate_kbps * 125 * 0.8))
    tail = waits_ms(Link(settings), rate_kbps, 1.05, 30_000)
    link = Link(settings.replace(**CODEL))
    codel = waits_ms(link, rate_kbps, 1.05, 30_000)
    serialised_ms = 1028 * 8 / rate_kbps
    assert max(tail) == pytest.approx(800, abs=2 * serialised_ms)
    settled = codel[len(codel) // 2 :]
    assert statistics.median(settled) - serialised_ms < 25
    # Two datagrams, one being sent and one waiting, are left alone even beyond the target.
    assert min(settled) - serialised_ms < 5 + 2 * serialised_ms
    assert link.counters.queue_dropped == 0
    assert link.counters.codel_dropped == 30_000 - len(codel)


def test_codel_wastes_no_capacity() -> None:
    """What it drops leaves the wire to those behind: under overload the rate is still met."""
    link = Link(LinkSettings(rate_kbps=2000, **CODEL))
    passed = [times[0] for _, times in offer_all(link, 6000, spacing_s=0.003) if times]
    got_kbps = (len(passed) - 101) * 1028 * 8 / (passed[-1] - passed[100]) / 1000
    assert link.counters.codel_dropped > 500
    assert got_kbps == pytest.approx(2000, rel=0.01)


def test_codel_leaves_bursts_and_light_traffic_alone() -> None:
    """A queue that comes and goes within an interval is no standing one, and nothing is dropped."""
    link = Link(LinkSettings(rate_kbps=2000, **CODEL))
    for burst in range(50):
        assert all(link.offer(burst * 0.2, 1000) for _ in range(18))  # 74 ms of queue
    assert link.counters.delivered == 900


def test_codel_does_not_drop_the_only_one_that_waits() -> None:
    """On a slow link where one datagram takes longer than the target, a queue of one is left alone."""
    link = Link(LinkSettings(rate_kbps=100, **CODEL))  # 1000 bytes take 82 ms
    for pair in range(100):
        assert all(link.offer(pair * 0.17, 1000) for _ in range(2))


def test_codel_drops_by_its_control_law() -> None:
    """RFC 8289 section 3.2: after one interval, then at the interval over the square root of the count."""
    codel = CoDel(LinkSettings(codel_target_ms=5, codel_interval_ms=100))
    drops = [t for t in range(10, 1000) if codel.drops(t / 1000, 0.02, 10_000)]
    assert drops[0] == 110
    gaps = [later - earlier for earlier, later in pairwise(drops)]
    assert gaps == pytest.approx([100 / n**0.5 for n in range(1, len(gaps) + 1)], abs=1.01)
    assert not codel.drops(1.0, 0.004, 10_000), "below the target it ends at once"
    assert not any(codel.drops(t / 1000, 0.02, 10_000) for t in range(1001, 1101))
    resumed = [t for t in range(1101, 1300) if codel.drops(t / 1000, 0.02, 10_000)]
    assert len(resumed) > 4, "soon after, it goes on at the pace where it was"


def codel_at_the_head(
    arrivals: list[tuple[float, int]], bytes_per_s: float, target_s: float = 0.005, interval_s: float = 0.1
) -> list[float]:
    """Return the times in the queue of what passes a CoDel queue that decides when it dequeues.

    This is the other way to build one, after the pseudocode of RFC 8289 section 5: a queue of what has really
    come by then, which knows what waits behind the datagram that it looks at.
    """
    queue: deque[tuple[float, int]] = deque()
    queued_bytes = 0
    coming = deque(arrivals)
    passed: list[float] = []
    now = above_from = drop_at = 0.0
    dropping, count, last_count = False, 0, 0

    def take() -> tuple[tuple[float, int] | None, bool]:
        nonlocal above_from, queued_bytes
        if not queue:
            above_from = 0.0
            return None, False
        head = queue.popleft()
        queued_bytes -= head[1]
        if now - head[0] < target_s or queued_bytes <= 1514:
            above_from = 0.0
            return head, False
        if above_from == 0.0:
            above_from = now + interval_s
            return head, False
        return head, now >= above_from

    while coming or queue:
        if not queue:
            now = max(now, coming[0][0])
        while coming and coming[0][0] <= now:
            queued_bytes += coming[0][1]
            queue.append(coming.popleft())
        head, may_drop = take()
        if dropping:
            if not may_drop:
                dropping = False
            while dropping and now >= drop_at:
                count += 1
                head, may_drop = take()
                if may_drop:
                    drop_at += interval_s / count**0.5
                else:
                    dropping = False
        elif may_drop:
            head, may_drop = take()
            dropping = True
            since = count - last_count
            count = last_count = since if since > 1 and now - drop_at < 16 * interval_s else 1
            drop_at = now + interval_s / count**0.5
        if head is not None:
            passed.append(now - head[0])
            now += head[1] / bytes_per_s
    return passed


@pytest.mark.parametrize("rate_kbps", [500, 2000, 20_000])
@pytest.mark.parametrize("load", [0.9, 1.05, 1.3])
def test_deciding_on_arrival_does_what_deciding_at_the_head_does(rate_kbps: float, load: float) -> None:
    """Irregular traffic meets as many drops, and waits as long, as where all is decided at the head.

    The two look at different neighbours of a datagram, so they agree on average only; least on a slow link,
    where the rule about the last large datagram in the queue decides most.
    """
    chance = random.Random(5)
    now, arrivals = 0.0, []
    for _ in range(10_000):
        size = chance.choice([200, 700, 1200])
        now += chance.expovariate(rate_kbps * 125 * load / 700)
        arrivals.append((now, size))
    expected = codel_at_the_head(arrivals, rate_kbps * 125)
    link = Link(LinkSettings(rate_kbps=rate_kbps, queue_bytes=10**8, overhead_bytes=0, **CODEL))
    waits = [
        times[0] - at - size / (rate_kbps * 125) for at, size in arrivals if (times := link.offer(at, size))
    ]
    assert link.counters.codel_dropped == pytest.approx(10_000 - len(expected), rel=0.12, abs=20)
    assert statistics.fmean(waits) == pytest.approx(statistics.fmean(expected), rel=0.1, abs=0.001)


def test_codel_can_come_and_go_without_moving_what_is_queued() -> None:
    """What was decided stands: the order is kept, and nobody leaves earlier than the wire allows."""
    plain = LinkSettings(rate_kbps=2000, queue_bytes=10**6)
    link = Link(plain)
    leaves: list[float] = []
    for index in range(4000):
        if index % 500 == 0:
            link.set(plain.replace(**CODEL) if index % 1000 else plain)
        leaves += link.offer(index * 0.003, 1000)
    wire_s = 1028 * 8 / 2e6
    assert all(later - earlier >= wire_s - 1e-9 for earlier, later in pairwise(leaves))
    assert link.counters.codel_dropped > 10


# A trace as the capacity


def test_a_datagram_goes_at_the_next_opportunity_and_small_ones_share_it() -> None:
    """Fifteen hundred bytes go at each moment of the trace, from several datagrams or a part of one."""
    link = Link(LinkSettings(trace="10 20 40", overhead_bytes=0))
    assert link.offer(100.0, 700) == pytest.approx((100.010,)), "the trace begins with the first datagram"
    assert link.offer(100.0, 700) == pytest.approx((100.010,))
    assert link.offer(100.0, 700) == pytest.approx((100.020,)), "100 bytes in the first, the rest in the next"
    assert link.offer(100.0, 1500) == pytest.approx((100.040,))
    assert link.offer(100.0, 1500) == pytest.approx((100.050,)), "600 bytes were left, and the trace loops"
    assert link.offer(100.0, 3000) == pytest.approx((100.080,))


def test_unused_opportunities_are_gone() -> None:
    """What nothing waited for cannot be caught up on."""
    link = Link(LinkSettings(trace="10 20*3 30", overhead_bytes=0))
    assert link.offer(0.0, 100) == pytest.approx((0.010,))
    assert link.offer(0.011, 1500) == pytest.approx((0.020,))
    assert link.offer(0.011, 3000) == pytest.approx((0.020,)), "three at one moment"
    assert link.offer(0.011, 1500) == pytest.approx((0.030,))
    assert link.offer(0.0605, 1500) == pytest.approx((0.070,)), "two loops later"


@pytest.mark.parametrize("discipline", ["drop-tail", "codel"])
def test_a_trace_is_used_to_the_full_under_overload(discipline: str) -> None:
    """Under overload, exactly the bytes of the trace pass, loop after loop."""
    link = Link(LinkSettings(trace=TRACE_12MS, queue_discipline=discipline))  # type: ignore[arg-type]
    passed = [times[0] for _, times in offer_all(link, 4000, spacing_s=0.005) if times]
    got_kbps = (len(passed) - 51) * 1028 * 8 / (passed[-1] - passed[50]) / 1000
    assert got_kbps == pytest.approx(1000, rel=0.01)
    assert (link.counters.codel_dropped > 100) == (discipline == "codel")


def test_codel_works_on_a_trace_too() -> None:
    """The queue before an uneven capacity stays short as well."""
    trace = " ".join(f"{at}*3" for at in range(9, 9001, 9))  # 4 Mbit/s, in threes
    tail = waits_ms(Link(LinkSettings(trace=trace)), 4000, 1.1)
    codel = waits_ms(Link(LinkSettings(trace=trace, **CODEL)), 4000, 1.1)
    assert statistics.median(tail[2000:]) > 250
    assert statistics.median(codel[2000:]) < 60


@STEADY
@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=20).map(sorted),
    st.lists(st.tuples(st.floats(0, 0.1), st.integers(0, 4000)), min_size=1, max_size=60),
    st.sampled_from(["drop-tail", "codel"]),
)
def test_no_opportunity_carries_more_than_it_can(
    times_ms: list[int], steps: list[tuple[float, int]], discipline: str
) -> None:
    """At each moment of a trace at most its bytes go, in order, and only at such moments."""
    length_ms = times_ms[-1]
    settings = LinkSettings(
        trace=" ".join(map(str, times_ms)),
        queue_discipline=discipline,  # type: ignore[arg-type]
        queue_bytes=10**6,
        overhead_bytes=0,
    )
    link = Link(settings)
    now = begin = 5.0
    carried: Counter[int] = Counter()
    latest = 0.0
    total = 0
    for wait_s, size in steps:
        now += wait_s
        if total == 0:
            begin = now
            total = 1
        for at in link.offer(now, size):
            assert at >= max(now, latest) - 1e-9
            latest = at
            since_ms = round((at - begin) * 1000, 6)
            assert since_ms == pytest.approx(round(since_ms)), "only at moments of the trace"
            moment = round(since_ms)
            assert moment % length_ms in {t % length_ms for t in times_ms}
            carried[moment] += size
    # A datagram counts where it ends, so what is carried up to a moment bounds it.
    so_far, room = 0, 0
    for moment in range(max(carried, default=0) + 1):
        opportunities = sum(moment >= t and (moment - t) % length_ms == 0 for t in times_ms)
        room += opportunities * 1500
        so_far += carried[moment]
        assert so_far <= room


def test_a_trace_that_goes_on_keeps_its_place() -> None:
    """Another setting changed meanwhile does not begin the trace anew; another trace does."""
    settings = LinkSettings(trace="10 30", overhead_bytes=0)
    link = Link(settings)
    assert link.offer(0.0, 1500) == pytest.approx((0.010,))
    link.set(settings.replace(delay_ms=100))
    assert link.offer(0.015, 1500) == pytest.approx((0.130,))
    link.set(LinkSettings(trace="7", overhead_bytes=0))
    assert link.offer(0.200, 1500) == pytest.approx((0.207,))
    link.set(LinkSettings(rate_kbps=8, overhead_bytes=0))
    assert link.offer(0.200, 1000) == pytest.approx((1.207,)), "behind what the trace has taken"


def test_a_trace_goes_on_while_something_covers_it() -> None:
    """A passing rate, or another trace, does not move a trace: it comes back where its own time is then."""
    gap = LinkSettings(trace=" ".join(map(str, [*range(1, 1001), 2000])), overhead_bytes=0)
    for cover in (LinkSettings(rate_kbps=12_000), LinkSettings(trace="3"), LinkSettings()):
        link = Link(gap)
        link.offer(0.0, 100)
        link.set(cover, 1.0)
        link.offer(1.2, 100)
        link.set(gap, 1.25)
        assert link.offer(1.3, 100) == pytest.approx((2.0,)), "in the gap from the first second to the end"


def test_a_trace_is_a_cap_on_bandwidth() -> None:
    """A diagnosis would call it so, and the queue holds 300 ms of its mean rate."""
    settings = LinkSettings(trace=TRACE_12MS)
    assert causes_of(settings.changes()) == ("bandwidth-cap",)
    assert settings.mean_rate_kbps == pytest.approx(1000)
    assert settings.queue_limit_bytes == pytest.approx(37_500)


# Losses by the block


@pytest.mark.parametrize(("loss", "block"), [(0.1, 10), (0.08, 50), (0.5, 7), (1.0, 5), (0.003, 1000)])
def test_each_block_loses_exactly_its_share(loss: float, block: int) -> None:
    """In every block of N datagrams, round(N * loss) are lost."""
    lost = Counter(index // block for index in lost_indices(LinkSettings(loss=loss, loss_block=block)))
    assert [lost[number] for number in range(5000 // block)] == [round(block * loss)] * (5000 // block)


def test_any_place_in_a_block_is_equally_likely() -> None:
    """The places of losses are spread evenly over the block, and are others in each."""
    lost = lost_indices(LinkSettings(loss=0.2, loss_block=10), seed=1, count=20_000)
    places = Counter(index % 10 for index in lost)
    assert stats.chisquare([places[place] for place in range(10)]).pvalue > 0.01
    pairs = Counter(zip(lost[::2], lost[1::2], strict=True))
    blocks = Counter((a % 10, b % 10) for a, b in pairs)
    assert len(blocks) == 45, "all pairs of places occur"
    assert stats.chisquare(list(blocks.values())).pvalue > 0.01


def test_losses_by_the_block_depend_on_the_index_alone() -> None:
    """Neither other stages nor a queue that drops some move them."""
    settings = LinkSettings(loss=0.1, loss_block=20)
    expected = lost_indices(settings)
    others = settings.replace(delay_ms=10, jitter_ms=5, duplicate=0.2, reorder=0.1)
    assert lost_indices(others) == expected
    narrow = lost_indices(settings.replace(rate_kbps=400, **CODEL))
    assert set(narrow) < set(expected)


def test_a_delay_that_changes_does_not_begin_a_new_block() -> None:
    """Only the length or the number of losses does."""
    settings = LinkSettings(loss=0.1, loss_block=10)
    link, lost = Link(settings, seed=3), []
    for index in range(1000):
        link.set(settings.replace(delay_ms=index % 7))
        before = link.counters.lost
        link.offer(index * 0.01, 1000)
        lost.append(link.counters.lost - before)
    assert [sum(lost[block : block + 10]) for block in range(0, 1000, 10)] == [1] * 100
