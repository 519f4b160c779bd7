"""A real Chromium, and the real service, for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from calllab.lab.service import ServiceProcess
from tests.browser.chromium import MISSING, find_chromium, launched

pytest.register_assert_rewrite("tests.browser.calls")

from tests.browser.calls import Bench, served_pages  # noqa: E402

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests of this folder share one browser, its connection's loop, and one worker."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.interop)
            item.add_marker(pytest.mark.xdist_group("browser"))
            item.add_marker(pytest.mark.asyncio(loop_scope="package"), append=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly at the end of the run that the browser was missing."""
    if find_chromium() is None:
        terminalreporter.section("tests/browser", red=True, bold=True)
        terminalreporter.line(MISSING, red=True, bold=True)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests of this folder; each test has contexts and pages of its own."""
    executable = find_chromium()
    if executable is None:
        pytest.skip(MISSING)
    async with launched(executable) as running:
        yield running


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def bench(browser: Browser) -> AsyncIterator[Bench]:
    """The service in a child process, a page that may connect to it, and the browser."""
    async with served_pages() as origin:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("CALLLAB_ALLOWED_ORIGINS", origin)
            async with ServiceProcess() as service:
                yield Bench(browser, service, f"{origin}/peer.html")
