"""The command ``calllab``: each subcommand is a thin shell over one function of the package."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

import click
from click.core import ParameterSource

from calllab import __version__
from calllab.errors import CalllabError

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT

PATH = click.Path(path_type=Path)
PORT = click.IntRange(0, 65535)
SEED = click.IntRange(0, 2**63 - 1)  # as in scenarios
EXISTING = click.Path(path_type=Path, exists=True)


PROXY_EPILOG = """
\b
Examples:
  calllab proxy --relay http://127.0.0.1:8080 --fault "loss=0.05 delay_ms=80"
  calllab proxy --relay http://127.0.0.1:8080 --port 8081 \\
      --fault "alice->bob rate_kbps=300 at_s=5 for_s=10" \\
      --fault "alice->* kind=delay delay_ms=300 types=call-offer" \\
      --fault "kind=disconnect peer=bob at_s=20 for_s=4"

\b
A fault is "DIRECTION name=value name=value ...". Any may say at_s, when it
begins (seconds from the start), and for_s, how long it lasts (to the end).

\b
Faults of media (alice->bob is all that Alice sends, *->* what all send):
  loss=0.1         share of datagrams, 0 to 1; loss_burst=5: in bursts of five
                   (with loss_good, loss_bad); loss_block=50: exactly so many
                   of each fifty; loss_before_queue=true
  delay_ms=100     milliseconds; jitter_ms=20, jitter_distribution (normal,
                   uniform, exponential, pareto), jitter_correlation=0.5,
                   allow_reordering=true
  reorder=0.1      share that comes reorder_hold_ms=30 late
  duplicate=0.1    share that comes twice
  rate_kbps=500    kilobits a second, or trace_file=PATH; queue_bytes=20000 or
                   queue_packets=20; burst_bytes, overhead_bytes=28;
                   queue_discipline=codel, codel_target_ms, codel_interval_ms
  blackout=true    nothing gets through

\b
Faults of signaling have a kind (they know alice->* and *->bob, too):
  kind=drop        messages are lost
  kind=delay       they come delay_ms=300 later, and up to jitter_ms=50 more
  kind=hold        they are kept until the fault ends
  kind=duplicate   they come copies=1 times more
  kind=reorder     behind=1 later ones pass, for which they wait wait_ms=1000
  kind=disconnect  the connection of peer=alice is cut until the fault ends
With delay and hold, in_order=false lets later messages pass. Which messages:
  types=T,T,...    call-offer, call-answer, call-ice-candidate, call-accept,
                   call-reject, call-hangup, message, read, typing, error
  count=1          at most so many
  probability=0.5  each with this chance
"""


class _Commands(click.Group):
    """Ends what fails with one sentence and exit code 1, and what is interrupted with 130, as shells do."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except CalllabError as exc:
            click.echo(f"calllab: {exc}", err=True)
            ctx.exit(EXIT_FAILED)
        except KeyboardInterrupt:
            # A terminal shows ^C, without a new line.
            click.echo("\n" * sys.stderr.isatty() + "calllab: interrupted", err=True)
            ctx.exit(EXIT_INTERRUPTED)


def _given() -> dict[str, str]:
    """Return what was given to the command that runs: names of parameters, and how they are written."""
    context = click.get_current_context()
    return {
        str(param.name): param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
        for param in context.command.params
        if context.get_parameter_source(str(param.name)) is not ParameterSource.DEFAULT
    }


def _alone(mode: str, *allowed: str) -> None:
    """Refuse what says nothing about the option ``mode``, rather than ignore it."""
    others = [written for name, written in _given().items() if written != mode and name not in allowed]
    if others:
        raise click.UsageError(f"{', '.join(others)} {'do' if others[1:] else 'does'} not go with {mode}")


def _not_without(mode: str, *names: str) -> None:
    """Refuse what says something about the option ``mode`` alone."""
    others = [written for name, written in _given().items() if name in names]
    if others:
        raise click.UsageError(f"{', '.join(others)} {'go' if others[1:] else 'goes'} with {mode}")


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="calllab")
def main() -> None:
    """Make a WebRTC call, break it on purpose, see why, keep the evidence.

    Start with `calllab demo`: a real call between two peers, broken in four ways, with a report at the end.
    """


@main.command()
@click.option("--out", type=PATH, help="Folder for recording and report [default: runs/demo-<time>].")
@click.option(
    "--seed",
    type=SEED,
    default=7,
    show_default=True,
    help="All random choices of media and network follow from it.",
)
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
@click.argument("scenario", required=False)
@click.option("--list", "listing", is_flag=True, help="List the scenarios that come with calllab.")
@click.option("--all", "everything", is_flag=True, help="Run all the scenarios that come with calllab.")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="With --all: how many at a time."
)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of scenario files.")
@click.option("--time", type=click.Choice(["virtual", "real"]), default="virtual", show_default=True)
@click.option(
    "--network",
    type=click.Choice(["virtual", "sockets"]),
    help="[default: virtual in virtual time, else sockets if the scenario can run there]",
)
@click.option("--seed", type=SEED, help="Another seed than the scenario's.")
@click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="As in faults[0].loss=0.2.")
@click.option("--out", type=PATH, help="Folder of the recording [default: runs/<scenario>-<time>].")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.option("--junit", type=PATH, help="With --all: write the outcomes to this JUnit file, too.")
def run(
    scenario: str | None,
    listing: bool,
    everything: bool,
    jobs: int,
    schema: bool,
    time: Literal["virtual", "real"],
    network: Literal["virtual", "sockets"] | None,
    seed: int | None,
    changes: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    junit: Path | None,
) -> None:
    """Run SCENARIO, a file or a name of --list, and say whether all that it expects holds.

    Exit code 0 only if it does. In virtual time the same scenario and seed have the same digest.
    """
    from calllab.terminal_list import terminal_width
    from calllab.terminal_run import print_scenarios, run_all, run_command, scenarios_text, schema_text

    if listing:
        _alone("--list", "as_json")
        if as_json:
            click.echo(scenarios_text())
        else:
            print_scenarios(terminal_width())
    elif schema:
        _alone("--schema", "as_json")
        click.echo(schema_text())
    elif everything:
        _alone("--all", "jobs", "time", "network", "seed", "out", "as_json", "junit")
        holds = run_all(
            time=time, network=network, seed=seed, jobs=jobs, out=out, as_json=as_json, junit=junit
        )
        sys.exit(0 if holds else EXIT_FAILED)
    elif scenario is None:
        raise click.UsageError("name a scenario, or use --list or --all")
    else:
        _not_without("--all", "jobs", "junit")
        out = out or Path("runs") / f"{Path(scenario).stem}-{datetime.now():%Y%m%d-%H%M%S}"
        holds = run_command(
            scenario, time=time, network=network, seed=seed, changes=changes, out=out, as_json=as_json
        )
        sys.exit(0 if holds else EXIT_FAILED)


