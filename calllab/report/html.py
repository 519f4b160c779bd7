"""One HTML file that opens offline: verdict, findings, table, pictures, what was done, versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from calllab import __version__
from calllab.diagnosis import Diagnosis, diagnose
from calllab.errors import RecordingError
from calllab.lab import Recording
from calllab.report.ladder import plot_ladder
from calllab.report.plots import plot_quality
from calllab.report.summary import COLUMNS, DECIMALS, summarize
from calllab.report.svg import inline_svg
from calllab.report.timeline import MAX_LINES, timeline
from calllab.report.traces import call_ids, faults_of

__all__ = ["write_report"]

# A page draws the ladders of the first calls; all are in the timeline.
MAX_LADDERS = 8

_HEADLINES = {
    "clean": "Nothing was wrong with this call.",
    "impaired": "The call was up, but impaired.",
    "failed": "The call failed.",
    "unknown": "Too little was recorded to tell.",
}


def write_report(recording: Recording, path: Path | str, *, diagnosis: Diagnosis | None = None) -> Path:
    """Write the report of a recording to one self-contained HTML file and return its path.

    The same recording always gives the same page.  Raises :exc:`~calllab.errors.RecordingError` if the file
    cannot be written.
    """
    path = Path(path)
    page = _render(recording, diagnosis or diagnose(recording))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as exc:
        raise RecordingError(f"the report cannot be written to {path}: {exc.strerror}") from exc
    return path


def _render(recording: Recording, diagnosis: Diagnosis) -> str:
    environment = Environment(
        loader=PackageLoader("calllab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(seconds=lambda value: f"{value:.1f} s", arrows=_arrows)
    calls = call_ids(recording)
    lines = timeline(recording)
    return environment.get_template("report.html.j2").render(
        headline=_HEADLINES[diagnosis.verdict],
        diagnosis=diagnosis,
        diagnosis_json=_script_json(diagnosis.to_json()),
        columns=COLUMNS,
        rows=_table(recording),
        quality=inline_svg(plot_quality(recording, diagnosis), "quality", "Quality over time"),
        ladders=[
            (number, inline_svg(plot_ladder(recording, call), f"ladder{number}", f"Ladder of call {number}"))
            for number, call in enumerate(calls[:MAX_LADDERS], 1)
        ],
        ladders_left_out=len(calls[MAX_LADDERS:]),
        faults=faults_of(recording),
        lines=lines[:MAX_LINES],
        lines_left_out=len(lines[MAX_LINES:]),
        peers=recording.peers,
        duration_s=recording.duration_s,
        about=tuple(_about(recording)),
        started=recording.meta.get("startedAt") or "",
    )


def _table(recording: Recording) -> list[list[str]]:
    return [
        [_cell(value, decimals) for value, decimals in zip(row, DECIMALS.values(), strict=True)]
        for row in summarize(recording).itertuples(index=False)
    ]


def _cell(value: Any, decimals: int | None) -> str:
    if decimals is None:
        return f"{value:,}" if isinstance(value, int) else str(value)
    return "–" if pd.isna(value) else f"{value:,.{decimals}f}"


def _about(recording: Recording) -> Iterator[tuple[str, str, str]]:
    """Yield what the recording says of itself, as name, value, and what is worth a look at most."""
    for member in ("settings", "peers", "versions"):
        told = recording.meta.get(member)
        for name, value in told.items() if isinstance(told, Mapping) else ():
            yield str(name), *_words(value)
    yield "digest", recording.digest(), ""
    yield "report by", f"calllab {__version__}", ""


def _words(value: object) -> tuple[str, str]:
    """Return a value in one line, and as a text of its own if it is a structure."""
    if not isinstance(value, Mapping):
        return str(value), ""
    if any(isinstance(part, Mapping | list) for part in value.values()):
        text = yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=100)
        return str(value.get("title", "")), text
    return ", ".join(f"{key} {setting}" for key, setting in value.items()), ""


def _arrows(direction: object) -> str:
    return str(direction).replace("->", " → ")


def _script_json(text: str) -> Markup:
    """Make JSON safe inside a script element: no end tag and no comment can be in it."""
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
