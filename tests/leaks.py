"""What a test may leave behind: nothing.

A :class:`Census` counts what the operating system and the interpreter know of this process; two of them are
compared around each test.  Things that end by themselves a moment later (a socket whose transport closes on
the next loop turn, a thread that is being joined) get a short grace.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRACE_S = 3.0

# Threads of the process, not of a test: the event loop's pool, which its runner ends, and the suite's timer.
_LASTING_THREADS = ("asyncio_", "pytest_timeout")


def open_sockets() -> Counter[str]:
    """Return the sockets that this process holds, by their kernel names."""
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith("socket:"):
            found[target] += 1
    return found


def child_processes() -> set[int]:
    """Return the ids of the children of this process that have not ended."""
    children: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            children.update(int(pid) for pid in (task / "children").read_text().split())
        except OSError:
            continue
    return children


def lasting_threads() -> set[threading.Thread]:
    """Return the threads that a test would have had to end."""
    return {t for t in threading.enumerate() if t.is_alive() and not t.name.startswith(_LASTING_THREADS)}


@dataclass(frozen=True)
class Census:
    """The sockets, threads, children and temporary files of this process at one moment."""

    sockets: Counter[str]
    threads: set[threading.Thread]
    children: set[int]
    files: set[Path]

    @classmethod
    def take(cls, temporary: Path) -> Census:
        """Count now; ``temporary`` is the folder in which this test's temporary files land."""
        return cls(open_sockets(), lasting_threads(), child_processes(), set(temporary.iterdir()))

    def left_since(self, before: Census) -> list[str]:
        """Return a sentence for each thing that is here now and was not before."""
        left = [f"socket {name}" for name in self.sockets - before.sockets]
        left += [f"thread {thread.name}" for thread in self.threads - before.threads]
        left += [f"child process {pid}" for pid in self.children - before.children]
        left += [f"temporary file {path.name}" for path in self.files - before.files]
        return left


def assert_nothing_left(before: Census, temporary: Path) -> None:
    """Fail unless all that appeared since ``before`` is gone within the grace."""
    deadline = time.monotonic() + GRACE_S
    while left := Census.take(temporary).left_since(before):
        if time.monotonic() > deadline:
            raise AssertionError("left behind by this test: " + ", ".join(sorted(left)))
        gc.collect()
        time.sleep(0.02)


def guard_tasks(test: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Wrap a coroutine test so that it fails if a task that it started outlives it."""

    @functools.wraps(test)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        before = asyncio.all_tasks()
        result = await test(*args, **kwargs)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GRACE_S
        while left := asyncio.all_tasks() - before:
            if loop.time() > deadline:
                names = ", ".join(sorted(repr(task.get_coro()) for task in left))
                raise AssertionError(f"tasks left behind by this test: {names}")
            await asyncio.sleep(0.01)
        return result

    return guarded
