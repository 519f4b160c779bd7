"""The curves of a recording: rates per peer and second, connection states, faults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from calllab.lab import Recording
from calllab.lab.rates import RateMeter, Rates

__all__ = ["Fault", "Trace", "connection_states", "faults_of", "traces_of"]


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
        return [float("nan") if value is None else value * scale for value in found]


@dataclass(frozen=True)
class Fault:
    """Something that was injected; ``end_s`` may be infinite."""

    cause: str
    direction: str
    at_s: float
    end_s: float
    label: str


def traces_of(recording: Recording) -> list[Trace]:
    """Return a trace for each peer of each call."""
    traces: dict[tuple[str, str], Trace] = {}
    meters: dict[tuple[str, str], RateMeter] = {}
    for row in recording.stats_rows:
        key = (str(row.get("callId") or ""), row["peer"])
        others = [name for name in recording.peers if name != row["peer"]]
        trace = traces.setdefault(key, Trace(*key, sender=others[0] if len(others) == 1 else "the others"))
        trace.t_s.append(float(row["t_s"]))
        trace.rates.append(meters.setdefault(key, RateMeter()).update(row["report"]))
    return list(traces.values())


def connection_states(recording: Recording, peer: str) -> Iterator[tuple[float, float, str]]:
    """Yield (from, to, state) of a peer's connection, over all its calls."""
    changes = [
        (float(row["t_s"]), str(row.get("state")))
        for row in recording.event_rows
        if row["peer"] == peer and row["event"] == "connectionstatechange"
    ]
    ends = [
        (float(row["t_s"]), "closed")
        for row in recording.event_rows
        if row["peer"] == peer and row["event"] == "call-end"
    ]
    changes = sorted([*changes, *ends])
    for (from_s, state), (to_s, _) in pairwise([*changes, (recording.duration_s, "")]):
        if to_s > from_s and state != "closed":
            yield from_s, to_s, state


def faults_of(recording: Recording) -> list[Fault]:
    """Return what was injected: the planned faults, with the ends that they really had."""
    faults: dict[object, Fault] = {}
    for number, row in enumerate(recording.truth_rows):
        told = row["fault"]
        key = (
            (told.get("id"), told.get("cause"), told.get("direction"))
            if told.get("id") is not None
            else number
        )
        at_s, for_s = told.get("at_s"), told.get("for_s")
        if not isinstance(at_s, int | float):
            continue
        end_s = at_s + for_s if isinstance(for_s, int | float) else float("inf")
        faults[key] = Fault(
            str(told.get("cause")), str(told.get("direction") or ""), at_s, end_s, _label(told)
        )
    return sorted(faults.values(), key=lambda fault: fault.at_s)


def _label(told: dict[str, object]) -> str:
    settings = told.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    if "networkChanged" in settings:
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
