"""The relay on real sockets: WebSockets in front of the routing core of :mod:`calllab.protocol.relay`."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from calllab.protocol import (
    BEARER_PREFIX,
    MAX_DEVICE_CHARS,
    SUBPROTOCOL,
    Close,
    CloseCode,
    Connection,
    Deliver,
    Output,
    RelayCore,
    RelayLimits,
    is_device_id,
)
from calllab_server.api import bearer_token
from calllab_server.auth import Auth
from calllab_server.errors import ApiError, ServiceError
from calllab_server.limits import RateLimiter
from calllab_server.tokens import AccessClaims
from calllab_server.websocket import RelaySocket

__all__ = ["Relay"]

_CONNECTS_PER_S: Final = 2.0
_CONNECT_BURST: Final = 100

_log = logging.getLogger(__name__)


class Relay:
    """The WebSockets of all users.

    Args:
        auth: tells whose token it is.
        knows_user: says whether a user exists.
        allowed_origins: the origins, beside the service's own, whose pages may connect.
        heartbeat_s: after so long a silence a peer is pinged.
        close_timeout_s: how long a peer has to answer a close.
        limits: what the routing core allows.
        entropy: names devices that do not name themselves.

    """

    def __init__(
        self,
        auth: Auth,
        *,
        knows_user: Callable[[str], bool],
        allowed_origins: frozenset[str] = frozenset(),
        heartbeat_s: float = 20.0,
        close_timeout_s: float = 3.0,
        limits: RelayLimits | None = None,
        entropy: random.Random | None = None,
    ) -> None:
        self.core = RelayCore(knows_user=knows_user, entropy=entropy or random.SystemRandom(), limits=limits)
        self._auth = auth
        self._allowed_origins = allowed_origins
        self._heartbeat_s = heartbeat_s
        self._close_timeout_s = close_timeout_s
        self._connects = RateLimiter(rate_per_s=_CONNECTS_PER_S, burst=_CONNECT_BURST)
        self._sockets: dict[Connection, RelaySocket] = {}
        self._is_closing = False
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add /ws."""
        router.add_get("/ws", self.serve, allow_head=False)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one WebSocket from its handshake to its end.

        What is wrong with the handshake is answered before the upgrade, as JSON; a page cannot read that, but
        sees the connection fail.
        """
        self._check_origin(request)
        device_id = _device(request)
        token = _offered_token(request)
        claims = await self._auth.authorize(token)
        loop = asyncio.get_running_loop()
        if wait_s := self._connects.take(claims.user_id, loop.time()):
            raise ApiError(
                429,
                "rate-limited",
                f"too many connections: try again in {wait_s:.0f} s",
                retry_after_s=wait_s,
            )
        if self._is_closing:
            raise ApiError(503, "unavailable", "the service is shutting down", retry_after_s=5)
        socket = RelaySocket(
            heartbeat_s=self._heartbeat_s,
            close_timeout_s=self._close_timeout_s,
            on_flushed=lambda count: self.core.flushed(connection, count),
        )
        if not socket.response.can_prepare(request):
            raise ApiError(
                400, "not-a-websocket", "this address speaks WebSocket alone: connect with ws:// or wss://"
            )
        try:
            await socket.accept(request)
        except ConnectionError:
            return socket.response
        connection, outputs = self.core.connect(
            claims.user_id, device_id, loop.time(), session=claims.session_id
        )
        self._sockets[connection] = socket
        self._is_empty.clear()
        try:
            self.perform(outputs)
            await self._close_if_late(connection, claims)
            await socket.run(_Handler(self, connection, loop.time))
        finally:
            self.core.disconnect(connection)
            del self._sockets[connection]
            if not self._sockets:
                self._is_empty.set()
        return socket.response

    def drop_session(self, session_id: str) -> None:
        """Close with 4401 the sockets of a session that has been revoked."""
        self.perform(self.core.drop_session(session_id))

    async def close(self) -> None:
        """Close all sockets with 1001 and wait until they are gone; a peer that lingers is cut off."""
        self._is_closing = True
        self.perform(self.core.shutdown())
        try:
            async with asyncio.timeout(self._close_timeout_s + 1.0):
                await self._is_empty.wait()
        except TimeoutError:
            for connection, socket in self._sockets.items():
                _log.warning("%r did not close in time: cut off", connection)
                socket.abort()
            await self._is_empty.wait()

    def perform(self, outputs: Iterable[Output]) -> None:
        """Do what the core decided, in its order."""
        for output in outputs:
            socket = self._sockets[output.connection]
            if isinstance(output, Deliver):
                socket.put(output.frame)
            elif isinstance(output, Close):
                _log.info(
                    "closing %s/%s with %d: %s",
                    output.connection.user_id,
                    output.connection.device_id,
                    output.code,
                    output.reason,
                )
                socket.close(output.code, output.reason)

    async def _close_if_late(self, connection: Connection, claims: AccessClaims) -> None:
        """Undo a connect that overlapped with the end of its session or of the service.

        The session was live before the handshake.  If it was revoked between that look and the connect, the
        revocation found no socket to close; if it is revoked from here on, it finds this one.
        """
        try:
            await self._auth.check_live(claims)
        except ApiError:
            self.drop_session(claims.session_id)
        except ServiceError as exc:
            _log.error("cannot check the session of a new socket: %s", exc)
            self.core.disconnect(connection)
            self._sockets[connection].close(CloseCode.GOING_AWAY, "the service cannot check the session now")
        if self._is_closing:
            self.perform(self.core.shutdown())

    def _check_origin(self, request: web.Request) -> None:
        """Refuse pages of other sites (RFC 6455 section 10.2); programs send no Origin."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or origin in self._allowed_origins:
            return
        if urlsplit(origin).netloc == request.host and origin.startswith(("http://", "https://")):
            return
        raise ApiError(
            403,
            "origin-forbidden",
            f"pages of {origin[:200]} may not connect: add the origin to CALLLAB_ALLOWED_ORIGINS",
        )


