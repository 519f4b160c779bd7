from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from av import AudioFrame, VideoFrame

from calllab._aiortc import (
    DtlsTransport,
    IceTimers,
    MediaStreamError,
    MediaStreamTrack,
    RtpReceiver,
    RtpSender,
)
from calllab.rtc.parameters import ReceiveParameters, SendParameters
from tests._aiortc.helpers import CODECS, EXTENSIONS, call, ice_pair, picture, tone, until


class Paced(MediaStreamTrack):
    """Frames at a given rate, whose making a test decides."""

    def __init__(self, kind: str, make: Any, per_second: float = 50.0) -> None:
        super().__init__()
        self.kind = kind
        self._make = make
        self._interval = 1 / per_second
        self._next: float | None = None
        self.count = 0

    async def recv(self) -> Any:
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        self._next = loop.time() if self._next is None else self._next + self._interval
        await asyncio.sleep(self._next - loop.time())
        self.count += 1
        return self._make(self.count - 1)


def sound(rate: int, samples: int, layout: str = "mono", format_: str = "s16", level: int = 8000) -> Any:
    channels = 1 if layout == "mono" else 2

    def make(index: int) -> AudioFrame:
        time_s = (np.arange(samples) + index * samples) / rate
        wave = level * np.sin(2 * np.pi * 440 * time_s)
        if format_ == "fltp":
            data = np.tile((wave / 32768).astype(np.float32), (channels, 1))
        else:
            data = np.repeat(wave.astype(np.int16), channels).reshape(1, -1)
        frame = AudioFrame.from_ndarray(data, format=format_, layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, index * samples, Fraction(1, rate)
        return frame

    return make


def grey(width: int = 160, height: int = 120, fps: int = 30) -> Any:
    def make(index: int) -> VideoFrame:
        data = np.full((height * 3 // 2, width), (index * 8) % 200 + 20, dtype=np.uint8)
        frame = VideoFrame.from_ndarray(data, format="yuv420p")
        frame.pts, frame.time_base = index * 90000 // fps, Fraction(1, 90000)
        return frame

    return make


async def read(track: MediaStreamTrack, count: int) -> list[Any]:
    async with asyncio.timeout(10):
        return [await track.recv() for _ in range(count)]


async def test_audio_and_video_flow_both_ways() -> None:
    """Real Opus and VP8 in both directions; the tracks unmute with the first packet and end on stop()."""
    async with call() as c:
        for here, there in ((c.alice, c.bob), (c.bob, c.alice)):
            await c.send_media(here, there, tone())
            await c.send_media(here, there, picture())
        ended: list[str] = []
        for peer in (c.alice, c.bob):
            for receiver in peer.receivers.values():
                receiver.track.on("ended", lambda: ended.append("ended"))
                await read(receiver.track, 5)
                assert not receiver.track.muted
        sources = c.alice.senders["audio"].track
    assert len(ended) == 4
    assert sources is not None
    assert sources.readyState == "live", "the application's track is not ours to stop"


async def test_a_reader_that_waits_is_released_when_the_receiver_stops() -> None:
    """recv() raises MediaStreamError, whether the receiver ever started or not."""
    async with call() as c:
        await c.send_media(c.alice, c.bob, tone())
        c.alice.senders["audio"].set_active(False)
        reader = asyncio.ensure_future(c.bob.receivers["audio"].track.recv())
        await asyncio.sleep(0)
        await c.bob.receivers["audio"].stop()
        with pytest.raises(MediaStreamError):
            await reader


@pytest.mark.parametrize(
    ("rate", "samples", "layout", "format_"),
    [(44100, 1024, "stereo", "fltp"), (8000, 160, "mono", "s16"), (48000, 2880, "mono", "s16")],
)
async def test_any_audio_shape_is_sent_as_20_ms_packets(
    rate: int, samples: int, layout: str, format_: str
) -> None:
    """Frames of any length, rate and format arrive as 20 ms frames without a hole in their timestamps."""
    async with call() as c:
        track = Paced("audio", sound(rate, samples, layout, format_), rate / samples)
        await c.send_media(c.alice, c.bob, track)
        frames = await read(c.bob.receivers["audio"].track, 30)
        steps = {b.pts - a.pts for a, b in itertools.pairwise(frames)}
        assert steps == {960}
        inbound = c.bob.receivers["audio"].statistics().streams[0]
        assert inbound.packets_lost == 0
        assert inbound.total_audio_energy > 0


async def test_replacing_the_track_keeps_the_stream() -> None:
    """Another source, with another size and a time line that begins anew: same SSRC, timestamps go on."""
    async with call() as c:
        await c.send_media(c.alice, c.bob, Paced("video", grey(160, 120), 30))
        await c.send_media(c.alice, c.bob, Paced("audio", sound(8000, 160)))
        video, audio = c.bob.receivers["video"].track, c.bob.receivers["audio"].track
        await read(video, 10)
        await read(audio, 10)
        c.alice.senders["video"].replace_track(Paced("video", grey(320, 240), 30))
        c.alice.senders["audio"].replace_track(Paced("audio", sound(48000, 960, "stereo")))
        times = []
        async with asyncio.timeout(10):
            while (frame := await video.recv()).width != 320:
                times.append(frame.pts)
        times += [f.pts for f in await read(video, 5)]
        assert times == sorted(times)
        assert times[-1] < 90000 * 5
        heard = [f.pts for f in await read(audio, 30)]
        assert heard == sorted(heard)
        assert heard[-1] - heard[0] < 48000 * 2
        assert len(c.bob.receivers["video"].statistics().streams) == 1
        assert c.bob.receivers["audio"].statistics().streams[0].jitter_s < 0.2


async def test_a_track_that_ends_or_raises_does_not_end_the_sender() -> None:
    """After the end of one track the next one is sent by the same sender."""

    def broken(index: int) -> Any:
        if index == 3:
            raise ZeroDivisionError
        return sound(48000, 960)(index)

    async with call() as c:
        track = Paced("audio", sound(48000, 960))
        await c.send_media(c.alice, c.bob, track)
        remote = c.bob.receivers["audio"].track
        await read(remote, 3)
        track.stop()
        c.alice.senders["audio"].replace_track(Paced("audio", broken))
        await until(lambda: c.alice.senders["audio"].track.count == 4)
        c.alice.senders["audio"].replace_track(None)
        before = c.alice.senders["audio"].statistics().media.packets
        c.alice.senders["audio"].replace_track(Paced("audio", sound(48000, 960)))
        await until(lambda: c.alice.senders["audio"].statistics().media.packets > before + 5)
        await read(remote, 10)


async def test_unencodable_frames_are_left_out() -> None:
    """A frame that the encoder refuses costs that frame only."""

    def sometimes(index: int) -> Any:
        if index % 5 == 4:
            return object() if index % 2 else sound(48000, 960)(index)
        return grey()(index)

    async with call() as c:
        await c.send_media(c.alice, c.bob, Paced("video", sometimes, 30))
        await read(c.bob.receivers["video"].track, 10)
        assert c.alice.senders["video"].statistics().encoder.failures > 1


async def test_an_inactive_sender_sends_nothing_and_reads_on() -> None:
    """set_active(False) stops the packets, not the source; set_active(True) brings them back."""
    async with call() as c:
        track = Paced("audio", sound(48000, 960))
        await c.send_media(c.alice, c.bob, track)
        sender, receiver = c.alice.senders["audio"], c.bob.receivers["audio"]
        await read(receiver.track, 3)
        sender.set_active(False)
        await asyncio.sleep(0.05)  # what is under way would be a loss for a receiver that is off
        receiver.set_active(False)
        assert receiver.track.muted
        packets, read_so_far = sender.statistics().media.packets, track.count
        await until(lambda: track.count > read_so_far + 5)
        assert sender.statistics().media.packets <= packets + 1
        receiver.set_active(True)
        sender.set_active(True)
        await until(lambda: not receiver.track.muted)
        inbound = receiver.statistics().streams[0]
        assert inbound.packets_lost == 0


async def test_nothing_is_sent_into_a_failed_path_and_media_survives_the_restart() -> None:
    """While ICE has failed no RTP sequence number is used up; after a restart the same streams go on."""
    async with call() as c:
        await c.send_media(c.alice, c.bob, Paced("video", grey(), 30))
        await c.send_media(c.alice, c.bob, Paced("audio", sound(48000, 960)))
        await read(c.bob.receivers["video"].track, 5)
        c.ice.alice.wire.cut_out = c.ice.alice.wire.cut_in = True
        await until(lambda: c.ice.alice.ice.state == c.ice.bob.ice.state == "failed")
        sender = c.alice.senders["video"]
        sent, seen = sender.statistics().media.packets, sender.track.count
        await until(lambda: sender.track.count > seen + 5)
        assert sender.statistics().media.packets == sent
        c.ice.alice.wire.cut_out = c.ice.alice.wire.cut_in = False
        c.ice.negotiate(c.ice.bob)
        await c.ice.connected()
        started = asyncio.get_running_loop().time()
        decoded = c.bob.receivers["video"].statistics().streams[0].frames_decoded
        await until(lambda: c.bob.receivers["video"].statistics().streams[0].frames_decoded > decoded + 3)
        assert asyncio.get_running_loop().time() - started < 3
        assert c.alice.dtls.state == "connected"
        assert [s.ssrc for s in c.bob.receivers["video"].statistics().streams] == [sender.ssrc]


async def test_one_lost_audio_packet_does_not_stall_the_rest() -> None:
    """The gap in playout after a single loss is about that packet, not the whole jitter buffer (320 ms)."""
    async with call() as c:
        await c.send_media(c.alice, c.bob, Paced("audio", sound(48000, 960)))
        track = c.bob.receivers["audio"].track
        await read(track, 10)
        armed = [True]

        def drop_one(data: bytes) -> bool:
            is_rtp = 127 < data[0] < 192 and not 64 <= data[1] & 0x7F < 96
            return is_rtp and bool(armed and armed.pop())

        c.ice.alice.wire.drop = drop_one
        loop = asyncio.get_running_loop()
        gaps, last = [], loop.time()
        for _ in range(40):
            await read(track, 1)
            gaps.append(loop.time() - last)
            last = loop.time()
        assert not armed
        assert max(gaps) < 0.25
        await until(lambda: c.bob.receivers["audio"].statistics().streams[0].packets_lost == 1)


async def test_video_comes_back_soon_after_an_outage() -> None:
    """More is lost than can be sent again; within two seconds pictures flow, from a key frame on."""
    async with call() as c:
        await c.send_media(c.alice, c.bob, Paced("video", grey(fps=100), 100))
        stream = lambda: c.bob.receivers["video"].statistics().streams[0]  # noqa: E731
        await until(lambda: c.bob.receivers["video"].statistics().streams and stream().frames_decoded > 10)
        is_media = lambda data: 127 < data[0] < 192  # noqa: E731
        c.ice.alice.wire.drop = is_media
        before = stream().media.packets
        await until(lambda: c.alice.senders["video"].statistics().media.packets > before + 150)
        c.ice.alice.wire.drop = lambda data: False
        started, decoded = asyncio.get_running_loop().time(), stream().frames_decoded
        await until(lambda: stream().frames_decoded > decoded + 5)
        assert asyncio.get_running_loop().time() - started < 2
        assert stream().key_frames_decoded >= 2
        assert stream().freeze_count >= 1


async def test_nothing_is_sent_again_after_a_long_outage() -> None:
    """Longer than a hole is waited for, an outage ends with one key frame, and no storm of NACKs."""
    async with call(timers=IceTimers()) as c:
        await c.send_media(c.alice, c.bob, Paced("video", grey(), 30))
        stream = lambda: c.bob.receivers["video"].statistics().streams[0]  # noqa: E731
        await until(lambda: c.bob.receivers["video"].statistics().streams and stream().frames_decoded > 10)
        c.ice.alice.wire.drop = lambda data: 127 < data[0] < 192
        await asyncio.sleep(1.3)
        c.ice.alice.wire.drop = lambda data: False
        before, started = stream().frames_decoded, asyncio.get_running_loop().time()
        await until(lambda: stream().frames_decoded > before + 5)
        assert asyncio.get_running_loop().time() - started < 0.8
        await asyncio.sleep(0.3)
        assert stream().packets_lost > 20
        assert (stream().nack_count, stream().rtx.packets) == (0, 0)
        assert stream().freeze_count == 1
        assert c.alice.senders["video"].statistics().rtx.packets == 0


async def test_old_packets_are_not_sent_again() -> None:
    """A receiver may ask for packets of the last two seconds; older ones it does not get."""
    async with call() as c:
        await c.send_media(c.alice, c.bob, Paced("video", grey(), 30))
        sender = c.alice.senders["video"]
        await until(lambda: sender.statistics().media.packets > 20)
        sender.set_active(False)
        await asyncio.sleep(0.1)
        numbers = list(sender._sent_at)
        assert len(numbers) == sender.statistics().media.packets
        receiver = c.bob.receivers["video"].inner
        await receiver._send_rtcp_nack(sender.ssrc, numbers[:3])
        await until(lambda: sender.statistics().rtx.packets == 3)
        await asyncio.sleep(2)
        await receiver._send_rtcp_nack(sender.ssrc, numbers[3:6])
        await until(lambda: sender.statistics().nack_count == 2)
        await asyncio.sleep(0.05)
        assert sender.statistics().rtx.packets == 3


async def test_random_loss_is_repaired_for_video() -> None:
    """At 10 % loss nearly every picture arrives, thanks to retransmissions under their own SSRC."""
    async with call() as c:
        entropy = random.Random(4)
        c.ice.alice.wire.drop = lambda data: 127 < data[0] < 192 and entropy.random() < 0.10
        await c.send_media(c.alice, c.bob, Paced("video", grey(320, 240), 30))
        receiver, sender = c.bob.receivers["video"], c.alice.senders["video"]
        await until(lambda: sender.statistics().frames_sent >= 90)
        inbound = receiver.statistics().streams[0]
        assert len(receiver.statistics().streams) == 1, "retransmissions are no stream of their own"
        assert inbound.rtx.packets > 0
        assert inbound.nack_count > 0
        assert sender.statistics().nack_count > 0
        assert inbound.packets_lost > 0
        assert inbound.frames_decoded > 60


async def test_bye_mutes_and_does_not_end_the_track() -> None:
    """A peer that says BYE may come back under the same transceiver."""
    async with call() as c:
        await c.send_media(c.alice, c.bob, tone())
        track = c.bob.receivers["audio"].track
        await read(track, 3)
        await c.alice.senders["audio"].stop()
        await until(lambda: track.muted)
        assert track.readyState == "live"


async def test_two_streams_of_a_kind_without_signalled_ssrc_are_told_apart_by_mid() -> None:
    """The MID header extension routes what no a=ssrc announced."""
    async with call() as c:
        for index, size in enumerate((160, 320)):
            mid = f"v{index}"
            receiver = c.bob.receivers[mid] = RtpReceiver(c.bob.dtls, "video", rtcp_ssrc=90 + index)
            sender = c.alice.senders[mid] = RtpSender(
                c.alice.dtls, "video", ssrc=10 + index, rtx_ssrc=20 + index
            )
            receiver.set_active(True)
            sender.set_active(True)
            await receiver.configure(ReceiveParameters(mid, CODECS["video"], EXTENSIONS))
            sender.replace_track(Paced("video", grey(size, 120), 30))
            await sender.configure(SendParameters(mid, "cname", CODECS["video"], EXTENSIONS))
        for mid, size in (("v0", 160), ("v1", 320)):
            frames = await read(c.bob.receivers[mid].track, 3)
            assert {frame.width for frame in frames} == {size}


async def test_frames_that_nobody_reads_do_not_pile_up() -> None:
    """An unread track keeps a second of pictures at most."""
    async with call() as c:
        await c.send_media(c.alice, c.bob, Paced("video", grey(), 90))
        receiver = c.bob.receivers["video"]
        await until(
            lambda: receiver.statistics().streams and receiver.statistics().streams[0].frames_decoded > 60
        )
        assert receiver.track._queue.qsize() <= 30
        assert receiver.statistics().streams[0].frames_dropped == 0, "nobody was late: nobody reads"
        await receiver.track.recv()
        assert receiver.statistics().streams[0].frames_dropped == 0, "nor is what came before the reader"
        await until(lambda: receiver.statistics().streams[0].frames_dropped > 0)


async def test_handlers_that_raise_and_packets_that_make_no_sense_do_not_end_the_call() -> None:
    """An application's exception and a malformed packet cost a line in the log each, not the DTLS session."""
    async with call() as c:
        await c.send_media(c.alice, c.bob, tone())
        track = c.bob.receivers["audio"].track

        def broken() -> None:
            raise ZeroDivisionError

        track.on("unmute", broken)
        track.on("mute", broken)
        for junk in (b"\x80\xc8", b"\x80\x6f" + bytes(3), b"\xbf\x6f" + bytes(10), b"\x81\xcd" + bytes(10)):
            with contextlib.suppress(Exception):
                await c.alice.dtls.inner._send_rtp(junk + bytes(40))
        await read(track, 5)
        c.bob.receivers["audio"].set_active(False)
        assert track.muted
        assert c.bob.dtls.state == "connected"


async def test_a_sender_does_not_start_before_dtls() -> None:
    """Too early is refused in words, too late does nothing."""
    async with ice_pair() as pair:
        dtls = DtlsTransport(pair.alice.ice)
        sender = RtpSender(dtls, "audio", ssrc=1)
        parameters = SendParameters("0", "cname", CODECS["audio"], EXTENSIONS)
        with pytest.raises(RuntimeError, match="when DTLS is connected"):
            await sender.configure(parameters)
        await dtls.stop()
        await sender.configure(parameters)
        assert sender.codec is None
        await sender.stop()
        with pytest.raises(RuntimeError, match="stopped for good"):
            await sender.configure(parameters)
