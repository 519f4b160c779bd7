from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from calllab._aiortc import IceTransport
from tests._aiortc.helpers import FAST, ice_pair, until


async def test_two_agents_connect_by_trickling() -> None:
    """Host candidates are told one by one, ended by None, and both agents reach "completed"."""
    async with ice_pair() as pair:
        pair.negotiate()
        await pair.connected()
        for side in (pair.alice, pair.bob):
            told = side.candidates[side.credentials.ufrag]
            assert told[-1] is None
            assert all(line is not None and " typ host" in line for line in told[:-1])
            assert side.gathering == ["gathering", "complete"]
            assert side.states[0] == "checking"
            assert side.states[-1] == "completed"
        assert pair.alice.ice.role == "controlling"
        assert pair.bob.ice.role == "controlled"
        chosen, mirrored = pair.alice.ice.selected_pair, pair.bob.ice.selected_pair
        assert chosen is not None and mirrored is not None
        assert (chosen.local.address, chosen.remote.address) == (
            mirrored.remote.address,
            mirrored.local.address,
        )
        assert pair.alice.wire.sent > 0


async def test_a_rolled_back_generation_leaves_the_active_one_alone() -> None:
    """discard() closes the proposed generation's sockets; what is connected goes on."""
    async with ice_pair() as pair:
        pair.negotiate()
        await pair.connected()
        sockets = len(pair.alice.wire.open)
        before = pair.alice.ice.selected_pair
        pair.alice.prepare(offerer=True)
        assert pair.alice.ice.gathering_state == "gathering"
        await until(lambda: len(pair.alice.wire.open) > sockets)
        pair.alice.ice.discard(pair.alice.credentials)
        assert pair.alice.ice.gathering_state == "complete"
        await until(lambda: len(pair.alice.wire.open) == sockets)
        assert pair.alice.ice.selected_pair == before
        assert pair.alice.ice.state == "completed"


async def test_discard_before_the_first_connection_forgets_the_role() -> None:
    """After a rollback of the very first offer the agent is new again."""
    async with ice_pair() as pair:
        pair.alice.prepare(offerer=True)
        assert pair.alice.ice.role == "controlling"
        pair.alice.ice.discard(pair.alice.credentials)
        assert pair.alice.ice.role == "unknown"
        assert (pair.alice.ice.state, pair.alice.ice.gathering_state) == ("new", "new")
        pair.negotiate(pair.bob)
        await pair.connected()
        assert pair.alice.ice.role == "controlled"


@pytest.mark.parametrize("restarter", ["alice", "bob"])
async def test_restart_changes_the_path_without_a_gap_in_state(restarter: str) -> None:
    """A restart by either side ends on new sockets; the state never leaves connected/completed."""
    async with ice_pair() as pair:
        pair.negotiate()
        await pair.connected()
        before = pair.alice.ice.selected_pair
        pair.alice.states.clear()
        pair.negotiate(getattr(pair, restarter))
        await until(lambda: pair.alice.ice.selected_pair != before)
        await pair.connected()
        assert set(pair.alice.states) <= {"connected", "completed"}
        assert getattr(pair, restarter).ice.role == "controlling"
        snapshot = pair.alice.ice.statistics()
        assert snapshot.selected_pair_changes >= 2


async def test_many_restarts_in_a_row_by_both_sides() -> None:
    """Roles that change back and forth, even before a restart has finished, never hang the agents."""
    async with ice_pair() as pair:
        pair.negotiate()
        await pair.connected()
        for round_ in range(6):
            pair.negotiate(pair.bob if round_ % 2 else pair.alice)
            if round_ % 3 == 0:
                await pair.connected()
        await pair.connected()
        await until(lambda: len(pair.alice.wire.open) == len(pair.bob.wire.open))


@pytest.mark.parametrize("answered", ["not at all", "completed"])
async def test_an_answer_may_come_from_another_fork(answered: str) -> None:
    """A second commit() of the same generation turns to other remote credentials, with the same sockets."""
    async with ice_pair() as pair, ice_pair(seed=2) as other:
        alice, carol = pair.alice, other.bob
        pair.negotiate()
        if answered == "completed":
            await pair.connected()
        else:
            pair.bob.wire.cut_in = pair.bob.wire.cut_out = True
        told = list(alice.candidates[alice.credentials.ufrag])
        carol.prepare(offerer=False)
        fork = replace(pair, bob=carol)
        for here, there in ((alice, carol), (carol, alice)):
            here.ice.on_candidate = fork._trickle(here, there)
            known = tuple(there.candidates[there.credentials.ufrag])
            here.ice.commit(here.credentials, there.credentials, candidates=known)
            here.ice.commit(here.credentials, there.credentials)  # twice is once
        assert not alice.ice.can_send
        await pair.bob.ice._send(b"\x80from bob")
        await fork.connected()
        await carol.ice._send(b"\x80from carol")
        assert await alice.ice._recv() == b"\x80from carol"
        facing = alice.ice.remote_credentials
        assert facing is not None
        assert facing.usernameFragment == carol.credentials.ufrag
        assert alice.candidates[alice.credentials.ufrag][: len(told)] == told
        assert not alice.ice.add_remote_candidate(pair.bob.credentials.ufrag, None)
        await alice.ice._send(b"\x80to carol")
        await until(lambda: carol.ice._unread)
        pair.bob.wire.cut_in = pair.bob.wire.cut_out = False


