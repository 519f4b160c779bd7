"""Measures of media: loudness of audio, rate and freezes of video."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
from av import AudioFrame

__all__ = ["AudioLevel", "FrameRate", "Freezes", "level_dbov"]

_SCALES = {
    "s16": 32768.0,
    "s16p": 32768.0,
    "s32": 2147483648.0,
    "s32p": 2147483648.0,
    "flt": 1.0,
    "fltp": 1.0,
}


_SILENCE_DBOV = -127
_FULL_SCALE = 32767


def level_dbov(frame: AudioFrame) -> int:
    """Return the level of 16-bit audio for the RTP header extension, 0 (loudest) to -127 (RFC 6465).

    The same number as aiortc's own (rtp.py:314), which walks over the samples one by one.
    """
    samples = np.frombuffer(bytes(frame.planes[0]), np.int16).astype(np.int64)
    rms = math.sqrt(float(samples.dot(samples)) / (frame.samples * _FULL_SCALE * _FULL_SCALE))
    if rms <= 0:
        return _SILENCE_DBOV
    return round(min(0.0, max(20 * math.log10(rms), float(_SILENCE_DBOV))))


class AudioLevel:
    """Energy and duration of audio, as W3C totalAudioEnergy and totalSamplesDuration define them.

    The energy of a frame is its duration in seconds times the mean square of its samples, full scale being 1.
    """

    def __init__(self) -> None:
        self.energy = 0.0
        self.duration_s = 0.0
        self.samples = 0
        self.level: float | None = None
        """Root mean square of the latest frame, 0..1."""

    def add(self, frame: AudioFrame) -> None:
        """Measure a frame; formats that PyAV cannot hand out as numbers count in the duration alone."""
        duration_s = frame.samples / frame.sample_rate
        self.duration_s += duration_s
        self.samples += frame.samples
        scale = _SCALES.get(frame.format.name)
        if scale is None or not frame.samples:
            return
        samples: Any = frame.to_ndarray()
        # Whole numbers are summed exactly, and the same on every machine.
        samples = samples.astype(np.int64 if frame.format.name.startswith("s16") else np.float64)
        if not frame.format.is_planar:
            samples = samples.reshape(-1, frame.layout.nb_channels).T
        # Of several channels the loudest counts (webrtc-stats, audioLevel).
        loudest = max(float(channel.dot(channel)) for channel in samples)
        mean_square = loudest / (samples.shape[1] * scale**2)
        self.energy += mean_square * duration_s
        self.level = math.sqrt(mean_square)


class FrameRate:
    """How many frames came in the last second."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def add(self, now: float) -> None:
        """Count a frame."""
        self._times.append(now)
        self._forget(now)

    def per_second(self, now: float) -> float:
        """Return the frames of the second before ``now``."""
        self._forget(now)
        return float(len(self._times))

    def _forget(self, now: float) -> None:
        while self._times and self._times[0] <= now - 1.0:
            self._times.popleft()


class Freezes:
    """Counts freezes of video as W3C freezeCount and totalFreezesDuration define them.

    A freeze is a gap between two frames of at least three times the mean of the latest 30 gaps, and of at
    least that mean and 150 ms.
    """

    _WINDOW = 30
    _MARGIN_S = 0.150

    def __init__(self) -> None:
        self.count = 0
        self.duration_s = 0.0
        self.total_inter_frame_s = 0.0
        self.total_squared_inter_frame_s = 0.0
        self._gaps: deque[float] = deque(maxlen=self._WINDOW)
        self._last: float | None = None

    def add(self, now: float) -> None:
        """A frame was shown."""
        last, self._last = self._last, now
        if last is None:
            return
        gap = now - last
        self.total_inter_frame_s += gap
        self.total_squared_inter_frame_s += gap * gap
        if self._gaps:
            mean = sum(self._gaps) / len(self._gaps)
            if gap >= max(3 * mean, mean + self._MARGIN_S):
                self.count += 1
                self.duration_s += gap
        self._gaps.append(gap)
