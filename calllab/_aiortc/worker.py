"""aiortc's decoder thread, as a thread or, in virtual time, as a greenlet on the loop.

aiortc runs ``decoder_worker`` (rtcrtpreceiver.py:63) in a thread that takes encoded frames from a queue.  In
virtual time a thread would finish whenever the machine pleases.  There the same function runs in a greenlet
instead: it parks where it waits for a frame, and goes on when the virtual clock says that the frame before is
decoded.  What decoding costs there is the host's to say.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import greenlet

from calllab._aiortc.simulated import simulated_loop

__all__ = ["DecoderThreads", "WorkerQueue"]


class WorkerQueue(queue.Queue[Any]):
    """A queue of jobs; in virtual time it also drives the worker that empties it.

    ``cost_s`` says how long a job takes there.
    """

    def __init__(self, cost_s: Callable[[Any], float]) -> None:
        super().__init__()
        self._cost_s = cost_s
        self.last_cost_s = 0.0
        """What the latest job cost; 0 in a thread, whose time passes by itself."""
        self._worker: _Greenlet | None = None

    def attach(self, worker: _Greenlet) -> None:
        """Hand the jobs to a greenlet from now on."""
        self._worker = worker

    def cost_s(self, job: Any) -> float:
        """Return what a job costs; the end of all work costs nothing."""
        self.last_cost_s = 0.0 if job is None else self._cost_s(job)
        return self.last_cost_s

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next job; in a greenlet, park until there is one whose time has come."""
        if self._worker is not None and block and self._worker.inside:
            return self._worker.next_job()
        return super().get(block, timeout)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add a job; None ends the worker."""
        super().put(item, block, timeout)
        if self._worker is not None:
            self._worker.wake()


class _Greenlet:
    """Looks like a thread; runs on the loop, one job at a time, each as long as it costs."""

    def __init__(self, target: Callable[..., None], jobs: WorkerQueue, args: tuple[Any, ...]) -> None:
        loop = simulated_loop()
        assert loop is not None
        self._loop = loop
        self._jobs = jobs
        self._greenlet = greenlet.greenlet(lambda: self._run(target, args))
        # Nobody else can: what a parked greenlet holds, its own worker among it, is invisible to the garbage
        # collector.
        self._stays = loop.at_close(self._kill)
        self._ready: deque[Any] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def inside(self) -> bool:
        """Whether the worker itself is what runs now."""
        return greenlet.getcurrent() is self._greenlet

    def start(self) -> None:
        """Run up to the first wait."""
        self._jobs.attach(self)
        self._resume()
        self.wake()

    def _run(self, target: Callable[..., None], args: tuple[Any, ...]) -> None:
        try:
            target(*args)
        except Exception as exc:
            # As with a thread, an error ends the worker and reaches nobody who waits.
            self._loop.call_exception_handler({"message": "a decoder failed and has ended", "exception": exc})
        finally:
            self._stays()

    def next_job(self) -> Any:
        """Park until a job is ready (called by the worker)."""
        while not self._ready:
            parent = self._greenlet.parent
            assert parent is not None
            parent.switch()
        return self._ready.popleft()

    def wake(self) -> None:
        """Begin the next job if none is being worked on."""
        if self._timer is not None or self._greenlet.dead:
            return
        try:
            job = queue.Queue.get(self._jobs, block=False)
        except queue.Empty:
            return
        cost_s = self._jobs.cost_s(job)
        self._timer = self._loop.call_at(self._loop.time() + cost_s, self._done, job)

    def _done(self, job: Any) -> None:
        self._timer = None
        self._ready.append(job)
        self._resume()
        self.wake()

    def join(self, timeout: float | None = None) -> None:
        """Let the worker finish what waits, and end; what it is at is given up."""
        self._forget_timer()
        while not self._greenlet.dead:
            try:
                self._ready.append(queue.Queue.get(self._jobs, block=False))
            except queue.Empty:
                self._ready.append(None)
            self._resume()

    def _kill(self) -> None:
        self._forget_timer()
        if not self._greenlet.dead:
            self._greenlet.parent = greenlet.getcurrent()
            self._greenlet.throw(greenlet.GreenletExit)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def is_alive(self) -> bool:
        """Whether the worker has not ended."""
        return not self._greenlet.dead

    def _resume(self) -> None:
        self._greenlet.parent = greenlet.getcurrent()
        self._greenlet.switch()


class DecoderThreads:
    """Stands in for the module ``threading`` where aiortc makes its decoder thread."""

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)

    @staticmethod
    def Thread(*, target: Callable[..., None], name: str, args: tuple[Any, ...]) -> Any:
        """Make the worker: a greenlet if its queue is ours and the loop is simulated, else a thread."""
        jobs = next((arg for arg in args if isinstance(arg, WorkerQueue)), None)
        if jobs is None or simulated_loop() is None:
            return threading.Thread(target=target, name=name, args=args)
        return _Greenlet(target, jobs, args)
