"""Getting local candidates: host sockets, STUN servers, TURN servers."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aioice import Candidate, stun, turn
from aioice.candidate import candidate_foundation, candidate_priority

from calllab._aiortc.candidates import IceCandidateError, IceUrl, explain_unauthorized, parse_ice_url
from calllab._aiortc.datagrams import DatagramInterface, host_of, open_udp, resolve
from calllab._aiortc.ice_socket import IceSocket
from calllab._aiortc.insides import inside
from calllab._aiortc.simulated import wall_time

__all__ = [
    "NO_ANSWER",
    "IcePolicy",
    "IceServerLike",
    "Server",
    "gather_host",
    "gather_reflexive",
    "gather_relay",
    "servers_of",
]

IcePolicy = Literal["all", "relay"]
SocketMaker = Callable[[str | None], IceSocket]

NO_ANSWER = 701
"""The error code of a server that did not answer (W3C webrtc-pc section 4.8.3)."""

# How long giving back an allocation may take when a connection closes.
RELEASE_TIMEOUT_S = 1.0


class IceServerLike(Protocol):
    """What is needed of a W3C RTCIceServer."""

    @property
    def urls(self) -> str | Sequence[str]:
        """One URL or several."""

    @property
    def username(self) -> str | None:
        """The user name for TURN."""

    @property
    def credential(self) -> str | None:
        """The password for TURN."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server to ask for candidates."""

    url: IceUrl
    username: str | None = None
    password: str | None = None


class GatheringError(Exception):
    """A server gave no candidate; ``error`` says why."""

    def __init__(self, error: IceCandidateError) -> None:
        super().__init__(error.errorText)
        self.error = error


def servers_of(servers: Sequence[IceServerLike]) -> tuple[Server, ...]:
    """Return one entry for each URL, in order; raises ValueError if a URL is malformed."""
    found: dict[str, Server] = {}
    for server in servers:
        urls = [server.urls] if isinstance(server.urls, str) else server.urls
        for url in urls:
            found.setdefault(url, Server(parse_ice_url(url), server.username, server.credential))
    return tuple(found.values())


async def gather_host(
    address: str, make_socket: SocketMaker, interface: DatagramInterface | None
) -> IceSocket | None:
    """Open a socket on a local address; None if it cannot be bound."""
    try:
        protocol = await open_udp(make_socket(None), interface, local=(address, 0))
    except OSError:
        return None
    host, port = protocol.transport.get_extra_info("sockname")[:2]
    protocol.local_candidate = Candidate(
        foundation=candidate_foundation("host", "udp", host),
        component=1,
        transport="udp",
        priority=candidate_priority(1, "host"),
        host=host,
        port=port,
        type="host",
    )
    return protocol


async def gather_reflexive(
    protocol: IceSocket, server: Server, interface: DatagramInterface | None, *, timeout_s: float
) -> Candidate:
    """Ask a STUN server how it sees a host socket; raises GatheringError if it gives no answer."""
    base = protocol.local_candidate
    with _Explained(server, (base.host, base.port)):
        async with asyncio.timeout(timeout_s):
            family = ipaddress.ip_address(base.host).version
            address = await resolve(
                interface,
                server.url.host,
                server.url.port,
                socket.AF_INET if family == 4 else socket.AF_INET6,
            )
            request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
            response, _ = await protocol.request(request, address)
        host, port = response.attributes["XOR-MAPPED-ADDRESS"]
    return Candidate(
        foundation=candidate_foundation("srflx", "udp", base.host),
        component=1,
        transport="udp",
        priority=candidate_priority(1, "srflx"),
        host=host,
        port=port,
        type="srflx",
        related_address=base.host,
        related_port=base.port,
    )


