"""Expectations are measured on a recording and its diagnosis, and hold or do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from calllab import Recording
from calllab.lab.scenario import Judgement, judge
from calllab.lab.scenario.expect import Expectations


def opinion(*found: tuple[str, str, float, float, float | None], verdict: str = "impaired") -> Any:
    """Return a diagnosis with these findings: cause, direction, onset, end, severity."""
    return SimpleNamespace(
        verdict=verdict,
        findings=[
            SimpleNamespace(
                cause=cause,
                direction=direction,
                onset_s=onset_s,
                end_s=end_s,
                severity=None if severity is None else SimpleNamespace(value=severity),
            )
            for cause, direction, onset_s, end_s, severity in found
        ],
    )


def outcome(expect: dict[str, Any], recording: Recording, diagnosis: Any = None) -> dict[str, Judgement]:
    """Return the judgements by what they are about."""
    wanted = msgspec.convert(expect, Expectations)
    return {each.what: each for each in judge(wanted, recording, diagnosis or opinion())}


def event(t_s: float, peer: str, name: str, **members: Any) -> dict[str, Any]:
    """Return a row of events."""
    return {"t_s": t_s, "peer": peer, "event": name, "callId": "c1"} | members


def state(t_s: float, value: str) -> dict[str, Any]:
    """Return a change of the call's state."""
    return event(t_s, "alice", "call-state", state=value)


@pytest.mark.parametrize(
    ("rows", "connection"),
    [
        ([], "never"),
        ([state(1, "ringing"), event(9, "alice", "call-end", reason="failed")], "never"),
        ([state(1, "connected"), event(9, "alice", "call-end", reason="hung-up")], "connected"),
        ([state(1, "connected"), state(5, "reconnecting")], "connected"),
        ([state(1, "connected"), event(9, "alice", "call-end", reason="failed")], "lost"),
        ([state(1, "connected"), event(9, "alice", "call-end", reason="failed", callId="c2")], "connected"),
    ],
)
def test_connection_is_read_from_the_calls_states(rows: list[dict[str, Any]], connection: str) -> None:
    """Never connected, connected, and connected and then failed are told apart, call by call."""
    recording = Recording.build(events=rows)
    for expected in ("never", "connected", "lost"):
        judged = outcome({"connection": expected}, recording)["connection"]
        assert judged.got == connection
        assert judged.holds == (expected == connection)


def glare(*rows: tuple[str, str]) -> Recording:
    """Return a recording with these (peer, event or signaling state)."""
    return Recording.build(
        events=[
            event(1, peer, name)
            if name in ("offer-ignored", "rollback")
            else event(2, peer, "signalingstatechange", state=name)
            for peer, name in rows
        ]
    )


def test_glare_is_resolved_by_one_who_ignores_and_one_who_rolls_back() -> None:
    """Who did what is compared, and both must be stable in the end."""
    resolved = glare(("alice", "offer-ignored"), ("bob", "rollback"), ("alice", "stable"), ("bob", "stable"))
    assert outcome({"glare": {"ignored_by": "alice", "rolled_back_by": "bob"}}, resolved)["glare"].holds
    assert not outcome({"glare": {"ignored_by": "bob"}}, resolved)["glare"].holds
    assert not outcome({"glare": {"resolved": False}}, resolved)["glare"].holds
    stuck = glare(
        ("alice", "offer-ignored"), ("bob", "rollback"), ("alice", "have-local-offer"), ("bob", "stable")
    )
    assert not outcome({"glare": {}}, stuck)["glare"].holds
    assert outcome({"glare": {"resolved": False}}, stuck)["glare"].holds
    assert not outcome({"glare": {}}, glare(("alice", "stable")))["glare"].holds


def test_a_finding_must_fit_in_every_way() -> None:
    """Cause, direction, onset, end and severity are each compared; what there was is told."""
    found = opinion(("loss-uniform", "alice->bob", 8.0, 23.0, 0.08))
    empty = Recording.build()
    fits = {
        "cause": "loss-uniform",
        "direction": "alice->bob",
        "onset_s": {"min": 7, "max": 9},
        "end_s": {"max": 23},
        "severity": {"min": 0.05},
    }
    assert outcome({"findings": [fits]}, empty, found)["finding loss-uniform"].holds
    for member, other in (
        ("direction", "bob->alice"),
        ("onset_s", {"min": 9}),
        ("end_s", {"max": 20}),
        ("severity", {"min": 0.1}),
    ):
        judged = outcome({"findings": [fits | {member: other}]}, empty, found)["finding loss-uniform"]
        assert not judged.holds
        assert judged.got == "alice->bob, 8.0 to 23.0 s, severity 0.08"
    nothing = outcome({"findings": [fits]}, empty, opinion())["finding loss-uniform"]
    assert (nothing.holds, nothing.got) == (False, "not found")


def test_one_finding_does_not_serve_two_expectations() -> None:
    """Two expected findings of the same kind need two findings."""
    twice = {"findings": [{"cause": "delay"}, {"cause": "delay"}]}
    one = opinion(("delay", "both", 1.0, 2.0, None))
    judged = judge(msgspec.convert(twice, Expectations), Recording.build(), one)
    assert [each.holds for each in judged] == [True, True, False]


