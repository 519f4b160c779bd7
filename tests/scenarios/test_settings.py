"""One scenario in three settings: virtual time, a virtual network in real time, and real sockets."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from calllab import Recording
from calllab.diagnosis import diagnose
from calllab.errors import ScenarioError
from calllab.lab.kinds import NetworkKind
from calllab.lab.scenario import Judgement, Scenario, judge, load_scenario, run, run_scenario, scenario_from
from calllab.lab.scenario.progress import Progress
from tests.scenarios.helpers import plain

# Short ones of every kind; `calllab run --all` runs all of them.
SHORT = (
    "blackout-for-good",
    "call-glare",
    "codec-mismatch",
    "dtls-failure",
    "ice-blocked",
    "loss-uniform",
    "nat-symmetric",
    "signaling-loss-of-offer",
    "turn-expired-credentials",
    "turn-quota",
    "turn-silent",
    "turn-wrong-credentials",
)


def judged(scenario: Scenario, recording: Recording) -> list[Judgement]:
    """Return what does not hold."""
    return [each for each in judge(scenario.expect, recording, diagnose(recording)) if not each.holds]


@pytest.mark.parametrize("name", SHORT)
def test_scenarios_hold_in_virtual_time(name: str) -> None:
    """What a scenario expects is what comes of it."""
    scenario = load_scenario(name)
    assert judged(scenario, run_scenario(scenario)) == []


# Everything that can differ from run to run, in a few seconds: glare, faults, video, relay, data.
LIVELY = """
title: a bit of everything
duration_s: 8
peers:
  alice: {video: {width: 160, height: 120, fps: 5}}
  bob: {}
network: {link: {delay_ms: 20, jitter_ms: 2}, signaling_delay_ms: 10}
servers: {stun: true, turn: true}
timeline:
  - {do: call, by: alice, to: bob}
  - {do: data-channel, by: bob, at_s: 2}
  - {do: glare, by: alice, at_s: 3}
  - {do: restart-ice, by: bob, at_s: 5}
faults:
  - {direction: alice<->bob, loss: 0.05, reorder: 0.05, duplicate: 0.05, at_s: 1}
signaling_faults:
  - {kind: delay, delay_ms: 5, jitter_ms: 50, probability: 0.5}
expect:
  connection: connected
  glare: {ignored_by: alice}
"""

PRINT_DIGEST = """
import sys
from calllab import load_scenario
from calllab.lab.scenario import run_scenario
recording = run_scenario(load_scenario(sys.argv[1]), seed=int(sys.argv[2]))
print(recording.digest())
"""


def digest(scenario: Path, seed: int, hash_seed: str) -> str:
    """Return the digest of a run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT_DIGEST, str(scenario), str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("seed", [-1, 2**63, 2**80, 1.5, True])
async def test_another_seed_is_one_that_a_scenario_could_have(seed: int) -> None:
    """What is recorded can be run again, so its seed is in the range that scenarios allow."""
    scenario = load_scenario("rejected")
    with pytest.raises(ScenarioError, match=r"seed: expected a whole number from 0 to 9223372036854775807"):
        run_scenario(scenario, seed=seed)
    with pytest.raises(ScenarioError, match="seed"):
        await run(scenario, seed=seed)


def test_virtual_time_repeats_to_the_byte(tmp_path: Path) -> None:
    """Another process with other hashes gives the same digest; another seed does not."""
    file = tmp_path / "lively.yaml"
    file.write_text(LIVELY)
    scenario = load_scenario(file)
    here = run_scenario(scenario, seed=5)
    assert judged(scenario, here) == []
    assert here.meta["settings"]["seed"] == 5
    assert digest(file, 5, "1") == digest(file, 5, "2") == here.digest()
    assert run_scenario(scenario, seed=6).digest() != here.digest()


