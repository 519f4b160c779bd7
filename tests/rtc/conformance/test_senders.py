"""Senders: their track, their parameters, what they really send (webrtc-pc 5.2)."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from av import VideoFrame

from calllab.rtc import (
    AudioStreamTrack,
    InvalidModificationError,
    InvalidStateError,
    MediaStream,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCRtpTransceiver,
    VideoStreamTrack,
)
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import Log, lines, local, negotiate, peers
from tests.rtc.peers import Pair, audio_call, more_packets, packets_received, pair, until


@clause("5.2", "replaceTrack: the track is another one, without negotiation and without another msid")
async def test_5_2_replace_track() -> None:
    """The peer's track stays the same object and its media goes on; nothing is negotiated."""
    async with audio_call() as call:
        sender = call.a.getSenders()[0]
        remote = call.b.getReceivers()[0].track
        log = Log().watch(call.a, "negotiationneeded").watch(remote, "ended", "mute")
        track = AudioStreamTrack()
        await sender.replaceTrack(track)
        assert sender.track is track
        await more_packets(call.b.getTransceivers()[0])
        assert call.b.getReceivers()[0].track is remote
        assert log.take() == []


@clause("5.2", "replaceTrack(None): nothing is sent, the transceiver stays as it is")
async def test_5_2_replace_track_by_none() -> None:
    """Without a track no packet is sent; directions stay, and another track is sent at once."""
    async with audio_call() as call:
        sender, theirs = call.a.getSenders()[0], call.b.getTransceivers()[0]
        await sender.replaceTrack(None)
        assert sender.track is None
        await goes_silent(theirs)
        assert (sender.transceiver.direction, theirs.currentDirection) == ("sendrecv", "sendrecv")
        await sender.replaceTrack(AudioStreamTrack())
        await more_packets(theirs)


@clause("5.2", "replaceTrack: a track of another kind is a TypeError")
@clause("5.2", "replaceTrack: on a stopped transceiver it is an InvalidStateError")
async def test_5_2_replace_track_errors() -> None:
    """The kind is checked first, then the state; what is no track is a TypeError."""
    async with peers(1) as (a,):
        transceiver = a.addTransceiver("audio")
        sender = transceiver.sender
        with pytest.raises(TypeError):
            await sender.replaceTrack(VideoStreamTrack())
        with pytest.raises(TypeError):
            await sender.replaceTrack("audio")  # type: ignore[arg-type]
        transceiver.stop()
        with pytest.raises(TypeError):
            await sender.replaceTrack(VideoStreamTrack())
        with pytest.raises(InvalidStateError):
            await sender.replaceTrack(AudioStreamTrack())


@clause("5.2", "replaceTrack before negotiation only puts the track in its place")
async def test_5_2_replace_track_before_negotiation() -> None:
    """On a transceiver that was never negotiated the track is set, and no track is announced by it."""
    async with peers(1) as (a,):
        transceiver = a.addTransceiver("video", direction="recvonly")
        track = VideoStreamTrack()
        await transceiver.sender.replaceTrack(track)
        assert (transceiver.sender.track, transceiver.direction) == (track, "recvonly")
        await a.setLocalDescription()
        assert lines(local(a), "a=msid:") == []


@clause("5.2", "two senders may have one track by replaceTrack")
async def test_5_2_one_track_on_two_senders() -> None:
    """Only addTrack() refuses a track that is sent already."""
    async with peers(1) as (a,):
        track = AudioStreamTrack()
        senders = [a.addTransceiver("audio").sender for _ in range(2)]
        for sender in senders:
            await sender.replaceTrack(track)
        assert [sender.track for sender in senders] == [track, track]


@clause("5.2", "setStreams: the streams of a sender are a set")
@clause("5.2.1", "an a=msid line for each stream of a sender", document="RFC 9429")
async def test_5_2_set_streams() -> None:
    """Each stream stands once in the offer; without streams there is one line with a dash."""
    async with peers(1) as (a,):
        sender = a.addTrack(AudioStreamTrack(), MediaStream(id="x"))
        one, two = MediaStream(id="one"), MediaStream(id="two")
        for streams, expected in (((one, two, one), ["one", "two"]), ((), ["-"])):
            sender.setStreams(*streams)
            assert [
                line.removeprefix("a=msid:").split()[0] for line in lines(await a.createOffer(), "a=msid:")
            ] == expected


