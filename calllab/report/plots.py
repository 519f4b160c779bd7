"""Quality over time: what each direction carried, with faults and findings marked."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from calllab.diagnosis import Diagnosis, diagnose
from calllab.lab import Recording
from calllab.report.figure import ReportFigure, plain_text
from calllab.report.palette import FAINT, FAULT, INK, MUTED, STATES, direction_colors
from calllab.report.traces import Fault, Trace, connection_states, faults_of, traces_of

__all__ = ["plot_quality"]

# (member of Rates, scale, title, unit, whether it belongs to a direction or to the round trip)
PANELS: Final = (
    ("bitrate_kbps", 1.0, "Bitrate", "kbit/s", True),
    ("loss", 100.0, "Loss", "%", True),
    ("rtt_ms", 1.0, "Round trip", "ms", False),
    ("jitter_ms", 1.0, "Jitter", "ms", True),
    ("fps", 1.0, "Frames", "1/s", True),
)
_SHORT_FAULT_S = 0.4


@plain_text
def plot_quality(recording: Recording, diagnosis: Diagnosis | None = None) -> Figure:
    """Plot bitrate, loss, round trip, jitter and frames per second of both directions over time.

    Shaded spans are faults that were injected, brackets above are what the diagnosis found.

    :param diagnosis: the findings to mark; None: those of :func:`calllab.diagnosis.diagnose`.
    """
    diagnosis = diagnosis or diagnose(recording)
    traces = traces_of(recording)
    colors = direction_colors(recording.peers)
    size = (10.5, 2.0 + 1.25 * len(PANELS))
    figure = ReportFigure(figsize=size, dpi=110, layout="constrained", facecolor="white")
    heights = [0.34 * max(1, len(recording.peers)) + 0.5, *([1.25] * len(PANELS))]
    axes: list[Axes] = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    end_s = max(recording.duration_s, 1.0)
    faults = faults_of(recording)
    _draw_states(axes[0], recording)
    _draw_findings(axes[0], diagnosis, len(recording.peers))
    for axis, (member, scale, title, unit, directed) in zip(axes[1:], PANELS, strict=True):
        _shade(axis, faults, end_s)
        curves = [(trace, trace.values(member, scale)) for trace in traces]
        for trace, values in curves:
            color = colors.get(trace.sender if directed else trace.peer, MUTED)
            axis.plot(trace.t_s, values, color=color, linewidth=1.5, solid_joinstyle="round")
        _dress(axis, f"{title}\n{unit}")
        _tame(axis, curves)
    for axis in axes:
        axis.set_xlim(0, end_s)
    axes[-1].set_xlabel("seconds from the start of the recording", color=MUTED, fontsize=9)
    _label_faults(axes[1], faults, end_s)
    _legend(figure, recording, colors, bool(faults))
    return figure


def _dress(axis: Axes, label: str) -> None:
    axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, color=INK, labelpad=8)
    axis.set_ylim(bottom=0)
    if axis.get_ylim()[1] < 1:
        axis.set_ylim(top=1)
    axis.margins(y=0.15)
    axis.grid(axis="y", color=FAINT, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8, colors=MUTED, length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(FAINT)


def _tame(axis: Axes, curves: list[tuple[Trace, list[float]]]) -> None:
    """Keep a spike from flattening all the rest: it leaves the panel, with its height written there."""
    known = [value for _, values in curves for value in values if isfinite(value)]
    if not known:
        return
    usual = float(np.quantile(known, 0.97)) * 1.6
    if not 0 < usual < max(known) / 2:
        return
    axis.set_ylim(top=usual)
    for trace, values in curves:
        peak = max((value for value in values if isfinite(value)), default=0.0)
        if peak > usual:
            axis.annotate(
                f"{peak:.0f} ↑",
                (trace.t_s[values.index(peak)], 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(4, -9),
                textcoords="offset points",
                fontsize=7,
                color=MUTED,
            )
            return


def _draw_states(axis: Axes, recording: Recording) -> None:
    names = list(recording.peers)
    for row, peer in enumerate(names):
        for from_s, to_s, state in connection_states(recording, peer):
            length = to_s - from_s
            axis.barh(row, length, left=from_s, height=0.5, color=STATES.get(state, FAINT), linewidth=0)
            if state in ("disconnected", "failed") and length > 0.09 * recording.duration_s:
                axis.text(from_s + length / 2, row, state, ha="center", va="center", fontsize=6.5, color=INK)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -1.6)
    axis.tick_params(labelsize=8.5, colors=INK, length=0)
    axis.tick_params(axis="x", labelbottom=False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _draw_findings(axis: Axes, diagnosis: Diagnosis, peers: int) -> None:
    if not peers:
        return
    taken: list[tuple[float, float]] = []
    width = 0.16 * max(diagnosis.duration_s, 1.0)
    for finding in diagnosis.findings:
        middle = (finding.onset_s + finding.end_s) / 2
        low = any(from_s < middle + width / 2 and middle - width / 2 < to_s for from_s, to_s in taken)
        level = -1.25 if low else -0.8
        taken = [*taken, (middle - width / 2, middle + width / 2)] if not low else []
        ends = [finding.onset_s, finding.end_s]
        axis.plot(ends, [level + 0.32] * 2, color=INK, linewidth=1.6, solid_capstyle="butt")
        axis.text(middle, level + 0.22, finding.cause, ha="center", va="bottom", fontsize=7.5, color=INK)


def _shade(axis: Axes, faults: Iterable[Fault], end_s: float) -> None:
    for fault in faults:
        if fault.end_s - fault.at_s > _SHORT_FAULT_S and fault.end_s != float("inf"):
            axis.axvspan(fault.at_s, fault.end_s, color=FAULT, alpha=0.28, linewidth=0)
        else:
            axis.axvline(fault.at_s, color=FAULT, linewidth=1.6)


def _label_faults(axis: Axes, faults: Iterable[Fault], end_s: float) -> None:
    for fault in faults:
        where = f" {fault.direction.replace('->', '→')}" if "->" in fault.direction else ""
        long = fault.end_s != float("inf") and fault.end_s - fault.at_s > _SHORT_FAULT_S
        middle = (fault.at_s + min(fault.end_s, end_s)) / 2 if long else fault.at_s
        axis.annotate(
            f"{fault.label}{where}",
            (middle, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -2),
            textcoords="offset points",
            ha="center" if long else "left",
            va="top",
            fontsize=7,
            color="#7a5b00",
        )


def _legend(figure: Figure, recording: Recording, colors: dict[str, str], faults: bool) -> None:
    others = {peer: [name for name in recording.peers if name != peer] for peer in recording.peers}
    handles = [
        Patch(color=colors[peer], label=f"{peer} → {others[peer][0] if len(others[peer]) == 1 else 'others'}")
        for peer in recording.peers
    ]
    if faults:
        handles.append(Patch(color=FAULT, alpha=0.45, label="injected fault"))
    handles += [
        Patch(color=STATES[state], label=state)
        for state in ("connecting", "connected", "disconnected", "failed")
    ]
    if recording.peers:
        columns = len(handles)
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=8)
