"""The one seam through which every datagram of a peer's ICE sockets passes, once per direction.

A :class:`DatagramInterface` stands between the operating system's UDP sockets and everything that speaks over
them: connectivity checks, DTLS, media, and the TURN client's own traffic.  It sees each datagram where a
network card would, so a relayed packet passes once, wrapped as TURN data, and not a second time inside.
TURN over TCP or TLS has no datagrams and does not pass.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, cast

from aioice import ice, turn

__all__ = [
    "Address",
    "DatagramHost",
    "DatagramInterface",
    "Deliver",
    "SocketFactory",
    "host_addresses",
    "host_of",
    "open_udp",
    "resolve",
]

Address: TypeAlias = tuple[str, int]
Deliver: TypeAlias = Callable[[bytes, Address], None]
SocketFactory: TypeAlias = Callable[[], asyncio.DatagramProtocol]

_P = TypeVar("_P", bound=asyncio.DatagramProtocol)


class DatagramHost(Protocol):
    """The machine that a peer runs on, if it is not this one."""

    def addresses(self) -> list[str]:
        """Return its addresses, those to gather host candidates on."""

    def resolve(self, name: str, port: int) -> Address:
        """Return the address of a host name; raises socket.gaierror if there is none."""

    async def open_datagrams(
        self, protocol: asyncio.DatagramProtocol, local: Address | None, remote: Address | None
    ) -> asyncio.DatagramTransport:
        """Open a UDP socket; raises OSError if the address cannot be had."""

    def coding_cost_s(
        self, operation: Literal["encode", "decode"], kind: Literal["audio", "video"], pixels: int
    ) -> float:
        """Return how long a frame takes there in virtual time; ``pixels`` is 0 where it is not known."""


class DatagramInterface(Protocol):
    """What may delay, drop, copy or reorder the datagrams of a peer.

    An optional attribute ``host`` is the :class:`DatagramHost` whose sockets they are; None or missing: this
    machine.

    ``socket`` is the opaque identity of one local UDP socket: the same object in every call about it.
    ``deliver`` may be called zero or more times, at once or later, on the same event loop; after the socket
    is closed it does nothing.  An optional method ``opened(socket)`` is called when a socket opens.
    """

    def send(self, socket: object, data: bytes, address: Address, deliver: Deliver) -> None:
        """Take a datagram on its way out to ``address``."""

    def receive(self, socket: object, data: bytes, address: Address, deliver: Deliver) -> None:
        """Take a datagram that came in from ``address``."""

    def closed(self, socket: object) -> None:
        """Forget a socket: it is closed."""


class _TappedTransport(asyncio.DatagramTransport):
    """A datagram transport whose datagrams pass the interface; it is also the identity of its socket."""

    def __init__(self, transport: asyncio.DatagramTransport, interface: DatagramInterface) -> None:
        super().__init__()
        self._transport = transport
        self._interface = interface
        self._peer = cast("Address | None", transport.get_extra_info("peername"))

    def sendto(self, data: Any, addr: Any = None) -> None:
        address: Any = addr if addr is not None else self._peer
        self._interface.send(self, bytes(data), (address[0], address[1]), self._send_now)

    def _send_now(self, data: bytes, address: Address) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(data, None if self._peer is not None else address)

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)


class _Tap(asyncio.DatagramProtocol):
    """Stands below a protocol and hands what it sends and receives to the interface."""

    def __init__(self, protocol: asyncio.DatagramProtocol, interface: DatagramInterface) -> None:
        self._protocol = protocol
        self._interface = interface
        self._transport: _TappedTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = _TappedTransport(cast(asyncio.DatagramTransport, transport), self._interface)
        opened = getattr(self._interface, "opened", None)
        if opened is not None:
            opened(self._transport)
        self._protocol.connection_made(self._transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self._transport is not None:
            self._interface.receive(self._transport, data, (addr[0], addr[1]), self._receive_now)

    def _receive_now(self, data: bytes, address: Address) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._protocol.datagram_received(data, address)

    def error_received(self, exc: Exception) -> None:
        self._protocol.error_received(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            self._interface.closed(transport)
        self._protocol.connection_lost(exc)


async def open_udp(
    protocol: _P,
    interface: DatagramInterface | None,
    *,
    local: Address | None = None,
    remote: Address | None = None,
) -> _P:
    """Open a UDP socket for ``protocol``, below it the interface if there is one.

    ``local`` is the address to bind, ``remote`` the only address to talk to (a connected socket).
    Raises OSError if the address cannot be bound, resolved or reached.
    """
    bottom = protocol if interface is None else _Tap(protocol, interface)
    host = host_of(interface)
    if host is not None:
        await host.open_datagrams(bottom, local, remote)
        return protocol
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: bottom, local_addr=local, remote_addr=remote)
    sock = transport.get_extra_info("socket")
    if sock is not None:
        # As aioice does: the default is too small for a burst of video packets while the loop is busy.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, turn.UDP_SOCKET_BUFFER_SIZE)
    return protocol


def host_of(interface: DatagramInterface | None) -> DatagramHost | None:
    """Return the host that the sockets below ``interface`` belong to; None: this machine."""
    return getattr(interface, "host", None)


def host_addresses(interface: DatagramInterface | None) -> list[str]:
    """Return the addresses to gather host candidates on.

    aioice leaves loopback out (ice.py:98).  On a machine without any other interface calls between processes
    of that machine must work all the same, so there it is all there is.
    """
    host = host_of(interface)
    if host is not None:
        return host.addresses()
    return ice.get_host_addresses(use_ipv4=True, use_ipv6=True) or ["127.0.0.1"]


async def resolve(
    interface: DatagramInterface | None, name: str, port: int, family: int = socket.AF_UNSPEC
) -> Address:
    """Return the address of a host name, on the network that ``interface`` is on.

    Raises socket.gaierror if there is none.
    """
    host = host_of(interface)
    if host is not None:
        return host.resolve(name, port)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(name, port, family=family, type=socket.SOCK_DGRAM)
    address, number = found[0][4][:2]
    return str(address), int(number)
