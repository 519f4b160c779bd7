"""Link settings as they are written in scenarios: only what is named, the rest as it is elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType

from calllab.lab.scenario.times import AtSeconds, ForSeconds
from calllab.network import LinkSettings

__all__ = ["LinkChanges", "LinkFault", "LinkMembers", "Route"]

MEMBERS: Final = LinkSettings.__struct_fields__

_S = TypeVar("_S", bound=type[msgspec.Struct])


class LinkMembers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Some of the settings of a link (see :class:`calllab.network.LinkSettings`)."""

    trace_file: str | UnsetType = UNSET
    """A file with a trace, as a path from the scenario's folder; in place of ``trace``."""

    @property
    def changes(self) -> dict[str, Any]:
        """The settings that were named."""
        named = ((name, getattr(self, name)) for name in MEMBERS)
        return {name: value for name, value in named if value is not UNSET}


class _LinkFault(LinkMembers, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one direction of the network does worse, for a while."""

    direction: str
    """``alice->bob`` is all that Alice sends, ``alice<->bob`` both ways."""
    at_s: AtSeconds = 0.0
    """When it begins."""
    for_s: ForSeconds | None = None
    """How long it lasts; without it, to the end."""


class _Route(LinkMembers, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the way from one host to another does, one way; needs the virtual network."""

    source: str = msgspec.field(name="from")
    """A peer, or a server: ``stun``, ``stun-2`` or ``turn``."""
    to: str
    """A peer, or a server: ``stun``, ``stun-2`` or ``turn``."""


def _with_members(base: _S, name: str) -> _S:
    """Return ``base`` with every setting of a link as an optional member.

    The members are made from LinkSettings itself, so that scenarios know whatever a link can do.
    """
    hints = get_type_hints(LinkSettings)
    fields = [(member, hints[member] | UnsetType, UNSET) for member in MEMBERS]
    return msgspec.defstruct(  # type: ignore[return-value]
        name,
        fields,
        bases=(base,),
        module=__name__,
        namespace={"__doc__": base.__doc__},
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
        omit_defaults=True,
    )


if TYPE_CHECKING:

    class LinkChanges(LinkMembers, frozen=True):
        """Some of the settings of a link."""

    class LinkFault(_LinkFault, frozen=True):
        """A fault of a link."""

    class Route(_Route, frozen=True):
        """The way between two hosts."""

else:
    LinkChanges = _with_members(LinkMembers, "LinkChanges")
    LinkFault = _with_members(_LinkFault, "LinkFault")
    Route = _with_members(_Route, "Route")
