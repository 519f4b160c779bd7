"""Times in scenarios, and the causes that they name."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

__all__ = ["MAX_DURATION_S", "AtSeconds", "Cause", "ForSeconds"]

MAX_DURATION_S: Final = 3600.0

AtSeconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_DURATION_S)]
"""Seconds from the start of the run."""

ForSeconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0.0, le=MAX_DURATION_S)]
"""A length of time in seconds."""

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
"""What a diagnosis can find; the same names as there."""
