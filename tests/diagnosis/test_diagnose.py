"""The first findings, scored against calls whose truth is known."""

from __future__ import annotations

import json
from statistics import median

import pytest

from calllab.diagnosis import Diagnosis, Finding, diagnose
from calllab.lab import Recording
from tests.diagnosis.synthetic import Episode, call, glare, recording

SEEDS = range(25)
FORWARD, BACKWARD = "alice->bob", "bob->alice"


def only(diagnosis: Diagnosis, cause: str) -> Finding:
    """Return the one finding, which must be of this cause."""
    assert [finding.cause for finding in diagnosis.findings] == [cause]
    return diagnosis.findings[0]


def test_clean_calls_are_clean() -> None:
    """Hardly a false alarm in clean calls with a little background loss and noise: at most 2 in 60."""
    alarms = [seed for seed in range(60) if diagnose(recording(call(seed, background=0.002))).findings]
    assert len(alarms) <= 2
    assert diagnose(recording(call(1000))).verdict == "clean"


@pytest.mark.parametrize("direction", [FORWARD, BACKWARD])
def test_loss_is_found_with_direction_and_edges(direction: str) -> None:
    """8 % for 10 s is found in every call, with direction and edges, and the truth in its interval."""
    covered = 0
    for seed in SEEDS:
        found = only(diagnose(recording(call(seed, Episode(direction, 20, 30, loss=0.08)))), "loss-uniform")
        assert found.direction == direction
        assert abs(found.onset_s - 20) <= 1.1
        assert abs(found.end_s - 30) <= 1.1
        assert found.severity is not None
        covered += found.severity.ci95[0] <= 0.08 <= found.severity.ci95[1]
    assert covered >= 0.8 * len(SEEDS)


def test_weak_loss_is_found_more_often_than_not() -> None:
    """2 % for 10 s stands out in most calls; 0.5 % does not have to."""
    found = []
    for seed in SEEDS:
        diagnosis = diagnose(recording(call(seed, Episode(FORWARD, 20, 30, loss=0.02))))
        found.append("loss-uniform" in {finding.cause for finding in diagnosis.findings})
    assert sum(found) >= 0.7 * len(found)


def test_loss_in_bursts_is_not_called_uniform() -> None:
    """Losses in runs of six are told from independent ones."""
    causes = [
        f.cause
        for seed in SEEDS
        for f in diagnose(recording(call(seed, Episode(FORWARD, 10, 40, loss=0.08, burst=6.0)))).findings
    ]
    assert causes.count("loss-burst") >= 0.8 * len(SEEDS)


def test_a_whole_lossy_call_is_one_finding() -> None:
    """Loss from beginning to end has nothing to stand out against but the background of a good path."""
    found = only(diagnose(recording(call(3, Episode(BACKWARD, 0, 60, loss=0.05)))), "loss-uniform")
    assert found.onset_s < 3
    assert found.end_s > 57


@pytest.mark.parametrize("direction", [FORWARD, BACKWARD])
def test_delay_is_found_and_the_latency_tells_the_direction(direction: str) -> None:
    """120 ms for 8 s is found in every call within 25 %, and its direction comes from the playout latency."""
    onsets = []
    for seed in SEEDS:
        found = only(diagnose(recording(call(seed, Episode(direction, 30, 38, delay_s=0.12)))), "delay")
        assert found.direction == direction
        assert found.severity is not None
        assert found.severity.value == pytest.approx(120, rel=0.25)
        onsets.append(abs(found.onset_s - 30))
    assert median(onsets) < 0.5


def test_delay_without_a_common_clock_has_no_direction() -> None:
    """From round trips alone a delay is found, and its direction is left open."""
    events, stats = call(5, Episode(FORWARD, 30, 40, delay_s=0.2))
    silent = [event for event in events if event["event"] != "playout"]
    assert only(diagnose(recording((silent, stats))), "delay").direction is None


