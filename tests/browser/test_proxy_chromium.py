"""A call between Chromium and a calllab peer through both proxies, with neither of them changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from calllab.lab.proxies import CallProxy
from tests.browser.calls import Bench, browser_call, eventually


@pytest.mark.parametrize(("made_media", "place"), [(False, 80), (True, 81)], ids=["addresses", "mdns"])
async def test_chromium_is_impaired_without_knowing(bench: Bench, made_media: bool, place: int) -> None:
    """Media of both passes the proxy alone, with named and with hidden addresses, and is as late as set."""
    async with CallProxy(bench.service.http_url, seed=1) as proxy:
        assert proxy.media is not None
        await proxy.fault("*->*", delay_ms=50)
        behind: Any = SimpleNamespace(http_url=proxy.url)
        proxied = Bench(bench.browser, behind, bench.page_url)
        async with browser_call(proxied, page_is_polite=True, made_media=made_media, place=place) as call:
            call.add("audio")
            pair: dict[str, Any] = {}

            async def is_measured() -> bool:
                report = await call.manager.get_stats()
                pair.clear()
                for entry in report.values():
                    if entry["type"] == "transport" and "selectedCandidatePairId" in entry:
                        pair.update(report[entry["selectedCandidatePairId"]])
                        pair["remote"] = report[pair["remoteCandidateId"]]
                return pair.get("currentRoundTripTime", 0) > 0 and call.pc.connectionState == "connected"

            await eventually(is_measured, lambda: f"not connected: {call.problems}, {pair}")
            counted = await proxy.media.counters()
            legs = {leg["local"][1]: leg for leg in counted["legs"]}
            assert 0.1 <= pair["currentRoundTripTime"] < 0.6
            assert pair["remote"]["port"] in legs
            assert all(link["delivered"] > 3 for link in counted["users"].values())
            theirs = [leg for leg in legs.values() if leg["proven"]]
            assert {leg["user"] for leg in theirs} == set(counted["users"])
            assert len(counted["users"]) == 2
