"""The ladder of a negotiation: who sent what to whom, when, and what they did about it.

Time runs downwards, in order but not to scale: what happens close together is spread so that it can be
read, and where nothing happens the diagram is cut, with the time that was left out written in the gap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from calllab.lab import Recording
from calllab.report.figure import ReportFigure, plain
from calllab.report.ladder_model import Arrow, Ladder, Mark, ladder_of
from calllab.report.palette import ANSWER, FAINT, GLARE, INK, MUTED, OFFER, PAPER, STATES

__all__ = ["draw_ladder", "plot_ladder"]

# Where nothing happens for longer, the diagram is cut.
CUT_S: Final = 0.6
# Pictures of more cannot be read, and grow without bound: the rest is counted in words.
MAX_STEPS: Final = 240

# All lengths are inches of the picture.
MARGIN: Final = 2.5
SPACING: Final = 3.6
ROW: Final = 0.31
NEAR: Final = 0.11
CUT: Final = 0.6
HEAD: Final = 0.75
FOOT: Final = 0.35
_TIME_AT: Final = 0.13
_MARK_AT: Final = 0.72
_CAPTION_ROW: Final = 0.22
_LABEL_LIMIT: Final = 60
# In characters.
_CAPTION_WIDTH: Final = 100
_CAPTION_LIMIT: Final = 400

_COLORS: Final = {"call-offer": OFFER, "call-answer": ANSWER}


@dataclass(frozen=True)
class _Layout:
    """Where each moment is, and where the diagram was cut and how many seconds were left out there."""

    heights: Mapping[float, float]
    cuts: tuple[tuple[float, float], ...]
    columns: Mapping[str, float]
    width: float
    bottom: float
    in_steps: bool = False

    def written(self, moment: float) -> str:
        """Return a moment as it is written beside what happened then."""
        return f"{moment:.0f}" if self.in_steps else f"{moment:.3f}"


def plot_ladder(recording: Recording, call_id: str | None = None) -> Figure:
    """Draw the signaling between the peers of a call, offers that crossed in red.

    :param call_id: which call; None: the first one.  Raises LookupError if there is no such call.
    """
    return draw_ladder(ladder_of(recording, call_id))


def draw_ladder(ladder: Ladder, *, in_steps: bool = False, caption: str = "") -> Figure:
    """Draw a ladder.

    :param in_steps: its moments are the numbers of steps, not seconds: each has its row and its number.
    :param caption: a sentence to write below.
    """
    ladder, left_out = _cut_short(ladder)
    layout = _lay_out(ladder, in_steps=in_steps)
    written = wrap(plain(caption, _CAPTION_LIMIT), _CAPTION_WIDTH)
    figure = ReportFigure(layout.width, HEAD + layout.bottom + FOOT + _CAPTION_ROW * len(written))
    axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axis.set_axis_off()
    axis.set_xlim(0, layout.width)
    axis.set_ylim(layout.bottom + FOOT + _CAPTION_ROW * len(written), -HEAD)
    if not ladder.arrows and not ladder.marks:
        axis.text(
            layout.width / 2,
            0,
            "no signaling of a call was recorded",
            ha="center",
            va="center",
            color=MUTED,
            fontsize=10,
        )
        return figure
    _draw_lifelines(axis, layout)
    _draw_glare(axis, ladder, layout)
    for arrow, label in _together(ladder.arrows):
        _draw_arrow(axis, arrow, label, layout)
    for mark in ladder.marks:
        _draw_mark(axis, mark, layout)
    for number, line in enumerate(written):
        y = layout.bottom + FOOT + _CAPTION_ROW * number
        axis.text(layout.width / 2, y, line, ha="center", va="center", fontsize=9.5, color=INK)
    if left_out:
        _draw_note(axis, layout.width / 2, layout.bottom + 0.15, f"{left_out} later steps are not drawn")
    return figure


def _together(arrows: Iterable[Arrow]) -> Iterator[tuple[Arrow, str]]:
    """Yield each arrow with its words; messages that went side by side are one arrow with the words of all.

    In virtual time several messages leave and arrive at the very same moments.
    """
    groups: dict[tuple[object, ...], list[Arrow]] = {}
    for arrow in arrows:
        key = (arrow.sender, arrow.receiver, arrow.sent_s, arrow.received_s, arrow.lost)
        groups.setdefault(key, []).append(arrow)
    for group in groups.values():
        # The one that matters most gives its colour.
        leader = max(group, key=lambda arrow: (arrow.glare, arrow.kind in _COLORS))
        yield leader, " + ".join(arrow.label for arrow in group)


def _cut_short(ladder: Ladder) -> tuple[Ladder, int]:
    steps = sorted([*(arrow.sent_s for arrow in ladder.arrows), *(mark.t_s for mark in ladder.marks)])
    if len(steps) <= MAX_STEPS:
        return ladder, 0
    until_s = steps[MAX_STEPS]
    arrows = tuple(arrow for arrow in ladder.arrows if arrow.sent_s < until_s)
    marks = tuple(mark for mark in ladder.marks if mark.t_s < until_s)
    return replace(ladder, arrows=arrows, marks=marks), len(steps) - len(arrows) - len(marks)


def _lay_out(ladder: Ladder, *, in_steps: bool) -> _Layout:
    starts = {arrow.sent_s for arrow in ladder.arrows} | {mark.t_s for mark in ladder.marks}
    ends = {arrow.received_s for arrow in ladder.arrows if arrow.received_s is not None}
    heights: dict[float, float] = {}
    cuts: list[tuple[float, float]] = []
    y, before = 0.0, None
    for moment in sorted(starts | ends):
        if before is not None:
            if in_steps:
                y += ROW
            elif moment - before > CUT_S:
                cuts.append((y + CUT / 2, moment - before))
                y += CUT
            else:
                y += ROW if moment in starts else NEAR
        heights[moment] = y
        before = moment
    columns = {peer: MARGIN + SPACING * number for number, peer in enumerate(ladder.peers)}
    width = 2 * MARGIN + SPACING * max(1, len(ladder.peers) - 1)
    return _Layout(heights, tuple(cuts), columns, width, y + 0.25, in_steps)


def _draw_lifelines(axis: Axes, layout: _Layout) -> None:
    for peer, x in layout.columns.items():
        axis.plot([x, x], [-0.22, layout.bottom], color=FAINT, linewidth=5, solid_capstyle="round", zorder=0)
        name = plain(peer, 24)
        axis.text(x, -0.45, name, ha="center", va="center", fontsize=12, weight="bold", color=INK)
    for y, seconds in layout.cuts:
        # The lifelines are broken by the colour of the paper, across the whole picture.
        axis.fill_between([0, layout.width], y - 0.14, y + 0.14, color=PAPER, linewidth=0, zorder=1)
        _draw_note(axis, layout.width / 2, y, f"·  ·  ·   {seconds:.1f} s   ·  ·  ·")


def _draw_glare(axis: Axes, ladder: Ladder, layout: _Layout) -> None:
    """Put a band behind each crossing of offers, from the first offer to what the peers did about it."""
    moments = [arrow.sent_s for arrow in ladder.arrows if arrow.glare]
    moments += [arrow.received_s for arrow in ladder.arrows if arrow.glare and arrow.received_s is not None]
    moments += [mark.t_s for mark in ladder.marks if mark.glare]
    heights = sorted(layout.heights[moment] for moment in moments)
    bands: list[list[float]] = []
    for y in heights:
        if bands and not any(bands[-1][1] < cut < y for cut, _ in layout.cuts):
            bands[-1][1] = y
        else:
            bands.append([y, y])
    first, last = min(layout.columns.values()), max(layout.columns.values())
    for top, bottom in bands:
        axis.fill_between(
            [first, last], top - 0.2, bottom + 0.16, color=GLARE, alpha=0.08, linewidth=0, zorder=0.5
        )
        axis.text(
            (first + last) / 2,
            bottom + 0.08,
            "glare",
            ha="center",
            va="bottom",
            fontsize=9,
            style="italic",
            color=GLARE,
        )


def _draw_arrow(axis: Axes, arrow: Arrow, label: str, layout: _Layout) -> None:
    from_x, to_x = layout.columns[arrow.sender], layout.columns[arrow.receiver]
    from_y = layout.heights[arrow.sent_s]
    to_y = from_y + NEAR if arrow.received_s is None else layout.heights[arrow.received_s]
    if arrow.lost:
        to_x = from_x + 0.6 * (to_x - from_x)
    strong = arrow.kind in _COLORS
    color = GLARE if arrow.glare else _COLORS.get(arrow.kind, MUTED)
    axis.annotate(
        "",
        (to_x, to_y),
        (from_x, from_y),
        arrowprops={
            "arrowstyle": "-|>,head_width=0.22,head_length=0.5",
            "color": color,
            "linewidth": 1.7 if strong else 1.0,
            "linestyle": (0, (4, 2)) if arrow.lost else "-",
            "shrinkA": 2.5,
            "shrinkB": 2.5 if not arrow.lost else 0,
        },
        zorder=3,
    )
    if arrow.lost:
        axis.plot([to_x], [to_y], marker="x", markersize=7, markeredgewidth=2, color=GLARE, zorder=4)
    words = label + (", lost" if arrow.lost else "")
    _draw_label(axis, words, (from_x, from_y), (to_x, to_y), color if strong else INK, strong)
    outside = -1 if from_x < to_x else 1
    _draw_time(axis, layout.written(arrow.sent_s), from_x, from_y, outside)
    if layout.in_steps and arrow.received_s is not None:
        _draw_time(axis, layout.written(arrow.received_s), to_x, to_y, -outside)


def _draw_label(
    axis: Axes,
    words: str,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str,
    strong: bool,
) -> None:
    """Write along the arrow, above it and near its sender: there it meets fewest others."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    rightwards = dx > 0
    # Heights grow downwards on the axis, angles upwards.
    angle = math.degrees(math.atan2(-dy, dx) if rightwards else math.atan2(dy, -dx))
    share = 0.2 / abs(dx) if dx else 0.0
    axis.text(
        start[0] + share * dx,
        start[1] + share * dy - 0.03,
        plain(words, _LABEL_LIMIT),
        ha="left" if rightwards else "right",
        va="bottom",
        rotation=angle,
        rotation_mode="anchor",
        fontsize=9 if strong else 8,
        weight="bold" if strong else "normal",
        color=color,
        path_effects=[withStroke(linewidth=2.5, foreground=PAPER)],
        zorder=4,
    )


