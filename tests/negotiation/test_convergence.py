"""Whatever both sides wish, whenever they wish it: two perfect negotiators always come to agree."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.negotiation.scripted_peer import ScriptedPeer
from tests.rtc.helpers import assert_agree

SIDES = st.sampled_from([0, 1])


class TwoPeers(RuleBasedStateMachine):
    """Wishes, events, operations and deliveries in any order, over channels that keep the order."""

    def __init__(self) -> None:
        super().__init__()
        self.peers = [ScriptedPeer(1, polite=True), ScriptedPeer(2, polite=False)]

    @rule(side=SIDES, kind=st.sampled_from(["audio", "video"]))
    def add_track(self, side: int, kind: str) -> None:
        peer = self.peers[side]
        peer.tracks += 1
        peer.core.add_track(kind, f"track-{side}-{peer.tracks}", [f"stream-{side}"])  # type: ignore[arg-type]

    @rule(side=SIDES)
    def add_transceiver(self, side: int) -> None:
        self.peers[side].core.add_transceiver("video", "recvonly")

    @rule(side=SIDES, data=st.data(), stop=st.booleans())
    def take_away(self, side: int, data: st.DataObject, stop: bool) -> None:
        core = self.peers[side].core
        if live := [t for t in core.transceivers if not t.stopping]:
            chosen = data.draw(st.sampled_from(live)).id
            core.stop(chosen) if stop else core.remove_track(chosen)

    @rule(side=SIDES)
    def restart_ice(self, side: int) -> None:
        self.peers[side].core.restart_ice()

    @precondition(lambda self: any(peer.can_fire for peer in self.peers))
    @rule(side=SIDES)
    def fire(self, side: int) -> None:
        if self.peers[side].can_fire:
            self.peers[side].fire()

    @precondition(lambda self: any(peer.can_step for peer in self.peers))
    @rule(side=SIDES)
    def step(self, side: int) -> None:
        if self.peers[side].can_step:
            self.peers[side].step()

    @precondition(lambda self: any(peer.can_trickle for peer in self.peers))
    @rule(side=SIDES)
    def trickle(self, side: int) -> None:
        if self.peers[side].can_trickle:
            self.peers[side].trickle()

    @precondition(lambda self: any(peer.outbox for peer in self.peers))
    @rule(side=SIDES)
    def deliver(self, side: int) -> None:
        if self.peers[side].outbox:
            self.peers[1 - side].receive(self.peers[side].outbox.popleft())

    def teardown(self) -> None:
        """Let everything run out: both are stable, agree, and no error came to the surface."""
        for _ in range(3000):
            if not self._advance():
                break
        else:
            raise AssertionError("negotiation goes on for ever")
        one, other = self.peers
        assert one.errors == other.errors == ()
        for peer in self.peers:
            assert peer.core.signaling_state == "stable"
            assert not peer.core.negotiation_needed()
        if one.core.state.session.lines:
            assert_agree(one.core, other.core)

    def _advance(self) -> bool:
        for side in (0, 1):
            peer = self.peers[side]
            if peer.can_step:
                peer.step()
            elif peer.outbox:
                self.deliver(side)
            elif peer.can_trickle:
                peer.trickle()
            elif peer.can_fire:
                peer.fire()
            else:
                continue
            return True
        return False


TestTwoPeers = TwoPeers.TestCase
TestTwoPeers.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def glare() -> tuple[ScriptedPeer, ScriptedPeer]:
    """Return two peers, polite and impolite, whose offers are both on their way."""
    polite, impolite = ScriptedPeer(1, polite=True), ScriptedPeer(2, polite=False)
    for peer in (polite, impolite):
        peer.core.add_track("audio", "track", ["stream"])
        peer.fire()
        while peer.can_step:
            peer.step()
    return polite, impolite


def test_glare_ends_with_one_ignored_and_one_taken() -> None:
    """The impolite peer ignores, the polite one rolls back and answers, and both agree."""
    polite, impolite = glare()
    impolite.receive(polite.outbox.popleft())
    polite.receive(impolite.outbox.popleft())
    for _ in range(4):
        for peer, other in ((polite, impolite), (impolite, polite)):
            while peer.can_step:
                peer.step()
            while peer.outbox:
                other.receive(peer.outbox.popleft())
    assert polite.notices == ["offer-collision"]
    assert impolite.notices == ["offer-collision", "offer-ignored"]
    assert_agree(polite.core, impolite.core)
    assert polite.errors == impolite.errors == ()


def test_late_candidates_of_an_ignored_offer_do_no_harm() -> None:
    """Candidates that trail an ignored offer fail silently even when the answer has come first."""
    polite, impolite = glare()
    impolite.receive(polite.outbox.popleft())
    while polite.can_trickle:
        polite.trickle()
        impolite.receive(polite.outbox.popleft())
    polite.receive(impolite.outbox.popleft())
    while polite.can_step:
        polite.step()
    while polite.outbox:
        impolite.receive(polite.outbox.popleft())
    while impolite.can_step:
        impolite.step()
    assert impolite.errors == ()
    assert impolite.core.signaling_state == "stable"