def test_a_long_path_is_a_finding_of_the_whole_call() -> None:
    """A round trip of 400 ms all the time is named although nothing changed."""
    found = only(diagnose(recording(call(6, Episode(FORWARD, 0, 60, delay_s=0.4)))), "delay")
    assert "all the time" in found.sentence


def test_a_blackout_of_both_directions_is_one_finding() -> None:
    """Silence both ways is one blackout with its edges, and what got lost in it is not reported as loss."""
    for seed in SEEDS:
        both = (Episode(FORWARD, 25, 33, loss=1.0), Episode(BACKWARD, 25, 33, loss=1.0))
        found = only(diagnose(recording(call(seed, *both))), "blackout")
        assert found.direction == "both"
        assert abs(found.onset_s - 25) <= 1.1
        assert abs(found.end_s - 33) <= 1.1


def test_a_one_way_blackout_has_its_direction() -> None:
    """When only bob hears nothing, the path from alice to bob was gone."""
    found = only(diagnose(recording(call(7, Episode(FORWARD, 25, 33, loss=1.0)))), "blackout")
    assert found.direction == FORWARD


def test_a_hang_up_is_no_blackout() -> None:
    """Samples that go on after the call has ended, with nothing arriving, are nothing to report."""
    events, stats = call(8, duration_s=30)
    late = [{**row, "t_s": row["t_s"] + 30} for row in stats[-20:]]
    assert diagnose(recording((events, stats + late))).findings == ()


def test_two_calls_are_told_apart() -> None:
    """A second call after the first is neither a blackout nor a counter reset; its own fault is found."""
    first = call(9, duration_s=30)
    second = call(10, Episode(FORWARD, 10, 20, loss=0.1), duration_s=30, call_id="c2", start_s=40)
    found = only(diagnose(recording(first, second)), "loss-uniform")
    assert abs(found.onset_s - 50) <= 1.1


def test_resolved_glare_is_reported_and_harmless() -> None:
    """Who ignored and who rolled back is said; the verdict stays clean."""
    diagnosis = diagnose(recording(call(11), events=glare()))
    found = only(diagnosis, "glare-resolved")
    assert found.direction == "signaling"
    assert "alice ignored" in found.sentence
    assert "bob took its own back" in found.sentence
    assert found.onset_s == pytest.approx(12.0, abs=0.01)
    assert found.end_s == pytest.approx(12.05, abs=0.01)
    assert diagnosis.verdict == "clean"


def test_unresolved_glare_fails_the_call() -> None:
    """A collision that ends in InvalidStateError is unresolved, and the verdict is failed."""
    diagnosis = diagnose(recording(call(12), events=glare(resolved=False)))
    found = only(diagnosis, "glare-unresolved")
    assert "InvalidStateError" in found.sentence
    assert diagnosis.verdict == "failed"


def test_several_faults_are_all_found_in_order() -> None:
    """Loss, delay and a blackout in one call give three findings, in the order of their onset."""
    episodes = (
        Episode(FORWARD, 10, 18, loss=0.08),
        Episode(BACKWARD, 24, 32, delay_s=0.15),
        Episode(FORWARD, 40, 46, loss=1.0),
        Episode(BACKWARD, 40, 46, loss=1.0),
    )
    diagnosis = diagnose(recording(call(13, *episodes)))
    assert [(f.cause, f.direction) for f in diagnosis.findings] == [
        ("loss-uniform", FORWARD),
        ("delay", BACKWARD),
        ("blackout", "both"),
    ]
    assert diagnosis.verdict == "impaired"


def test_too_little_is_unknown() -> None:
    """An empty recording, and one of two seconds, have no verdict."""
    assert diagnose(Recording.build()).verdict == "unknown"
    assert diagnose(recording(call(14, duration_s=2))).verdict == "unknown"


def test_a_call_that_failed_is_failed() -> None:
    """A call that ended as failed is failed even if nothing else was found."""
    assert diagnose(recording(call(15, end_reason="failed"))).verdict == "failed"


