from __future__ import annotations

from typing import Any

from aiortc.rtp import RtpPacket
from hypothesis import given, settings
from hypothesis import strategies as st

from calllab._aiortc.jitter import MAX_WAIT_S, JitterCounters, PatientJitterBuffer


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def packet(
    sequence: int, timestamp: int, data: bytes, *, marker: int = 0, payload_type: int = 96
) -> RtpPacket:
    made = RtpPacket(
        payload_type=payload_type, sequence_number=sequence % 65536, timestamp=timestamp, marker=marker
    )
    made._data = data  # type: ignore[attr-defined]
    return made


def feed(buffer: PatientJitterBuffer, made: RtpPacket) -> tuple[bool, list[Any]]:
    """Add a packet; return whether a key frame is asked for, and all frames that come out."""
    ask, frame = buffer.add(made)
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = buffer.next_frame()
    return ask, frames


def audio(clock: Clock) -> PatientJitterBuffer:
    return PatientJitterBuffer(JitterCounters(), video=False, clock=clock, codec_name=lambda _: "opus")


def video(clock: Clock) -> PatientJitterBuffer:
    names = {96: "VP8", 102: "H264"}
    return PatientJitterBuffer(JitterCounters(), video=True, clock=clock, codec_name=names.__getitem__)


@settings(max_examples=50)
@given(
    start=st.integers(0, 65535),
    fates=st.lists(
        st.sampled_from(["arrives", "arrives", "arrives", "lost", "late"]), min_size=30, max_size=150
    ),
)
def test_audio_never_waits_long_and_keeps_order(start: int, fates: list[str]) -> None:
    """Whatever is lost or late by 40 ms: what comes out is in order, without repeats, and never older than
    the patience of the buffer and its prefetch allow.
    """
    clock = Clock()
    buffer = audio(clock)
    events = []
    for index, fate in enumerate(fates):
        if fate != "lost":
            events.append((index * 0.02 + (0.04 if fate == "late" else 0), index))
    begin = clock.now
    arrivals = [at for at, _ in sorted(events)]
    out: list[int] = []
    for at, index in sorted(events):
        clock.now = begin + at
        _, frames = feed(buffer, packet(start + index, index * 960, bytes([index])))
        for frame in frames:
            out.append(frame.timestamp // 960)
            # Four later frames are there, and every hole before them has been waited for.
            later = sorted(arrival for arrival, other in events if other > out[-1])[3]
            due = later + MAX_WAIT_S["audio"]
            assert at <= next((arrival for arrival in arrivals if arrival > due + 1e-6), at) + 1e-6
    assert out == sorted(set(out))
    counters = buffer.counters
    assert counters.emitted == len(out)
    assert counters.frames == len(out)
    waiting = sum(p is not None for p in buffer._packets)
    assert len(events) == len(out) + counters.packets_discarded + waiting


KEY, DELTA = b"\x00key", b"\x01delta"


def test_video_goes_on_with_a_key_frame_after_a_hole() -> None:
    """A hole older than the patience: ask for a key frame, drop what depends on the lost, go on with it."""
    clock = Clock()
    buffer = video(clock)
    shown = []
    asked = []
    for index in range(200):
        clock.now += 1 / 30
        if index in (20, 21):
            continue
        data = KEY if index in (0, 90) else DELTA
        ask, frames = feed(buffer, packet(65500 + index, index * 3000, data))
        shown += [frame.timestamp // 3000 for frame in frames]
        if ask:
            asked.append(index)
    assert shown[:19] == list(range(19))
    assert shown[19] == 90, "nothing between the hole and the key frame can be decoded"
    assert shown[20:] == list(range(91, 199))
    assert asked[0] in range(50, 54)
    assert len(asked) >= 2, "asked again while none comes"
    assert all(index <= 91 for index in asked)
    assert buffer.counters.key_frames == 2
    assert buffer.counters.frames_dropped > 0


def test_a_late_packet_keeps_its_codec_where_the_codec_changes() -> None:
    """The old codec's last packet may come when the new one has begun: each frame is what it was sent as."""
    buffer = video(Clock())
    h264_key = b"\0\0\0\1\x65"
    shown = []
    for sequence, timestamp, data, payload_type in (
        (1, 0, h264_key, 102),
        (3, 3000, KEY, 96),
        (4, 6000, DELTA, 96),
        (2, 0, b"rest", 102),
    ):
        marker = int(data != h264_key)
        _, frames = feed(buffer, packet(sequence, timestamp, data, marker=marker, payload_type=payload_type))
        shown += [(frame.payload_type, frame.is_key, frame.data) for frame in frames]
    assert shown == [(102, True, h264_key + b"rest"), (96, True, KEY), (96, False, DELTA)]


def test_packets_of_padding_are_no_frames() -> None:
    """What carries no data, before, between and behind frames, is not counted, and asks for nothing."""
    buffer = video(Clock())
    shown = []
    for sequence, (data, timestamp) in enumerate(
        [(b"", 0), (KEY, 3000), (b"", 3000), (b"", 3000), (DELTA, 6000), (b"", 6000), (DELTA, 9000)]
    ):
        ask, frames = feed(buffer, packet(sequence, timestamp, data, marker=int(data != b"")))
        assert not ask
        shown += [frame.timestamp for frame in frames]
    assert shown == [3000, 6000, 9000]
    assert buffer.counters.frames == 3
    assert buffer.counters.frames_dropped == buffer.counters.packets_discarded == 0


def test_video_waits_for_a_retransmission() -> None:
    """A hole that is filled within the patience costs nothing but time."""
    clock = Clock()
    buffer = video(clock)
    shown = []
    for index in [*range(10), *range(11, 30), 10, *range(30, 40)]:
        clock.now += 1 / 30
        ask, frames = feed(buffer, packet(index, index * 3000, KEY if index == 0 else DELTA))
        assert not ask
        shown += [frame.timestamp // 3000 for frame in frames]
    assert shown == list(range(39))
    assert buffer.counters.packets_discarded == buffer.counters.frames_dropped == 0


def test_a_frame_of_several_packets_begins_whole_after_a_hole() -> None:
    """Behind a hole the rest of a broken frame is never taken for a frame."""
    clock = Clock()
    buffer = video(clock)
    shown: list[bytes] = []
    sequence = 0
    for frame in range(120):
        clock.now += 1 / 30
        parts = [KEY if frame in (0, 60) else DELTA, b"\x00middle", b"\x00end"]
        for number, part in enumerate(parts):
            sequence += 1
            if frame == 10 and number == 0:
                continue
            _, frames = feed(buffer, packet(sequence, frame * 3000, part, marker=int(number == 2)))
            shown += [f.data for f in frames]
    whole = {first + b"\x00middle\x00end" for first in (KEY, DELTA)}
    assert set(shown) == whole
    assert len(shown) == 10 + 60


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 2**32 - 1), st.floats(0, 2)), max_size=300))
def test_nothing_breaks_the_buffers(packets: list[tuple[int, int, float]]) -> None:
    """Sequence numbers and timestamps without any sense raise nothing and fill no memory."""
    clock = Clock()
    for buffer in (audio(clock), video(clock)):
        for sequence, timestamp, wait in packets:
            clock.now += wait
            feed(buffer, packet(sequence, timestamp, b"\x01x"))
            assert len(buffer._packets) == buffer.capacity
