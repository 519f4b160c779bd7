"""Reports of real and hostile recordings: complete, self-contained, escaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from calllab.diagnosis import diagnose
from calllab.errors import RecordingError
from calllab.lab import Recording
from calllab.report import plot_ladder, plot_quality, summarize, write_report
from calllab.report.ladder import arrows_of, marks_of
from calllab.report.palette import direction_colors
from calllab.report.summary import COLUMNS
from tests.diagnosis.synthetic import Episode, call, glare, recording


def message(
    kind: str, sender: str, receiver: str, sent_s: float, arrived_s: float | None, number: int
) -> list[dict[str, Any]]:
    """Return the events of one signaling message."""
    common = {"type": kind, "id": f"{sender}.{number}", "callId": "c1"}
    events = [{"t_s": sent_s, "peer": sender, "event": "signal-sent", "to": receiver, **common}]
    if arrived_s is not None:
        events.append(
            {"t_s": arrived_s, "peer": receiver, "event": "signal-received", "from": sender, **common}
        )
    return events


def crossing_offers() -> list[dict[str, Any]]:
    """Return the signaling of a glare: both offers are on their way at once."""
    return [
        *message("call-offer", "alice", "bob", 12.0, 12.02, 1),
        *message("call-offer", "bob", "alice", 12.001, 12.021, 1),
        *message("call-answer", "bob", "alice", 12.03, 12.04, 2),
        *[
            e
            for n in range(3)
            for e in message("call-ice-candidate", "alice", "bob", 12.1 + n / 100, 12.2, 3 + n)
        ],
        *message("call-hangup", "alice", "bob", 60.2, None, 9),
    ]


@pytest.fixture(scope="module")
def impaired() -> Recording:
    """A call with loss, delay, a blackout and a glare, and the truth about the loss."""
    episodes = (
        Episode("alice->bob", 20, 28, loss=0.08),
        Episode("alice->bob", 34, 40, delay_s=0.12),
        Episode("alice->bob", 48, 52, loss=1.0),
        Episode("bob->alice", 48, 52, loss=1.0),
    )
    made = recording(call(1, *episodes), events=[*glare(), *crossing_offers()])
    fault = {"id": 1, "cause": "loss-uniform", "direction": "alice->bob", "at_s": 20.0, "for_s": 8.0}
    truth = [
        {"t_s": 20.0, "kind": "planned", "fault": {**fault, "settings": {"loss": 0.08}}},
        {"t_s": 48.0, "kind": "planned", "fault": {"cause": "blackout", "direction": "both", "at_s": 48.0}},
    ]
    return Recording.build(events=made.event_rows, stats=made.stats_rows, truth=truth, meta={"peers": {}})


class Links(HTMLParser):
    """Collects what a page would load, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note sources, references and ids."""
        for name, value in attrs:
            if (
                name in ("src", "href", "xlink:href", "srcset", "data")
                and value
                and not value.startswith("#")
            ):
                self.loads.append(value)
            if name == "id" and value:
                self.ids.append(value)
        self.scripts += tag == "script" and ("type", "application/json") not in attrs


def test_the_report_says_everything_in_one_file(impaired: Recording, tmp_path: Path) -> None:
    """Verdict, each finding with its advice, table, both pictures and the injected faults are in the page."""
    page = write_report(impaired, tmp_path / "deep" / "report.html").read_text()
    for finding in diagnose(impaired).findings:
        assert finding.cause in page
        assert finding.advice.split(":")[0] in page
    assert "The call was up, but impaired." in page
    assert page.count("<svg") == 2
    assert "8% loss" in page
    links = Links()
    links.feed(page)
    assert {"findings", "tracks", "quality", "ladder-1", "faults", "about", "diagnosis"} <= set(links.ids)


def test_the_report_opens_offline(impaired: Recording, tmp_path: Path) -> None:
    """Nothing in the page is loaded from anywhere, and no script runs in it."""
    page = write_report(impaired, tmp_path / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert links.loads == []
    assert links.scripts == 0
    assert re.findall(r"url\((?!#)", page) == []
    assert "@import" not in page


def test_hostile_strings_stay_text(tmp_path: Path) -> None:
    """Markup in names, events, causes and settings is shown, never interpreted."""
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'$x^2$"
    events = [
        {
            "t_s": 1.0,
            "peer": evil,
            "event": "signal-sent",
            "type": "call-offer",
            "id": "1",
            "callId": evil,
            "to": "b",
        },
        {"t_s": 1.1, "peer": "b", "event": "connectionstatechange", "state": evil, "callId": evil},
    ]
    stats = [
        {
            "t_s": t,
            "peer": "b",
            "callId": evil,
            "report": {
                "i": {
                    "id": "i",
                    "type": "inbound-rtp",
                    "kind": evil,
                    "timestamp": 1e3 * t,
                    "packetsReceived": t,
                }
            },
        }
        for t in (1, 2, 3)
    ]
    truth = [
        {
            "t_s": 1,
            "kind": "planned",
            "fault": {"cause": evil, "direction": evil, "at_s": 1, "settings": evil},
        }
    ]
    hostile = Recording.build(
        events=events, stats=stats, truth=truth, meta={"settings": {evil: evil}, "versions": {evil: evil}}
    )
    page = write_report(hostile, tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<img" not in page
    links = Links()
    links.feed(page)
    assert links.scripts == 0


@pytest.mark.parametrize("make", [Recording.build, lambda: recording(call(1, duration_s=2))])
def test_next_to_nothing_gives_a_report_too(make: Any, tmp_path: Path) -> None:
    """An empty recording and one of two seconds have a page that says so."""
    page = write_report(make(), tmp_path / "report.html").read_text()
    assert "Too little was recorded to tell." in page


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error names the path."""
    (tmp_path / "file").touch()
    with pytest.raises(RecordingError, match="file"):
        write_report(Recording.build(), tmp_path / "file" / "report.html")


