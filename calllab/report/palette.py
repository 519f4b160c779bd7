"""Colours: each direction has its own everywhere, told apart with any colour vision (Okabe and Ito's set)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = [
    "ANSWER",
    "BACKWARD",
    "FAINT",
    "FAULT",
    "FAULT_INK",
    "FORWARD",
    "GLARE",
    "INK",
    "MUTED",
    "OFFER",
    "ON_COLOR",
    "PAPER",
    "STATES",
    "THEMED",
    "direction_colors",
]

# What the first peer sends, and what the second one sends.
FORWARD: Final = "#0072b2"
BACKWARD: Final = "#d55e00"
DIRECTIONS: Final = (FORWARD, BACKWARD, "#009e73", "#cc79a7", "#56b4e9", "#e69f00")

INK: Final = "#1f2430"
MUTED: Final = "#6b7280"
FAINT: Final = "#d7dbe2"
PAPER: Final = "#ffffff"
FAULT: Final = "#f2c14e"
FAULT_INK: Final = "#7a5b00"
# Text on a coloured ground, which is as light on a dark page as on a light one.
ON_COLOR: Final = "#11151d"
GLARE: Final = "#c8102e"
# Offers and answers are no directions: they have colours that no direction has.
OFFER: Final = "#7b4fa3"
ANSWER: Final = "#1a7f64"

STATES: Final = {
    "new": "#cfd4dc",
    "connecting": "#8ecae6",
    "connected": "#2a9d6f",
    "disconnected": "#f2a541",
    "failed": "#e0475b",
    "closed": "#9aa1ac",
}

# Colours that follow the theme of the page, by the name of the page's variable.
THEMED: Final = {
    INK: "--ink",
    MUTED: "--muted",
    FAINT: "--line",
    PAPER: "--card",
    FAULT_INK: "--fault-ink",
    GLARE: "--failed",
    OFFER: "--offer",
    ANSWER: "--answer",
}


def direction_colors(peers: Sequence[str]) -> dict[str, str]:
    """Return a colour for what each peer sends, by the peer's name; the order of ``peers`` decides."""
    return {peer: DIRECTIONS[index % len(DIRECTIONS)] for index, peer in enumerate(peers)}