@clause("5.2", "getParameters: the same until the task has ended, then with another transaction")
@clause("5.2.2", "transactionId binds setParameters to one getParameters")
async def test_5_2_transactions() -> None:
    """Two calls in one turn give equal parameters, which are copies; later ones have another id."""
    async with peers(1) as (a,):
        sender = a.addTransceiver("video").sender
        first, second = sender.getParameters(), sender.getParameters()
        assert first == second
        first["encodings"][0]["active"] = False
        assert sender.getParameters() == second
        await asyncio.sleep(0)
        third = sender.getParameters()
        assert third["transactionId"] != second["transactionId"]
        assert {**third, "transactionId": ""} == {**second, "transactionId": ""}


@clause("5.2", "setParameters: without getParameters in the same task it is an InvalidStateError")
async def test_5_2_set_parameters_needs_get_parameters() -> None:
    """Parameters of an earlier turn are stale, and so are those that were set once."""
    async with peers(1) as (a,):
        sender = a.addTransceiver("audio").sender
        parameters = sender.getParameters()
        await asyncio.sleep(0)
        with pytest.raises(InvalidStateError):
            await sender.setParameters(parameters)
        parameters = sender.getParameters()
        await sender.setParameters(parameters)
        with pytest.raises(InvalidStateError):
            await sender.setParameters(parameters)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], type[Exception]]] = {
    "transactionId": (lambda p: p.update(transactionId="other"), InvalidModificationError),
    "codecs": (lambda p: p["codecs"].append("x"), InvalidModificationError),
    "headerExtensions": (lambda p: p["headerExtensions"].append({}), InvalidModificationError),
    "cname": (lambda p: p["rtcp"].update(cname="me"), InvalidModificationError),
    "reducedSize": (lambda p: p["rtcp"].update(reducedSize="?"), InvalidModificationError),
    "more encodings": (lambda p: p["encodings"].append({"active": True}), InvalidModificationError),
    "no encodings": (lambda p: p["encodings"].clear(), InvalidModificationError),
    "rid": (lambda p: p["encodings"][0].update(rid="a"), InvalidModificationError),
    "encodings left out": (lambda p: p.pop("encodings"), TypeError),
    "codecs left out": (lambda p: p.pop("codecs"), TypeError),
    "scale": (lambda p: p["encodings"][0].update(scaleResolutionDownBy=0.9), ValueError),
    "framerate": (lambda p: p["encodings"][0].update(maxFramerate=-0.1), ValueError),
    "bitrate": (lambda p: p["encodings"][0].update(maxBitrate=-1), ValueError),
    "active": (lambda p: p["encodings"][0].update(active="yes"), TypeError),
    "no mapping": (lambda p: p["encodings"].__setitem__(0, None), TypeError),
    "framerate nan": (lambda p: p["encodings"][0].update(maxFramerate=math.nan), TypeError),
    "framerate inf": (lambda p: p["encodings"][0].update(maxFramerate=math.inf), TypeError),
    "scale inf": (lambda p: p["encodings"][0].update(scaleResolutionDownBy=math.inf), TypeError),
    "scale huge": (lambda p: p["encodings"][0].update(scaleResolutionDownBy=10**400), TypeError),
    "bitrate nan": (lambda p: p["encodings"][0].update(maxBitrate=math.nan), TypeError),
    "bitrate inf": (lambda p: p["encodings"][0].update(maxBitrate=math.inf), TypeError),
    "bitrate fraction": (lambda p: p["encodings"][0].update(maxBitrate=1.5), TypeError),
    "bitrate 2**32": (lambda p: p["encodings"][0].update(maxBitrate=2**32), ValueError),
}


@pytest.mark.parametrize("change", CHANGES)
@clause("5.2", "setParameters: read-only parameters, numbers of encodings and ranges are checked")
async def test_5_2_set_parameters_validation(change: str) -> None:
    """What must not be changed is an InvalidModificationError, what is out of range a ValueError."""
    async with peers(1) as (a,):
        sender = a.addTransceiver("video").sender
        parameters = sender.getParameters()
        before = parameters["encodings"][0].copy()
        alter, error = CHANGES[change]
        alter(parameters)
        with pytest.raises(error):
            await sender.setParameters(parameters)
        assert sender.getParameters()["encodings"] == [before]


