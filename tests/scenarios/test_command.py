"""`calllab run` as people and continuous integration use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from calllab import Recording, load_scenario
from calllab.cli import main
from calllab.lab.scenario import builtin_scenarios, run_scenario
from calllab.terminal_run import print_scenarios


@pytest.fixture
def runner() -> CliRunner:
    """Run commands in this process."""
    return CliRunner()


def test_a_run_that_holds_ends_with_0(runner: CliRunner, tmp_path: Path) -> None:
    """Each expectation is printed with what was measured, the digest is, and the recording is kept."""
    out = tmp_path / "run"
    done = runner.invoke(main, ["run", "rejected", "--out", str(out)])
    assert done.exit_code == 0, done.output
    recording = Recording.load(out)
    assert f"\ndigest: {recording.digest()}\n" in done.output
    assert "✓ connection: never" in done.output
    assert "✓ end of alice's call: rejected" in done.output
    assert recording.digest() == run_scenario(load_scenario("rejected")).digest()


def test_a_run_that_does_not_hold_ends_with_1(runner: CliRunner, tmp_path: Path) -> None:
    """What was wanted stands beside what was measured; --set changes the scenario."""
    done = runner.invoke(
        main,
        [
            "run",
            "rejected",
            "--set",
            "expect.connection=connected",
            "--seed",
            "4",
            "--out",
            str(tmp_path / "r"),
        ],
    )
    assert done.exit_code == 1
    assert "✗ connection: never  (wanted: connected)" in done.output


def test_json_is_for_programs(runner: CliRunner, tmp_path: Path) -> None:
    """--json prints nothing but one object."""
    done = runner.invoke(main, ["run", "rejected", "--json", "--out", str(tmp_path / "run")])
    assert done.exit_code == 0
    outcome = json.loads(done.output)
    assert outcome["holds"] is True
    assert (outcome["time"], outcome["network"], outcome["seed"]) == ("virtual", "virtual", 53)
    assert {each["what"] for each in outcome["expectations"]} >= {"actions", "connection"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nowhere"], "there is no scenario 'nowhere'"),
        (["run", "rejected", "--network", "sockets"], "virtual time cannot run on real sockets"),
        (["run", "rejected", "--set", "durations=3"], "unknown member 'durations'"),
        (["run", "nat-symmetric", "--time", "real", "--network", "sockets"], "needs the virtual network"),
        (
            ["run", "clean-audio", "--set", "servers.stun=2", "--time", "real", "--network", "sockets"],
            "$.servers.stun: more than one STUN server",
        ),
    ],
)
def test_what_cannot_run_is_one_sentence(
    runner: CliRunner, tmp_path: Path, arguments: list[str], said: str
) -> None:
    """Errors in a scenario or a setting go to standard error with exit code 1; nothing is started."""
    out = tmp_path / "run"
    done = runner.invoke(main, [*arguments, "--out", str(out)])
    assert done.exit_code == 1
    assert said in done.stderr
    assert "Traceback" not in done.output
    assert not out.exists()


def test_the_list_names_all(runner: CliRunner) -> None:
    """--list has a line for each scenario; --schema is JSON; neither needs a scenario."""
    listed = runner.invoke(main, ["run", "--list"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in builtin_scenarios())
    schema = runner.invoke(main, ["run", "--schema"])
    assert json.loads(schema.output)["title"] == "calllab scenario"
    assert runner.invoke(main, ["run"]).exit_code == 2


def test_a_scenario_file_of_ones_own_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    """As from a shell: the file, its name in the folder of the recording, exit code and digest line."""
    (tmp_path / "mine.yaml").write_bytes(builtin_scenarios()["missed"].read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "calllab.cli", "run", "mine.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "digest: " in done.stdout
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("mine-")
    assert Recording.load(folder).event_rows


def test_all_goes_on_after_one_that_cannot_run(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--all names the scenario that could not run, runs the others, and ends with 1; --json tells it all."""
    chosen = {name: path for name, path in builtin_scenarios().items() if name in ("missed", "rejected")}
    monkeypatch.setattr("calllab.terminal_run.builtin_scenarios", lambda: chosen)
    (tmp_path / "missed").mkdir()
    (tmp_path / "missed" / "something").write_text("is here already")
    junit = tmp_path / "results.xml"
    done = runner.invoke(main, ["run", "--all", "--json", "--out", str(tmp_path), "--junit", str(junit)])
    assert done.exit_code == 1
    missed, rejected = json.loads(done.stdout)
    assert missed["name"] == "missed"
    assert "is not empty" in missed["error"]
    assert rejected["holds"] is True
    assert "1 of 2 scenarios hold" in done.stderr
    suite = ElementTree.parse(junit).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "0", "1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--junit", "/proc/nowhere/results.xml"], "/proc/nowhere/results.xml cannot be written"),
        (["--out", "/proc/nowhere"], "/proc/nowhere cannot be written"),
        (["--network", "sockets"], "virtual time cannot run on real sockets"),
    ],
)
def test_all_knows_before_it_runs_what_no_scenario_could_do(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    """What would fail for each scenario, or after the last one, is one sentence before the first one."""
    monkeypatch.setattr("calllab.terminal_run.try_scenario", None)
    done = runner.invoke(main, ["run", "--all", *arguments])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith("calllab: ")
    assert said in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("missed --all", "SCENARIO does not go with --all"),
        ("missed --list", "SCENARIO does not go with --list"),
        ("--list --schema", "--schema does not go with --list"),
        ("--schema --all", "--all does not go with --schema"),
        ("--list --seed 3 --out x", "--seed, --out do not go with --list"),
        ("--all --set seed=3", "--set does not go with --all"),
        ("missed --jobs 2", "--jobs goes with --all"),
        ("missed --junit x.xml --jobs 3", "--jobs, --junit go with --all"),
        ("", "name a scenario, or use --list or --all"),
    ],
)
def test_no_option_is_ignored(runner: CliRunner, arguments: str, said: str) -> None:
    """What says nothing about what is to be done is a mistake in usage."""
    done = runner.invoke(main, ["run", *arguments.split()])
    assert done.exit_code == 2
    assert f"Error: {said}" in done.stderr
    assert done.stdout == ""


def test_the_list_is_json_for_programs(runner: CliRunner) -> None:
    """--list --json has name, title and duration of each scenario."""
    listed = json.loads(runner.invoke(main, ["run", "--list", "--json"]).stdout)
    assert [each["name"] for each in listed] == list(builtin_scenarios())
    assert listed[0].keys() == {"name", "title", "duration_s"}
    assert {type(each["duration_s"]) for each in listed} == {float}
    assert runner.invoke(main, ["run", "--schema", "--json"]).exit_code == 0


@pytest.mark.parametrize(("width", "most_broken"), [(80, 6), (100, 1), (120, 0), (None, 0)])
def test_the_list_uses_the_width_that_there_is(
    capsys: pytest.CaptureFixture[str], width: int | None, most_broken: int
) -> None:
    """A title is on the line of its name if it fits; where nobody looks each scenario is one line."""
    print_scenarios(width)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= (width or 200)
    assert len(builtin_scenarios()) <= len(lines) <= len(builtin_scenarios()) + most_broken
    assert "blackout-for-good " in lines[1]
    assert lines[1].endswith("The network dies and does not come back")
