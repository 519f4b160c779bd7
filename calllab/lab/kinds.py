"""The settings in which the same call can be made: on which clock, over which network."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

__all__ = ["STUN_HOSTS", "ClockKind", "NetworkKind"]

ClockKind: TypeAlias = Literal["virtual", "real"]
"""``virtual``: a clock that jumps to whatever comes next; ``real``: the machine's."""

NetworkKind: TypeAlias = Literal["sockets", "virtual"]
"""``sockets``: real UDP through the real service; ``virtual``: datagrams inside this process."""

STUN_HOSTS: Final = ("stun", "stun-2")
"""The hosts of STUN servers, in the order in which a virtual network gets them."""