def _draw_mark(axis: Axes, mark: Mark, layout: _Layout) -> None:
    x, y = layout.columns[mark.peer], layout.heights[mark.t_s]
    outside = -1 if x <= layout.width / 2 else 1
    color = GLARE if mark.glare else STATES.get(mark.state, INK)
    axis.plot([x], [y], marker="o", markersize=6, color=color, markeredgecolor=PAPER, zorder=5)
    _draw_time(axis, layout.written(mark.t_s), x, y, outside)
    axis.text(
        x + outside * _MARK_AT,
        y,
        plain(mark.text, 26),
        ha="right" if outside < 0 else "left",
        va="center",
        fontsize=8.5,
        weight="bold" if mark.glare else "normal",
        color=GLARE if mark.glare else INK,
        bbox={"facecolor": PAPER, "edgecolor": color, "boxstyle": "round,pad=0.28", "linewidth": 1.1},
        zorder=6,
    )


def _draw_time(axis: Axes, moment: str, x: float, y: float, outside: int) -> None:
    side = "right" if outside < 0 else "left"
    axis.text(x + outside * _TIME_AT, y, moment, ha=side, va="center", fontsize=7.5, color=MUTED, zorder=2)


def _draw_note(axis: Axes, x: float, y: float, text: str) -> None:
    axis.text(x, y, text, ha="center", va="center", fontsize=8.5, color=MUTED, zorder=2)
