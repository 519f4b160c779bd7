"""Ours tells its news in the order in which Chromium does."""

from __future__ import annotations

import pytest

from tests.browser.calls import Bench
from tests.browser.event_order import BROWSER_RUNS, SCRIPTS, compare
from tests.browser.script_runner import run_script


@pytest.mark.parametrize("name", SCRIPTS)
async def test_events_come_in_the_browsers_order(bench: Bench, name: str) -> None:
    """What Chromium always tells in one order, ours tells in that order, but for what is listed."""
    problems: list[str] = []
    page = await bench.open_page(problems)
    try:
        runs = [
            [(who, what) for who, what in await page.evaluate("script => runScript(script)", SCRIPTS[name])]
            for _ in range(BROWSER_RUNS)
        ]
        assert await page.evaluate("problems") == []
    finally:
        await page.context.close()
    ours = await run_script(SCRIPTS[name])
    unexplained = [found for found in compare(name, runs, ours) if found.deviation is None]
    assert unexplained == [], f"Chromium: {runs[0]}\nours: {ours}"
    assert problems == []
