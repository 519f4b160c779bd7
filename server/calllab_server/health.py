"""The routes for those who run the service: is it alive, is it ready, what does it count."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from aiohttp import web

from calllab_server.api import bearer_token, json_response
from calllab_server.database import Database
from calllab_server.errors import ApiError, ServiceError
from calllab_server.metrics import HttpMetrics, render

__all__ = ["Health"]


class Health:
    """Answers /healthz, /readyz and /metrics.

    Args:
        database: must answer for the service to be ready.
        is_turn_running: must be true for the service to be ready.
        metrics: what /metrics shows.
        metrics_token: what its reader has to know; None: nothing.
        metrics_open: whether /metrics is shown without a token.

    """

    def __init__(
        self,
        database: Database,
        is_turn_running: Callable[[], bool],
        metrics: HttpMetrics,
        *,
        metrics_token: str | None,
        metrics_open: bool,
    ) -> None:
        self._database = database
        self._is_turn_running = is_turn_running
        self._metrics = metrics
        self._metrics_token = metrics_token
        self._metrics_open = metrics_open

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the three routes."""
        router.add_get("/healthz", self.alive)
        router.add_get("/readyz", self.ready)
        router.add_get("/metrics", self.show_metrics)

    async def alive(self, _request: web.Request) -> web.Response:
        """Answer as long as the event loop turns."""
        return json_response({"status": "ok"})

    async def ready(self, _request: web.Request) -> web.Response:
        """Answer 200 if a call could be made now, else 503 with what is missing."""
        try:
            await self._database.ping()
        except ServiceError as exc:
            raise ApiError(503, "not-ready", "the database does not answer") from exc
        if not self._is_turn_running():
            raise ApiError(503, "not-ready", "the TURN server is not running")
        return json_response({"status": "ready"})

    async def show_metrics(self, request: web.Request) -> web.Response:
        """Answer with the metrics, to who may see them."""
        if self._metrics_token is not None:
            given = bearer_token(request) or ""
            if not hmac.compare_digest(
                given.encode("utf-8", "surrogateescape"), self._metrics_token.encode()
            ):
                raise ApiError(401, "token-invalid", "/metrics needs CALLLAB_METRICS_TOKEN as bearer token")
        elif not self._metrics_open:
            raise ApiError(
                403, "metrics-closed", "off loopback /metrics needs CALLLAB_METRICS_TOKEN to be set"
            )
        return render(self._metrics.registry)
