"""How long a call takes to connect and to show its first picture, and what a statistics report costs.

``python -m tests.benchmarks.bench_connect [--json]``.  Both ends run in one process, over the host's own
network, without a signaling server; in turns ours (with trickled candidates), plain aiortc (with complete
descriptions, as it knows no others), and Chromium, if one is installed.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiortc

from calllab.rtc import AudioStreamTrack, MediaStream, RTCIceCandidate, RTCPeerConnection
from tests.benchmarks.table import Table, benchmark
from tests.browser.calls import Bench, served_pages
from tests.browser.chromium import MISSING, find_chromium, launched
from tests.negotiation.linked_peers import SmallVideo

ROUNDS: Final = 9
REPORTS: Final = 100
REPORT_ROUNDS: Final = 5
PATIENCE_S: Final = 20.0

Times = tuple[float, float]
"""Seconds until both ends are connected, and until the first decoded picture."""


async def _first_frame(track: Any) -> float:
    await track.recv()
    return time.perf_counter()


def _watch(pc: Any, connected: asyncio.Future[float]) -> None:
    def look() -> None:
        if pc.connectionState == "connected" and not connected.done():
            connected.set_result(time.perf_counter())

    pc.on("connectionstatechange", look)


class _Ends:
    """Two peer connections, and when they are up; ``first`` is the task that waits for the first picture."""

    def __init__(self, a: Any, b: Any) -> None:
        self.a, self.b = a, b
        loop = asyncio.get_running_loop()
        self._connected: list[asyncio.Future[float]] = [loop.create_future(), loop.create_future()]
        self._first: asyncio.Future[asyncio.Task[float]] = loop.create_future()
        for pc, connected in zip((a, b), self._connected, strict=True):
            _watch(pc, connected)
        self.tracks: list[Any] = [AudioStreamTrack(), SmallVideo()]
        b.on("track", self._take)

    def _take(self, track: Any, *_: Any) -> None:
        if track.kind == "video":
            self._first.set_result(asyncio.get_running_loop().create_task(_first_frame(track)))

    async def times(self, begin: float) -> Times:
        async with asyncio.timeout(PATIENCE_S):
            connected = max(await asyncio.gather(*self._connected))
            return connected - begin, await (await self._first) - begin

    async def close(self) -> None:
        await self.a.close()
        await self.b.close()
        for track in self.tracks:
            track.stop()


async def connect_ours() -> tuple[_Ends, Times]:
    """Connect two of ours, candidates trickled."""
    ends = _Ends(RTCPeerConnection(), RTCPeerConnection())
    a, b = ends.a, ends.b
    early: dict[RTCPeerConnection, list[RTCIceCandidate] | None] = {a: [], b: []}
    adding: set[asyncio.Future[None]] = set()

    def carry(to: RTCPeerConnection, candidate: RTCIceCandidate | None) -> None:
        waiting = early[to]
        if candidate is None:
            return
        if waiting is not None:
            waiting.append(candidate)
        else:
            adding.add(asyncio.ensure_future(to.addIceCandidate(candidate)))

    def open_(pc: RTCPeerConnection) -> None:
        waiting, early[pc] = early[pc] or [], None
        for candidate in waiting:
            carry(pc, candidate)

    a.on("icecandidate", lambda candidate: carry(b, candidate))
    b.on("icecandidate", lambda candidate: carry(a, candidate))
    for track in ends.tracks:
        a.addTrack(track, MediaStream())
    begin = time.perf_counter()
    await a.setLocalDescription()
    await b.setRemoteDescription(a.localDescription)
    open_(b)
    await b.setLocalDescription()
    await a.setRemoteDescription(b.localDescription)
    open_(a)
    times = await ends.times(begin)
    await asyncio.gather(*adding)
    return ends, times


async def connect_aiortc() -> tuple[_Ends, Times]:
    """Connect two of aiortc's, all candidates in the descriptions."""
    configuration = aiortc.RTCConfiguration(iceServers=[])
    ends = _Ends(aiortc.RTCPeerConnection(configuration), aiortc.RTCPeerConnection(configuration))
    a, b = ends.a, ends.b
    for track in ends.tracks:
        a.addTrack(track)
    offer = await a.createOffer()
    begin = time.perf_counter()
    await a.setLocalDescription(offer)
    await b.setRemoteDescription(a.localDescription)
    await b.setLocalDescription(await b.createAnswer())
    await a.setRemoteDescription(b.localDescription)
    return ends, await ends.times(begin)


