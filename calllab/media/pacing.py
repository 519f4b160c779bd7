"""Tracks that make a frame at each tick of a clock."""

from __future__ import annotations

import asyncio

from calllab._aiortc import MediaStreamError, MediaStreamTrack

__all__ = ["PacedTrack"]


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class PacedTrack(MediaStreamTrack):
    """A track whose frame number ``n`` is due at ``start + n * interval_s`` of the loop's clock.

    The schedule is absolute, so it does not drift.  Who asks late gets a frame at once; who is later than
    ``patience_s`` finds the frames in between skipped, not bunched, and timestamps that say so.  The schedule
    starts with the first frame asked for.

    :param interval_s: the time between frames.
    :param patience_s: how late a frame may be and still be made.
    """

    def __init__(self, interval_s: float, *, patience_s: float) -> None:
        super().__init__()
        self.frames_made = 0
        """How many frames were handed out."""
        self.frames_skipped = 0
        """How many frames nobody fetched in time."""
        self._interval_s = interval_s
        self._patience_s = patience_s
        self._first_tick: int | None = None
        self._next = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def stop(self) -> None:
        """End the track; who waits for a frame is told at once."""
        super().stop()
        for waiter in self._waiting:
            _wake(waiter)

    async def _next_frame(self) -> tuple[int, int]:
        """Wait for the next tick; return its frame's number, and the tick in intervals since loop time 0.

        The first tick lies on a whole number of intervals, so that the number of the tick alone says when a
        frame was due.  Raises MediaStreamError once the track has ended.
        """
        self._check_live()
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._first_tick is None:
            self._first_tick = int(now / self._interval_s) + 1
        due = (self._first_tick + self._next) * self._interval_s
        if now - due > self._patience_s:
            current = int(now / self._interval_s) - self._first_tick
            self.frames_skipped += current - self._next
            self._next = current
            due = (self._first_tick + current) * self._interval_s
        number = self._next
        self._next += 1
        if due > now:
            await self._sleep_until(loop, due)
            self._check_live()
        self.frames_made += 1
        return number, self._first_tick + number

    def _check_live(self) -> None:
        if self.readyState != "live":
            raise MediaStreamError(f"the {self.kind} track {self.id} has ended")

    async def _sleep_until(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        waiter: asyncio.Future[None] = loop.create_future()
        timer = loop.call_at(when, _wake, waiter)
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiting.discard(waiter)
