"""The ladder of a negotiation: who sent what to whom, when, and what they did about it.

Time runs downwards, in order but not to scale: what happens close together is spread so that it can be
read, and where nothing happens the diagram is cut, with the time that was left out written in the gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calllab.lab import Recording
from calllab.report.figure import ReportFigure, plain_text
from calllab.report.palette import ANSWER, FAINT, GLARE, INK, MUTED, OFFER

__all__ = ["Arrow", "Mark", "arrows_of", "marks_of", "plot_ladder"]

# Candidates that follow each other this closely are one arrow.
BUNDLE_S: Final = 0.15
# Where nothing happens for longer, the diagram is cut.
CUT_S: Final = 0.6

ROW: Final = 0.34
NEAR: Final = 0.12
GAP: Final = 0.62
MAX_ROWS: Final = 400

_COLORS: Final = {"call-offer": OFFER, "call-answer": ANSWER}


@dataclass(frozen=True)
class Arrow:
    """A message, or several candidates in a row; ``received_s`` is None if it never arrived."""

    kind: str
    sender: str
    receiver: str
    sent_s: float
    received_s: float | None
    count: int = 1
    glare: bool = False

    @property
    def label(self) -> str:
        """What is written at the arrow."""
        name = self.kind.removeprefix("call-").replace("ice-", "")
        return name if self.count == 1 else f"{name}s ×{self.count}"


@dataclass(frozen=True)
class Mark:
    """Something that a peer did or became."""

    peer: str
    t_s: float
    text: str
    glare: bool = False


@plain_text
def plot_ladder(recording: Recording, call_id: str | None = None) -> Figure:
    """Draw the signaling between the two peers of a call, glare in red.

    :param call_id: which call; None: the first one.  Raises LookupError if there is no such call.
    """
    call_id = call_id if call_id is not None else _first_call(recording)
    rows = [row for row in recording.event_rows if row.get("callId") == call_id]
    if call_id is not None and not rows:
        raise LookupError(f"the recording has no call {call_id!r}")
    peers = list(dict.fromkeys(row["peer"] for row in rows))[:2]
    if recording.peers:
        peers.sort(key=recording.peers.index)
    arrows, marks = arrows_of(rows, peers)[:MAX_ROWS], marks_of(rows)[:MAX_ROWS]
    heights, cuts = _place(arrows, marks)
    bottom = max(heights.values(), default=1.0) + 0.4
    figure = ReportFigure(figsize=(9.0, 1.0 + bottom), dpi=110, facecolor="white")
    axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axis.set_axis_off()
    axis.set_xlim(0, 9)
    axis.set_ylim(bottom, -1.0)
    if len(peers) < 2:
        axis.text(4.5, 0, "no signaling between two peers was recorded", ha="center", color=MUTED)
        return figure
    at = {peers[0]: 3.0, peers[1]: 6.0}
    for peer, x in at.items():
        axis.plot([x, x], [-0.35, bottom - 0.2], color=FAINT, linewidth=5, solid_capstyle="round", zorder=0)
        axis.text(x, -0.6, peer, ha="center", va="center", fontsize=12, weight="bold", color=INK)
    for y, left_out in cuts:
        axis.fill_between([0.2, 8.8], y - 0.13, y + 0.13, color="white", zorder=1)
        axis.text(
            4.5,
            y,
            f"· · ·  {left_out:.1f} s  · · ·",
            ha="center",
            va="center",
            fontsize=8,
            color=MUTED,
            zorder=2,
        )
    for arrow in arrows:
        _draw_arrow(axis, arrow, at, heights)
    for mark in marks:
        _draw_mark(axis, mark, at, heights)
    return figure


def arrows_of(rows: Iterable[Mapping[str, Any]], peers: list[str]) -> list[Arrow]:
    """Pair what was sent with what arrived, bundle candidates, and find the offers that crossed."""
    received: dict[tuple[Any, ...], float] = {}
    sent: list[tuple[Mapping[str, Any], tuple[Any, ...]]] = []
    for row in rows:
        kind = str(row.get("type"))
        if row["event"] == "signal-received" and kind.startswith("call-"):
            received.setdefault((row.get("from"), row["peer"], row.get("id"), kind), float(row["t_s"]))
        elif row["event"] == "signal-sent" and kind.startswith("call-") and row.get("to") in peers:
            sent.append((row, (row["peer"], row.get("to"), row.get("id"), kind)))
    arrows: list[Arrow] = []
    for row, key in sent:
        arrow = Arrow(key[3], row["peer"], str(row.get("to")), float(row["t_s"]), received.get(key))
        last = arrows[-1] if arrows else None
        if last is not None and _bundles(last, arrow):
            arrows[-1] = replace(last, count=last.count + 1, received_s=arrow.received_s)
        else:
            arrows.append(arrow)
    offers = [arrow for arrow in arrows if arrow.kind == "call-offer"]
    crossed = {
        id(arrow)
        for arrow in offers
        for other in offers
        if other.sender != arrow.sender and _cross(arrow, other)
    }
    return [replace(arrow, glare=True) if id(arrow) in crossed else arrow for arrow in arrows]


def marks_of(rows: Iterable[Mapping[str, Any]]) -> list[Mark]:
    """Return what is worth saying beside the lifelines."""
    marks: list[Mark] = []
    for row in rows:
        peer, t_s = row["peer"], float(row["t_s"])
        match row["event"]:
            case "offer-ignored":
                marks.append(Mark(peer, t_s, "offer ignored", glare=True))
            case "rollback":
                marks.append(Mark(peer, t_s, "rollback", glare=True))
            case "restartIce":
                marks.append(Mark(peer, t_s, "ICE restart"))
            case "connectionstatechange":
                marks.append(Mark(peer, t_s, str(row.get("state"))))
            case "setLocalDescription" | "setRemoteDescription" if "error" in row:
                marks.append(Mark(peer, t_s, f"{row['event']}: {row['error']}", glare=True))
    return marks


def _bundles(last: Arrow, arrow: Arrow) -> bool:
    return (
        last.kind == arrow.kind == "call-ice-candidate"
        and last.sender == arrow.sender
        and arrow.sent_s - last.sent_s < BUNDLE_S * last.count
    )


def _cross(one: Arrow, other: Arrow) -> bool:
    """Whether each was sent before the other had arrived."""
    if one.received_s is None or other.received_s is None:
        return False
    return one.sent_s < other.received_s and other.sent_s < one.received_s


def _first_call(recording: Recording) -> str | None:
    for row in recording.event_rows:
        if row["event"] == "signal-sent" and isinstance(row.get("callId"), str):
            return str(row["callId"])
    return None


def _place(arrows: list[Arrow], marks: list[Mark]) -> tuple[dict[float, float], list[tuple[float, float]]]:
    """Return the height of each moment, and where the diagram is cut and how much was left out."""
    starts = {arrow.sent_s for arrow in arrows} | {mark.t_s for mark in marks}
    ends = {arrow.received_s for arrow in arrows if arrow.received_s is not None}
    heights: dict[float, float] = {}
    cuts: list[tuple[float, float]] = []
    y, before = 0.0, None
    for moment in sorted(starts | ends):
        if before is not None:
            idle = moment - before
            if idle > CUT_S:
                cuts.append((y + GAP / 2, idle))
                y += GAP
            else:
                y += ROW if moment in starts else NEAR
        heights[moment] = y
        before = moment
    return heights, cuts


def _draw_arrow(axis: Axes, arrow: Arrow, at: Mapping[str, float], heights: Mapping[float, float]) -> None:
    from_x, to_x = at[arrow.sender], at[arrow.receiver]
    from_y = heights[arrow.sent_s]
    lost = arrow.received_s is None
    to_y = heights[arrow.received_s] if arrow.received_s is not None else from_y + 0.1
    if lost:
        to_x = from_x + 0.6 * (to_x - from_x)
    color = GLARE if arrow.glare else _COLORS.get(arrow.kind, MUTED)
    strong = arrow.kind in _COLORS
    axis.annotate(
        "",
        (to_x, to_y),
        (from_x, from_y),
        arrowprops={
            "arrowstyle": "-|>,head_width=0.25,head_length=0.5",
            "color": color,
            "linewidth": 1.8 if strong else 1.1,
            "linestyle": "--" if lost else "-",
            "shrinkA": 2,
            "shrinkB": 2,
        },
        zorder=3,
    )
    share = 0.3
    axis.text(
        from_x + share * (to_x - from_x),
        from_y + share * (to_y - from_y) - 0.03,
        arrow.label + (" (lost)" if lost else ""),
        ha="center",
        va="bottom",
        fontsize=8.5 if strong else 7.5,
        weight="bold" if strong else "normal",
        color=color if strong else INK,
        zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
    )
    outside = -1 if from_x < to_x else 1
    axis.text(
        from_x + outside * 0.14,
        from_y,
        f"{arrow.sent_s:.2f} s",
        ha="right" if outside < 0 else "left",
        va="center",
        fontsize=7,
        color=MUTED,
    )


def _draw_mark(axis: Axes, mark: Mark, at: Mapping[str, float], heights: Mapping[float, float]) -> None:
    if mark.peer not in at:
        return
    x, y = at[mark.peer], heights[mark.t_s]
    outside = -1 if x < 4.5 else 1
    color = GLARE if mark.glare else INK
    axis.plot([x], [y], marker="o", markersize=5, color=color, zorder=5)
    axis.text(
        x + outside * 0.85,
        y,
        mark.text,
        ha="right" if outside < 0 else "left",
        va="center",
        fontsize=8,
        weight="bold" if mark.glare else "normal",
        color=color,
        bbox={"facecolor": "white", "edgecolor": color, "boxstyle": "round,pad=0.25", "linewidth": 0.8},
        zorder=6,
    )
