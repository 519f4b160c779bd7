"""A planned fault of signaling as data: what happens to which messages, from when, for how long."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from calllab.errors import InvalidSetting
from calllab.protocol.wire import ClientMessage, is_user_id

__all__ = ["MESSAGE_TYPES", "FaultKind", "Route", "SignalingFault"]

FaultKind: TypeAlias = Literal["hold", "drop", "duplicate", "delay", "reorder", "disconnect"]
"""``disconnect`` happens to a connection, all others to messages."""

MESSAGE_TYPES: Final = frozenset(
    {str(kind.__struct_config__.tag) for kind in get_args(ClientMessage)} | {"error"}
)
"""The types that a fault can be limited to: those of the wire; ``error`` is what the relay answers."""

_ANYONE: Final = "*"
_DIRECTION: Final = re.compile(r"\s*([a-z0-9._-]+|\*)\s*(<?->)\s*([a-z0-9._-]+|\*)\s*", re.ASCII)
_LONGEST_S: Final = 86_400.0

_CAUSES: Final[Mapping[str, str]] = {
    "hold": "signaling-delay",
    "drop": "signaling-loss",
    "duplicate": "signaling-duplicate",
    "delay": "signaling-delay",
    "reorder": "signaling-reorder",
    "disconnect": "signaling-loss",
}

# The kinds that each detail means something for; elsewhere it has to stay at its default.
_DETAILS: Final[Mapping[str, frozenset[str]]] = {
    "delay_ms": frozenset({"delay"}),
    "jitter_ms": frozenset({"delay"}),
    "in_order": frozenset({"hold", "delay"}),
    "copies": frozenset({"duplicate"}),
    "behind": frozenset({"reorder"}),
    "wait_ms": frozenset({"reorder"}),
    "peer": frozenset({"disconnect"}),
    "direction": frozenset({"hold", "drop", "duplicate", "delay", "reorder"}),
    "types": frozenset({"hold", "drop", "duplicate", "delay", "reorder"}),
    "count": frozenset({"hold", "drop", "duplicate", "delay", "reorder"}),
    "probability": frozenset({"hold", "drop", "duplicate", "delay", "reorder"}),
}


@dataclass(frozen=True)
class Route:
    """Who sends to whom; None: anyone."""

    sender: str | None
    recipient: str | None

    def covers(self, sender: str | None, recipient: str | None) -> bool:
        """Say whether a message from ``sender`` (None: the relay itself, or not known) goes this way."""
        return self.sender in (None, sender) and self.recipient in (None, recipient)


class SignalingFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault of signaling on a timeline.

    Times are seconds from the start of the timeline, delays are in milliseconds.  Raises
    :exc:`~calllab.errors.InvalidSetting` if it makes no sense.
    """

    kind: FaultKind
    """What happens: messages are held until the end of the fault, dropped, duplicated, delayed or put behind
    later ones, or the connection of ``peer`` is cut and kept away until the end of the fault."""
    direction: str = "*->*"
    """Whose messages, as ``alice->bob``, ``alice<->bob``, ``alice->*``, ``*->bob``.  What the relay itself
    answers (``error``) has no sender: ``*->alice``."""
    types: tuple[str, ...] = ()
    """The message types that it happens to; none: all."""
    peer: str | None = None
    """Whose connection a ``disconnect`` cuts."""
    at_s: float = 0.0
    """When it begins; a time that is past means now."""
    for_s: float | None = None
    """How long it lasts; None: until it is cancelled.  A ``disconnect`` may last 0 s: the connection is cut,
    and may come back at once."""
    count: int | None = None
    """At most so many messages; None: no limit."""
    probability: float = 1.0
    """How likely it is for each message."""
    delay_ms: float = 0.0
    """``delay``: how late."""
    jitter_ms: float = 0.0
    """``delay``: up to so much later still, uniformly."""
    in_order: bool = True
    """``delay`` and ``hold``: later messages to the same user wait behind a late one; else they pass it."""
    copies: int = 1
    """``duplicate``: how many times more a message comes."""
    behind: int = 1
    """``reorder``: how many later messages to the same user pass it."""
    wait_ms: float = 1000.0
    """``reorder``: how long it waits for them at most."""

    def __post_init__(self) -> None:
        if self.kind not in _CAUSES:
            raise InvalidSetting(f"kind={self.kind!r}: give one of {', '.join(_CAUSES)}")
        for name, kinds in _DETAILS.items():
            if self.kind not in kinds and getattr(self, name) != _DEFAULTS[name]:
                raise InvalidSetting(
                    f"{name}={getattr(self, name)!r} says nothing about kind={self.kind!r}: "
                    f"leave it out, or choose {' or '.join(sorted(kinds))}"
                )
        self._check_times()
        self._check_numbers()
        if self.kind == "disconnect":
            if self.peer is None or not is_user_id(self.peer):
                raise InvalidSetting(
                    f"peer={self.peer!r}: say whose connection is cut, by the name of a user"
                )
        else:
            parse_direction(self.direction)
        if unknown := sorted(set(self.types) - MESSAGE_TYPES):
            raise InvalidSetting(
                f"types={', '.join(map(repr, unknown))}: there are {', '.join(sorted(MESSAGE_TYPES))}"
            )

    def _check_times(self) -> None:
        _check_number("at_s", self.at_s, 0.0, _LONGEST_S)
        if self.for_s is None:
            return
        _check_number("for_s", self.for_s, 0.0, _LONGEST_S, orelse="or None for no end")
        if self.for_s == 0 and self.kind != "disconnect":
            raise InvalidSetting(
                f"for_s=0: a {self.kind} that lasts no time does nothing: give more, or None"
            )

    def _check_numbers(self) -> None:
        _check_number("probability", self.probability, 0.0, 1.0)
        for name in ("delay_ms", "jitter_ms", "wait_ms"):
            _check_number(name, getattr(self, name), 0.0, _LONGEST_S * 1000.0)
        if self.kind == "delay" and not (self.delay_ms or self.jitter_ms):
            raise InvalidSetting("delay_ms=0 and jitter_ms=0 delay nothing: give at least one of them")
        for name in ("copies", "behind"):
            _check_whole(name, getattr(self, name), 1, 1000)
        if self.count is not None:
            _check_whole("count", self.count, 1, 1_000_000)
        if not isinstance(self.in_order, bool):
            raise InvalidSetting(f"in_order={self.in_order!r}: give True or False")

    @property
    def routes(self) -> tuple[Route, ...]:
        """Whose messages to whom it happens to; none for a ``disconnect``."""
        return () if self.kind == "disconnect" else parse_direction(self.direction)

    @property
    def users(self) -> frozenset[str]:
        """The users that it names; a scenario checks that they exist."""
        named = {self.peer, *(name for route in self.routes for name in (route.sender, route.recipient))}
        return frozenset(name for name in named if name is not None)

    @property
    def end_s(self) -> float:
        """When it ends; infinite if nobody has said."""
        return math.inf if self.for_s is None else self.at_s + self.for_s

    @property
    def cause(self) -> str:
        """What a diagnosis would call it."""
        return _CAUSES[self.kind]

    def settings(self) -> dict[str, Any]:
        """Return the members that were asked for, without the times."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in msgspec.structs.asdict(self).items()
            if name not in ("at_s", "for_s") and (name == "kind" or value != _DEFAULTS[name])
        }


_DEFAULTS: Final[Mapping[str, Any]] = {
    field.name: field.default for field in msgspec.structs.fields(SignalingFault)
}


def parse_direction(direction: str) -> tuple[Route, ...]:
    """Return the one or two ways that a direction names; raises InvalidSetting if it names none."""
    match = _DIRECTION.fullmatch(direction) if isinstance(direction, str) else None
    if match is None:
        raise InvalidSetting(
            f"direction={direction!r}: write 'alice->bob', 'alice<->bob', 'alice->*' or '*->bob'"
        )
    one, other = (None if name == _ANYONE else name for name in (match[1], match[3]))
    if one is not None and one == other:
        raise InvalidSetting(f"direction={direction!r}: a user's messages to itself are not told apart")
    for name in (one, other):
        if name is not None and not is_user_id(name):
            raise InvalidSetting(f"direction={direction!r}: {name!r} cannot be the name of a user")
    if match[2] == "->" or one is other is None:
        return (Route(one, other),)
    return (Route(one, other), Route(other, one))


def _check_number(name: str, value: object, low: float, high: float, *, orelse: str = "") -> None:
    # NaN is in no range, so the comparison refuses it too.
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        return
    raise InvalidSetting(f"{name}={value!r}: give a number from {low:g} to {high:g}{orelse and ' ' + orelse}")


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return
    raise InvalidSetting(f"{name}={value!r}: give a whole number from {low} to {high}")
