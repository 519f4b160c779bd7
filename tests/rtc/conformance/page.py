"""Writes docs/conformance.md from the tests' clauses: ``python -m tests.rtc.conformance.page``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from tests.browser import event_order
from tests.rtc.conformance import deviations, deviations_transport
from tests.rtc.conformance.clauses import DOCUMENTS, Proof, proofs

PAGE: Final = Path(__file__).parents[3] / "docs" / "conformance.md"

_ORDER: Final = f"""\
## The order of events, against Chromium

Where the specifications leave an order open, Chromium's counts.  Each of these scripts runs in Chromium
{event_order.BROWSER_RUNS} times, and as often again if these agree on an order that ours has not; with
ours it runs once.  What one peer tells in the same order in all runs of Chromium, ours has to tell in
that order; what swaps places between them is chance, and between the two
peers of a call there is no order.  Nothing may be told that Chromium tells in no run, and nothing may be
missing that it tells in all of them.  What differs all the same is in the second table.  All of it is
shown by `test_event_order::test_events_come_in_the_browsers_order`.
"""

_HEAD: Final = """\
# Conformance

`calllab.rtc` has the shape of the browser's WebRTC API: what is written for it carries over line by line.
This page lists every clause that a test proves, and every place where we do otherwise on purpose.
It is generated from the tests; change them, then run `python -m tests.rtc.conformance.page`.
"""


def all_deviations() -> tuple[deviations.Deviation, ...]:
    """Return what both tables of deviations hold."""
    return deviations.DEVIATIONS + deviations_transport.DEVIATIONS


def lines() -> Iterator[str]:
    """Yield the page line by line."""
    found = proofs()
    count = len({proof.clause for proof in found})
    yield from _HEAD.splitlines()
    yield ""
    yield f"{count} clauses are proven by {len({(p.module, p.test) for p in found})} tests."
    yield ""
    yield "## Where we deviate"
    yield ""
    yield "| Clause | What we do | Why | Shown by |"
    yield "| --- | --- | --- | --- |"
    for deviation in sorted(all_deviations(), key=lambda entry: entry.clause.place):
        stated = deviation.clause
        yield _row(
            f"{stated.document} {stated.section}: {stated.what}",
            deviation.ours,
            deviation.why,
            f"`{deviation.test}`" if deviation.test else "",
        )
    yield ""
    yield from order_lines()
    for document, of_document in groupby(found, key=lambda proof: proof.clause.document):
        yield ""
        yield f"## {document}: {DOCUMENTS[document]}"
        for section, of_section in groupby(of_document, key=lambda proof: proof.clause.section):
            yield ""
            yield f"### {section}"
            yield ""
            yield "| Clause | What holds | Test |"
            yield "| --- | --- | --- |"
            for proof in of_section:
                yield _row(proof.clause.what, proof.says, _test(proof))


def order_lines() -> Iterator[str]:
    """Yield the section about the order of events; the comparison itself is a test with Chromium."""
    yield from _ORDER.splitlines()
    yield ""
    yield "| Script | What is called by whom |"
    yield "| --- | --- |"
    connect = _calls(event_order.SCRIPTS["connect"])
    for name, script in event_order.SCRIPTS.items():
        calls = _calls(script)
        if name != "connect" and calls[: len(connect)] == connect:
            calls[: len(connect)] = ["as in connect"]
        yield _row(name, ", ".join(calls))
    yield ""
    yield "A number is a count: `#2` is the second of its kind, `#*` any."
    yield ""
    yield "| Script | What Chromium tells | What ours does | Why |"
    yield "| --- | --- | --- | --- |"
    for entry in event_order.DEVIATIONS:
        script_name = "any" if entry.script == "*" else entry.script
        if entry.later is None:
            yield _row(script_name, "", f"tells `{entry.earlier}`", entry.reason)
        else:
            order = f"`{entry.earlier}`, then `{entry.later}`"
            yield _row(script_name, order, "tells them the other way round", entry.reason)


def _calls(script: event_order.Script) -> list[str]:
    return [" ".join(call) for step in script for call in step if not call[1].startswith("until")]


def text() -> str:
    """Return the page."""
    return "\n".join(lines()) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _test(proof: Proof) -> str:
    return f"`{proof.module}::{proof.test}`"


def main() -> None:
    """Write the page, or with ``--check`` fail if it is not as it would be written."""
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text() != text():
            sys.exit(f"{PAGE.name} is not up to date: run python -m tests.rtc.conformance.page")
        return
    PAGE.write_text(text())


if __name__ == "__main__":
    main()
