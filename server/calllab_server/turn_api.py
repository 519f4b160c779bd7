"""The route that gives a user credentials for the TURN server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web

from calllab.protocol.turn_credentials import make_credentials
from calllab_server.api import bearer_token, json_response
from calllab_server.auth import Auth
from calllab_server.errors import ApiError
from calllab_server.limits import RateLimiter

__all__ = ["TurnApi"]

_CREDENTIALS_PER_S: Final = 2.0
_CREDENTIALS_BURST: Final = 60


class TurnApi:
    """Answers GET /api/turn/credentials.

    Args:
        auth: tells who asks.
        secret: shared with the TURN server, which checks the credentials by it alone.
        ttl_s: how long credentials can make allocations.
        uris: asked for at each request, since the TURN server's port is known only once it runs.
        clock: seconds since the epoch.

    """

    def __init__(
        self,
        auth: Auth,
        *,
        secret: str,
        ttl_s: int,
        uris: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._auth = auth
        self._secret = secret
        self._ttl_s = ttl_s
        self._uris = uris
        self._clock = clock
        self._limiter = RateLimiter(rate_per_s=_CREDENTIALS_PER_S, burst=_CREDENTIALS_BURST)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the route."""
        router.add_get("/api/turn/credentials", self.credentials)

    async def credentials(self, request: web.Request) -> web.Response:
        """Answer with ``{username, password, ttl, uris}``, signed as in the TURN REST scheme."""
        claims = await self._auth.authorize(bearer_token(request))
        if wait_s := self._limiter.take(claims.user_id, time.monotonic()):
            raise ApiError(
                429,
                "rate-limited",
                f"too many credentials: use those you have, or try again in {wait_s:.0f} s",
                retry_after_s=wait_s,
            )
        return json_response(
            make_credentials(
                self._secret, claims.user_id, now=self._clock(), ttl=self._ttl_s, uris=self._uris()
            )
        )
