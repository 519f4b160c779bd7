"""Colours: each direction has its own everywhere, told apart with any colour vision (Okabe and Ito's set)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["ANSWER", "FAINT", "FAULT", "GLARE", "INK", "MUTED", "OFFER", "STATES", "direction_colors"]

DIRECTIONS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")

INK: Final = "#1f2430"
MUTED: Final = "#6b7280"
FAINT: Final = "#d7dbe2"
FAULT: Final = "#f2c14e"
GLARE: Final = "#c8102e"
OFFER: Final = "#0072b2"
ANSWER: Final = "#009e73"

STATES: Final = {
    "new": "#d7dbe2",
    "connecting": "#8ecae6",
    "connected": "#2a9d6f",
    "disconnected": "#f2a541",
    "failed": "#c8102e",
    "closed": "#9aa1ac",
}


def direction_colors(peers: Sequence[str]) -> dict[str, str]:
    """Return a colour for what each peer sends, by the peer's name; the order of ``peers`` decides."""
    return {peer: DIRECTIONS[index % len(DIRECTIONS)] for index, peer in enumerate(peers)}
