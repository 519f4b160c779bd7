"""A picture of which NATs let which others through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from calllab.lab import NatMatrix
from calllab.report.figure import ReportFigure
from calllab.report.palette import INK, MUTED, ON_COLOR, STATES

__all__ = ["plot_nat_matrix"]

_COLORS: Final = {
    "direct": STATES["connected"],
    "relayed": STATES["connecting"],
    "failed": STATES["failed"],
}
_CELL_IN: Final = 0.95
_GAP: Final = 0.06


def plot_nat_matrix(*matrices: NatMatrix) -> Figure:
    """Draw one matrix, or several side by side: rows are the caller's NAT, columns the callee's.

    Each cell names the selected candidate pair as the caller sees it, and how long connecting took.
    """
    if not matrices:
        raise ValueError("there is nothing to draw: give one matrix or more")
    count = max(len(matrix.kinds) for matrix in matrices)
    width_in = len(matrices) * (count * _CELL_IN + 0.4) + 1.4
    figure = ReportFigure(width_in, count * _CELL_IN * 0.72 + 1.7, layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, len(matrices), squeeze=False)[0]
    for index, (axis, matrix) in enumerate(zip(axes, matrices, strict=True)):
        _draw(axis, matrix, names_rows=index == 0)
    handles = [Patch(facecolor=color, label=word) for word, color in _COLORS.items()]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, frameon=False, labelcolor=INK, fontsize=9
    )
    return figure


def _draw(axis: Axes, matrix: NatMatrix, *, names_rows: bool) -> None:
    count = len(matrix.kinds)
    for row, caller in enumerate(matrix.kinds):
        for column, callee in enumerate(matrix.kinds):
            path = matrix[caller, callee]
            axis.add_patch(
                FancyBboxPatch(
                    (column + _GAP / 2, row + _GAP / 2),
                    1 - _GAP,
                    1 - _GAP,
                    boxstyle="round,pad=0,rounding_size=0.08",
                    facecolor=_COLORS[path.outcome],
                    edgecolor="none",
                )
            )
            words = path.pair if path.connected_s is None else f"{path.pair}\n{path.connected_s:.1f} s"
            axis.text(column + 0.5, row + 0.5, words, ha="center", va="center", fontsize=7.5, color=ON_COLOR)
    names = [kind.replace("-", "\n", 1) if len(kind) > 10 else kind for kind in matrix.kinds]
    axis.set(xlim=(0, count), ylim=(count, 0), aspect=0.72)
    centres = [place + 0.5 for place in range(count)]
    axis.set_xticks(centres, names, fontsize=8, color=INK)
    axis.set_yticks(centres, names if names_rows else [""] * count, fontsize=8, color=INK)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    title = "with STUN and TURN" if matrix.turn else "with STUN alone"
    axis.set_title(title, fontsize=10, color=INK, pad=10)
    axis.set_xlabel("the callee's NAT is on top", fontsize=8, color=MUTED)
    if names_rows:
        axis.set_ylabel("the caller's NAT", fontsize=9, color=MUTED)
