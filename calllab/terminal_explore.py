"""What a person sees of an exploration: how far it is, what it found, and the ladder of what broke."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from calllab.errors import RecordingError
from calllab.lab.explorer import (
    MUTANTS,
    Exploration,
    Progress,
    Trace,
    Wishes,
    explore,
    find_mutant,
    replay_in_virtual_time,
)
from calllab.lab.folder import make_own_folder
from calllab.report.ladder_text import text_ladder
from calllab.terminal_list import print_list

__all__ = ["explore_command", "mutants_text", "print_mutants", "replay_command"]


class _ExploreScreen:
    """Shows how far an exploration is; without a terminal it says nothing before the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = time.monotonic()
        self._status: Status | None = None

    def __call__(self, progress: Progress) -> None:
        """Show how many states are known, and how many of them have been explored."""
        if not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        self._status.update(
            f"{progress.explored:,} of {progress.states:,} states, {progress.transitions:,} transitions, "
            f"{time.monotonic() - self._begun:.0f} s"
        )

    def stop(self) -> float:
        """Take the line away and return how many seconds have passed."""
        if self._status is not None:
            self._status.stop()
        return time.monotonic() - self._begun


def explore_command(
    alice: Wishes,
    bob: Wishes,
    *,
    mutant: str,
    established: int,
    candidates: int,
    max_states: int,
    until_broken: bool,
    out: Path | None,
    as_json: bool,
    console: Console | None = None,
) -> bool:
    """Explore while a person watches, and return whether every invariant holds in every state.

    What was found is told before it is written to ``out``.
    """
    console = console or Console(highlight=False)
    if out is not None:
        make_own_folder(out, "exploration")
    screen = _ExploreScreen(Console(stderr=True) if as_json else console)
    try:
        found = explore(
            alice,
            bob,
            mutant=mutant,
            established=established,
            candidates=candidates,
            max_states=max_states,
            until_broken=until_broken,
            on_progress=screen,
        )
    finally:
        took_s = screen.stop()
    if as_json:
        plain = {**found.to_plain(), "seconds": round(took_s, 3)}
        print(msgspec.json.format(msgspec.json.encode(plain)).decode())
    else:
        _print(found, took_s, max_states, console)
    for path in [] if out is None else _write(found, out):
        if not as_json:
            console.print(f"written  {escape(str(path))}", soft_wrap=True)
    return found.holds


def replay_command(path: Path, mutant: str | None, console: Console | None = None) -> bool:
    """Replay a trace on real peer connections and return whether what comes of it is as expected."""
    console = console or Console(highlight=False)
    trace = Trace.load(path)
    done = replay_in_virtual_time(trace, None if mutant is None else find_mutant(mutant))
    settled = mutant is not None and mutant != trace.mutant
    if not settled:
        console.print(text_ladder(trace), markup=False, soft_wrap=True)
        console.print()
    left_out = f", {done.left_out} could not happen" if done.left_out else ""
    console.print(f"{done.performed} steps on real peer connections{left_out}")
    if done.as_expected:
        said = "both agree in the end" if settled else trace.sentence or "the end is the trace's"
        console.print(f"[green]✓[/] {escape(said)}", soft_wrap=True)
    for difference in done.differences:
        console.print(f"[red]✗[/] {escape(difference)}", soft_wrap=True)
    return done.as_expected


def mutants_text() -> str:
    """Return the names of all mutants and what is wrong with each, as JSON."""
    listed = [{"name": mutant.name, "about": mutant.about} for mutant in MUTANTS.values()]
    return msgspec.json.format(msgspec.json.encode(listed)).decode()


def print_mutants(width: int | None) -> None:
    """Print the names of all mutants and what is wrong with each."""
    print_list([(mutant.name, mutant.about) for mutant in MUTANTS.values()], width)


def _print(found: Exploration, took_s: float, max_states: int, console: Console) -> None:
    wishes = f"alice {_in_words(found.alice)}, bob {_in_words(found.bob)}"
    before = f", after {found.established} negotiated m-lines" if found.established else ""
    console.print(f"[bold]{escape(find_mutant(found.mutant).about)}[/]: {wishes}{before}", soft_wrap=True)
    console.print(
        f"{found.states:,} states, {found.transitions:,} transitions, {found.finals:,} ends, "
        f"up to {found.depth} steps, {took_s:.1f} s",
        soft_wrap=True,
    )
    for broken in found.breaks:
        console.print(
            f"[red]✗[/] {escape(broken.sentence)} [dim]({broken.kind}, {broken.trace.length} steps)[/]",
            soft_wrap=True,
        )
    if found.breaks:
        console.print()
        console.print(text_ladder(found.breaks[0].trace), markup=False, soft_wrap=True)
    elif found.complete:
        console.print(
            "[green]✓[/] every order of events ends, without an error, in an agreement of both peers",
            soft_wrap=True,
        )
    if not found.complete and not found.breaks:
        console.print(
            f"[yellow]![/] not all was explored: {max_states:,} states were the limit (--max-states)",
            soft_wrap=True,
        )


def _in_words(wishes: Wishes) -> str:
    parts = []
    if wishes.adds:
        parts.append(f"adds {wishes.adds}")
    if wishes.restarts:
        parts.append(f"restarts ICE {wishes.restarts}×")
    return " and ".join(parts) or "wishes nothing"


def _write(found: Exploration, folder: Path) -> list[Path]:
    """Write the exploration, and each trace with its picture; return what a person will look at.

    Raises :exc:`~calllab.errors.RecordingError` if the folder cannot be written.
    """
    from calllab.report.ladder_explore import plot_trace

    traces = {f"{broken.kind}-{number}": broken.trace for number, broken in enumerate(found.breaks, start=1)}
    if not traces and found.sample is not None:
        traces = {"agreement": found.sample}
    written = [folder / "exploration.json"]
    try:
        plain = msgspec.json.encode(found.to_plain())
        written[0].write_bytes(msgspec.json.format(plain, indent=1) + b"\n")
        for name, trace in traces.items():
            path = folder / f"{name}.json"
            path.write_text(trace.to_json(), encoding="utf-8")
            figure = plot_trace(trace)
            for suffix in (".svg", ".png"):
                figure.savefig(path.with_suffix(suffix))
            written += [path, path.with_suffix(".svg"), path.with_suffix(".png")]
    except OSError as exc:
        raise RecordingError(f"{folder} cannot be written: {exc.strerror or exc}") from exc
    return written
