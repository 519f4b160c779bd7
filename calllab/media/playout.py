"""What a viewer or listener got of a track: order, gaps, freezes, latency."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = ["PlayoutMeter", "PlayoutSummary"]

Kind = Literal["audio", "video"]

FREEZE_WINDOW: Final = 30
"""The W3C rule averages over so many frames."""
FREEZE_MARGIN_S: Final = 0.150


@dataclass(frozen=True, slots=True)
class PlayoutSummary:
    """What arrived in a span of time; times are loop times, in seconds."""

    kind: Kind
    from_s: float
    to_s: float
    frames: int
    """Frames that arrived."""
    missing: int
    """Video: frame numbers that were passed over (lost, dropped by the codec, or skipped by the source).
    Audio: frames that the timestamps say are missing."""
    duplicates: int
    """Frames with the same number, or timestamp, as the latest one."""
    out_of_order: int
    """Frames that arrived after one with a higher number, or timestamp."""
    unreadable: int
    """Video frames without a readable strip; they count as frames, but not for order and latency."""
    max_gap_s: float
    """The longest time without a frame, one that still lasts included."""
    freezes: int
    """Gaps that were freezes: at least max(3 d, d + 150 ms), where d is the mean time between the 30 frames
    before (W3C webrtc-stats, freezeCount).  The same rule says when sound was interrupted."""
    frozen_s: float
    """Time spent in freezes within the span, one that still lasts included."""
    latency_s: float | None
    """Mean time from the source handing a frame over to its arrival here; None: not measured.

    Needs a :class:`~calllab.media.TestPatternTrack` or :class:`~calllab.media.SpeechTrack` on the same
    machine at the other end.  For sound it is measured once per 160 ms that arrived whole.
    """
    latency_min_s: float | None
    latency_max_s: float | None
    latencies: int
    """How many measurements the latency comes from."""
    width: int | None = None
    height: int | None = None

    @property
    def frames_per_second(self) -> float:
        """Frames that arrived per second of the span."""
        span_s = self.to_s - self.from_s
        return self.frames / span_s if span_s > 0 else 0.0

    def as_event(self) -> dict[str, Any]:
        """Return the members of a ``playout`` event."""
        return {
            "kind": self.kind,
            "frames": self.frames,
            "missing": self.missing,
            "duplicates": self.duplicates,
            "outOfOrder": self.out_of_order,
            "maxGap_s": self.max_gap_s,
            "freezes": self.freezes,
            "frozen_s": self.frozen_s,
            "latency_s": self.latency_s,
        }


@dataclass(slots=True)
class _Tally:
    """The sums behind a summary."""

    from_s: float
    frames: int = 0
    missing: int = 0
    duplicates: int = 0
    out_of_order: int = 0
    unreadable: int = 0
    max_gap_s: float = 0.0
    freezes: int = 0
    frozen_s: float = 0.0
    latency_sum_s: float = 0.0
    latencies: int = 0
    latency_min_s: float = field(default=float("inf"))
    latency_max_s: float = field(default=float("-inf"))

    def measured(self, latency_s: float) -> None:
        self.latencies += 1
        self.latency_sum_s += latency_s
        self.latency_min_s = min(self.latency_min_s, latency_s)
        self.latency_max_s = max(self.latency_max_s, latency_s)

    def summary(self, kind: Kind, to_s: float, size: tuple[int, int] | None) -> PlayoutSummary:
        some = self.latencies > 0
        return PlayoutSummary(
            kind=kind,
            from_s=self.from_s,
            to_s=to_s,
            frames=self.frames,
            missing=self.missing,
            duplicates=self.duplicates,
            out_of_order=self.out_of_order,
            unreadable=self.unreadable,
            max_gap_s=self.max_gap_s,
            freezes=self.freezes,
            frozen_s=self.frozen_s,
            latency_s=self.latency_sum_s / self.latencies if some else None,
            latency_min_s=self.latency_min_s if some else None,
            latency_max_s=self.latency_max_s if some else None,
            latencies=self.latencies,
            width=size[0] if size else None,
            height=size[1] if size else None,
        )


class PlayoutMeter:
    """Counts frames as they arrive, for the whole time and for the interval since the last :meth:`take`.

    Sans-IO: the caller says what arrived, and when.  Times do not go backwards.

    A gap that lasts is counted while it lasts: each interval gets its own share of a freeze, so that a
    blackout shows in every second of it and not only at its end.
    """

    def __init__(self, kind: Kind, now: float) -> None:
        self.kind = kind
        self.size: tuple[int, int] | None = None
        """Width and height of the last picture."""
        self._total = _Tally(now)
        self._interval = _Tally(now)
        self._last_at: float | None = None
        self._last_number: int | None = None
        self._last_made_at = float("-inf")
        self._unreadable_since = 0  # pictures since the last readable one
        self._recent: deque[float] = deque(maxlen=FREEZE_WINDOW)
        self._freeze_counted = False
        self._frozen_until = 0.0

    def arrived(self, now: float) -> None:
        """Count a frame, readable or not; call it first for each frame."""
        if self._last_at is not None:
            self._look_at_gap(now)
            self._recent.append(now - self._last_at)
        self._last_at = now
        self._freeze_counted = False
        for tally in (self._total, self._interval):
            tally.frames += 1

    def stamped(self, number: int, made_at: float | None = None) -> None:
        """Account for the order of the frame that arrived.

        ``made_at`` tells a frame that comes late from the first of a new source, whose numbers start again.
        """
        last, last_made_at = self._last_number, self._last_made_at
        # The numbers of pictures that arrived unreadable are not missing.
        unread, self._unreadable_since = self._unreadable_since, 0
        if made_at is not None:
            self._last_made_at = max(last_made_at, made_at)
        if last is None or (number < last and made_at is not None and made_at > last_made_at):
            self._last_number = number
            return
        for tally in (self._total, self._interval):
            if number == last:
                tally.duplicates += 1
            elif number < last:
                tally.out_of_order += 1
            else:
                tally.missing += max(0, number - last - 1 - unread)
        self._last_number = max(number, last)

    def restarted(self) -> None:
        """Forget the order so far: what comes next is of another source."""
        self._last_number = None

    def unreadable(self) -> None:
        """Account for a picture without a readable strip."""
        self._unreadable_since += 1
        for tally in (self._total, self._interval):
            tally.unreadable += 1

    def measured(self, latency_s: float) -> None:
        """Account for a measured latency."""
        for tally in (self._total, self._interval):
            tally.measured(latency_s)

    def total(self, now: float) -> PlayoutSummary:
        """Return the summary of the whole time until ``now``."""
        self._look_at_gap(now)
        return self._total.summary(self.kind, now, self.size)

    def take(self, now: float) -> PlayoutSummary:
        """Return the summary since the last take, and begin the next interval."""
        self._look_at_gap(now)
        summary = self._interval.summary(self.kind, now, self.size)
        self._interval = _Tally(now)
        return summary

    def freeze_threshold_s(self) -> float | None:
        """Return from which gap on it is a freeze now, or None as long as no frame rate is known."""
        if not self._recent:
            return None
        mean_s = sum(self._recent) / len(self._recent)
        return max(3 * mean_s, mean_s + FREEZE_MARGIN_S)

    def _look_at_gap(self, now: float) -> None:
        """Account for the time since the last frame."""
        if self._last_at is None:
            return
        gap_s = now - self._last_at
        threshold_s = self.freeze_threshold_s()
        frozen = threshold_s is not None and gap_s >= threshold_s
        since = max(self._last_at, self._frozen_until)
        for tally in (self._total, self._interval):
            tally.max_gap_s = max(tally.max_gap_s, gap_s)
            if frozen:
                tally.freezes += not self._freeze_counted
                tally.frozen_s += max(0.0, now - max(since, tally.from_s))
        if frozen:
            self._freeze_counted = True
            self._frozen_until = now
