"""The UDP proxy as a program: requests and replies are lines of JSON on standard input and output.

``python -m calllab.network.udp_proxy_main --seed 7`` prints ``{"ready": {"host": ...}}``, then answers each
``{"id": 1, "do": "description", ...}`` with ``{"id": 1, "result": ...}`` or ``{"id": 1, "error": ...}``, and
tells of changes of links with ``{"event": ...}``.  It ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from calllab.errors import InvalidSetting
from calllab.network.interface import NetworkEvent
from calllab.network.udp_proxy import UdpProxy

__all__ = ["MAX_LINE_BYTES", "event_members", "main"]

MAX_LINE_BYTES: Final = 32 * 1024 * 1024
"""Room for a trace as long as they may be, which a fault's events tell twice."""


class _Request(msgspec.Struct, frozen=True):
    id: int
    do: str
    args: dict[str, Any] = {}


def main() -> None:
    """Run the proxy until standard input ends."""
    parser = argparse.ArgumentParser(description="A UDP proxy in the path of calls (see calllab proxy).")
    parser.add_argument("--host", help="the address of legs for other machines and hidden addresses")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--allow", action="append", default=[], metavar="NETWORK")
    parser.add_argument("--started-s", type=float, help="how long ago, by the monotonic clock, time was 0")
    options = parser.parse_args()
    # An interrupt at the terminal goes to the whole group; the parent says when it is over.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_serve(options))


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    incoming, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    outgoing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(os.dup(1), "wb", 0))

    def say(line: Mapping[str, Any]) -> None:
        outgoing.write(msgspec.json.encode(line) + b"\n")

    try:
        proxy = UdpProxy(host=options.host, seed=options.seed, epoch=options.started_s, allowed=options.allow)
    except InvalidSetting as error:
        say({"error": str(error)})
        outgoing.close()
        incoming.close()
        return
    proxy.on_event(lambda user, event: say({"event": event_members(user, event)}))
    say({"ready": {"host": proxy.host}})
    try:
        while line := await reader.readline():
            say(_answered(proxy, line))
    finally:
        proxy.close()
        outgoing.close()
        incoming.close()


def _answered(proxy: UdpProxy, line: bytes) -> dict[str, Any]:
    """Do what a line asks for; whatever is wrong with it becomes its answer."""
    try:
        request = msgspec.json.decode(line, type=_Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return {"id": None, "error": f"not a request: {error}"}
    doing = _OPERATIONS.get(request.do)
    if doing is None:
        return {"id": request.id, "error": f"there is nothing called {request.do!r} to do"}
    try:
        return {"id": request.id, "result": doing(proxy, **request.args)}
    except (InvalidSetting, TypeError, ValueError) as error:
        return {"id": request.id, "error": str(error)}


_OPERATIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "description": UdpProxy.description,
    "candidate": UdpProxy.candidate,
    "end_call": UdpProxy.end_call,
    "set": UdpProxy.set,
    "fault": UdpProxy.fault,
    "cancel": UdpProxy.cancel,
    "counters": UdpProxy.counters,
}


def event_members(user: str, event: NetworkEvent) -> dict[str, Any]:
    """Return a change of a link as JSON can hold it."""
    fault = event.fault
    return {
        "user": user,
        "at_s": event.at_s,
        "event": event.event,
        "fault": None
        if fault is None
        else {"id": fault.id, "at_s": fault.at_s, "for_s": fault.for_s, "changes": fault.changes},
        "settings": event.settings.changes(),
        "realised": None
        if event.realised is None
        else {
            "offered": event.realised.offered,
            "delivered": event.realised.delivered,
            "lossShare": event.realised.loss_share,
        },
    }


if __name__ == "__main__":
    main()
