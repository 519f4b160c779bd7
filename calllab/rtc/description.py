"""Session descriptions and ICE candidates as applications see them (webrtc-pc sections 4.6, 4.8)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from calllab.rtc.parameters import SdpType

__all__ = ["RTCIceCandidate", "RTCPeerConnectionIceErrorEvent", "RTCSessionDescription"]

_CANDIDATE: Final = re.compile(
    r"candidate:(?P<foundation>[A-Za-z0-9+/]{1,32}) (?P<component>[0-9]{1,3}) "
    r"(?P<protocol>[A-Za-z0-9-]{1,16}) (?P<priority>[0-9]{1,10}) (?P<address>[!-~]{1,255}) "
    r"(?P<port>[0-9]{1,5}) typ (?P<type>[a-z]{1,16})"
    r"(?P<rest>(?: [!-~]+ [!-~]+)*) ?"
)


@dataclass(frozen=True, slots=True)
class RTCSessionDescription:
    """One session description: its type and its text."""

    type: SdpType
    sdp: str = ""

    def __post_init__(self) -> None:
        if self.type not in get_args(SdpType):
            raise TypeError(f"a description is an offer, pranswer, answer or rollback, not {self.type!r}")
        if not isinstance(self.sdp, str):
            raise TypeError(f"the SDP of a description is a string, not {type(self.sdp).__name__}")

    def toJSON(self) -> dict[str, str]:
        """Return the RTCSessionDescriptionInit that this is."""
        return {"type": self.type, "sdp": self.sdp}

    @classmethod
    def of(cls, description: RTCSessionDescription | Mapping[str, Any]) -> RTCSessionDescription:
        """Return ``description`` itself, or the one that a mapping means; raises TypeError."""
        if isinstance(description, RTCSessionDescription):
            return description
        return cls(description.get("type"), description.get("sdp") or "")  # type: ignore[arg-type]


@dataclass(frozen=True)
class RTCIceCandidate:
    """An ICE candidate and where it belongs; an empty ``candidate`` is the end of candidates.

    Raises TypeError if both ``sdpMid`` and ``sdpMLineIndex`` are missing.  The parsed members are None
    where the candidate string is empty or not understood.
    """

    candidate: str = ""
    sdpMid: str | None = None
    sdpMLineIndex: int | None = None
    usernameFragment: str | None = None
    foundation: str | None = field(init=False, default=None, compare=False)
    component: str | None = field(init=False, default=None, compare=False)
    priority: int | None = field(init=False, default=None, compare=False)
    address: str | None = field(init=False, default=None, compare=False)
    protocol: str | None = field(init=False, default=None, compare=False)
    port: int | None = field(init=False, default=None, compare=False)
    type: str | None = field(init=False, default=None, compare=False)
    tcpType: str | None = field(init=False, default=None, compare=False)
    relatedAddress: str | None = field(init=False, default=None, compare=False)
    relatedPort: int | None = field(init=False, default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.candidate, str):
            raise TypeError(f"a candidate is a string, not {type(self.candidate).__name__}")
        if self.sdpMid is None and self.sdpMLineIndex is None:
            raise TypeError("a candidate needs sdpMid or sdpMLineIndex: which section does it belong to?")
        found = _CANDIDATE.fullmatch(self.candidate)
        if found is None:
            return
        parsed: dict[str, Any] = {
            "foundation": found["foundation"],
            "component": {"1": "rtp", "2": "rtcp"}.get(found["component"]),
            "priority": int(found["priority"]),
            "address": found["address"],
            "protocol": found["protocol"].lower(),
            "port": int(found["port"]),
            "type": found["type"],
        }
        words = found["rest"].split()
        extensions = dict(zip(words[::2], words[1::2], strict=False))
        parsed["tcpType"] = extensions.get("tcptype")
        parsed["relatedAddress"] = extensions.get("raddr")
        related_port = extensions.get("rport", "")
        parsed["relatedPort"] = (
            int(related_port) if related_port.isascii() and related_port.isdigit() else None
        )
        for name, value in parsed.items():
            object.__setattr__(self, name, value)
        if self.usernameFragment is None and "ufrag" in extensions:
            object.__setattr__(self, "usernameFragment", extensions["ufrag"])

    def toJSON(self) -> dict[str, Any]:
        """Return the RTCIceCandidateInit that this is."""
        return {
            "candidate": self.candidate,
            "sdpMid": self.sdpMid,
            "sdpMLineIndex": self.sdpMLineIndex,
            "usernameFragment": self.usernameFragment,
        }


@dataclass(frozen=True, slots=True)
class RTCPeerConnectionIceErrorEvent:
    """A STUN or TURN server refused (its error code) or could not be reached (701)."""

    url: str
    errorCode: int
    errorText: str
    address: str | None = None
    port: int | None = None
