"""The child process that runs one scenario: ``python -m calllab.lab.scenario.child``.

It reads one line, an :class:`~calllab.lab.scenario.wire.Order`, runs it, and writes a line for all that
happens.  It ends when its standard input does, so that it cannot outlive whoever waits for it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from calllab.errors import CalllabError
from calllab.lab.scenario.progress import Progress
from calllab.lab.scenario.runner import run_scenario
from calllab.lab.scenario.wire import Failed, Order, Report

__all__ = ["main"]

EXIT_ABANDONED: Final = 3
_QUIET_S: Final = 0.1
_MAX_MESSAGE: Final = 100_000


class _Reporter:
    """Writes what happens, and that time passes not more often than anybody can read it."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._quiet_until = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if not progress.did and now < self._quiet_until:
            return
        self._quiet_until = now + _QUIET_S
        self.write(Report(progress=progress))

    def write(self, report: Report) -> None:
        self._out.write(msgspec.json.encode(report) + b"\n")
        self._out.flush()


def main() -> int:
    """Run what standard input says, and return the exit code."""
    # What libraries print must not get into the lines that the parent reads.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        reporter = _Reporter(out)
        order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
        threading.Thread(target=_watch_parent, name="parent watch", daemon=True).start()
        try:
            run_scenario(
                order.scenario,
                time=order.time,
                network=order.network,
                seed=order.seed,
                out=Path(order.out),
                progress=reporter,
            )
        except BrokenPipeError:
            return EXIT_ABANDONED
        except CalllabError as exc:
            reporter.write(Report(failed=Failed(type(exc).__name__, str(exc)[:_MAX_MESSAGE])))
            return 1
    return 0


def _watch_parent() -> None:
    """End this process at once when nobody waits for it any more."""
    while os.read(0, 4096):
        pass
    os._exit(EXIT_ABANDONED)


if __name__ == "__main__":
    sys.exit(main())
