"""The command line of the service."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from calllab_server.config import ServiceConfig
from calllab_server.errors import ConfigurationError, ServiceError

if TYPE_CHECKING:
    from calllab_server.service import Service

__all__ = ["main"]

_log = logging.getLogger(__name__)

PORT: Final = click.IntRange(0, 65535)
_STDIN: Final = 0
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_EPILOG: Final = """
\b
A laboratory on this machine, on free ports:
    python -m calllab_server
A fixed address, accounts kept:
    python -m calllab_server --port 8080 --turn-port 3478 --database accounts.sqlite
On a network, behind a proxy that speaks TLS to browsers:
    export CALLLAB_JWT_SECRET=... CALLLAB_TURN_SECRET=... CALLLAB_INVITE=...
    python -m calllab_server --host 192.0.2.7 --port 8080 --turn-port 3478 \\
        --database /var/lib/calllab/accounts.sqlite --allowed-origin https://calls.example.org

\b
Secrets come from the environment alone, since a command line can be read by everybody on the machine:
    CALLLAB_JWT_SECRET     signs access tokens (32 characters or more)
    CALLLAB_TURN_SECRET    signs TURN credentials (32 characters or more)
    CALLLAB_INVITE         what a new user has to know (8 characters or more)
    CALLLAB_METRICS_TOKEN  what a reader of /metrics has to know; off loopback it is closed without
On a loopback address missing secrets are drawn at random, so that tokens end with the service. On any other
address the service refuses to start without the first three.

\b
The service ends on SIGTERM, SIGINT and SIGHUP: WebSockets are closed with 1001, running requests finish.
With --ready-json it also ends when standard input reaches its end, if that is a pipe, a socket or a terminal:
a parent that holds the other end takes the service along, however it dies. /dev/null and files are no such
lifeline and are not read.

\b
Exit codes: 0 stopped as asked; 1 could not start (a port taken, a database unreadable); 2 settings refused.
"""


class _Ready(msgspec.Struct, frozen=True):
    """The line that says where the service listens."""

    http: str
    turn: str


class _Ports(click.ParamType[tuple[int, int]]):
    """A range of ports: LOW-HIGH."""

    name = "low-high"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        low, dash, high = str(value).partition("-")
        if not (dash and low.isascii() and low.isdigit() and high.isascii() and high.isdigit()):
            self.fail(f"{value!r} is no range of ports: write for example 49152-65535", param, ctx)
        return int(low), int(high)


@click.command(epilog=_EPILOG, context_settings={"max_content_width": 110, "show_default": True})
@click.option("--host", default="127.0.0.1", envvar="CALLLAB_HOST", help="Address for HTTP and TURN.")
@click.option("--port", type=PORT, default=0, envvar="CALLLAB_PORT", help="TCP port of HTTP; 0: a free one.")
@click.option(
    "--turn-port", type=PORT, default=0, envvar="CALLLAB_TURN_PORT", help="UDP port of TURN; 0: a free one."
)
@click.option(
    "--database",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="CALLLAB_DATABASE",
    help="SQLite file of the accounts; without it a temporary one, removed at the end.",
)
@click.option(
    "--allowed-origin",
    "allowed_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Site whose pages may open WebSockets; may be repeated.  [env var: CALLLAB_ALLOWED_ORIGINS, "
    "separated by commas]",
)
@click.option(
    "--turn-external-ip",
    metavar="IP",
    envvar="CALLLAB_TURN_EXTERNAL_IP",
    help="Address of TURN as clients see it, if that is not the host's.",
)
@click.option(
    "--turn-relay-ports",
    type=_Ports(),
    envvar="CALLLAB_TURN_RELAY_PORTS",
    help="UDP ports of relayed addresses; without it whatever is free.",
)
@click.option(
    "--ready-json", is_flag=True, help="Print one JSON line when ready; end when standard input does."
)
@click.option("-v", "--verbose", is_flag=True, help="Log every socket that is closed, and the like.")
def main(
    *,
    host: str,
    port: int,
    turn_port: int,
    database: Path | None,
    allowed_origins: tuple[str, ...],
    turn_external_ip: str | None,
    turn_relay_ports: tuple[int, int] | None,
    ready_json: bool,
    verbose: bool,
) -> None:
    """Run the calllab service: accounts, WebSocket relay, TURN credentials, embedded STUN and TURN."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("calllab_server").setLevel(logging.DEBUG if verbose else logging.INFO)
    environment = os.environ
    from_environment = environment.get("CALLLAB_ALLOWED_ORIGINS", "").split(",")
    try:
        config = ServiceConfig.assemble(
            jwt_secret=environment.get("CALLLAB_JWT_SECRET") or None,
            turn_secret=environment.get("CALLLAB_TURN_SECRET") or None,
            host=host,
            port=port,
            turn_port=turn_port,
            invite=environment.get("CALLLAB_INVITE") or None,
            database=database,
            allowed_origins=frozenset(
                origin.strip() for origin in (*allowed_origins, *from_environment) if origin.strip()
            ),
            metrics_token=environment.get("CALLLAB_METRICS_TOKEN") or None,
            turn_external_ip=turn_external_ip,
            turn_relay_ports=turn_relay_ports,
        )
        _say_what_is_temporary(environment)
        asyncio.run(_run(config, ready_json=ready_json))
    except ConfigurationError as exc:
        click.echo(f"calllab_server: {exc}", err=True)
        sys.exit(2)
    except ServiceError as exc:
        click.echo(f"calllab_server: {exc}", err=True)
        sys.exit(1)


def _say_what_is_temporary(environment: Mapping[str, str]) -> None:
    missing = [name for name in ("CALLLAB_JWT_SECRET", "CALLLAB_TURN_SECRET") if not environment.get(name)]
    if missing:
        _log.warning("%s not set: drawn at random, good until the service ends", " and ".join(missing))


async def _run(config: ServiceConfig, *, ready_json: bool) -> None:
    # Loaded late, so that --help and refused settings do not wait for the database library.
    from calllab_server.service import Service

    stop = asyncio.Event()
    with _stopping(stop, watch_stdin=ready_json):
        async with Service(config) as service:
            if ready_json:
                _print_ready(service, stop)
            else:
                click.echo(f"HTTP and WebSocket: {service.http_url}\nSTUN and TURN:      {service.turn_uri}")
                click.echo("Stop with Ctrl-C.")
            await stop.wait()


def _print_ready(service: Service, stop: asyncio.Event) -> None:
    line = msgspec.json.encode(_Ready(service.http_url, service.turn_uri)) + b"\n"
    try:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    except OSError:
        # Whoever was to read it is gone.
        stop.set()


@contextmanager
def _stopping(stop: asyncio.Event, *, watch_stdin: bool) -> Iterator[None]:
    """Set ``stop`` on a signal, and at the end of standard input if that is watched."""
    loop = asyncio.get_running_loop()
    # A signal that the parent has had ignored (nohup) stays ignored.
    signals = [number for number in _STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in signals:
        loop.add_signal_handler(number, stop.set)

    def on_stdin() -> None:
        try:
            ended = not os.read(_STDIN, 4096)
        except OSError:
            ended = True
        if ended:
            loop.remove_reader(_STDIN)
            stop.set()

    watched = watch_stdin and _is_lifeline(_STDIN)
    if watched:
        loop.add_reader(_STDIN, on_stdin)
    try:
        yield
    finally:
        if watched:
            loop.remove_reader(_STDIN)
        for number in signals:
            loop.remove_signal_handler(number)


def _is_lifeline(descriptor: int) -> bool:
    """Say whether a descriptor ends when somebody else does: a pipe, a socket, a terminal."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
