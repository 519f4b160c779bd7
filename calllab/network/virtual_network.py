"""An internet in memory: hosts, NATs, and one-way routes between them.

A datagram that a host sends passes, in this order::

    the sender's link (its NetworkInterface) -> its NAT -> the route, if any -> the receiver's NAT -> socket

Links and routes take time, NATs do not.  In virtual time a host is a little late too, behind its link
(:class:`~calllab.network.HostCosts`).  Nothing here knows which clock the running loop has: on a loop in
virtual time a call is repeatable, on any other one it happens in real time.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal, NamedTuple, TypeAlias

from calllab.errors import InvalidSetting
from calllab.network.host_costs import HostCosts
from calllab.network.interface import NetworkInterface
from calllab.network.nat import Nat
from calllab.network.nat_settings import NatSettings
from calllab.network.settings import LinkSettings
from calllab.network.virtual_host import VirtualHost, VirtualSocket
from calllab.network.virtual_turn import VirtualTurnServer
from calllab.protocol.turn_actions import TurnLimits

__all__ = ["DatagramRecord", "Site", "Verdict", "VirtualNetwork"]

Address: TypeAlias = tuple[str, int]

Verdict: TypeAlias = Literal["delivered", "nat-full", "nat-filtered", "no-route", "no-socket", "blocked"]
"""What became of a datagram that had left its sender's link."""

# Addresses for documentation (RFC 5737, RFC 2544): they cannot be anybody's.
_PUBLIC: Final = ipaddress.IPv4Network("198.18.0.0/15")
_PRIVATE: Final = ipaddress.IPv4Network("10.0.0.0/8")


class DatagramRecord(NamedTuple):
    """One datagram in the log, as it left its sender's link."""

    t_s: float
    source: Address
    destination: Address
    size: int
    first_byte: int
    """Tells STUN (0-3), DTLS (20-63), TURN channels (64-79) and RTP or RTCP (128-191) apart, RFC 7983."""
    verdict: Verdict


@dataclass(eq=False)
class Site:
    """A part of the internet: the open one, or what is behind a NAT."""

    name: str
    nat: Nat | None = None
    public_address: str | None = None
    addresses: Iterator[str] = field(default_factory=lambda: iter(()))
    left: deque[str] = field(default_factory=deque)
    """Addresses that were given back, the one that has been free longest first."""

    def new_address(self) -> str:
        """Return an address that is free: a fresh one as long as there are any; raises InvalidSetting."""
        address = next(self.addresses, None)
        if address is not None:
            return address
        if not self.left:
            raise InvalidSetting(f"no address is left on {self.name!r}: take fewer hosts, or more NATs")
        return self.left.popleft()


