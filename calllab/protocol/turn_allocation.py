"""One TURN allocation: a relayed address, who may send through it, and for how long (RFC 8656).

A *permission* lets one peer host through in both directions; a *channel* is a short name for one peer.
They live and die apart: a channel outlives its permission (600 s against 300 s), and while the permission is
gone the channel carries nothing.  :attr:`Allocation.routes` and :attr:`Allocation.returns` hold what both
allow together, so that the fast path of a driver has one look-up to make.
"""

from __future__ import annotations

from dataclasses import dataclass

from calllab.protocol.stun_attributes import Address, Family
from calllab.protocol.turn_authentication import Login

__all__ = ["Allocation", "Channel"]


@dataclass(slots=True)
class Channel:
    """A bound channel."""

    peer: Address
    expires_at: float
    is_direct: bool
    """Whether its data goes out of the relay socket, and not to another allocation of this server."""


class Allocation:
    """The state of one allocation; the core decides, this remembers and forgets."""

    __slots__ = (
        "_channels",
        "_numbers",
        "_permissions",
        "client",
        "expires_at",
        "family",
        "id",
        "login",
        "relayed",
        "response",
        "returns",
        "routes",
        "transaction_id",
        "wake_at",
    )

    def __init__(
        self,
        allocation_id: int,
        client: Address,
        login: Login,
        *,
        family: Family,
        transaction_id: bytes,
        expires_at: float,
    ) -> None:
        self.id = allocation_id
        self.client = client
        self.login = login
        self.family = family
        self.transaction_id = transaction_id
        self.expires_at = expires_at
        self.relayed: Address | None = None
        self.response: bytes | None = None
        """The answer to the Allocate that made it, for when the client asks again (RFC 8656 section 7.2)."""
        self.routes: dict[int, Address] = {}
        """Where each channel leads now, of those whose data goes straight out of the relay socket."""
        self.returns: dict[Address, int] = {}
        """By which channel the data of each peer goes back now."""
        self.wake_at = expires_at
        """When the core will look at it next: never after the first thing in it expires."""
        self._permissions: dict[str, float] = {}
        self._channels: dict[int, Channel] = {}
        self._numbers: dict[Address, int] = {}

    @property
    def user(self) -> str:
        """Whose quota it counts on."""
        return self.login.user

    def permits(self, host: str) -> bool:
        """Say whether a peer host may send and be sent to."""
        return host in self._permissions

    def peer_of(self, channel: int) -> Address | None:
        """Return the peer that a channel is bound to, permitted or not."""
        bound = self._channels.get(channel)
        return bound.peer if bound else None

    def channel_of(self, peer: Address) -> int | None:
        """Return the channel that a peer is bound to, permitted or not."""
        return self._numbers.get(peer)

    def room_for(self, hosts: set[str], limit: int) -> bool:
        """Say whether permissions for these hosts keep the allocation within ``limit`` of them."""
        return len(self._permissions.keys() | hosts) <= limit

    def room_for_channel(self, channel: int, limit: int) -> bool:
        """Say whether binding this channel keeps the allocation within ``limit`` of them."""
        return channel in self._channels or len(self._channels) < limit

    def permit(self, host: str, until: float) -> None:
        """Install or refresh a permission."""
        is_new = host not in self._permissions
        self._permissions[host] = until
        if is_new:
            self._route()

    def bind(self, channel: int, peer: Address, until: float, *, is_direct: bool) -> None:
        """Bind a channel, or refresh its binding; the core has checked that there is no conflict."""
        bound = self._channels.get(channel)
        if bound is None:
            self._channels[channel] = Channel(peer, until, is_direct)
            self._numbers[peer] = channel
            self._route()
        else:
            bound.expires_at = until

    def earliest(self) -> float:
        """Return when the first thing here expires."""
        return min(
            self.expires_at,
            min(self._permissions.values(), default=self.expires_at),
            min((bound.expires_at for bound in self._channels.values()), default=self.expires_at),
        )

    def forget_expired(self, now: float) -> None:
        """Drop the permissions and channels whose time has come."""
        hosts = [host for host, until in self._permissions.items() if until <= now]
        numbers = [number for number, bound in self._channels.items() if bound.expires_at <= now]
        for host in hosts:
            del self._permissions[host]
        for number in numbers:
            del self._numbers[self._channels.pop(number).peer]
        if hosts or numbers:
            self._route()

    def _route(self) -> None:
        # In place: a driver holds on to the two dictionaries.
        self.routes.clear()
        self.returns.clear()
        for number, bound in self._channels.items():
            if bound.peer[0] in self._permissions:
                self.returns[bound.peer] = number
                if bound.is_direct:
                    self.routes[number] = bound.peer
