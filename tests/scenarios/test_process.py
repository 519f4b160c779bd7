"""A run in a child process: watched, cancelled, failed, abandoned."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import calllab
from calllab.errors import LabError, RecordingError, ScenarioError
from calllab.lab.scenario import Progress, load_scenario, run_scenario, scenario_from
from calllab.lab.scenario import process as module
from calllab.lab.scenario.wire import Order
from tests.leaks import child_processes
from tests.scenarios.helpers import plain


async def test_a_run_returns_its_recording_and_says_how_far_it_is(tmp_path: Path) -> None:
    """The recording is the one that a run in this process gives; it stays where it was asked to be."""
    scenario = load_scenario("rejected")
    told: list[Progress] = []
    recording = await calllab.run("rejected", out=tmp_path / "run", progress=told.append)
    assert recording == calllab.Recording.load(tmp_path / "run")
    assert "alice calls bob" in {progress.did for progress in told}
    assert told[-1] == Progress(10.0, 10.0, "end")
    assert recording.digest() == (await asyncio.to_thread(run_scenario, scenario)).digest()
    assert (await calllab.run(msgspec.to_builtins(scenario), seed=99)).digest() != recording.digest()


async def test_cancelling_ends_the_child() -> None:
    """Neither the run nor the service that it has started outlives whoever waited for it."""
    began = asyncio.Event()
    before = child_processes()
    scenario = scenario_from(plain())
    waiting = asyncio.create_task(calllab.run(scenario, time="real", progress=lambda _: began.set()))
    await asyncio.wait_for(began.wait(), 20)
    assert child_processes() > before
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert child_processes() == before


async def test_what_the_child_raises_is_raised_here(tmp_path: Path) -> None:
    """An error keeps its class and its sentence."""
    (tmp_path / "precious").touch()
    with pytest.raises(RecordingError, match="not empty"):
        await calllab.run("rejected", out=tmp_path)
    with pytest.raises(ScenarioError, match="virtual time cannot run on real sockets"):
        await calllab.run("rejected", network="sockets")


async def test_a_child_that_dies_is_told_with_what_it_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code and the last lines of standard error are in the error."""
    monkeypatch.setattr(module, "CHILD", ("-c", "import sys; sys.exit('out of luck')"))
    with pytest.raises(LabError, match=r"exit code 1; it printed:\nout of luck"):
        await calllab.run("rejected")


async def test_a_listener_that_fails_ends_the_run() -> None:
    """What the caller's own function raises comes out of the call, and the child is gone."""

    def fail(_: Progress) -> None:
        raise ValueError("no more room")

    before = child_processes()
    with pytest.raises(ValueError, match="no more room"):
        await calllab.run("rejected", progress=fail)
    assert child_processes() == before


def test_a_child_whose_parent_is_gone_ends(tmp_path: Path) -> None:
    """When its standard input ends in the middle of a run, the child does, too."""
    order = Order(
        scenario=scenario_from(plain(duration_s=60)),
        time="real",
        network="virtual",
        seed=None,
        out=str(tmp_path / "run"),
    )
    with subprocess.Popen(
        [sys.executable, "-m", "calllab.lab.scenario.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(msgspec.json.encode(order) + b"\n")
        child.stdin.flush()
        while json.loads(child.stdout.readline())["progress"]["t_s"] < 1:
            pass
        child.stdin.close()
        assert child.wait(10) == 3
    # What was recorded until then is there.
    assert calllab.Recording.load(tmp_path / "run").event_rows
