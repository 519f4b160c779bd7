"""What each direction and track carried, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Final

from calllab.lab import Recording
from calllab.report.traces import call_ids, sender_to, sound, traces_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "DECIMALS", "summarize"]

# Each title, and to how many decimals its numbers mean something.
DECIMALS: Final[Mapping[str, int | None]] = {
    "call": None,
    "direction": None,
    "track": None,
    "packets": None,
    "lost %": 1,
    "kbit/s": 0,
    "RTT ms": 1,
    "jitter ms": 1,
    "fps": 1,
    "freezes": 0,
    "gap ms": 0,
    "latency ms": 0,
}
COLUMNS: Final = tuple(DECIMALS)


@dataclass
class _Stream:
    """One RTP stream, as the peer saw it that received it."""

    call_id: str
    peer: str
    entries: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def last(self) -> Mapping[str, Any]:
        return self.entries[-1]

    def rate(self, member: str, scale: float = 1.0) -> float:
        """Return the growth per second of a counter over the time in which the stream was received."""
        first, last = self.entries[0], self.last
        elapsed_s = (last["timestamp"] - first["timestamp"]) / 1000
        if member not in last or elapsed_s <= 0:
            return math.nan
        return float((last[member] - first.get(member, 0)) / elapsed_s * scale)


def summarize(recording: Recording) -> pd.DataFrame:
    """Return one row for each track of each direction of each call.

    Rates are means over the time in which the track was received.  The round trip is the median of what the
    sender of the track saw, or the receiver if the sender was not recorded; the gap and the latency from
    capture to playout are those of the receiver's playout.  What was not measured is NaN.
    ``gap ms`` is the longest one.
    """
    import pandas as pd

    numbers = {call_id: number for number, call_id in enumerate(call_ids(recording), 1)}
    trips = {(trace.call_id, trace.peer): _finite(trace.values("rtt_ms")) for trace in traces_of(recording)}
    playouts = _playouts(recording)
    rows: list[tuple[Any, ...]] = []
    for stream in _streams(recording):
        call_id, peer, last = stream.call_id, stream.peer, stream.last
        sender = sender_to(recording, peer)
        received, lost = last.get("packetsReceived", 0), max(0, last.get("packetsLost", 0))
        played = playouts.get((call_id, peer, str(last.get("trackIdentifier"))), [])
        rows.append(
            (
                numbers.get(call_id, 0),
                f"{sender} → {peer}",
                f"{last.get('kind', '?')} {last.get('mid', '')}".strip(),
                int(received),
                100 * lost / (received + lost) if received + lost else math.nan,
                stream.rate("bytesReceived", 8 / 1000),
                _of(median, trips.get((call_id, sender)) or trips.get((call_id, peer), [])),
                _of(fmean, [entry["jitter"] * 1000 for entry in stream.entries if "jitter" in entry]),
                stream.rate("framesDecoded"),
                float(last.get("freezeCount", math.nan)),
                _of(max, _members(played, "maxGap_s")),
                _of(fmean, _members(played, "latency_s")),
            )
        )
    rows.sort(key=lambda row: row[:3])
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for title, decimals in DECIMALS.items():
        if decimals is not None:
            frame[title] = frame[title].astype(float).round(decimals)
    # Whole numbers, or nothing: audio does not freeze.
    frame["freezes"] = frame["freezes"].astype("Int64")
    return frame


def _streams(recording: Recording) -> Iterable[_Stream]:
    streams: dict[tuple[str, str, str], _Stream] = {}
    for row in sorted(recording.stats_rows, key=lambda row: float(row["t_s"])):
        call_id, peer = str(row.get("callId") or ""), row["peer"]
        for key, entry in sound(row["report"]).items():
            if entry["type"] == "inbound-rtp" and entry.get("packetsReceived"):
                streams.setdefault((call_id, peer, key), _Stream(call_id, peer)).entries.append(entry)
    return streams.values()


def _playouts(recording: Recording) -> dict[tuple[str, str, str], list[Mapping[str, Any]]]:
    playouts: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in recording.event_rows:
        if row["event"] == "playout":
            key = (str(row.get("callId") or ""), row["peer"], str(row.get("trackId")))
            playouts.setdefault(key, []).append(row)
    return playouts


def _members(rows: Iterable[Mapping[str, Any]], member: str) -> list[float]:
    """Return a member of all rows that have it, from seconds to milliseconds."""
    return [value * 1000 for row in rows if isinstance(value := row.get(member), int | float)]


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _of(measure: Callable[[list[float]], float], values: list[float]) -> float:
    return measure(values) if values else math.nan