async def test_a_fork_may_answer_after_the_first_has_failed() -> None:
    """A generation that gave one peer up can still connect to another."""
    async with ice_pair(timers=replace(FAST, connect_timeout_s=0.3)) as pair, ice_pair(seed=2) as other:
        alice, carol = pair.alice, other.bob
        for side in (alice, carol):
            side.prepare(offerer=side is alice)
        alice.ice.commit(alice.credentials, pair.bob.credentials)
        await until(lambda: alice.ice.state == "failed")
        fork = replace(pair, bob=carol)
        for here, there in ((alice, carol), (carol, alice)):
            here.ice.on_candidate = fork._trickle(here, there)
            known = tuple(there.candidates[there.credentials.ufrag])
            here.ice.commit(here.credentials, there.credentials, candidates=known)
        await fork.connected()
        assert alice.ice.failure is None


async def test_a_peer_that_keeps_its_role_on_restart_is_survived() -> None:
    """If both agents believe they control, the tie-breakers settle it."""
    async with ice_pair() as pair:
        pair.alice.prepare(offerer=True)
        pair.bob.prepare(offerer=True)
        for here, there in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
            here.ice.on_candidate = pair._trickle(here, there)
            here.ice.commit(
                here.credentials, there.credentials, candidates=there.candidates[there.credentials.ufrag]
            )
        await pair.connected()
        assert {pair.alice.ice.role, pair.bob.ice.role} == {"controlling", "controlled"}


@pytest.mark.parametrize("greater", ["offerer", "answerer"])
@pytest.mark.parametrize("restarter", ["alice", "bob"])
async def test_an_answer_may_come_after_the_checks_of_the_answerer(restarter: str, greater: str) -> None:
    """Who answers a restart may win control and nominate a pair before the answer is there: both connect."""
    async with ice_pair() as pair:
        offerer, answerer = (pair.alice, pair.bob) if restarter == "alice" else (pair.bob, pair.alice)
        for side, tie_breaker in (
            (offerer, 1 + (greater == "offerer")),
            (answerer, 1 + (greater == "answerer")),
        ):
            side.ice._settings = replace(side.ice._settings, tie_breaker=tie_breaker)
        pair.negotiate()
        await pair.connected()
        before = offerer.ice.selected_pair
        offerer.prepare(offerer=True)
        answerer.prepare(offerer=False)
        await until(lambda: {side.ice.gathering_state for side in (offerer, answerer)} == {"complete"})
        heard = offerer.wire.received
        for here, there in ((answerer, offerer), (offerer, answerer)):
            # One address only: a second pair would hide that the nomination of the first one was lost.
            first = there.candidates[there.credentials.ufrag][:1]
            here.ice.commit(here.credentials, there.credentials, candidates=[*first, None])
            await until(lambda: offerer.wire.received > heard)
            await asyncio.sleep(0.05)  # what conflicts of roles there are, are settled
        await pair.connected()
        assert offerer.ice.selected_pair != before
        assert {offerer.ice.role, answerer.ice.role} == {"controlling", "controlled"}


@pytest.mark.parametrize("direction", ["out", "in"])
async def test_one_way_outage_is_disconnected_then_failed_on_both_sides(direction: str) -> None:
    """Losing one direction is seen by the side that sends into it and by the side that hears nothing."""
    async with ice_pair() as pair:
        pair.negotiate()
        await pair.connected()
        if direction == "out":
            pair.alice.wire.cut_out = True
        else:
            pair.alice.wire.cut_in = True
        await until(lambda: pair.alice.ice.state == pair.bob.ice.state == "failed")
        for side in (pair.alice, pair.bob):
            assert side.states[-2:] == ["disconnected", "failed"]
            assert side.ice.failure is not None and "consent" in side.ice.failure
            assert not side.ice.can_send