async def test_the_same_scenario_runs_on_the_real_clock_and_on_real_sockets() -> None:
    """Loss, glare and end are seen in both, at the times that the scenario gives."""
    scenario = load_scenario(
        "glare-resolved",
        overrides=(
            "duration_s=5",
            "timeline[1].at_s=2",
            "servers={stun: true, turn: true}",
            "truth=[]",
            "expect.findings=[]",
            "faults[0]={direction: alice->bob, loss: 0.3, at_s: 3}",
            "expect.not_findings=[]",
            "expect.metrics[0]={peer: bob, type: inbound-rtp, member: packetsLost, op: '>=', value: 5}",
        ),
    )
    networks: tuple[NetworkKind, ...] = ("virtual", "sockets")
    told: dict[str, list[Progress]] = {network: [] for network in networks}
    recordings = await asyncio.gather(
        *(run(scenario, time="real", network=each, progress=told[each].append) for each in networks)
    )
    for network, recording in zip(networks, recordings, strict=True):
        assert judged(scenario, recording) == []
        assert recording.meta["settings"]["network"] == network
        assert 4.9 < recording.duration_s < 7
        (glare,) = [row["t_s"] for row in recording.event_rows if row["event"] == "offer-ignored"]
        assert 2.0 <= glare < 3.0
        given = [row for row in recording.event_rows if row["event"] == "turn-credentials"]
        assert {uri.partition(":")[0] for row in given for uri in row["uris"]} == {"stun", "turn"}
        said = {progress.did: progress.t_s for progress in told[network]}
        assert 0 <= said["alice calls bob"] < 0.5
        assert 3 <= said["alice's link: loss=0.3 started"] < 3.5


def test_what_an_action_cannot_do_is_in_the_recording() -> None:
    """An action that fails does not end the run, but its expectations do not hold any more."""
    scenario = load_scenario(
        "hang-up",
        overrides=("timeline[2]={do: add-audio, by: alice, at_s: 5}", "timeline[1].at_s=4.5", "duration_s=6"),
    )
    recording = run_scenario(scenario)
    (problem,) = recording.meta["problems"]
    assert problem.startswith("5.000 s, alice: add-audio: alice is in no call")
    assert [each.what for each in judged(scenario, recording)] == ["actions"]


def test_what_a_scenario_does_on_purpose_is_the_truth_of_its_recording() -> None:
    """Faults of links and signaling, and what the scenario says of itself, are planned and realised."""
    scenario = load_scenario(
        "signaling-loss",
        overrides=(
            "duration_s=14",
            "faults[0]={direction: alice->bob, loss: 0.5, at_s: 3, for_s: 2}",
            "truth[0]={cause: no-source, at_s: 1}",
            "signaling_faults[0].for_s=4",
        ),
    )
    truth = run_scenario(scenario).truth()
    planned = truth[truth["kind"] == "planned"]
    assert dict(zip(planned["cause"], planned["at_s"], strict=True)) == {
        "no-source": 1,
        "loss-uniform": 3,
        "signaling-loss": 9,
    }
    realised = truth[truth["kind"] == "realised"].set_index("cause")
    assert realised.loc["loss-uniform", "for_s"] == pytest.approx(2)
    assert realised.loc["signaling-loss", "count"] == 1


def test_what_happens_on_a_named_network_happens_both_ways() -> None:
    """The events of a profile impair what its peer sends and what is sent to it, from servers too."""
    scenario = scenario_from(
        plain(
            duration_s=66,
            codecs="stand-in",
            peers={"alice": {"profile": "g1050-core-h"}, "bob": {}},
            servers={"turn": True},
            timeline=[{"do": "call", "by": "alice", "to": "bob"}],
            expect={
                "connection": "connected",
                "metrics": [
                    {"peer": peer, "type": "inbound-rtp", "member": "packetsReceived", "take": "change"}
                    | limits
                    for peer in ("alice", "bob")
                    for limits in (
                        {"from_s": 61.5, "to_s": 62.5, "op": "==", "value": 0},
                        {"from_s": 55, "to_s": 59, "op": ">=", "value": 120},
                    )
                ],
            },
        )
    )
    assert judged(scenario, run_scenario(scenario)) == []


def quick(**changes: object) -> Recording:
    """Run a short call of alice's to bob with these changes."""
    call = [{"do": "call", "by": "alice", "to": "bob"}]
    return run_scenario(
        scenario_from(plain(**{"duration_s": 6, "codecs": "stand-in", "timeline": call, **changes}))
    )


@pytest.mark.parametrize("fault", [{"kind": "disconnect", "peer": "alice"}, {"kind": "hold"}])
def test_a_run_ends_when_it_should(fault: dict[str, object]) -> None:
    """A hang-up that nobody hears because signaling is broken does not make the run longer."""
    recording = quick(signaling_faults=[{**fault, "at_s": 1}])
    assert 6 <= recording.duration_s < 10
    assert "failed" not in {row.get("state") for row in recording.event_rows}


