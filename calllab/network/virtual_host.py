"""A machine on the virtual network: addresses, UDP sockets, and what its processor takes for what it does."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import math
import random
import socket
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from calllab._aiortc import simulated_loop
from calllab.network.host_costs import HostCosts

if TYPE_CHECKING:
    from calllab.network.virtual_network import Site, VirtualNetwork

__all__ = ["VirtualHost", "VirtualSocket"]

Address: TypeAlias = tuple[str, int]

_FIRST_PORT: Final = 49152  # RFC 6335: the dynamic ports
_PORTS: Final = 65536 - _FIRST_PORT
_LARGEST: Final = 65_507
"""What a UDP datagram over IPv4 can hold."""


class VirtualSocket(asyncio.DatagramTransport):
    """A UDP socket of a virtual host; to its protocol it looks like asyncio's."""

    def __init__(
        self, host: VirtualHost, local: Address, protocol: asyncio.DatagramProtocol, remote: Address | None
    ) -> None:
        super().__init__({"sockname": local, "peername": remote, "socket": None})
        self.host = host
        self.local = local
        self._remote = remote
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        # What the protocol starts belongs to who opened the socket, not to who sent the datagram.
        self._context = contextvars.copy_context()
        self._closing = False

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a datagram; dropped without a word if the socket is closed.

        One that no UDP datagram can hold is reported to the protocol, as asyncio does.
        """
        to = addr if addr is not None else self._remote
        if to is None:
            raise ValueError("a datagram needs an address")
        if len(data) > _LARGEST:
            self._protocol.error_received(
                OSError(errno.EMSGSIZE, f"{len(data)} bytes are too many for a datagram")
            )
        elif not self._closing:
            self.host.send(self, bytes(data), (to[0], to[1]))

    def arrive(self, data: bytes, source: Address) -> None:
        """Hand a datagram to the protocol with the next turn of the loop, unless it comes from elsewhere."""
        if not self._closing and self._remote in (None, source):
            self._loop.call_soon(self._receive, data, source, context=self._context)

    def _receive(self, data: bytes, source: Address) -> None:
        if not self._closing:
            self._protocol.datagram_received(data, source)

    def close(self) -> None:
        """Close the socket; its port is free at once."""
        if self._closing:
            return
        self._closing = True
        self.host.forget(self)
        if not self._loop.is_closed():
            self._loop.call_soon(self._protocol.connection_lost, None, context=self._context)

    def abort(self) -> None:
        """Close the socket."""
        self.close()

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self._closing

    def get_write_buffer_size(self) -> int:
        """Return 0: nothing waits here, but on links."""
        return 0


class VirtualHost:
    """A machine with one address at a time; made by :meth:`VirtualNetwork.add_host`.

    ``costs`` is what things cost its processor in virtual time, and may be changed at any time.
    """

    def __init__(
        self, network: VirtualNetwork, name: str, site: Site, address: str, seed: int, costs: HostCosts
    ) -> None:
        self.network = network
        self.name = name
        self.site = site
        """The NAT it stands behind, or the open network."""
        self.address = address
        self.costs = costs
        self._entropy = random.Random(f"{seed}/{name}/host")
        # Of its own, so that how much is sent does not change what coding costs.
        self._lateness = random.Random(f"{seed}/{name}/late")
        self._runs_at = -math.inf
        self._sockets: dict[Address, VirtualSocket] = {}

    # What calllab._aiortc asks of a host

    def addresses(self) -> list[str]:
        """Return its one address."""
        return [self.address]

    def resolve(self, name: str, port: int) -> Address:
        """Return the address of a host of the same network; raises socket.gaierror if there is none."""
        address = self.network.address_of(name)
        if address is None:
            raise socket.gaierror(socket.EAI_NONAME, f"the virtual network has no host {name!r}")
        return (address, port)

    async def open_datagrams(
        self, protocol: asyncio.DatagramProtocol, local: Address | None, remote: Address | None
    ) -> asyncio.DatagramTransport:
        """Open a UDP socket; raises OSError if the address is not the host's, or is taken."""
        return self.open_socket(protocol, local=local, remote=remote)

    def coding_cost_s(
        self, operation: Literal["encode", "decode"], kind: Literal["audio", "video"], pixels: int
    ) -> float:
        """Draw how long encoding or decoding a frame takes here, in virtual time."""
        return self.costs.draw_s(operation, kind, pixels, self._entropy)

    # Sockets

    def send(self, sender: VirtualSocket, data: bytes, to: Address) -> None:
        """Take a datagram from one of its sockets and send it; in virtual time, when the process gets to run.

        On other clocks processes are late all by themselves.  One that is under way leaves though its socket
        is closed then, but not if the host has another address.
        """
        loop = simulated_loop()
        if loop is None:
            self.network.carry(sender, data, to)
            return
        now = loop.time()
        if self._runs_at <= now:
            self._runs_at = now + self.costs.draw_late_s(self._lateness)
        if self._runs_at > now:
            loop.call_at(self._runs_at, self._leave, sender, data, to)
        else:
            self.network.carry(sender, data, to)

    def _leave(self, sender: VirtualSocket, data: bytes, to: Address) -> None:
        if sender.local[0] == self.address:
            self.network.carry(sender, data, to)

    def open_socket(
        self,
        protocol: asyncio.DatagramProtocol,
        *,
        local: Address | None = None,
        remote: Address | None = None,
    ) -> VirtualSocket:
        """Open a UDP socket on ``local`` (None, or port 0: any port), and tell the protocol.

        Raises OSError if the address is not the host's, or the port is taken.
        """
        address, port = local if local is not None else (self.address, 0)
        if address in ("0.0.0.0", ""):
            address = self.address
        if address != self.address:
            raise OSError(errno.EADDRNOTAVAIL, f"{self.name} has the address {self.address}, not {address}")
        bound = (address, port or self._free_port())
        if bound in self._sockets:
            raise OSError(errno.EADDRINUSE, f"port {bound[1]} of {self.name} is taken")
        opened = self._sockets[bound] = VirtualSocket(self, bound, protocol, remote)
        protocol.connection_made(opened)
        return opened

    def _free_port(self) -> int:
        start = self._entropy.randrange(_PORTS)
        for step in range(_PORTS):
            port = _FIRST_PORT + (start + step) % _PORTS
            if (self.address, port) not in self._sockets:
                return port
        raise OSError(errno.EADDRINUSE, f"{self.name} has no free port")

    def socket_at(self, address: Address) -> VirtualSocket | None:
        """Return the open socket at an address of this host."""
        return self._sockets.get(address)

    def forget(self, closed: VirtualSocket) -> None:
        """Let go of a socket that was closed."""
        if self._sockets.get(closed.local) is closed:
            del self._sockets[closed.local]

    def change_address(self) -> str:
        """Move to another address, as after a change of network, and return it.

        What was open stays open and gets nothing any more.
        """
        self._sockets.clear()
        self.address = self.network.move(self)
        return self.address

    def __repr__(self) -> str:
        return f"<VirtualHost {self.name} {self.address}>"
