"""Quality over time: what each direction carried, with faults and findings marked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from calllab.diagnosis import Diagnosis, diagnose
from calllab.lab import Recording
from calllab.report.figure import ReportFigure, plain
from calllab.report.palette import (
    FAINT,
    FAULT,
    FAULT_INK,
    INK,
    MUTED,
    ON_COLOR,
    PAPER,
    STATES,
    direction_colors,
)
from calllab.report.traces import Fault, Trace, connection_states, faults_of, sender_to, traces_of

__all__ = ["plot_quality"]


@dataclass(frozen=True)
class _Panel:
    """One rate over time; ``directed`` says whether it belongs to a direction or to who measured it."""

    member: str
    title: str
    unit: str
    scale: float = 1.0
    directed: bool = True
    least_top: float = 1.0


PANELS: Final = (
    _Panel("bitrate_kbps", "Bitrate", "kbit/s", least_top=100),
    _Panel("loss", "Loss", "%", scale=100, least_top=5),
    _Panel("rtt_ms", "Round trip", "ms, by sender", directed=False, least_top=20),
    _Panel("jitter_ms", "Jitter", "ms", least_top=10),
    _Panel("fps", "Frames", "1/s", least_top=5),
)

WIDTH_IN: Final = 10.5
LANE_IN: Final = 0.27
PANEL_IN: Final = 1.15
# A moment of an outage must not flatten all else: what is this many times above the rest is cut off, and its
# value written where it was.
_CUT_ABOVE: Final = 2.0
_LABEL_POINTS: Final = 7.5


@dataclass(frozen=True)
class _Span:
    """Something with a beginning, perhaps an end, and words, in one of the lanes above the curves."""

    from_s: float
    to_s: float
    text: str


def plot_quality(recording: Recording, diagnosis: Diagnosis | None = None) -> Figure:
    """Plot bitrate, loss, round trip, jitter and frames per second of each direction over time.

    What was never measured, as the frames of a call without pictures, has no panel.  Above the curves are
    what the diagnosis found, what was injected, and the peers' connection states.

    :param diagnosis: the findings to mark; None: those of :func:`calllab.diagnosis.diagnose`.
    """
    diagnosis = diagnosis or diagnose(recording)
    end_s = max(recording.duration_s, 1.0)
    faults = faults_of(recording)
    found = _packed([_Span(f.onset_s, f.end_s, f.cause) for f in diagnosis.findings], end_s)
    injected = _packed([_Span(f.at_s, _end(f), _fault_text(f)) for f in faults], end_s)
    traces, colors = traces_of(recording), direction_colors(recording.peers)
    panels = [panel for panel in PANELS if _is_measured(panel, traces)] or list(PANELS)
    lanes = len(found) + len(injected) + max(1, len(recording.peers))
    height_in = 1.1 + LANE_IN * lanes + (PANEL_IN + 0.1) * len(panels)
    figure = ReportFigure(WIDTH_IN, height_in, layout="constrained")
    axes: list[Axes] = list(
        figure.subplots(
            1 + len(panels), 1, sharex=True, height_ratios=[LANE_IN * lanes, *[PANEL_IN] * len(panels)]
        )
    )
    _draw_lanes(axes[0], recording, found, injected, end_s)
    for axis, panel in zip(axes[1:], panels, strict=True):
        _shade(axis, faults)
        _draw_panel(axis, panel, traces, colors)
    for axis in axes:
        axis.set_xlim(0, end_s)
    axes[-1].set_xlabel("seconds from the start of the recording", color=MUTED, fontsize=9)
    figure.align_ylabels(axes[1:])
    _legend(figure, recording, colors, bool(faults))
    return figure


def _is_measured(panel: _Panel, traces: Sequence[Trace]) -> bool:
    return any(math.isfinite(value) for trace in traces for value in trace.values(panel.member, panel.scale))


def _draw_panel(axis: Axes, panel: _Panel, traces: Sequence[Trace], colors: dict[str, str]) -> None:
    curves = [(trace, trace.values(panel.member, panel.scale)) for trace in traces]
    top = max(panel.least_top, _top([value for _, values in curves for value in values]))
    for trace, values in curves:
        color = colors.get(trace.sender if panel.directed else trace.peer, MUTED)
        marker = "o" if len(values) < 3 else ""
        axis.plot(trace.t_s, values, color=color, linewidth=1.5, marker=marker, markersize=3)
    _name_what_is_cut(axis, curves, top)
    # Lines at zero are drawn whole.
    axis.set_ylim(-0.02 * top, top * 1.12)
    axis.set_ylabel(
        f"{panel.title}\n{panel.unit}", rotation=0, ha="right", va="center", fontsize=9, color=INK
    )
    axis.locator_params(axis="y", nbins=4)
    axis.grid(axis="y", color=FAINT, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8, colors=MUTED, length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(FAINT)


def _top(values: Iterable[float]) -> float:
    """Return the highest value to show: the maximum, unless it stands far above all but one in forty."""
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        return 0.0
    usual = finite[max(0, len(finite) - 1 - max(2, len(finite) // 40))]
    return usual * 1.25 if usual > 0 and finite[-1] > _CUT_ABOVE * usual else finite[-1]


def _name_what_is_cut(axis: Axes, curves: Iterable[tuple[Trace, list[float]]], top: float) -> None:
    cut = sorted(
        (t_s, value)
        for trace, values in curves
        for t_s, value in zip(trace.t_s, values, strict=True)
        if value > top * 1.12
    )
    groups: list[list[tuple[float, float]]] = []
    for t_s, value in cut:
        if groups and t_s - groups[-1][-1][0] < 2.5:
            groups[-1].append((t_s, value))
        else:
            groups.append([(t_s, value)])
    for group in groups:
        t_s, value = max(group, key=lambda point: point[1])
        axis.annotate(
            f"↑ {value:,.0f}",
            (t_s, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(9, -1),
            textcoords="offset points",
            va="top",
            fontsize=_LABEL_POINTS,
            color=MUTED,
        )


def _draw_lanes(
    axis: Axes,
    recording: Recording,
    found: Sequence[Sequence[_Span]],
    injected: Sequence[Sequence[_Span]],
    end_s: float,
) -> None:
    names: list[str] = []
    for title, rows, ground, ink in (("found", found, INK, INK), ("injected", injected, FAULT, FAULT_INK)):
        for number, row in enumerate(rows):
            for span in row:
                _draw_span(axis, len(names), span, ground, ink, end_s)
            names.append(title if number == 0 else "")
    for peer in recording.peers:
        for from_s, to_s, state in connection_states(recording, peer):
            length = to_s - from_s
            color = STATES.get(state, FAINT)
            axis.barh(len(names), length, left=from_s, height=0.6, color=color, linewidth=0)
            if state in ("disconnected", "failed") and length > 0.085 * end_s:
                middle = from_s + length / 2
                axis.text(middle, len(names), state, ha="center", va="center", fontsize=7, color=ON_COLOR)
        names.append(plain(peer, 20))
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axis.tick_params(axis="y", labelsize=9, labelcolor=INK, length=0)
    axis.tick_params(axis="x", labelbottom=False, length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _draw_span(axis: Axes, row: int, span: _Span, ground: str, ink: str, end_s: float) -> None:
    """Draw a bar at the foot of the row with its words on it; what is short is drawn at least a hair wide."""
    length = max(span.to_s - span.from_s, 0.004 * end_s)
    axis.barh(row + 0.33, length, left=span.from_s, height=0.16, color=ground, linewidth=0)
    axis.text(
        min(span.from_s, end_s),
        row + 0.2,
        plain(span.text, 60),
        ha="right" if span.from_s + _width_s(span.text, end_s) > end_s else "left",
        va="bottom",
        fontsize=_LABEL_POINTS,
        color=ink,
    )


def _packed(spans: Iterable[_Span], end_s: float) -> list[list[_Span]]:
    """Share spans out to rows so that neither bars nor words of a row touch each other."""
    rows: list[list[_Span]] = []
    taken: list[float] = []
    for span in sorted(spans, key=lambda span: span.from_s):
        width_s = _width_s(span.text, end_s)
        from_s = span.from_s if span.from_s + width_s <= end_s else span.from_s - width_s
        until_s = max(span.to_s, from_s + width_s)
        for number, row in enumerate(rows):
            if taken[number] <= from_s:
                row.append(span)
                taken[number] = until_s
                break
        else:
            rows.append([span])
            taken.append(until_s)
    return rows


def _width_s(text: str, end_s: float) -> float:
    """Return about how long a text is, measured on the axis of time."""
    inches = (min(len(text), 60) + 1) * 0.52 * _LABEL_POINTS / 72
    return inches / (WIDTH_IN * 0.86) * end_s


def _end(fault: Fault) -> float:
    return fault.at_s if fault.end_s is None else fault.end_s


def _fault_text(fault: Fault) -> str:
    return (
        f"{fault.label}, {fault.direction.replace('->', ' → ')}" if "->" in fault.direction else fault.label
    )


def _shade(axis: Axes, faults: Iterable[Fault]) -> None:
    for fault in faults:
        if fault.end_s is None:
            axis.axvline(fault.at_s, color=FAULT, linewidth=1.4)
        else:
            axis.axvspan(fault.at_s, fault.end_s, color=FAULT, alpha=0.2, linewidth=0)


def _legend(figure: Figure, recording: Recording, colors: dict[str, str], faults: bool) -> None:
    handles: list[Artist] = [
        Line2D([], [], color=colors[peer], linewidth=2.5, label=plain(f"{peer} → {receiver}"))
        for peer in recording.peers[:6]
        if (receiver := sender_to(recording, peer))
    ]
    if faults:
        handles.append(Patch(color=FAULT, alpha=0.45, label="injected fault"))
    if recording.peers:
        shown = {state for peer in recording.peers for _, _, state in connection_states(recording, peer)}
        handles += [Patch(color=color, label=state) for state, color in STATES.items() if state in shown]
        figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=min(len(handles), 7),
            frameon=False,
            fontsize=8.5,
            labelcolor=INK,
            facecolor=PAPER,
        )
