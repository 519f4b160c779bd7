"""The report is one file that needs nothing, says what was found, and is not to be fooled."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from calllab.diagnosis import diagnose
from calllab.errors import RecordingError
from calllab.lab import Recording
from calllab.report import write_report
from calllab.report.timeline import MAX_LINES, timeline
from tests.report import helpers
from tests.report.helpers import event, message

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects the elements, ids, links and text of a page, and whether all elements are closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.data = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["script"]:
            self.data += data
        else:
            self.text += data

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.links.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def report(recording: Recording, folder: Path) -> str:
    return write_report(recording, folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of the example."""
    return report(helpers.example(), tmp_path_factory.mktemp("report"))


def test_the_page_needs_nothing_else(source: str) -> None:
    """No link, script, font or picture leads out of the file, and the browser is told to fetch none."""
    page = Page(source)
    assert page.links
    assert all(link.startswith("#") for link in page.links)
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert not re.search(r"url\((?!#)|@import", source)
    assert "default-src 'none'" in source


def test_every_anchor_has_one_target(source: str) -> None:
    """No id is there twice, and every link within the page leads somewhere."""
    page = Page(source)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_the_page_says_what_was_found(source: str) -> None:
    """Verdict, sentence, advice and evidence of each finding are on the page, and the JSON is in it."""
    page, diagnosis = Page(source), diagnose(helpers.example())
    assert diagnosis.findings
    assert diagnosis.verdict in page.text
    for finding in diagnosis.findings:
        assert finding.sentence in page.text
        assert finding.advice in page.text
        assert all(item.metric in page.text for item in finding.evidence)
    assert json.loads(page.data) == json.loads(diagnosis.to_json())


def test_the_page_says_what_was_done_and_with_what(source: str) -> None:
    """Faults, settings, versions and the digest are on the page."""
    page = Page(source)
    for words in ("10% loss", "seed", "1.16.0", helpers.example().digest(), "2026-01-02T03:04:05Z"):
        assert words in page.text


def test_pictures_follow_the_theme(source: str) -> None:
    """No picture has a ground or an ink of its own: both come from the page."""
    assert "var(--ink)" in source.split("</style>", 1)[1]
    assert not re.search(r"(?:fill|stroke): (?:#ffffff|#1f2430)", source)


def test_the_same_recording_gives_the_same_page(source: str, tmp_path: Path) -> None:
    """A report has no date and no random id of its own, so that it can be compared."""
    assert report(helpers.example(), tmp_path) == source


HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!-- <script>",
    "{{ 7 * 7 }}",
    "$\\frac$",
    "😀\u202e\x00",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str, tmp_path: Path) -> None:
    """What a peer, an event, a statistic, a fault or a setting says never becomes markup."""
    rename = {"alice": text, "bob": f"b{text}"}
    rows = [
        {key: rename.get(value, value) if isinstance(value, str) else value for key, value in row.items()}
        for row in helpers.glare_events()
    ]
    stats = [{**row, "peer": rename[row["peer"]], "callId": text} for row in helpers.stats_rows()]
    for row in stats:
        row["report"]["in-audio"]["kind"] = row["report"]["in-audio"]["mid"] = text
    recording = Recording.build(
        events=[
            *rows,
            event(1.0, text, text, state=text, **{text: text}),
            event(1.5, text, "setLocalDescription", type=text, sdp=text, error=text, message=text),
            event(2.0, text, "connectionstatechange", state=text),
            event(2.5, text, "call-end", reason=text),
            event(2.6, text, "icecandidate", candidate={"candidate": text}),
        ],
        stats=stats,
        truth=[
            {
                "t_s": 1.0,
                "kind": text,
                "fault": {
                    "cause": text,
                    "direction": f"{text}->x",
                    "at_s": 1.0,
                    "settings": {"networkChanged": text},
                },
            }
        ],
        meta={
            "settings": {text: text},
            "versions": {text: text},
            "startedAt": text,
            "peers": {text: {text: text}},
        },
    )
    page = Page(report(recording, tmp_path))
    assert page.tags.count("script") == 1
    assert not {"img", "iframe"} & set(page.tags)
    assert not page.handlers
    assert all(link.startswith("#") for link in page.links)
    assert text in page.text
    json.loads(page.data)


