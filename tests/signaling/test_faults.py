"""The lane of one direction: what faults do to messages, and in which order they leave."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calllab.signaling.faults import Delay, Drop, Duplicate, Fault, HoldBack
from calllab.signaling.lane import Lane


def lane_with(*faults: Fault, seed: int = 1) -> Lane[dict[str, Any]]:
    """Return a lane in which the faults are in effect."""
    lane: Lane[dict[str, Any]] = Lane("out", random.Random(seed))
    lane.faults.extend(faults)
    return lane


def put(
    lane: Lane[dict[str, Any]], ids: str, now: float = 0.0, to: str = "bob", kind: str = "typing"
) -> None:
    """Let one message per letter enter."""
    for message_id in ids:
        message = {"type": kind, "recipientId": to, "id": message_id}
        lane.put(message, now, message)


def take_all(lane: Lane[dict[str, Any]], now: float = 0.0) -> str:
    """Return the ids of all messages that may go on by now."""
    ids = ""
    while (message := lane.take(now)) is not None:
        ids += message["id"]
    return ids


def test_a_lane_without_faults_changes_nothing() -> None:
    """Messages leave at once, in their order."""
    lane = lane_with()
    put(lane, "abc")
    assert take_all(lane) == "abc"
    assert lane.is_empty


def test_a_hold_keeps_its_types_and_all_that_comes_after_them() -> None:
    """Later messages to the same user wait behind a held one; another user's pass."""
    hold = HoldBack("call-offer")
    lane = lane_with(hold)
    put(lane, "a")
    put(lane, "b", kind="call-offer")
    put(lane, "c")
    put(lane, "x", to="carol")
    assert take_all(lane) == "ax"
    assert [message["id"] for message in hold.messages] == ["b"]
    assert lane.next_s(0.0) is None
    lane.release(hold)
    assert take_all(lane) == "bc"
    assert hold.messages == []


def test_a_hold_out_of_order_lets_others_pass() -> None:
    """With in_order False what is held comes after what was sent later."""
    hold = HoldBack("call-offer", in_order=False)
    lane = lane_with(hold)
    put(lane, "b", kind="call-offer")
    put(lane, "c")
    assert take_all(lane) == "c"
    lane.release(hold)
    assert take_all(lane) == "b"


def test_a_delay_holds_up_what_comes_after_it() -> None:
    """An orderly delay of one type keeps the order of all."""
    lane = lane_with(Delay("call-offer", delay_s=1.0))
    put(lane, "a", 10.0, kind="call-offer")
    put(lane, "b", 10.2)
    assert take_all(lane, 10.9) == ""
    assert lane.next_s(10.9) == 11.0
    assert take_all(lane, 11.0) == "ab"


def test_a_delay_out_of_order_reorders() -> None:
    """Jitter without order lets later messages overtake; nothing is lost."""
    lane = lane_with(Delay(delay_s=0.0, jitter_s=1.0, in_order=False))
    for n, letter in enumerate("abcdefgh"):
        put(lane, letter, n * 0.01)
    got, now = "", 0.0
    while not lane.is_empty:
        got += take_all(lane, now)
        now = lane.next_s(now) or now
    assert sorted(got) == list("abcdefgh")
    assert got != "abcdefgh"
    assert now < 1.1


def test_jitter_in_order_is_late_but_orderly() -> None:
    """Jitter with order delays by at least what each message drew."""
    lane = lane_with(Delay(delay_s=0.1, jitter_s=1.0))
    put(lane, "abcdefgh")
    got, now = "", 0.0
    while not lane.is_empty:
        got += take_all(lane, now)
        now = lane.next_s(now) or now
    assert got == "abcdefgh"
    assert 0.1 < now <= 1.1


def test_a_drop_takes_as_many_as_it_may() -> None:
    """With a limit the first so many are lost; the count says how many."""
    drop = Drop(limit=2)
    lane = lane_with(drop)
    put(lane, "abcd")
    assert take_all(lane) == "cd"
    assert drop.count == 2