def test_the_summary_counts_what_arrived(impaired: Recording) -> None:
    """One row for each track of each direction, with the sums of its last report."""
    summary = summarize(impaired)
    assert tuple(summary.columns) == COLUMNS
    assert set(summary["direction"]) == {"alice → bob", "bob → alice"}
    lossy = summary[summary["direction"] == "alice → bob"]
    assert (lossy["lost %"] > 0.5).all()
    assert (summary["packets"] > 2000).all()
    assert summarize(Recording.build()).empty


def test_each_direction_has_its_own_colour_everywhere() -> None:
    """Colours depend on the order of the peers alone, and differ."""
    assert direction_colors(["alice", "bob"]) == {"alice": "#0072b2", "bob": "#d55e00"}
    assert len(set(direction_colors("abcdef").values())) == 6


def pixels(figure: Figure) -> np.ndarray[Any, Any]:
    """Return a figure as it is drawn."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]


def test_the_quality_plot_shows_curves_and_faults(impaired: Recording) -> None:
    """Both colours, the shading of the fault and the picture that a notebook shows are there."""
    figure = plot_quality(impaired)
    drawn = pixels(figure)[..., :3].reshape(-1, 3)
    for color in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (np.abs(drawn.astype(int) - color).sum(axis=1) < 12).sum() > 200
    assert figure._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"  # type: ignore[attr-defined]


def test_the_ladder_pairs_bundles_and_marks_glare() -> None:
    """Crossing offers are glare, candidates are bundled, a message without arrival is lost."""
    rows = sorted([*glare(), *crossing_offers()], key=lambda row: row["t_s"])
    arrows = arrows_of(rows, ["alice", "bob"])
    assert [(a.label, a.glare, a.received_s is None) for a in arrows] == [
        ("offer", True, False),
        ("offer", True, False),
        ("answer", False, False),
        ("candidates ×3", False, False),
        ("hangup", False, True),
    ]
    assert {(m.peer, m.text) for m in marks_of(rows)} == {("alice", "offer ignored"), ("bob", "rollback")}


def test_offers_one_after_the_other_are_no_glare() -> None:
    """An offer that is sent after the other's arrival does not cross it."""
    rows = [
        *message("call-offer", "alice", "bob", 1.0, 1.1, 1),
        *message("call-offer", "bob", "alice", 1.2, 1.3, 1),
    ]
    assert not any(arrow.glare for arrow in arrows_of(rows, ["alice", "bob"]))


def test_an_unknown_call_has_no_ladder(impaired: Recording) -> None:
    """Asking for a call that is not in the recording says so."""
    plot_ladder(impaired, "c1")
    with pytest.raises(LookupError, match="nope"):
        plot_ladder(impaired, "nope")
