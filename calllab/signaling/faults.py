"""Faults of signaling, without a clock: what happens to each message, and when it may go on.

Theory of operation.  One direction of a channel is a :class:`Lane`.  A message that enters it meets every
fault that applies to it: a drop takes it away, a duplicate adds copies, delays add up, a hold keeps it until
it is released.  What may go on leaves the lane in the order in which it came.

Order is itself something to be broken on purpose, and only then: a message that waits keeps later ones to the
same recipient waiting behind it, as a slow but orderly relay would, unless its fault was told not to
(``in_order=False``), in which case later ones pass it.  A recipient's messages never wait for another's.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from calllab.signaling.channel import Message

__all__ = ["Delay", "Direction", "Drop", "Duplicate", "Fault", "HoldBack", "Lane", "MessageTypes"]

Direction: TypeAlias = Literal["out", "in"]
"""``out``: what this channel sends; ``in``: what it receives."""

MessageTypes: TypeAlias = str | Iterable[str] | None
"""One wire type, several, or None for all."""


class Fault:
    """Something that happens to messages of some types, until it is removed.

    Args:
        types: the wire types that it applies to.
        probability: how likely it is for each of them.
        limit: after so many messages it has no effect any more; None: no limit.

    """

    def __init__(
        self, types: MessageTypes = None, *, probability: float = 1.0, limit: int | None = None
    ) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"probability is {probability!r}: it must be within 0 to 1")
        if limit is not None and limit < 1:
            raise ValueError(f"the limit is {limit!r}: it must be at least 1, or None for no limit")
        if types is None:
            self.types = None
        else:
            self.types = frozenset({types} if isinstance(types, str) else types)
        self.probability = probability
        self.limit = limit
        self.count = 0
        """How many messages it has happened to."""

    def strikes(self, message: Mapping[str, Any], entropy: random.Random) -> bool:
        """Say whether it happens to this message, and count it if so."""
        if self.types is not None and message["type"] not in self.types:
            return False
        if self.limit is not None and self.count >= self.limit:
            return False
        # A certain fault draws nothing: turning one on does not change what the others do.
        if self.probability < 1 and entropy.random() >= self.probability:
            return False
        self.count += 1
        return True


class Drop(Fault):
    """The message is lost."""


class Duplicate(Fault):
    """The message comes ``1 + copies`` times."""

    def __init__(
        self,
        types: MessageTypes = None,
        *,
        copies: int = 1,
        probability: float = 1.0,
        limit: int | None = None,
    ) -> None:
        super().__init__(types, probability=probability, limit=limit)
        if copies < 1:
            raise ValueError(f"copies is {copies!r}: it must be at least 1")
        self.copies = copies


class Delay(Fault):
    """The message comes later by ``delay_s`` and up to ``jitter_s`` more."""

    def __init__(
        self,
        types: MessageTypes = None,
        *,
        delay_s: float,
        jitter_s: float = 0.0,
        in_order: bool = True,
        probability: float = 1.0,
        limit: int | None = None,
    ) -> None:
        super().__init__(types, probability=probability, limit=limit)
        if delay_s < 0 or jitter_s < 0:
            raise ValueError(f"a delay of {delay_s!r} s with jitter {jitter_s!r} s: neither can be negative")
        self.delay_s = delay_s
        self.jitter_s = jitter_s
        self.in_order = in_order

    def draw_s(self, entropy: random.Random) -> float:
        """Return one message's delay."""
        return self.delay_s + (self.jitter_s * entropy.random() if self.jitter_s else 0.0)


class HoldBack(Fault):
    """The message stays in the lane until the hold is removed."""

    def __init__(self, types: MessageTypes = None, *, in_order: bool = True) -> None:
        super().__init__(types)
        self.in_order = in_order
        self.messages: list[Message] = []
        """What is being held, the oldest first."""


@dataclass(eq=False)
class _Entry:
    message: Message
    due_s: float
    hold: HoldBack | None
    may_be_passed: bool


class Lane:
    """One direction of a channel, with its faults; ``now`` is seconds of any clock.

    Args:
        party: the field that names the other side: recipientId on the way out, senderId on the way in.
        entropy: decides what is left to chance.

    """

    def __init__(self, party: str, entropy: random.Random) -> None:
        self.faults: list[Fault] = []
        self._party = party
        self._entropy = entropy
        self._entries: list[_Entry] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing is on its way."""
        return not self._entries

    def put(self, message: Message, now: float) -> None:
        """Let a message enter, and its faults happen to it."""
        copies = 1
        due_s = now
        hold: HoldBack | None = None
        may_be_passed = False
        for fault in self.faults:
            if isinstance(fault, HoldBack) and hold is not None:
                continue
            if not fault.strikes(message, self._entropy):
                continue
            if isinstance(fault, Drop):
                return
            if isinstance(fault, Duplicate):
                copies += fault.copies
            elif isinstance(fault, Delay):
                due_s += fault.draw_s(self._entropy)
                may_be_passed = may_be_passed or not fault.in_order
            elif isinstance(fault, HoldBack):
                hold = fault
                fault.messages.append(message)
                may_be_passed = may_be_passed or not fault.in_order
        self._entries += [_Entry(message, due_s, hold, may_be_passed) for _ in range(copies)]

    def release(self, hold: HoldBack) -> None:
        """Let go what a hold has kept; its own order is the order in which it came."""
        hold.messages.clear()
        for entry in self._entries:
            if entry.hold is hold:
                entry.hold = None

    def take(self, now: float) -> Message | None:
        """Return the next message that may go on by now."""
        blocked: set[object] = set()
        for entry in self._entries:
            party = entry.message.get(self._party)
            if entry.hold is None and entry.due_s <= now and party not in blocked:
                self._entries.remove(entry)
                return entry.message
            if not entry.may_be_passed:
                blocked.add(party)
        return None

    def next_s(self, now: float) -> float | None:
        """Return when a message may be able to go on that is not by now; None: not by time alone."""
        return min(
            (entry.due_s for entry in self._entries if entry.hold is None and entry.due_s > now), default=None
        )
