"""The curves of a recording: rates per peer and second, connection states, faults."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from calllab.lab import Recording
from calllab.lab.rates import RateMeter, Rates

__all__ = ["Fault", "Trace", "call_ids", "connection_states", "faults_of", "sender_to", "sound", "traces_of"]

# Members whose values must be numbers to be computed with.
_NUMBERS: Final = (
    "timestamp",
    "packetsReceived",
    "packetsLost",
    "bytesReceived",
    "framesDecoded",
    "freezeCount",
    "jitter",
    "currentRoundTripTime",
)


@dataclass
class Trace:
    """What arrived at ``peer`` in one call, a point for each sample."""

    call_id: str
    peer: str
    sender: str
    t_s: list[float] = field(default_factory=list)
    rates: list[Rates] = field(default_factory=list)

    @property
    def direction(self) -> str:
        """The direction that ends at the peer, for people."""
        return f"{self.sender} → {self.peer}"

    def values(self, name: str, scale: float = 1.0) -> list[float]:
        """Return one rate over time; NaN where nothing can be said."""
        found = (getattr(rates, name) for rates in self.rates)
        return [math.nan if value is None else value * scale for value in found]


@dataclass(frozen=True)
class Fault:
    """Something that was injected; ``end_s`` is None if it was a moment, or its end was not recorded."""

    cause: str
    direction: str
    at_s: float
    end_s: float | None
    label: str


def call_ids(recording: Recording) -> list[str]:
    """Return the ids of all calls in the order of their first sign."""
    rows = sorted((*recording.event_rows, *recording.stats_rows), key=lambda row: float(row["t_s"]))
    return list(dict.fromkeys(call for row in rows if isinstance(call := row.get("callId"), str) and call))


def sender_to(recording: Recording, peer: str) -> str:
    """Return who sends to ``peer``: the other one, or ``others`` where that cannot be told."""
    others = [name for name in recording.peers if name != peer]
    return others[0] if len(others) == 1 else "others"


def traces_of(recording: Recording) -> list[Trace]:
    """Return a trace for each peer of each call."""
    traces: dict[tuple[str, str], Trace] = {}
    meters: dict[tuple[str, str], RateMeter] = {}
    for row in sorted(recording.stats_rows, key=lambda row: float(row["t_s"])):
        key = (str(row.get("callId") or ""), row["peer"])
        if key not in traces:
            traces[key] = Trace(*key, sender=sender_to(recording, row["peer"]))
            meters[key] = RateMeter()
        traces[key].t_s.append(float(row["t_s"]))
        traces[key].rates.append(meters[key].update(sound(row["report"])))
    return list(traces.values())


def sound(report: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the entries of a report that can be computed with.

    Recordings also come from elsewhere: entries without id, type or time, and those with something else
    where a number belongs, are left out.
    """
    return {
        key: entry
        for key, entry in report.items()
        if isinstance(entry.get("id"), str)
        and isinstance(entry.get("type"), str)
        and "timestamp" in entry
        and all(_is_number(entry[member]) for member in _NUMBERS if member in entry)
    }


def connection_states(recording: Recording, peer: str) -> Iterator[tuple[float, float, str]]:
    """Yield (from, to, state) of a peer's connection, over all its calls."""
    changes = sorted(
        (float(row["t_s"]), "closed" if row["event"] == "call-end" else str(row.get("state")))
        for row in recording.event_rows
        if row["peer"] == peer and row["event"] in ("connectionstatechange", "call-end")
    )
    ends_s = [t_s for t_s, _ in changes[1:]] + [recording.duration_s]
    for (from_s, state), to_s in zip(changes, ends_s, strict=False):
        if to_s > from_s and state != "closed":
            yield from_s, to_s, state


def faults_of(recording: Recording) -> list[Fault]:
    """Return what was injected: the planned faults, with the ends that they really had."""
    faults: dict[object, Fault] = {}
    for number, row in enumerate(recording.truth_rows):
        told = row["fault"]
        at_s, for_s = told.get("at_s"), told.get("for_s")
        if not _is_number(at_s):
            continue
        # A fault is planned and then realised: what is written later counts.
        key: object = number
        if told.get("id") is not None:
            key = (str(told["id"]), str(told.get("cause")), str(told.get("direction")))
        end_s = float(at_s + for_s) if _is_number(for_s) and for_s > 0 else None
        direction = str(told.get("direction") or "")
        faults[key] = Fault(str(told.get("cause")), direction, float(at_s), end_s, _label(told))
    return sorted(faults.values(), key=lambda fault: fault.at_s)


def _label(told: Mapping[str, Any]) -> str:
    settings = told.get("settings")
    if isinstance(settings, Mapping) and "networkChanged" in settings:
        return f"{settings['networkChanged']}'s network changed"
    match settings:
        case {"loss": int() | float() as loss}:
            return f"{loss:.0%} loss"
        case {"delay_ms": int() | float() as delay}:
            return f"+{delay:g} ms"
        case {"jitter_ms": int() | float() as jitter}:
            return f"±{jitter:g} ms"
        case {"rate_kbps": int() | float() as rate}:
            return f"{rate:g} kbit/s"
    return str(told.get("cause"))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
