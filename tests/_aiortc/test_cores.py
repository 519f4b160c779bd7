from __future__ import annotations

import contextlib
import random
from types import SimpleNamespace

import numpy as np
import pytest
from aiortc.rtp import compute_audio_level_dbov
from av import AudioFrame
from hypothesis import given
from hypothesis import strategies as st

from calllab._aiortc.candidates import explain_unauthorized, from_aioice, parse_candidate, parse_ice_url
from calllab._aiortc.levels import AudioLevel, Freezes, level_dbov
from calllab._aiortc.liveness import IceTimers, Liveness
from calllab._aiortc.rtp_counters import SenderReports

TIMERS = IceTimers()


def simulate(
    answer_share: float, *, seconds: float, rtt_s: float = 0.05, seed: int = 0
) -> list[tuple[float, str]]:
    """Run a Liveness against a path that answers that share of the checks; returns the changes of state."""
    entropy = random.Random(seed)
    liveness = Liveness(TIMERS, entropy, 0.0)
    now, changes, answers = 0.0, [(0.0, "connected")], []
    while now < seconds:
        for at in [a for a in answers if a <= now]:
            liveness.answered(at, at - rtt_s)
        answers = [a for a in answers if a > now]
        state = liveness.state(now)
        if state != changes[-1][1]:
            changes.append((now, state))
        if state == "failed":
            break
        if liveness.check_due(now):
            liveness.sent(now)
            if entropy.random() < answer_share:
                answers.append(now + rtt_s)
        now = min([liveness.next_event(now), *answers])
    return changes


def test_no_answers_is_disconnected_after_5_s_and_failed_after_30_s() -> None:
    """A dead path is doubted and given up exactly on time."""
    assert simulate(0, seconds=60) == [(0.0, "connected"), (5.0, "disconnected"), (30.0, "failed")]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.85, 0.64])
def test_random_loss_is_no_outage(share: float, seed: int) -> None:
    """With a fifth of the datagrams lost in each direction a call of ten minutes is never in doubt."""
    assert simulate(share, seconds=600, seed=seed) == [(0.0, "connected")]


def test_a_round_trip_longer_than_the_interval_is_no_outage() -> None:
    """Answers that take 3 s still give consent."""
    assert simulate(1.0, seconds=120, rtt_s=3.0) == [(0.0, "connected")]


@given(
    st.lists(st.tuples(st.sampled_from(["answered", "received", "sent"]), st.floats(0.0, 8.0)), max_size=60)
)
def test_liveness_invariants(steps: list[tuple[str, float]]) -> None:
    """Failed is for good and exactly when consent ran out; the next event is never behind a due check."""
    liveness = Liveness(TIMERS, random.Random(1), 0.0)
    now = last_answer = last_received = 0.0
    failed = False
    for name, wait in steps:
        now += wait
        failed = failed or now >= last_answer + TIMERS.consent_s
        state = liveness.state(now)
        assert (state == "failed") == failed
        if not failed:
            doubted = now >= min(last_answer, last_received) + TIMERS.disconnected_after_s
            assert state == ("disconnected" if doubted else "connected")
            assert liveness.check_due(now) == (liveness.next_event(now) <= now)
        else:
            assert not liveness.check_due(now)
        if name == "answered":
            liveness.answered(now, now)
            last_answer = last_received = now
        elif name == "received":
            liveness.received(now)
            last_received = now
        else:
            liveness.sent(now)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_timers_must_be_positive(bad: float) -> None:
    """A timer that is no duration is refused by name."""
    with pytest.raises(ValueError, match="gather_timeout_s"):
        IceTimers(gather_timeout_s=bad)


@given(st.text(max_size=200))
def test_no_text_breaks_the_candidate_parser(text: str) -> None:
    """Whatever a peer sends, the parser returns a usable UDP candidate of component 1, or None."""
    for line in (text, f"candidate:{text}", f"candidate:1 1 udp 1 1.2.3.4 5 typ {text}"):
        candidate = parse_candidate(line)
        if candidate is not None:
            assert candidate.component == 1
            assert 0 < candidate.port < 65536


@given(
    st.integers(0, 2**32 - 1),
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(
        lambda a: not (a.is_multicast or a.is_unspecified)
    ),
    st.integers(1, 65535),
    st.sampled_from(["host", "srflx", "relay"]),
)
def test_candidates_survive_the_round_trip(priority: int, address: object, port: int, kind: str) -> None:
    """A parsed candidate, printed and parsed again, is the same."""
    related = "" if kind == "host" else " raddr 0.0.0.0 rport 9"
    line = f"candidate:abc 1 udp {priority} {address} {port} typ {kind}{related}"
    first = parse_candidate(line)
    assert first is not None
    again = parse_candidate(str(from_aioice(first)))
    assert again is not None
    assert from_aioice(again) == from_aioice(first)
    assert str(from_aioice(first)) == line


