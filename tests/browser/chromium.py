"""The Chromium that is installed, and how to start it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator

from playwright.async_api import Browser, async_playwright

__all__ = ["MISSING", "find_chromium", "launched"]

MISSING = (
    "no Chromium: NOTHING WAS TESTED AGAINST A BROWSER; install it (apt-get install chromium), "
    "or name another one in CALLLAB_CHROMIUM"
)

# Without --use-fake-ui-for-media-stream: it would let every page capture, and a page that may capture does
# not hide its addresses.  Contexts get the permission one by one.
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
]


def find_chromium() -> str | None:
    """Return the path of the Chromium to test with, None if there is none."""
    named = os.environ.get("CALLLAB_CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.asynccontextmanager
async def launched(executable: str) -> AsyncIterator[Browser]:
    """Run a Chromium with a profile of its own, which is removed with it."""
    with tempfile.TemporaryDirectory(prefix="calllab-chromium-") as folder:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=executable, args=_ARGUMENTS, env={**os.environ, "TMPDIR": folder}
            )
            try:
                yield browser
            finally:
                await browser.close()
