"""A jitter buffer that does not wait for what will not come, and counts what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiortc.jitterbuffer import MAX_MISORDER, JitterBuffer, JitterFrame
from aiortc.rtp import RtpPacket
from aiortc.utils import uint16_add

from calllab._aiortc.encoding import is_keyframe

__all__ = ["MAX_WAIT_S", "EncodedFrame", "JitterCounters", "PatientJitterBuffer", "uint16_after"]

# How long a hole is waited for.  Audio has no retransmission: only reordering can fill it.  For video the
# retransmission takes a round trip, and its request may be lost once.
MAX_WAIT_S = {"audio": 0.1, "video": 1.0}
# How often a missing key frame is asked for.
_PLI_INTERVAL_S = 0.5


@dataclass(slots=True)
class JitterCounters:
    """What a jitter buffer did."""

    frames: int = 0
    """Assembled completely."""
    key_frames: int = 0
    frames_dropped: int = 0
    """Assembled but of no use without the frames before them, or thrown away in part."""
    packets_discarded: int = 0
    """Too late, or thrown away."""
    delay_s: float = 0.0
    """Sum over emitted frames of the time since their first packet."""
    emitted: int = 0


class EncodedFrame(JitterFrame):
    """A frame that knows how it is encoded, and whether it can be decoded alone."""

    def __init__(
        self, data: bytes, timestamp: int, *, payload_type: int, is_key: bool, delay_s: float
    ) -> None:
        super().__init__(data, timestamp)
        self.payload_type = payload_type
        self.is_key = is_key
        self.delay_s = delay_s
        """How long its first packet was in the jitter buffer."""


def uint16_after(a: int, b: int) -> bool:
    """Whether sequence number ``a`` comes after ``b``."""
    return a != b and uint16_add(a, -b) < 0x8000


class PatientJitterBuffer(JitterBuffer):
    """aiortc's jitter buffer with an end to its patience.

    The stock one waits for a lost packet until its capacity is used up (jitterbuffer.py:52): 320 ms of
    silence for each lost audio packet, and up to 512 packets of frozen video after an outage.  This one gives
    a hole a fixed time; then audio goes on behind it, and video with the next key frame, asking for one.

    A video frame is complete with its marked packet (RFC 7741 section 4.1, RFC 6184 section 5.1); the stock
    buffer waits for the next frame to begin, which costs the time between two frames.
    """

    def __init__(
        self,
        counters: JitterCounters,
        *,
        video: bool,
        clock: Callable[[], float],
        codec_name: Callable[[int], str],
    ) -> None:
        if video:
            super().__init__(capacity=512, is_video=True)
        else:
            super().__init__(capacity=16, prefetch=4)
        self.counters = counters
        self._clock = clock
        self._codec_name = codec_name
        self._max_wait_s = MAX_WAIT_S["video" if video else "audio"]
        self._newest = 0
        self._arrivals = [0.0] * self._capacity
        self._first_arrival = 0.0
        """Of the frame that left last, as the next one."""
        self._payload_type = 0
        self._emitting = False
        # The first packets may be the rest of a frame that was sent before anybody listened.
        self._needs_keyframe = video
        self._asked_at = float("-inf")
        self._useless = False
        """A frame came that could not be decoded for want of those before it."""
        self._skipped = False
        """A hole was given up."""

    @property
    def origin(self) -> int | None:
        """The sequence number that is waited for next."""
        return self._origin

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Take a packet; returns whether to ask for a key frame, and the next complete frame if any."""
        now, sequence = self._clock(), packet.sequence_number
        position = sequence % self._capacity
        late_by = 0 if self._origin is None else uint16_add(self._origin, -sequence)
        late = 0 < late_by < 0x8000
        if late and late_by < MAX_MISORDER:
            self.counters.packets_discarded += 1
            return False, None
        if self._origin is None or late or uint16_after(sequence, self._newest):
            self._newest = sequence  # so far behind, it is another beginning
        held = self._packets[position]
        if held is not None and held.sequence_number == sequence:
            self.counters.packets_discarded += 1  # a copy
        self._arrivals[position] = now
        urgent, frame = super().add(packet)
        self._needs_keyframe |= urgent
        frame = self._or_behind_hole(frame, now)
        ask = urgent or self._skipped or (self._useless and now >= self._asked_at + _PLI_INTERVAL_S)
        self._useless = self._skipped = False
        if ask:
            self._asked_at = now
        return ask, frame

    def next_frame(self) -> JitterFrame | None:
        """Return one more complete frame.

        :meth:`add` gives one for each packet, so that without this a backlog would never be worked off.
        """
        return (
            self._or_behind_hole(self._remove_frame(0), self._clock()) if self._origin is not None else None
        )

    def require_keyframe(self) -> None:
        """Frames were thrown away behind this buffer: only a key frame is of use now."""
        self._needs_keyframe = self._is_video

    def start_again(self) -> None:
        """Throw away what is held: after an outage the next packet begins anew, with a key frame."""
        held = [packet for packet in self._packets if packet is not None]
        self.counters.packets_discarded += len(held)
        if self._is_video:
            self.counters.frames_dropped += len({packet.timestamp for packet in held})
        self._packets = [None] * self._capacity
        self._origin = None
        self._needs_keyframe = self._is_video
        self._asked_at = self._clock()

    # Holes

    def _or_behind_hole(self, frame: JitterFrame | None, now: float) -> JitterFrame | None:
        """Return ``frame``, or else the next one behind holes that were waited for long enough."""
        while frame is None and (hole := self._overdue_hole(now)) is not None:
            self._skip(hole)
            frame = self._remove_frame(0)
        return frame

    def _overdue_hole(self, now: float) -> int | None:
        """Return the first missing sequence number if it was overtaken long enough ago."""
        assert self._origin is not None
        hole: int | None = None
        overtaken_at = now
        sequence = self._origin
        for _ in range(self._capacity):
            position = sequence % self._capacity
            if self._packets[position] is None:
                hole = sequence if hole is None else hole
            elif hole is not None:
                overtaken_at = min(overtaken_at, self._arrivals[position])
            if not uint16_after(self._newest, sequence):
                break
            sequence = uint16_add(sequence, 1)
        return hole if hole is not None and now >= overtaken_at + self._max_wait_s else None

    def _skip(self, hole: int) -> None:
        """Go on behind a hole."""
        assert self._origin is not None
        if self._is_video:
            self.remove(uint16_add(hole, -self._origin))
            self._pass_missing()
            # What follows may begin in the middle of a frame.
            broken = self._packets[self._origin % self._capacity]
            while broken is not None:
                packet = self._packets[self._origin % self._capacity]
                if packet is None or packet.timestamp != broken.timestamp:
                    break
                self.remove(1)
            self.counters.frames_dropped += 1
            self._needs_keyframe = self._skipped = True
            return
        # Audio packets before the hole are whole frames that only wait for company: they close up with those
        # behind it, and keep their timestamps.
        kept = []
        while self._origin != hole:
            position = self._origin % self._capacity
            kept.append((self._packets[position], self._arrivals[position]))
            super().remove(1)
        self._pass_missing()
        for packet, arrival in reversed(kept):
            self._origin = uint16_add(self._origin, -1)
            position = self._origin % self._capacity
            self._packets[position], self._arrivals[position] = packet, arrival

    def _pass_missing(self) -> None:
        """Move the origin to the next packet that is there."""
        assert self._origin is not None
        while self._packets[self._origin % self._capacity] is None and uint16_after(
            self._newest, self._origin
        ):
            super().remove(1)

    # Frames

    def _remove_frame(self, sequence_number: int) -> JitterFrame | None:
        while True:
            self._emitting = True
            try:
                frame = super()._remove_frame(sequence_number) or self._remove_marked()
            finally:
                self._emitting = False
            if frame is None:
                return None
            if self._is_video and not frame.data:
                continue  # a packet of padding
            counters = self.counters
            counters.frames += 1
            key = self._is_video and is_keyframe(self._codec_name(self._payload_type), frame.data)
            counters.key_frames += key
            if self._needs_keyframe and not key:
                counters.frames_dropped += 1
                self._useless = True
                continue
            self._needs_keyframe = False
            delay_s = self._clock() - self._first_arrival
            counters.delay_s += delay_s
            counters.emitted += 1
            return EncodedFrame(
                frame.data,
                frame.timestamp,
                payload_type=self._payload_type,
                is_key=key,
                delay_s=delay_s,
            )

    def _remove_marked(self) -> JitterFrame | None:
        """Return the frame at the origin if its last packet is there, marked as such."""
        if not self._is_video or self._origin is None:
            return None
        parts: list[bytes] = []
        for count in range(self._capacity):
            packet: Any = self._packets[(self._origin + count) % self._capacity]
            if packet is None:
                return None
            parts.append(packet._data)
            if packet.marker:
                self.remove(count + 1)
                return JitterFrame(b"".join(parts), packet.timestamp)
        return None

    # Taps

    def remove(self, count: int) -> None:
        """Take packets out: as a frame when one is complete, else as waste."""
        if self._origin is not None:
            positions = [uint16_add(self._origin, i) % self._capacity for i in range(count)]
            taken = [position for position in positions if self._packets[position] is not None]
            if self._emitting and taken:
                self._first_arrival = min(self._arrivals[position] for position in taken)
                first: Any = self._packets[taken[0]]
                self._payload_type = first.payload_type
            else:
                self.counters.packets_discarded += len(taken)
        super().remove(count)

    def smart_remove(self, count: int) -> bool:
        """Make room by throwing whole frames away."""
        before = self._held()
        timestamps = {p.timestamp for p in self._packets if p is not None}
        emptied: bool = super().smart_remove(count)
        self.counters.packets_discarded += before - self._held()
        left = {p.timestamp for p in self._packets if p is not None}
        if self._is_video:
            self.counters.frames_dropped += len(timestamps - left)
            self._needs_keyframe = True
        return emptied

    def _held(self) -> int:
        return sum(packet is not None for packet in self._packets)