async def _times_of(connect: Callable[[], Awaitable[tuple[_Ends, Times]]]) -> Times:
    ends, times = await connect()
    await ends.close()
    return times


async def _rounds(chromium: Callable[[], Awaitable[Times]] | None) -> dict[str, list[Times]]:
    ways: dict[str, Callable[[], Awaitable[Times]]] = {
        "calllab": lambda: _times_of(connect_ours),
        "aiortc": lambda: _times_of(connect_aiortc),
    }
    if chromium is not None:
        ways["Chromium"] = chromium
    measured: dict[str, list[Times]] = {name: [] for name in ways}
    for index in range(ROUNDS + 1):
        for name, way in ways.items():
            times = await way()
            if index:  # the first round warms caches
                measured[name].append(times)
    return measured


async def connect_times() -> Table:
    """Measure all that are there in turns."""
    executable = find_chromium()
    if executable is None:
        print(MISSING, file=sys.stderr)
        measured = await _rounds(None)
    else:
        async with launched(executable) as browser, served_pages() as origin:
            problems: list[str] = []
            page = await Bench(browser, None, f"{origin}/peer.html").open_page(problems)

            async def in_chromium() -> Times:
                connected_s, frame_s = await page.evaluate("connectTime()")
                return connected_s, frame_s

            measured = await _rounds(in_chromium)
            if problems:
                raise RuntimeError(f"the page has problems: {problems}")
    table = Table(
        "From the first setLocalDescription", f"medians of {ROUNDS} rounds in turns; ratios to plain aiortc"
    )
    medians = {
        name: [statistics.median(column) for column in zip(*times, strict=True)]
        for name, times in measured.items()
    }
    for name, (connected_s, frame_s) in medians.items():
        table.row(
            ends=f"{name} to {name}",
            connected_ms=round(connected_s * 1000, 1),
            connected_ratio=round(connected_s / medians["aiortc"][0], 2),
            first_picture_ms=round(frame_s * 1000, 1),
            first_picture_ratio=round(frame_s / medians["aiortc"][1], 2),
        )
    return table


async def _report_cost(pc: Any) -> tuple[float, int]:
    begin = time.process_time()
    for _ in range(REPORTS):
        report = await pc.getStats()
    return (time.process_time() - begin) / REPORTS, len(report)


async def report_costs() -> Table:
    """Measure what a report of the sending end of a call with sound and pictures costs."""
    best: dict[str, tuple[float, int]] = {}
    ours, _ = await connect_ours()
    plain, _ = await connect_aiortc()
    try:
        await asyncio.sleep(2)
        for _ in range(REPORT_ROUNDS):
            for name, ends in (("calllab", ours), ("aiortc", plain)):
                cost = await _report_cost(ends.a)
                best[name] = min(cost, best.get(name, cost))
    finally:
        await ours.close()
        await plain.close()
    table = Table(
        "getStats() of an audio and video call", f"best of {REPORT_ROUNDS} rounds of {REPORTS} reports"
    )
    plain_s, plain_entries = best["aiortc"]
    for name, (seconds, entries) in best.items():
        table.row(
            connection=name,
            us_each=round(seconds * 1e6),
            ratio=round(seconds / plain_s, 2),
            entries=entries,
            us_per_entry=round(seconds * 1e6 / entries, 1),
            per_entry_ratio=round((seconds / entries) / (plain_s / plain_entries), 2),
        )
    return table


async def _measure() -> list[Table]:
    return [await connect_times(), await report_costs()]


def measure() -> list[Table]:
    """Measure everything."""
    return asyncio.run(_measure())


main = benchmark(measure)

if __name__ == "__main__":
    main()