def test_mdns_candidates_are_kept_for_resolution() -> None:
    """Browsers hide host addresses behind names."""
    assert parse_candidate("candidate:1 1 udp 1 3f0c.local 5000 typ host") is not None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("stun:example.org", ("stun", "example.org", 3478, "udp")),
        ("turn:[::1]:5000?transport=udp", ("turn", "::1", 5000, "udp")),
        ("turn:10.0.0.1?transport=tcp", ("turn", "10.0.0.1", 3478, "tcp")),
        ("turns:example.org", ("turns", "example.org", 5349, "tcp")),
    ],
)
def test_ice_urls(url: str, expected: tuple[str, str, int, str]) -> None:
    """The defaults of RFC 7064 and RFC 7065."""
    parsed = parse_ice_url(url)
    assert (parsed.scheme, parsed.host, parsed.port, parsed.transport) == expected


@given(st.text(max_size=60))
def test_a_url_is_parsed_or_a_value_error(text: str) -> None:
    """No text does anything else."""
    for url in (text, f"turn:{text}", f"stun:{text}"):
        with contextlib.suppress(ValueError):
            assert parse_ice_url(url).url == url


def test_401_is_explained_by_the_user_name() -> None:
    """Expired, wrong, missing and opaque credentials are told apart."""
    assert "expired at 2023-11-14 22:13:20 UTC, 12 s ago" in explain_unauthorized(
        "1700000000:bob", "", 1700000012
    )
    assert "password of '1700000000:bob' is wrong" in explain_unauthorized("1700000000:bob", "", 1600000000)
    assert "none were given" in explain_unauthorized(None, "Unauthorized", 0)
    assert "user name 'bob'" in explain_unauthorized("bob", "Unauthorized", 0)
    assert explain_unauthorized("9" * 30 + ":x", "", 0)


def block(**values: object) -> SimpleNamespace:
    base = {"lsr": 0, "dlsr": 0, "packets_lost": 0, "highest_sequence": 0, "jitter": 0, "fraction_lost": 0}
    return SimpleNamespace(**(base | values))


def test_round_trip_is_measured_against_the_report_that_was_answered() -> None:
    """Even if newer sender reports have left since: a long round trip is measured, not missed."""
    reports = SenderReports()
    ntp = [(1000 + i) << 32 for i in range(3)]
    for i, timestamp in enumerate(ntp):
        reports.report_sent(timestamp, 10.0 + i)
    answered = (ntp[0] >> 16) & 0xFFFFFFFF
    reports.report_received(block(lsr=answered, dlsr=65536 // 2, jitter=4800), 48000, 12.6, 1.0)
    assert reports.latest is not None
    assert reports.latest.round_trip_s == pytest.approx(2.1)
    assert reports.latest.jitter_s == pytest.approx(0.1)
    reports.report_received(block(lsr=12345), 48000, 13.0, 2.0)
    assert reports.latest.round_trip_s is None
    assert reports.latest.total_round_trip_s == pytest.approx(2.1)
    assert reports.latest.round_trip_measurements == 1


@given(st.integers(0, 65535), st.integers(1, 200_000), st.integers(0, 300), st.booleans())
def test_packets_received_is_reckoned_with_and_without_cycles(
    first: int, sent: int, behind: int, counts_cycles: bool
) -> None:
    """What the peer has seen follows from its highest sequence number, whichever way it counts cycles."""
    reports = SenderReports()
    reports._first_sequence, reports._packets = first, sent
    seen = max(1, sent - behind)
    highest = first + seen - 1
    reports.report_received(
        block(highest_sequence=highest if counts_cycles else highest & 0xFFFF, packets_lost=0),
        90000,
        1.0,
        1.0,
    )
    assert reports.latest is not None
    assert reports.latest.packets_received == seen


def test_freezes_follow_the_definition() -> None:
    """A gap of 150 ms over the mean counts, smaller ones do not."""
    freezes = Freezes()
    now = 0.0
    for gap in [0.033] * 30 + [0.12] + [0.033] * 30 + [0.5] + [0.033] * 5:
        now += gap
        freezes.add(now)
    assert freezes.count == 1
    assert freezes.duration_s == pytest.approx(0.5)


def sound(samples: np.ndarray, layout: str = "mono") -> AudioFrame:
    """Return a frame of 16-bit samples."""
    frame = AudioFrame.from_ndarray(samples.astype(np.int16).reshape(1, -1), format="s16", layout=layout)
    frame.sample_rate = 48000
    return frame


@pytest.mark.parametrize("amplitude", [0, 1, 2, 300, 9000, 32767])
def test_the_level_on_the_wire_is_that_of_aiortc(amplitude: int) -> None:
    """The quick level of a frame is the same number as the one aiortc counts sample by sample."""
    frame = sound(amplitude * np.sin(np.arange(960) / 7))
    assert level_dbov(frame) == compute_audio_level_dbov(frame)


def test_of_two_channels_the_louder_counts() -> None:
    """Energy and level of a frame are those of its loudest channel, full scale being 1."""
    level = AudioLevel()
    level.add(sound(np.tile([16384, 8192], 960), "stereo"))
    assert level.level == 0.5
    assert level.energy == pytest.approx(0.25 * 0.02)
    assert level.duration_s == 0.02
