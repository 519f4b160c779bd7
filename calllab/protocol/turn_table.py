"""The allocations and the reserved ports of a TURN server, and which of them is due next."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass

from calllab.protocol.stun_attributes import Address, Family
from calllab.protocol.turn_allocation import Allocation

__all__ = ["AllocationTable", "Reservation"]


@dataclass(frozen=True, slots=True)
class Reservation:
    """A port that is held back for the next allocation of a user."""

    token: bytes
    user: str
    family: Family
    expires_at: float


class AllocationTable:
    """Finds allocations by id, client and relayed address; counts them by user; knows when to look again."""

    def __init__(self) -> None:
        self._by_id: dict[int, Allocation] = {}
        self._by_client: dict[Address, Allocation] = {}
        self._by_relayed: dict[Address, Allocation] = {}
        self._reservations: dict[bytes, Reservation] = {}
        self._held: Counter[str] = Counter()
        # One valid entry for each allocation: the one that equals its wake_at.  Others are left-overs.
        self._wakes: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def held(self) -> int:
        """How many ports are in use or held back."""
        return len(self._by_id) + len(self._reservations)

    def held_by(self, user: str) -> int:
        """Return how many ports are in use or held back for a user."""
        return self._held[user]

    def by_id(self, allocation_id: int) -> Allocation | None:
        """Return the allocation with this id."""
        return self._by_id.get(allocation_id)

    def by_client(self, client: Address) -> Allocation | None:
        """Return the allocation of this client address."""
        return self._by_client.get(client)

    def by_relayed(self, relayed: Address) -> Allocation | None:
        """Return the allocation that this relayed address belongs to."""
        return self._by_relayed.get(relayed)

    def add(self, allocation: Allocation) -> None:
        """Take in a new allocation, which has no relayed address yet."""
        self._by_id[allocation.id] = allocation
        self._by_client[allocation.client] = allocation
        self._hold(allocation.user, 1)
        self._push(allocation)

    def set_relayed(self, allocation: Allocation, relayed: Address) -> None:
        """Note the relayed address of an allocation."""
        allocation.relayed = relayed
        self._by_relayed[relayed] = allocation

    def remove(self, allocation: Allocation) -> None:
        """Forget an allocation."""
        del self._by_id[allocation.id]
        del self._by_client[allocation.client]
        if allocation.relayed is not None:
            del self._by_relayed[allocation.relayed]
        self._hold(allocation.user, -1)

    def reserve(self, reservation: Reservation) -> None:
        """Note that a port is held back."""
        self._reservations[reservation.token] = reservation
        self._hold(reservation.user, 1)

    def take_reservation(self, token: bytes, user: str) -> Reservation | None:
        """Hand a reserved port to the user it was reserved for; None if there is none."""
        reservation = self._reservations.get(token)
        if reservation is None or reservation.user != user:
            return None
        return self._drop(reservation)

    def watch(self, allocation: Allocation) -> None:
        """Look at an allocation no later than when the first thing in it expires; call it after changes."""
        earliest = allocation.earliest()
        # What was put off is found when the old time comes, so that a refresh costs nothing here.
        if earliest < allocation.wake_at:
            allocation.wake_at = earliest
            self._push(allocation)

    def next_due(self) -> float | None:
        """Return when :meth:`due` may next have something to do, if ever."""
        times = [reservation.expires_at for reservation in self._reservations.values()]
        if self._wakes:
            times.append(self._wakes[0][0])
        return min(times, default=None)

    def due_allocations(self, now: float) -> list[Allocation]:
        """Return the allocations that are over; forget what has expired in the others."""
        over: list[Allocation] = []
        while self._wakes and self._wakes[0][0] <= now:
            at, allocation_id = heapq.heappop(self._wakes)
            allocation = self._by_id.get(allocation_id)
            if allocation is None or allocation.wake_at != at:
                continue
            if allocation.expires_at <= now:
                # It may have left-overs with this very time: none of them is to name it again.
                allocation.wake_at = math.inf
                over.append(allocation)
                continue
            allocation.forget_expired(now)
            allocation.wake_at = allocation.earliest()
            self._push(allocation)
        return over

    def due_reservations(self, now: float) -> list[Reservation]:
        """Return, and forget, the reserved ports that nobody came for."""
        # Kept in the order of their time, since all of them last equally long.
        over: list[Reservation] = []
        for reservation in self._reservations.values():
            if reservation.expires_at > now:
                break
            over.append(reservation)
        return [self._drop(reservation) for reservation in over]

    def _drop(self, reservation: Reservation) -> Reservation:
        del self._reservations[reservation.token]
        self._hold(reservation.user, -1)
        return reservation

    def _hold(self, user: str, change: int) -> None:
        self._held[user] += change
        if not self._held[user]:
            del self._held[user]

    def _push(self, allocation: Allocation) -> None:
        heapq.heappush(self._wakes, (allocation.wake_at, allocation.id))
        if len(self._wakes) > 64 + 2 * len(self._by_id):
            # Left-overs of closed allocations would stay until their time: whoever allocates and deletes in
            # a loop must not fill the memory.
            self._wakes = [(one.wake_at, one.id) for one in self._by_id.values()]
            heapq.heapify(self._wakes)
