"""Running a scenario in a child process: nothing that watches it disturbs it, and it can be ended."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import msgspec

from calllab import errors
from calllab.errors import CalllabError, LabError
from calllab.lab.kinds import ClockKind, NetworkKind
from calllab.lab.recording import Recording
from calllab.lab.scenario.check import check_setting
from calllab.lab.scenario.library import load_scenario, scenario_from
from calllab.lab.scenario.model import Scenario
from calllab.lab.scenario.progress import ProgressListener
from calllab.lab.scenario.wire import Failed, Order, Report

__all__ = ["run"]

CHILD: Final = ("-m", "calllab.lab.scenario.child")
STOP_TIMEOUT_S: Final = 5.0
_KEPT_LOG_BYTES: Final = 16 * 1024
_MAX_LINE_BYTES: Final = 1024 * 1024


async def run(
    scenario: Scenario | Mapping[str, Any] | str | Path,
    *,
    time: ClockKind = "virtual",
    network: NetworkKind | None = None,
    seed: int | None = None,
    out: Path | str | None = None,
    progress: ProgressListener | None = None,
) -> Recording:
    """Run a whole scenario in a child process, and return its recording.

    Cancelling this ends the child.

    :param scenario: the scenario, the same as plain data, a file, or the name of one that comes with calllab.
    :param time: ``virtual``: a clock that jumps, fast and repeatable; ``real``: the machine's.
    :param network: ``virtual`` or ``sockets``; None: sockets in real time if the scenario can run there.
    :param seed: another seed than the scenario's.
    :param out: the folder to record into, which must be empty or not exist; None: a temporary one.
    :param progress: is told what happens.

    Raises :exc:`~calllab.errors.ScenarioError` before anything starts if the scenario cannot be run, and what
    the run raised if it failed.
    """
    if isinstance(scenario, str | Path):
        scenario = load_scenario(scenario)
    elif not isinstance(scenario, Scenario):
        scenario = scenario_from(scenario)
    chosen = check_setting(scenario, time=time, network=network, seed=seed)
    async with AsyncExitStack() as stack:
        if out is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="calllab-run-"))
            out = Path(folder) / "recording"
        order = Order(scenario=scenario, time=time, network=chosen, seed=seed, out=str(out))
        await _Child(progress).run(order)
        return await asyncio.to_thread(Recording.load, out)


class _Child:
    """One child process that runs one scenario."""

    def __init__(self, progress: ProgressListener | None) -> None:
        self._progress = progress
        self._failed: Failed | None = None
        self._log = b""

    async def run(self, order: Order) -> None:
        """Start it, follow it to its end, and raise what it failed with."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *CHILD,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_MAX_LINE_BYTES,
        )
        log = asyncio.get_running_loop().create_task(self._read_log(process))
        try:
            await self._send(process, order)
            await self._read_reports(process)
            await process.wait()
        finally:
            await _end(process)
            await log
        if self._failed is not None:
            raise _as_error(self._failed)
        if process.returncode != 0:
            printed = self._log.decode(errors="replace").strip()
            raise LabError(f"the run ended with exit code {process.returncode}; it printed:\n{printed}")

    async def _send(self, process: asyncio.subprocess.Process, order: Order) -> None:
        assert process.stdin is not None
        try:
            # The pipe stays open: its end tells the child that nobody waits for it any more.
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return  # it ended by itself: its exit code and log say why

    async def _read_reports(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            report = msgspec.json.decode(line, type=Report)
            if report.failed is not None:
                self._failed = report.failed
            if report.progress is not None and self._progress is not None:
                self._progress(report.progress)

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while chunk := await process.stderr.read(_KEPT_LOG_BYTES):
            self._log = (self._log + chunk)[-_KEPT_LOG_BYTES:]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Make sure that the child has ended."""
    assert process.stdin is not None
    process.stdin.close()
    if process.returncode is None:
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
    # Without this the pipe's transport is closed by the garbage collector, which warns.
    process._transport.close()  # type: ignore[attr-defined]


def _as_error(failed: Failed) -> Exception:
    """Return the child's error as one of the same class, if that takes a message alone."""
    kind = getattr(errors, failed.kind, None)
    if isinstance(kind, type) and issubclass(kind, CalllabError):
        try:
            return kind(failed.message)
        except TypeError:
            pass
    name = "" if failed.kind in ("LabError", "CalllabError") else f"{failed.kind}: "
    return LabError(f"the run failed: {name}{failed.message}")
