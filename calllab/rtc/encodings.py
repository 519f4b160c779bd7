"""How a sender encodes: RTCRtpEncodingParameters (webrtc-pc sections 5.1, 5.2 and 5.2.7)."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from calllab.rtc.errors import InvalidAccessError, InvalidModificationError
from calllab.rtc.parameters import Kind

__all__ = ["changed_encodings", "initial_encodings"]

# RFC 8851 section 10, with the limit that RFC 8852 section 3 sets for RTP header extensions.
_RID: Final = re.compile(r"[A-Za-z0-9]{1,255}")
_MEMBERS: Final = ("active", "maxBitrate", "maxFramerate", "scaleResolutionDownBy")
_VIDEO_MEMBERS: Final = ("maxFramerate", "scaleResolutionDownBy")
# One encoding a sender: there is no simulcast in aiortc.
_MAX_ENCODINGS: Final = 1


def initial_encodings(kind: Kind, encodings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the encodings of a new sender (webrtc-pc 5.1, addTransceiver): of several the first is kept.

    Raises TypeError for bad or double rids, InvalidAccessError for members that nobody may set, ValueError
    for numbers out of range.
    """
    _check_mappings(encodings)
    rids = [encoding["rid"] for encoding in encodings if "rid" in encoding]
    for rid in rids:
        if not isinstance(rid, str) or _RID.fullmatch(rid) is None:
            raise TypeError(f"a rid is 1 to 255 letters and digits, not {rid!r}")
    if rids and len(rids) != len(encodings):
        raise TypeError("either all encodings have a rid or none has")
    if len(set(rids)) != len(rids):
        raise TypeError(f"each encoding has a rid of its own, these are {', '.join(rids)}")
    for encoding in encodings:
        if "ssrc" in encoding:
            raise InvalidAccessError("the SSRC of an encoding cannot be chosen")
    cleaned = [_cleaned(kind, encoding) for encoding in encodings] or [_cleaned(kind, {})]
    kept = cleaned[:_MAX_ENCODINGS]
    if kind == "video":
        for encoding in kept:
            encoding.setdefault("scaleResolutionDownBy", 1.0)
    return kept


def changed_encodings(
    kind: Kind, encodings: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the encodings that setParameters() asks for (webrtc-pc 5.2, setParameters).

    Raises InvalidModificationError if there are more or fewer of them or a rid appears, ValueError for
    numbers out of range.
    """
    _check_mappings(encodings)
    if len(encodings) != len(before):
        raise InvalidModificationError(f"there are {len(before)} encodings, and {len(encodings)} were given")
    if [encoding.get("rid") for encoding in encodings] != [encoding.get("rid") for encoding in before]:
        raise InvalidModificationError("the rid of an encoding cannot be changed")
    kept = [_cleaned(kind, encoding) for encoding in encodings]
    if kind == "video":
        for encoding in kept:
            encoding.setdefault("scaleResolutionDownBy", 1.0)
    return kept


def _check_mappings(encodings: Sequence[Any]) -> None:
    for encoding in encodings:
        if not isinstance(encoding, Mapping):
            raise TypeError(f"an encoding is a mapping, not {type(encoding).__name__}")


def _cleaned(kind: Kind, encoding: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that there are, with their types and ranges checked; what is unknown is dropped."""
    names = [name for name in _MEMBERS if kind == "video" or name not in _VIDEO_MEMBERS]
    members: dict[str, Any] = {"active": True}
    for name in names:
        value = encoding.get(name)
        if value is None:
            continue
        if isinstance(value, bool) != (name == "active") or not isinstance(value, int | float):
            raise TypeError(f"{name} is a {'boolean' if name == 'active' else 'number'}, not {value!r}")
        if not -sys.float_info.max <= value <= sys.float_info.max:  # nor does NaN come through
            raise TypeError(f"{name} is a finite number that a double can hold")
        members[name] = value
    if "maxBitrate" in members:
        members["maxBitrate"] = _unsigned_long("maxBitrate", members["maxBitrate"])
    if members.get("scaleResolutionDownBy", 1.0) < 1.0:
        raise ValueError(f"scaleResolutionDownBy is at least 1: {members['scaleResolutionDownBy']}")
    if members.get("maxFramerate", 0.0) < 0.0:
        raise ValueError(f"maxFramerate is not negative: {members['maxFramerate']}")
    return members


def _unsigned_long(name: str, value: float) -> int:
    """Return a whole number of 32 bits; Web IDL would cut others down to one, and not say so."""
    if value != int(value):
        raise TypeError(f"{name} is a whole number, not {value!r}")
    if not 0 <= value < 1 << 32:
        raise ValueError(f"{name} is from 0 to {(1 << 32) - 1}, not {value!r}")
    return int(value)
