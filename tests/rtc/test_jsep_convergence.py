"""Two JSEP cores under perfect negotiation, with random wishes and random interleavings."""

from __future__ import annotations

from collections import deque
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from calllab.rtc.actions import DiscardIce, PrepareIce, StartTransport
from calllab.rtc.jsep import JsepCore
from calllab.rtc.parameters import Direction, IceCredentials, Kind
from tests.rtc.helpers import assert_agree, local_text, make_core, settle

KINDS: st.SearchStrategy[Kind] = st.sampled_from(["audio", "video"])
DIRECTIONS: st.SearchStrategy[Direction] = st.sampled_from(["sendrecv", "sendonly", "recvonly", "inactive"])
SIDES = st.sampled_from([0, 1])


class Side:
    """One core with the simplest negotiator: offer when stable, the polite one rolls back."""

    def __init__(self, seed: int, polite: bool) -> None:
        self.core = make_core(seed)
        self.polite = polite
        self.inbox: deque[tuple[str, Any]] = deque()
        self.generations: set[IceCredentials] = set()
        self.tracks = 0

    def note(self, actions: tuple[Any, ...]) -> None:
        """Follow what a driver would do with ICE generations: none twice, none out of nothing."""
        for action in actions:
            match action:
                case PrepareIce(credentials):
                    assert credentials not in self.generations
                    self.generations.add(credentials)
                case DiscardIce(credentials):
                    self.generations.remove(credentials)
                case StartTransport(local=local):
                    assert local in self.generations


class TwoCores(RuleBasedStateMachine):
    """Wishes, offers, deliveries and rollbacks in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = [Side(1, polite=True), Side(2, polite=False)]

    def send(self, side: int) -> None:
        """Put the side's description into the other's inbox."""
        self.sides[1 - side].inbox.append(local_text(self.sides[side].core))

    @rule(side=SIDES, kind=KINDS, streams=st.lists(st.sampled_from(["s1", "s2"]), max_size=2))
    def add_track(self, side: int, kind: Kind, streams: list[str]) -> None:
        """Send another track."""
        self.sides[side].tracks += 1
        self.sides[side].core.add_track(kind, f"track-{side}-{self.sides[side].tracks}", streams)

    @rule(side=SIDES, kind=KINDS, direction=DIRECTIONS)
    def add_transceiver(self, side: int, kind: Kind, direction: Direction) -> None:
        """Add a transceiver."""
        self.sides[side].core.add_transceiver(kind, direction)

    @rule(side=SIDES, data=st.data(), direction=DIRECTIONS)
    def change_direction(self, side: int, data: st.DataObject, direction: Direction) -> None:
        """Change what a transceiver is to do."""
        live = [t for t in self.sides[side].core.transceivers if not t.stopping]
        if live:
            self.sides[side].core.set_direction(data.draw(st.sampled_from(live)).id, direction)

    @rule(side=SIDES, data=st.data(), stop=st.booleans())
    def take_away(self, side: int, data: st.DataObject, stop: bool) -> None:
        """Stop a transceiver, or remove its track."""
        core = self.sides[side].core
        if core.transceivers:
            chosen = data.draw(st.sampled_from(core.transceivers))
            if stop:
                self.sides[side].note(core.stop(chosen.id))
            else:
                core.remove_track(chosen.id)

    @rule(side=SIDES)
    def restart_ice(self, side: int) -> None:
        """Ask for an ICE restart."""
        self.sides[side].core.restart_ice()

    @rule(side=SIDES)
    def want_data(self, side: int) -> None:
        """Ask for data channels."""
        self.sides[side].core.want_data_channel()

    @rule(side=SIDES)
    def rollback_restores_exactly(self, side: int) -> None:
        """An offer that is made and taken back leaves the state as it was."""
        us = self.sides[side]
        if us.core.signaling_state == "stable":
            before = us.core.key()
            us.note(us.core.set_local("offer"))
            assert us.core.key() != before
            us.note(us.core.rollback("local"))
            assert us.core.key() == before

    @rule(side=SIDES)
    def snapshot_restores_exactly(self, side: int) -> None:
        """A snapshot brings back the very state, whatever happened since."""
        core = self.sides[side].core
        before, snapshot = core.key(), core.snapshot()
        core.add_transceiver("audio")
        core.restart_ice()
        core.restore(snapshot)
        assert core.key() == before

    @rule(side=SIDES)
    def offer(self, side: int) -> None:
        """Offer if it is needed."""
        us = self.sides[side]
        if us.core.signaling_state == "stable" and us.core.negotiation_needed():
            us.note(us.core.set_local("offer"))
            self.send(side)

    @precondition(lambda self: any(side.inbox for side in self.sides))
    @rule(side=SIDES)
    def deliver(self, side: int) -> None:
        """Take the next message, as perfect negotiation does."""
        us = self.sides[side]
        if not us.inbox:
            return
        type_, text = us.inbox.popleft()
        if type_ == "answer":
            us.note(us.core.set_remote(type_, text))
            return
        if us.core.signaling_state != "stable" and not us.polite:
            return
        us.note(us.core.set_remote(type_, text))
        us.note(us.core.set_local("answer"))
        self.send(side)

    @invariant()
    def keys_are_hashable(self) -> None:
        """Both states can be kept in a set, with tokens related to each other."""
        names: dict[object, int] = {}
        hash((self.sides[0].core.key(names), self.sides[1].core.key(names)))

    def teardown(self) -> None:
        """Deliver what is on its way and negotiate what is wanted: both agree, and it ends."""
        for _ in range(100):
            for side in (0, 1):
                while self.sides[side].inbox:
                    self.deliver(side)
            if all(side.core.signaling_state == "stable" for side in self.sides):
                break
        one, other = self.sides[0].core, self.sides[1].core
        settle(one, other)
        if one.state.session.lines:
            assert_agree(one, other)
            for core in (one, other):
                assert core.state.stable is None
                assert all(t.stopped or t.mid is not None for t in core.transceivers)


TwoCores.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestTwoCores = TwoCores.TestCase


def test_key_names_tokens_by_order() -> None:
    """Cores that differ only in random tokens have equal keys; the peers' tokens stay related."""
    pairs: list[tuple[JsepCore, JsepCore]] = []
    for seed in (10, 20):
        one, other = make_core(seed), make_core(seed + 1)
        one.add_track("audio", f"t{seed}", [f"s{seed}"])
        settle(one, other)
        pairs.append((one, other))
    keys = []
    for one, other in pairs:
        names: dict[object, int] = {}
        keys.append((one.key(names), other.key(names)))
    assert keys[0] == keys[1]
    mixed: dict[object, int] = {}
    assert (pairs[0][0].key(mixed), pairs[1][1].key(mixed)) != keys[0]
