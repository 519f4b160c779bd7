"""A soft time code in a sound: quiet tones that say when it was made, readable after Opus.

Time is cut into slots of 20 ms, counted from loop time 0, and each slot sounds one of 17 tones between
4.4 and 8.4 kHz.  Eight slots make a word::

    sync tone | word number: 5 tones of 4 bits | check: 2 tones of 4 bits

The word number, modulo 2**20 (46 hours), is the time of its first slot in units of 160 ms.  A word is read
only if all its tones arrived, and passes its check; lost packets cost words, never wrong times.
"""

from __future__ import annotations

import binascii
import math
from collections import deque
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["SAMPLE_RATE", "SLOT_S", "SLOT_SAMPLES", "AudioTimeReader", "tone_of_slot"]

Samples: TypeAlias = npt.NDArray[np.float32]

SAMPLE_RATE: Final = 48_000
SLOT_SAMPLES: Final = 960
SLOT_S: Final = SLOT_SAMPLES / SAMPLE_RATE

WORD_SLOTS: Final = 8
NUMBER_BITS: Final = 20
SYNC: Final = 16
FIRST_TONE_HZ: Final = 4_400
TONE_STEP_HZ: Final = 250
LEVEL: Final = 10.0 ** (-40 / 20)
"""Amplitude of a tone, of full scale."""
MAX_LATENCY_S: Final = 30.0

_SLOT_HOPS: Final = 8
_HOP: Final = SLOT_SAMPLES // _SLOT_HOPS
# From the hop before the sync tone's middle to that of the last tone.
_WORD_HOPS: Final = 2 + (WORD_SLOTS - 1) * _SLOT_HOPS
_BIN_HZ: Final = SAMPLE_RATE // SLOT_SAMPLES
_TONE_BINS: Final = np.arange(17) * (TONE_STEP_HZ // _BIN_HZ) + FIRST_TONE_HZ // _BIN_HZ


def _analysis() -> npt.NDArray[np.float32]:
    """Return the windowed cosines of all tones, then their sines: the few bins of a spectrum that count."""
    turns = 2 * math.pi * np.outer(np.arange(SLOT_SAMPLES), _TONE_BINS) / SLOT_SAMPLES
    waves = np.hanning(SLOT_SAMPLES)[:, None] * np.hstack([np.cos(turns), np.sin(turns)])
    return np.ascontiguousarray(waves, np.float32)


_ANALYSIS: Final = _analysis()


def _check(number: int) -> int:
    return binascii.crc_hqx(number.to_bytes(3, "big"), 0xFFFF) & 0xFF


def symbol_of_slot(slot: int) -> int:
    """Return which tone sounds in ``slot`` (counted from loop time 0)."""
    number, place = divmod(slot, WORD_SLOTS)
    if place == 0:
        return SYNC
    number %= 1 << NUMBER_BITS
    word = number << 8 | _check(number)
    return word >> 4 * (WORD_SLOTS - 1 - place) & 0xF


def _make_tones() -> npt.NDArray[np.float32]:
    time = np.arange(SLOT_SAMPLES) / SAMPLE_RATE
    # Soft edges keep the tones from clicking, and from spilling into each other's bands.
    edge = np.minimum(1.0, np.minimum(np.arange(SLOT_SAMPLES), np.arange(SLOT_SAMPLES)[::-1]) / 96)
    fade = np.sin(edge * math.pi / 2) ** 2
    frequencies = (_TONE_BINS * _BIN_HZ)[:, None]
    tones: npt.NDArray[np.float32] = (LEVEL * fade * np.sin(2 * math.pi * frequencies * time)).astype(
        np.float32
    )
    return tones


_TONES: Final = _make_tones()


def tone_of_slot(slot: int) -> Samples:
    """Return the samples, of full scale 1, that carry the time in ``slot``."""
    tone: Samples = _TONES[symbol_of_slot(slot)]
    return tone


class AudioTimeReader:
    """Reads the time code from sound that arrives frame by frame, and so measures its latency.

    Sans-IO: give it each frame with the time at which it arrived.
    """

    def __init__(self) -> None:
        self._samples: Samples = np.zeros(0, np.float32)
        # Per hop: when its middle is played, and how strong each tone is.
        self._hops: deque[tuple[float, npt.NDArray[np.float32]]] = deque(maxlen=_WORD_HOPS)

    def reset(self) -> None:
        """Forget what was heard: what comes next does not continue it."""
        self._samples = np.zeros(0, np.float32)
        self._hops.clear()

    def hear(self, samples: Samples, arrived_at: float) -> list[float]:
        """Take a frame (mono, 48 kHz) and return the latencies, in seconds, of the words that it completed.

        The latency of a sound is from the time at which its source handed it over to the time at which it
        would be played, if each frame were played when it arrived.
        """
        # The time at which the first sample of what is kept is played, if arrival is smooth.
        start = arrived_at - len(self._samples) / SAMPLE_RATE
        self._samples = np.concatenate((self._samples, samples))
        latencies = []
        offset = 0
        for strengths in self._strengths():
            self._hops.append((start + offset / SAMPLE_RATE, strengths))
            if (latency := self._read_word()) is not None:
                latencies.append(latency)
            offset += _HOP
        self._samples = self._samples[offset:]
        return latencies

    def _strengths(self) -> npt.NDArray[np.float32]:
        """Return how strong each tone is, hop by hop, over all whole slots of what is kept."""
        if len(self._samples) < SLOT_SAMPLES:
            return np.zeros((0, len(_TONE_BINS)), np.float32)
        slots = np.lib.stride_tricks.sliding_window_view(self._samples, SLOT_SAMPLES)[::_HOP]
        waves = (slots @ _ANALYSIS).reshape(len(slots), 2, -1)
        strengths: npt.NDArray[np.float32] = np.hypot(waves[:, 0], waves[:, 1])
        return strengths

    def _read_word(self) -> float | None:
        """Read the word whose sync tone was in the second-oldest hop, if there is one."""
        hops = self._hops
        if len(hops) < _WORD_HOPS:
            return None
        before, sync, after = (float(hops[i][1][SYNC]) for i in (0, 1, 2))
        if sync < before or sync <= after or int(hops[1][1].argmax()) != SYNC:
            return None
        word = 0
        for place in range(1, WORD_SLOTS):
            levels = hops[1 + place * _SLOT_HOPS][1]
            symbol = int(levels.argmax())
            if symbol == SYNC:
                return None
            word = word << 4 | symbol
        number = word >> 8
        if word & 0xFF != _check(number):
            return None
        # A parabola through the three hops finds the middle of the sync tone between them.
        bend = before - 2 * sync + after
        shift = 0.5 * (before - after) / bend if bend else 0.0
        played_at = hops[1][0] + shift * _HOP / SAMPLE_RATE
        word_s = WORD_SLOTS * SLOT_S
        period = 1 << NUMBER_BITS
        number += round((played_at / word_s - number) / period) * period
        latency = played_at - number * word_s
        return latency if -SLOT_S < latency < MAX_LATENCY_S else None