@clause("5.2.7", "maxBitrate is an unsigned long, and numbers are finite (Web IDL)")
async def test_5_2_7_numbers() -> None:
    """A whole float is a bit rate too; what setParameters() refuses, addTransceiver() refuses."""
    async with peers(1) as (a,):
        sender = a.addTransceiver("video", sendEncodings=[{"maxBitrate": 5e5}]).sender
        (encoding,) = sender.getParameters()["encodings"]
        assert (encoding["maxBitrate"], type(encoding["maxBitrate"])) == (500_000, int)
        bad: Any
        for bad in ({"maxFramerate": math.inf}, {"maxBitrate": 1.5}, None):
            with pytest.raises(TypeError):
                a.addTransceiver("video", sendEncodings=[bad])
        with pytest.raises(TypeError, match="RTCRtpSendParameters"):
            await sender.setParameters(None)  # type: ignore[arg-type]


@clause("5.2", "setParameters: on a stopping transceiver it is an InvalidStateError")
async def test_5_2_set_parameters_of_a_stopped_transceiver() -> None:
    """Also with parameters of the same task."""
    async with peers() as (a, b):
        sender = a.addTransceiver("audio").sender
        await negotiate(a, b)
        parameters = sender.getParameters()
        sender.transceiver.stop()
        with pytest.raises(InvalidStateError):
            await sender.setParameters(parameters)


@clause("5.2.7", "the members of an encoding are kept and given back")
async def test_5_2_7_encodings_are_kept() -> None:
    """What was set is returned; scaleResolutionDownBy of video comes back as 1 when it is left out."""
    async with peers(1) as (a,):
        sender = a.addTransceiver("video").sender
        parameters = sender.getParameters()
        assert parameters["encodings"] == [{"active": True, "scaleResolutionDownBy": 1.0}]
        parameters["encodings"] = [{"active": False, "maxBitrate": 300_000, "maxFramerate": 7.5}]
        await sender.setParameters(parameters)
        assert sender.getParameters()["encodings"] == [
            {"active": False, "maxBitrate": 300_000, "maxFramerate": 7.5, "scaleResolutionDownBy": 1.0}
        ]


@clause("5.2", "getParameters: codecs and extensions are there once they are negotiated")
@clause("5.2.8", "the CNAME is that of the connection")
async def test_5_2_parameters_follow_negotiation() -> None:
    """Before the answer there are no codecs; afterwards those of the answer, with payload types."""
    async with peers() as (a, b):
        audio, video = a.addTrack(AudioStreamTrack()), a.addTrack(VideoStreamTrack())
        assert (audio.getParameters()["codecs"], audio.getParameters()["headerExtensions"]) == ([], [])
        await negotiate(a, b)
        parameters = video.getParameters()
        numbers = [str(codec.payloadType) for codec in parameters["codecs"]]
        assert lines(local(b), "m=video")[0].split()[3:] == numbers
        assert {e["uri"].rsplit(":")[-1]: e["id"] for e in parameters["headerExtensions"]}["mid"] == 4
        assert any(codec.mimeType == "video/rtx" for codec in parameters["codecs"])
        cname = parameters["rtcp"]["cname"]
        assert cname == audio.getParameters()["rtcp"]["cname"]
        assert f"cname:{cname}" in local(a).sdp


@pytest.mark.parametrize("kind", ["audio", "video"])
@clause("5.2", "getCapabilities: codecs without payload types, retransmission once")
@clause("5.3", "getCapabilities: the same for receivers")
def test_5_2_capabilities(kind: str) -> None:
    """Each kind has codecs with their rates and header extensions; an unknown kind has nothing."""
    for owner in (RTCRtpSender, RTCRtpReceiver):
        found = owner.getCapabilities(kind)
        assert found is not None
        assert all(c.mimeType.startswith(f"{kind}/") and c.payloadType is None for c in found.codecs)
        assert len(set(found.codecs)) == len(found.codecs)
        assert all(extension.uri for extension in found.headerExtensions)
        assert owner.getCapabilities("text") is None


class SmallVideo(VideoStreamTrack):
    """A test picture of 320x240, so that encoding it costs little."""

    async def recv(self) -> Any:
        frame = await super().recv()
        small = frame.reformat(width=320, height=240)
        small.pts, small.time_base = frame.pts, frame.time_base
        return small


