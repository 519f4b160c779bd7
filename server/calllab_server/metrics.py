"""What the service tells Prometheus, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from calllab.protocol import RelayCore
from calllab_server.turn import TurnServer

__all__ = ["HttpMetrics", "RelayCollector", "TurnCollector", "render"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class HttpMetrics:
    """Counts HTTP answers and logins.  ``registry`` is where other collectors are added."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answers = Counter(
            "calllab_http_requests",
            "HTTP requests answered, WebSockets when they end",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._durations = Histogram(
            "calllab_http_request_duration_seconds",
            "How long HTTP answers took, WebSockets not counted",
            ("route",),
            registry=self.registry,
        )
        self._logins = Counter(
            "calllab_logins", "Logins by whether the password was right", ("outcome",), registry=self.registry
        )

    def answered(self, request: web.Request, status: int, took_s: float) -> None:
        """Count an answer."""
        resource = request.match_info.route.resource
        # Unknown paths are one label, else whoever asks for them would make the registry grow.
        route = resource.canonical if resource is not None else "unknown"
        method = request.method if request.method in _METHODS else "other"
        self._answers.labels(method, route, str(status)).inc()
        if status != 101:
            self._durations.labels(route).observe(took_s)

    def login(self, *, succeeded: bool) -> None:
        """Count a login."""
        self._logins.labels("succeeded" if succeeded else "failed").inc()


class RelayCollector(Collector):
    """Reads the counters of the relay when Prometheus asks."""

    def __init__(self, core: RelayCore, count_users: Callable[[], int]) -> None:
        self._core = core
        self._count_users = count_users

    def collect(self) -> Iterator[Metric]:
        """Yield what the relay has counted."""
        counters = self._core.counters
        yield GaugeMetricFamily("calllab_users", "Registered users", value=self._count_users())
        yield GaugeMetricFamily("calllab_relay_sockets", "Open WebSockets", value=self._core.connections)
        yield CounterMetricFamily(
            "calllab_relay_received", "Frames received from clients", value=counters.received
        )
        yield CounterMetricFamily(
            "calllab_relay_delivered", "Frames forwarded to clients", value=counters.delivered
        )
        refused = CounterMetricFamily(
            "calllab_relay_refused", "Frames refused, by error code", labels=("code",)
        )
        for code, count in counters.refused.items():
            refused.add_metric((str(code),), count)
        yield refused
        closed = CounterMetricFamily(
            "calllab_relay_closed", "Sockets closed by the relay, by code", labels=("code",)
        )
        for close_code, count in counters.closed.items():
            closed.add_metric((str(int(close_code)),), count)
        yield closed


class TurnCollector(Collector):
    """Reads the counters of the TURN server when Prometheus asks."""

    def __init__(self, turn: TurnServer) -> None:
        self._turn = turn

    def collect(self) -> Iterator[Metric]:
        """Yield what the TURN server has counted."""
        counters = self._turn.counters()
        yield GaugeMetricFamily(
            "calllab_turn_allocations", "Live TURN allocations", value=counters.allocations
        )
        yield CounterMetricFamily(
            "calllab_turn_allocations_made", "TURN allocations made", value=counters.allocations_total
        )
        packets = CounterMetricFamily("calllab_turn_packets", "Relayed packets", labels=("to",))
        packets.add_metric(("peer",), counters.packets_to_peers)
        packets.add_metric(("client",), counters.packets_to_clients)
        yield packets
        relayed = CounterMetricFamily("calllab_turn_bytes", "Relayed bytes", labels=("to",))
        relayed.add_metric(("peer",), counters.bytes_to_peers)
        relayed.add_metric(("client",), counters.bytes_to_clients)
        yield relayed


def render(registry: CollectorRegistry) -> web.Response:
    """Return the registry in Prometheus's text format."""
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
