"""The command ``calllab``: each subcommand is a thin shell over one function of the package."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import NoReturn, ParamSpec

import click

from calllab import __version__
from calllab.errors import CalllabError

__all__ = ["main"]

P = ParamSpec("P")

EXIT_FAILED = 1

PATH = click.Path(path_type=Path)
EXISTING = click.Path(path_type=Path, exists=True)


def _sentence_on_failure(command: Callable[P, None]) -> Callable[P, None]:
    """Turn the package's errors into one sentence and exit code 1."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except CalllabError as exc:
            click.echo(f"calllab: {exc}", err=True)
            sys.exit(EXIT_FAILED)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="calllab")
def main() -> None:
    """Make a WebRTC call, break it on purpose, see why, keep the evidence.

    Start with `calllab demo`: a real call between two peers, broken in four ways, with a report at the end.
    """


@main.command()
@click.option("--out", type=PATH, help="Folder for recording and report [default: runs/demo-<time>].")
@click.option(
    "--seed", default=7, show_default=True, help="All random choices of media and network follow from it."
)
@_sentence_on_failure
def demo(out: Path | None, seed: int) -> None:
    """Run a real call, break it on purpose, record and explain it (about a minute).

    Exit code 0 only if everything that was announced was seen to happen.
    """
    from calllab.demo import demonstrate
    from calllab.terminal import DemoScreen

    folder = out or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    screen = DemoScreen()
    screen.show(asyncio.run(demonstrate(folder, screen, seed=seed)))


@main.command()
@click.argument("path", type=EXISTING)
@click.option("--json", "as_json", is_flag=True, help="Print the diagnosis as JSON.")
@_sentence_on_failure
def diagnose(path: Path, as_json: bool) -> None:
    """Say what was wrong with a call, from its recording PATH (a folder or .zip) alone."""
    from calllab.diagnosis import diagnose as find
    from calllab.lab import Recording
    from calllab.terminal import print_diagnosis

    diagnosis = find(Recording.load(path), source=str(path))
    if as_json:
        click.echo(diagnosis.to_json())
    else:
        print_diagnosis(diagnosis)


@main.command()
@click.argument("recording", type=EXISTING)
@click.option("--out", type=PATH, help="The HTML file [default: report.html beside the recording].")
@_sentence_on_failure
def report(recording: Path, out: Path | None) -> None:
    """Write one self-contained HTML report of RECORDING (a folder or .zip)."""
    from calllab.lab import Recording
    from calllab.report import write_report

    written = write_report(Recording.load(recording), out or recording.with_name("report.html"))
    click.echo(f"report: {written}")


@main.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Start the service: relay, accounts, TURN credentials, STUN/TURN (see `calllab serve --help`)."""
    _become("calllab_server", *arguments)


@main.command()
@click.argument("folder", type=EXISTING, default=Path("notebooks"))
def lab(folder: Path) -> None:
    """Open JupyterLab on the notebooks in FOLDER."""
    _become("jupyterlab", str(folder))


def _become(module: str, *arguments: str) -> NoReturn:
    """Go on as another program: signals and exit code are its own then."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


if __name__ == "__main__":
    main()
