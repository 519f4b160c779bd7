"""What a person sees in the terminal: phases with their times, tables, findings in words."""

from __future__ import annotations

import time

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from calllab.demo import Demonstration
from calllab.diagnosis import Diagnosis
from calllab.report import summarize

__all__ = ["DemoScreen", "print_diagnosis"]

FULL_TABLE_WIDTH = 100
SHOWN_WITH_TENTHS = 1000


class DemoScreen:
    """Shows a demonstration phase by phase; without a terminal it prints a line when a phase has ended."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._begun = time.monotonic()
        self._status: Status | None = None

    def started(self, title: str) -> None:
        """Show what is being done."""
        if self._console.is_terminal:
            self._status = self._console.status(escape(title))
            self._status.start()

    def ended(self, title: str, took_s: float, said: str) -> None:
        """Show what was done and seen."""
        self._stop()
        self._line("[green]✓[/]", title, took_s, said)

    def failed(self, title: str, took_s: float, error: BaseException) -> None:
        """Show where it broke; the error itself is printed by whoever catches it."""
        self._stop()
        self._line("[red]✗[/]", title, took_s, type(error).__name__)

    def show(self, demonstration: Demonstration) -> None:
        """Show the summary, the findings, and where everything is."""
        console = self._console
        console.print()
        console.print(_summary_table(summarize(demonstration.recording), console.width))
        console.print()
        print_diagnosis(demonstration.diagnosis, console)
        console.print()
        console.print(f"recording  {escape(str(demonstration.recording_path))}", soft_wrap=True)
        console.print(f"report     {escape(str(demonstration.report_path))}", soft_wrap=True)

    def _line(self, mark: str, title: str, took_s: float, said: str) -> None:
        elapsed = time.monotonic() - self._begun
        self._console.print(
            f"[dim]{elapsed:5.1f} s[/] {mark} {escape(title)}  [dim]{took_s:.1f} s[/]"
            + (f"\n          [dim]{escape(said)}[/]" if said else ""),
            soft_wrap=True,
        )

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def print_diagnosis(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Print verdict and findings in words."""
    console = console or Console(highlight=False)
    console.print(f"verdict: [bold]{escape(diagnosis.verdict)}[/]")
    for finding in diagnosis.findings:
        console.print(f"  • {escape(finding.sentence)}", soft_wrap=True)
        if finding.advice:
            console.print(f"    [dim]{escape(finding.advice)}[/]", soft_wrap=True)
    if not diagnosis.findings:
        console.print("  nothing was found")


def _summary_table(summary: pd.DataFrame, width: int) -> Table:
    table = Table(
        title="What each direction carried",
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    if width < FULL_TABLE_WIDTH:
        summary = summary.drop(columns=["jitter ms", "freezes"]).rename(columns={"latency ms": "lat. ms"})
    for name in summary.columns:
        numeric = pd.api.types.is_numeric_dtype(summary[name])
        table.add_column(str(name), justify="right" if numeric else "left", no_wrap=not numeric)
    for row in summary.itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return ""
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) < SHOWN_WITH_TENTHS else f"{value:,.0f}"
    return escape(str(value))
