"""When a connected path is alive, in doubt, or dead: a sans-IO core.

Theory.  A path is checked by Binding requests on the selected pair: they keep consent to send (RFC 7675),
keep NAT bindings open and measure the round trip.  Two clocks run: since the last valid answer, and since
anything at all was received.

    connected --no answer, or nothing received, for ``disconnected_after_s``--> disconnected
    disconnected --both clocks fresh again--> connected
    connected | disconnected --no answer for ``consent_s``--> failed

Failed is the end: consent once lost is regained only by an ICE restart (RFC 7675 section 5.1).  A peer that
loses our packets cannot answer, and one whose packets are lost is not heard; so both ends of a one-way
outage come to see it.

While answers come, checks are ``check_interval_s`` apart (varied by a fifth, so that peers do not lock step).
A check without an answer is followed by others ``overdue_interval_s`` apart: random loss must take all of
them to look like an outage.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

__all__ = ["IceTimers", "Liveness", "LivenessState"]

LivenessState = Literal["connected", "disconnected", "failed"]

# How many overdue intervals an answer may take before the check is asked again.
_PATIENCE = 2


@dataclass(frozen=True, slots=True)
class IceTimers:
    """The times of an ICE agent, in seconds."""

    check_interval_s: float = 2.5
    """Between checks of the selected pair that are answered."""
    overdue_interval_s: float = 0.25
    """Between checks while an answer is overdue."""
    disconnected_after_s: float = 5.0
    consent_s: float = 30.0
    """How long a valid answer gives consent to send (RFC 7675 section 5.1)."""
    connect_timeout_s: float = 15.0
    """How long a generation may look for a pair after its start or its last remote candidate."""
    gather_timeout_s: float = 5.0
    """How long a server may take to give a candidate."""
    direct_search_s: float = 5.0
    """How long direct pairs are still checked when a relayed one was the first to work."""
    retire_after_s: float = 3.0
    """How long a replaced generation still receives."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")
        if self.consent_s < self.disconnected_after_s:
            raise ValueError(
                f"consent_s ({self.consent_s}) must not be less than disconnected_after_s "
                f"({self.disconnected_after_s})"
            )


class Liveness:
    """Decides when to check the selected pair, and what the answers say.

    Call :meth:`sent`, :meth:`answered` and :meth:`received` as these things happen; read :meth:`state` and
    :meth:`next_event` afterwards.  Times are seconds of one clock.
    """

    def __init__(self, timers: IceTimers, entropy: random.Random, now: float) -> None:
        self._timers = timers
        self._entropy = entropy
        self._last_answer = now
        self._last_received = now
        self._next_check = now
        self._unanswered = 0
        self._failed = False

    def sent(self, now: float) -> None:
        """A check was sent."""
        patience = _PATIENCE if self._unanswered == 0 else 1
        self._unanswered += 1
        self._next_check = now + self._timers.overdue_interval_s * patience

    def answered(self, now: float, sent_at: float) -> None:
        """A valid answer arrived to the check that was sent at ``sent_at``."""
        self._last_answer = now
        self._unanswered = 0
        # From the sending, not the answer: else a long round trip would space the answers out too far.
        self._next_check = max(now, sent_at + self._timers.check_interval_s * self._entropy.uniform(0.8, 1.2))
        self.received(now)

    def received(self, now: float) -> None:
        """Anything arrived from the peer."""
        self._last_received = now

    def state(self, now: float) -> LivenessState:
        """Return what is known of the path now; once failed, it stays failed."""
        if self._failed or now >= self._last_answer + self._timers.consent_s:
            self._failed = True
            return "failed"
        doubt_at = min(self._last_answer, self._last_received) + self._timers.disconnected_after_s
        return "disconnected" if now >= doubt_at else "connected"

    def check_due(self, now: float) -> bool:
        """Whether a check is to be sent now."""
        return not self._failed and now >= self._next_check

    def next_event(self, now: float) -> float:
        """Return the time by which to look again: the next check, or a change of state if nothing arrives."""
        timers = self._timers
        doubt_at = min(self._last_answer, self._last_received) + timers.disconnected_after_s
        times = [self._next_check, self._last_answer + timers.consent_s]
        if doubt_at > now:
            times.append(doubt_at)
        return min(times)
