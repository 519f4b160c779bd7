"""The events of a recording, told one a line for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from calllab.lab import Recording

__all__ = ["MAX_LINES", "Line", "timeline"]

# A page of more is slow to open; the recording itself has them all.
MAX_LINES: Final = 1500
_LONGEST: Final = 240
_COMMON: Final = frozenset({"t_s", "peer", "event", "callId", "sdp", "candidate"})
_FAULTS: Final = "laboratory"


@dataclass(frozen=True)
class Line:
    """One event; ``sdp`` is the session description that belongs to it, else empty."""

    t_s: float
    peer: str
    event: str
    detail: str = ""
    sdp: str = ""
    bad: bool = False


def timeline(recording: Recording) -> list[Line]:
    """Return all events and injected faults in the order of time, but for the measurements of playout.

    Candidates of one peer in a row are one line.
    """
    lines = [_line(row) for row in recording.event_rows if row["event"] != "playout"]
    lines += [
        Line(float(row["t_s"]), _FAULTS, f"fault {row['kind']}", _members(row["fault"], frozenset()))
        for row in recording.truth_rows
    ]
    told: list[Line] = []
    counts: list[int] = []
    for line in sorted(lines, key=lambda line: line.t_s):
        last = told[-1] if told else None
        if last is not None and _repeats(last, line):
            counts[-1] += 1
        else:
            told.append(line)
            counts.append(1)
    return [
        line if count == 1 else Line(line.t_s, line.peer, line.event, f"×{count}")
        for line, count in zip(told, counts, strict=True)
    ]


def _repeats(last: Line, line: Line) -> bool:
    return (
        line.event in ("icecandidate", "addIceCandidate")
        and (last.peer, last.event) == (line.peer, line.event)
        and not (last.bad or line.bad)
    )


def _line(row: Mapping[str, Any]) -> Line:
    detail = _members(row, _COMMON)
    candidate = row.get("candidate")
    if isinstance(candidate, Mapping):
        candidate = candidate.get("candidate")
    if candidate:
        detail = f"{candidate} {detail}".strip()
    elif "candidate" in row:
        detail = "end of candidates"
    sdp = row.get("sdp")
    return Line(
        float(row["t_s"]),
        row["peer"],
        row["event"],
        _short(detail),
        sdp if isinstance(sdp, str) else "",
        bad="error" in row or row["event"] == "icecandidateerror",
    )


def _members(row: Mapping[str, Any], without: frozenset[str]) -> str:
    shown = {key: value for key, value in row.items() if key not in without and value is not None}
    if set(shown) == {"state"}:
        return str(shown["state"])
    return _short(", ".join(f"{key} {_value(value)}" for key, value in shown.items()))


def _value(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case Mapping():
            return " ".join(f"{key} {_value(member)}" for key, member in value.items())
        case list() | tuple():
            return " ".join(_value(member) for member in value)
        case _:
            return str(value)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
