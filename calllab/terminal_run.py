"""What a person sees of a scenario's run: what happens, and whether it is what was expected."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from calllab.errors import CalllabError
from calllab.lab.folder import make_folder
from calllab.lab.kinds import ClockKind, NetworkKind
from calllab.lab.scenario import Judgement, Scenario, builtin_scenarios, json_schema, load_scenario
from calllab.lab.scenario.check import check_clock
from calllab.lab.scenario.progress import Progress as RunProgress
from calllab.report import write_junit
from calllab.report.junit import check_junit
from calllab.terminal_list import WIDE, print_list
from calllab.trial import Trial, try_scenario

__all__ = ["RunScreen", "print_scenarios", "run_all", "run_command", "scenarios_text", "schema_text"]


class RunScreen:
    """Shows a run: a line for each thing that is done, in a terminal a bar beside it; then the outcome."""

    def __init__(self, scenario: Scenario, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._console.print(f"[bold]{escape(scenario.title)}[/]", soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.completed:5.1f} of {task.total:g} s"),
            BarColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("run", total=scenario.duration_s)

    def __enter__(self) -> RunScreen:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Take the bar away."""
        self._bar.stop()

    def __call__(self, progress: RunProgress) -> None:
        """Show how far the run has come."""
        self._bar.update(self._task, completed=min(progress.t_s, progress.duration_s))
        if progress.did:
            self._console.print(f"[dim]{progress.t_s:6.2f} s[/]  {escape(progress.did)}", soft_wrap=True)

    def show(self, trial: Trial) -> None:
        """Show each expectation with what was measured, the findings, and the digest."""
        settings = trial.recording.meta["settings"]
        self._console.print(
            f"[dim]{settings['time']} time, {settings['network']} network, seed {settings['seed']}[/]"
        )
        for judgement in trial.judgements:
            self._show(judgement)
        for finding in trial.diagnosis.findings:
            self._console.print(f"  • {escape(finding.sentence)}", soft_wrap=True)
        self._console.print(f"verdict: [bold]{escape(trial.diagnosis.verdict)}[/]")
        self._console.print(f"digest: {trial.recording.digest()}", soft_wrap=True)

    def tell_where(self, out: Path) -> None:
        """Say where the recording is."""
        self._console.print(f"recording  {escape(str(out))}", soft_wrap=True)

    def _show(self, judgement: Judgement) -> None:
        mark = "[green]✓[/]" if judgement.holds else "[red]✗[/]"
        self._console.print(f"{mark} {_sentence(judgement)}", soft_wrap=True)


def run_command(
    scenario: str,
    *,
    time: ClockKind,
    network: NetworkKind | None,
    seed: int | None,
    changes: Sequence[str],
    out: Path,
    as_json: bool,
) -> bool:
    """Run a scenario while a person watches, and return whether all that it expects holds."""
    loaded = load_scenario(scenario, overrides=changes)
    attempt = partial(try_scenario, loaded, time=time, network=network, seed=seed, out=out)
    if as_json:
        trial = asyncio.run(attempt())
        print(msgspec.json.format(msgspec.json.encode(trial.to_plain()), indent=2).decode())
        return trial.holds
    screen = RunScreen(loaded)
    with screen:
        trial = asyncio.run(attempt(progress=screen))
    screen.show(trial)
    screen.tell_where(out)
    return trial.holds


def run_all(
    *,
    time: ClockKind,
    network: NetworkKind | None,
    seed: int | None,
    jobs: int,
    out: Path | None,
    as_json: bool,
    junit: Path | None = None,
) -> bool:
    """Run all scenarios that come with calllab, ``jobs`` at a time, and print a line for each.

    Those that fail print the expectations that do not hold, or why they could not run.  With ``as_json`` the
    lines go to standard error, and the outcomes to standard output at the end; ``junit`` is a file for them.
    Returns whether all hold.  Raises CalllabError before anything runs if there is no place for the outcomes.
    """
    check_clock(time, network)
    if out is not None:
        make_folder(out)
    if junit is not None:
        check_junit(junit)
    outcomes = asyncio.run(_run_all(time, network, seed, jobs, out, Console(highlight=False, stderr=as_json)))
    if as_json:
        print(json.dumps(outcomes, indent=2))
    if junit is not None:
        write_junit(outcomes, junit)
    return all(outcome["holds"] for outcome in outcomes)


async def _run_all(
    time: ClockKind,
    network: NetworkKind | None,
    seed: int | None,
    jobs: int,
    out: Path | None,
    console: Console,
) -> list[dict[str, Any]]:
    free = asyncio.Semaphore(jobs)

    async def attempt(name: str) -> dict[str, Any]:
        async with free:
            begun = perf_counter()
            folder = None if out is None else out / name
            try:
                trial = await try_scenario(
                    load_scenario(name), time=time, network=network, seed=seed, out=folder
                )
            except CalllabError as exc:
                # The others are worth running all the same.
                console.print(f"[red]✗[/] {escape(name)}  {escape(str(exc))}", soft_wrap=True)
                return {"name": name, "holds": False, "error": str(exc)}
            took_s = perf_counter() - begun
        mark = "[green]✓[/]" if trial.holds else "[red]✗[/]"
        console.print(f"{mark} {escape(name)}  [dim]{took_s:.1f} s  {trial.recording.digest()[:16]}[/]")
        for judgement in trial.judgements:
            if not judgement.holds:
                console.print(f"    {_sentence(judgement)}", soft_wrap=True)
        return {"name": name, "took_s": round(took_s, 3), **trial.to_plain()}

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt(name)) for name in builtin_scenarios()]
    outcomes = [task.result() for task in tasks]
    console.print(f"{sum(outcome['holds'] for outcome in outcomes)} of {len(outcomes)} scenarios hold")
    return outcomes


def _sentence(judgement: Judgement) -> str:
    wanted = "" if judgement.wanted == judgement.got else f"  [dim](wanted: {escape(judgement.wanted)})[/]"
    return f"{escape(judgement.what)}: {escape(judgement.got)}{wanted}"


def schema_text() -> str:
    """Return the JSON Schema of scenario files as text."""
    return msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode()


def scenarios_text() -> str:
    """Return the names, titles and durations of the scenarios that come with calllab, as JSON."""
    listed = [
        {"name": name, "title": scenario.title, "duration_s": scenario.duration_s}
        for name, scenario in _scenarios()
    ]
    return json.dumps(listed, indent=2)


def print_scenarios(width: int | None) -> None:
    """Print the scenarios that come with calllab, with their durations if there is room."""
    has_room = width is None or width >= WIDE
    print_list(
        [
            (name, has_room * f"{scenario.duration_s:3g} s  " + scenario.title)
            for name, scenario in _scenarios()
        ],
        width,
    )


def _scenarios() -> Iterator[tuple[str, Scenario]]:
    for name, path in builtin_scenarios().items():
        yield name, load_scenario(path)
