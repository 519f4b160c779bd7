"""Recordings made of chance and rules, with known truth: a call as two peers would have measured it.

Each second each peer has a getStats report with what aiortc's peers have: 50 audio and about 60 video packets
a second, connectivity checks every 2.5 s, RTCP reports that repeat until the next one, playout latencies.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from calllab.lab import Recording

EPOCH_MS = 1_750_000_000_000.0
PACKETS_PER_S = {"audio": 50, "video": 60}
PEERS = ("alice", "bob")


@dataclass(frozen=True)
class Episode:
    """Something that is done to one direction for a while."""

    direction: str
    from_s: float
    to_s: float
    loss: float = 0.0
    burst: float = 1.0
    delay_s: float = 0.0

    def share(self, from_s: float, to_s: float) -> float:
        """Return which part of an interval lies in the episode."""
        return max(0.0, min(to_s, self.to_s) - max(from_s, self.from_s)) / (to_s - from_s)


@dataclass
class Counters:
    """What one peer has counted so far."""

    received: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PACKETS_PER_S, 0))
    lost: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PACKETS_PER_S, 0))
    transport: int = 0
    responses: int = 0
    rtt_s: float = 0.0
    reported: int = 0
    reported_rtt_s: float = 0.0
    reported_at_ms: float = EPOCH_MS


def call(
    seed: int,
    *episodes: Episode,
    duration_s: int = 60,
    background: float = 0.001,
    noise_s: float = 0.002,
    call_id: str = "c1",
    start_s: float = 0.0,
    end_reason: str = "hung-up",
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return events and statistics of one call."""
    chance = random.Random(seed)
    events: list[dict[str, Any]] = []
    stats: list[dict[str, Any]] = []
    counters = {peer: Counters() for peer in PEERS}
    for second in range(1, duration_s + 1):
        t_s = start_s + second + chance.uniform(-0.02, 0.02)
        from_s, to_s = float(second - 1), float(second)
        one_way = {
            f"{a}->{b}": sum(
                e.delay_s * e.share(from_s, to_s) for e in episodes if e.direction == f"{a}->{b}"
            )
            for a, b in (PEERS, PEERS[::-1])
        }
        for peer in PEERS:
            other = PEERS[1 - PEERS.index(peer)]
            direction = f"{other}->{peer}"
            count = counters[peer]
            active = [e for e in episodes if e.direction == direction]
            gone = sum(e.share(from_s, to_s) for e in active if e.loss == 1.0)
            for kind, rate in PACKETS_PER_S.items():
                _arrive(chance, count, kind, rate, active, background, from_s, to_s)
            if gone < 1.0:
                count.transport += sum(PACKETS_PER_S.values()) + chance.randrange(5)
            rtt_s = 0.004 + sum(one_way.values()) + abs(chance.gauss(0, noise_s))
            if second % 5 in (0, 3) and not _dead(episodes, from_s, to_s):
                count.responses += 1
                count.rtt_s = rtt_s
            if chance.random() < 0.8 and not _dead(episodes, from_s, to_s):
                count.reported += 1
                count.reported_rtt_s = rtt_s
                count.reported_at_ms = EPOCH_MS + t_s * 1000
            stats.append({"t_s": t_s, "peer": peer, "callId": call_id, "report": _report(count, t_s)})
            if gone < 1.0:
                for kind in PACKETS_PER_S:
                    latency = 0.09 + one_way[direction] + abs(chance.gauss(0, noise_s))
                    events.append(_event(t_s, peer, "playout", call_id, kind=kind, latency_s=latency))
    end_s = start_s + duration_s + 0.3
    events += [_event(end_s, peer, "call-end", call_id, reason=end_reason) for peer in PEERS]
    return sorted(events, key=lambda event: event["t_s"]), stats


