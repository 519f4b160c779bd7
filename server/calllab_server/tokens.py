"""Access tokens: short-lived JWTs (RFC 7519, HS256) that name a user and the session they belong to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import jwt
import msgspec

from calllab.protocol import is_user_id
from calllab_server.errors import ApiError

__all__ = ["AccessClaims", "AccessTokens"]

_ALGORITHM: Final = "HS256"
_ISSUER: Final = "calllab"
_TYPE: Final = "access"
_MAX_TOKEN_CHARS: Final = 4096


class AccessClaims(msgspec.Struct, frozen=True):
    """What a valid access token says."""

    user_id: str
    session_id: str
    expires_at_s: float


class AccessTokens:
    """Issues and verifies access tokens.

    Args:
        secret: the HMAC key.
        ttl_s: how long a token is good for.
        clock: seconds since the epoch.

    """

    def __init__(self, secret: str, ttl_s: float, clock: Callable[[], float]) -> None:
        self._secret = secret
        self._clock = clock
        self.ttl_s = ttl_s

    def issue(self, user_id: str, session_id: str) -> str:
        """Return a token of this user and session, good from now on."""
        now = int(self._clock())
        claims = {
            "iss": _ISSUER,
            "typ": _TYPE,
            "sub": user_id,
            "sid": session_id,
            "iat": now,
            "exp": now + int(self.ttl_s),
        }
        return jwt.encode(claims, self._secret, _ALGORITHM)

    def verify(self, token: str) -> AccessClaims:
        """Return what the token says.  Raises :exc:`ApiError` 401 token-invalid or token-expired."""
        invalid = ApiError(401, "token-invalid", "this is no access token of this service: log in again")
        if len(token) > _MAX_TOKEN_CHARS:
            raise invalid
        try:
            # Expiry is checked below, on the clock that is ours.
            claims = jwt.decode(
                token,
                self._secret,
                [_ALGORITHM],
                issuer=_ISSUER,
                options={
                    "require": ["exp", "sub", "sid", "iat"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.InvalidTokenError, RecursionError) as exc:
            raise invalid from exc
        user_id, session_id, expires_at_s = claims["sub"], claims["sid"], claims["exp"]
        if (
            claims.get("typ") != _TYPE
            or not isinstance(session_id, str)
            or not is_user_id(user_id)
            or not isinstance(expires_at_s, int)
        ):
            raise invalid
        late_s = self._clock() - expires_at_s
        if late_s >= 0:
            raise ApiError(
                401,
                "token-expired",
                f"the access token expired {late_s:.0f} s ago: refresh it or log in again",
            )
        return AccessClaims(user_id, session_id, float(expires_at_s))
