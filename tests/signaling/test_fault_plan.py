"""Planned faults: the timeline, and what it does to the channels of one run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calllab.network import simulate
from calllab.signaling import ChannelState, FaultyChannel, MemoryHub, SignalingFault, SignalingFaults
from calllab.signaling.fault_timeline import SignalingTimeline
from calllab.signaling.faults import Reorder
from tests.signaling.helpers import StateLog, typing
from tests.signaling.test_faults import lane_with, put, take_all


class Room:
    """Users of a hub whose channels share planned faults, in virtual time."""

    def __init__(self, *, seed: int = 1) -> None:
        self.hub = MemoryHub(send_timeout_s=60.0)
        self.faults = SignalingFaults(seed=seed, epoch=0.0)
        self.got: list[tuple[float, str, str]] = []
        self._channels: list[FaultyChannel] = []
        self._tasks: list[asyncio.Task[None]] = []

    def join(self, name: str, *, attached: bool = True) -> FaultyChannel:
        """Connect a user whose messages are noted with their times."""
        channel = FaultyChannel(self.hub.connect(name), faults=self.faults if attached else None)
        self._channels.append(channel)
        self._tasks.append(asyncio.get_running_loop().create_task(self._note(channel)))
        return channel

    async def _note(self, channel: FaultyChannel) -> None:
        async for message in channel:
            now = round(asyncio.get_running_loop().time(), 6)
            self.got.append((now, channel.user_id, message.get("id") or message["code"]))

    def got_by(self, name: str) -> list[tuple[float, str]]:
        """Return times and ids of what a user received."""
        return [(at, message_id) for at, user, message_id in self.got if user == name]

    async def close(self) -> None:
        self.faults.close()
        for channel in self._channels:
            await channel.close()
        await asyncio.gather(*self._tasks)
        await self.hub.close()


def in_room(play: Any, *, seed: int = 1) -> Room:
    """Let ``play(room)`` run to its end in virtual time; returns the room as it is then."""

    async def main() -> Room:
        room = Room(seed=seed)
        try:
            await play(room)
            await asyncio.sleep(0.1)
        finally:
            await room.close()
        return room

    return simulate(main)


async def chatter(channel: FaultyChannel, to: str, *, count: int, every_s: float = 1.0) -> None:
    """Send so many numbered messages, the first one now."""
    for n in range(count):
        await channel.send(typing(to, id=str(n)))
        await asyncio.sleep(every_s)


def test_faults_begin_and_end_on_their_timeline() -> None:
    """A drop from 2 s for 3 s takes what is sent in that time, in its direction alone; events count it."""

    async def play(room: Room) -> None:
        alice, bob = room.join("alice"), room.join("bob")
        room.faults.plan(SignalingFault(kind="drop", direction="alice->bob", at_s=1.5, for_s=3.0))
        await asyncio.gather(chatter(alice, "bob", count=7), chatter(bob, "alice", count=7))

    room = in_room(play)
    assert [message_id for _, message_id in room.got_by("bob")] == ["0", "1", "5", "6"]
    assert [message_id for _, message_id in room.got_by("alice")] == list("0123456")
    told = [(event.event, event.at_s, event.count) for event in room.faults.events]
    assert told == [("planned", 0.0, 0), ("started", 1.5, 0), ("ended", 4.5, 3)]


def test_a_hold_releases_at_its_end() -> None:
    """What was held comes at once at the end, in its order."""

    async def play(room: Room) -> None:
        alice = room.join("alice")
        room.join("bob")
        room.faults.plan(SignalingFault(kind="hold", direction="*->bob", at_s=0.5, for_s=2.0))
        await chatter(alice, "bob", count=4)

    assert in_room(play).got_by("bob") == [(0.0, "0"), (2.5, "1"), (2.5, "2"), (3.0, "3")]


def test_a_hold_is_released_by_cancelling_it() -> None:
    """Without an end a hold lasts until it is cancelled."""

    async def play(room: Room) -> None:
        alice = room.join("alice")
        room.join("bob")
        hold = room.faults.plan(SignalingFault(kind="hold", types=("typing",)))
        await alice.send(typing("bob", id="a"))
        await asyncio.sleep(7)
        assert room.faults.running == (hold,)
        room.faults.cancel(hold)
        room.faults.cancel(hold)

    assert in_room(play).got_by("bob") == [(7.0, "a")]


def test_each_message_meets_a_fault_once() -> None:
    """With both ends attached a delay is met once; what comes from outside meets it on the way in."""

    async def play(room: Room) -> None:
        alice, carol = room.join("alice"), room.join("carol", attached=False)
        room.join("bob")
        room.faults.plan(SignalingFault(kind="delay", delay_ms=200, direction="*->bob"))
        await alice.send(typing("bob", id="a"))
        await carol.send(typing("bob", id="c"))
        await asyncio.sleep(1)

    assert sorted(in_room(play).got_by("bob")) == [(0.2, "a"), (0.2, "c")]


def test_what_the_relay_answers_can_be_lost_too() -> None:
    """An error comes from no user: ``*->alice`` with type error takes it."""

    async def play(room: Room) -> None:
        alice = room.join("alice")
        lost = room.faults.plan(SignalingFault(kind="drop", types=("error",), direction="*->alice", count=1))
        await alice.send(typing("nobody"))
        await alice.send(typing("nobody"))
        await asyncio.sleep(0.1)
        assert room.faults.count(lost) == 1

    assert [what for _, what in in_room(play).got_by("alice")] == ["recipient-unknown"]


def test_limits_count_over_all_channels() -> None:
    """``count`` is of the fault, whichever channels its messages pass."""

    async def play(room: Room) -> None:
        alice, bob = room.join("alice"), room.join("bob")
        room.join("carol")
        room.faults.plan(SignalingFault(kind="duplicate", copies=2, count=2))
        for sender in (alice, bob, alice):
            await sender.send(typing("carol", id=sender.user_id))
            await asyncio.sleep(0.1)

    got = [who for _, who in in_room(play).got_by("carol")]
    assert got == ["alice"] * 3 + ["bob"] * 3 + ["alice"]


def test_chance_is_each_faults_own() -> None:
    """The same seed loses the same messages, with or without another fault beside it."""

    async def play(room: Room, *others: SignalingFault) -> None:
        alice = room.join("alice")
        room.join("bob")
        room.faults.plan(SignalingFault(kind="drop", probability=0.5))
        for other in others:
            room.faults.plan(other)
        await chatter(alice, "bob", count=40, every_s=0.01)

    alone = in_room(play).got_by("bob")
    beside = in_room(
        lambda room: play(room, SignalingFault(kind="delay", delay_ms=1, jitter_ms=5, probability=0.9))
    ).got_by("bob")
    assert 8 < len(alone) < 32
    assert [message_id for _, message_id in alone] == [message_id for _, message_id in beside]
    assert in_room(play, seed=2).got_by("bob") != alone


def test_a_disconnect_takes_the_connection_and_gives_it_back() -> None:
    """The relay sees the user leave; the user's own messages wait, and the others are told."""

    async def play(room: Room) -> None:
        alice, bob = room.join("alice"), room.join("bob")
        log = StateLog(alice)
        room.faults.plan(SignalingFault(kind="disconnect", peer="alice", at_s=1.0, for_s=2.0))
        await asyncio.sleep(1.5)
        await bob.send(typing("alice", id="lost"))
        await alice.send(typing("bob", id="waits"))
        await asyncio.sleep(2)
        assert log.states == [ChannelState.RECONNECTING, ChannelState.CONNECTED]
        assert [(event.event, event.count) for event in room.faults.events][1:] == [
            ("started", 0),
            ("ended", 1),
        ]

    room = in_room(play)
    assert room.got_by("bob") == [(1.5, "recipient-offline"), (3.0, "waits")]
    assert room.got_by("alice") == []


