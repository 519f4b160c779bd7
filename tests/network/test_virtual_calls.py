"""Real calls in virtual time: repeatable, and like those on the real clock."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.network import virtual_story
from tests.network.virtual_call import digest, run


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
