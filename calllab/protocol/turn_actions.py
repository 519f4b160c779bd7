"""What a TURN server core is told at the start, and what it tells its driver to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields

import msgspec

from calllab.protocol.stun_attributes import Address, Family

__all__ = [
    "CloseRelay",
    "OpenRelay",
    "Output",
    "Ports",
    "ReleaseReservation",
    "SendToClient",
    "SendToPeer",
    "TurnCounters",
    "TurnLimits",
    "TurnSettings",
]


@dataclass(frozen=True, kw_only=True)
class TurnLimits:
    """How long things live on a TURN server and how many there may be; the defaults suit calls."""

    default_lifetime_s: int = 600
    """How long an allocation lives without a refresh at least (RFC 8656 section 7.2)."""
    max_lifetime_s: int = 3600
    """The longest lifetime that a client can ask for at once."""
    permission_lifetime_s: int = 300
    """How long a permission lives without a refresh (RFC 8656 section 9)."""
    channel_lifetime_s: int = 600
    """How long a channel binding lives without a refresh (RFC 8656 section 12)."""
    reservation_lifetime_s: int = 30
    """How long a reserved port waits for its client (RFC 8656 section 7.2)."""
    nonce_lifetime_s: int = 600
    """How long a nonce can be used; clients get a new one with the 438 that says so."""
    max_allocations: int = 4096
    """The most allocations at a time."""
    max_allocations_per_user: int = 64
    """The most allocations of one user at a time, over all the credentials that the user was given."""
    max_permissions: int = 256
    """The most peers, and the most channels, of one allocation."""
    challenges_per_s: float = 20.0
    """How fast a source host's allowance of refusals for want of good credentials grows; 401 is the first."""
    challenge_burst: int = 200
    """The most refusals that a source host may have saved up; beyond, it is not answered."""

    def __post_init__(self) -> None:
        for rule in fields(self):
            if not getattr(self, rule.name) > 0:
                raise ValueError(f"{rule.name} is {getattr(self, rule.name)!r}: it must be greater than 0")
        if self.max_lifetime_s < self.default_lifetime_s:
            raise ValueError(
                f"max_lifetime_s is {self.max_lifetime_s}: it must not be below default_lifetime_s, "
                f"which is {self.default_lifetime_s}"
            )


@dataclass(frozen=True, kw_only=True)
class TurnSettings:
    """Whom and what a TURN server serves."""

    secret: str | bytes = field(repr=False)
    """Signs credentials (see :mod:`calllab.protocol.turn_credentials`)."""
    realm: str = "calllab"
    """Told to clients and mixed into their keys."""
    allow_private_peers: bool = False
    """Whether peers may be on loopback and private networks: for laboratories only."""
    own_hosts: tuple[str, ...] = ()
    """The numeric addresses under which clients and peers see this relay."""
    families: frozenset[Family] = frozenset({Family.IPV4})
    """In which address families relayed addresses can be had."""
    can_forbid_fragments: bool = False
    """Whether the driver can send a packet with the DF bit set; DONT-FRAGMENT is answered with 420 if not."""
    rfc5766_channels: bool = False
    """Whether channels from 0x5000 to 0x7FFF can be bound too, as clients of the older RFC 5766 may do."""
    limits: TurnLimits = TurnLimits()
    """How long and how many."""

    def __post_init__(self) -> None:
        if not self.secret:
            raise ValueError("the TURN secret is empty: anyone could make credentials")
        if not self.realm or len(self.realm.encode()) > 763:
            raise ValueError(f"realm has {len(self.realm)} characters: give 1 to 763 bytes")
        if not self.families:
            raise ValueError("families is empty: relayed addresses need one")


class Ports(enum.Enum):
    """Which port a relay socket has to have (RFC 8656 section 7.2)."""

    ANY = "any"
    EVEN = "even"
    PAIR = "pair"
    """An even one, with the next higher one held back under the reservation token."""
    RESERVED = "reserved"
    """The one that was held back under the reservation token."""


class SendToClient(msgspec.Struct, frozen=True, gc=False):
    """Send a datagram from the server's own address."""

    data: bytes
    client: Address


class SendToPeer(msgspec.Struct, frozen=True, gc=False):
    """Send a datagram from the relayed address of an allocation."""

    allocation: int
    data: bytes
    peer: Address
    dont_fragment: bool = False


class OpenRelay(msgspec.Struct, frozen=True, gc=False):
    """Open the relay socket of an allocation, then say relay_opened or relay_failed to the core."""

    allocation: int
    family: Family
    ports: Ports
    reservation: bytes | None = None
    """The token, for PAIR and RESERVED."""


class CloseRelay(msgspec.Struct, frozen=True, gc=False):
    """Close the relay socket of an allocation that is over."""

    allocation: int


class ReleaseReservation(msgspec.Struct, frozen=True, gc=False):
    """Let go of a reserved port that nobody came for."""

    reservation: bytes


Output = SendToClient | SendToPeer | OpenRelay | CloseRelay | ReleaseReservation


class TurnCounters(msgspec.Struct, frozen=True):
    """What a TURN server has done so far."""

    allocations: int
    """Allocations that exist now."""
    allocations_total: int
    """Allocations that were ever made."""
    packets_to_peers: int
    bytes_to_peers: int
    """Payload only, without TURN's framing."""
    packets_to_clients: int
    bytes_to_clients: int
    """Payload only, without TURN's framing."""
    refusals: dict[int, int]
    """How many requests were refused, by error code; 401 counts the first challenge of every client."""
    packets_dropped: int
    """Datagrams that made no sense, had no permission or no channel, or that the network did not take."""
