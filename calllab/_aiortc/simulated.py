"""Clock and chance of the running loop: the machine's own, or those of a simulation.

A simulated loop (:mod:`calllab.network.virtual_loop`) brings a clock that jumps and one seeded source of
everything random.  What asks here follows it; on any other loop, and in threads without one, it gets the
machine's clock and the operating system's entropy.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Protocol, cast

__all__ = ["SimulatedLoop", "entropy", "new_uuid", "simulated_loop", "stopwatch", "wall_time"]


class SimulatedLoop(Protocol):
    """What an event loop in virtual time offers beside asyncio's own methods."""

    is_simulated: bool
    entropy: random.Random
    object_numbers: Iterator[int]

    def time(self) -> float:
        """Return the virtual time of the loop, in seconds."""

    def wall_time(self) -> float:
        """Return the virtual time as Unix seconds."""

    def call_at(
        self, when: float, callback: object, *args: object, context: object = None
    ) -> asyncio.TimerHandle:
        """Call something at a virtual time."""

    def at_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call something when the loop closes; return what takes it back."""

    def call_exception_handler(self, context: dict[str, object]) -> None:
        """Report an error that nobody waits for."""


def simulated_loop() -> SimulatedLoop | None:
    """Return the running loop if it is a simulated one."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None  # a thread without a loop
    return cast(SimulatedLoop, loop) if getattr(loop, "is_simulated", False) else None


def wall_time() -> float:
    """Return Unix seconds."""
    loop = simulated_loop()
    return time.time() if loop is None else loop.wall_time()


def stopwatch() -> float:
    """Return seconds of a clock that only serves to measure how long work takes."""
    loop = simulated_loop()
    return time.perf_counter() if loop is None else loop.time()


def entropy() -> random.Random:
    """Return the source of chance for who was not given one."""
    loop = simulated_loop()
    return random.SystemRandom() if loop is None else loop.entropy


def new_uuid() -> str:
    """Return a random UUID (RFC 9562 version 4)."""
    return str(uuid.UUID(int=entropy().getrandbits(128), version=4))
