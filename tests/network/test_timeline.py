from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calllab.errors import InvalidSetting
from calllab.network import LinkSettings, Timeline
from tests.network.helpers import STEADY

BASE = LinkSettings(loss=0.01, delay_ms=20)


def settings_at(timeline: Timeline, now_s: float) -> LinkSettings:
    timeline.advance(now_s)
    return timeline.over(BASE)


def test_a_fault_holds_from_its_start_to_before_its_end() -> None:
    """A fault changes only what it names, and afterwards the base is back."""
    timeline = Timeline()
    fault = timeline.plan(5.0, 10.0, {"loss": 0.08})
    assert timeline.next_at_s == 5.0
    assert settings_at(timeline, 4.999) == BASE
    assert settings_at(timeline, 5.0) == BASE.replace(loss=0.08)
    assert timeline.running == (fault,)
    assert settings_at(timeline, 14.999) == BASE.replace(loss=0.08)
    assert settings_at(timeline, 15.0) == BASE
    assert timeline.next_at_s == float("inf")


def test_faults_in_different_settings_hold_together() -> None:
    """Faults that touch different settings do not disturb each other."""
    timeline = Timeline()
    timeline.plan(0.0, 10.0, {"loss": 0.08})
    timeline.plan(5.0, 10.0, {"delay_ms": 120})
    assert settings_at(timeline, 6.0) == BASE.replace(loss=0.08, delay_ms=120)
    assert settings_at(timeline, 11.0) == BASE.replace(delay_ms=120)


def test_the_fault_that_started_last_wins_and_uncovers_the_one_below() -> None:
    """When the later of two overlapping faults ends first, the earlier one shows again."""
    timeline = Timeline()
    timeline.plan(0.0, 10.0, {"loss": 0.08})
    timeline.plan(2.0, 3.0, {"loss": 0.5})
    assert [settings_at(timeline, at).loss for at in (1, 3, 6, 10)] == [0.08, 0.5, 0.08, 0.01]


def test_the_end_of_the_earlier_fault_does_not_end_the_later_one() -> None:
    """Two overlapping blackouts make one that lasts until the second ends."""
    timeline = Timeline()
    timeline.plan(0.0, 10.0, {"blackout": True})
    timeline.plan(5.0, 10.0, {"blackout": True})
    assert [settings_at(timeline, at).blackout for at in (1, 9, 11, 14.9, 15)] == [True] * 4 + [False]


def test_back_to_back_faults_do_not_overlap() -> None:
    """At the instant at which one ends and the next starts, the end comes first."""
    timeline = Timeline()
    first = timeline.plan(0.0, 5.0, {"loss": 0.1})
    second = timeline.plan(5.0, 5.0, {"loss": 0.2})
    steps = timeline.advance(7.0)
    assert [(step.at_s, step.event, step.fault) for step in steps] == [
        (0.0, "started", first),
        (5.0, "ended", first),
        (5.0, "started", second),
    ]


def test_a_fault_governs_what_belongs_together() -> None:
    """A fault's plain loss is plain loss, even over a base that loses in bursts."""
    timeline = Timeline()
    timeline.plan(0.0, 1.0, {"loss": 0.9})
    timeline.advance(0.0)
    base = LinkSettings(loss=0.05, loss_burst=3.0, jitter_ms=5.0)
    assert timeline.over(base) == LinkSettings(loss=0.9, jitter_ms=5.0)


@pytest.mark.parametrize(
    ("at_s", "for_s", "changes", "sentence"),
    [
        (0.0, 1.0, {}, "changes nothing"),
        (0.0, 1.0, {"los": 0.1}, "no such link setting: los"),
        (0.0, 1.0, {"loss": 1.1}, "loss=1.1"),
        (0.0, 1.0, {"loss_burst": 3.0}, "names loss_burst must name loss too"),
        (0.0, 1.0, {"queue_bytes": 9000}, "must name rate_kbps or trace too"),
        (-1.0, 1.0, {"loss": 0.1}, "at_s=-1.0"),
        (float("nan"), 1.0, {"loss": 0.1}, "at_s=nan"),
        (0.0, 0.0, {"loss": 0.1}, "for_s=0.0"),
        (0.0, float("inf"), {"loss": 0.1}, "for_s=inf"),
        ("soon", 1.0, {"loss": 0.1}, "at_s='soon'"),
    ],
)
def test_senseless_faults_are_refused(at_s: Any, for_s: Any, changes: dict[str, Any], sentence: str) -> None:
    """A fault that cannot be is refused when it is planned, not when its time comes."""
    timeline = Timeline()
    with pytest.raises(InvalidSetting, match=sentence):
        timeline.plan(at_s, for_s, changes)
    assert timeline.next_at_s == float("inf")


def test_a_cancelled_fault_ends_once() -> None:
    """Cancelling ends a running fault, strikes a planned one, and does nothing to one that is over."""
    timeline = Timeline()
    running, planned = timeline.plan(0.0, 10.0, {"loss": 0.1}), timeline.plan(5.0, None, {"loss": 0.2})
    timeline.advance(1.0)
    assert [step.event for step in timeline.cancel(running, 2.0)] == ["ended"]
    assert timeline.cancel(running, 2.0) == ()
    assert timeline.cancel(planned, 2.0) == ()
    assert timeline.advance(100.0) == ()
    assert timeline.over(BASE) == BASE


CHANGES = st.sampled_from(
    [
        {"loss": 0.9},
        {"loss": 0.05, "loss_burst": 2.0},
        {"delay_ms": 100},
        {"blackout": True},
        {"rate_kbps": 500, "queue_bytes": 3000},
        {"jitter_ms": 5.0, "jitter_correlation": 0.5},
    ]
)
PLANS = st.lists(
    st.tuples(st.integers(0, 20), st.none() | st.integers(1, 10), CHANGES, st.none() | st.integers(0, 30)),
    max_size=8,
)


@STEADY
@given(PLANS)
def test_any_overlap_holds_what_the_faults_that_are_on_say(plans: list[Any]) -> None:
    """At every moment: per setting, the value of the running fault that started last, else the base's."""
    timeline = Timeline()
    faults = [(timeline.plan(float(at), None if span is None else float(span), changes), stop)
              for at, span, changes, stop in plans]  # fmt: skip
    starts, ends = 0, 0
    for now in range(32):
        for step in timeline.advance(float(now)):
            starts += step.event == "started"
            ends += step.event == "ended"
        for fault, stop in faults:
            if stop == now:
                ends += len(timeline.cancel(fault, float(now)))
        expected = BASE
        for fault, stop in sorted(faults, key=lambda pair: (pair[0].at_s, pair[0].id)):
            if fault.at_s <= now < fault.end_s and (stop is None or now < stop):
                if "loss" in fault.changes:
                    expected = expected.replace(loss_burst=None, loss=0.0)
                expected = expected.replace(**fault.changes)
        assert timeline.over(BASE) == expected
        assert starts - ends == len(timeline.running)


def test_steps_come_in_the_order_of_their_times() -> None:
    """However late the timeline is advanced, its steps are told in order."""
    timeline = Timeline()
    for at in (3.0, 1.0, 2.0):
        timeline.plan(at, 1.5, {"delay_ms": at})
    times = [step.at_s for step in timeline.advance(100.0)]
    assert len(times) == 6
    assert all(earlier <= later for earlier, later in itertools.pairwise(times))
