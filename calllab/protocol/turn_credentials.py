"""Time-limited TURN credentials: a username that carries its expiry, and a password that signs it.

The scheme is the one of coturn's ``use-auth-secret`` ("TURN REST API"): the username is
``<expiry in Unix seconds>:<user>``, the password ``base64(HMAC-SHA1(secret, username))``.  Whoever holds the
secret can check a pair without asking anyone; nothing is stored.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

__all__ = [
    "CredentialCheck",
    "TurnCredentials",
    "expiry_of",
    "make_credentials",
    "password_for",
    "user_of",
    "verify_credentials",
]

CredentialCheck = Literal["valid", "wrong", "expired"]
"""What :func:`verify_credentials` found."""

# Twelve digits reach beyond the year 30000; more would only be a way to make int() and float() work hard.
_TIMED_USERNAME: Final = re.compile(r"([0-9]{1,12}):(.+)", re.DOTALL)


class TurnCredentials(msgspec.Struct, frozen=True):
    """What a client needs to use a TURN server; its JSON is the answer of ``GET /api/turn/credentials``."""

    username: str
    """``<expiry in Unix seconds>:<user>``."""
    password: str
    """Base64 of the HMAC-SHA1 of the username; never shown by ``repr``."""
    ttl: int
    """For how many seconds, from when they were made, an allocation can be made with them."""
    uris: tuple[str, ...]
    """TURN URIs (RFC 7065) of the servers that take them."""

    def __repr__(self) -> str:
        return (
            f"TurnCredentials(username={self.username!r}, password=..., ttl={self.ttl}, uris={self.uris!r})"
        )


def make_credentials(
    secret: str | bytes, user_id: str, *, now: float, ttl: int, uris: Sequence[str]
) -> TurnCredentials:
    """Return credentials for ``user_id`` that expire ``ttl`` seconds after ``now`` (Unix seconds).

    Raises :exc:`ValueError` for an empty secret or user, or a ``ttl`` that is not positive.
    """
    if not user_id:
        raise ValueError("user_id is empty: credentials belong to a user")
    if ttl <= 0:
        raise ValueError(f"ttl is {ttl}: give more than 0 seconds")
    username = f"{int(now) + ttl}:{user_id}"
    return TurnCredentials(username, password_for(secret, username), ttl, tuple(uris))


def password_for(secret: str | bytes, username: str) -> str:
    """Return the one password that belongs to ``username`` under ``secret``."""
    key = secret.encode() if isinstance(secret, str) else secret
    if not key:
        raise ValueError("the secret is empty: anyone could sign with it")
    return base64.b64encode(hmac.digest(key, username.encode(), "sha1")).decode("ascii")


def verify_credentials(secret: str | bytes, username: str, password: str, *, now: float) -> CredentialCheck:
    """Say whether the pair was made with ``secret`` and has not expired at ``now`` (Unix seconds).

    The comparison takes the same time wherever the passwords differ.  A wrong pair is "wrong" whatever its
    expiry says, so that an outsider learns nothing from it.
    """
    try:
        expected = password_for(secret, username).encode()
        given = password.encode()
    except UnicodeEncodeError:
        return "wrong"
    expires_at = expiry_of(username)
    if not hmac.compare_digest(expected, given) or expires_at is None:
        return "wrong"
    return "valid" if now < expires_at else "expired"


def expiry_of(username: str) -> float | None:
    """Return when the credentials of ``username`` expire, in Unix seconds; None if it does not say."""
    timed = _TIMED_USERNAME.fullmatch(username)
    return float(timed[1]) if timed else None


def user_of(username: str) -> str:
    """Return the user part of ``username``: the same for all the credentials that one user was ever given."""
    timed = _TIMED_USERNAME.fullmatch(username)
    return timed[2] if timed else username
