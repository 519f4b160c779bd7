"""Whether a recording is what its scenario expected: each expectation, its value, and whether it holds."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from calllab.lab.recording import Recording, Row
from calllab.lab.scenario.expect import (
    Expectations,
    FindingExpectation,
    GlareExpectation,
    Measure,
    PairExpectation,
    Range,
)

__all__ = ["Judgement", "Opinion", "judge", "measured"]

_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class Judgement:
    """One expectation and what became of it."""

    what: str
    """What was measured, in words."""
    wanted: str
    got: str
    holds: bool


class FoundSeverity(Protocol):
    """The severity of a finding."""

    @property
    def value(self) -> float:
        """How bad, in its unit."""


class Found(Protocol):
    """A finding of a diagnosis (:class:`calllab.diagnosis.Finding`)."""

    @property
    def cause(self) -> str:
        """What it was."""

    @property
    def direction(self) -> str | None:
        """Where it was."""

    @property
    def onset_s(self) -> float:
        """When it began."""

    @property
    def end_s(self) -> float:
        """When it ended."""

    @property
    def severity(self) -> FoundSeverity | None:
        """How bad it was."""


class Opinion(Protocol):
    """A diagnosis (:class:`calllab.diagnosis.Diagnosis`), made from the same recording."""

    @property
    def verdict(self) -> str:
        """In one word."""

    @property
    def findings(self) -> Sequence[Found]:
        """What was found."""


def judge(expect: Expectations, recording: Recording, diagnosis: Opinion) -> list[Judgement]:
    """Return a judgement for each expectation, in the order of the scenario."""
    made = [_problems(recording)]
    if expect.connection is not None:
        got = _connection(recording)
        made.append(Judgement("connection", expect.connection, got, got == expect.connection))
    for peer, reason in expect.end_reason.items():
        ended = _end_reason(recording, peer)
        made.append(Judgement(f"end of {peer}'s call", reason, ended, ended == reason))
    if expect.glare is not None:
        made.append(_glare(expect.glare, recording))
    made += [_pair(pair, recording) for pair in expect.pairs]
    if expect.verdict:
        wanted = " or ".join(expect.verdict)
        made.append(Judgement("verdict", wanted, diagnosis.verdict, diagnosis.verdict in expect.verdict))
    made += _findings(expect, diagnosis)
    made += [_measure(metric, recording) for metric in expect.metrics]
    return made


def _problems(recording: Recording) -> Judgement:
    problems = recording.meta.get("problems") or []
    return Judgement("actions", "all done", "; ".join(map(str, problems)) or "all done", not problems)


# Calls


def _connection(recording: Recording) -> str:
    connected: set[str] = set()
    lost = False
    for row in recording.event_rows:
        call_id = str(row.get("callId"))
        if row["event"] == "call-state" and row.get("state") == "connected":
            connected.add(call_id)
        elif row["event"] == "call-end" and row.get("reason") == "failed" and call_id in connected:
            lost = True
    return "never" if not connected else "lost" if lost else "connected"


def _end_reason(recording: Recording, peer: str) -> str:
    reasons = [
        row.get("reason")
        for row in recording.event_rows
        if row["event"] == "call-end" and row["peer"] == peer
    ]
    return str(reasons[-1]) if reasons else "no end"


def _glare(expect: GlareExpectation, recording: Recording) -> Judgement:
    by: dict[str, list[str]] = {"offer-ignored": [], "rollback": []}
    state: dict[str, str] = {}
    for row in recording.event_rows:
        if row["event"] in by:
            by[row["event"]].append(str(row["peer"]))
        elif row["event"] == "signalingstatechange" and row.get("state") != "closed":
            state[str(row["peer"])] = str(row.get("state"))
    ignored, rolled_back = by["offer-ignored"], by["rollback"]
    stable = bool(state) and all(value == "stable" for value in state.values())
    resolved = bool(ignored) and len(ignored) == len(rolled_back) and stable
    got = "resolved" if resolved else "unresolved"
    if ignored or rolled_back:
        got += f", ignored by {_names(ignored)}, rolled back by {_names(rolled_back)}"
    wanted = "resolved" if expect.resolved else "unresolved"
    holds = resolved == expect.resolved
    for name, expected, actual in (
        ("ignored", expect.ignored_by, ignored),
        ("rolled back", expect.rolled_back_by, rolled_back),
    ):
        if expected is not None:
            wanted += f", {name} by {expected}"
            holds = holds and set(actual) == {expected}
    return Judgement("glare", wanted, got, holds)


def _pair(expect: PairExpectation, recording: Recording) -> Judgement:
    got: dict[str, str] = {}
    for row in recording.stats_rows:
        if row["peer"] != expect.peer:
            continue
        report = row["report"]
        for entry in report.values():
            if entry.get("type") == "transport" and (
                pair := report.get(entry.get("selectedCandidatePairId"))
            ):
                got = {
                    end: str(report.get(pair.get(f"{end}CandidateId"), {}).get("candidateType"))
                    for end in ("local", "remote")
                }
    wanted = {end: kind for end in ("local", "remote") if (kind := getattr(expect, end)) is not None}
    return Judgement(
        f"{expect.peer}'s selected pair",
        ", ".join(f"{end} {kind}" for end, kind in wanted.items()) or "some",
        ", ".join(f"{end} {kind}" for end, kind in got.items()) or "none",
        bool(got) and all(got[end] == kind for end, kind in wanted.items()),
    )


# Findings


def _findings(expect: Expectations, diagnosis: Opinion) -> Iterator[Judgement]:
    free = list(diagnosis.findings)
    for wanted in expect.findings:
        same = [found for found in diagnosis.findings if found.cause == wanted.cause]
        fitting = [found for found in free if _fits(wanted, found)]
        if fitting:
            free.remove(fitting[0])
        said = "; ".join(map(_described, fitting[:1] or same)) or "not found"
        yield Judgement(f"finding {wanted.cause}", _wanted(wanted), said, bool(fitting))
    for cause in expect.not_findings:
        found = [_described(each) for each in diagnosis.findings if each.cause == cause]
        yield Judgement(f"no finding {cause}", "not found", "; ".join(found) or "not found", not found)
    if expect.no_other_findings:
        others = [f"{each.cause} {_described(each)}" for each in free]
        yield Judgement("other findings", "none", "; ".join(others) or "none", not others)


def _fits(wanted: FindingExpectation, found: Found) -> bool:
    if found.cause != wanted.cause or wanted.direction not in (None, found.direction):
        return False
    severity = None if found.severity is None else found.severity.value
    numbers = ((wanted.onset_s, found.onset_s), (wanted.end_s, found.end_s), (wanted.severity, severity))
    return all(limits is None or (value is not None and value in limits) for limits, value in numbers)


def _wanted(wanted: FindingExpectation) -> str:
    parts = [wanted.direction or "found"]
    limits: tuple[tuple[str, Range | None], ...] = (
        ("onset_s", wanted.onset_s),
        ("end_s", wanted.end_s),
        ("severity", wanted.severity),
    )
    parts += [f"{name} {value}" for name, value in limits if value is not None]
    return ", ".join(parts)


def _described(found: Found) -> str:
    severity = "" if found.severity is None else f", severity {found.severity.value:.3g}"
    return f"{found.direction or 'somewhere'}, {found.onset_s:.1f} to {found.end_s:.1f} s{severity}"


# Measures


def _measure(metric: Measure, recording: Recording) -> Judgement:
    value = measured(metric, recording)
    where = "".join(f" {key}={text}" for key, text in metric.where.items())
    span = "" if not metric.from_s and metric.to_s is None else f" from {metric.from_s:g} s"
    span += "" if metric.to_s is None else f" to {metric.to_s:g} s"
    member = f".{metric.member}" if metric.member else ""
    what = f"{metric.take} of {metric.peer}'s {metric.type or metric.event}{member}{where}{span}"
    holds = value is not None and _OPERATORS[metric.op](value, metric.value)
    got = "nothing to measure" if value is None else f"{value:.6g}"
    return Judgement(what, f"{metric.op} {metric.value:g}", got, holds)


def measured(metric: Measure, recording: Recording) -> float | None:
    """Return the number that ``metric`` names; None if the recording has nothing of it."""
    streams: dict[str, list[tuple[float, float]]] = {}
    for key, t_s, entry in _entries(metric, recording):
        if any(_plain(entry.get(name)) != _plain(value) for name, value in metric.where.items()):
            continue
        value = 1.0 if metric.member is None else entry.get(metric.member)
        if isinstance(value, int | float):
            streams.setdefault(key, []).append((t_s, float(value)))
    if metric.take == "count":
        return float(sum(map(len, streams.values())))
    values = [value for series in streams.values() if (value := _taken(metric.take, series)) is not None]
    if not values:
        return None
    combine: Mapping[str, Callable[[list[float]], float]] = {
        "sum": sum,
        "max": max,
        "min": min,
        "mean": lambda numbers: sum(numbers) / len(numbers),
    }
    return combine[metric.across](values)


def _entries(metric: Measure, recording: Recording) -> Iterator[tuple[str, float, Row]]:
    """Yield stream, time and members of all that could count."""
    last_s = float("inf") if metric.to_s is None else metric.to_s
    rows = recording.event_rows if metric.event is not None else recording.stats_rows
    for row in rows:
        t_s = float(row["t_s"])
        if row["peer"] != metric.peer or not metric.from_s <= t_s <= last_s:
            continue
        if metric.event is not None:
            if row["event"] == metric.event:
                yield "", t_s, row
            continue
        for entry in row["report"].values():
            if entry.get("type") == metric.type:
                yield f"{row.get('callId')}/{entry.get('id')}", t_s, entry


def _taken(take: str, series: list[tuple[float, float]]) -> float | None:
    (first_s, first), (last_s, last) = series[0], series[-1]
    numbers = [value for _, value in series]
    match take:
        case "last":
            return last
        case "first":
            return first
        case "max":
            return max(numbers)
        case "min":
            return min(numbers)
        case "mean":
            return sum(numbers) / len(numbers)
        case "change":
            return last - first
        case _:
            return (last - first) / (last_s - first_s) if last_s > first_s else None


def _plain(value: Any) -> Any:
    """Return ``value`` so that 1 and True, and True and "true", are not taken for each other."""
    return (type(value) is bool, value)


def _names(peers: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(peers)) or "nobody"
