"""The network under test: links that lose, delay, reorder and limit datagrams, on a timeline, from a seed."""

from __future__ import annotations

from calllab.network.counters import InterfaceCounters, LinkCounters
from calllab.network.interface import NetworkEvent, NetworkInterface
from calllab.network.link import Link
from calllab.network.settings import (
    JitterDistribution,
    LinkSettings,
    causes_of,
    gilbert,
    gilbert_elliott,
)
from calllab.network.timeline import Fault, Timeline, TimelineStep

__all__ = [
    "Fault",
    "InterfaceCounters",
    "JitterDistribution",
    "Link",
    "LinkCounters",
    "LinkSettings",
    "NetworkEvent",
    "NetworkInterface",
    "Timeline",
    "TimelineStep",
    "causes_of",
    "gilbert",
    "gilbert_elliott",
]