@main.command()
@click.option("--alice", default="adds=1", show_default=True, metavar="WISHES", help="adds=2,restarts=1")
@click.option(
    "--bob", default="adds=1", show_default=True, metavar="WISHES", help="Those of the polite peer."
)
@click.option("--established", default=0, show_default=True, help="M-lines that are negotiated before.")
@click.option("--candidates", default=1, show_default=True, help="Candidates of each ICE generation.")
@click.option("--mutant", metavar="NAME", help="Negotiation with one thing wrong, a name of --list.")
@click.option("--list", "listing", is_flag=True, help="List the mutants.")
@click.option("--all", "everything", is_flag=True, help="With --mutant: go on after the first break.")
@click.option(
    "--max-states", type=click.IntRange(min=1), default=5_000_000, show_default=True, help="Give up beyond."
)
@click.option("--replay", "trace", type=EXISTING, help="Replay a trace of --out on real peer connections.")
@click.option("--out", type=PATH, help="Folder for the traces and their ladders [default: none is written].")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def explore(
    alice: str,
    bob: str,
    established: int,
    candidates: int,
    mutant: str | None,
    listing: bool,
    everything: bool,
    max_states: int,
    trace: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Try every order of events in which two peers negotiate, and show the shortest that breaks something.

    The peers are calllab's own, without network and media. Each adds transceivers (adds=2) and restarts ICE
    (restarts=1) whenever it likes; every message, candidate, operation and event may come before or after
    any other. Two additions on each side are 150,000 states and take about ten seconds.

    \b
      calllab explore --alice adds=2 --bob adds=2
      calllab explore --alice restarts=1 --bob restarts=1 --established 1
      calllab explore --mutant both-polite --out broken
      calllab explore --replay broken/error-1.json
      calllab explore --replay broken/error-1.json --mutant none

    Exit code 0 only if all was explored and nothing is broken: both peers end in agreement, no error comes
    to the surface, and nothing goes on for ever. With --replay, only if what comes of the trace on real peer
    connections is what it says, or, with another --mutant than its own, an agreement.
    """  # noqa: D301 -- the marker of click is a backspace character
    from calllab.lab.explorer import Wishes
    from calllab.terminal_explore import explore_command, mutants_text, print_mutants, replay_command
    from calllab.terminal_list import terminal_width

    if listing:
        _alone("--list", "as_json")
        if as_json:
            click.echo(mutants_text())
        else:
            print_mutants(terminal_width())
        return
    if trace is not None:
        _alone("--replay", "mutant")
        sys.exit(0 if replay_command(trace, mutant) else EXIT_FAILED)
    holds = explore_command(
        Wishes.parse(alice),
        Wishes.parse(bob),
        mutant=mutant or "none",
        established=established,
        candidates=candidates,
        max_states=max_states,
        until_broken=mutant is not None and not everything,
        out=out,
        as_json=as_json,
    )
    sys.exit(0 if holds else EXIT_FAILED)


@main.command()
@click.argument("path", type=EXISTING)
@click.option("--json", "as_json", is_flag=True, help="Print the diagnosis as JSON.")
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


@main.command(epilog=PROXY_EPILOG)
@click.option("--relay", required=True, metavar="URL", help="The service, as http://127.0.0.1:8080.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen for clients.")
@click.option("--port", type=PORT, default=0, help="The port for clients [default: a free one].")
@click.option(
    "--fault", "faults", multiple=True, metavar="FAULT", help="What to break, see below; may be repeated."
)
@click.option("--allow", multiple=True, metavar="NETWORK", help="Where else media may go, as 10.0.0.0/8.")
@click.option("--no-media", is_flag=True, help="Break signaling alone, and leave the media's path as it is.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="All random choices follow from it.")
def proxy(
    relay: str,
    host: str,
    port: int,
    faults: tuple[str, ...],
    allow: tuple[str, ...],
    no_media: bool,
    seed: int,
) -> None:
    """Stand between any client and the service, and break signaling and media on purpose.

    Clients use the address that is printed instead of the service's. Ctrl-C ends it, with a count of what
    passed.
    """
    from calllab.lab.proxy_command import run_proxy

    if no_media and allow:
        raise click.UsageError("--allow does not go with --no-media")
    asyncio.run(
        run_proxy(
            relay,
            host=host,
            port=port,
            faults=faults,
            allowed=allow,
            media=not no_media,
            seed=seed,
            say=click.echo,
        )
    )


def _become(module: str, *arguments: str) -> NoReturn:
    """Go on as another program: signals and exit code are its own then."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


if __name__ == "__main__":
    main()
