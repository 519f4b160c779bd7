"""The operations chain: one operation at a time, in the order of the calls (webrtc-pc section 4.4.1.2)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from calllab.rtc.errors import InvalidStateError

__all__ = ["OperationsChain"]

Result = TypeVar("Result")


class OperationsChain:
    """Runs operations one after the other and tells when it has become empty.

    An operation whose caller was cancelled while it waited for its turn never starts; one that has started is
    the head of the chain until it ends.
    """

    def __init__(self, on_empty: Callable[[], None]) -> None:
        self._on_empty = on_empty
        self._turns: deque[asyncio.Future[None]] = deque()
        self._closed = False

    @property
    def is_empty(self) -> bool:
        """Whether no operation runs or waits."""
        return not self._turns

    async def run(self, name: str, operation: Callable[[], Awaitable[Result]]) -> Result:
        """Run ``operation`` when all earlier ones have ended; raises InvalidStateError once closed."""
        self._refuse_if_closed(name)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            if self._turns[0] is not turn:
                await turn
                self._refuse_if_closed(name)
            return await operation()
        finally:
            self._leave(turn)

    def close(self) -> None:
        """Refuse all further operations; those that wait are refused as their turn comes."""
        self._closed = True
        if self._turns and not self._turns[0].done():
            self._turns[0].set_result(None)

    def _refuse_if_closed(self, name: str) -> None:
        if self._closed:
            raise InvalidStateError(f"{name}() on a closed connection: make a new RTCPeerConnection")

    def _leave(self, turn: asyncio.Future[None]) -> None:
        was_head = self._turns[0] is turn
        self._turns.remove(turn)
        if not was_head:
            return
        if self._turns:
            if not self._turns[0].done():
                self._turns[0].set_result(None)
        elif not self._closed:
            self._on_empty()
