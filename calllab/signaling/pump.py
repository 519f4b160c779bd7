"""Moves what passes a lane, on the running loop's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from calllab.signaling.channel import Message
from calllab.signaling.lane import Lane

__all__ = ["Pump"]

T = TypeVar("T")


class Pump(Generic[T]):
    """Takes each item out of a lane when its time has come, and passes it on, one at a time."""

    def __init__(self, lane: Lane[T], forward: Callable[[T], Awaitable[None]]) -> None:
        self.lane = lane
        self._forward = forward
        self._wake = asyncio.Event()
        self._left = asyncio.Event()
        self._turn = asyncio.Lock()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way, so that a message may go past the lane."""
        return self.lane.is_empty and not self._turn.locked()

    def put(self, message: Message, item: T) -> None:
        """Let a message, and the item that stands for it, enter the lane."""
        self.lane.put(message, asyncio.get_running_loop().time(), item)
        self.wake()

    def wake(self) -> None:
        """Look again at what may go on."""
        self._wake.set()

    async def room(self, limit: int) -> None:
        """Wait until fewer than ``limit`` items are in the lane."""
        while len(self.lane) >= limit:
            self._left.clear()
            await self._left.wait()

    async def flush(self) -> None:
        """Pass on everything whose time has come."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            while (item := self.lane.take(loop.time())) is not None:
                self._left.set()
                await self._forward(item)

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if not self.lane.is_empty:
                await self.flush()
            next_s = self.lane.next_s(loop.time())
            timer = None if next_s is None else loop.call_at(next_s, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()
