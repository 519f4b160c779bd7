"""Named networks: link settings for both directions, with where their numbers come from."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from calllab.errors import InvalidSetting
from calllab.network.settings import LinkSettings, fault_members

__all__ = ["Profile", "ProfileEvent", "profile", "profiles"]

Confidence = Literal["exact", "secondary", "derived", "unverified", "synthetic"]
"""How the numbers were come by: read in the source named; read in somebody's copy; worked out from the
source; from memory, without a source at hand; or made up here, because nobody has published any."""

_PACKAGE: Final = Path(__file__).resolve().parents[1]
# Installed from a wheel the data lies inside the package, in a checkout beside it.
_FOLDERS: Final = (_PACKAGE / "data" / "profiles", _PACKAGE.parent / "data" / "profiles")


class ProfileEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that happens on such a network now and then, in both directions."""

    for_s: float
    """How long it lasts."""
    changes: dict[str, Any]
    """What it changes, as in a fault."""
    at_s: float | None = None
    """When it happens, if once."""
    every_s: float | None = None
    """How often it happens, if again and again; the first time after one period."""

    def __post_init__(self) -> None:
        fault_members(self.changes)
        if (self.at_s is None) == (self.every_s is None):
            raise InvalidSetting("an event of a profile has either at_s or every_s")


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named network, seen from the peer that is on it."""

    name: str
    description: str
    source: str | None
    """Where the numbers are from; None: no public source is known."""
    confidence: Confidence
    up: LinkSettings
    """What the peer sends meets this."""
    down: LinkSettings
    """What is sent to the peer meets this."""
    events: tuple[ProfileEvent, ...] = ()
    """What changes in the course of time; :meth:`faults` spells it out."""

    def faults(self, duration_s: float) -> Iterator[tuple[float, float, dict[str, Any]]]:
        """Yield (at_s, for_s, changes) for each event that begins within ``duration_s``, by event."""
        for event in self.events:
            if event.at_s is not None:
                times = [event.at_s]
            else:
                assert event.every_s is not None
                times = [event.every_s * n for n in range(1, int(duration_s / event.every_s) + 1)]
            for at_s in times:
                if at_s < duration_s:
                    yield at_s, event.for_s, dict(event.changes)


def profile(name: str) -> Profile:
    """Return the profile of that name; raises InvalidSetting, with names like it, if there is none."""
    known = profiles()
    if name not in known:
        near = [each for each in known if str(name) and str(name) in each]
        near = (near or difflib.get_close_matches(str(name), known))[:3]
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise InvalidSetting(f"there is no network profile {name!r}: {hint}")
    return known[name]


@cache
def profiles() -> Mapping[str, Profile]:
    """Return all profiles that come with calllab, by name."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    found: dict[str, Profile] = {}
    for path in () if folder is None else sorted(folder.glob("*.json")):
        try:
            loaded = msgspec.json.decode(path.read_bytes(), type=list[Profile])
        except (msgspec.MsgspecError, OSError) as exc:
            raise InvalidSetting(f"the network profiles in {path.name} cannot be read: {exc}") from exc
        for each in loaded:
            if each.name in found:
                raise InvalidSetting(f"there are two network profiles {each.name!r}, one in {path.name}")
            found[each.name] = each
    return MappingProxyType(dict(sorted(found.items())))
