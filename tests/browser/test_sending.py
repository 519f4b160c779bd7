"""What a running sender changes, as Chromium's statistics see it: its codec, and its parameters."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import numpy as np
import pytest
from av import VideoFrame

from calllab.rtc import MediaStream, MediaStreamTrack, RTCRtpSender
from tests.browser.calls import Bench, BrowserCall, browser_call, eventually
from tests.negotiation.linked_peers import SmallVideo

Numbers = Mapping[str, Any]

LIMIT = 100_000
"""Bits a second."""


@contextlib.asynccontextmanager
async def showing(bench: Bench, track: MediaStreamTrack) -> AsyncIterator[BrowserCall]:
    """A call with a picture both ways."""
    async with browser_call(bench, page_is_polite=True) as call:
        call.pc.addTrack(track, MediaStream([track]))
        await call.settled()
        await call.page_add("video")
        await call.settled()
        await call.media_flows()
        yield call


async def page_video(call: BrowserCall) -> dict[str, Any]:
    """Return what the page says of the picture that it gets, with its codec's name."""
    seen: dict[str, Any] = await call.page.evaluate("peer.video('inbound-rtp')")
    return seen


async def our_video(call: BrowserCall) -> dict[str, Any]:
    """Return what we say of the picture that we get, with its codec's name."""
    report = await call.manager.get_stats()
    (entry,) = report.of_type("inbound-rtp")
    return {**entry, "mimeType": report[entry["codecId"]]["mimeType"]}


async def both(call: BrowserCall) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what both get."""
    return await page_video(call), await our_video(call)


async def until_page(call: BrowserCall, condition: Callable[[Numbers], bool], what: str) -> dict[str, Any]:
    """Return what the page gets as soon as it is as it should be."""
    seen: dict[str, Any] = {}

    async def holds() -> bool:
        seen.update(await page_video(call))
        return condition(seen)

    await eventually(holds, lambda: f"never came to be: {what}: {seen}")
    return seen


async def prefer(call: BrowserCall, mime_type: str, *, by_page: bool) -> None:
    """Let one side put a codec first, and offer."""
    if by_page:
        await call.page.evaluate("mimeType => peer.preferVideo(mimeType)", mime_type)
    else:
        capabilities = RTCRtpSender.getCapabilities("video")
        assert capabilities is not None
        (transceiver,) = call.pc.getTransceivers()
        transceiver.setCodecPreferences(sorted(capabilities.codecs, key=lambda c: c.mimeType != mime_type))
        call.manager.restart_ice()
    await call.settled()


class Mosaic(SmallVideo):
    """Random squares in 160x120, new ones each time: fine pictures cost much, coarse ones little."""

    async def recv(self) -> VideoFrame:
        """Return the next frame when it is due."""
        clock = await super().recv()
        squares = np.random.default_rng(clock.pts).integers(16, 236, (30, 40), dtype=np.uint8)
        planes = np.full((180, 160), 128, dtype=np.uint8)
        planes[:120] = squares.repeat(4, axis=0).repeat(4, axis=1)
        frame = VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = clock.pts, clock.time_base
        return frame


@pytest.mark.parametrize("by_page", [False, True], ids=["we-offer", "page-offers"])
async def test_the_codec_of_a_running_sender_changes(bench: Bench, by_page: bool) -> None:
    """VP8 becomes H264 and VP8 again, in both directions of one stream, and every frame is decoded."""
    async with showing(bench, SmallVideo()) as call:
        before = await both(call)
        assert [seen["mimeType"] for seen in before] == ["video/VP8"] * 2
        for mime_type in ("video/H264", "video/VP8"):
            await prefer(call, mime_type, by_page=by_page)
            began = await both(call)

            async def changed(mime_type: str = mime_type, began: Any = began) -> bool:
                return all(
                    now["mimeType"] == mime_type and now["framesDecoded"] >= then["framesDecoded"] + 5
                    for now, then in zip(await both(call), began, strict=True)
                )

            await eventually(changed, lambda mime_type=mime_type: f"{mime_type} is not decoded: {call!r}")
        for now, then in zip(await both(call), before, strict=True):
            assert now["ssrc"] == then["ssrc"]
            assert now["packetsLost"] == now["framesDropped"] == 0
            assert now["keyFramesDecoded"] >= then["keyFramesDecoded"] + 2

        async def all_decoded() -> bool:
            # One may be in the decoder; a busy machine may have more of them wait, but loses none.
            return all(now["framesReceived"] - now["framesDecoded"] <= 1 for now in await both(call))

        await eventually(all_decoded, lambda: f"frames were received and not decoded: {call!r}")


async def test_parameters_of_a_running_sender_change(bench: Bench) -> None:
    """The page sees smaller pictures, none while the encoding is inactive, and no more bits than allowed."""
    async with showing(bench, Mosaic()) as call:
        (sender,) = call.pc.getSenders()
        ssrc = (await page_video(call))["ssrc"]

        async def change(**members: Any) -> None:
            parameters = sender.getParameters()
            parameters["encodings"][0].update(members)
            await sender.setParameters(parameters)

        await until_page(call, size_is(160, 120), "the whole picture")
        await change(scaleResolutionDownBy=2.0)
        await until_page(call, size_is(80, 60), "half of it")
        await change(scaleResolutionDownBy=1.0)
        await until_page(call, size_is(160, 120), "the whole picture again")

        assert await page_bitrate(call, 10) > 2 * LIMIT, "the limit must be one"
        await change(maxBitrate=LIMIT)
        await page_bitrate(call, 3)  # what was under way, and what the encoder needs to settle
        assert await page_bitrate(call, 10) < 1.5 * LIMIT

        await change(active=False)
        await asyncio.sleep(0.3)
        before = await page_video(call)
        await asyncio.sleep(0.5)
        silent = await page_video(call)
        assert silent["packetsReceived"] == before["packetsReceived"]
        await change(active=True)
        decoded = await until_page(
            call, lambda seen: seen["framesDecoded"] >= silent["framesDecoded"] + 5, "a picture again"
        )
        assert decoded["keyFramesDecoded"] > silent["keyFramesDecoded"]
        assert (decoded["ssrc"], decoded["packetsLost"]) == (ssrc, 0)


def size_is(width: int, height: int) -> Callable[[Numbers], bool]:
    """Return a condition: the page decodes pictures of this size."""
    return lambda seen: (seen.get("frameWidth"), seen.get("frameHeight")) == (width, height)


async def page_bitrate(call: BrowserCall, frames: int) -> float:
    """Return the bits a second of the next frames that the page gets, at the ten a second of the source."""
    before = await page_video(call)
    after = await until_page(
        call, lambda seen: seen["framesReceived"] >= before["framesReceived"] + frames, f"{frames} frames"
    )
    seconds = (after["timestamp"] - before["timestamp"]) / 1000
    return float(after["bytesReceived"] - before["bytesReceived"]) * 8 / seconds
