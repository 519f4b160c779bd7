"""How a NAT behaves, in the terms of RFC 4787: a frozen, checked value, and the kinds that have names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final, Literal, Self, get_args

import msgspec

from calllab.errors import InvalidSetting

__all__ = ["NAT_KINDS", "NatBehaviour", "NatSettings", "PortAssignment", "nat_kind"]

NatBehaviour = Literal["endpoint-independent", "address-dependent", "address-and-port-dependent"]
"""What of a remote endpoint a mapping or a filter looks at (RFC 4787 sections 4.1 and 5)."""

PortAssignment = Literal["preserve", "sequential", "random"]
"""How a NAT picks the external port of a new mapping (RFC 4787 section 4.2)."""

_FLAGS: Final = ("inbound_refresh", "hairpinning")
_WHOLE: Final[Mapping[str, tuple[int, int]]] = {
    "first_port": (1, 65535),
    "last_port": (1, 65535),
    "max_mappings": (1, 65535),
}
_MAX_TIMEOUT_S: Final = 86_400.0


class NatSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a NAT maps, filters and forgets.

    The defaults are what RFC 4787 asks of a NAT that is friendly to peer-to-peer traffic, with the timeout of
    five minutes that it recommends.  Raises :exc:`~calllab.errors.InvalidSetting` if a member is out of its
    range.
    """

    mapping: NatBehaviour = "endpoint-independent"
    """For which destinations an internal endpoint keeps its external port."""
    filtering: NatBehaviour = "endpoint-independent"
    """From whom a mapping lets datagrams in."""
    mapping_timeout_s: float = 300.0
    """A mapping, and the leave of a remote endpoint to use it, ends when unused for so long."""
    inbound_refresh: bool = False
    """Whether datagrams that come in count as use; those that go out always do."""
    port_assignment: PortAssignment = "preserve"
    """``preserve`` takes the internal port if it is free, else the next free one above it."""
    first_port: int = 1024
    """The lowest external port.  A preserving NAT also gives out those below 1024, to internal ports below
    1024 and to no others (RFC 4787 section 4.2.2)."""
    last_port: int = 65535
    """The highest external port."""
    max_mappings: int = 60_000
    """With so many in use, new ones are refused; those in use are never taken away for them."""
    hairpinning: bool = True
    """Whether hosts behind the NAT reach each other over its external address."""

    def __post_init__(self) -> None:
        for name in ("mapping", "filtering"):
            if (value := getattr(self, name)) not in get_args(NatBehaviour):
                raise InvalidSetting(f"{name}={value!r}: give one of {', '.join(get_args(NatBehaviour))}")
        if self.port_assignment not in get_args(PortAssignment):
            known = ", ".join(get_args(PortAssignment))
            raise InvalidSetting(f"port_assignment={self.port_assignment!r}: give one of {known}")
        for name in _FLAGS:
            if not isinstance(value := getattr(self, name), bool):
                raise InvalidSetting(f"{name}={value!r}: give True or False")
        for name, (low, high) in _WHOLE.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise InvalidSetting(f"{name}={value!r}: give a whole number from {low} to {high}")
        timeout = self.mapping_timeout_s
        good = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if not (good and 0.0 < timeout <= _MAX_TIMEOUT_S):
            raise InvalidSetting(
                f"mapping_timeout_s={timeout!r}: give seconds, more than 0, up to {_MAX_TIMEOUT_S:g}"
            )
        if self.first_port > self.last_port:
            raise InvalidSetting(
                f"first_port={self.first_port} is above last_port={self.last_port}: give at least one port"
            )

    def replace(self, **changes: Any) -> Self:
        """Return these settings with ``changes``; raises InvalidSetting for unknown names and bad values."""
        known = self.__struct_fields__
        if unknown := sorted(changes.keys() - set(known)):
            raise InvalidSetting(
                f"no such setting of a NAT: {', '.join(unknown)}; there are {', '.join(known)}"
            )
        return type(self)(**{**msgspec.structs.asdict(self), **changes})


NAT_KINDS: Final[Mapping[str, NatSettings]] = {
    "full-cone": NatSettings(filtering="endpoint-independent"),
    "restricted-cone": NatSettings(filtering="address-dependent"),
    "port-restricted-cone": NatSettings(filtering="address-and-port-dependent"),
    "address-dependent": NatSettings(mapping="address-dependent", filtering="address-dependent"),
    "symmetric": NatSettings(
        mapping="address-and-port-dependent",
        filtering="address-and-port-dependent",
        port_assignment="random",
        hairpinning=False,
    ),
}
"""The kinds that have names.

Four are those of RFC 3489 section 5.  ``address-dependent`` stands between the cones and the symmetric NAT,
so that each mapping and each filtering behaviour of RFC 4787 is found in some kind: to ICE it is as bad as a
symmetric one, since a STUN server has another address than the peer, but a test that varies only the port of
the server takes it for a cone.  How ports are given out is a setting of its own and fits any kind; only the
symmetric one draws them at random by default, as those of carriers do, so that no port can be guessed.
"""


def nat_kind(kind: str, **changes: Any) -> NatSettings:
    """Return the settings of the NAT of that name in :data:`NAT_KINDS`, with ``changes``.

    Raises :exc:`~calllab.errors.InvalidSetting` if there is no such kind, or a change makes no sense.
    """
    if kind not in NAT_KINDS:
        near = difflib.get_close_matches(str(kind), NAT_KINDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidSetting(f"no NAT of kind {kind!r}: there are {', '.join(NAT_KINDS)}{hint}")
    return NAT_KINDS[kind].replace(**changes)