def test_overlapping_disconnects_end_with_the_last() -> None:
    """A channel that comes while it has to stay away is interrupted at once; one of no length only cuts."""

    async def play(room: Room) -> None:
        room.faults.plan(SignalingFault(kind="disconnect", peer="alice", for_s=2.0))
        room.faults.plan(SignalingFault(kind="disconnect", peer="alice", at_s=1.0, for_s=3.0))
        await asyncio.sleep(0.5)
        alice = room.join("alice")
        assert alice.state is ChannelState.RECONNECTING
        await asyncio.sleep(3.0)
        assert alice.state is ChannelState.RECONNECTING
        await asyncio.sleep(1.0)
        assert alice.state is ChannelState.CONNECTED
        log = StateLog(alice)
        room.faults.plan(SignalingFault(kind="disconnect", peer="alice", for_s=0.0))
        assert log.states == [ChannelState.RECONNECTING, ChannelState.CONNECTED]

    in_room(play)


def test_a_planned_fault_can_be_struck() -> None:
    """Cancelled before its time it never begins."""

    async def play(room: Room) -> None:
        alice = room.join("alice")
        room.join("bob")
        room.faults.cancel(room.faults.plan(SignalingFault(kind="drop", at_s=1.0)))
        await chatter(alice, "bob", count=3)

    room = in_room(play)
    assert len(room.got_by("bob")) == 3
    assert [event.event for event in room.faults.events] == ["planned", "cancelled"]


