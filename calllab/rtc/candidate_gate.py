"""Holding news about candidates back until their description can be on its way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["CandidateGate"]

# A peer refuses a candidate whose description it has not seen.  In a browser the continuation of
# setLocalDescription() runs before any event; here it may be several loop turns away when the call is
# wrapped in a task, in asyncio.shield() and in asyncio.wait_for(), each of which costs two.
_TURNS: Final = 8


class CandidateGate:
    """Lets callables through in order, at once or when it opens again."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._turns_left = 0

    def close_for_a_moment(self) -> None:
        """Hold everything back for a few turns of the event loop."""
        was_open = self._turns_left == 0
        self._turns_left = _TURNS
        if was_open:
            asyncio.get_running_loop().call_soon(self._turn)

    def pass_through(self, news: Callable[[], None]) -> None:
        """Call ``news`` after all that came before it."""
        self._waiting.append(news)
        if self._turns_left == 0:
            self._flush()

    def drop(self) -> None:
        """Forget what is held back."""
        self._waiting.clear()

    def _turn(self) -> None:
        self._turns_left -= 1
        if self._turns_left > 0:
            asyncio.get_running_loop().call_soon(self._turn)
        else:
            self._flush()

    def _flush(self) -> None:
        while self._waiting and self._turns_left == 0:
            self._waiting.popleft()()
