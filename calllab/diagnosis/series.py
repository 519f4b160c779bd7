"""A recording taken apart: per call and peer, counters turned into intervals.

Counters are cumulative, repeat while no new report came, and start again after a restart of their stream.
Here they become what grew between two samples, with the traps dealt with once:

* an entry whose ``timestamp`` did not move is a repeat and is skipped;
* a counter that shrank was reset: the interval is left out rather than guessed;
* ``packetsLost`` may shrink when late packets arrive: what is lost in an interval is never negative.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from calllab.lab import Recording

__all__ = ["CallSeries", "Event", "Interval", "PeerSeries", "RoundTrip", "calls_of"]


@dataclass(frozen=True, slots=True)
class Interval:
    """What arrived at a peer between two samples."""

    from_s: float
    to_s: float
    received: int
    lost: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """One measured round trip; ``metric`` is where it was read."""

    t_s: float
    rtt_s: float
    metric: str


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a peer."""

    t_s: float
    peer: str
    name: str
    members: Mapping[str, Any]


@dataclass
class PeerSeries:
    """What one peer measured in one call."""

    peer: str
    rtp: list[Interval] = field(default_factory=list)
    """All RTP streams that arrive, summed per sample."""
    transport: list[Interval] = field(default_factory=list)
    """Everything that arrives on the transport: RTP, RTCP and connectivity checks."""
    last_packet_s: dict[float, float] = field(default_factory=dict)
    """Sample time to the time at which the latest RTP packet had arrived."""
    round_trips: list[RoundTrip] = field(default_factory=list)
    latencies: dict[str, dict[float, float]] = field(default_factory=dict)
    """Track kind to mean capture-to-playout latency of each second, where the peers share a clock."""


@dataclass
class CallSeries:
    """One call, from all sides that were recorded."""

    call_id: str
    peers: dict[str, PeerSeries] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    end_s: float = float("inf")

    def direction_to(self, peer: str) -> str:
        """Name the direction that ends at ``peer``: ``alice->bob``, or ``in`` if bob alone was recorded."""
        others = [name for name in self.peers if name != peer]
        return f"{others[0]}->{peer}" if len(others) == 1 else "in"

    def peer(self, name: str) -> PeerSeries:
        """Return the series of a peer, empty if it is new."""
        return self.peers.setdefault(name, PeerSeries(name))


def calls_of(recording: Recording) -> list[CallSeries]:
    """Take the recording apart, call by call in the order of their beginning."""
    calls: dict[str, CallSeries] = {}
    for row in recording.event_rows:
        call_id = str(row.get("callId") or "")
        call = calls.setdefault(call_id, CallSeries(call_id))
        call.events.append(Event(float(row["t_s"]), row["peer"], row["event"], row))
        if row["event"] == "call-end":
            call.end_s = min(call.end_s, float(row["t_s"]))
        elif row["event"] == "playout" and (latency_s := _real(row, "latency_s")) is not None:
            latencies = call.peer(row["peer"]).latencies.setdefault(str(row.get("kind")), {})
            t_s = round(float(row["t_s"]), 2)
            # Several tracks of a kind are played in the same second: the quickest says most about the path.
            latencies[t_s] = min(latency_s, latencies.get(t_s, float("inf")))
    readers: dict[tuple[str, str], _Reader] = {}
    for row in recording.stats_rows:
        call_id = str(row.get("callId") or "")
        call = calls.setdefault(call_id, CallSeries(call_id))
        series = call.peer(row["peer"])
        readers.setdefault((call_id, row["peer"]), _Reader(series)).read(float(row["t_s"]), row["report"])
    # Events without a call belong to no call; they are no call of their own.
    return [call for call_id, call in calls.items() if call_id or call.peers]


class _Reader:
    """Reads the successive reports of one peer in one call."""

    def __init__(self, series: PeerSeries) -> None:
        self._series = series
        self._before: dict[str, Mapping[str, Any]] = {}
        self._before_s: float | None = None

    def read(self, t_s: float, report: Mapping[str, Mapping[str, Any]]) -> None:
        """Take one report."""
        rtp, transport = [0, 0, 0], [0, 0, 0]
        seen_rtp = seen_transport = False
        for then, now in self._moved(report):
            match now.get("type"):
                case "inbound-rtp":
                    seen_rtp = True
                    _add(rtp, then, now, "packetsReceived", "packetsLost", "bytesReceived")
                case "transport":
                    seen_transport = True
                    _add(transport, then, now, "packetsReceived", None, "bytesReceived")
                case "candidate-pair":
                    self._round_trip(t_s, then, now, "responsesReceived", "currentRoundTripTime")
                case "remote-inbound-rtp":
                    self._round_trip(t_s, then, now, "roundTripTimeMeasurements", "roundTripTime")
        if self._before_s is not None:
            if seen_rtp:
                self._series.rtp.append(Interval(self._before_s, t_s, *rtp))
            if seen_transport:
                self._series.transport.append(Interval(self._before_s, t_s, *transport))
        self._note_last_packet(t_s, report)
        self._before_s = t_s
        self._before.update(report)

    def _moved(
        self, report: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        for key, now in report.items():
            then = self._before.get(key)
            if then is not None and now.get("timestamp") != then.get("timestamp"):
                yield then, now

    def _round_trip(
        self, t_s: float, then: Mapping[str, Any], now: Mapping[str, Any], count: str, value: str
    ) -> None:
        measured = _number(now, count) - _number(then, count)
        if measured <= 0 or (rtt_s := _real(now, value)) is None:
            return
        before, after = _real(then, "totalRoundTripTime"), _real(now, "totalRoundTripTime")
        # The mean of what was measured since, where the totals tell; the latest value may be smoothed.
        if before is not None and after is not None and after > before:
            rtt_s = (after - before) / measured
        self._series.round_trips.append(RoundTrip(t_s, rtt_s, f"{now['type']}.{value}"))

    def _note_last_packet(self, t_s: float, report: Mapping[str, Mapping[str, Any]]) -> None:
        ages: list[float] = []
        for entry in report.values():
            if entry.get("type") == "inbound-rtp":
                sampled, arrived = _real(entry, "timestamp"), _real(entry, "lastPacketReceivedTimestamp")
                if sampled is not None and arrived is not None:
                    ages.append((sampled - arrived) / 1000)
        if ages:
            self._series.last_packet_s[t_s] = t_s - max(0.0, min(ages))


def _add(
    sums: list[int],
    then: Mapping[str, Any],
    now: Mapping[str, Any],
    received: str,
    lost: str | None,
    size: str,
) -> None:
    grown = _number(now, received) - _number(then, received)
    if grown < 0:
        return
    sums[0] += grown
    if lost is not None:
        sums[1] += max(0, _number(now, lost) - _number(then, lost))
    sums[2] += max(0, _number(now, size) - _number(then, size))


def _number(entry: Mapping[str, Any], member: str) -> int:
    return int(_real(entry, member) or 0)


def _real(entry: Mapping[str, Any], member: str) -> float | None:
    """Return a finite number of an entry; None if there is none, whatever else a recording may hold there."""
    value = entry.get(member)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