@pytest.mark.parametrize(
    "recording",
    [
        Recording.build(),
        Recording.build(meta={"versions": "1", "settings": [1], "peers": None, "startedAt": None}),
        Recording.build(events=[event(0.0, "alice", "connectionstatechange", state=None)]),
        Recording.build(events=[event(-5.0, "alice", "x"), event(1e9, "alice", "y")]),
        Recording.build(truth=[{"t_s": 0.0, "kind": "planned", "fault": {"at_s": "x", "settings": 3}}]),
        Recording.build(truth=[{"t_s": 0.0, "kind": "x", "fault": {"id": [1], "at_s": 1, "for_s": -5}}]),
        Recording.build(stats=[{"t_s": 1.0, "peer": "a", "report": {}}]),
    ],
    ids=["empty", "meta", "state", "times", "fault", "fault-id", "report"],
)
def test_odd_recordings_have_a_report(recording: Recording, tmp_path: Path) -> None:
    """Whatever a recording may hold, its report can be written."""
    assert "Call report" in report(recording, tmp_path)


def test_folders_are_made_and_the_path_returned(tmp_path: Path) -> None:
    """The path may be a string, in a folder that is not there yet."""
    path = tmp_path / "new" / "folder" / "r.html"
    assert write_report(Recording.build(), str(path)) == path
    assert path.is_file()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error is calllab's own, with the path and the reason."""
    with pytest.raises(RecordingError, match=re.escape(str(tmp_path))):
        write_report(Recording.build(), tmp_path)


def test_candidates_in_a_row_are_one_line() -> None:
    """The timeline counts candidates of one peer in a row, and leaves measurements of playout out."""
    rows = [event(t / 10, "alice", "icecandidate", candidate=f"c{t}") for t in range(4)]
    lines = timeline(Recording.build(events=[*rows, *helpers.playouts()]))
    assert [(line.event, line.detail) for line in lines] == [("icecandidate", "×4")]


def test_a_call_that_failed_stands_out() -> None:
    """An operation that was rejected is marked, with its error in the line."""
    (line,) = timeline(
        Recording.build(
            events=[event(1.0, "alice", "addIceCandidate", candidate="c", error="OperationError")]
        )
    )
    assert line.bad
    assert "OperationError" in line.detail


def test_too_many_events_are_counted(tmp_path: Path) -> None:
    """The page of a long recording says how much it leaves out."""
    rows = [event(t / 100, "alice", "negotiationneeded") for t in range(MAX_LINES + 7)]
    assert "7 more are in the recording only" in report(Recording.build(events=rows), tmp_path)


def test_many_calls_have_a_bounded_page(tmp_path: Path) -> None:
    """Not every ladder of a recording of a hundred calls is drawn, and the page says so."""
    rows = [
        {**row, "callId": f"call-{n}"}
        for n in range(11)
        for row in message("call-offer", "alice", "bob", n, n + 0.1, str(n))
    ]
    source = report(Recording.build(events=rows), tmp_path)
    assert source.count("<svg") == 1 + 8
    assert "The ladders of 3 more calls are not drawn." in source


def test_colours_are_had_without_matplotlib() -> None:
    """The live panel takes its colours from here; it must not wait for what draws pictures."""
    code = "import sys, calllab.report.palette; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_scenario_is_told_by_its_title(tmp_path: Path) -> None:
    """The scenario of a recording shows as its title; the whole of it is folded away, one member a line."""
    scenario = {"title": "Bob <hears> nothing", "faults": [{"direction": "alice->bob", "blackout": True}]}
    recording = Recording.build(meta={"settings": {"seed": 3, "scenario": scenario}})
    page = write_report(recording, tmp_path / "report.html").read_text()
    assert "<dt>scenario</dt><dd>Bob &lt;hears&gt; nothing<details>" in page
    assert "blackout: true" in page
