"""The two ordered channels between explored peers, by number."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Channels", "Waiting"]


class Waiting(NamedTuple):
    """A message that may be taken out of a channel, and what remains."""

    position: int
    message: int
    rest: int


class Channels:
    """Contents of channels by number; the empty channel is 0.

    With ``ordered`` only the oldest message can be taken.  A loss or a duplicate of a later one need not be
    explored: nothing tells it from the same fault at the moment when that message has become the oldest.
    """

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._contents: list[tuple[int, ...]] = [()]
        self._numbers: dict[tuple[int, ...], int] = {(): 0}
        self._pushed: dict[tuple[int, tuple[int, ...]], int] = {}
        self._waiting: dict[int, tuple[Waiting, ...]] = {}

    def push(self, channel: int, sent: tuple[int, ...]) -> int:
        """Return a channel with some messages more."""
        if not sent:
            return channel
        key = (channel, sent)
        if (known := self._pushed.get(key)) is None:
            known = self._pushed[key] = self._number(self._contents[channel] + sent)
        return known

    def waiting(self, channel: int) -> tuple[Waiting, ...]:
        """Return what may be taken out next."""
        if (known := self._waiting.get(channel)) is None:
            content = self._contents[channel]
            positions = range(len(content) if not self._ordered else min(1, len(content)))
            # Equal messages are the same message: one of them is enough.
            known = self._waiting[channel] = tuple(
                Waiting(at, content[at], self._number(content[:at] + content[at + 1 :]))
                for at in positions
                if content[at] not in content[:at]
            )
        return known

    def content(self, channel: int) -> tuple[int, ...]:
        """Return the messages in a channel, the oldest first."""
        return self._contents[channel]

    def _number(self, content: tuple[int, ...]) -> int:
        number = self._numbers.setdefault(content, len(self._contents))
        if number == len(self._contents):
            self._contents.append(content)
        return number
