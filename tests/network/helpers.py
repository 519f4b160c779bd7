"""A loop whose clock jumps, and sockets that keep what they are handed."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings

from calllab.network import Link, LinkSettings

T = TypeVar("T")

STEADY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For property tests: a busy machine makes them slow, not wrong."""

HERE = ("192.0.2.1", 4000)


class _JumpingSelector(selectors.BaseSelector):
    """Never waits: it moves the clock to the next timer instead."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "the loop would wait for ever: nothing is scheduled"
        self.now += max(0.0, timeout)
        return self._real.select(0)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in which sleeping takes no time, and timers fire exactly when they are due."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    @property
    def timers(self) -> int:
        """How many timers are set."""
        return sum(not handle.cancelled() for handle in self._scheduled)  # type: ignore[attr-defined]


def run_jumping(main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function on a :class:`JumpingLoop`."""

    async def call() -> T:
        return await main()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(call())


class Wire:
    """Takes what an interface delivers, with the time at which it does."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[float, bytes]] = []

    def __call__(self, data: bytes, address: tuple[str, int]) -> None:
        assert address == HERE
        self.arrivals.append((asyncio.get_running_loop().time(), data))

    @property
    def numbers(self) -> list[int]:
        """What arrived, read as numbers."""
        return [int.from_bytes(data, "big") for _, data in self.arrivals]


def offer_all(
    link: Link, count: int, *, spacing_s: float = 0.01, size: int = 1000
) -> list[tuple[float, tuple[float, ...]]]:
    """Offer ``count`` datagrams at an even pace; return when each was offered, and when it is delivered."""
    return [(at, link.offer(at, size)) for at in (index * spacing_s for index in range(count))]


def lost_indices(settings: LinkSettings, *, seed: int = 7, count: int = 5000) -> list[int]:
    """Return which of ``count`` datagrams the loss model takes; queue and blackout take none of these."""
    link = Link(settings, seed=seed)
    lost = []
    for index in range(count):
        before = link.counters.lost
        link.offer(index * 0.01, 1000)
        if link.counters.lost > before:
            lost.append(index)
    return lost
