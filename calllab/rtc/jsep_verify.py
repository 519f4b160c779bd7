"""Whether what the peer describes can be right (RFC 9429 section 5.8.3, RFC 9143 sections 9 and 12).

What one line says wrongly is for the parser; here is what sections, the BUNDLE group, the offer and the
session say against each other.  All of it is InvalidAccessError, before anything is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Final, Literal

from calllab.rtc.codecs import identities
from calllab.rtc.errors import InvalidAccessError
from calllab.rtc.jsep_state import Applied
from calllab.rtc.sdp import MediaSection, Session

__all__ = ["can_be_used", "is_bundled", "verify", "verify_answer", "verify_role"]

# RFC 9429 section 5.1.2: many peers write the wrong one of these, and mean DTLS when they have a fingerprint.
_RTP: Final = frozenset(
    {
        "RTP/AVP",
        "RTP/AVPF",
        "RTP/SAVP",
        "RTP/SAVPF",
        "TCP/DTLS/RTP/SAVP",
        "TCP/DTLS/RTP/SAVPF",
        "UDP/TLS/RTP/SAVP",
        "UDP/TLS/RTP/SAVPF",
    }
)
_PROTOCOLS: Final = {
    "audio": _RTP,
    "video": _RTP,
    "application": frozenset({"UDP/DTLS/SCTP", "TCP/DTLS/SCTP", "DTLS/SCTP"}),
}


def can_be_used(section: MediaSection) -> bool:
    """Whether an offered section is of a kind and a protocol that there are here; others are rejected."""
    return section.protocol in _PROTOCOLS.get(section.kind, ())


def is_bundled(session: Session, section: MediaSection, tagged: MediaSection | None) -> bool:
    """Whether a section shares the one transport there is."""
    if section is tagged:
        return True
    return session.bundle is not None and section.mid in session.bundle


def verify(applied: Applied) -> None:
    """Raise InvalidAccessError if the parts of a description contradict each other."""
    session, tagged = applied.session, applied.tagged
    for group in session.groups:
        missing = [mid for mid in group.items if session.section(mid) is None]
        if group.semantics == "BUNDLE" and missing:
            raise InvalidAccessError(f"the BUNDLE group names {missing[0]!r}, but no section has that mid")
    sections = [
        section for section in session.media if not section.rejected and is_bundled(session, section, tagged)
    ]
    for section in sections:
        # What is the same for the whole bundle need stand in the tagged section only (RFC 9143 7.1.3).
        has_mux = section.rtcp_mux or (tagged is not None and tagged.rtcp_mux)
        if section.kind in ("audio", "video") and not has_mux:
            raise InvalidAccessError(f"section {section.mid!r} lacks a=rtcp-mux, which WebRTC requires")
    _one_meaning("payload type", sections, _payload_types)
    _one_meaning("header extension id", sections, _extension_ids)


def verify_answer(answer: Session, offer: Session) -> None:
    """Raise InvalidAccessError if the sections of an answer are not those of our offer."""
    answered = [(section.kind, section.mid) for section in answer.media]
    offered = [(section.kind, section.mid) for section in offer.media]
    if answered != offered:
        raise InvalidAccessError(
            f"the m-lines of the answer, {_names(answered)}, are not those of the offer, {_names(offered)}"
        )
    for section, asked in zip(answer.media, offer.media, strict=True):
        if section.protocol != asked.protocol:
            raise InvalidAccessError(
                f"section {section.mid!r} of the answer is {section.protocol}, "
                f"but {asked.protocol} was offered: an answer has the protocol of its offer"
            )


def verify_role(tagged: MediaSection, ours: Literal["client", "server"]) -> None:
    """Raise InvalidAccessError if a section asks for another DTLS role than the session has."""
    fitting = "passive" if ours == "client" else "active"
    if tagged.setup in ("active", "passive") and tagged.setup != fitting:
        raise InvalidAccessError(
            f"section {tagged.mid!r} says a=setup:{tagged.setup}, but the peer is {fitting} "
            "in the DTLS session that goes on (RFC 8842 section 5.5)"
        )


def _names(lines: Sequence[tuple[str, str]]) -> str:
    return "[" + " ".join(f"{kind}:{mid}" for kind, mid in lines) + "]"


def _payload_types(section: MediaSection) -> Iterator[tuple[int, Hashable, str]]:
    for identity, codec in identities(section.codecs):
        yield codec.payload_type, identity, codec.mime_type


def _extension_ids(section: MediaSection) -> Iterator[tuple[int, Hashable, str]]:
    for extension in section.header_extensions:
        yield extension.id, extension.uri, extension.uri


def _one_meaning(
    what: str,
    sections: Sequence[MediaSection],
    numbers: Callable[[MediaSection], Iterator[tuple[int, Hashable, str]]],
) -> None:
    """Packets of a bundle are told apart by these numbers, so each means one thing in all its sections."""
    meanings: dict[int, tuple[Hashable, str]] = {}
    for section in sections:
        for number, meaning, name in numbers(section):
            known, known_name = meanings.setdefault(number, (meaning, name))
            if known != meaning:
                raise InvalidAccessError(
                    f"{what} {number} is {known_name} and {name} in one BUNDLE group "
                    f"(section {section.mid!r}): a number has one meaning for all of it"
                )
