"""What a laboratory stands on: where its users get signaling, TURN credentials and a network interface.

Everything above (phones, peer connections, faults, recording) is the same in every world, and does not know
in which one it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias

from calllab._aiortc import wall_time
from calllab.errors import LabError
from calllab.lab.kinds import NetworkKind
from calllab.lab.service import ServiceProcess
from calllab.network import LinkSettings, NetworkInterface
from calllab.protocol.turn_credentials import TurnCredentials, make_credentials, password_for
from calllab.signaling import Channel, RelayChannel, ServiceSession, TurnApi

__all__ = ["Access", "EntropyFor", "SocketsWorld", "World", "make_world"]

EntropyFor: TypeAlias = Callable[[str], random.Random]
"""Returns the random source of one purpose."""

CREDENTIALS_TTL_S = 3600

# Accounts live in a database that is thrown away with the laboratory, on loopback.
_PASSWORD = "a password of the laboratory"


@dataclass(frozen=True)
class Access:
    """What a user got from the world."""

    channel: Channel
    """Signaling; the user closes it."""
    turn_api: Any
    """Where TURN credentials come from; None: there are no ICE servers."""


class World(Protocol):
    """The ground under a laboratory; an asynchronous context manager."""

    network: NetworkKind

    async def __aenter__(self) -> Self:
        """Bring it up.  Raises :exc:`~calllab.errors.LabError` if that fails."""

    async def __aexit__(self, *exc_info: object) -> None:
        """Take it down."""

    async def join(self, name: str, entropy: EntropyFor, stack: AsyncExitStack) -> Access:
        """Make a user reachable; what must be closed for that is entered into ``stack``."""

    def interface(
        self, name: str, settings: LinkSettings | None, *, seed: int, epoch: float
    ) -> NetworkInterface:
        """Return the network interface of a user who has joined; the user closes it."""

    def credentials(self, user_id: str) -> TurnCredentials:
        """Return new TURN credentials of a user, empty without a TURN server."""

    def sign(self, username: str) -> str:
        """Return the TURN password that belongs to ``username``."""

    async def relayed_packets(self) -> int:
        """Return how many packets the TURN server has relayed so far, in both directions."""


class SocketsWorld:
    """Real sockets on loopback: the calllab service as a child process, its relay, its TURN server.

    :param stun: whether users are told that the service answers STUN.
    :param turn: whether users are told of its TURN server.
    :param users: who has an account and is logged in as soon as this is up, so that joining takes no time.
    """

    network: NetworkKind = "sockets"

    def __init__(self, *, stun: bool = False, turn: bool = True, users: Sequence[str] = ()) -> None:
        self.service = ServiceProcess()
        self._stun = stun
        self._turn = turn
        self._users = users
        self._sessions: dict[str, ServiceSession] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start the service; raises ServiceStartError with what it printed."""
        try:
            await self._stack.enter_async_context(self.service)
            for name in self._users:
                self._sessions[name] = await self._log_in(name, self._stack)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop the service."""
        await self._stack.aclose()

    async def join(self, name: str, entropy: EntropyFor, stack: AsyncExitStack) -> Access:
        """Register and log in, unless that has been done, and open the WebSocket."""
        session = self._sessions.pop(name, None) or await self._log_in(name, stack)
        channel = await RelayChannel.open(session, entropy=entropy("signaling"))
        return Access(channel, self._turn_api(TurnApi(session)))

    async def _log_in(self, name: str, stack: AsyncExitStack) -> ServiceSession:
        session = await stack.enter_async_context(ServiceSession(self.service.http_url))
        await session.register(name, _PASSWORD)
        await session.login(name, _PASSWORD)
        return session

    def _turn_api(self, service: TurnApi) -> Any:
        if not self._stun:
            return service if self._turn else None
        stun_uri = self.service.turn_uri.partition("?")[0].replace("turn:", "stun:", 1)
        return _WithStun(service if self._turn else None, stun_uri)

    def interface(
        self, name: str, settings: LinkSettings | None, *, seed: int, epoch: float
    ) -> NetworkInterface:
        """Return an interface in front of the machine's own sockets."""
        return NetworkInterface(settings, seed=seed, name=name, epoch=epoch)

    def credentials(self, user_id: str) -> TurnCredentials:
        """Return what the service would give."""
        secret, uris = self.service.turn_secret, (self.service.turn_uri,)
        return make_credentials(secret, user_id, now=wall_time(), ttl=CREDENTIALS_TTL_S, uris=uris)

    def sign(self, username: str) -> str:
        """Return the TURN password that belongs to ``username``."""
        return password_for(self.service.turn_secret, username)

    async def relayed_packets(self) -> int:
        """Return what the service counts; raises ServiceUnavailable if it does not answer."""
        return await self.service.relayed_packets()


class _WithStun:
    """Credentials with the address of a STUN server in front; no TURN without ``turn``."""

    def __init__(self, turn: TurnApi | None, stun_uri: str) -> None:
        self._turn = turn
        self._stun_uri = stun_uri

    async def get_credentials(self) -> TurnCredentials:
        """Return new credentials."""
        if self._turn is None:
            return TurnCredentials("", "", 0, (self._stun_uri,))
        made = await self._turn.get_credentials()
        return TurnCredentials(made.username, made.password, made.ttl, (self._stun_uri, *made.uris))


def make_world(network: NetworkKind, seed: int) -> World:
    """Return a new world of this kind; ``seed`` decides what is left to chance in it.

    Raises :exc:`~calllab.errors.LabError` for a name that is none.
    """
    if network == "sockets":
        return SocketsWorld()
    if network == "virtual":
        from calllab.lab.virtual_world import VirtualWorld

        return VirtualWorld(seed=seed)
    raise LabError(f"network={network!r}: give 'sockets' or 'virtual'")
