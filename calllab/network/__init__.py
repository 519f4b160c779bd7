"""The network under test: links that lose, delay, reorder and limit datagrams, on a timeline, from a seed."""

from __future__ import annotations

from calllab.network.counters import InterfaceCounters, LinkCounters
from calllab.network.host_costs import NO_COSTS, HostCosts
from calllab.network.interface import NetworkEvent, NetworkInterface
from calllab.network.link import Link
from calllab.network.nat import Nat, NatCounters, NatMapping
from calllab.network.nat_settings import NAT_KINDS, NatBehaviour, NatSettings, nat_kind
from calllab.network.profiles import Profile, ProfileEvent, profile, profiles
from calllab.network.settings import (
    JitterDistribution,
    LinkSettings,
    QueueDiscipline,
    causes_of,
    gilbert,
    gilbert_elliott,
)
from calllab.network.simulate import ClockKind, simulate
from calllab.network.timeline import Fault, Timeline, TimelineStep
from calllab.network.trace import DeliveryTrace, read_trace
from calllab.network.virtual_host import VirtualHost
from calllab.network.virtual_loop import CodecMode, VirtualLoop
from calllab.network.virtual_network import DatagramRecord, VirtualNetwork
from calllab.network.virtual_turn import VirtualTurnServer

__all__ = [
    "NAT_KINDS",
    "NO_COSTS",
    "ClockKind",
    "CodecMode",
    "DatagramRecord",
    "DeliveryTrace",
    "Fault",
    "HostCosts",
    "InterfaceCounters",
    "JitterDistribution",
    "Link",
    "LinkCounters",
    "LinkSettings",
    "Nat",
    "NatBehaviour",
    "NatCounters",
    "NatMapping",
    "NatSettings",
    "NetworkEvent",
    "NetworkInterface",
    "Profile",
    "ProfileEvent",
    "QueueDiscipline",
    "Timeline",
    "TimelineStep",
    "VirtualHost",
    "VirtualLoop",
    "VirtualNetwork",
    "VirtualTurnServer",
    "causes_of",
    "gilbert",
    "gilbert_elliott",
    "nat_kind",
    "profile",
    "profiles",
    "read_trace",
    "simulate",
]
