"""Perfect Negotiation: the W3C pattern as a state machine, and the manager that drives a connection by it."""

from __future__ import annotations

from calllab.negotiation.manager import (
    PeerConnectionConfig,
    PeerConnectionManager,
    create_peer_connection,
)
from calllab.negotiation.negotiator import Description, PerfectNegotiator

__all__ = [
    "Description",
    "PeerConnectionConfig",
    "PeerConnectionManager",
    "PerfectNegotiator",
    "create_peer_connection",
]
