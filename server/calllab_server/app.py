"""The service as one aiohttp application."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from aiohttp import web

from calllab.protocol import RelayLimits
from calllab_server.accounts import Accounts
from calllab_server.api import MAX_BODY_BYTES, error_middleware
from calllab_server.auth import Auth
from calllab_server.config import ServiceConfig
from calllab_server.database import Database
from calllab_server.errors import ServiceError
from calllab_server.health import Health
from calllab_server.metrics import HttpMetrics, RelayCollector, TurnCollector
from calllab_server.passwords import Passwords
from calllab_server.relay import Relay
from calllab_server.sessions import Sessions
from calllab_server.tokens import AccessTokens
from calllab_server.turn import TurnServer
from calllab_server.turn_api import TurnApi

__all__ = ["PARTS", "Parts", "create_app"]


class Parts:
    """The parts of one service, put together but not started.

    Args:
        config: the settings.
        clock: seconds since the epoch; accounts, tokens and TURN credentials go by it.
        relay_limits: what the relay allows; None: its defaults.

    """

    def __init__(
        self,
        config: ServiceConfig,
        *,
        clock: Callable[[], float] = time.time,
        relay_limits: RelayLimits | None = None,
    ) -> None:
        entropy = random.SystemRandom()
        on_loopback = config.on_loopback
        self.config = config
        self.metrics = HttpMetrics()
        self.database = Database(config.database)
        self.passwords = Passwords(config.password_cost)
        self.accounts = Accounts(self.database, self.passwords, clock)
        self.sessions = Sessions(
            self.database,
            ttl_s=config.refresh_ttl_s,
            clock=clock,
            on_revoked=lambda session_id: self.relay.drop_session(session_id),
        )
        self.auth = Auth(
            self.accounts,
            self.sessions,
            AccessTokens(config.jwt_secret, config.access_ttl_s, clock),
            invite=config.invite,
            metrics=self.metrics,
        )
        self.relay = Relay(
            self.auth,
            knows_user=self.accounts.knows,
            allowed_origins=config.allowed_origins,
            heartbeat_s=config.heartbeat_s,
            close_timeout_s=config.close_timeout_s,
            limits=relay_limits,
            entropy=entropy,
        )
        self.turn = TurnServer(
            config.address,
            config.turn_port,
            secret=config.turn_secret,
            allow_private_peers=on_loopback,
            external_ip=config.turn_external_ip,
            relay_ports=config.turn_relay_ports,
            clock=clock,
            entropy=entropy,
        )
        self.is_turn_running = False
        self.turn_api = TurnApi(
            self.auth,
            secret=config.turn_secret,
            ttl_s=config.turn_ttl_s,
            uris=lambda: self.turn.uris,
            clock=clock,
        )
        self.health = Health(
            self.database,
            lambda: self.is_turn_running,
            self.metrics,
            metrics_token=config.metrics_token,
            metrics_open=on_loopback,
        )
        self.metrics.registry.register(RelayCollector(self.relay.core, lambda: len(self.accounts)))
        self.metrics.registry.register(TurnCollector(self.turn))

    async def run_database(self, _app: web.Application) -> AsyncIterator[None]:
        """Open the database and read the accounts; close it at the end."""
        try:
            async with self.database:
                await self.accounts.load()
                yield
        finally:
            self.passwords.close()

    async def run_turn(self, _app: web.Application) -> AsyncIterator[None]:
        """Start the TURN server; end it at the end."""
        try:
            await self.turn.start()
        except OSError as exc:
            raise ServiceError(
                f"TURN cannot listen on UDP {self.config.host} port {self.config.turn_port} "
                f"({exc.strerror or exc}): give a free --turn-port, or 0 to have one found"
            ) from exc
        except ValueError as exc:
            raise ServiceError(f"TURN cannot start: {exc}") from exc
        self.is_turn_running = True
        try:
            yield
        finally:
            self.is_turn_running = False
            await self.turn.close()

    async def close_sockets(self, _app: web.Application) -> None:
        """Close all WebSockets with 1001, before the HTTP server waits for their handlers."""
        await self.relay.close()


PARTS: Final = web.AppKey("parts", Parts)
"""Where an application keeps its parts."""


def create_app(
    config: ServiceConfig,
    *,
    clock: Callable[[], float] = time.time,
    relay_limits: RelayLimits | None = None,
) -> web.Application:
    """Return the service as an application: its start-up opens the database and starts TURN.

    The application listens on HTTP wherever its runner does; TURN listens where ``config`` says.
    Starting it raises :exc:`ServiceError` if the database or the TURN port cannot be opened.
    """
    parts = Parts(config, clock=clock, relay_limits=relay_limits)
    app = web.Application(middlewares=[error_middleware(parts.metrics)], client_max_size=MAX_BODY_BYTES)
    app[PARTS] = parts
    app.cleanup_ctx.append(parts.run_database)
    app.cleanup_ctx.append(parts.run_turn)
    app.on_shutdown.append(parts.close_sockets)
    for routes in (parts.auth, parts.turn_api, parts.relay, parts.health):
        routes.add_routes(app.router)
    return app
