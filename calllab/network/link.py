"""One direction of a link under test, without clock or sockets.

The stages, in the order in which a datagram meets them::

    blackout -> [loss] -> bottleneck (queue, rate or trace) -> [loss] -> delay, jitter -> reorder -> duplicate

Loss stands behind the bottleneck unless ``loss_before_queue`` moves it in front.

Chance is tied to the index of a datagram: each one offered takes exactly two 64-bit draws, one from the
loss stream and one from the delay stream of the link, and each stage reads its own bits of them, needed or
not.  So the datagrams that a link loses depend on its seed, its name and their index alone, and switching
other stages on or off, or a queue that drops some, leaves the pattern as it was.
"""

from __future__ import annotations

import hashlib
import math
import random
from typing import Final

from calllab.network.counters import LinkCounters
from calllab.network.delay import JITTER_STEPS, DelayModel
from calllab.network.loss import LossModel
from calllab.network.rate import Bottleneck
from calllab.network.settings import CLEAN, LinkSettings

__all__ = ["Link"]

_LOW_32: Final = 0xFFFF_FFFF
_UNIT_32: Final = 2.0**-32
_TWO_24: Final = 2**24
_LOW_24: Final = 0xFF_FFFF
_DROPPED: Final[tuple[float, ...]] = ()


def _substream(seed: int, link: str, stage: str) -> random.Random:
    digest = hashlib.blake2b(f"{seed}/{link}/{stage}".encode(), digest_size=16).digest()
    return random.Random(int.from_bytes(digest, "big"))


class Link:
    """Decides for each datagram of one direction when it is delivered, if at all, and how often.

    Two links with the same seed, name, settings and input decide alike.  Settings may change at any time:
    what has been decided stands, and nothing offered later overtakes it, unless reordering is asked for.

    :param seed: the seed of the run.
    :param name: tells links of one run apart, like ``"alice->bob"``.
    """

    def __init__(self, settings: LinkSettings = CLEAN, *, seed: int = 0, name: str = "link") -> None:
        self.name = name
        self.counters = LinkCounters()
        """What happened so far; live, so copy() it to keep it."""
        self._loss = LossModel(settings)
        self._bottleneck = Bottleneck(settings, self.counters)
        self._delay = DelayModel(settings)
        self._take(settings)
        self._loss_bits = _substream(seed, name, "loss").getrandbits
        self._delay_bits = _substream(seed, name, "delay").getrandbits
        self._now = -math.inf
        self._latest = -math.inf  # the latest delivery decided so far, held-back datagrams aside

    @property
    def settings(self) -> LinkSettings:
        """What the link does now."""
        return self._settings

    def set(self, settings: LinkSettings, now: float | None = None) -> None:
        """Do as ``settings`` say from the next datagram on; what is under way keeps its time and place.

        :param now: when that is: a token bucket fills at the old rate until then.  None: when the last
            datagram was offered.
        """
        if now is not None and now > self._now:
            self._now = now
        self._loss.set(settings)
        self._bottleneck.set(settings, self._now)
        self._delay.set(settings)
        self._take(settings)

    def _take(self, settings: LinkSettings) -> None:
        self._settings = settings
        # Shares as bounds on 24 bits of a draw.
        self._reorder_below = math.ceil(settings.reorder * _TWO_24)
        self._duplicate_below = math.ceil(settings.duplicate * _TWO_24)

    def queued_bytes(self, now: float) -> int:
        """Return how many bytes, with overhead, wait in front of the bottleneck or are being sent."""
        return self._bottleneck.queued_bytes(now)

    def offer(self, now: float, size: int) -> tuple[float, ...]:
        """Take a datagram of ``size`` bytes of payload at ``now`` seconds and return when to deliver it.

        Empty: it is dropped.  Two times: it is duplicated.  Of datagrams with the same time, the one offered
        first is delivered first.  Time that goes backwards counts as standing still.
        """
        if now < self._now:
            now = self._now
        self._now = now
        settings, counters = self._settings, self.counters
        counters.offered += 1
        counters.offered_bytes += size

        loss_bits, delay_bits = self._loss_bits(64), self._delay_bits(64)
        lost = self._loss.loses((loss_bits >> 32) * _UNIT_32, (loss_bits & _LOW_32) * _UNIT_32)
        delay_s = self._delay.delay_s(delay_bits % JITTER_STEPS)

        if settings.blackout:
            counters.blackout_dropped += 1
            return _DROPPED
        if lost and settings.loss_before_queue:
            counters.lost += 1
            return _DROPPED
        left = self._bottleneck.admit(now, size)
        if left is None:
            return _DROPPED
        if lost:
            counters.lost += 1
            return _DROPPED

        at = left + delay_s
        if at >= self._latest:
            self._latest = at
        elif not settings.allow_reordering:
            at = self._latest
        if delay_bits >> 40 < self._reorder_below:
            counters.held_back += 1
            at += settings.reorder_hold_ms / 1000.0

        if (delay_bits >> 16) & _LOW_24 < self._duplicate_below:
            counters.duplicated += 1
            counters.delivered += 2
            counters.delivered_bytes += 2 * size
            return (at, at)
        counters.delivered += 1
        counters.delivered_bytes += size
        return (at,)
