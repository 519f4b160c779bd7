from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest
from av import AudioFrame, VideoFrame

from calllab._aiortc import MediaStreamError
from calllab.errors import InvalidSetting
from calllab.media import (
    FrameStamp,
    SpeechTrack,
    SpeechVoice,
    TestPattern,
    TestPatternTrack,
    luma_of,
    read_stamp,
)
from tests.network.helpers import run_jumping


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_track_keeps_its_rate_on_the_real_clock() -> None:
    """Real time passes as the frames say, whatever the loop's delays: the schedule does not drift."""
    for track, per_second in ((SpeechTrack(), 50), (TestPatternTrack(160, 120, fps=50), 50)):
        await track.recv()
        start = now()
        for _ in range(20):
            await track.recv()
        # The first frame may have come late, the last one never early; a busy machine adds what it likes.
        assert 19 / per_second < now() - start < 20 / per_second + 1.0
        track.stop()


@pytest.mark.parametrize("make", [SpeechTrack, TestPatternTrack])
def test_frames_are_due_on_the_grid(make: Any) -> None:
    """Each frame comes exactly when it is due, with the timestamp that belongs to it."""

    async def main() -> None:
        track = make()
        interval_s = 1 / 50 if track.kind == "audio" else 1 / 30
        frames, times = [], []
        for _ in range(100):
            frames.append(await track.recv())
            times.append(now())
        for index, (frame, at) in enumerate(zip(frames, times, strict=True)):
            due_s = frame.pts * frame.time_base
            assert at - times[0] == pytest.approx(float(due_s), abs=1e-4)
            assert at - times[0] == pytest.approx(index * interval_s, abs=1e-6)
            assert at / interval_s == pytest.approx(round(at / interval_s), abs=1e-3)
        assert (track.frames_made, track.frames_skipped) == (100, 0)

    run_jumping(main)


@pytest.mark.parametrize(("make", "rate"), [(SpeechTrack, 50), (TestPatternTrack, 30)])
def test_a_reader_that_pauses_finds_frames_skipped_not_bunched(make: Any, rate: int) -> None:
    """After a pause the next frame is the current one, and its timestamp tells the pause."""

    async def main() -> None:
        track = make()
        first = await track.recv()
        await asyncio.sleep(2.0)
        second, at = await track.recv(), now()
        assert float((second.pts - first.pts) * second.time_base) == pytest.approx(2.0, abs=1.5 / rate)
        assert track.frames_skipped == pytest.approx(2 * rate, abs=2)
        await track.recv()
        assert now() - at <= 1.001 / rate

    run_jumping(main)


@pytest.mark.parametrize("make", [SpeechTrack, lambda: TestPatternTrack(fps=1)])
def test_stop_ends_a_waiting_reader_at_once(make: Any) -> None:
    """Who waits for a frame is told when the track stops, and who asks later too."""

    async def main() -> None:
        track = make()
        await track.recv()
        ended = []
        track.on("ended", lambda: ended.append(True))
        reading = asyncio.ensure_future(track.recv())
        await asyncio.sleep(0.001)
        start = now()
        track.stop()
        track.stop()
        with pytest.raises(MediaStreamError):
            await reading
        assert now() == start
        assert (track.readyState, ended) == ("ended", [True])
        with pytest.raises(MediaStreamError):
            await track.recv()

    run_jumping(main)


def test_a_cancelled_reader_leaves_nothing_behind() -> None:
    """Cancelling a reader cancels its timer, and the track goes on."""

    async def main() -> None:
        track = TestPatternTrack(fps=1)
        reading = asyncio.ensure_future(track.recv())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert asyncio.get_running_loop().timers == 0  # type: ignore[attr-defined]
        assert isinstance(await track.recv(), VideoFrame)

    run_jumping(main)


def test_speech_is_the_same_for_the_same_seed_in_any_order() -> None:
    """A frame depends on seed and number alone, not on what was asked for before."""
    forth = [SpeechVoice(4).frame(number) for number in range(100)]
    voice = SpeechVoice(4)
    back = [voice.frame(number) for number in reversed(range(100))][::-1]
    assert np.array_equal(forth, back)
    assert not np.array_equal(forth, [SpeechVoice(5).frame(number) for number in range(100)])


