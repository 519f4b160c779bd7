"""What each direction and track carried, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from calllab.diagnosis.series import calls_of
from calllab.lab import Recording

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "summarize"]

COLUMNS = (
    "call",
    "direction",
    "track",
    "packets",
    "lost %",
    "kbit/s",
    "RTT ms",
    "jitter ms",
    "fps",
    "freezes",
    "gap ms",
    "latency ms",
)


def summarize(recording: Recording) -> pd.DataFrame:
    """Return one row for each track of each direction of each call.

    Rates are means over the time in which the track was received, the round trip is a median, the latency
    is from capture to playout.  What was not measured is NaN.
    """
    import pandas as pd

    numbers = {call.call_id: number for number, call in enumerate(calls_of(recording), 1)}
    trips = {
        (call.call_id, name): [trip.rtt_s for trip in peer.round_trips]
        for call in calls_of(recording)
        for name, peer in call.peers.items()
    }
    rows: list[tuple[Any, ...]] = []
    for (call_id, peer, _), seen in _streams(recording).items():
        first, last = seen[0], seen[-1]
        others = [name for name in recording.peers if name != peer]
        sender = others[0] if len(others) == 1 else "?"
        elapsed_s = (last["timestamp"] - first["timestamp"]) / 1000
        received, lost = last.get("packetsReceived", 0), max(0, last.get("packetsLost", 0))
        played = _playout(recording, call_id, peer, last.get("trackIdentifier"))
        rtts = trips.get((call_id, peer), [])
        rows.append(
            (
                numbers.get(call_id, 0),
                f"{sender} → {peer}",
                f"{last.get('kind', '?')} {last.get('mid', '')}".strip(),
                received,
                100 * lost / (received + lost) if received + lost else None,
                _rate(first, last, "bytesReceived", elapsed_s, 8 / 1000),
                median(rtts) * 1000 if rtts else None,
                fmean(entry["jitter"] for entry in seen if "jitter" in entry) * 1000
                if any("jitter" in entry for entry in seen)
                else None,
                _rate(first, last, "framesDecoded", elapsed_s, 1.0),
                last.get("freezeCount"),
                max(
                    (event["maxGap_s"] for event in played if event.get("maxGap_s") is not None), default=None
                ),
                fmean(latencies) * 1000
                if (latencies := [e["latency_s"] for e in played if e.get("latency_s") is not None])
                else None,
            )
        )
    rows.sort(key=lambda row: row[:3])
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["gap ms"] = pd.to_numeric(frame["gap ms"]) * 1000
    for column in COLUMNS[4:]:
        frame[column] = pd.to_numeric(frame[column]).astype(float).round(1)
    frame["freezes"] = frame["freezes"].astype("Int64")
    return frame


def _streams(recording: Recording) -> dict[tuple[str, str, str], list[Mapping[str, Any]]]:
    streams: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in recording.stats_rows:
        for key, entry in row["report"].items():
            if entry.get("type") == "inbound-rtp" and entry.get("packetsReceived"):
                streams.setdefault((str(row.get("callId") or ""), row["peer"], key), []).append(entry)
    return streams


def _rate(
    first: Mapping[str, Any], last: Mapping[str, Any], member: str, elapsed_s: float, scale: float
) -> float | None:
    if member not in last or elapsed_s <= 0:
        return None
    return float((last[member] - first.get(member, 0)) / elapsed_s * scale)


def _playout(recording: Recording, call_id: str, peer: str, track_id: Any) -> list[Mapping[str, Any]]:
    return [
        row
        for row in recording.event_rows
        if row["event"] == "playout"
        and row["peer"] == peer
        and str(row.get("callId") or "") == call_id
        and row.get("trackId") == track_id
    ]
