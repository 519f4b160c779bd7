"""Glare on purpose: both offers are held until both exist, then let go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calllab.errors import ExpectationFailed

__all__ = ["GlareOutcome", "GlareWatch"]


@dataclass(frozen=True)
class GlareOutcome:
    """What became of two offers that crossed."""

    ignored_by: str
    """The impolite peer, which ignored the other's offer."""
    rolled_back_by: str
    """The polite peer, which took its own offer back."""
    took_s: float
    """From the release of both offers until both peers were stable with nothing left to negotiate."""
    audio_gap_s: Mapping[str, float] = field(default_factory=dict)
    """The longest silence between two decoded audio frames meanwhile, per direction (``alice->bob``)."""


class GlareWatch:
    """Collects what two peers do about a collision, from their events."""

    def __init__(self) -> None:
        self.collided: list[str] = []
        self.ignored: list[str] = []
        self.rolled_back: list[str] = []
        self.changed = asyncio.Event()

    def __call__(self, t_s: float, peer: str, event: str, members: Mapping[str, Any]) -> None:
        """Take one event of the recording."""
        match event:
            case "offer-collision":
                self.collided.append(peer)
            case "offer-ignored":
                self.ignored.append(peer)
            case "rollback":
                self.rolled_back.append(peer)
        self.changed.set()

    def judge(self, took_s: float, audio_gap_s: Mapping[str, float]) -> GlareOutcome:
        """Return the outcome.

        Raises :exc:`~calllab.errors.ExpectationFailed` unless exactly one peer ignored and the other rolled
        back.
        """
        if len(self.ignored) != 1 or len(self.rolled_back) != 1 or self.ignored == self.rolled_back:
            raise ExpectationFailed(
                "glare must end with exactly one offer ignored and one rolled back, by different peers; here "
                f"{_names(self.ignored)} ignored and {_names(self.rolled_back)} rolled back "
                f"(collisions were seen by {_names(self.collided)})"
            )
        return GlareOutcome(self.ignored[0], self.rolled_back[0], took_s, audio_gap_s)


def _names(peers: list[str]) -> str:
    return ", ".join(peers) or "nobody"
