"""ICE candidates in signaling, with other addresses put in their place: text in, text out.

What is understood is the grammar of RFC 8839 section 5.1, in a session description (``a=candidate:...``) and
trickled (``candidate:...``, W3C webrtc-pc section 4.8.1).  A candidate that cannot be read, or that gets no
other address, is left out: one that stayed would be a way around.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = [
    "Address",
    "IceCandidateLine",
    "IceCredentials",
    "Place",
    "credentials_in",
    "parse_candidate",
    "substitute_candidate",
    "substitute_description",
]

Address: TypeAlias = tuple[str, int]

_CANDIDATE: Final = re.compile(
    r"candidate:(\S{1,64}) (\d{1,5}) (\S{1,8}) (\d{1,10}) (\S{1,255}) (\d{1,5}) typ (\S{1,16})"
    r"(?: raddr (\S{1,255}) rport (\d{1,5}))?((?: \S{1,255})*)",
    re.ASCII,
)
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_CREDENTIAL: Final = re.compile(r"a=ice-(ufrag|pwd):(\S{1,256})", re.ASCII)
_MEDIA: Final = re.compile(r"m=(\S+) (\d{1,5})(/\d+)? (.*)")
_CONNECTION: Final = re.compile(r"c=IN (IP4|IP6) (\S+)(.*)")
_RTCP: Final = re.compile(r"a=rtcp:\d+( IN IP[46] \S+)?")

# What a description says as long as it names no address (RFC 8840 section 4.1.1).
_NO_PORT: Final = 9
_NO_ADDRESS: Final = {"IP4": "0.0.0.0", "IP6": "::"}


@dataclass(frozen=True)
class IceCandidateLine:
    """One candidate, as signaled."""

    foundation: str
    component: int
    transport: str
    priority: int
    address: Address
    """Host, which may be a name as in mDNS (``.local``), and port."""
    type: str
    related: Address | None
    """What it was derived from (``raddr``, ``rport``)."""
    extensions: str
    """The rest of the line, with the space before it."""

    @property
    def is_udp(self) -> bool:
        """Whether it is for UDP."""
        return self.transport.lower() == "udp"

    @property
    def is_hidden(self) -> bool:
        """Whether its host is a name that only the owner's machine can resolve (mDNS)."""
        return self.address[0].lower().endswith(".local")

    def __str__(self) -> str:
        related = "" if self.related is None else f" raddr {self.related[0]} rport {self.related[1]}"
        return (
            f"candidate:{self.foundation} {self.component} {self.transport} {self.priority} "
            f"{self.address[0]} {self.address[1]} typ {self.type}{related}{self.extensions}"
        )


Place: TypeAlias = Callable[[IceCandidateLine], "tuple[Address, Address | None] | None"]
"""Returns the address to put in a candidate's place, and the related one; None: leave the candidate out."""


@dataclass(frozen=True)
class IceCredentials:
    """With these a peer lets itself be checked (RFC 8839 section 5.4)."""

    ufrag: str
    pwd: str


def parse_candidate(text: str) -> IceCandidateLine | None:
    """Read a candidate without its ``a=``; None if it is none."""
    match = _CANDIDATE.fullmatch(text.strip())
    if match is None or int(match[6]) > 0xFFFF or int(match[9] or 0) > 0xFFFF:
        return None
    return IceCandidateLine(
        foundation=match[1],
        component=int(match[2]),
        transport=match[3],
        priority=int(match[4]),
        address=(match[5], int(match[6])),
        type=match[7],
        related=None if match[8] is None else (match[8], int(match[9])),
        extensions=match[10],
    )


def substitute_candidate(text: str, place: Place) -> str | None:
    """Return a candidate (without ``a=``) with its address replaced; None: leave it out."""
    candidate = parse_candidate(text)
    placed = None if candidate is None else place(candidate)
    if candidate is None or placed is None:
        return None
    address, related = placed
    return str(
        IceCandidateLine(
            candidate.foundation,
            candidate.component,
            candidate.transport,
            candidate.priority,
            address,
            candidate.type,
            related,
            candidate.extensions,
        )
    )


def substitute_description(sdp: str, place: Place) -> str:
    """Return a session description with the addresses of all its candidates replaced.

    The addresses that stand for a media section as a whole (``m=``, ``c=``, ``a=rtcp``) are blanked: an ICE
    agent does not need them, and what is not ICE would go around the replacement.
    """
    lines: list[str] = []
    for line in _LINE_END.split(sdp):
        if line.startswith("a=candidate:"):
            replaced = substitute_candidate(line[2:], place)
            if replaced is not None:
                lines.append(f"a={replaced}")
        elif not line.startswith("a=remote-candidates:"):
            lines.append(_blanked(line))
    return "\r\n".join(lines)


def credentials_in(sdp: str) -> tuple[IceCredentials, ...]:
    """Return the ICE credentials of a session description, each pair once."""
    found: dict[IceCredentials, None] = {}
    session: dict[str, str] = {}
    section = session
    for line in [*_LINE_END.split(sdp), "m="]:
        if line.startswith("m="):
            # What a section leaves out it has from the session (RFC 8839 section 5.4).
            values = {**session, **section}
            if len(values) == 2:
                found[IceCredentials(**values)] = None
            section = {}
        elif match := _CREDENTIAL.fullmatch(line):
            section[match[1]] = match[2]
    return tuple(found)


def _blanked(line: str) -> str:
    if match := _MEDIA.fullmatch(line):
        # Port 0 means that the section is rejected or bundle-only: that has to stay.
        port = match[2] if int(match[2]) == 0 else str(_NO_PORT)
        return f"m={match[1]} {port}{match[3] or ''} {match[4]}"
    if match := _CONNECTION.fullmatch(line):
        return f"c=IN {match[1]} {_NO_ADDRESS[match[1]]}{match[3]}"
    if _RTCP.fullmatch(line):
        return f"a=rtcp:{_NO_PORT} IN IP4 {_NO_ADDRESS['IP4']}"
    return line