async def test_short_outage_recovers_and_failure_needs_a_restart() -> None:
    """Back before consent is lost: connected again. After it: only a restart helps, with new sockets."""
    async with ice_pair() as pair:
        pair.negotiate()
        await pair.connected()
        pair.alice.wire.cut_out = pair.alice.wire.cut_in = True
        await until(lambda: "disconnected" in (pair.alice.ice.state, pair.bob.ice.state))
        pair.alice.wire.cut_out = pair.alice.wire.cut_in = False
        await pair.connected()
        assert pair.alice.ice.can_send
        pair.alice.wire.cut_out = True
        await until(lambda: pair.alice.ice.state == pair.bob.ice.state == "failed")
        pair.alice.wire.cut_out = False
        assert pair.alice.wire.open, "the sockets stay for the restart"
        pair.negotiate(pair.bob)
        assert pair.alice.ice.state == "checking"
        await pair.connected()


async def test_no_answer_at_all_fails_at_the_deadline() -> None:
    """Checks into a black hole end in "failed", though the peer never ends its list."""
    impatient = replace(FAST, connect_timeout_s=1.0)
    async with ice_pair(timers=impatient) as pair:
        pair.alice.wire.cut_out = True
        pair.alice.prepare(offerer=True)
        pair.bob.prepare(offerer=False)
        await until(lambda: pair.bob.ice.gathering_state == "complete")
        known = [line for line in pair.bob.candidates[pair.bob.credentials.ufrag] if line is not None]
        pair.alice.ice.commit(pair.alice.credentials, pair.bob.credentials, candidates=known)
        started = asyncio.get_running_loop().time()
        await until(lambda: pair.alice.ice.state == "failed")
        assert asyncio.get_running_loop().time() - started == pytest.approx(1.0, abs=0.5)
        assert (
            pair.alice.ice.failure is not None
            and "no candidate pair worked within 1 s" in pair.alice.ice.failure
        )


async def test_junk_candidates_change_nothing() -> None:
    """Malformed, foreign and hostile candidate lines are ignored, and too many are not kept."""
    async with ice_pair() as pair:
        pair.negotiate()
        ufrag = pair.bob.credentials.ufrag
        for line in (
            "candidate:",
            "garbage",
            "candidate:1 1 udp x 1.2.3.4 5 typ host",
            "candidate:1 1 tcp 1 1.2.3.4 9 typ host tcptype active",
            "candidate:1 2 udp 1 1.2.3.4 9 typ host",
            "candidate:1 1 udp 1 224.0.0.1 9 typ host",
            "candidate:1 1 udp 1 1.2.3.4 99999 typ host",
            "candidate:1 1 udp 1 example.com 9 typ host",
            "candidate:" + "9" * 5000,
        ):
            assert pair.alice.ice.add_remote_candidate(ufrag, line)
        assert not pair.alice.ice.add_remote_candidate("nobody", "candidate:1 1 udp 1 127.0.0.1 9 typ host")
        await pair.connected()
        assert len(pair.alice.ice.remote_candidates) <= 4


async def test_close_is_at_once_idempotent_and_complete() -> None:
    """The state is closed before the first await; a second close waits for the first."""
    async with ice_pair() as pair:
        pair.negotiate()
        await pair.connected()
        first = asyncio.ensure_future(pair.alice.ice.close())
        await asyncio.sleep(0)
        assert pair.alice.ice.state == "closed"
        await asyncio.gather(first, pair.alice.ice.close())
        assert not pair.alice.wire.open
        told = list(pair.alice.states)
        assert told[-1] == "closed"
        with pytest.raises(ConnectionError):
            await pair.alice.ice.wait_connected()
        with pytest.raises(ConnectionError):
            await pair.alice.ice._recv()
        pair.alice.ice.prepare(pair.alice.credentials, offerer=True)
        assert pair.alice.ice.state == "closed"
        assert pair.alice.states == told


async def test_closing_while_gathering_and_checking_leaves_nothing() -> None:
    """Close in the middle of everything; the census of the test finds no socket and no task."""
    for turns in range(12):
        async with ice_pair(seed=turns) as pair:
            pair.negotiate()
            for _ in range(turns):
                await asyncio.sleep(0)


async def test_construction_needs_no_event_loop_turn() -> None:
    """A transport that was never used has nothing to close."""
    await IceTransport().close()


@pytest.mark.parametrize("steps", range(6))
async def test_closing_while_a_generation_is_being_closed_leaves_nothing(steps: int) -> None:
    """A close() at any moment of a discarded generation's own end completes, and so does that end."""
    async with ice_pair() as pair:
        pair.negotiate()
        await pair.connected()
        pair.alice.prepare(offerer=True)
        await until(lambda: pair.alice.ice.gathering_state == "complete")
        pair.alice.ice.discard(pair.alice.credentials)
        for _ in range(steps):
            await asyncio.sleep(0)
        await pair.alice.ice.close()
        assert pair.alice.wire.open == set()
