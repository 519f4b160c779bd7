"""Delivery traces: when a link of changing capacity could carry something, in the format of Mahimahi.

A trace is a text of whole numbers, one to a line: each is a moment, in milliseconds from the beginning, at
which the link can carry 1500 bytes.  A number that stands twice is twice the capacity at that moment.  At the
last one the trace begins anew, so it is also the length of the loop.

What an opportunity does not carry because nothing waits is lost; what waits may share one, and a datagram
that does not fit into the rest of one goes on in the next.  Traces are measured by others and come with their
own terms: calllab brings the reader along, and no trace.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Final

from calllab.errors import InvalidSetting

__all__ = ["OPPORTUNITY_BYTES", "DeliveryTrace", "Opportunities", "read_trace"]

OPPORTUNITY_BYTES: Final = 1500
"""What one delivery opportunity carries, IP header included."""

MAX_TEXT_BYTES: Final = 8 * 1024 * 1024
MAX_OPPORTUNITIES: Final = 1_000_000
MAX_LENGTH_MS: Final = 24 * 3600 * 1000
_MAX_LOOK: Final = 20


@dataclass(frozen=True, eq=False)
class DeliveryTrace:
    """The delivery opportunities of one loop, in order."""

    times_s: tuple[float, ...]
    """When they are, in seconds from the beginning of the loop."""
    length_s: float
    """The length of the loop: that of the last opportunity."""

    @property
    def mean_kbps(self) -> float:
        """The capacity, averaged over the loop."""
        return len(self.times_s) * OPPORTUNITY_BYTES * 8 / 1000.0 / self.length_s

    @classmethod
    def parse(cls, text: str) -> DeliveryTrace:
        """Read a trace; ``T*N`` stands for N opportunities at T, and blanks may stand for line ends.

        Raises :exc:`~calllab.errors.InvalidSetting` with the number of the line that is wrong.
        """
        return _parsed(text)

    def index_at(self, since_s: float) -> tuple[int, int]:
        """Return (loop, index) of the first opportunity at ``since_s`` or later."""
        loop = int(since_s // self.length_s)
        rest_s = since_s - loop * self.length_s
        if loop and rest_s <= 0.0:
            # The end of a loop is the beginning of the next one: the last opportunity is at this moment.
            loop, rest_s = loop - 1, self.length_s
        index = bisect_left(self.times_s, rest_s)
        return (loop, index) if index < len(self.times_s) else (loop + 1, 0)


class Opportunities:
    """The course of a link through its trace.

    The trace begins at the first :meth:`schedule`.  Each datagram is scheduled, and then either carried, or
    not if something else drops it.
    """

    __slots__ = ("_begin", "_index", "_left", "_loop", "_trace")

    def __init__(self, trace: DeliveryTrace) -> None:
        self._trace = trace
        self._begin: float | None = None
        self._loop = 0
        self._index = 0
        self._left = OPPORTUNITY_BYTES
        """What the present opportunity can still carry."""

    def schedule(self, start: float, now: float, size: int) -> tuple[float, float]:
        """Return when the first and the last byte of a datagram go.

        It comes ``now`` and may go from ``start``, which is now or when the one before it has left.
        """
        if self._begin is None:
            self._begin = now
        at = self._time(self._loop, self._index)
        if at < start:
            # Nothing waited since then, so what it still had is lost, as are those in between.
            self._loop, self._index = self._trace.index_at(start - self._begin)
            self._left = OPPORTUNITY_BYTES
            while (at := self._time(self._loop, self._index)) < start:  # by a rounding error
                self._next()
        elif not self._left:
            self._next()
            at = self._time(self._loop, self._index)
        further = -(-(size - self._left) // OPPORTUNITY_BYTES)
        if further <= 0:
            return at, at
        loops, index = divmod(self._index + further, len(self._trace.times_s))
        return at, self._time(self._loop + loops, index)

    def carry(self, size: int) -> None:
        """Use what a datagram of ``size`` bytes takes, from the opportunity it was scheduled for on."""
        while size > self._left:
            size -= self._left
            self._next()
        self._left -= size

    def _next(self) -> None:
        self._left = OPPORTUNITY_BYTES
        self._index += 1
        if self._index == len(self._trace.times_s):
            self._loop, self._index = self._loop + 1, 0

    def _time(self, loop: int, index: int) -> float:
        assert self._begin is not None
        return self._begin + loop * self._trace.length_s + self._trace.times_s[index]


def read_trace(path: Path | str) -> str:
    """Read the trace in a file, check it, and return it as the ``trace`` of a link's settings.

    It comes back without line ends, and shorter, so that a recording that tells the settings stays readable.
    Raises :exc:`~calllab.errors.InvalidSetting` if there is no such file or it holds no trace.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TEXT_BYTES + 1)
        text = raw.decode("ascii")
    except OSError as exc:
        raise InvalidSetting(f"the trace {path} cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidSetting(
            f"the trace {path} holds other things than digits from byte {exc.start} on: "
            "give a text with one time in milliseconds a line"
        ) from exc
    try:
        times_ms = _times_ms(text)
    except InvalidSetting as exc:
        raise InvalidSetting(f"the trace {path}: {exc}") from exc
    return " ".join(
        str(at) if count == 1 else f"{at}*{count}"
        for at, count in ((at, sum(1 for _ in group)) for at, group in groupby(times_ms))
    )


# Settings carry the text, so it is parsed again and again; a run has few traces.
@lru_cache(maxsize=16)
def _parsed(text: str) -> DeliveryTrace:
    times_ms = _times_ms(text)
    seconds = {at: at / 1000.0 for at in times_ms}  # one object for all opportunities of a moment
    return DeliveryTrace(tuple(seconds[at] for at in times_ms), times_ms[-1] / 1000.0)


def _times_ms(text: str) -> list[int]:
    if len(text) > MAX_TEXT_BYTES:
        raise InvalidSetting(f"longer than {MAX_TEXT_BYTES} bytes: cut it down")
    times: list[int] = []
    latest = 0
    for number, line in enumerate(text.split("\n"), 1):
        for word in line.split():
            at_text, star, count_text = word.partition("*")
            if not _is_number(at_text) or (star and not _is_number(count_text)):
                shown = word if len(word) <= _MAX_LOOK else word[:_MAX_LOOK] + "..."
                raise InvalidSetting(f"line {number}: {shown!r} is no time: give whole milliseconds")
            at, count = int(at_text), int(count_text) if star else 1
            if at < latest:
                raise InvalidSetting(f"line {number}: {at} comes after {latest}: times must not go backwards")
            if at > MAX_LENGTH_MS:
                raise InvalidSetting(f"line {number}: {at} is past {MAX_LENGTH_MS}, the end of a day")
            if len(times) + count > MAX_OPPORTUNITIES:
                raise InvalidSetting(
                    f"line {number}: more than {MAX_OPPORTUNITIES} delivery opportunities: cut it down"
                )
            times.extend([at] * count)
            latest = at
    if not times:
        raise InvalidSetting("no delivery opportunity in it: give at least one time in milliseconds")
    if latest == 0:
        raise InvalidSetting("it ends at 0, so the loop has no length: give a last time above 0")
    return times


def _is_number(text: str) -> bool:
    # isdigit() alone takes the digits of all scripts; int() of very many of them is slow, and refused.
    return text.isascii() and text.isdigit() and len(text) <= _MAX_LOOK
