"""The service on its own ports, from its start to its graceful end."""

from __future__ import annotations

import ipaddress
import logging
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from calllab_server.app import PARTS, create_app
from calllab_server.config import ServiceConfig
from calllab_server.errors import ServiceError

__all__ = ["Service"]

_SHUTDOWN_TIMEOUT_S: Final = 5.0

_log = logging.getLogger(__name__)


class Service:
    """Runs the service for as long as the context lasts.

    Leaving the context closes the WebSockets with 1001, lets running requests finish, and ends TURN and the
    database.
    """

    def __init__(self, config: ServiceConfig) -> None:
        self.config = config
        self.http_url = ""
        """Where HTTP listens, once started: ``http://127.0.0.1:8080``."""
        self.turn_uri = ""
        """Where TURN listens, once started: ``turn:127.0.0.1:3478?transport=udp``."""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        """Start, and return when everything listens.

        Raises :exc:`ServiceError` if the database or a port cannot be opened.
        """
        app = create_app(self.config)
        # Requests are not logged: who calls whom is nobody's business, and /metrics has the numbers.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        try:
            await self._runner.setup()
            await self._listen(self._runner)
        except BaseException:
            await self.close()
            raise
        self.turn_uri = app[PARTS].turn.uris[0]
        _log.info("listening on %s and %s", self.http_url, self.turn_uri)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop."""
        await self.close()

    async def close(self) -> None:
        """Stop gracefully; may be called again."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        config = self.config
        site = web.TCPSite(runner, config.address, config.port)
        try:
            await site.start()
        except OSError as exc:
            raise ServiceError(
                f"HTTP cannot listen on {config.host} port {config.port} ({exc.strerror or exc}): "
                "give a free --port, or 0 to have one found"
            ) from exc
        host, port = runner.addresses[0][:2]
        self.http_url = f"http://{_reachable(host)}:{port}"


def _reachable(host: str) -> str:
    """Return the address under which this machine reaches what listens on ``host``, as URLs write it."""
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return f"[{address}]" if address.version == 6 else str(address)
