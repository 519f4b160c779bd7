"""The settings of the service, and which of them are safe together.

On a loopback address the service is a laboratory: secrets that are not given are drawn at random, anyone may
register, TURN relays to any peer.  On any other address it is on a network, and what protects it must have
been chosen by somebody: without both secrets and an invite it refuses to start.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from calllab_server.errors import ConfigurationError

__all__ = ["MIN_INVITE_CHARS", "MIN_SECRET_CHARS", "PasswordCost", "ServiceConfig", "is_loopback"]

MIN_SECRET_CHARS: Final = 32
"""HS256 wants a key of at least 256 bits (RFC 7518 section 3.2)."""
MIN_INVITE_CHARS: Final = 8
"""An invite is guessed online only, at the pace of the registration limit."""

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOW_TO_MAKE: Final = "for example with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


def is_loopback(host: str) -> bool:
    """Say whether a listening address can be reached from this machine alone.

    A name is loopback if all its addresses are.  Raises :exc:`ConfigurationError` for a name without one.
    """
    return all(address.is_loopback for address in _addresses(host))


def _addresses(host: str) -> list[_Address]:
    """Return the addresses that a host stands for, IPv4 first."""
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise ConfigurationError(
            f"the host {host!r} has no address ({exc}): give an address of this machine, "
            "for example 127.0.0.1"
        ) from exc
    addresses = {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found}
    return sorted(addresses, key=lambda address: (address.version, int(address)))


@dataclass(frozen=True, kw_only=True)
class PasswordCost:
    """What one argon2id hash costs; the defaults are RFC 9106's second recommendation."""

    passes: int = 3
    memory_kib: int = 64 * 1024
    lanes: int = 4

    @classmethod
    def cheap(cls) -> Self:
        """Return a cost of about a millisecond, for tests and laboratories that register many users."""
        return cls(passes=1, memory_kib=64, lanes=1)


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """All settings of one service.  Raises :exc:`ConfigurationError` where they are unsafe."""

    host: str = "127.0.0.1"
    """The address to listen on, HTTP and TURN alike."""
    port: int = 0
    """The port of HTTP and WebSocket; 0: a free one."""
    turn_port: int = 0
    """The UDP port of STUN and TURN; 0: a free one."""
    jwt_secret: str = field(repr=False)
    """Signs access tokens."""
    turn_secret: str = field(repr=False)
    """Signs TURN credentials."""
    invite: str | None = field(default=None, repr=False)
    """What a new user has to know; None: anyone may register."""
    database: Path | None = None
    """The SQLite file of the accounts; None: a temporary one, removed at the end."""
    allowed_origins: frozenset[str] = frozenset()
    """The origins, beside the service's own, whose pages may open WebSockets: ``https://example.org``."""
    metrics_token: str | None = field(default=None, repr=False)
    """What a reader of /metrics has to know; None: on loopback open, elsewhere closed."""
    turn_external_ip: str | None = None
    """The address that TURN relays from as others see it; needed behind NAT or on a wildcard address."""
    turn_relay_ports: tuple[int, int] | None = None
    """The lowest and the highest UDP port of relayed addresses; None: whatever is free."""
    access_ttl_s: float = 15 * 60
    """How long an access token is good for; an open socket outlives it."""
    refresh_ttl_s: float = 30 * 24 * 3600
    """How long a session lasts without being refreshed."""
    turn_ttl_s: int = 12 * 3600
    """How long TURN credentials can make allocations; an allocation outlives them."""
    heartbeat_s: float = 20.0
    """After so long a silence a WebSocket is pinged; half as long again without an answer ends it."""
    close_timeout_s: float = 3.0
    """How long a WebSocket's peer has to take what is queued for it and to answer a close."""
    password_cost: PasswordCost = PasswordCost()
    """What one password hash costs."""

    def __post_init__(self) -> None:
        for name in ("port", "turn_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: give a number from 0 to 65535")
        for name in ("access_ttl_s", "refresh_ttl_s", "turn_ttl_s", "heartbeat_s", "close_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: give more than 0 seconds")
        for variable, secret in (
            ("CALLLAB_JWT_SECRET", self.jwt_secret),
            ("CALLLAB_TURN_SECRET", self.turn_secret),
        ):
            if len(secret) < MIN_SECRET_CHARS:
                raise ConfigurationError(
                    f"{variable} has {len(secret)} characters, which can be guessed: "
                    f"make one of at least {MIN_SECRET_CHARS}, {_HOW_TO_MAKE}"
                )
        if self.invite is not None and len(self.invite) < MIN_INVITE_CHARS:
            raise ConfigurationError(
                f"CALLLAB_INVITE has {len(self.invite)} characters, which can be guessed: "
                f"make one of at least {MIN_INVITE_CHARS}"
            )
        self._check_origins()
        self._check_turn()
        if not self.on_loopback:
            self._check_network()

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)

    @property
    def address(self) -> str:
        """The one address to listen on: a name may have several, and two sockets have two free ports."""
        return str(_addresses(self.host)[0])

    @classmethod
    def for_loopback(cls, *, cheap_passwords: bool = False, **settings: Any) -> Self:
        """Return the settings of a laboratory: loopback, random secrets, a temporary database."""
        random_secrets = {"jwt_secret": secrets.token_urlsafe(32), "turn_secret": secrets.token_urlsafe(32)}
        if cheap_passwords:
            settings.setdefault("password_cost", PasswordCost.cheap())
        return cls(**{**random_secrets, **settings})

    @classmethod
    def assemble(cls, *, jwt_secret: str | None, turn_secret: str | None, **settings: Any) -> Self:
        """Return settings in which a missing secret is drawn at random, where that is safe.

        Raises :exc:`ConfigurationError` off loopback, naming all that is missing.
        """
        host = settings.get("host", cls._default("host"))
        given = {
            "CALLLAB_JWT_SECRET": jwt_secret,
            "CALLLAB_TURN_SECRET": turn_secret,
            "CALLLAB_INVITE": settings.get("invite"),
        }
        missing = [variable for variable, value in given.items() if not value]
        if missing and not is_loopback(host):
            raise ConfigurationError(
                f"{host} can be reached from other machines, and {_listing(missing)} not set: "
                f"set {'it' if len(missing) == 1 else 'them'} in the environment, {_HOW_TO_MAKE}; "
                "or listen on 127.0.0.1"
            )
        return cls(
            jwt_secret=jwt_secret or secrets.token_urlsafe(32),
            turn_secret=turn_secret or secrets.token_urlsafe(32),
            **settings,
        )

    @classmethod
    def _default(cls, name: str) -> Any:
        return next(f.default for f in fields(cls) if f.name == name)

    def _check_network(self) -> None:
        if not self.invite:
            raise ConfigurationError(
                f"{self.host} can be reached from other machines, and CALLLAB_INVITE is not set, "
                f"so that anyone could register: set it in the environment, {_HOW_TO_MAKE}"
            )
        if self.turn_external_ip is None and _is_wildcard(self.host):
            raise ConfigurationError(
                f"{self.host} names no address that clients could send TURN packets to: "
                "set CALLLAB_TURN_EXTERNAL_IP to the public address of this machine"
            )

    def _check_origins(self) -> None:
        for origin in self.allowed_origins:
            scheme, separator, rest = origin.partition("://")
            if scheme not in ("http", "https") or not separator or not rest or "/" in rest or "*" in rest:
                raise ConfigurationError(
                    f"{origin!r} in CALLLAB_ALLOWED_ORIGINS is not an origin: "
                    "give scheme, host and port alone, for example https://example.org:8443"
                )

    def _check_turn(self) -> None:
        if self.turn_external_ip is not None:
            try:
                ipaddress.ip_address(self.turn_external_ip)
            except ValueError as exc:
                raise ConfigurationError(
                    f"CALLLAB_TURN_EXTERNAL_IP is {self.turn_external_ip!r}: give an IP address"
                ) from exc
        if self.turn_relay_ports is not None:
            low, high = self.turn_relay_ports
            if not 1024 <= low <= high <= 65535:
                raise ConfigurationError(
                    f"CALLLAB_TURN_RELAY_PORTS is {low}-{high}: "
                    "give the lowest and the highest port, from 1024 to 65535, for example 49152-65535"
                )


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _listing(names: list[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} is"
    return f"{', '.join(names[:-1])} and {names[-1]} are"