class _Handler:
    """Passes what one socket receives to the core."""

    __slots__ = ("_clock", "_connection", "_relay")

    def __init__(self, relay: Relay, connection: Connection, clock: Callable[[], float]) -> None:
        self._relay = relay
        self._connection = connection
        self._clock = clock

    def on_text(self, frame: bytes) -> None:
        self._relay.perform(self._relay.core.receive(self._connection, frame, self._clock()))

    def on_binary(self) -> None:
        self._relay.perform(self._relay.core.receive_binary(self._connection))

    def on_too_big(self) -> None:
        self._relay.perform(self._relay.core.receive_too_big(self._connection))


def _device(request: web.Request) -> str | None:
    device_id = request.query.get("device")
    if device_id is not None and not is_device_id(device_id):
        raise ApiError(
            400,
            "bad-device",
            f"device is not 1 to {MAX_DEVICE_CHARS} letters, digits, dots, underscores, tildes or hyphens",
        )
    return device_id


def _offered_token(request: web.Request) -> str | None:
    """Return the access token, from the header or from the subprotocols that a browser can set."""
    offered = [
        protocol.strip()
        for header in request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, [])
        for protocol in header.split(",")
    ]
    # Checked here, since aiohttp would write the protocols, a token among them, to its log.
    if offered and SUBPROTOCOL not in offered:
        raise ApiError(400, "bad-subprotocol", f"offer the subprotocol {SUBPROTOCOL}, or none")
    token = bearer_token(request)
    if token is not None:
        return token
    for protocol in offered:
        if protocol.startswith(BEARER_PREFIX):
            return protocol[len(BEARER_PREFIX) :]
    if "token" in request.query or "access_token" in request.query:
        raise ApiError(
            401,
            "token-missing",
            "an access token does not belong in a URL, which ends up in logs: "
            f"send it as Authorization: Bearer, or as the subprotocol {BEARER_PREFIX}<token>",
        )
    return None
