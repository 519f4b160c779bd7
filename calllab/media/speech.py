"""Speech-like sound made on the fly: syllables, pauses, pitch; the same for the same seed."""

from __future__ import annotations

import bisect
import fractions
import math
import random
from dataclasses import dataclass
from functools import cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from av import AudioFrame

from calllab.errors import InvalidSetting
from calllab.media.audio_code import SAMPLE_RATE, SLOT_S, SLOT_SAMPLES, tone_of_slot
from calllab.media.pacing import PacedTrack

__all__ = ["SpeechTrack", "SpeechVoice"]

FRAME_SAMPLES: Final = SLOT_SAMPLES
TIME_BASE: Final = fractions.Fraction(1, SAMPLE_RATE)
PATIENCE_S: Final = 0.2

Samples: TypeAlias = npt.NDArray[np.float32]

# Formants of vowels: centre frequencies in Hz of the three that make a vowel what it is.
_VOWELS: Final = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))
_FORMANT_WIDTHS: Final = (90.0, 110.0, 170.0)
_FORMANT_LEVELS: Final = (1.0, 0.5, 0.25)
_PERIOD: Final = 2048
"""Samples of one tabulated period of the voice."""
_HIGHEST_HZ: Final = 4_000.0


@dataclass(frozen=True, slots=True)
class _Syllable:
    """A consonant of noise and then a voiced vowel that glides to another; samples, Hz."""

    start: int
    noise: int
    length: int
    pitch: float
    pitch_end: float
    vowel: int
    vowel_end: int
    level: float
    noise_offset: int


@cache
def _vowel_periods(pitch_hz: int) -> npt.NDArray[np.float32]:
    """Return one period of each vowel, as a voice of this pitch sings it, all with the same power."""
    phase = np.arange(_PERIOD) / _PERIOD
    harmonics = np.arange(1, int(_HIGHEST_HZ / pitch_hz) + 1)
    waves = np.sin(2 * math.pi * harmonics[:, None] * phase + harmonics[:, None] ** 2 * 0.7)
    periods = []
    for vowel in _VOWELS:
        frequencies = harmonics * pitch_hz
        gains = np.zeros(len(harmonics))
        for centre, width, level in zip(vowel, _FORMANT_WIDTHS, _FORMANT_LEVELS, strict=True):
            gains += level / (1.0 + ((frequencies - centre) / width) ** 2)
        period = (gains / np.sqrt(harmonics)) @ waves
        periods.append(period / np.sqrt((period**2).mean()))
    return np.array(periods, np.float32)


@cache
def _hiss() -> Samples:
    """Return a second of noise between 2.5 and 4 kHz, below the tones of the time code, of power 1."""
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE)
    spectrum = np.fft.rfft(noise)
    spectrum[:2500] = 0
    spectrum[4000:] = 0
    shaped = np.fft.irfft(spectrum)
    hiss: Samples = (shaped / np.sqrt((shaped**2).mean())).astype(np.float32)
    return hiss


