"""The small parts of the laboratory: rates, the judgement on a glare, the words of the truth."""

from __future__ import annotations

from typing import Any

import pytest

from calllab.errors import ExpectationFailed
from calllab.lab.glare import GlareWatch
from calllab.lab.observe import MediaIdentity
from calllab.lab.rates import RateMeter


def report(
    t_s: float, received: int, lost: int, *, frames: int | None = None, rtt_s: float | None = None
) -> Any:
    """Return a getStats report with one stream and, on request, a selected pair."""
    entry = {"id": "I", "type": "inbound-rtp", "timestamp": t_s * 1000, "bytesReceived": 100 * received}
    entry |= {"packetsReceived": received, "packetsLost": lost, "jitter": 0.004}
    if frames is not None:
        entry |= {"kind": "video", "framesDecoded": frames}
    made: dict[str, Any] = {"I": entry}
    if rtt_s is not None:
        made["T"] = {"id": "T", "type": "transport", "selectedCandidatePairId": "P"}
        made["P"] = {"id": "P", "type": "candidate-pair", "currentRoundTripTime": rtt_s}
    return made


def test_rates_are_what_grew_between_two_reports() -> None:
    """Bitrate, loss and frames come from differences over the report's own clock."""
    meter = RateMeter()
    first = meter.update(report(1.0, 100, 0, frames=30))
    assert (first.bitrate_kbps, first.loss, first.fps) == (None, None, None)
    rates = meter.update(report(3.0, 190, 10, frames=60, rtt_s=0.02))
    assert rates.bitrate_kbps == pytest.approx(90 * 100 * 8 / 2 / 1000)
    assert rates.loss == pytest.approx(0.1)
    assert rates.fps == pytest.approx(15)
    assert rates.rtt_ms == pytest.approx(20)
    assert rates.jitter_ms == pytest.approx(4)


def test_repeats_resets_and_late_packets_give_no_false_rates() -> None:
    """The same report twice, a counter that starts anew and a shrinking loss are read as no growth."""
    meter = RateMeter()
    meter.update(report(1.0, 100, 5))
    assert meter.update(report(1.0, 100, 5)).bitrate_kbps is None
    assert meter.update(report(2.0, 10, 0)).bitrate_kbps is None
    assert meter.update(report(3.0, 60, -1)).loss == 0.0


def watch(*events: tuple[str, str]) -> GlareWatch:
    """Return a watch that has seen these (peer, event)."""
    made = GlareWatch()
    for peer, event in events:
        made(1.0, peer, event, {})
    return made


def test_a_glare_is_one_ignored_and_one_rolled_back() -> None:
    """The outcome names both, with time and silence."""
    outcome = watch(("alice", "offer-ignored"), ("bob", "rollback")).judge(0.05, {"alice->bob": 0.06})
    assert (outcome.ignored_by, outcome.rolled_back_by) == ("alice", "bob")
    assert outcome.audio_gap_s == {"alice->bob": 0.06}


@pytest.mark.parametrize(
    "events",
    [
        [],
        [("alice", "offer-ignored")],
        [("bob", "rollback")],
        [("alice", "offer-ignored"), ("alice", "rollback")],
        [("alice", "offer-ignored"), ("bob", "offer-ignored"), ("bob", "rollback")],
    ],
)
def test_anything_else_is_no_resolved_glare(events: list[tuple[str, str]]) -> None:
    """Nobody, one alone, the same peer twice, or both ignoring: each is an error that says what was seen."""
    with pytest.raises(ExpectationFailed, match="exactly one offer ignored"):
        watch(*events).judge(0.05, {})


def test_a_replaced_session_and_a_lost_stream_are_noticed() -> None:
    """Another DTLS transport and a missing SSRC each fail; more streams do not."""
    dtls = object()
    before = MediaIdentity(dtls, frozenset({1, 2}))
    before.expect_in(MediaIdentity(dtls, frozenset({1, 2, 3})))
    with pytest.raises(ExpectationFailed, match="DTLS transport was replaced"):
        before.expect_in(MediaIdentity(object(), frozenset({1, 2})))
    with pytest.raises(ExpectationFailed, match=r"SSRCs \[2\]"):
        before.expect_in(MediaIdentity(dtls, frozenset({1})))