class VirtualNetwork:
    """Hosts that can send each other datagrams.

    :param seed: what links, NATs and hosts leave to chance follows from it.
    :param log: whether to keep a record of each datagram, see :attr:`log` and :meth:`digest`.
    :param costs: what things cost the processors of its hosts in virtual time, unless a host has its own.
    """

    def __init__(self, *, seed: int = 0, log: bool = False, costs: HostCosts | None = None) -> None:
        self.seed = seed
        self.log: list[DatagramRecord] = []
        self.verdicts: Counter[Verdict] = Counter()
        """How many datagrams met which fate."""
        self.blocked_ports: set[int] = set()
        """UDP destination ports that the open internet does not carry."""
        self._logs = log
        self._costs = costs if costs is not None else HostCosts()
        self._hosts: dict[str, VirtualHost] = {}
        self._by_address: dict[str, VirtualHost] = {}
        self._sites: dict[str, Site] = {}
        self._nats_by_address: dict[str, Site] = {}
        self._public = (str(address) for address in _PUBLIC.hosts())
        self._private_nets = _PRIVATE.subnets(new_prefix=24)
        self._open = Site("internet", addresses=self._public)
        self._routes: dict[tuple[str, str], NetworkInterface] = {}
        self._all_routes: list[NetworkInterface] = []
        self._servers: list[VirtualTurnServer] = []

    # Building

    def add_nat(self, name: str, settings: NatSettings) -> Nat:
        """Add a NAT, behind which hosts can stand; raises InvalidSetting if the name is taken."""
        self._check_name(name)
        inside = next(self._private_nets, None)
        if inside is None:
            raise InvalidSetting(f"there is no room for another NAT ({name!r}): {len(self._sites)} are there")
        public = self._open.new_address()
        # The first address of the inner network is the NAT's own.
        addresses = (str(address) for address in islice(inside.hosts(), 1, None))
        nat = Nat(settings, public, seed=self.seed, name=name)
        site = self._sites[name] = Site(name, nat, public, addresses)
        self._nats_by_address[public] = site
        return nat

    def add_host(
        self, name: str, *, nat: NatSettings | str | None = None, costs: HostCosts | None = None
    ) -> VirtualHost:
        """Add a machine.

        :param nat: None: it has a public address; a name: it stands behind that NAT; settings: behind a NAT
            of its own, called ``<name>-nat``.

        Raises :exc:`~calllab.errors.InvalidSetting` if the name is taken or there is no such NAT.
        """
        self._check_name(name)
        if isinstance(nat, NatSettings):
            self.add_nat(f"{name}-nat", nat)
            nat = f"{name}-nat"
        site = self._site(nat)
        host = VirtualHost(
            self, name, site, site.new_address(), self.seed, costs if costs is not None else self._costs
        )
        self._hosts[name] = self._by_address[host.address] = host
        return host

    def add_turn_server(
        self,
        name: str = "turn",
        *,
        secret: str = "the secret of a simulation",
        realm: str = "calllab",
        limits: TurnLimits | None = None,
    ) -> VirtualTurnServer:
        """Add a machine that answers STUN and relays over TURN on port 3478, and start it.

        Needs a running event loop.
        """
        server = VirtualTurnServer(
            self.add_host(name), secret=secret, realm=realm, limits=limits, seed=self.seed
        )
        self._servers.append(server)
        server.start()
        return server

    def add_stun_server(self, name: str = "stun") -> VirtualTurnServer:
        """Add a machine that answers STUN on port 3478 and relays nothing, and start it."""
        server = VirtualTurnServer(self.add_host(name), secret="unused", relays=False, seed=self.seed)
        self._servers.append(server)
        server.start()
        return server

    def host(self, name: str) -> VirtualHost:
        """Return a host; raises InvalidSetting if there is none of that name."""
        if name not in self._hosts:
            raise InvalidSetting(f"no host {name!r} on this network: there are {', '.join(self._hosts)}")
        return self._hosts[name]

    def nat_of(self, host: str) -> Nat | None:
        """Return the NAT that a host stands behind."""
        return self.host(host).site.nat

    def set_route(self, source: str, destination: str, settings: LinkSettings) -> NetworkInterface:
        """Put a link between two hosts, one way, and return it; it can be changed at any time.

        It stands behind the sender's own link and NAT.  Without one, the way takes no time.  Another one for
        the same hosts takes its place; what is under way on the one before still arrives.
        """
        self.host(source), self.host(destination)
        route = NetworkInterface(settings, seed=self.seed, name=f"{source}=>{destination}")
        self._routes[source, destination] = route
        self._all_routes.append(route)
        return route

    def move(self, host: VirtualHost, *, nat: str | None = None) -> str:
        """Give a host a new address on its own site, or behind ``nat``, and return it.

        Raises :exc:`~calllab.errors.InvalidSetting`, and moves nothing, if there is no such NAT or no
        address.
        """
        site = host.site if nat is None else self._site(nat)
        address = site.new_address()
        del self._by_address[host.address]
        host.site.left.append(host.address)
        host.site, self._by_address[address] = site, host
        return address

    def close(self) -> None:
        """Stop the servers and drop what is under way on routes."""
        for server in self._servers:
            server.stop()
        for route in self._all_routes:
            route.close()

    def _site(self, nat: str | None) -> Site:
        if nat is None:
            return self._open
        if nat not in self._sites:
            raise InvalidSetting(
                f"no NAT {nat!r} on this network: there are {', '.join(self._sites) or 'none'}"
            )
        return self._sites[nat]

    def _check_name(self, name: str) -> None:
        if name in self._hosts or name in self._sites:
            raise InvalidSetting(f"there is a host or NAT {name!r} already: names are unique")

    # Carrying

    def address_of(self, name: str) -> str | None:
        """Return the address of a host by name, or the numeric address itself."""
        if name in self._hosts:
            return self._hosts[name].address
        try:
            return str(ipaddress.ip_address(name))
        except ValueError:
            return None

    def carry(self, sender: VirtualSocket, data: bytes, destination: Address) -> None:
        """Take a datagram that has passed its sender's link."""
        now = asyncio.get_running_loop().time()
        source, site = sender.local, sender.host.site
        local = self._by_address.get(destination[0])
        if local is not None and local.site is site and site.nat is not None:
            # On the same side of the same NAT.
            self._take_route(local.name, sender.host, source, destination, data)
            return
        if destination[1] in self.blocked_ports:
            self._note(source, destination, data, "blocked")
            return
        if site.nat is not None:
            mapped = site.nat.outbound(now, source, destination)
            if mapped is None:
                self._note(source, destination, data, "nat-full")
                return
            source = mapped
        receiver = self._receiver(destination) if self._routes else None
        self._take_route(receiver, sender.host, source, destination, data)

    def _take_route(
        self, receiver: str | None, sender: VirtualHost, source: Address, destination: Address, data: bytes
    ) -> None:
        route = self._routes.get((sender.name, receiver)) if receiver is not None else None
        if route is None:
            self._arrive(sender, source, destination, data)
        else:
            # The network is the one socket of all routes: what has left a host no longer depends on its own.
            route.send(self, data, destination, lambda d, to: self._arrive(sender, source, to, d))

    def _receiver(self, destination: Address) -> str | None:
        """Return the name of the host that a datagram is for, as far as routes need it."""
        address = destination[0]
        site = self._nats_by_address.get(address)
        if site is not None:
            assert site.nat is not None
            internal = site.nat.internal(destination)
            if internal is None:
                return None
            address = internal[0]
        host = self._by_address.get(address)
        return None if host is None else host.name

    def _arrive(self, sender: VirtualHost, source: Address, destination: Address, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        to = destination
        site = self._nats_by_address.get(to[0])
        if site is not None:
            assert site.nat is not None
            if sender.site is site and not site.nat.hairpins:
                self._note(source, destination, data, "nat-filtered")
                return
            inner = site.nat.inbound(now, source, to)
            if inner is None:
                self._note(source, destination, data, "nat-filtered")
                return
            to = inner
        host = self._by_address.get(to[0])
        if host is None or (host.site is not self._open and site is None and host.site is not sender.site):
            self._note(source, destination, data, "no-route")  # nobody, or a private address from outside
            return
        found = host.socket_at(to)
        self._note(source, destination, data, "delivered" if found is not None else "no-socket")
        if found is not None:
            found.arrive(data, source)

    def _note(self, source: Address, destination: Address, data: bytes, verdict: Verdict) -> None:
        self.verdicts[verdict] += 1
        if self._logs:
            now = asyncio.get_running_loop().time()
            first = data[0] if data else -1
            self.log.append(DatagramRecord(now, source, destination, len(data), first, verdict))

    def digest(self) -> str:
        """Return a hash of the log: times, addresses, sizes and fates of all datagrams."""
        state = hashlib.blake2b(digest_size=16)
        for record in self.log:
            state.update(repr(tuple(record)).encode())
        return state.hexdigest()
