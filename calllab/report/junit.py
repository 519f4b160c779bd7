"""Outcomes of scenarios as a JUnit file, which every CI server shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from calllab.errors import RecordingError

__all__ = ["check_junit", "write_junit"]

# XML 1.0 has no way at all to write the other control characters.
_UNWRITABLE: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def check_junit(path: Path) -> None:
    """Raise RecordingError if the file cannot be written; it stays as it is, or is made and empty."""
    try:
        path.open("ab").close()
    except OSError as exc:
        raise _unwritable(path, exc) from exc


def write_junit(outcomes: Iterable[Mapping[str, Any]], path: Path | str) -> Path:
    """Write one test case for each outcome of a scenario and return the path.

    An outcome is what ``calllab run --json`` prints, with ``name`` and ``took_s``: a scenario whose
    expectations do not all hold is a failure, and one that could not run (``error``) an error.  Raises
    :exc:`~calllab.errors.RecordingError` if the file cannot be written.
    """
    cases = list(outcomes)
    suite = ElementTree.Element(
        "testsuite",
        name="calllab scenarios",
        tests=str(len(cases)),
        failures=str(sum(not case["holds"] and "error" not in case for case in cases)),
        errors=str(sum("error" in case for case in cases)),
        time=f"{sum(case.get('took_s', 0.0) for case in cases):.3f}",
    )
    for case in cases:
        suite.append(_case(case))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    path = Path(path)
    try:
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as exc:
        raise _unwritable(path, exc) from exc
    return path


def _unwritable(path: Path, error: OSError) -> RecordingError:
    return RecordingError(f"{path} cannot be written: {error.strerror or error}")


def _case(outcome: Mapping[str, Any]) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        classname="calllab.scenarios",
        name=_text(outcome["name"]),
        time=f"{outcome.get('took_s', 0.0):.3f}",
    )
    if "error" in outcome:
        ElementTree.SubElement(case, "error", message=_text(outcome["error"]))
        return case
    failed = [each for each in outcome["expectations"] if not each["holds"]]
    if failed:
        sentences = [f"{each['what']}: {each['got']} (wanted: {each['wanted']})" for each in failed]
        failure = ElementTree.SubElement(case, "failure", message=_text(sentences[0]))
        failure.text = _text("\n".join(sentences))
    told = ElementTree.SubElement(case, "system-out")
    told.text = _text(f"{outcome['title']}\nseed {outcome['seed']}, digest {outcome['digest']}")
    return case


def _text(value: object) -> str:
    return _UNWRITABLE.sub("\ufffd", str(value))
