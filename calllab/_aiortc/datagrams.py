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
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from aioice import turn

__all__ = ["Address", "DatagramInterface", "Deliver", "SocketFactory", "open_udp"]

Address: TypeAlias = tuple[str, int]
Deliver: TypeAlias = Callable[[bytes, Address], None]
SocketFactory: TypeAlias = Callable[[], asyncio.DatagramProtocol]

_P = TypeVar("_P", bound=asyncio.DatagramProtocol)


class DatagramInterface(Protocol):
    """What may delay, drop, copy or reorder the datagrams of a peer.

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
    loop = asyncio.get_running_loop()
    bottom = protocol if interface is None else _Tap(protocol, interface)
    transport, _ = await loop.create_datagram_endpoint(lambda: bottom, local_addr=local, remote_addr=remote)
    sock = transport.get_extra_info("socket")
    if sock is not None:
        # As aioice does: the default is too small for a burst of video packets while the loop is busy.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, turn.UDP_SOCKET_BUFFER_SIZE)
    return protocol
