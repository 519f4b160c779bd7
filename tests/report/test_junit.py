"""The JUnit file says what a CI server needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from calllab.errors import RecordingError
from calllab.report import write_junit


def outcome(name: str, *expectations: tuple[str, bool], **members: Any) -> dict[str, Any]:
    """Return the outcome of a scenario with these expectations."""
    told = [{"what": what, "wanted": "more", "got": "less", "holds": holds} for what, holds in expectations]
    holds = all(holds for _, holds in expectations)
    return {
        "name": name,
        "title": f"About {name}",
        "seed": 1,
        "digest": "d1",
        "took_s": 0.5,
        "holds": holds,
        "expectations": told,
        **members,
    }


def test_failures_and_errors_are_told_apart(tmp_path: Path) -> None:
    """What does not hold is a failure with what was measured; what could not run is an error."""
    outcomes = [
        outcome("good", ("connection", True)),
        outcome("bad", ("connection", True), ("loss <of> bob", False), ("jitter", False)),
        {"name": "broken", "holds": False, "error": "no such network"},
    ]
    suite = ElementTree.parse(write_junit(outcomes, tmp_path / "junit.xml")).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    good, bad, broken = suite
    assert good.find("failure") is None
    failure = bad.find("failure")
    assert failure is not None
    assert failure.get("message") == "loss <of> bob: less (wanted: more)"
    assert failure.text == "loss <of> bob: less (wanted: more)\njitter: less (wanted: more)"
    error = broken.find("error")
    assert error is not None
    assert error.get("message") == "no such network"


def test_any_text_can_be_written(tmp_path: Path) -> None:
    """Characters that XML cannot hold are replaced, so the file can always be read."""
    outcomes = [{"name": "odd \x00\x1b\ud800", "holds": False, "error": "\x07"}]
    case = ElementTree.parse(write_junit(outcomes, tmp_path / "junit.xml")).getroot()[0][0]
    assert case.get("name") == "odd \ufffd\ufffd\ufffd"


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """A folder that does not exist is named."""
    with pytest.raises(RecordingError, match="cannot be written"):
        write_junit([], tmp_path / "nowhere" / "junit.xml")