def test_truth_is_never_read() -> None:
    """A recording that claims a fault in its truth alone is clean."""
    events, stats = call(16)
    truth = [{"t_s": 5, "kind": "planned", "fault": {"cause": "blackout", "direction": "both", "at_s": 5}}]
    assert diagnose(Recording.build(events=events, stats=stats, truth=truth)).verdict == "clean"


def test_the_json_has_its_fixed_shape() -> None:
    """Members and types are those that others build on."""
    diagnosis = diagnose(recording(call(17, Episode(FORWARD, 20, 30, loss=0.08))), source="x.zip")
    plain = json.loads(diagnosis.to_json())
    assert list(plain) == ["version", "source", "duration_s", "peers", "verdict", "findings"]
    assert plain["source"] == "x.zip"
    (finding,) = plain["findings"]
    assert set(finding) == {
        "cause",
        "direction",
        "onset_s",
        "end_s",
        "severity",
        "confidence",
        "evidence",
        "alternatives",
        "advice",
    }
    assert set(finding["severity"]) == {"value", "unit", "ci95"}
    assert set(finding["evidence"][0]) == {"metric", "value", "unit", "t_s", "peer"}
    assert set(finding["alternatives"][0]) == {"cause", "why_not"}


def test_repeats_and_resets_are_not_read_as_traffic() -> None:
    """A report that repeats adds nothing, and a counter that starts again takes nothing away."""
    events, stats = call(18)
    repeated = [row for row in stats for _ in range(2)]
    assert diagnose(recording((events, repeated))).findings == ()
    reset = [
        {
            **row,
            "report": {
                **row["report"],
                "Ivideo": {**row["report"]["Ivideo"], "packetsReceived": 5, "packetsLost": 0},
            },
        }
        if row["t_s"] > 59
        else row
        for row in stats
    ]
    assert diagnose(recording((events, reset))).findings == ()


def test_hostile_members_do_no_harm() -> None:
    """Counters that are strings or null, and entries without a type, are read as nothing."""
    events, stats = call(19)
    for row in stats[::3]:
        row["report"] = {
            "x": {"id": "x"},
            "Iaudio": {"type": "inbound-rtp", "packetsReceived": "many", "timestamp": None},
        }
    diagnose(recording((events, stats)))


def test_two_episodes_of_loss_are_two_findings() -> None:
    """Loss that comes again later is not bridged over the clean time in between."""
    episodes = (Episode(FORWARD, 10, 20, loss=0.08), Episode(FORWARD, 40, 50, loss=0.08))
    for seed in SEEDS:
        findings = diagnose(recording(call(seed, *episodes))).findings
        assert [f.cause for f in findings] == ["loss-uniform", "loss-uniform"]
        assert [abs(f.onset_s - t) <= 1.1 for f, t in zip(findings, (10, 40), strict=True)] == [True, True]


def test_delay_both_ways_is_both() -> None:
    """Delay added in each direction is recognised as such, and its step is the round trip's."""
    for seed in SEEDS:
        both = (Episode(FORWARD, 30, 38, delay_s=0.12), Episode(BACKWARD, 30, 38, delay_s=0.12))
        found = only(diagnose(recording(call(seed, *both))), "delay")
        assert found.direction == "both"
        assert found.severity is not None
        assert found.severity.value == pytest.approx(240, rel=0.25)


def test_a_blackout_of_little_more_than_a_second_is_no_loss() -> None:
    """One wholly silent second of a busy call is a blackout; its missing packets are not loss."""
    both = (Episode(FORWARD, 24.9, 26.2, loss=1.0), Episode(BACKWARD, 24.9, 26.2, loss=1.0))
    found = only(diagnose(recording(call(5, *both))), "blackout")
    assert found.direction == "both"


def test_a_hang_up_in_the_middle_of_glare_decides_nothing() -> None:
    """A call that is over before glare could be resolved is not a failed one."""
    events, stats = call(6, duration_s=20)
    crossing = [event for event in glare(19.9) if event["t_s"] < 19.921]
    diagnosis = diagnose(recording((events, stats), events=crossing))
    assert diagnosis.findings == ()
    assert diagnosis.verdict == "clean"
