"""Real calls in virtual time: repeatable, and like those on the real clock."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import pytest

from calllab.media import SpeechTrack
from calllab.network import LinkSettings, VirtualNetwork, simulate
from tests.network import virtual_story
from tests.network.virtual_call import Caller, digest, run
from tests.network.virtual_story import negotiate


def in_another_process(seed: int, hash_seed: str, program: str = "virtual_call") -> subprocess.Popen[str]:
    """Start the call in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.network.{program}", str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_call_is_repeatable_to_the_byte() -> None:
    """The same seed gives the same events, statistics, pictures and datagrams: in other processes, with other
    hash seeds, side by side on a busy machine.
    """
    others = [in_another_process(1, hash_seed) for hash_seed in ("0", "12345")]
    here = digest(run(1))
    printed = [process.communicate(timeout=100)[0].strip() for process in others]
    assert printed == [here, here]


def test_an_eventful_call_is_repeatable_to_the_byte() -> None:
    """NATs, TURN, ICE restarts, a change of network, channels and a change of codec follow the seed alone:
    not hash seeds, and not what the process simulated before.
    """
    others = [in_another_process(1, hash_seed, "virtual_story") for hash_seed in ("0", "12345")]
    result = virtual_story.run(1)
    printed = [process.communicate(timeout=100)[0].strip() for process in others]
    assert printed == [digest(result)] * 2
    inbound = [e for e in result["statistics"][0].values() if e["type"] == "inbound-rtp"]
    assert {entry["kind"] for entry in inbound} == {"audio", "video"}
    assert all(entry["packetsReceived"] > 40 for entry in inbound)
    assert "c0 again!" in [event for _, event in result["events"][0]]


def test_another_seed_is_another_call() -> None:
    """What chance decides follows the seed."""
    assert digest(run(1, "stand-in")) != digest(run(2, "stand-in"))


@pytest.mark.parametrize("codecs", ["real", "packets", "stand-in"])
def test_media_and_messages_get_through(codecs: Any) -> None:
    """Sound, pictures and messages of a call over a difficult link arrive, however media is coded."""
    began = time.monotonic()
    result = run(3, codecs)
    for side in (0, 1):
        inbound = {
            entry["kind"]: entry
            for entry in result["statistics"][side].values()
            if entry["type"] == "inbound-rtp"
        }
        assert inbound["audio"]["packetsReceived"] > 200
        assert inbound["audio"]["packetsLost"] > 0
        assert inbound["video"]["framesDecoded"] > 40
        assert (inbound["video"]["frameWidth"], inbound["video"]["frameHeight"]) == (160, 120)
        assert inbound["video"]["totalDecodeTime"] > 0
        assert [event for _, event in result["events"][side] if event == "connectionstatechange connected"]
    assert "heard hello yourself" in [event for _, event in result["events"][0]]
    assert time.monotonic() - began < 20.0


def test_a_plain_call_is_about_as_steady_as_one_on_real_sockets() -> None:
    """Hosts are a little late by default: over an exact link of 50 ms, RTP has a jitter of about a
    millisecond and round trips take some 2.5 ms more than the way does, as on real sockets.
    """

    async def main() -> tuple[float, float]:
        network = VirtualNetwork(seed=4)
        a, b = (Caller(name, 4, LinkSettings(delay_ms=50), network.add_host(name), None) for name in "ab")
        for peer in (a, b):
            peer.pc.addTrack(SpeechTrack(seed=1))
        a.trickle_to(b)
        b.trickle_to(a)
        await negotiate(a, b)
        seen: dict[str, list[float]] = {"inbound-rtp": [], "candidate-pair": []}
        for _ in range(40):
            await asyncio.sleep(1.0)
            for entry in dict(await a.pc.getStats()).values():
                if entry["type"] in seen:
                    member = "jitter" if entry["type"] == "inbound-rtp" else "currentRoundTripTime"
                    seen[entry["type"]].append(entry[member] * 1000)
        await a.close()
        await b.close()
        return statistics.fmean(seen["inbound-rtp"][3:]), statistics.fmean(seen["candidate-pair"][3:])

    jitter_ms, round_trip_ms = simulate(main, seed=4, codecs="stand-in")
    assert 0.6 < jitter_ms < 1.2
    assert 101.8 < round_trip_ms < 103.2
