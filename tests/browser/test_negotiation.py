"""Chromium and a calllab peer negotiate perfectly, in both roles."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.browser.calls import Bench, BrowserCall, browser_call, eventually

ROLES = pytest.mark.parametrize("page_is_polite", [True, False], ids=["page-polite", "page-impolite"])

# A change of path costs some 0.05 s, a lost packet 0.3 s in our jitter buffer, a lost session seconds.
LONGEST_GAP_S = 1.0


@contextlib.asynccontextmanager
async def talking(bench: Bench, page_is_polite: bool) -> AsyncIterator[BrowserCall]:
    """A call with audio both ways, and a data channel."""
    async with browser_call(bench, page_is_polite=page_is_polite) as call:
        call.add("audio")
        call.keep(call.pc.createDataChannel("chat"))
        await call.settled()
        await call.page_add("audio")
        await call.settled()
        await call.media_flows()
        yield call


def glares(call: BrowserCall) -> list[str]:
    """Return what our side saw of collisions."""
    return [event for event, _ in call.events if event in ("offer-collision", "offer-ignored", "rollback")]


@ROLES
async def test_initial_glare_connects(bench: Bench, page_is_polite: bool) -> None:
    """Both offer before anything is negotiated: one rolls back, and one call comes of it."""
    async with browser_call(bench, page_is_polite=page_is_polite) as call:
        await call.glare(ours=lambda: call.add("audio"), page=lambda: call.page_add("audio"))
        seen = await call.settled()
        if page_is_polite:
            assert glares(call) == ["offer-collision", "offer-ignored"]
            assert seen["counts"]["rollbacks"] == 1
        else:
            assert glares(call) == ["offer-collision", "rollback"]
            assert seen["counts"]["ignored"] == 1
        await call.expect_same_directions()
        await call.media_flows()
        assert seen["states"] == ["connecting", "connected"]


@ROLES
async def test_glare_in_a_call_keeps_it(bench: Bench, page_is_polite: bool) -> None:
    """Both add video at once: both pictures arrive, and neither session nor sound is interrupted."""
    async with talking(bench, page_is_polite) as call:
        async with call.uninterrupted(LONGEST_GAP_S, most_concealed_s=LONGEST_GAP_S):
            await call.glare(ours=lambda: call.add("video"), page=lambda: call.page_add("video"))
        await call.expect_same_directions()
        assert glares(call)[-1] == ("offer-ignored" if page_is_polite else "rollback")
        seen = await call.report()
        assert {entry["kind"] for entry in seen["inbound"]} == {"audio", "video"}


@ROLES
@pytest.mark.parametrize("who", ["ours", "page", "both"])
async def test_ice_restart_keeps_the_session(bench: Bench, page_is_polite: bool, who: str) -> None:
    """Whoever restarts ICE: both sides have new credentials, and DTLS and media go on."""
    async with talking(bench, page_is_polite) as call:
        before = (await call.report())["ufrags"]
        async with call.uninterrupted(LONGEST_GAP_S, most_concealed_s=LONGEST_GAP_S):
            if who == "ours":
                call.manager.restart_ice()
            elif who == "page":
                await call.page.evaluate("peer.pc.restartIce()")
            else:
                await call.glare(
                    ours=call.manager.restart_ice, page=lambda: call.page.evaluate("peer.pc.restartIce()")
                )
        after = (await call.report())["ufrags"]
        assert after[0] != before[0]
        assert after[1] != before[1]


@ROLES
async def test_tracks_come_and_go(bench: Bench, page_is_polite: bool) -> None:
    """Tracks are removed, added again and stopped by both, and stopped sections are used again."""
    async with talking(bench, page_is_polite) as call:
        async with call.uninterrupted(LONGEST_GAP_S, most_concealed_s=LONGEST_GAP_S):
            await call.page_add("video")
            await call.settled()
            call.add("video")
            await call.settled()
            assert len(call.pc.getTransceivers()) == 2
            await call.page.evaluate("peer.remove('video')")
            call.add("video")
            await call.settled()
            assert [t.currentDirection for t in call.pc.getTransceivers()] == [
                "sendrecv",
                "sendonly",
                "sendonly",
            ]
            await call.page_add("video")
        await call.expect_same_directions()
        async with call.uninterrupted(LONGEST_GAP_S, most_concealed_s=LONGEST_GAP_S):
            await call.page.evaluate("peer.stop('video')")
            await call.settled()
            call.pc.getTransceivers()[-1].stop()
            await call.settled()
            assert [t.kind for t in call.pc.getTransceivers()] == ["audio"]
            await call.glare(ours=lambda: call.add("video"), page=lambda: call.page_add("video"))
        assert call.pc.localDescription is not None
        # Sound, data, and the two sections of pictures that were given up: one of them carries the new ones.
        assert call.pc.localDescription.sdp.count("\nm=") == 4
        await call.expect_same_directions()


@ROLES
async def test_data_channels_work_both_ways(bench: Bench, page_is_polite: bool) -> None:
    """Channels made by either side open on both, and carry text and bytes, empty ones and long ones too."""
    async with browser_call(bench, page_is_polite=page_is_polite) as call:
        await call.page.evaluate("peer.createChannel('from the page')")
        call.keep(call.pc.createDataChannel("from us"))
        await call.settled()

        async def all_open() -> bool:
            page = (await call.report())["channels"]
            return len(page) == len(call.channels) == 2 and all(
                state == "open"
                for state in [s for _, s in page] + [c.readyState for c in call.channels.values()]
            )

        await eventually(all_open, lambda: f"channels did not open: {call.channels}")
        contents: list[str | bytes] = ["text", "", "ü" * 20_000, b"\x00\x01\xff", b""]
        for label, channel in call.channels.items():
            for content in contents:
                channel.send(content)
                shown = content if isinstance(content, str) else list(content)
                await call.page.evaluate("([label, data]) => peer.sendData(label, data)", [label, shown])
        wanted = [(label, content) for label in call.channels for content in contents]

        async def all_here() -> bool:
            return len(call.data) == len((await call.report())["data"]) == len(wanted)

        await eventually(all_here, lambda: f"messages are missing: {len(call.data)} of {len(wanted)}")
        page_data = [
            (label, data if isinstance(data, str) else bytes(data))
            for label, data in (await call.report())["data"]
        ]
        for label in call.channels:
            assert [data for name, data in call.data if name == label] == contents
            assert [data for name, data in page_data if name == label] == contents


@ROLES
async def test_mdns_names_become_peer_reflexive(bench: Bench, page_is_polite: bool) -> None:
    """A page that hides its addresses behind mDNS names that nobody here can resolve is reached all the same,
    and that is no error.
    """
    async with browser_call(bench, page_is_polite=page_is_polite, made_media=True) as call:
        seen = await call.both_add("audio")
        await call.media_flows()
        hosts = [candidate.split()[4] for candidate in seen["candidates"] if " typ host" in candidate]
        assert hosts
        assert all(host.endswith(".local") for host in hosts)
        report = await call.manager.get_stats()
        (transport,) = (entry for entry in report.values() if entry["type"] == "transport")
        pair = report[transport["selectedCandidatePairId"]]
        assert report[pair["remoteCandidateId"]]["candidateType"] == "prflx"


@ROLES
async def test_relay_only_goes_through_our_turn_server(bench: Bench, page_is_polite: bool) -> None:
    """With the policy relay on both sides all packets pass the service's TURN server."""
    async with browser_call(bench, page_is_polite=page_is_polite, policy="relay") as call:
        seen = await call.both_add("audio")
        before = await bench.service.relayed_packets()
        await call.media_flows()
        assert (await call.connected_report())["pair"] == ["relay", "relay"]
        assert all(" typ relay" in candidate for candidate in seen["candidates"])
        assert await bench.service.relayed_packets() > before