def test_speech_has_syllables_and_pauses() -> None:
    """The level rises and falls a few times a second, with silences in between, and never clips."""
    voice = SpeechVoice(2)
    frames = np.array([voice.frame(number) for number in range(1500)])
    assert np.abs(frames).max() < 0.9
    power = np.sqrt((frames**2).mean(axis=1))
    loud = power > power.max() / 10
    assert 0.05 < 1 - loud.mean() < 0.5, "a share of silence"
    dips = ((power[1:-1] < power[:-2]) & (power[1:-1] <= power[2:])).sum() / 30
    assert 2 < dips < 12, "syllables a second"


@pytest.mark.parametrize("level_dbfs", [-12.0, -30.0])
def test_speech_is_as_loud_as_asked(level_dbfs: float) -> None:
    """The loudest 100 ms come near the level asked for."""
    voice = SpeechVoice(1, level_dbfs)
    sound = np.concatenate([voice.frame(number) for number in range(1000)]).reshape(-1, 4800)
    loudest = 20 * math.log10(float(np.sqrt((sound**2).mean(axis=1)).max()) * math.sqrt(2))
    assert loudest == pytest.approx(level_dbfs, abs=1.5)


def test_audio_frames_are_as_opus_likes_them() -> None:
    """48 kHz, mono, 16 bits, 20 ms."""

    async def main() -> None:
        frame = await SpeechTrack().recv()
        assert isinstance(frame, AudioFrame)
        assert (frame.sample_rate, frame.samples, frame.format.name, frame.layout.name) == (
            48000,
            960,
            "s16",
            "mono",
        )

    run_jumping(main)


def test_pictures_are_numbered_and_stamped_with_their_time() -> None:
    """The strip of each frame holds its number and the loop's time when it was made."""

    async def main() -> None:
        track = TestPatternTrack(320, 240, fps=15)
        for number in range(20):
            frame = await track.recv()
            stamp = read_stamp(luma_of(frame), near=now())
            assert stamp is not None
            assert stamp.frame_number == number
            assert stamp.captured_at == pytest.approx(now(), abs=1e-4)

    run_jumping(main)


@pytest.mark.parametrize(("width", "height"), [(160, 120), (320, 240), (640, 360), (166, 122), (1280, 720)])
def test_pictures_move_and_stay_inside_their_frame(width: int, height: int) -> None:
    """At any size, for any seed, a second of film draws without error, and each picture differs."""
    for seed in range(4):
        pattern = TestPattern(width, height, seed=seed, label="a very long label")
        previous = None
        for number in range(0, 60, 7):
            frame = pattern.draw(FrameStamp(number, 0.0), number / 10)
            assert (frame.width, frame.height, frame.format.name) == (width, height, "yuv420p")
            picture = luma_of(frame)[: height // 2].copy()
            assert previous is None or (picture != previous).any()
            previous = picture


def test_the_same_seed_draws_the_same_picture() -> None:
    """Pictures depend on seed, stamp and time alone; another seed has other colours."""
    stamp = FrameStamp(7, 1.5)

    def planes(seed: int) -> bytes:
        return TestPattern(320, 240, seed=seed).draw(stamp, 3.3).to_ndarray().tobytes()

    assert planes(1) == planes(1)
    assert planes(1) != planes(2)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TestPatternTrack(641, 480), "width=641: give an even number of pixels from 160"),
        (lambda: TestPatternTrack(640, 100), "height=100"),
        (lambda: TestPatternTrack(640.0, 480), "width=640.0"),  # type: ignore[arg-type]
        (lambda: TestPatternTrack(fps=0), "fps=0: give a number from 1 to 120"),
        (lambda: TestPatternTrack(fps=math.nan), "fps=nan"),
        (lambda: SpeechTrack(level_dbfs=3), "level_dbfs=3: give a level from -60 to -6"),
    ],
)
def test_impossible_tracks_are_refused(make: Any, sentence: str) -> None:
    """Sizes, rates and levels out of range are refused with the value and the range."""
    with pytest.raises(InvalidSetting, match=sentence):
        make()
