"""Session descriptions and ICE candidates as applications see them (webrtc-pc sections 4.6, 4.8)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from calllab.rtc.parameters import SdpType

__all__ = [
    "RTCIceCandidate",
    "RTCPeerConnectionIceErrorEvent",
    "RTCSessionDescription",
    "parse_candidate_attribute",
    "relay_protocol",
]

_MAX_CANDIDATE: Final = 1024
_CANDIDATE: Final = re.compile(
    r"(?:a=)?candidate:(?P<foundation>[A-Za-z0-9+/]{1,32}) (?P<component>[12]) "
    r"(?P<protocol>[A-Za-z0-9-]{1,16}) (?P<priority>[0-9]{1,10}) (?P<address>[!-~]{1,255}) "
    r"(?P<port>[0-9]{1,5}) typ (?P<type>host|srflx|prflx|relay)"
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
        if not isinstance(description, Mapping):
            raise TypeError(f"a description is needed, not {type(description).__name__}")
        return cls(description.get("type"), description.get("sdp") or "")  # type: ignore[arg-type]


@dataclass(frozen=True)
class RTCIceCandidate:
    """An ICE candidate and where it belongs; an empty ``candidate`` is the end of candidates.

    Raises TypeError if both ``sdpMid`` and ``sdpMLineIndex`` are missing, or for a wrong type.  The parsed
    members are None where the candidate string is empty or does not follow the grammar of RFC 8839 section
    5.1.
    """

    candidate: str = ""
    sdpMid: str | None = None
    sdpMLineIndex: int | None = None
    usernameFragment: str | None = None
    foundation: str | None = field(init=False, default=None, compare=False)
    component: Literal["rtp", "rtcp"] | None = field(init=False, default=None, compare=False)
    priority: int | None = field(init=False, default=None, compare=False)
    address: str | None = field(init=False, default=None, compare=False)
    protocol: Literal["udp", "tcp"] | None = field(init=False, default=None, compare=False)
    port: int | None = field(init=False, default=None, compare=False)
    type: Literal["host", "srflx", "prflx", "relay"] | None = field(init=False, default=None, compare=False)
    tcpType: Literal["active", "passive", "so"] | None = field(init=False, default=None, compare=False)
    relatedAddress: str | None = field(init=False, default=None, compare=False)
    relatedPort: int | None = field(init=False, default=None, compare=False)
    relayProtocol: Literal["udp", "tcp", "tls"] | None = field(init=False, default=None, compare=False)
    """How the TURN server of a local relay candidate is reached."""
    url: str | None = field(init=False, default=None, compare=False)
    """The server of a local relay or srflx candidate."""

    def __post_init__(self) -> None:
        for name in ("candidate", "sdpMid", "usernameFragment"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name == "candidate"):
                raise TypeError(f"{name} is a string, not {value.__class__.__name__}")
        index = self.sdpMLineIndex
        if index is not None and (not isinstance(index, int) or not 0 <= index <= 65535):
            raise TypeError(f"sdpMLineIndex is a number from 0 to 65535, not {index!r}")
        if self.sdpMid is None and index is None:
            raise TypeError("a candidate needs sdpMid or sdpMLineIndex: which section does it belong to?")
        for name, value in (parse_candidate_attribute(self.candidate) or {}).items():
            object.__setattr__(self, name, value)

    def from_server(self, url: str | None) -> RTCIceCandidate:
        """Return this candidate of ours with the server that it came from (for calllab's own use)."""
        if url is not None and self.type in ("relay", "srflx"):
            object.__setattr__(self, "url", url)
            if self.type == "relay":
                object.__setattr__(self, "relayProtocol", relay_protocol(url))
        return self

    def toJSON(self) -> dict[str, Any]:
        """Return the RTCIceCandidateInit that this is."""
        return {
            "candidate": self.candidate,
            "sdpMid": self.sdpMid,
            "sdpMLineIndex": self.sdpMLineIndex,
            "usernameFragment": self.usernameFragment,
        }


def parse_candidate_attribute(text: str) -> dict[str, Any] | None:
    """Return the members of RTCIceCandidate that a candidate string gives (RFC 8839 section 5.1).

    None if it does not follow the grammar, or says something impossible; whether anybody can use it is
    another question.
    """
    found = _CANDIDATE.fullmatch(text) if len(text) <= _MAX_CANDIDATE else None
    if found is None:
        return None
    words = found["rest"].split(" ")[1:]
    extensions = dict(zip(words[::2], words[1::2], strict=True))
    protocol, related_port = found["protocol"].lower(), extensions.get("rport")
    tcp_type = extensions.get("tcptype")
    if (
        protocol not in ("udp", "tcp")
        or int(found["port"]) > 65535
        or int(found["priority"]) >= 1 << 32
        or (protocol == "tcp" and tcp_type not in (None, "active", "passive", "so"))
        or not (related_port is None or (related_port.isascii() and related_port.isdigit()))
    ):
        return None
    return {
        "foundation": found["foundation"],
        "component": "rtp" if found["component"] == "1" else "rtcp",
        "priority": int(found["priority"]),
        "address": found["address"],
        "protocol": protocol,
        "port": int(found["port"]),
        "type": found["type"],
        "tcpType": tcp_type if protocol == "tcp" else None,
        "relatedAddress": extensions.get("raddr"),
        "relatedPort": int(related_port) if related_port is not None else None,
    }


def relay_protocol(url: str) -> Literal["udp", "tcp", "tls"]:
    """Return how a TURN server is reached, by its URL (webrtc-pc, RTCIceServerTransportProtocol)."""
    if url.lower().startswith("turns:"):
        return "tls"
    return "tcp" if url.endswith("transport=tcp") else "udp"


@dataclass(frozen=True, slots=True)
class RTCPeerConnectionIceErrorEvent:
    """A STUN or TURN server refused (its error code) or could not be reached (701)."""

    url: str
    errorCode: int
    errorText: str
    address: str | None = None
    port: int | None = None
