"""ICE candidates, ICE server URLs and what went wrong with them, as values."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

from aioice import Candidate

from calllab.protocol.turn_credentials import expiry_of

__all__ = [
    "CandidateType",
    "IceCandidate",
    "IceCandidateError",
    "IceUrl",
    "SelectedPair",
    "UnsupportedIceUrl",
    "explain_unauthorized",
    "from_aioice",
    "parse_candidate",
    "parse_ice_url",
    "to_line",
]

CandidateType = Literal["host", "srflx", "prflx", "relay"]
Scheme = Literal["stun", "turn", "turns"]

MAX_CANDIDATE_LENGTH = 1024
MAX_URL_LENGTH = 1024

# The year 9999, after which datetime has no words.
_LATEST_S = 253_402_300_000

_URL = re.compile(
    r"(?P<scheme>(?i:stuns?|turns?)):(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{0,5}))?"
    r"(?:\?transport=(?P<transport>[A-Za-z0-9._~-]+))?"
)
_TYPES = ("host", "srflx", "prflx", "relay")


@dataclass(frozen=True, slots=True)
class IceCandidate:
    """One end of a candidate pair (RFC 8839 section 5.1)."""

    foundation: str
    priority: int
    address: str
    port: int
    type: CandidateType
    protocol: str = "udp"
    related_address: str | None = None
    related_port: int | None = None
    url: str | None = None
    """The server that a local srflx or relay candidate came from."""

    def __str__(self) -> str:
        """Return the ``candidate:`` line."""
        related = ""
        if self.related_address is not None and self.related_port is not None:
            related = f" raddr {self.related_address} rport {self.related_port}"
        return (
            f"candidate:{self.foundation} 1 {self.protocol} {self.priority} {self.address} {self.port} "
            f"typ {self.type}{related}"
        )


@dataclass(frozen=True, slots=True)
class SelectedPair:
    """The candidate pair that carries the media."""

    local: IceCandidate
    remote: IceCandidate
    local_ufrag: str
    remote_ufrag: str
    """The generation that it belongs to."""


@dataclass(frozen=True, slots=True)
class IceCandidateError:
    """Why a server gave no candidate (W3C RTCPeerConnectionIceErrorEvent).

    ``errorCode`` is the STUN error code, or 701 if the server did not answer.
    """

    url: str
    errorCode: int
    errorText: str
    address: str | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class IceUrl:
    """A parsed ICE server URL (RFC 7064, RFC 7065)."""

    url: str
    scheme: Scheme
    host: str
    port: int
    transport: Literal["udp", "tcp"]


class UnsupportedIceUrl(ValueError):
    """A URL of an ICE server that is right, and asks for what does not exist here."""


def parse_ice_url(url: str) -> IceUrl:
    """Parse a stun:, turn: or turns: URL.

    Raises ValueError with a sentence if it is none, UnsupportedIceUrl if it asks for a transport that does
    not exist here.
    """
    shown = url[:80]
    match = _URL.fullmatch(url) if len(url) <= MAX_URL_LENGTH else None
    if match is None:
        raise ValueError(
            f"{shown!r} is not an ICE server URL; write stun:HOST:PORT or turn:HOST:PORT?transport=udp"
        )
    scheme, transport = match["scheme"].lower(), match["transport"]
    if scheme in ("stun", "stuns") and transport is not None:
        raise ValueError(f"{shown!r}: a {scheme}: URL takes no transport (RFC 7064); leave it away")
    port = int(match["port"] or (5349 if scheme in ("turns", "stuns") else 3478))
    if not 0 < port < 65536:
        raise ValueError(f"{shown!r}: port {port} is not between 1 and 65535")
    if match["host"].startswith("["):
        _check_address(match["host"].strip("[]"), shown)
    if scheme == "stuns":
        raise UnsupportedIceUrl(f"{shown!r}: STUN over TLS is not supported; use stun: or turns:")
    if transport not in (None, "udp", "tcp"):
        raise UnsupportedIceUrl(f"{shown!r}: TURN over {transport} is not supported; use udp or tcp")
    if scheme == "turns" and transport == "udp":
        raise UnsupportedIceUrl(f"{shown!r}: TURN over DTLS is not supported; use transport=tcp")
    default = "tcp" if scheme == "turns" else "udp"
    return IceUrl(
        url,
        cast(Scheme, scheme),
        match["host"].strip("[]"),
        port,
        cast(Literal["udp", "tcp"], transport or default),
    )


def _check_address(text: str, shown: str) -> None:
    try:
        ipaddress.IPv6Address(text)
    except ValueError as exc:
        raise ValueError(f"{shown!r}: {text} is no IPv6 address") from exc


def parse_candidate(line: str) -> Candidate | None:
    """Parse a ``candidate:`` line as signalled by a peer; None if it is malformed or of no use here.

    Of no use are candidates of another component than RTP (rtcp-mux is required), of TCP (aioice has none),
    and peer-reflexive ones, which are never signalled (RFC 8839 section 5.1).
    """
    text = line.strip().removeprefix("a=")
    if not text.startswith("candidate:") or len(text) > MAX_CANDIDATE_LENGTH:
        return None
    try:
        candidate = Candidate.from_sdp(text.removeprefix("candidate:"))
    except ValueError:
        return None
    if candidate.component != 1 or candidate.transport.lower() != "udp":
        return None
    if candidate.type not in ("host", "srflx", "relay") or not 0 < candidate.port < 65536:
        return None
    if not 0 <= candidate.priority < 1 << 32:
        return None
    if candidate.host.lower().endswith(".local"):
        return candidate
    try:
        address = ipaddress.ip_address(candidate.host)
    except ValueError:
        return None
    return None if address.is_unspecified or address.is_multicast else candidate


def from_aioice(candidate: Candidate, url: str | None = None) -> IceCandidate:
    """Return the value that describes an aioice candidate."""
    kind = candidate.type if candidate.type in _TYPES else "host"
    return IceCandidate(
        foundation=candidate.foundation,
        priority=candidate.priority,
        address=candidate.host,
        port=candidate.port,
        type=cast(CandidateType, kind),
        protocol=candidate.transport.lower(),
        related_address=candidate.related_address,
        related_port=candidate.related_port,
        url=url,
    )


def to_line(candidate: Candidate) -> str:
    """Return the ``candidate:`` line to signal."""
    return f"candidate:{candidate.to_sdp()}"


def explain_unauthorized(username: str | None, reason: str, now: float) -> str:
    """Say why a TURN server answered 401, as far as the user name tells (Unix time ``now``).

    User names of the TURN REST scheme begin with the Unix time at which they expire.
    """
    head = reason or "Unauthorized"
    if not username:
        return f"401 {head}: the server wants credentials and none were given"
    expiry_s = expiry_of(username)
    if expiry_s is not None and expiry_s < _LATEST_S:
        at = datetime.fromtimestamp(expiry_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        if now >= expiry_s:
            ago = round(now - expiry_s)
            return f"401 {head}: the credentials of {username!r} expired at {at}, {ago} s ago"
        return f"401 {head}: the password of {username!r} is wrong (the credentials are valid until {at})"
    return f"401 {head}: the user name {username!r} or its password is wrong"
