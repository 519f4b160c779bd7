"""Data channels against Chromium: identifiers, and how they close."""

from __future__ import annotations

import pytest

from tests.browser.calls import Bench, browser_call
from tests.rtc.conformance.channels import events_of
from tests.rtc.peers import until

pytestmark = pytest.mark.interop

WATCH = """() => {
  peer.events = [];
  for (const [label, channel] of peer.channels)
    for (const name of ["closing", "error", "close"])
      channel.addEventListener(name, () => peer.events.push(`${label} ${name}`));
}"""


@pytest.mark.parametrize("page_is_polite", [True, False], ids=["page-polite", "page-impolite"])
async def test_channels_close_as_the_specification_says(bench: Bench, page_is_polite: bool) -> None:
    """Who closes hears close, the other closing and close; when the page goes away, error and close."""
    async with browser_call(bench, page_is_polite=page_is_polite) as call:
        channels = {label: call.pc.createDataChannel(label) for label in ("we close", "page closes", "stays")}
        await call.settled()
        await until(lambda: all(c.readyState == "open" for c in channels.values()), "all channels open")
        ids = await call.page.evaluate("[...peer.channels.values()].map(channel => channel.id)")
        assert ids == [channel.id for channel in channels.values()]
        seen = {label: events_of(channel) for label, channel in channels.items()}
        await call.page.evaluate(WATCH)
        channels["we close"].send("last words")
        channels["we close"].close()
        await call.page.evaluate("() => peer.channels.get('page closes').close()")
        await until(lambda: seen["we close"] == ["close"], "our close")
        await until(lambda: seen["page closes"] == ["closing", "close"], "the page's close")
        assert sorted(await call.page.evaluate("peer.events")) == [
            "page closes close",
            "we close close",
            "we close closing",
        ]
        again = call.pc.createDataChannel("again")
        await until(lambda: again.readyState == "open", "a channel under an id that is free again")
        assert again.id == ids[0]
        await call.page.evaluate("() => peer.pc.close()")
        await until(lambda: seen["stays"] == ["error", "close"], "the end of the page's connection")
