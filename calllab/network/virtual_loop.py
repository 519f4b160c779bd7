"""An asyncio event loop whose clock jumps: a minute of a call takes as long as its work takes.

Theory.  A loop waits for what comes from outside and for timers.  Here nothing comes from outside: no
sockets, no threads, no other process.  So when nothing is runnable, the clock is set to the next timer at
once.  Everything that happens follows from what the program does and from the seed:

- callbacks run in the order in which they were scheduled, timers with equal deadlines too (asyncio's own heap
  does not promise that);
- tasks hash by their number, so that sets of tasks have one order;
- what would run in a thread pool runs at once, and its result arrives when the virtual time it costs is over;
- everything random comes from ``entropy``.

A program that waits for something which can no longer happen would wait for ever, and one that polls without
sleeping, or sleeps for next to no time, would stop the clock: both end with
:exc:`~calllab.errors.SimulationStuck`, which names who waits.  So does one that is not done at ``until_s``,
which is how waiting for ever is found while something else goes on.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
from asyncio import base_events, events
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Final, Literal

from calllab.errors import SimulationStuck

__all__ = ["CodecMode", "VirtualLoop"]

CodecMode = Literal["real", "stand-in"]
"""Whether media is really encoded and decoded, or carried by packets of the right size."""

EPOCH: Final = 1_767_225_600.0
"""What the calendar says when the clock of a virtual loop is at 0: the first of January 2026, UTC."""

MOMENT_S: Final = 0.001
MAX_TURNS_AT_ONCE: Final = 100_000
"""So many turns of the loop in one moment are a program that polls; 25 calls take 500 at most."""

CLEAN_UP_S: Final = 60.0
"""How long those who are cancelled at the end may take."""

_NAMED: Final = 12


class _Timer(events.TimerHandle):
    """A timer that comes after all those with the same deadline that were set before it."""

    __slots__ = ("sequence",)
    sequence: int
    _scheduled: bool
    _when: float

    def __lt__(self, other: Any) -> bool:
        mine, theirs = self._when, other._when
        if mine != theirs:
            return bool(mine < theirs)
        return bool(self.sequence < other.sequence)


class _Task(asyncio.Task[Any]):
    """A task that hashes by its number."""

    def __init__(self, number: int, *args: Any, **kwargs: Any) -> None:
        self._number = number
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Jump:
    """Stands where the selector would: it never waits, it moves the clock to the next timer."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.turn(timeout)
        return []


