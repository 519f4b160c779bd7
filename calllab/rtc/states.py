"""The states of a connection, from those of its one ICE and its one DTLS transport (webrtc-pc 4.3)."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["IceState", "PeerConnectionState", "connection_state"]

IceState: TypeAlias = Literal["new", "checking", "connected", "completed", "disconnected", "failed", "closed"]
PeerConnectionState: TypeAlias = Literal["new", "connecting", "connected", "disconnected", "failed", "closed"]


def connection_state(ice: str, dtls: str, *, closed: bool) -> PeerConnectionState:
    """Return the connection state: the first row of webrtc-pc 4.3.3 that applies."""
    if closed:
        return "closed"
    if "failed" in (ice, dtls):
        return "failed"
    if ice == "disconnected":
        return "disconnected"
    if ice in ("new", "closed") and dtls in ("new", "closed"):
        return "new"
    if ice in ("connected", "completed", "closed") and dtls in ("connected", "closed"):
        return "connected"
    return "connecting"