def test_what_must_not_be_found_is_looked_for() -> None:
    """A finding that is excluded by name, or by there being no others, fails its expectation."""
    found = opinion(("delay", "both", 1.0, 2.0, None), ("jitter", "both", 1.0, 2.0, None))
    expect = {"findings": [{"cause": "delay"}], "not_findings": ["jitter", "blackout"]}
    judged = outcome(expect | {"no_other_findings": True}, Recording.build(), found)
    assert not judged["no finding jitter"].holds
    assert judged["no finding blackout"].holds
    assert not judged["other findings"].holds
    assert "jitter" in judged["other findings"].got
    assert outcome({"verdict": ["clean", "impaired"]}, Recording.build(), found)["verdict"].holds
    assert not outcome({"verdict": ["clean"]}, Recording.build(), found)["verdict"].holds


def reports(*values: tuple[float, int, int]) -> Recording:
    """Return statistics with two streams: time, packets of the first, packets of the second."""
    return Recording.build(
        stats=[
            {
                "t_s": t_s,
                "peer": "bob",
                "callId": "c1",
                "report": {
                    name: {"id": name, "type": "inbound-rtp", "kind": kind, "packetsReceived": packets}
                    for name, kind, packets in (("A", "audio", first), ("V", "video", second))
                },
            }
            for t_s, first, second in values
        ]
    )


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        ({}, 90.0),
        ({"take": "first"}, 30.0),
        ({"take": "max"}, 90.0),
        ({"take": "min"}, 30.0),
        ({"take": "mean"}, 60.0),
        ({"take": "change"}, 60.0),
        ({"take": "rate"}, 30.0),
        ({"take": "count"}, 6.0),
        ({"across": "max"}, 60.0),
        ({"across": "min"}, 30.0),
        ({"across": "mean"}, 45.0),
        ({"where": {"kind": "audio"}}, 30.0),
        ({"where": {"kind": "audio"}, "from_s": 1.5, "to_s": 2.5}, 20.0),
        ({"take": "count", "member": None}, 6.0),
    ],
    ids=str,
)
def test_metrics_take_one_number_of_many(asked: dict[str, Any], value: float) -> None:
    """Time, streams, filters and spans are reduced as asked."""
    metric = {"peer": "bob", "type": "inbound-rtp", "member": "packetsReceived", "op": "==", "value": value}
    judged = list(
        outcome({"metrics": [metric | asked]}, reports((1, 10, 20), (2, 20, 40), (3, 30, 60))).values()
    )
    assert judged[-1].got == f"{value:g}"
    assert judged[-1].holds


@pytest.mark.parametrize(
    ("op", "value", "holds"),
    [
        ("<", 30, False),
        ("<=", 30, True),
        (">", 29, True),
        (">=", 31, False),
        ("==", 30, True),
        ("!=", 30, False),
    ],
)
def test_metrics_are_compared_as_asked(op: str, value: float, holds: bool) -> None:
    """Each operator does what it says."""
    metric = {"peer": "bob", "type": "inbound-rtp", "member": "packetsReceived", "take": "first"}
    judged = judge(
        msgspec.convert({"metrics": [metric | {"op": op, "value": value}]}, Expectations),
        reports((1, 10, 20)),
        opinion(),
    )
    assert judged[-1].holds is holds


def test_nothing_to_measure_is_no_success() -> None:
    """A metric of what is not in the recording does not hold, whatever the operator."""
    metric = {"peer": "bob", "type": "inbound-rtp", "member": "jitter", "op": "<", "value": 1}
    judged = judge(msgspec.convert({"metrics": [metric]}, Expectations), reports((1, 1, 1)), opinion())
    assert (judged[-1].holds, judged[-1].got) == (False, "nothing to measure")


def test_events_are_counted_and_measured() -> None:
    """Members of events filter by value and type, so that 1 is not true."""
    recording = Recording.build(
        events=[
            event(1, "bob", "playout", kind="audio", maxGap_s=0.06, implicit=True),
            event(2, "bob", "playout", kind="audio", maxGap_s=0.4, implicit=False),
            event(3, "bob", "playout", kind="video", maxGap_s=2.0, implicit=1),
        ]
    )

    def got(**asked: Any) -> str:
        metric = {"peer": "bob", "event": "playout", "op": "==", "value": 1} | asked
        return judge(msgspec.convert({"metrics": [metric]}, Expectations), recording, opinion())[-1].got

    assert got(take="count", where={"kind": "audio"}) == "2"
    assert got(take="count", where={"implicit": True}) == "1"
    assert got(take="max", member="maxGap_s", where={"kind": "audio"}) == "0.4"


def test_the_selected_pair_is_the_last_one() -> None:
    """Candidate types of the pair that the transport names are compared."""
    report = {
        "T": {"id": "T", "type": "transport", "selectedCandidatePairId": "P"},
        "P": {"id": "P", "type": "candidate-pair", "localCandidateId": "L", "remoteCandidateId": "R"},
        "L": {"id": "L", "type": "local-candidate", "candidateType": "relay"},
        "R": {"id": "R", "type": "remote-candidate", "candidateType": "srflx"},
    }
    recording = Recording.build(stats=[{"t_s": 1, "peer": "bob", "callId": "c", "report": report}])
    for expect, holds in (({"local": "relay"}, True), ({"local": "relay", "remote": "host"}, False)):
        judged = outcome({"pairs": [{"peer": "bob", **expect}]}, recording)["bob's selected pair"]
        assert judged.holds is holds
        assert judged.got == "local relay, remote srflx"
    assert not outcome({"pairs": [{"peer": "alice"}]}, recording)["alice's selected pair"].holds


def test_an_action_that_failed_fails_the_run() -> None:
    """What the timeline could not do is in the recording's meta, and no expectation can hold over it."""
    failed = Recording.build(meta={"problems": ["3.0 s, alice: add-video: alice is in no call"]})
    assert not outcome({}, failed)["actions"].holds
    assert outcome({}, Recording.build())["actions"].holds
