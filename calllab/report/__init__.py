"""Reports: plots, the ladder of a negotiation, the summary table, and one self-contained HTML file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calllab.report.html import write_report
    from calllab.report.junit import write_junit
    from calllab.report.ladder import plot_ladder
    from calllab.report.ladder_explore import plot_trace
    from calllab.report.nat_plot import plot_nat_matrix
    from calllab.report.plots import plot_quality
    from calllab.report.summary import summarize

__all__ = [
    "plot_ladder",
    "plot_nat_matrix",
    "plot_quality",
    "plot_trace",
    "summarize",
    "write_junit",
    "write_report",
]

# The live panel takes its colours from here without waiting for matplotlib: each name loads what it needs.
_HOMES = {
    "plot_ladder": "ladder",
    "plot_nat_matrix": "nat_plot",
    "plot_quality": "plots",
    "plot_trace": "ladder_explore",
    "summarize": "summary",
    "write_junit": "junit",
    "write_report": "html",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'calllab.report' has no attribute {name!r}")
    return getattr(import_module(f"calllab.report.{_HOMES[name]}"), name)