def test_chance_follows_the_seed() -> None:
    """The same seed loses the same messages, and about as many as the probability says."""
    lost = []
    for _ in range(2):
        drop = Drop(probability=0.3)
        lane = lane_with(drop, seed=4)
        put(lane, "m" * 2000)
        lost.append((drop.count, len(take_all(lane))))
    assert lost[0] == lost[1]
    assert lost[0][0] + lost[0][1] == 2000
    assert 500 < lost[0][0] < 700


def test_duplicates_follow_their_original() -> None:
    """Each message comes 1 + copies times, one after the other."""
    lane = lane_with(Duplicate("typing", copies=2, limit=1))
    put(lane, "ab")
    assert take_all(lane) == "aaab"


def test_faults_combine() -> None:
    """Two delays add up, and a copy of a held message is held as well."""
    hold = HoldBack()
    lane = lane_with(Delay(delay_s=1.0), Delay(delay_s=0.5), Duplicate(), hold)
    put(lane, "a")
    lane.release(hold)
    assert take_all(lane, 1.4) == ""
    assert take_all(lane, 1.5) == "aa"


def test_of_two_holds_the_first_keeps_the_message() -> None:
    """A message is held once; the second hold does not count it."""
    first, second = HoldBack("typing"), HoldBack()
    lane = lane_with(first, second)
    put(lane, "a")
    put(lane, "b", kind="read")
    assert (first.count, second.count) == (1, 1)
    lane.release(second)
    assert take_all(lane) == ""
    lane.release(first)
    assert take_all(lane) == "ab"


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Drop(probability=1.5), "probability"),
        (lambda: Drop(limit=0), "limit"),
        (lambda: Duplicate(copies=0), "copies"),
        (lambda: Delay(delay_s=-1), "delay"),
        (lambda: Delay(delay_s=0, jitter_s=-1), "jitter"),
    ],
)
def test_faults_that_make_no_sense_are_refused(make: Any, what: str) -> None:
    """Each setting is checked by name."""
    with pytest.raises(ValueError, match=what):
        make()


_orderly = st.one_of(
    st.builds(lambda s, j: Delay(delay_s=s, jitter_s=j), st.floats(0, 2), st.floats(0, 2)),
    st.builds(lambda: HoldBack("read")),
    st.builds(lambda p: Drop(probability=p), st.floats(0, 1)),
    st.builds(lambda p: Duplicate(probability=p), st.floats(0, 1)),
)
_sent = st.lists(
    st.tuples(
        st.sampled_from(["typing", "read"]), st.sampled_from(["bob", "carol"]), st.floats(0, 1), st.booleans()
    ),
    max_size=30,
)


@given(st.lists(_orderly, max_size=4), _sent, st.integers(0, 99))
def test_orderly_faults_never_change_the_order_for_a_recipient(
    faults: list[Fault], sent: list[tuple[str, str, float, bool]], seed: int
) -> None:
    """Whatever orderly faults do, each recipient gets its messages in order, each as often as was decided."""
    lane = lane_with(*faults, seed=seed)
    got: list[dict[str, Any]] = []
    now = 0.0

    def drain() -> None:
        while (message := lane.take(now)) is not None:
            got.append(message)

    for n, (kind, to, wait_s, look) in enumerate(sent):
        now += wait_s
        message = {"type": kind, "recipientId": to, "id": n}
        lane.put(message, now, message)
        if look:
            drain()
    for fault in faults:
        if isinstance(fault, HoldBack):
            lane.release(fault)
    drain()
    while (next_s := lane.next_s(now)) is not None:
        now = next_s
        drain()
    assert lane.is_empty
    for party in ("bob", "carol"):
        ids = [message["id"] for message in got if message["recipientId"] == party]
        assert ids == sorted(ids)
    dropped = sum(fault.count for fault in faults if isinstance(fault, Drop))
    doubled = sum(fault.count for fault in faults if isinstance(fault, Duplicate))
    assert len({message["id"] for message in got}) == len(sent) - dropped
    assert len(got) <= len(sent) - dropped + doubled
