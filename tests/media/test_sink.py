from __future__ import annotations

import asyncio
import fractions
import random
from typing import Any

import numpy as np
import pytest
from av import AudioFrame, VideoFrame

from calllab._aiortc import MediaStreamTrack
from calllab.media import (
    AudioTimeReader,
    FrameStamp,
    MediaSink,
    PlayoutMeter,
    SpeechTrack,
    SpeechVoice,
    TestPattern,
    TestPatternTrack,
)
from calllab.media.audio_code import tone_of_slot
from tests.media.helpers import ScriptedTrack, through_opus
from tests.network.helpers import run_jumping

FRAME_S = 0.02
SLOT = 987_654


def sound(number: int, *, coded: bool = True) -> AudioFrame:
    """Return 20 ms of speech; with the time code, it was made at slot SLOT + number."""
    samples = SpeechVoice(1).frame(number) + (tone_of_slot(SLOT + number) if coded else 0)
    frame = AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, number * 960, fractions.Fraction(1, 48_000)
    return frame


def heard(frames: list[AudioFrame], delay_s: float, *, drop: frozenset[int] = frozenset()) -> list[float]:
    """Return the latencies that a reader finds, when every frame arrives ``delay_s`` after it was made."""
    reader, found = AudioTimeReader(), []
    for index, frame in enumerate(frames):
        if index in drop:
            reader.reset()
            continue
        values = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(axis=1)
        found += reader.hear((values / 32768).astype(np.float32), (SLOT + index) * FRAME_S + delay_s)
    return found


@pytest.mark.parametrize("bitrate", [96_000, 24_000])
def test_the_latency_of_sound_is_read_through_opus(bitrate: int) -> None:
    """After Opus, even at 24 kbit/s, almost every word is read; the codec's own 6.5 ms are part of it."""
    found = heard(list(through_opus([sound(number) for number in range(400)], bitrate=bitrate)), 0.100)
    assert len(found) >= 47  # of 49 whole words
    assert np.mean(found) == pytest.approx(0.1065, abs=0.001)
    assert max(found) - min(found) < 0.012


def test_lost_frames_cost_words_and_never_make_wrong_ones() -> None:
    """With one frame in ten lost at random, what is read is still right."""
    drop = frozenset(random.Random(2).sample(range(400), 40))
    found = heard([sound(number) for number in range(400)], 0.050, drop=drop)
    assert 3 <= len(found) < 30
    assert found == pytest.approx([0.050] * len(found), abs=0.002)


def test_sound_without_time_code_has_no_latency() -> None:
    """Speech alone, and noise, are never taken for a time."""
    assert heard([sound(number, coded=False) for number in range(500)], 0.0) == []
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, (500, 960)).astype(np.float32)
    reader = AudioTimeReader()
    assert [latency for frame in noise for latency in reader.hear(frame, 100.0)] == []


class DelayedTrack(MediaStreamTrack):
    """Another track's frames, each some time after it was made, except those that are dropped."""

    def __init__(self, source: MediaStreamTrack, delay_s: float, drop: range = range(0)) -> None:
        super().__init__()
        self.kind = source.kind
        self._source, self._delay_s, self._drop = source, delay_s, drop
        self._frames: asyncio.Queue[Any] = asyncio.Queue()
        self._feeding = asyncio.get_running_loop().create_task(self._feed())

    async def _feed(self) -> None:
        loop, number = asyncio.get_running_loop(), 0
        while True:
            frame = await self._source.recv()
            if number not in self._drop:
                loop.call_later(self._delay_s, self._frames.put_nowait, frame)
            number += 1

    async def recv(self) -> Any:
        return await self._frames.get()

    def stop(self) -> None:
        super().stop()
        self._feeding.cancel()


@pytest.mark.parametrize(
    "make", [lambda: TestPatternTrack(160, 120, fps=25), SpeechTrack], ids=["video", "audio"]
)
def test_a_sink_measures_latency_and_gaps(make: Any) -> None:
    """A known delay and a known hole are found, in their interval and in the total."""

    async def main() -> None:
        source = make()
        rate = 50 if source.kind == "audio" else 25
        track = DelayedTrack(source, 0.080, drop=range(2 * rate, 3 * rate))
        async with MediaSink(track) as sink:
            await asyncio.sleep(1.99)
            before = sink.take()
            await asyncio.sleep(0.9)
            during = sink.take()
            await asyncio.sleep(2.0)
            after = sink.take()
            total = sink.total
        track.stop()
        for summary in (before, after, total):
            assert summary.kind == track.kind
            assert summary.latency_s == pytest.approx(0.080, abs=0.002)
            assert summary.latency_max_s == pytest.approx(0.080, abs=0.005)
        assert (before.freezes, before.frozen_s, before.missing) == (0, 0.0, 0)
        assert before.max_gap_s == pytest.approx(1 / rate, abs=1e-6)
        assert (during.freezes, after.freezes, total.freezes) == (1, 0, 1)
        assert during.frozen_s == pytest.approx(0.75, abs=0.1)
        assert total.max_gap_s == pytest.approx(1 + 1 / rate, abs=0.001)
        assert total.frozen_s == pytest.approx(1 + 1 / rate, abs=0.001)
        assert total.missing == rate
        assert total.frames == pytest.approx(3.8 * rate, abs=3)
        assert (total.duplicates, total.out_of_order, total.unreadable) == (0, 0, 0)
        assert total.as_event()["latency_s"] == total.latency_s

    run_jumping(main)


