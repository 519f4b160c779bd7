"""One direction of a channel under faults, without a clock: when each message may go on, if at all.

Theory of operation.  What may go on leaves the lane in the order in which it came.  Order is itself something
to be broken on purpose, and only then: a message that waits keeps later ones to (or from) the same user
waiting behind it, as a slow but orderly relay would, unless its fault was told not to (``in_order=False``, or
a reorder), in which case later ones pass it.  One user's messages never wait for another's.
"""

from __future__ import annotations

import random
from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from calllab.signaling.channel import Message
from calllab.signaling.faults import Delay, Direction, Drop, Duplicate, Fault, HoldBack, Reorder

__all__ = ["Lane"]

T = TypeVar("T")


@dataclass(eq=False)
class _Entry(Generic[T]):
    message: Message
    item: T
    party: str | None
    due_s: float
    hold: HoldBack | None = None
    reorder: Reorder | None = None
    passes_left: int = 0
    may_be_passed: bool = False

    @property
    def ready_s(self) -> float:
        """When it may go on, if nothing holds it."""
        if self.reorder is None or not self.passes_left:
            return self.due_s
        return self.due_s + self.reorder.wait_s


class Lane(Generic[T]):
    """One direction of a channel, with its faults; ``now`` is seconds of any clock.

    What passes is an item of the driver's own beside each message: the message itself, or its frame.

    Args:
        direction: whether its user sends or receives what passes.
        entropy: decides what is left to chance.
        user_id: whose channel it is; None: not known yet.
        attached: the users whose messages meet the faults on their way out, so that those that are in the
            lanes of all users leave them alone on the way in.

    """

    def __init__(
        self,
        direction: Direction,
        entropy: random.Random,
        *,
        user_id: str | None = None,
        attached: Container[str | None] = (),
    ) -> None:
        self.faults: list[Fault] = []
        self.user_id = user_id
        self._is_outgoing = direction == "out"
        self._party = "recipientId" if direction == "out" else "senderId"
        self._entropy = entropy
        self._attached = attached
        self._entries: list[_Entry[T]] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is on its way."""
        return not self._entries

    def put(self, message: Message, now: float, item: T) -> None:
        """Let a message enter, and its faults happen to it."""
        party = message.get(self._party)
        entry = _Entry(message, item, party, now)
        copies = 1
        for fault in self.faults:
            if isinstance(fault, HoldBack) and entry.hold is not None:
                continue
            if isinstance(fault, Reorder) and (entry.reorder is not None or self._waits_for(fault, party)):
                continue
            if not self._strikes(fault, message, party):
                continue
            match fault:
                case Drop():
                    return
                case Duplicate():
                    copies += fault.copies
                case Delay():
                    entry.due_s += fault.draw_s(self._entropy)
                    entry.may_be_passed |= not fault.in_order
                case HoldBack():
                    entry.hold = fault
                    fault.messages.append(message)
                    entry.may_be_passed |= not fault.in_order
                case Reorder():
                    entry.reorder = fault
                    entry.passes_left = fault.behind
                    entry.may_be_passed = True
        self._entries += [entry, *(replace(entry) for _ in range(copies - 1))]

    def release(self, hold: HoldBack) -> None:
        """Let go what a hold has kept; its own order is the order in which it came."""
        hold.messages.clear()
        for entry in self._entries:
            if entry.hold is hold:
                entry.hold = None

    def discard(self) -> None:
        """Lose all that is on its way, held or not."""
        for entry in self._entries:
            if entry.hold is not None and entry.message in entry.hold.messages:
                entry.hold.messages.remove(entry.message)
        self._entries.clear()

    def take(self, now: float) -> T | None:
        """Return the next item that may go on by now."""
        blocked: set[object] = set()
        for index, entry in enumerate(self._entries):
            if entry.hold is None and entry.ready_s <= now and entry.party not in blocked:
                del self._entries[index]
                self._passed(entry.party, index)
                return entry.item
            if not entry.may_be_passed:
                blocked.add(entry.party)
        return None

    def next_s(self, now: float) -> float | None:
        """Return when a message may be able to go on that is not by now; None: not by time alone."""
        return min(
            (entry.ready_s for entry in self._entries if entry.hold is None and entry.ready_s > now),
            default=None,
        )

    def _strikes(self, fault: Fault, message: Message, party: str | None) -> bool:
        sender, recipient = (self.user_id, party) if self._is_outgoing else (party, self.user_id)
        if fault.is_everywhere and not self._is_outgoing and sender in self._attached:
            return False
        return fault.strikes(message, sender, recipient, self._entropy)

    def _waits_for(self, fault: Reorder, party: str | None) -> bool:
        """Say whether a message that ``fault`` has put back still lacks some that are to pass it."""
        lacking = 0
        for entry in self._entries:
            if entry.party != party:
                continue
            if entry.reorder is fault and entry.passes_left:
                lacking = entry.passes_left
            else:
                lacking -= 1
        return lacking > 0

    def _passed(self, party: str | None, index: int) -> None:
        """Count for the entries that were passed by the one that left from ``index``."""
        for entry in self._entries[:index]:
            if entry.passes_left and entry.party == party:
                entry.passes_left -= 1
