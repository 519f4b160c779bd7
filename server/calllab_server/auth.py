"""The routes of accounts and tokens, and the check that other routes put before their work."""

from __future__ import annotations

import hmac
import time
from typing import Final

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from calllab_server.accounts import Accounts
from calllab_server.api import address_key, bearer_token, json_response, read_json
from calllab_server.errors import ApiError
from calllab_server.limits import RateLimiter
from calllab_server.metrics import HttpMetrics
from calllab_server.sessions import SessionGrant, Sessions
from calllab_server.tokens import AccessClaims, AccessTokens

__all__ = ["Auth"]

# A hash costs tens of milliseconds of all cores, and a password is guessed one at a time.
_ATTEMPTS_PER_S: Final = 1.0
_ATTEMPT_BURST: Final = 60
_GUESSES_PER_S: Final = 0.1
_GUESS_BURST: Final = 10
_REFRESHES_PER_S: Final = 5.0
_REFRESH_BURST: Final = 200


class _Request(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What all bodies have in common: other fields are refused."""


class RegisterRequest(_Request, frozen=True):
    """The body of POST /api/auth/register."""

    username: str
    password: str
    invite: str | None = None


class LoginRequest(_Request, frozen=True):
    """The body of POST /api/auth/login."""

    username: str
    password: str


class RefreshRequest(_Request, frozen=True):
    """The body of POST /api/auth/refresh."""

    refresh_token: str


class LogoutRequest(_Request, frozen=True):
    """The body of POST /api/auth/logout, needed only without an access token."""

    refresh_token: str | UnsetType = UNSET


class Registered(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to a registration."""

    user_id: str


class TokensResponse(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to a login or refresh."""

    access_token: str
    refresh_token: str
    expires_in: int
    """Seconds until the access token expires."""


class Auth:
    """Registers, logs in, refreshes, logs out, and tells who a request comes from.

    Args:
        invite: what a new user has to know; None: anyone may register.

    """

    def __init__(
        self,
        accounts: Accounts,
        sessions: Sessions,
        tokens: AccessTokens,
        *,
        invite: str | None,
        metrics: HttpMetrics,
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._tokens = tokens
        self._invite = invite
        self._metrics = metrics
        self._attempts = RateLimiter(rate_per_s=_ATTEMPTS_PER_S, burst=_ATTEMPT_BURST)
        self._guesses = RateLimiter(rate_per_s=_GUESSES_PER_S, burst=_GUESS_BURST)
        self._refreshes = RateLimiter(rate_per_s=_REFRESHES_PER_S, burst=_REFRESH_BURST)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the four routes under /api/auth."""
        router.add_post("/api/auth/register", self.register)
        router.add_post("/api/auth/login", self.login)
        router.add_post("/api/auth/refresh", self.refresh)
        router.add_post("/api/auth/logout", self.logout)

    async def register(self, request: web.Request) -> web.Response:
        """Answer POST /api/auth/register with 201 ``{userId}``."""
        self._limit(self._attempts, address_key(request))
        body = await read_json(request, RegisterRequest)
        if self._invite is not None and not _equal(body.invite or "", self._invite):
            raise ApiError(
                403, "invite-required", "registration needs the invite of this service: ask whoever runs it"
            )
        await self._accounts.register(body.username, body.password)
        return json_response(Registered(body.username), status=201)

    async def login(self, request: web.Request) -> web.Response:
        """Answer POST /api/auth/login with new tokens."""
        self._limit(self._attempts, address_key(request))
        body = await read_json(request, LoginRequest)
        # Paid before the password is looked at, so that many guesses at once pay too, and returned if right.
        guesser = body.username[:64]
        self._limit(self._guesses, guesser)
        if not await self._accounts.verify(body.username, body.password):
            self._metrics.login(succeeded=False)
            raise ApiError(401, "wrong-credentials", "username and password do not match: check both")
        self._guesses.give_back(guesser)
        self._metrics.login(succeeded=True)
        return self._answer(await self._sessions.open(body.username))

    async def refresh(self, request: web.Request) -> web.Response:
        """Answer POST /api/auth/refresh with new tokens; the refresh token sent is spent."""
        self._limit(self._refreshes, address_key(request))
        body = await read_json(request, RefreshRequest)
        return self._answer(await self._sessions.refresh(body.refresh_token))

    async def logout(self, request: web.Request) -> web.Response:
        """Answer POST /api/auth/logout with 204: the session has ended and its sockets are closed.

        The session is named by the access token, or by a refresh token in the body where that has expired.
        """
        session_id = await self._session_to_end(request)
        await self._sessions.revoke(session_id)
        return web.Response(status=204)

    async def authorize(self, token: str | None) -> AccessClaims:
        """Return whom an access token speaks for.

        Raises :exc:`ApiError` 401: token-missing, token-invalid, token-expired or session-revoked.
        """
        if token is None:
            raise ApiError(
                401, "token-missing", "this needs an access token: send it as Authorization: Bearer <token>"
            )
        claims = self._tokens.verify(token)
        await self.check_live(claims)
        return claims

    async def check_live(self, claims: AccessClaims) -> None:
        """Raise :exc:`ApiError` 401 session-revoked if the session has ended since the token was issued."""
        if not await self._sessions.is_live(claims.session_id):
            raise ApiError(401, "session-revoked", "this session has ended: log in again")

    async def _session_to_end(self, request: web.Request) -> str:
        if request.can_read_body:
            body = await read_json(request, LogoutRequest)
            if body.refresh_token is not UNSET:
                self._limit(self._refreshes, address_key(request))
                session_id = await self._sessions.find(body.refresh_token)
                if session_id is None:
                    raise ApiError(401, "refresh-invalid", "there is no such refresh token")
                return session_id
        return (await self.authorize(bearer_token(request))).session_id

    def _answer(self, grant: SessionGrant) -> web.Response:
        return json_response(
            TokensResponse(
                access_token=self._tokens.issue(grant.user_id, grant.session_id),
                refresh_token=grant.refresh_token,
                expires_in=int(self._tokens.ttl_s),
            )
        )

    def _limit(self, limiter: RateLimiter, key: str) -> None:
        if wait_s := limiter.take(key, time.monotonic()):
            raise ApiError(
                429,
                "rate-limited",
                f"too many attempts: try again in {wait_s:.0f} s",
                retry_after_s=wait_s,
            )


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())
