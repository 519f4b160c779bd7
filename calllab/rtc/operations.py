"""The operations chain: one operation at a time, in the order of the calls (webrtc-pc section 4.4.1.2)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from calllab.rtc.errors import InvalidStateError

__all__ = ["OperationsChain"]

Result = TypeVar("Result")


class OperationsChain:
    """Runs operations one after the other and tells when it has become empty.

    An operation takes its place at the moment of the call, before anybody awaits it: that the chain is not
    empty keeps negotiationneeded from firing between a handler's call and the operation's beginning.  One
    whose caller was cancelled while it waited for its turn never starts; one that has started is the head of
    the chain until it ends.
    """

    def __init__(self, on_empty: Callable[[], None]) -> None:
        self._on_empty = on_empty
        self._turns: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_empty(self) -> bool:
        """Whether no operation runs or waits."""
        return not self._turns

    def run(self, name: str, operation: Callable[[], Awaitable[Result]]) -> Coroutine[Any, Any, Result]:
        """Run ``operation`` when all earlier ones have ended; await the result to know how it ended.

        The operation is in the chain when this returns.  The result is a coroutine, so that it can be
        awaited, gathered or made a task like any other; it raises InvalidStateError once the connection is
        closed.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        if not self._closed:
            self._turns.append(turn)
        task = loop.create_task(self._run(name, turn, operation))
        self._tasks.add(task)
        task.add_done_callback(partial(self._forget, turn))
        return _outcome(task)

    async def _run(
        self, name: str, turn: asyncio.Future[None], operation: Callable[[], Awaitable[Result]]
    ) -> Result:
        try:
            if turn in self._turns and self._turns[0] is not turn:
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

    def _forget(self, turn: asyncio.Future[None], task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._leave(turn)  # one that was cancelled before its first step never came to leave by itself
        if self._closed and not task.cancelled():
            task.exception()  # nobody has to ask how an operation ended that the closing has ended

    def _leave(self, turn: asyncio.Future[None]) -> None:
        if turn not in self._turns:
            return
        was_head = self._turns[0] is turn
        self._turns.remove(turn)
        if not was_head:
            return
        if self._turns:
            if not self._turns[0].done():
                self._turns[0].set_result(None)
        elif not self._closed:
            self._on_empty()


async def _outcome(task: asyncio.Task[Result]) -> Result:
    return await task