def test_a_listener_that_fails_disturbs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged, and the next listener is told."""

    async def play(room: Room) -> None:
        told: list[str] = []
        room.faults.on_event(lambda event: 1 // 0)  # type: ignore[arg-type,return-value]
        stop = room.faults.on_event(lambda event: told.append(event.event))
        room.faults.plan(SignalingFault(kind="drop"))
        stop()
        stop()
        room.faults.plan(SignalingFault(kind="drop"))
        assert told == ["planned", "started"]

    in_room(play)
    assert "a listener of signaling faults failed" in caplog.text


# Reordering


def test_a_reorder_swaps_pairs() -> None:
    """With certainty every other message is put behind the next; the last waits its time out."""
    lane = lane_with(Reorder(wait_s=1.0))
    put(lane, "abcde")
    assert take_all(lane) == "badc"
    assert lane.next_s(0.0) == 1.0
    assert take_all(lane, 1.0) == "e"


def test_a_reorder_counts_the_same_users_messages_alone() -> None:
    """Another user's messages do not release it; ``behind`` says how many have to pass."""
    lane = lane_with(Reorder(behind=2, limit=1))
    put(lane, "a")
    put(lane, "xyz", to="carol")
    put(lane, "bcd")
    assert take_all(lane) == "xyzbcad"


def test_discarding_a_lane_empties_its_holds() -> None:
    """What a lane loses is not shown as held any more."""
    from calllab.signaling.faults import HoldBack

    hold = HoldBack()
    lane = lane_with(hold)
    put(lane, "ab")
    lane.discard()
    assert lane.is_empty
    assert hold.messages == []


@given(st.integers(0, 99), st.integers(1, 5), st.floats(0, 1), st.integers(1, 60))
def test_a_reorder_loses_and_doubles_nothing(seed: int, behind: int, chance: float, count: int) -> None:
    """Everything leaves once, and nothing is passed by more than it was meant to."""
    lane = lane_with(Reorder(behind=behind, wait_s=0.5, probability=chance), seed=seed)
    got: list[int] = []
    for n in range(count):
        message = {"type": "typing", "recipientId": "bob", "id": str(n)}
        lane.put(message, n * 0.01, message)
        while (taken := lane.take(n * 0.01)) is not None:
            got.append(int(taken["id"]))
    while (taken := lane.take(1000.0)) is not None:
        got.append(int(taken["id"]))
    assert sorted(got) == list(range(count))
    assert all(got.index(n) - n <= behind for n in range(count))


# The timeline by itself


@given(
    st.lists(st.tuples(st.floats(0, 10), st.one_of(st.none(), st.floats(0, 5)), st.booleans()), max_size=12),
    st.lists(st.floats(0, 20), max_size=20),
)
def test_what_begins_ends_once_and_in_order(
    plans: list[tuple[float, float | None, bool]], looks: list[float]
) -> None:
    """Whenever one looks, steps come in the order of time, starts before their ends."""
    timeline = SignalingTimeline()
    planned = [
        timeline.plan(SignalingFault(kind="disconnect", peer="bob", at_s=at_s, for_s=for_s), 0.0)
        for at_s, for_s, _ in plans
    ]
    for fault, (_, _, cancelled) in zip(planned, plans, strict=True):
        if cancelled:
            assert timeline.cancel(fault, 0.0) == ()
    steps = []
    for now in [*sorted(looks), 100.0]:
        steps += timeline.advance(now)
        assert timeline.next_at_s > now
    assert [step.at_s for step in steps] == sorted(step.at_s for step in steps)
    for fault, (_, for_s, cancelled) in zip(planned, plans, strict=True):
        events = [step.event for step in steps if step.planned is fault]
        if cancelled:
            assert events == []
        else:
            assert events == (["started"] if for_s is None else ["started", "ended"])
        assert timeline.is_over(fault) == (cancelled or for_s is not None)