class SpeechVoice:
    """The sound itself, without clock: any frame can be had at any time, and is always the same.

    Phrases of 4 to 12 syllables, about four a second, fall in pitch and end in a pause of 0.3 to 0.9 s.

    :param seed: which voice, and what it says.
    :param level_dbfs: power of the loudest vowels, relative to a full-scale sine.
    """

    def __init__(self, seed: int = 0, level_dbfs: float = -20.0) -> None:
        if not -60.0 <= level_dbfs <= -6.0:
            raise InvalidSetting(f"level_dbfs={level_dbfs!r}: give a level from -60 to -6")
        self._random = random.Random(f"speech/{seed}")
        self._gain = 10.0 ** (level_dbfs / 20) / math.sqrt(2)
        self._pitch = self._random.uniform(95.0, 210.0)
        self._periods = _vowel_periods(round(self._pitch / 10) * 10)
        self._syllables: list[_Syllable] = []
        self._starts: list[int] = []
        self._planned = 0  # samples

    def frame(self, number: int) -> Samples:
        """Return frame ``number`` (from 0): 960 samples of full scale 1."""
        start = number * FRAME_SAMPLES
        while self._planned < start + FRAME_SAMPLES:
            self._plan_phrase()
        samples = np.zeros(FRAME_SAMPLES, np.float32)
        index = max(0, bisect.bisect_right(self._starts, start) - 1)
        while index < len(self._syllables) and self._syllables[index].start < start + FRAME_SAMPLES:
            self._speak(self._syllables[index], start, samples)
            index += 1
        return samples

    def _plan_phrase(self) -> None:
        chance = self._random
        count = chance.randint(4, 12)
        at = self._planned
        vowel = chance.randrange(len(_VOWELS))
        for index in range(count):
            length = int(chance.uniform(0.12, 0.30) * SAMPLE_RATE)
            # Pitch falls over the phrase; each syllable has an accent of its own.
            pitch = self._pitch * (1.12 - 0.25 * index / count) * chance.uniform(0.94, 1.06)
            following = chance.randrange(len(_VOWELS))
            self._syllables.append(
                _Syllable(
                    start=at,
                    noise=int(chance.choice((0.0, 0.03, 0.06)) * SAMPLE_RATE),
                    length=length,
                    pitch=pitch,
                    pitch_end=pitch * chance.uniform(0.88, 1.02),
                    vowel=vowel,
                    vowel_end=following,
                    level=chance.uniform(0.6, 1.0),
                    noise_offset=chance.randrange(SAMPLE_RATE),
                )
            )
            self._starts.append(at)
            vowel = following
            at += length + int(chance.uniform(0.0, 0.05) * SAMPLE_RATE)
        self._planned = at + int(chance.uniform(0.3, 0.9) * SAMPLE_RATE)

    def _speak(self, syllable: _Syllable, start: int, samples: Samples) -> None:
        """Add the part of a syllable that falls into the frame that starts at ``start``."""
        first = max(start, syllable.start)
        last = min(start + FRAME_SAMPLES, syllable.start + syllable.length)
        if first >= last:
            return
        time = np.arange(first - syllable.start, last - syllable.start, dtype=np.float64)
        share = time / syllable.length
        # The phase is the integral of a pitch that glides evenly from one value to the other.
        glide = (syllable.pitch_end - syllable.pitch) / syllable.length
        cycles = (syllable.pitch * time + 0.5 * glide * time**2) / SAMPLE_RATE
        index = (cycles % 1.0 * _PERIOD).astype(np.intp)
        voice = (1 - share) * self._periods[syllable.vowel][index] + share * self._periods[
            syllable.vowel_end
        ][index]
        voiced = np.clip((time - syllable.noise) / (0.015 * SAMPLE_RATE), 0.0, 1.0)
        release = np.clip((syllable.length - time) / (0.04 * SAMPLE_RATE), 0.0, 1.0)
        sound = voice * voiced * release
        if syllable.noise:
            swell = np.sin(np.clip(time / (1.5 * syllable.noise), 0.0, 1.0) * math.pi)
            hiss = _hiss()[(time.astype(np.intp) + syllable.noise_offset) % SAMPLE_RATE]
            sound = sound + 0.35 * swell * hiss
        samples[first - start : last - start] += (self._gain * syllable.level * sound).astype(np.float32)


class SpeechTrack(PacedTrack):
    """An audio track that speaks: 48 kHz mono in frames of 20 ms, as Opus likes it.

    With the time code, soft tones (-40 dBFS, 4.4 to 8.4 kHz) tell :class:`~calllab.media.MediaSink` when
    each 20 ms were handed over, so that it can measure the latency of sound.

    :param seed: which voice, and what it says.
    :param level_dbfs: power of the loudest vowels, relative to a full-scale sine.
    """

    kind = "audio"

    def __init__(self, *, seed: int = 0, level_dbfs: float = -20.0, time_code: bool = True) -> None:
        super().__init__(SLOT_S, patience_s=PATIENCE_S)
        self._voice = SpeechVoice(seed, level_dbfs)
        self._time_code = time_code

    async def recv(self) -> AudioFrame:
        """Return the next 20 ms when they are due; raises MediaStreamError once the track has ended."""
        number, slot = await self._next_frame()
        samples = self._voice.frame(number)
        if self._time_code:
            samples += tone_of_slot(slot)
        integers = (np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
        frame = AudioFrame.from_ndarray(integers[None, :], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = number * FRAME_SAMPLES
        frame.time_base = TIME_BASE
        return frame