def recording(*calls: tuple[list[dict[str, Any]], list[dict[str, Any]]], events: Any = ()) -> Recording:
    """Put calls and further events into one recording."""
    all_events = sorted([*events, *(e for made, _ in calls for e in made)], key=lambda event: event["t_s"])
    return Recording.build(events=all_events, stats=[row for _, made in calls for row in made])


def glare(at_s: float = 12.0, *, resolved: bool = True, call_id: str = "c1") -> Iterator[dict[str, Any]]:
    """Yield the events of two offers that cross."""
    for peer in PEERS:
        yield _event(at_s, peer, "negotiationneeded", call_id)
        yield _event(at_s + 0.001, peer, "signalingstatechange", call_id, state="have-local-offer")
    yield _event(at_s + 0.02, "alice", "offer-collision", call_id)
    yield _event(at_s + 0.021, "bob", "offer-collision", call_id)
    if not resolved:
        failure = {"type": "offer", "error": "InvalidStateError", "message": "have-local-offer"}
        yield _event(at_s + 0.03, "bob", "setRemoteDescription", call_id, **failure)
        return
    yield _event(at_s + 0.02, "alice", "offer-ignored", call_id)
    yield _event(at_s + 0.022, "bob", "rollback", call_id, implicit=True)
    yield _event(at_s + 0.022, "bob", "signalingstatechange", call_id, state="stable")
    yield _event(at_s + 0.023, "bob", "signalingstatechange", call_id, state="have-remote-offer")
    yield _event(at_s + 0.03, "bob", "signalingstatechange", call_id, state="stable")
    yield _event(at_s + 0.05, "alice", "signalingstatechange", call_id, state="stable")


def _event(t_s: float, peer: str, event: str, call_id: str, **members: Any) -> dict[str, Any]:
    return {"t_s": t_s, "peer": peer, "event": event, "callId": call_id, **members}


def _dead(episodes: tuple[Episode, ...], from_s: float, to_s: float) -> bool:
    return any(e.loss == 1.0 and e.share(from_s, to_s) > 0 for e in episodes)


def _arrive(
    chance: random.Random,
    count: Counters,
    kind: str,
    rate: int,
    active: list[Episode],
    background: float,
    from_s: float,
    to_s: float,
) -> None:
    bad = False
    for number in range(rate):
        at_s = from_s + (number + 0.5) / rate * (to_s - from_s)
        here = next((e for e in active if e.from_s <= at_s < e.to_s), None)
        if here is not None and here.loss == 1.0:
            continue  # nothing arrives, so nothing is counted until something does
        loss = background
        if here is not None and here.burst > 1.0:
            leave = 1 / here.burst
            bad = chance.random() >= leave if bad else chance.random() < leave * here.loss / (1 - here.loss)
            loss = 1.0 if bad else background
        elif here is not None and here.loss:
            loss = here.loss
        if chance.random() < loss:
            count.lost[kind] += 1
        else:
            count.received[kind] += 1


def _report(count: Counters, t_s: float) -> Mapping[str, Mapping[str, Any]]:
    now_ms = EPOCH_MS + t_s * 1000
    report: dict[str, dict[str, Any]] = {
        "T": {"type": "transport", "timestamp": now_ms, "packetsReceived": count.transport},
        "P": {
            "type": "candidate-pair",
            "timestamp": now_ms,
            "responsesReceived": count.responses,
            "currentRoundTripTime": count.rtt_s,
        },
        "R": {
            "type": "remote-inbound-rtp",
            "timestamp": count.reported_at_ms,
            "roundTripTimeMeasurements": count.reported,
            "roundTripTime": count.reported_rtt_s,
        },
    }
    for kind in PACKETS_PER_S:
        report[f"I{kind}"] = {
            "type": "inbound-rtp",
            "kind": kind,
            "timestamp": now_ms,
            "packetsReceived": count.received[kind],
            "packetsLost": count.lost[kind],
            "bytesReceived": 100 * count.received[kind],
        }
    for key, entry in report.items():
        entry["id"] = key
    return report
