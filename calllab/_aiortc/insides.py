"""Access to the name-mangled attributes of aiortc and aioice.

Every name used here stands in :data:`calllab._aiortc.selftest.INSTANCE_ATTRIBUTES`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["inside", "set_inside"]


def inside(thing: object, owner: type, name: str) -> Any:
    """Return what the methods of ``owner`` call ``self.<name>``; ``name`` begins with two underscores."""
    return getattr(thing, f"_{owner.__name__.lstrip('_')}{name}")


def set_inside(thing: object, owner: type, name: str, value: object) -> None:
    """Set such an attribute."""
    setattr(thing, f"_{owner.__name__.lstrip('_')}{name}", value)
