"""Reports: plots, the ladder of a negotiation, the summary table, and one self-contained HTML file."""

from __future__ import annotations

from calllab.report.html import write_report
from calllab.report.ladder import plot_ladder
from calllab.report.plots import plot_quality
from calllab.report.summary import summarize

__all__ = ["plot_ladder", "plot_quality", "summarize", "write_report"]
