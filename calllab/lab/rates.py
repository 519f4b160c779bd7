"""Rates of one side of a call, from one getStats report to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RateMeter", "Rates"]


@dataclass(frozen=True)
class Rates:
    """What arrived at one side since the report before; None where nothing can be said."""

    bitrate_kbps: float | None = None
    loss: float | None = None
    rtt_ms: float | None = None
    jitter_ms: float | None = None
    fps: float | None = None


@dataclass(frozen=True)
class _Totals:
    timestamp_ms: float
    bytes: int
    received: int
    lost: int
    frames: int


class RateMeter:
    """Turns the counters of successive reports of one peer into rates."""

    def __init__(self) -> None:
        self._last: dict[str, _Totals] = {}

    def update(self, report: Mapping[str, Mapping[str, Any]]) -> Rates:
        """Return the rates between the report before and this one; the first one has none but RTT and
        jitter.
        """
        grown_bytes = grown_received = grown_lost = frames = 0.0
        elapsed_s = 0.0
        video = False
        jitters: list[float] = []
        for entry in report.values():
            if entry["type"] != "inbound-rtp":
                continue
            now = _Totals(
                entry["timestamp"],
                entry.get("bytesReceived", 0),
                entry.get("packetsReceived", 0),
                entry.get("packetsLost", 0),
                entry.get("framesDecoded", 0),
            )
            if "jitter" in entry:
                jitters.append(entry["jitter"])
            then, self._last[entry["id"]] = self._last.get(entry["id"]), now
            if then is None or now.timestamp_ms <= then.timestamp_ms or now.received < then.received:
                continue
            elapsed_s = max(elapsed_s, (now.timestamp_ms - then.timestamp_ms) / 1000)
            grown_bytes += now.bytes - then.bytes
            grown_received += now.received - then.received
            grown_lost += max(0, now.lost - then.lost)
            if entry.get("kind") == "video":
                video = True
                frames += now.frames - then.frames
        rtt = _round_trip_time(report)
        jitter_ms = max(jitters) * 1000 if jitters else None
        if not elapsed_s:
            return Rates(rtt_ms=rtt, jitter_ms=jitter_ms)
        expected = grown_received + grown_lost
        return Rates(
            bitrate_kbps=grown_bytes * 8 / elapsed_s / 1000,
            loss=grown_lost / expected if expected else None,
            rtt_ms=rtt,
            jitter_ms=jitter_ms,
            fps=frames / elapsed_s if video else None,
        )


def _round_trip_time(report: Mapping[str, Mapping[str, Any]]) -> float | None:
    for entry in report.values():
        if entry["type"] == "transport":
            pair = report.get(entry.get("selectedCandidatePairId", ""), {})
            rtt_s = pair.get("currentRoundTripTime")
            return None if rtt_s is None else rtt_s * 1000
    return None