async def video_call(call: Pair) -> tuple[RTCRtpSender, RTCRtpTransceiver]:
    """Connect with a video that a sends; return its sender and the receiving transceiver."""
    sender = call.a.addTrack(SmallVideo())
    await call.exchange()
    await call.connected()
    theirs = call.b.getTransceivers()[0]
    await more_packets(theirs)
    return sender, theirs


async def change(sender: RTCRtpSender, **members: Any) -> None:
    """Change members of the one encoding."""
    parameters = sender.getParameters()
    parameters["encodings"][0].update(members)
    await sender.setParameters(parameters)


@clause("5.2.7", "active: an inactive encoding sends nothing, and goes on when it is active again")
async def test_5_2_7_active() -> None:
    """No packets come while it is false; direction and track stay, and nothing is negotiated."""
    async with audio_call() as call:
        sender, theirs = call.a.getSenders()[0], call.b.getTransceivers()[0]
        log = Log().watch(call.a, "negotiationneeded")
        await change(sender, active=False)
        await goes_silent(theirs)
        assert sender.transceiver.currentDirection == "sendrecv"
        await change(sender, active=True)
        await more_packets(theirs)
        assert log.take() == []


@clause("5.2", "an ended video track: one black frame a second, of the last size")
@clause("5.2", "an ended track stays the sender's track, until another one takes its place")
async def test_5_2_an_ended_video_track_is_black() -> None:
    """The picture turns black at once and is sent once a second; a track that follows is seen again."""
    async with pair() as call:
        sender, theirs = await video_call(call)
        track, ours = theirs.receiver.track, sender.track
        assert isinstance(ours, VideoStreamTrack)

        async def next_picture(*, is_black: bool) -> VideoFrame:
            async with asyncio.timeout(5):
                while True:
                    frame = await track.recv()
                    assert isinstance(frame, VideoFrame)
                    luma, chroma = np.split(frame.to_ndarray(format="yuv420p"), [240])
                    if (luma.max() < 24 and abs(chroma.mean() - 128) < 8) == is_black:
                        return frame

        await next_picture(is_black=False)
        ours.stop()
        first = await next_picture(is_black=True)
        pictures = [first, *[await track.recv() for _ in range(2)]]
        assert {(frame.width, frame.height) for frame in pictures} == {(320, 240)}
        shown_s = [float(frame.pts * frame.time_base) for frame in pictures]
        assert [b - a for a, b in pairwise(shown_s)] == pytest.approx([1.0, 1.0], abs=0.3)
        assert sender.track is ours
        (source,) = [e for e in (await sender.getStats()).values() if e["type"] == "media-source"]
        assert source["framesPerSecond"] == 0, "what we make up is not the source's"
        await sender.replaceTrack(SmallVideo())
        await next_picture(is_black=False)


@clause("5.2", "an ended audio track: nothing is sent")
async def test_5_2_an_ended_audio_track_is_not_sent() -> None:
    """No packets come of it; direction and track stay, and another track is sent at once."""
    async with audio_call() as call:
        sender, theirs = call.a.getSenders()[0], call.b.getTransceivers()[0]
        track = sender.track
        assert isinstance(track, AudioStreamTrack)
        track.stop()
        await goes_silent(theirs)
        assert (sender.track, sender.transceiver.currentDirection) == (track, "sendrecv")
        await sender.replaceTrack(AudioStreamTrack())
        await more_packets(theirs)


@clause("5.2", "an ended track, over before it gave a picture: nothing to be black in the size of")
async def test_5_2_an_ended_track_without_a_picture() -> None:
    """A video track that ended before the call sends nothing, and the next one is sent."""
    async with pair() as call:
        ended = SmallVideo()
        ended.stop()
        sender = call.a.addTrack(ended)
        call.a.addTrack(AudioStreamTrack())
        await call.exchange()
        await call.connected()
        video, audio = call.b.getTransceivers()
        await more_packets(audio)
        assert await packets_received(video) == 0
        await sender.replaceTrack(SmallVideo())
        await more_packets(video)