def picture(number: int, made_at: float) -> VideoFrame:
    return TestPattern(160, 120).draw(FrameStamp(number, made_at), 0.0)


def test_a_sink_sees_order_copies_and_unreadable_pictures() -> None:
    """Numbers passed over, repeated and late are told apart, and a new source starts afresh."""

    async def main() -> None:
        at = asyncio.get_running_loop().time() - 1.0
        numbers = [0, 1, 1, 2, 6, 5, 7]
        script = [picture(number, at + number * 0.03) for number in numbers]
        # A new frame's memory may still hold an old picture, code and all: this one is grey for sure.
        grey = VideoFrame.from_ndarray(np.full((180, 160), 128, np.uint8), format="yuv420p")
        script += [grey, picture(9, at + 0.27)]
        script += [picture(0, at + 0.5), picture(1, at + 0.53)]
        sink = MediaSink(ScriptedTrack("video", script))
        sink.start()
        await sink.wait_ended()
        assert sink.ended
        total = sink.total
        await sink.stop()
        assert (total.frames, total.duplicates, total.out_of_order) == (11, 1, 1)
        assert (total.missing, total.unreadable) == (3, 1)
        assert (total.width, total.height) == (160, 120)

    run_jumping(main)


def test_timestamps_of_sound_may_wrap_and_start_anew() -> None:
    """Neither the wrap of RTP timestamps nor a new source counts as missing frames."""

    async def main() -> None:
        frames = [sound(number) for number in range(10)]
        start = 2**32 - 5 * 960
        for index, frame in enumerate(frames[:8]):
            frame.pts = (start + index * 960) % 2**32
        for index, frame in enumerate(frames[8:]):
            frame.pts = 2_000_000_000 + index * 960
        sink = MediaSink(ScriptedTrack("audio", frames))
        sink.start()
        await sink.wait_ended()
        total = sink.total
        await sink.stop()
        assert (total.frames, total.missing, total.out_of_order, total.duplicates) == (10, 0, 0, 0)

    run_jumping(main)


def test_a_sink_stops_cleanly_in_every_state() -> None:
    """Stopping before the start, while waiting, twice: no task stays, and the track is left alone."""

    async def main() -> None:
        track = TestPatternTrack(160, 120, fps=1)
        sink = MediaSink(track)
        with pytest.raises(RuntimeError, match="was not started"):
            sink.take()
        await sink.stop()
        sink.start()
        with pytest.raises(RuntimeError, match="started before"):
            sink.start()
        await asyncio.sleep(2.5)
        await sink.stop()
        frozen = sink.total
        await asyncio.sleep(5)
        await sink.stop()
        assert sink.total == frozen
        assert (track.readyState, sink.ended) == ("live", False)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_jumping(main)


def test_an_unforeseen_failure_is_raised_by_stop() -> None:
    """A track that breaks is not mistaken for one that ends."""

    async def main() -> None:
        sink = MediaSink(ScriptedTrack("video", [OSError("camera unplugged")]))
        sink.start()
        await sink.wait_ended()
        assert not sink.ended
        with pytest.raises(OSError, match="camera unplugged"):
            await sink.stop()

    run_jumping(main)


def test_a_failing_callback_does_not_stop_the_measuring(caplog: pytest.LogCaptureFixture) -> None:
    """What on_frame raises is logged, and the next frame is measured."""

    async def main() -> None:
        def broken(frame: object) -> None:
            raise KeyError("nobody's frame")

        sink = MediaSink(ScriptedTrack("audio", [sound(0), sound(1)]), on_frame=broken)
        sink.start()
        await sink.wait_ended()
        await sink.stop()
        assert sink.total.frames == 2

    run_jumping(main)
    assert caplog.text.count("the on_frame callback of a sink failed") == 2


def test_only_sound_and_pictures_can_be_played() -> None:
    """A track of another kind is refused."""
    with pytest.raises(ValueError, match="kind 'data'"):
        MediaSink(ScriptedTrack("data", []))


def test_freezes_follow_the_w3c_rule() -> None:
    """A gap is a freeze from max(3 d, d + 150 ms) on, where d is the mean over 30 frames."""
    for fps, threshold_s in ((50, 0.17), (10, 0.3)):
        for gap_s, freezes in ((threshold_s - 0.001, 0), (threshold_s + 0.001, 1)):
            meter, now = PlayoutMeter("video", 0.0), 0.0
            for _ in range(40):
                now += 1 / fps
                meter.arrived(now)
            assert meter.freeze_threshold_s() == pytest.approx(threshold_s)
            meter.arrived(now + gap_s)
            total = meter.total(now + gap_s)
            assert total.freezes == freezes
            assert total.frozen_s == pytest.approx(gap_s if freezes else 0.0)


def test_a_lasting_freeze_shows_in_every_interval() -> None:
    """During a blackout each second says that it was frozen, and the freeze counts once."""
    meter = PlayoutMeter("video", 0.0)
    for index in range(50):
        meter.arrived(index * 0.02)
    first = meter.take(1.0)
    seconds = [meter.take(float(now)) for now in range(2, 6)]
    meter.arrived(5.5)
    last = meter.take(6.0)
    assert first.freezes == 0
    assert [second.freezes for second in seconds] == [1, 0, 0, 0]
    assert [second.frozen_s for second in seconds] == pytest.approx([1.0] * 4)
    assert [second.frames for second in seconds] == [0] * 4
    assert last.frozen_s == pytest.approx(0.5), "until the frame came"
    assert meter.total(6.0).freezes == 1
    assert meter.total(6.0).frozen_s == pytest.approx(5.5 - 49 * 0.02)
