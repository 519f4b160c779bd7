"""What two explored peers send each other: descriptions and candidates, as values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from calllab.negotiation.negotiator import Description

__all__ = ["Candidate", "Message", "MessageKind", "canonical_message", "kind_of"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An ICE candidate on its way (the members of RTCIceCandidateInit)."""

    candidate: str
    sdpMid: str | None
    sdpMLineIndex: int | None
    usernameFragment: str | None

    def init(self) -> dict[str, Any]:
        """Return the RTCIceCandidateInit."""
        return {
            "candidate": self.candidate,
            "sdpMid": self.sdpMid,
            "sdpMLineIndex": self.sdpMLineIndex,
            "usernameFragment": self.usernameFragment,
        }


Message: TypeAlias = Description | Candidate
MessageKind: TypeAlias = Literal["offer", "answer", "candidate"]

_ORIGIN: Final = re.compile(r"^o=.*$", re.MULTILINE)


def canonical_message(message: Message) -> Message:
    """Return a message without what no receiver acts on: the version in the origin line of an SDP.

    It counts the descriptions that were ever created, taken back or not, so equal situations differ in it.
    """
    if isinstance(message, Candidate):
        return message
    return Description(message.type, _ORIGIN.sub("o=-", message.sdp))


def kind_of(message: Message) -> MessageKind:
    """Return what a message is."""
    if isinstance(message, Candidate):
        return "candidate"
    return "offer" if message.type == "offer" else "answer"