@clause("5.2.7", "scaleResolutionDownBy and maxFramerate of a video are kept")
async def test_5_2_7_video_limits() -> None:
    """The receiver gets pictures of the smaller size, and no more a second than were allowed."""
    async with pair() as call:
        sender, theirs = await video_call(call)
        track = theirs.receiver.track
        await change(sender, scaleResolutionDownBy=2.0, maxFramerate=5)

        async def next_size() -> tuple[int, int]:
            frame = await track.recv()
            return frame.width, frame.height

        async with asyncio.timeout(10):
            while await next_size() != (160, 120):
                pass
            frames = [await track.recv() for _ in range(4)]
        seconds = float((frames[-1].pts - frames[0].pts) * frames[0].time_base)
        assert seconds >= 0.5
        await change(sender, scaleResolutionDownBy=1.0, maxFramerate=30)
        async with asyncio.timeout(10):
            while await next_size() != (320, 240):
                pass


@clause("5.2.7", "maxBitrate bounds the encoder, also below what the peer asks for")
async def test_5_2_7_max_bitrate() -> None:
    """targetBitrate follows maxBitrate, even below the least of the encoder library, and is freed again."""
    async with pair() as call:
        sender, _ = await video_call(call)

        async def target() -> int:
            report = await sender.getStats()
            return next(int(e["targetBitrate"]) for e in report.values() if e["type"] == "outbound-rtp")

        free = await target()
        for limit in (400_000, 120_000):
            await change(sender, maxBitrate=limit)
            await until_async(target, lambda bits, limit=limit: bits == limit)
        parameters = sender.getParameters()
        del parameters["encodings"][0]["maxBitrate"]
        await sender.setParameters(parameters)
        await until_async(target, lambda bits: bits == free)


class Noise(AudioStreamTrack):
    """White noise, which no codec can make small."""

    async def recv(self) -> Any:
        frame = await super().recv()
        samples = random.Random(frame.pts).randbytes(2 * frame.samples)
        frame.planes[0].update(samples)
        return frame


@clause("5.2.7", "maxBitrate bounds audio too, where the codec has a choice")
async def test_5_2_7_max_bitrate_of_audio() -> None:
    """Opus keeps within what is allowed, also after the track was replaced, and is freed again."""
    async with pair() as call:
        sender = call.a.addTrack(Noise())
        await call.exchange()
        await call.connected()
        theirs = call.b.getTransceivers()[0]
        await more_packets(theirs)

        async def received() -> tuple[int, int]:
            report = await theirs.receiver.getStats()
            entry = next(e for e in report.values() if e["type"] == "inbound-rtp")
            return entry["packetsReceived"], entry["bytesReceived"]

        async def bits_per_second() -> float:
            before = await received()
            await more_packets(theirs)
            after = await received()
            return (after[1] - before[1]) * 8 / (after[0] - before[0]) * 50

        await until_async(bits_per_second, lambda bits: bits > 60_000)
        await change(sender, maxBitrate=20_000)
        await until_async(bits_per_second, lambda bits: bits < 24_000)
        await sender.replaceTrack(Noise())
        for _ in range(3):
            assert await bits_per_second() < 24_000
        await change(sender, maxBitrate=500_000)
        await until_async(bits_per_second, lambda bits: bits > 60_000)


async def until_async(read: Callable[[], Any], condition: Callable[[Any], bool]) -> None:
    """Wait until what a coroutine reads is as it should be."""
    latest = await read()
    try:
        async with asyncio.timeout(10):
            while not condition(latest):
                await asyncio.sleep(0.02)
                latest = await read()
    except TimeoutError:
        raise AssertionError(f"never came to be: {latest}") from None


async def goes_silent(transceiver: RTCRtpTransceiver) -> None:
    """Wait until no packet comes for a fifth of a second, in which ten would be due."""
    async with asyncio.timeout(10):
        while True:
            before = await packets_received(transceiver)
            await asyncio.sleep(0.2)
            if await packets_received(transceiver) == before:
                return


@clause("5.4", "stop: the sender says BYE, and the peer's track is muted before anything is negotiated")
async def test_5_4_stop_sends_bye() -> None:
    """The track at the other end is muted soon after stop(), while signaling has said nothing."""
    async with audio_call() as call:
        remote = call.b.getReceivers()[0].track
        assert not remote.muted
        call.a.getTransceivers()[0].stop()
        await until(lambda: remote.muted, "the mute of a track whose sender said BYE")
        assert remote.readyState == "live"
