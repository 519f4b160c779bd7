"""The command line: help that teaches, errors in one sentence, exit codes that hold."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn, get_args

import pytest
from click.testing import CliRunner

from calllab import Recording
from calllab.cli import main
from calllab.network import LinkSettings
from calllab.signaling import FaultKind, SignalingFault
from calllab.signaling.fault_setting import MESSAGE_TYPES


@pytest.fixture
def runner() -> CliRunner:
    """Run commands in this process."""
    return CliRunner()


@pytest.mark.parametrize("command", ["demo", "run", "explore", "proxy", "diagnose", "report", "serve", "lab"])
def test_every_command_is_in_the_help(runner: CliRunner, command: str) -> None:
    """The help names the command with a sentence."""
    listed = runner.invoke(main, ["--help"])
    assert listed.exit_code == 0
    assert command in listed.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["proxy", "--relay", "http://127.0.0.1:9", "--port", "99999"],
        ["proxy", "--relay", "http://127.0.0.1:9", "--port", "-1"],
        ["proxy", "--relay", "http://127.0.0.1:9", "--seed", "9223372036854775808"],
        ["run", "rejected", "--seed", "9223372036854775808"],
        ["demo", "--seed", "-1"],
    ],
    ids=" ".join,
)
def test_numbers_have_a_range(runner: CliRunner, arguments: list[str]) -> None:
    """A port or a seed that there cannot be is refused with the range, as a usage error."""
    done = runner.invoke(main, arguments)
    assert done.exit_code == 2
    assert "is not in the range 0<=x<=" in done.stderr


def test_the_help_of_the_proxy_names_all_that_can_be_broken(runner: CliRunner) -> None:
    """Kinds, message types, and every setting of signaling and of links, with commands to copy."""
    said = runner.invoke(main, ["proxy", "--help"]).output
    words = set(re.findall(r"[a-z_-]+", said))
    members = {*LinkSettings.__struct_fields__, *SignalingFault.__struct_fields__, "trace_file"} - {
        "trace",
        "direction",
    }
    assert {*get_args(FaultKind), *MESSAGE_TYPES, *members} - words == set()
    assert "calllab proxy --relay http://127.0.0.1:8080" in said
    assert max(map(len, said.splitlines())) <= 80


def test_diagnose_speaks_json(runner: CliRunner, tmp_path: Path) -> None:
    """--json gives the fixed shape; a recording with nothing in it is 'unknown'."""
    path = Recording.build().save(tmp_path / "empty")
    done = runner.invoke(main, ["diagnose", str(path), "--json"])
    assert done.exit_code == 0, done.output
    diagnosis = json.loads(done.output)
    assert set(diagnosis) == {"version", "source", "duration_s", "peers", "verdict", "findings"}
    assert diagnosis["verdict"] == "unknown"


def test_what_is_no_recording_is_one_sentence(runner: CliRunner, tmp_path: Path) -> None:
    """An error is a sentence on stderr with exit code 1, not a traceback."""
    done = runner.invoke(main, ["diagnose", str(tmp_path)])
    assert done.exit_code == 1
    assert "no meta.json" in done.stderr
    assert "Traceback" not in done.output + done.stderr


def test_report_writes_one_file(runner: CliRunner, tmp_path: Path) -> None:
    """`calllab report` writes the page beside the recording and says where."""
    path = Recording.build().save(tmp_path / "run.zip")
    done = runner.invoke(main, ["report", str(path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report.html").read_text().lower().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "doing"),
    [
        (["demo"], "calllab.demo.demonstrate"),
        (["run", "rejected"], "calllab.terminal_run.run_command"),
        (["run", "--all"], "calllab.terminal_run.run_all"),
        (["explore"], "calllab.terminal_explore.explore_command"),
        (["proxy", "--relay", "http://127.0.0.1:9"], "calllab.lab.proxy_command.run_proxy"),
        (["diagnose", "."], "calllab.lab.recording.Recording.load"),
        (["report", "."], "calllab.lab.recording.Recording.load"),
    ],
)
def test_an_interrupt_is_one_line_and_130(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, arguments: list[str], doing: str
) -> None:
    """Ctrl-C ends whatever is done as shells expect it, with one line and no traceback."""

    def interrupted(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(doing, interrupted)
    done = runner.invoke(main, arguments)
    assert (done.exit_code, done.stderr) == (130, "calllab: interrupted\n")


def test_a_run_that_is_interrupted_takes_its_child_along(tmp_path: Path) -> None:
    """A terminal tells all of its processes; what the child says of it is nobody's business."""
    command = [sys.executable, "-m", "calllab.cli", "run", "rejected", "--time", "real", "--out", "out"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert lines[0] == "Bob declines the call\n"
    assert (process.returncode, said) == (130, "calllab: interrupted\n")


def test_allowed_networks_are_of_media(runner: CliRunner) -> None:
    """--allow says nothing where media goes its own way."""
    done = runner.invoke(
        main, ["proxy", "--relay", "http://127.0.0.1:9", "--no-media", "--allow", "10.0.0.0/8"]
    )
    assert done.exit_code == 2
    assert "--allow does not go with --no-media" in done.stderr


def test_serve_becomes_the_service() -> None:
    """`calllab serve` prints its addresses, and SIGTERM ends it cleanly."""
    command = [
        sys.executable,
        "-m",
        "calllab.cli",
        "serve",
        "--port",
        "0",
        "--turn-port",
        "0",
        "--ready-json",
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()).keys() == {"http", "turn"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_importing_calllab_is_light() -> None:
    """`import calllab` and its protocol load neither aiortc nor pandas nor matplotlib."""
    code = (
        "import sys, calllab, calllab.protocol, calllab.errors;"
        "heavy = {'aiortc', 'aioice', 'pandas', 'matplotlib', 'aiohttp', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
