"""A proxy in front of the relay that breaks signaling on purpose, for any client that speaks to the relay.

A client uses the proxy's address instead of the service's, and notices nothing: requests are forwarded, the
WebSocket behaves as the relay's, down to refused handshakes, subprotocols and close codes.  The relay knows
nothing of it either.  What passes the WebSocket meets planned faults (:mod:`calllab.signaling.fault_plan`),
and can be rewritten, which is how a UDP proxy gets into the path of the media.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import hdrs, web
from yarl import URL

from calllab.errors import InvalidSetting, LabError
from calllab.protocol.wire import BEARER_PREFIX, is_user_id
from calllab.signaling.channel import Message
from calllab.signaling.fault_plan import SignalingFaults
from calllab.signaling.faults import Direction
from calllab.signaling.http_forward import forward_request, relayed_headers, unavailable
from calllab.signaling.ws_proxy_connection import ProxiedConnection, Rewrite

__all__ = ["ProxyEvent", "SignalingProxy"]

_log = logging.getLogger(__name__)

_MAX_FRAME_BYTES: Final = 1024 * 1024
"""Well above the relay's limit: that a message is too big is the relay's to say."""
_CONNECT_TIMEOUT_S: Final = 10.0
_CLOSE_TIMEOUT_S: Final = 2.0
_MAX_BODY_BYTES: Final = 64 * 1024 * 1024

# aiohttp makes these itself.
_HANDSHAKE: Final = (
    hdrs.SEC_WEBSOCKET_KEY,
    hdrs.SEC_WEBSOCKET_VERSION,
    hdrs.SEC_WEBSOCKET_EXTENSIONS,
    hdrs.SEC_WEBSOCKET_PROTOCOL,
)


@dataclass(frozen=True)
class ProxyEvent:
    """Something happened at the proxy."""

    event: Literal["connected", "disconnected", "refused", "message"]
    user_id: str | None
    """Whose connection it is about, as far as is known."""
    direction: Direction | None = None
    type: str | None = None
    """The type of a message."""
    detail: str = ""
    """In words: how it ended, or why it was refused."""


class SignalingProxy:
    """Listens for clients of a service, for as long as the context lasts.

    Args:
        relay_url: where the service is, as ``http://127.0.0.1:8080``.
        host: where to listen.
        port: 0: a free one.
        faults: the planned faults that happen to what passes.
        rewrite: changes messages before they meet the faults.

    """

    def __init__(
        self,
        relay_url: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        faults: SignalingFaults | None = None,
        rewrite: Rewrite | None = None,
    ) -> None:
        parts = urlsplit(relay_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidSetting(f"{relay_url!r} is not the address of a service: use http://HOST:PORT")
        self.relay = URL(relay_url.rstrip("/"))
        self.url = ""
        """Where clients find the proxy, once it listens."""
        self.faults = faults or SignalingFaults()
        self._rewrite = rewrite
        self._host = host
        self._port = port
        self._connections: set[ProxiedConnection] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._listeners: list[Callable[[ProxyEvent], None]] = []
        self._stack = contextlib.AsyncExitStack()
        self._client: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Begin to listen; raises :exc:`~calllab.errors.LabError` if that is not possible."""
        self._client = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                # One connection for each request: none is kept that the service may have ended meanwhile.
                connector=aiohttp.TCPConnector(force_close=True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT_ENCODING, hdrs.ACCEPT),
            )
        )
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_TIMEOUT_S)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        self._stack.push_async_callback(self._drop_all)
        site = web.TCPSite(runner, self._host, self._port)
        try:
            await site.start()
        except (OSError, OverflowError) as error:  # OverflowError: a port over 65535, or below 0
            await self._stack.aclose()
            why = getattr(error, "strerror", None) or error
            raise LabError(
                f"the proxy cannot listen on {self._host} port {self._port} ({why}): "
                "give another --port, or 0 to have one found"
            ) from error
        host, port = runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Drop all connections, and end all faults."""
        self.faults.close()
        await self._stack.aclose()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def on_event(self, listener: Callable[[ProxyEvent], None]) -> Callable[[], None]:
        """Call ``listener`` with what happens from now on; returns how to stop this."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        assert self._client is not None
        if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
            return await forward_request(request, self._client, self.relay)
        if request.path != "/ws":
            return web.json_response(
                {"code": "not-found", "message": f"there is no WebSocket at {request.path}: use /ws"},
                status=404,
            )
        return await self._serve_socket(request, self._client)

    async def _serve_socket(self, request: web.Request, client: aiohttp.ClientSession) -> web.StreamResponse:
        offered = [
            protocol.strip()
            for header in request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, [])
            for protocol in header.split(",")
        ]
        user_id = _claimed_user(request, offered)
        if self.faults.is_cut(user_id):
            self._tell(ProxyEvent("refused", user_id, detail="kept away by a planned fault"))
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=503)
        headers = relayed_headers(request, self.relay)
        for name in _HANDSHAKE:
            headers.popall(name, None)
        url = URL(f"{self.relay}{request.rel_url.raw_path_qs}", encoded=True)
        try:
            relay = await client.ws_connect(
                url,
                headers=headers,
                protocols=offered,
                autoping=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT_S),
                max_msg_size=_MAX_FRAME_BYTES,
                decode_text=False,
            )
        except aiohttp.WSServerHandshakeError as error:
            self._tell(ProxyEvent("refused", user_id, detail=f"by the relay, with status {error.status}"))
            return await self._refusal(request, client, error)
        except (aiohttp.ClientError, TimeoutError) as error:
            self._tell(ProxyEvent("refused", user_id, detail=f"the relay cannot be reached: {error}"))
            return unavailable(self.relay, error)
        if offered and relay.protocol is None:
            # The handshake below would fail, and write the offers, a token among them, to the log.
            await relay.close()
            return web.json_response(
                {"code": "bad-subprotocol", "message": "the relay takes none of the subprotocols"},
                status=400,
            )
        response: web.WebSocketResponse[bool] = web.WebSocketResponse(
            protocols=() if relay.protocol is None else (relay.protocol,),
            autoping=False,
            compress=False,
            timeout=_CLOSE_TIMEOUT_S,
            max_msg_size=_MAX_FRAME_BYTES,
            decode_text=False,
            writer_limit=0,
        )
        try:
            await response.prepare(request)
        except BaseException:
            await relay.close()
            raise
        await self._run(
            ProxiedConnection(
                response,
                relay,
                user_id=user_id,
                faults=self.faults,
                rewrite=self._rewrite,
                on_message=self._note,
            )
        )
        return response

    async def _refusal(
        self, request: web.Request, client: aiohttp.ClientSession, error: aiohttp.WSServerHandshakeError
    ) -> web.StreamResponse:
        """Return what the relay said when it refused a handshake.

        aiohttp keeps no more of it than the status, so the relay is asked again without the upgrade, which
        it refuses for the same reason.
        """
        url = URL(f"{self.relay}{request.rel_url.raw_path_qs}", encoded=True)
        headers = relayed_headers(request, self.relay)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with client.get(url, headers=headers, allow_redirects=False) as again:
                if again.status == error.status:
                    kept = {
                        name: again.headers[name]
                        for name in (hdrs.CONTENT_TYPE, hdrs.RETRY_AFTER, hdrs.WWW_AUTHENTICATE)
                        if name in again.headers
                    }
                    return web.Response(status=again.status, body=await again.read(), headers=kept)
        return web.json_response(
            {"code": "handshake-refused", "message": f"the relay refused with status {error.status}"},
            status=error.status,
        )

    async def _run(self, connection: ProxiedConnection) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(connection)
        self._tasks.add(task)
        self._tell(ProxyEvent("connected", connection.user_id))
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            self._tasks.discard(task)
            how = "cut by a planned fault" if connection.was_cut else ""
            self._tell(ProxyEvent("disconnected", connection.user_id, detail=how))

    async def _drop_all(self) -> None:
        for connection in tuple(self._connections):
            connection.interrupt("the proxy ends")
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=_CLOSE_TIMEOUT_S)

    def _note(self, connection: ProxiedConnection, direction: Direction, message: Message) -> None:
        self._tell(ProxyEvent("message", connection.user_id, direction, message.get("type")))

    def _tell(self, event: ProxyEvent) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                _log.exception("a listener of the signaling proxy failed")


def _claimed_user(request: web.Request, offered: list[str]) -> str | None:
    """Return whose token a client shows; whether it is good is the relay's to say."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "bearer":
        token = next((p.removeprefix(BEARER_PREFIX) for p in offered if p.startswith(BEARER_PREFIX)), "")
    parts = token.strip().split(".")
    if len(parts) != 3:
        return None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = msgspec.json.decode(payload)
    except (binascii.Error, ValueError, RecursionError):
        return None
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject if isinstance(subject, str) and is_user_id(subject) else None
