"""A laboratory without sockets: a relay in memory, hosts, NATs and servers on a virtual network."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from typing import Self

from calllab.lab.kinds import STUN_HOSTS, NetworkKind
from calllab.lab.world import Access, EntropyFor
from calllab.network import LinkSettings, NetworkInterface, VirtualNetwork, VirtualTurnServer
from calllab.protocol.turn_credentials import TurnCredentials, password_for
from calllab.signaling import MemoryHub

__all__ = ["VirtualWorld"]

TURN_SECRET = "the secret of a virtual laboratory"


class VirtualWorld:
    """Everything inside this process, on whatever clock the running loop has.

    :param network: the network to stand on, whose hosts named like users are theirs; None: a new one.
    :param seed: what is left to chance in a new network follows from it.
    :param stun: how many STUN servers users are told of, each a host with an address of its own: ``stun``,
        ``stun-2``; True: one.
    :param turn: whether users are told of a TURN server, the host ``turn``.
    """

    network: NetworkKind = "virtual"

    def __init__(
        self,
        network: VirtualNetwork | None = None,
        *,
        seed: int = 0,
        stun: int = 0,
        turn: bool = True,
    ) -> None:
        self.virtual_network = network if network is not None else VirtualNetwork(seed=seed)
        self.hub = MemoryHub(entropy=random.Random(f"{seed}/relay"))
        self.turn_server: VirtualTurnServer | None = None
        self.stun_servers: tuple[VirtualTurnServer, ...] = ()
        self._stun_hosts = STUN_HOSTS[: int(stun)]
        self._turn = turn

    async def __aenter__(self) -> Self:
        """Start the servers."""
        self.stun_servers = tuple(map(self.virtual_network.add_stun_server, self._stun_hosts))
        if self._turn:
            self.turn_server = self.virtual_network.add_turn_server("turn", secret=TURN_SECRET)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop everything."""
        await self.hub.close()
        self.virtual_network.close()

    async def join(self, name: str, entropy: EntropyFor, stack: AsyncExitStack) -> Access:
        """Give a user a channel of the relay, and a host unless the network has one of this name."""
        if self.virtual_network.address_of(name) is None:
            self.virtual_network.add_host(name)
        has_servers = bool(self.stun_servers) or self.turn_server is not None
        return Access(self.hub.connect(name), _Credentials(self, name) if has_servers else None)

    def interface(
        self, name: str, settings: LinkSettings | None, *, seed: int, epoch: float
    ) -> NetworkInterface:
        """Return an interface on the user's host."""
        host = self.virtual_network.host(name)
        return NetworkInterface(settings, seed=seed, name=name, epoch=epoch, host=host)

    def credentials(self, user_id: str) -> TurnCredentials:
        """Return credentials with the addresses of all servers; without a TURN server they are empty."""
        turn = self.turn_server
        uris = tuple(uri for server in self.stun_servers for uri in server.stun_uris)
        if turn is None:
            return TurnCredentials("", "", 0, uris)
        made = turn.credentials(user_id)
        return TurnCredentials(made.username, made.password, made.ttl, (*uris, *made.uris))

    def sign(self, username: str) -> str:
        """Return the TURN password that belongs to ``username``."""
        return password_for(TURN_SECRET, username)

    async def relayed_packets(self) -> int:
        """Return what the TURN server has relayed so far; 0 if there is none."""
        counted = None if self.turn_server is None else self.turn_server.counters()
        return 0 if counted is None else counted.packets_to_peers + counted.packets_to_clients


class _Credentials:
    """What the service's endpoint for TURN credentials is on real sockets."""

    def __init__(self, world: VirtualWorld, user_id: str) -> None:
        self._world = world
        self._user_id = user_id

    async def get_credentials(self) -> TurnCredentials:
        """Return new credentials, with the addresses of all servers."""
        return self._world.credentials(self._user_id)
