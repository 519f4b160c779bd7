"""Ours tells its news in the order in which Chromium does."""

from __future__ import annotations

import pytest

from tests.browser.calls import Bench
from tests.browser.event_order import BROWSER_RUNS, SCRIPTS, Disagreement, Log, compare
from tests.browser.script_runner import run_script


@pytest.mark.parametrize("name", SCRIPTS)
async def test_events_come_in_the_browsers_order(bench: Bench, name: str) -> None:
    """What Chromium always tells in one order, ours tells in that order, but for what is listed."""
    problems: list[str] = []
    page = await bench.open_page(problems)

    async def browser_runs(count: int) -> list[Log]:
        return [
            [(who, what) for who, what in await page.evaluate("script => runScript(script)", SCRIPTS[name])]
            for _ in range(count)
        ]

    try:
        runs = await browser_runs(BROWSER_RUNS)
        ours = await run_script(SCRIPTS[name])
        unexplained = unexplained_of(name, runs, ours)
        if unexplained:
            # Five runs agree by chance now and then; what is the browser's order outlives five more.
            runs += await browser_runs(BROWSER_RUNS)
            unexplained = unexplained_of(name, runs, ours)
        assert await page.evaluate("problems") == []
    finally:
        await page.context.close()
    assert unexplained == [], f"Chromium: {runs[0]}\nours: {ours}"
    assert problems == []


def unexplained_of(name: str, runs: list[Log], ours: Log) -> list[Disagreement]:
    """Return where ours differs from all runs of the browser without being listed."""
    return [found for found in compare(name, runs, ours) if found.deviation is None]