def test_what_was_not_finished_is_a_problem() -> None:
    """A glare whose offers are held for ever, and a call that nobody answers, are told; unless expected."""
    call = {"do": "call", "by": "alice", "to": "bob"}
    glare = {"do": "glare", "by": "alice", "at_s": 3}
    (problem,) = quick(timeline=[call, glare], signaling_faults=[{"kind": "hold", "at_s": 1}]).meta[
        "problems"
    ]
    assert problem == "6.000 s, alice: glare: was not finished when the run ended"
    ignored = {"alice": {}, "bob": {"answers": "ignore"}}
    (problem,) = quick(peers=ignored).meta["problems"]
    assert problem == "6.000 s, alice calls bob: was not finished when the run ended"
    assert quick(peers=ignored, expect={"connection": "never"}).meta["problems"] == []


def test_the_end_that_is_expected_of_one_excuses_nobody_else() -> None:
    """A call that fails is a problem if the end of its caller's call is not what the scenario is about."""
    recording = quick(
        peers={"alice": {}, "bob": {}, "carol": {}, "david": {"answers": "reject"}},
        timeline=[
            {"do": "call", "by": "alice", "to": "bob"},
            {"do": "call", "by": "carol", "to": "david", "at_s": 1},
            {"do": "hang-up", "by": "alice", "at_s": 5},
        ],
        expect={"end_reason": {"alice": "hung-up"}},
    )
    (problem,) = recording.meta["problems"]
    assert "carol calls david" in problem


def test_faults_of_a_turn_server_lie_over_each_other() -> None:
    """The end of one leaves the others on; where one ends as another begins, the other one counts."""

    def errors(*faults: dict[str, object]) -> set[int]:
        recording = quick(
            duration_s=12,
            servers={"turn": {"faults": list(faults)}},
            timeline=[{"do": "call", "by": "alice", "to": "bob", "policy": "relay", "at_s": 1}],
            expect={"connection": "never"},
        )
        rows = [row for row in recording.event_rows if row["event"] == "icecandidateerror"]
        return {row["errorCode"] for row in rows}

    silent, full = {"silent": True}, {"reject": 486}
    assert errors({**silent, "for_s": 11}, {**full, "for_s": 0.1}) == {701}
    assert errors({**silent, "at_s": 0.5}, {**full, "for_s": 0.5}) == {701}
    assert errors({**full, "at_s": 0.5}, {**silent, "for_s": 0.5}) == {486}


def test_packets_that_were_encoded_before_are_decoded() -> None:
    """The same pictures and sounds come out at the other side, with little work at the first."""
    peers = {"alice": {"video": {"width": 160, "height": 120, "fps": 10}}, "bob": {}}
    recording = quick(codecs="packets", peers=peers)
    assert recording.meta["settings"]["codecs"] == "packets"
    last = [row["report"] for row in recording.stats_rows if row["peer"] == "bob"][-1]
    (video,) = [e for e in last.values() if e["type"] == "inbound-rtp" and e["kind"] == "video"]
    assert (video["frameWidth"], video["frameHeight"]) == (160, 120)
    assert video["framesDecoded"] > 40


@pytest.mark.parametrize(
    ("nat", "stun", "ports"),
    [
        ("symmetric", 2, 2),
        ("address-dependent", 2, 2),
        ("port-restricted-cone", 2, 1),
        ("symmetric", True, 1),
    ],
)
def test_two_stun_servers_tell_a_peer_how_its_nat_maps(nat: str, stun: bool | int, ports: int) -> None:
    """Behind a NAT that has a mapping for each address, a peer gathers two reflexive candidates; else one."""
    scenario = scenario_from(
        plain(duration_s=3, peers={"alice": {"nat": nat}, "bob": {}}, servers={"stun": stun})
    )
    stats = run_scenario(scenario).stats()
    found = stats[
        (stats.peer == "alice") & (stats.candidateType == "srflx") & (stats.type == "local-candidate")
    ]
    assert found.port.nunique() == found.id.nunique() == ports
    assert set(found.url) <= {"stun:stun:3478", "stun:stun-2:3478"}
