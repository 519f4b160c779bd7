"""The causes of trouble: what scenarios bring about, and what a diagnosis finds."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Cause"]

Cause: TypeAlias = Literal[
    "loss-uniform",
    "loss-burst",
    "delay",
    "jitter",
    "reordering",
    "duplication",
    "bandwidth-cap",
    "blackout",
    "one-way-media",
    "ice-blocked",
    "turn-wrong-credentials",
    "turn-expired-credentials",
    "nat-symmetric",
    "dtls-failure",
    "signaling-loss",
    "signaling-delay",
    "signaling-duplicate",
    "signaling-reorder",
    "glare-resolved",
    "glare-unresolved",
    "codec-mismatch",
    "no-source",
    "cpu-sender",
    "cpu-receiver",
    "renegotiation-failure",
]
