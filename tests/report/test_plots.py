"""The quality plot shows what was measured, what was found and what was injected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.text import Text

from calllab.diagnosis import Diagnosis, Finding
from calllab.lab import Recording
from calllab.report import plot_quality
from calllab.report.palette import BACKWARD, FORWARD, direction_colors
from calllab.report.traces import connection_states, faults_of, sound, traces_of
from tests.report import helpers
from tests.report.helpers import event


def panel(figure: Any, title: str) -> Axes:
    (axis,) = (axis for axis in figure.axes if axis.get_ylabel().startswith(title))
    return axis


def test_each_direction_has_its_colour() -> None:
    """What alice sends is blue and what bob sends is vermilion, in every recording of the two."""
    assert direction_colors(("alice", "bob")) == {"alice": FORWARD, "bob": BACKWARD}
    assert (FORWARD, BACKWARD) == ("#0072b2", "#d55e00")


def test_curves_carry_the_rates() -> None:
    """The loss curve from alice to bob is what the counters say, and the other one is zero."""
    figure = plot_quality(helpers.example())
    curves = {to_hex(line.get_color()): line for line in panel(figure, "Loss").get_lines()}
    forward = np.asarray(curves[FORWARD].get_ydata(), dtype=float)
    assert np.nanmax(forward) == pytest.approx(100 * helpers.LOST / (2 * helpers.PACKETS))
    assert np.nanmax(np.asarray(curves[BACKWARD].get_ydata(), dtype=float)) == 0


def test_what_was_not_measured_has_no_panel() -> None:
    """A call without pictures has no frames; a recording without anything shows empty panels all the same."""

    def titles(recording: Recording) -> list[str]:
        return [axis.get_ylabel().partition("\n")[0] for axis in plot_quality(recording).axes[1:]]

    rows = list(helpers.stats_rows())
    for row in rows:
        del row["report"]["in-video"]
    assert titles(Recording.build(stats=rows)) == ["Bitrate", "Loss", "Round trip", "Jitter"]
    assert titles(helpers.example()) == ["Bitrate", "Loss", "Round trip", "Jitter", "Frames"]
    assert titles(Recording.build()) == titles(helpers.example())


def test_findings_and_faults_are_named() -> None:
    """The lanes above the curves name the causes that were found and the faults that were injected."""
    finding = Finding("delay", "alice->bob", 3.0, 9.0, None, 0.9, (), (), "")
    diagnosis = Diagnosis(1, "", 30.0, ("alice", "bob"), "impaired", (finding,))
    figure = plot_quality(helpers.example(), diagnosis)
    words = {text.get_text() for text in figure.findobj(Text)}
    assert {"found", "delay", "injected", "10% loss, alice → bob"} <= words


def test_a_short_spike_does_not_flatten_the_rest() -> None:
    """One value far above all others is cut off and its number written."""
    rows = list(helpers.stats_rows())
    for row in rows[40:]:
        row["report"]["in-audio"]["bytesReceived"] += 40_000_000
    figure = plot_quality(Recording.build(stats=rows))
    axis = panel(figure, "Bitrate")
    assert axis.get_ylim()[1] < 1000
    assert any(text.get_text().startswith("↑ 320") for text in axis.texts)


def test_a_fault_ends_when_it_really_ended() -> None:
    """What was realised replaces what was planned; each fault is there once."""
    (fault,) = faults_of(helpers.example())
    assert (fault.at_s, fault.end_s, fault.label) == (11.0, 21.0, "10% loss")


def test_states_follow_each_other_until_the_end() -> None:
    """Each state lasts until the next one; the last one to the end of the recording or of the call."""
    recording = Recording.build(
        events=[
            event(1.0, "alice", "connectionstatechange", state="connecting"),
            event(2.0, "alice", "connectionstatechange", state="connected"),
            event(5.0, "alice", "call-end", reason="hung-up"),
            event(9.0, "bob", "connectionstatechange", state="connected"),
        ]
    )
    assert list(connection_states(recording, "alice")) == [(1.0, 2.0, "connecting"), (2.0, 5.0, "connected")]


def test_calls_have_their_own_curves() -> None:
    """No line is drawn from the end of one call to the beginning of the next."""
    first = list(helpers.stats_rows())
    second = [{**row, "callId": "call-2", "t_s": row["t_s"] + 100} for row in first]
    traces = traces_of(Recording.build(stats=[*first, *second]))
    assert [(trace.call_id, trace.direction) for trace in traces] == [
        ("call-1", "bob → alice"),
        ("call-1", "alice → bob"),
        ("call-2", "bob → alice"),
        ("call-2", "alice → bob"),
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"id": "x", "type": "inbound-rtp"},
        {"id": "x", "type": 3, "timestamp": 1.0},
        {"id": "x", "type": "inbound-rtp", "timestamp": "now"},
        {"id": "x", "type": "inbound-rtp", "timestamp": 1.0, "packetsReceived": "9"},
        {"id": "x", "type": "inbound-rtp", "timestamp": 1.0, "jitter": None},
    ],
)
def test_what_cannot_be_computed_with_is_left_out(entry: dict[str, Any]) -> None:
    """Entries of foreign recordings without id, type, time or numbers do no harm."""
    good = {"id": "y", "type": "transport", "timestamp": 1.0}
    assert sound({"x": entry, "y": good}) == {"y": good}


def test_an_empty_recording_can_be_plotted() -> None:
    """Nothing recorded gives empty panels."""
    figure = plot_quality(Recording.build())
    figure.canvas.draw()
    assert len(figure.axes) == 6
