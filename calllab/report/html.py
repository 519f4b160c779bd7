"""One HTML file that opens offline: verdict, findings, table, pictures, what was done, versions."""

from __future__ import annotations

import io
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from calllab import __version__
from calllab.diagnosis import Diagnosis, diagnose
from calllab.errors import RecordingError
from calllab.lab import Recording
from calllab.report.ladder import plot_ladder
from calllab.report.plots import plot_quality
from calllab.report.summary import summarize
from calllab.report.traces import faults_of

__all__ = ["write_report"]

_HEADLINES = {
    "clean": "Nothing was wrong with this call.",
    "impaired": "The call was up, but impaired.",
    "failed": "The call failed.",
    "unknown": "Too little was recorded to tell.",
}


def write_report(recording: Recording, path: Path | str, *, diagnosis: Diagnosis | None = None) -> Path:
    """Write the report of a recording to one self-contained HTML file and return its path.

    Raises :exc:`~calllab.errors.RecordingError` if the file cannot be written.
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
        loader=PackageLoader("calllab.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["seconds"] = lambda value: f"{value:.1f} s"
    environment.filters["cell"] = _cell
    calls = list(
        dict.fromkeys(
            str(row["callId"])
            for row in recording.event_rows
            if row["event"] == "signal-sent" and isinstance(row.get("callId"), str)
        )
    )
    return environment.get_template("report.html.j2").render(
        headline=_HEADLINES[diagnosis.verdict],
        diagnosis=diagnosis,
        diagnosis_json=Markup(_json_for_script(diagnosis.to_json())),
        summary=summarize(recording),
        quality=_svg(plot_quality(recording, diagnosis)),
        ladders=[(number, _svg(plot_ladder(recording, call))) for number, call in enumerate(calls, 1)],
        faults=faults_of(recording),
        meta=recording.meta,
        peers=recording.peers,
        duration_s=recording.duration_s,
        digest=recording.digest(),
        version=__version__,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def _svg(figure: Figure) -> Markup:
    """Return a figure as an SVG element that takes the width of the page."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "calllab", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # The text in the figures is drawn as paths; nothing of the recording is left in it as markup.
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for size in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", text, count=1)
    return Markup(text)


def _json_for_script(text: str) -> str:
    """Make JSON safe inside a script element: no end tag, no comment can be in it."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _cell(value: Any) -> str:
    if pd.isna(value):
        return "–"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
