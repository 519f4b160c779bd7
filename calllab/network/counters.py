"""What really happened to the datagrams of a link: the ground truth beside what was planned."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

__all__ = ["InterfaceCounters", "LinkCounters"]


@dataclass(slots=True)
class LinkCounters:
    """What a link did so far; bytes are UDP payload.

    Always ``delivered = offered + duplicated - lost - queue_dropped - codel_dropped -
    blackout_dropped``.
    """

    offered: int = 0
    delivered: int = 0
    """Deliveries decided on, copies included."""
    lost: int = 0
    """Taken by the loss model."""
    queue_dropped: int = 0
    """Found no room in the queue."""
    codel_dropped: int = 0
    """Dropped by CoDel at the head of the queue."""
    blackout_dropped: int = 0
    duplicated: int = 0
    held_back: int = 0
    """Delayed by the reorder stage; they arrive late only if others follow in time."""
    offered_bytes: int = 0
    delivered_bytes: int = 0

    def copy(self) -> Self:
        """Return the counters as they stand now."""
        return replace(self)

    def __sub__(self, earlier: LinkCounters) -> LinkCounters:
        return LinkCounters(*(getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)))

    @property
    def dropped(self) -> int:
        """How many datagrams the link did not deliver, for whatever reason."""
        return self.lost + self.queue_dropped + self.codel_dropped + self.blackout_dropped

    @property
    def loss_share(self) -> float:
        """The share of offered datagrams that was not delivered, 0..1; 0 if none was offered."""
        return self.dropped / self.offered if self.offered else 0.0


@dataclass(slots=True)
class InterfaceCounters:
    """What passed between the sockets of a peer and the network; the link's own counters stand beside."""

    sent: int = 0
    """Datagrams handed to the sockets, copies included."""
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0
    reordered: int = 0
    """Datagrams handed over after one that was sent later (RFC 4737 section 3)."""
    dead_dropped: int = 0
    """Datagrams, either way, of sockets that a network change or a close had killed."""
    overflow_dropped: int = 0
    """Datagrams refused because too many bytes were already under way."""
    failed: int = 0
    """Datagrams that the socket refused with an error when their time came."""

    def copy(self) -> Self:
        """Return the counters as they stand now."""
        return replace(self)
