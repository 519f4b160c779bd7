"""Random wishes on both sides of real calls, over late signaling: every call must settle and go on.

Most of them happen in virtual time, where a seed that fails fails again.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from calllab.network import VirtualNetwork, simulate
from calllab.rtc import AudioStreamTrack, InvalidStateError, RTCPeerConnection
from calllab.rtc.parameters import reverse
from tests.negotiation.linked_peers import LinkedPeers, SmallVideo
from tests.rtc.peers import more_packets

SEEDS = 200
AT_A_TIME = 50
REAL_SEEDS = range(8)
WISHES = (
    "add-track",
    "add-track",
    "add-transceiver",
    "remove-track",
    "restart-ice",
    "direction",
    "stop",
    "replace",
)
SETTLE_S = 40.0


async def act(pc: RTCPeerConnection, entropy: random.Random) -> list[str]:
    """Do six random things at random moments; return what was done."""
    done: list[str] = []
    for _ in range(6):
        await asyncio.sleep(entropy.random() * 0.25)
        wish = entropy.choice(WISHES)
        videos = [t for t in pc.getTransceivers() if t.kind == "video" and t.direction != "stopped"]
        if wish == "add-track":
            pc.addTrack(SmallVideo())
        elif wish == "add-transceiver":
            pc.addTransceiver(SmallVideo())
        elif wish == "restart-ice":
            pc.restartIce()
        elif videos:
            chosen = entropy.choice(videos)
            if wish == "remove-track":
                pc.removeTrack(chosen.sender)
            elif wish == "direction":
                chosen.direction = entropy.choice(["sendrecv", "recvonly", "sendonly", "inactive"])
            elif wish == "stop":
                chosen.stop()
            else:
                try:
                    await chosen.sender.replaceTrack(SmallVideo())
                except InvalidStateError:
                    # The other peer may stop the transceiver while this waits in the operations chain.
                    assert chosen.currentDirection == "stopped"
        else:
            continue
        done.append(wish)
    return done


def is_settled(peers: LinkedPeers) -> bool:
    """Whether both peers are stable and connected, nothing is under way, and nothing is wanted."""
    return all(signaling.is_idle for signaling in peers.signaling) and all(
        manager.pc.signalingState == "stable"
        and manager.pc.connectionState == "connected"
        and not manager.making_offer
        and not manager.pc._session.core.negotiation_needed()
        for manager in peers.managers
    )


async def run_seed(seed: int, network: VirtualNetwork | None = None) -> int:
    """Run one call to its end and check it; return how many collisions it had."""
    peers = LinkedPeers(seed, network)
    a, b = (manager.pc for manager in peers.managers)
    try:
        for pc in (a, b):
            pc.addTrack(AudioStreamTrack())
        done = await asyncio.gather(
            *(act(pc, random.Random(f"{seed}{side}")) for side, pc in enumerate((a, b)))
        )
        context = f"seed {seed}: {done}"
        try:
            async with asyncio.timeout(SETTLE_S):
                while not is_settled(peers):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            states = [(pc.signalingState, pc.connectionState, pc.getTransceivers()) for pc in (a, b)]
            raise AssertionError(f"{context} did not settle: {states}, {peers.managers[0].errors}") from None
        ours = {t.mid: t for t in a.getTransceivers()}
        theirs = {t.mid: t for t in b.getTransceivers()}
        assert set(ours) == set(theirs), context
        for mid, transceiver in ours.items():
            direction, opposite = transceiver.currentDirection, theirs[mid].currentDirection
            assert direction not in (None, "stopped"), context
            assert opposite not in (None, "stopped"), context
            assert direction == reverse(opposite), context
        for mine, other in ((ours, theirs), (theirs, ours)):
            for mid, transceiver in mine.items():
                if (
                    transceiver.currentDirection in ("sendrecv", "recvonly")
                    and other[mid].sender.track is not None
                ):
                    try:
                        await more_packets(transceiver)
                    except AssertionError as error:
                        raise AssertionError(f"{context}: {error}") from error
        for manager in peers.managers:
            assert not manager.errors, context
        states = [members["state"] for _, event, members in peers.events if event == "connectionstatechange"]
        assert "failed" not in states, context
        return sum(event == "offer-collision" for _, event, _ in peers.events)
    finally:
        await peers.close()


def run_seeds(seeds: range) -> None:
    """Run calls in virtual time."""
    collisions = 0
    for seed in seeds:
        network = VirtualNetwork(seed=seed)
        collisions += simulate(lambda s=seed, n=network: run_seed(s, n), seed=seed, codecs="stand-in")  # type: ignore[misc]
    assert collisions > len(seeds), "too few collisions to prove anything: make the delays longer"


@pytest.mark.parametrize("first", range(0, SEEDS, AT_A_TIME))
def test_random_wishes_on_both_sides(first: int) -> None:
    """Whatever both wish, and however late signaling is: stable, same m-lines, media flowing, no error."""
    run_seeds(range(first, first + AT_A_TIME))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("hundred", range(2, 12))
def test_random_wishes_of_a_thousand_more(hundred: int) -> None:
    """The same, with other seeds."""
    run_seeds(range(100 * hundred, 100 * hundred + 100))


async def test_random_wishes_on_the_real_clock() -> None:
    """The same holds on real sockets, where the machine adds its own disorder."""
    # Debug mode triples the cost of the media connections and finds nothing that the other tests do not.
    asyncio.get_running_loop().set_debug(False)
    collisions = await asyncio.gather(*(run_seed(seed) for seed in REAL_SEEDS))
    assert sum(collisions) > 3, "too few collisions to prove anything: make the delays longer"