class VirtualLoop(base_events.BaseEventLoop):
    """An event loop in virtual time, which starts at 0.

    :param seed: ``entropy`` follows from it.
    :param codecs: how media is encoded on this loop.
    :param until_s: the time at which the program must be done; None: it may go on for ever.
    """

    is_simulated: Final = True
    _scheduled: list[_Timer]
    _closed: bool

    def __init__(self, *, seed: int = 0, codecs: CodecMode = "real", until_s: float | None = None) -> None:
        super().__init__()
        self.entropy = random.Random(f"loop/{seed}")
        self.codecs: CodecMode = codecs
        self.jumps = 0
        """How often the clock was moved."""
        self.object_numbers = itertools.count(1)
        """Numbers for objects of the libraries that are kept in sets."""
        self._at_close: dict[Callable[[], None], None] = {}
        self._now = 0.0
        self._clock_resolution = 1e-9
        self._selector = _Jump(self)
        self._until_s = until_s if until_s is not None else math.inf
        self._moment = 0.0  # the beginning of what counts as one moment
        self._turns_at_once = 0
        self._timer_numbers = itertools.count()
        self._task_numbers = itertools.count(1)
        self.set_task_factory(self._make_task)

    # The clock

    def time(self) -> float:
        """Return the virtual time, in seconds since the loop was made."""
        return self._now

    def wall_time(self) -> float:
        """Return the virtual time as Unix seconds."""
        return EPOCH + self._now

    def call_at(  # type: ignore[override]  # the stubs bind the types of the arguments
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call something at a virtual time; of those with equal times, in the order of the calls to this.

        A time that is infinitely far away never comes.  Raises ValueError for NaN.
        """
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if when != when:
            raise ValueError("a timer needs a time, not NaN")
        timer = _Timer(when, callback, args, self, context)
        timer.sequence = next(self._timer_numbers)
        if when == math.inf:
            return timer
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def turn(self, timeout: float | None) -> None:
        """Move the clock, if nothing is runnable now.

        Raises :exc:`~calllab.errors.SimulationStuck` if it would never move again.
        """
        if timeout is None:
            raise SimulationStuck(
                f"nothing will ever happen again at {self._now:g} s of virtual time: {self._waiting()}"
            )
        self._turns_at_once += 1
        if timeout > 0:
            # The very time of the timer: now + timeout may be off by a rounding error.
            at = max(self._now, self._scheduled[0].when())
            if at > self._until_s:
                over_s = self._until_s
                self._until_s += CLEAN_UP_S
                raise SimulationStuck(f"{over_s:g} s of virtual time are over: {self._waiting()}")
            self._now = at
            self.jumps += 1
            if at >= self._moment + MOMENT_S:
                self._moment = at
                self._turns_at_once = 0
        if self._turns_at_once > MAX_TURNS_AT_ONCE:
            # Those who are cancelled now shall have turns to clean up in.
            self._turns_at_once = 0
            raise SimulationStuck(
                f"{MAX_TURNS_AT_ONCE} turns of the loop took the clock from {self._moment:.10g} s no further "
                f"than {self._now:.10g} s, so something polls without sleeping: {self._waiting()}"
            )

    def _waiting(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=hash)
        if not tasks:
            return "no task is left"
        named = ", ".join(_describe(task) for task in tasks[:_NAMED])
        more = f" and {len(tasks) - _NAMED} more" if len(tasks) > _NAMED else ""
        return f"{len(tasks)} tasks wait: {named}{more}"

    # The end

    def at_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call something when the loop closes, after all tasks have ended; return what takes it back."""
        self._at_close[callback] = None
        return lambda: self._at_close.pop(callback, None)

    def close(self) -> None:
        """Close the loop, and end what belongs to it."""
        while self._at_close and not self.is_running():
            self._at_close.popitem()[0]()
        super().close()

    # What asyncio asks of a loop

    def run_in_executor(  # type: ignore[override]  # as call_at
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run something now, and give its result when the time it costs is over.

        The cost is what a method ``simulated_cost_s`` of the function's owner says for the same arguments.
        """
        owner = getattr(func, "__self__", None)
        ask = getattr(owner, "simulated_cost_s", None)
        cost_s: float = ask(*args) if ask is not None else 0.0
        future: asyncio.Future[Any] = self.create_future()
        try:
            outcome, error = func(*args), None
        except Exception as exc:
            outcome, error = None, exc
        if cost_s > 0:
            self.call_later(cost_s, _settle, future, outcome, error)
        else:
            _settle(future, outcome, error)
        return future

    async def getaddrinfo(self, host: Any, port: Any, **_options: Any) -> Any:
        """Refuse: there is no name service but that of the virtual network."""
        raise OSError(f"{host} cannot be resolved in virtual time: only hosts of the virtual network exist")

    async def create_datagram_endpoint(self, *_args: Any, **_options: Any) -> Any:
        """Refuse: there are no sockets but those of the virtual network."""
        raise OSError("there are no real sockets in virtual time: give the peer a host of a virtual network")

    async def create_connection(self, *_args: Any, **_options: Any) -> Any:
        """Refuse: there are no sockets but those of the virtual network."""
        raise OSError("there are no real connections in virtual time")

    async def create_server(self, *_args: Any, **_options: Any) -> Any:
        """Refuse: nobody could connect."""
        raise OSError("there are no real servers in virtual time")

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        """Refuse: there is no name service but that of the virtual network."""
        raise OSError(f"{sockaddr} has no name in virtual time")

    def _make_task(
        self,
        _loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any] | Generator[Any, Any, Any],
        **options: Any,
    ) -> _Task:
        return _Task(next(self._task_numbers), coroutine, loop=self, **options)

    def _process_events(self, _events: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass  # nobody sleeps who would have to be woken


def _settle(future: asyncio.Future[Any], outcome: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(outcome)


def _describe(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    name = getattr(coroutine, "__qualname__", type(coroutine).__name__)
    frames = task.get_stack(limit=1)
    where = f" at {frames[0].f_code.co_filename.rpartition('/')[2]}:{frames[0].f_lineno}" if frames else ""
    return f"{task.get_name()} ({name}{where})"
