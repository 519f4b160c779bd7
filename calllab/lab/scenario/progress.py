"""How far a run has come."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

__all__ = ["Progress", "ProgressListener"]


class Progress(msgspec.Struct, frozen=True):
    """How far a run has come."""

    t_s: float
    """Seconds since its start, on its own clock."""
    duration_s: float
    did: str
    """What has just begun; empty: time has passed."""


ProgressListener: TypeAlias = Callable[[Progress], None]
