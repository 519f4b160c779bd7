"""What a person sees in the terminal fits it and cannot be forged by a recording."""

from __future__ import annotations

import io

from rich.console import Console

from calllab.diagnosis import diagnose
from calllab.report import summarize
from calllab.terminal import DemoScreen, _summary_table, print_diagnosis
from tests.diagnosis.synthetic import Episode, call, recording


def console(width: int = 80) -> tuple[Console, io.StringIO]:
    """Return a console of that width, and what was printed on it."""
    out = io.StringIO()
    return Console(file=out, width=width, highlight=False), out


def test_phases_are_lines_with_times_where_there_is_no_terminal() -> None:
    """Each phase that ended is a line with its mark, its title and what was seen; markup is shown as text."""
    made, out = console()
    screen = DemoScreen(made)
    screen.started("call [red]bob[/]")
    screen.ended("call [red]bob[/]", 1.25, "connected")
    screen.started("hang up")
    screen.failed("hang up", 0.5, TimeoutError())
    shown = out.getvalue()
    assert "✓ call [red]bob[/]  1.2 s" in shown
    assert "connected" in shown
    assert "✗ hang up  0.5 s" in shown
    assert "TimeoutError" in shown


def test_the_table_fits_eighty_columns() -> None:
    """No cell of the summary is cut off on a narrow terminal."""
    made, out = console(80)
    made.print(_summary_table(summarize(recording(call(1, duration_s=20))), 80))
    shown = out.getvalue()
    assert "…" not in shown
    assert "packets" in shown
    assert "lat. ms" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_findings_are_sentences_with_advice() -> None:
    """Verdict, sentence and advice are printed; a clean call says that nothing was found."""
    made, out = console(200)
    print_diagnosis(diagnose(recording(call(2, Episode("alice->bob", 20, 30, loss=0.08)))), made)
    assert "verdict: impaired" in out.getvalue()
    assert "lost between" in out.getvalue()
    made, out = console(200)
    print_diagnosis(diagnose(recording(call(3))), made)
    assert "nothing was found" in out.getvalue()
