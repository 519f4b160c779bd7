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
        self._waiting: deque[tuple[bool, Callable[[], None]]] = deque()
        self._turns_left = 0

    def close_for_a_moment(self) -> None:
        """Hold everything back for a few turns of the event loop."""
        was_open = self._turns_left == 0
        self._turns_left = _TURNS
        if was_open:
            asyncio.get_running_loop().call_soon(self._turn)

    def pass_through(self, news: Callable[[], None], *, of_candidates: bool = False) -> None:
        """Call ``news`` after all that came before it; ``of_candidates``: it is a candidate, or their end."""
        self._waiting.append((of_candidates, news))
        if self._turns_left == 0:
            self._flush()

    def hurry(self) -> None:
        """Tell now what would come too late, as another description is about to change everything; what
        stands behind a candidate waits with it.
        """
        while self._waiting and not self._waiting[0][0]:
            self._waiting.popleft()[1]()

    def drop_candidates(self) -> None:
        """Forget candidates and their end: the description that they belonged to was rolled back."""
        self._waiting = deque(entry for entry in self._waiting if not entry[0])

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
            self._waiting.popleft()[1]()