async def gather_relay(
    server: Server,
    make_socket: SocketMaker,
    interface: DatagramInterface | None,
    *,
    hide_related: bool,
    timeout_s: float,
) -> IceSocket:
    """Allocate a relayed address on a TURN server; raises GatheringError if the server gives none."""
    with _Explained(server) as explained:
        async with asyncio.timeout(timeout_s):
            client = await _connect(server, interface)
            if not hide_related:
                explained.local = client.transport.get_extra_info("sockname")[:2]
            try:
                transport = _RelayTransport(client)
                protocol = make_socket(server.url.url)
                await transport._connect(protocol)
            except BaseException:
                client.transport.close()
                raise
    host, port = transport.get_extra_info("sockname")
    related: tuple[str, int] = transport.get_extra_info("related_address")
    if hide_related:
        # With policy "relay" the related address would give away what the policy hides
        # (RFC 9429 section 3.5.3, in the form of RFC 8839 section 5.1).
        related = ("0.0.0.0" if ipaddress.ip_address(host).version == 4 else "::", 9)
    protocol.local_candidate = Candidate(
        foundation=candidate_foundation("relay", "udp", host),
        component=1,
        transport="udp",
        priority=candidate_priority(1, "relay"),
        host=host,
        port=port,
        type="relay",
        related_address=related[0],
        related_port=related[1],
    )
    return protocol


# A permission ends after 300 s, and what renews ours is the binding of the channel (RFC 8656 sections 9 and
# 12).  aioice binds anew after 500 s (turn.py:17), in time for the channel alone.
_CHANNEL_REFRESH_S = 240


async def _connect(server: Server, interface: DatagramInterface | None) -> Any:
    """Open the TURN client's own socket.

    aioice's create_turn_endpoint (turn.py:503) opens it too, but leaves no place for the interface.
    """
    url = server.url
    options: dict[str, Any] = {
        "username": server.username,
        "password": server.password,
        "lifetime": turn.DEFAULT_ALLOCATION_LIFETIME,
        "channel_refresh_time": _CHANNEL_REFRESH_S,
    }
    if url.transport == "udp":
        address = await resolve(interface, url.host, url.port)
        return await open_udp(turn.TurnClientUdpProtocol(address, **options), interface, remote=address)
    if host_of(interface) is not None:
        raise OSError(f"TURN over {url.transport} does not exist on a virtual network")
    loop = asyncio.get_running_loop()
    secure = ssl.create_default_context() if url.scheme == "turns" else None
    _, client = await loop.create_connection(
        lambda: turn.TurnClientTcpProtocol((url.host, url.port), **options), url.host, url.port, ssl=secure
    )
    return client


class _RelayTransport(turn.TurnTransport):
    """An allocation that is given back within a second, or left to expire.

    aioice waits for the answer to its last request as long as for any other (turn.py:233): more than a minute
    if the server, or the network to it, is gone, and closing the connection waits with it.
    """

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await super()._close()
        except TimeoutError:
            for task in inside(self, turn.TurnTransport, "__send_tasks"):
                task.cancel()


class _Explained:
    """Turns what aioice and the operating system raise into a GatheringError."""

    def __init__(self, server: Server, local: tuple[str, int] | None = None) -> None:
        self._server = server
        self.local = local
        """The local address that was used, as far as the peer may know it."""

    def __enter__(self) -> _Explained:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or not isinstance(error, Exception):
            return
        url = self._server.url
        code, text = NO_ANSWER, f"{url.url} gave no candidate: {error}"
        if isinstance(error, stun.TransactionFailed):
            code, reason = error.response.attributes["ERROR-CODE"]
            text = f"{code} {reason or 'error'}: {url.url} refused"
            if code == 401:
                text = explain_unauthorized(self._server.username, reason, wall_time())
        elif isinstance(error, TimeoutError | stun.TransactionTimeout):
            text = f"{url.url} did not answer; is it running, and may UDP pass?"
        elif isinstance(error, socket.gaierror):
            text = f"the host name of {url.url} cannot be resolved: {error.strerror}"
        elif isinstance(error, OSError):
            text = f"{url.url} cannot be reached: {error.strerror or error}"
        host, port = self.local if self.local is not None else (None, None)
        raise GatheringError(IceCandidateError(url.url, code, text, host, port)) from error
