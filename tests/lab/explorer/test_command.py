"""`calllab explore`: what was found in words, as JSON and as files; the exit code says whether all holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from calllab.cli import main


def calllab(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["explore", *arguments])


def test_what_holds_is_exit_code_0() -> None:
    """With the numbers of what was explored."""
    done = calllab()
    assert done.exit_code == 0, done.output
    assert "3,420 states" in done.output
    assert "every order of events ends" in done.output


def test_what_breaks_is_exit_code_1_with_a_ladder() -> None:
    """The sentence says what broke, the ladder how."""
    done = calllab("--mutant", "both-impolite")
    assert done.exit_code == 1
    assert "nothing more can happen, but alice stays in have-local-offer" in done.output
    assert "ignores the offer" in done.output


def test_what_is_not_complete_is_exit_code_1() -> None:
    """Not having found anything is not enough."""
    done = calllab("--max-states", "100")
    assert done.exit_code == 1
    assert "not all was explored" in done.output


def test_json_is_json_alone() -> None:
    """With the traces of all breaks, and the time it took."""
    done = calllab("--mutant", "without-rollback", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["holds"] is False
    assert found["breaks"][0]["trace"]["steps"][0] == {
        "peer": "alice",
        "action": "add",
        "what": "addTransceiver",
    }
    assert found["seconds"] > 0


def test_files_are_written_and_replayed(tmp_path: Path) -> None:
    """A trace of --out breaks real peer connections, and does not without the mutation."""
    out = tmp_path / "out"
    assert calllab("--mutant", "duplicated", "--out", str(out)).exit_code == 1
    names = {path.name for path in out.iterdir()}
    assert names == {"exploration.json", "error-1.json", "error-1.svg", "error-1.png"}
    trace = str(out / "error-1.json")
    broken = calllab("--replay", trace)
    assert broken.exit_code == 0, broken.output
    assert "a remote answer cannot be set in signaling state stable" in broken.output
    sound = calllab("--replay", trace, "--mutant", "none")
    assert sound.exit_code == 0, sound.output
    assert "both agree in the end" in sound.output


def test_an_agreement_is_written_too(tmp_path: Path) -> None:
    """A shortest way to where both agree shows what a good order of events looks like."""
    assert calllab("--out", str(tmp_path)).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"agreement.json", "agreement.png"}


@pytest.mark.parametrize("where", ["/proc/nowhere", "used", "file"])
def test_where_nothing_can_be_written_is_known_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A folder that cannot be made, or has something in it, is refused before anything is explored."""
    monkeypatch.setattr("calllab.terminal_explore.explore", None)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "error-1.json").write_text("of another exploration")
    (tmp_path / "file").write_text("text")
    done = calllab("--mutant", "both-polite", "--out", str(tmp_path / where))
    assert done.exit_code == 1
    assert done.stderr.startswith("calllab: ")
    assert where in done.stderr
    assert "Traceback" not in done.output
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["error-1.json"]


@pytest.mark.parametrize("as_json", [False, True])
def test_what_was_found_is_told_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    """A disk that is full costs the files, not the result."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("calllab.report.ladder_explore.plot_trace", full)
    done = calllab("--mutant", "both-impolite", "--out", str(tmp_path), *["--json"] * as_json)
    assert done.exit_code == 1
    assert "have-local-offer" in done.stdout
    assert done.stderr == f"calllab: {tmp_path} cannot be written: No space left on device\n"


def test_mutants_are_listed() -> None:
    """Each with what is wrong with it."""
    done = calllab("--list")
    assert done.exit_code == 0
    assert (
        "\nwithout-ignore-offer    no ignore_offer: what fails because it follows an ignored" in done.output
    )
    listed = json.loads(calllab("--list", "--json").stdout)
    assert {"name": "both-polite", "about": "both peers give way"} in listed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--list", "--alice", "adds=2"], "--alice does not go with --list"),
        (["--replay", __file__, "--json", "--bob", "adds=2"], "--bob, --json do not go with --replay"),
        (["--replay", __file__, "--list"], "--replay does not go with --list"),
    ],
)
def test_no_option_is_ignored(arguments: list[str], said: str) -> None:
    """What says nothing about what is to be done is a mistake in usage."""
    done = calllab(*arguments)
    assert done.exit_code == 2
    assert f"Error: {said}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--alice", "add=1"), "add=1"), (("--mutant", "x"), "both-polite"), (("--established", "11"), "11")],
)
def test_wrong_arguments_are_one_sentence(arguments: tuple[str, str], said: str) -> None:
    """On stderr, with exit code 1."""
    done = calllab(*arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith("calllab: ")
    assert said in done.stderr


def test_the_help_teaches() -> None:
    """It has commands to copy, and says what the exit code means."""
    said = calllab("--help").output
    assert "calllab explore --mutant both-polite --out broken" in said
    assert "Exit code 0 only if" in said
