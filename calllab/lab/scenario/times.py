"""Times in scenarios."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

__all__ = ["MAX_DURATION_S", "AtSeconds", "ForSeconds"]

MAX_DURATION_S: Final = 3600.0

AtSeconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_DURATION_S)]
"""Seconds from the start of the run."""

ForSeconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0.0, le=MAX_DURATION_S)]
"""A length of time in seconds."""
