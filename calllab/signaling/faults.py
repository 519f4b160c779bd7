"""Faults of signaling, without a clock: what happens to each message, and when it may go on.

Theory of operation.  One direction of a channel is a lane (:mod:`calllab.signaling.lane`).  A message that
enters it meets every fault that applies to it: a drop takes it away, a duplicate adds copies, delays add up,
a hold keeps it until it is released, a reorder lets later ones pass.

A fault may be in several lanes at once: what it counts, and how many messages it may still happen to, is then
counted over all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

from calllab.signaling.channel import Message
from calllab.signaling.fault_setting import Route, SignalingFault

__all__ = [
    "Delay",
    "Direction",
    "Drop",
    "Duplicate",
    "Fault",
    "HoldBack",
    "MessageTypes",
    "Reorder",
    "make_fault",
]

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
        self.routes: tuple[Route, ...] = ()
        """Whose messages it happens to; none: all that pass the lane."""
        self.is_everywhere = False
        """Whether it is in the lanes of all users: it then leaves out, on the way in, what it has already met
        on the way out."""
        self.entropy: random.Random | None = None
        """Decides what is left to chance; None: the lane's."""

    def strikes(
        self, message: Message, sender: str | None, recipient: str | None, entropy: random.Random
    ) -> bool:
        """Say whether it happens to this message, and count it if so."""
        if self.types is not None and message.get("type") not in self.types:
            return False
        if self.routes and not any(route.covers(sender, recipient) for route in self.routes):
            return False
        if self.limit is not None and self.count >= self.limit:
            return False
        # A certain fault draws nothing: turning one on does not change what the others do.
        if self.probability < 1 and (self.entropy or entropy).random() >= self.probability:
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
        if not self.jitter_s:
            return self.delay_s
        return self.delay_s + self.jitter_s * (self.entropy or entropy).random()


class HoldBack(Fault):
    """The message stays in the lane until the hold is removed."""

    def __init__(
        self,
        types: MessageTypes = None,
        *,
        in_order: bool = True,
        probability: float = 1.0,
        limit: int | None = None,
    ) -> None:
        super().__init__(types, probability=probability, limit=limit)
        self.in_order = in_order
        self.messages: list[Message] = []
        """What is being held, the oldest first."""


class Reorder(Fault):
    """The message goes on after ``behind`` later ones to the same user, or after ``wait_s`` without them.

    While one waits it does not happen to those that are to pass it.
    """

    def __init__(
        self,
        types: MessageTypes = None,
        *,
        behind: int = 1,
        wait_s: float = 1.0,
        probability: float = 1.0,
        limit: int | None = None,
    ) -> None:
        super().__init__(types, probability=probability, limit=limit)
        if behind < 1 or wait_s < 0:
            raise ValueError(
                f"behind is {behind!r} and wait_s {wait_s!r}: give at least 1 message, and no negative time"
            )
        self.behind = behind
        self.wait_s = wait_s


def make_fault(setting: SignalingFault, entropy: random.Random) -> Fault:
    """Return the fault that a setting describes, for the lanes of all users; not for a ``disconnect``."""
    types = setting.types or None
    common: dict[str, Any] = {"probability": setting.probability, "limit": setting.count}
    fault: Fault
    match setting.kind:
        case "hold":
            fault = HoldBack(types, in_order=setting.in_order, **common)
        case "drop":
            fault = Drop(types, **common)
        case "duplicate":
            fault = Duplicate(types, copies=setting.copies, **common)
        case "delay":
            fault = Delay(
                types,
                delay_s=setting.delay_ms / 1000.0,
                jitter_s=setting.jitter_ms / 1000.0,
                in_order=setting.in_order,
                **common,
            )
        case "reorder":
            fault = Reorder(types, behind=setting.behind, wait_s=setting.wait_ms / 1000.0, **common)
        case "disconnect":
            raise ValueError("a disconnect happens to a connection, not to messages")
    fault.routes = setting.routes
    fault.is_everywhere = True
    fault.entropy = entropy
    return fault
