"""Making offers and answers from the state of a JSEP agent (RFC 9429 sections 5.2 and 5.3)."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from calllab.rtc.codecs import CODECS, HEADER_EXTENSIONS, Numbering, common_codecs, prefer
from calllab.rtc.errors import InvalidStateError
from calllab.rtc.jsep_state import (
    DATA,
    Applied,
    JsepState,
    Line,
    Negotiated,
    Proposal,
    SessionState,
    TransceiverState,
)
from calllab.rtc.parameters import (
    Direction,
    Fingerprint,
    HeaderExtension,
    IceCredentials,
    RtpCodec,
    SdpType,
    intersect,
    reverse,
    sends,
)
from calllab.rtc.sdp import Group, MediaSection, Msid, Origin, Session, Setup, SsrcAttribute

__all__ = [
    "MAX_MESSAGE_SIZE",
    "LocalIdentity",
    "describe_answer",
    "describe_offer",
    "new_ice_credentials",
    "render",
]

MAX_MESSAGE_SIZE: Final = 262144
"""As browsers say; aiortc's receive window holds four of them."""
_SCTP_PORT: Final = 5000
_ICE_CHARACTERS: Final = string.ascii_letters + string.digits + "+/"


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """What every description of one agent says of it."""

    cname: str
    fingerprints: tuple[Fingerprint, ...]


@dataclass(slots=True)
class _Writer:
    """Builds the sections of one description, which all share one transport."""

    identity: LocalIdentity
    ice: IceCredentials
    setup: Setup
    media: list[MediaSection] = field(default_factory=list)

    def rtp(
        self,
        transceiver: TransceiverState,
        mid: str,
        direction: Direction,
        codecs: tuple[RtpCodec, ...],
        extensions: tuple[HeaderExtension, ...],
        *,
        protocol: str = "UDP/TLS/RTP/SAVPF",
        reduced_size: bool = True,
    ) -> None:
        """Add the section of a transceiver."""
        section = MediaSection(
            kind=transceiver.kind,
            port=9,
            protocol=protocol,
            formats=tuple(str(codec.payload_type) for codec in codecs),
            mid=mid,
            direction=direction,
            codecs=codecs,
            header_extensions=extensions,
            rtcp_mux=True,
            rtcp_rsize=reduced_size,
        )
        # By transceiver.direction, not by what the peer leaves of it (RFC 9429 section 5.3.1): else the
        # check of webrtc-pc 4.7.3 would miss the msid after each answer, and both peers would negotiate for
        # ever.
        if sends(transceiver.direction):
            section = self._with_source(section, transceiver)
        self._add(section)

    def data(self, mid: str, protocol: str = "UDP/DTLS/SCTP") -> None:
        """Add the section of the data channels."""
        self._add(
            MediaSection(
                kind="application",
                port=9,
                protocol=protocol,
                formats=("webrtc-datachannel",),
                mid=mid,
                sctp_port=_SCTP_PORT,
                max_message_size=MAX_MESSAGE_SIZE,
            )
        )

    def rejected(self, kind: str, mid: str, like: MediaSection | None = None) -> None:
        """Add a section with port zero, in the form of the offer's if it answers one."""
        if like is not None:
            protocol, formats = like.protocol, like.formats
        elif kind == "application":
            protocol, formats = "UDP/DTLS/SCTP", ("webrtc-datachannel",)
        else:
            protocol, formats = "UDP/TLS/RTP/SAVPF", ("0",)
        self.media.append(MediaSection(kind, 0, protocol, formats, mid=mid, direction="inactive"))

    def session(self, state: JsepState) -> Session:
        """Return the description with all sections added so far."""
        live = tuple(section.mid for section in self.media if not section.rejected)
        return Session(
            origin=Origin(state.session_id, state.version),
            media=tuple(self.media),
            groups=(Group("BUNDLE", live),) if live else (),
            msid_semantics=(Group("WMS", ("*",)),),
            extmap_allow_mixed=False,
        )

    def _add(self, section: MediaSection) -> None:
        self.media.append(
            replace(
                section,
                ice=self.ice,
                ice_options=("trickle",),
                fingerprints=self.identity.fingerprints,
                setup=self.setup,
            )
        )

    def _with_source(self, section: MediaSection, transceiver: TransceiverState) -> MediaSection:
        # aiortc routes by SSRC only, so sources are always announced; browsers need no more than the MID.
        sources = [SsrcAttribute(transceiver.ssrc, self.identity.cname)]
        groups: tuple[Group, ...] = ()
        if any(codec.is_rtx for codec in section.codecs):
            sources.append(SsrcAttribute(transceiver.rtx_ssrc, self.identity.cname))
            groups = (Group("FID", (str(transceiver.ssrc), str(transceiver.rtx_ssrc))),)
        return replace(
            section,
            msids=tuple(Msid(stream, transceiver.track_id) for stream in transceiver.stream_ids or ("-",)),
            ssrcs=tuple(sources),
            ssrc_groups=groups,
        )


def new_ice_credentials(entropy: random.Random) -> IceCredentials:
    """Draw credentials for a new ICE generation: more than the 24 and 128 bits that RFC 8445 section 5.3
    asks.
    """
    return IceCredentials(
        "".join(entropy.choices(_ICE_CHARACTERS, k=8)),
        "".join(entropy.choices(_ICE_CHARACTERS, k=24)),
    )


def describe_offer(
    state: JsepState, identity: LocalIdentity, entropy: random.Random, ice_restart: bool
) -> Proposal:
    """Make an offer (RFC 9429 section 5.2); raises InvalidStateError while a remote offer is pending."""
    if state.signaling not in ("stable", "have-local-offer"):
        raise InvalidStateError(
            f"createOffer() in signaling state {state.signaling}: answer the offer, or roll it back"
        )
    # An offer made while one is pending replaces it, so both start from what was stable.
    base = state.stable.session if state.stable is not None else state.session
    ice = state.session.local_ice
    if ice is None or ice_restart or ice in state.ice_to_replace | state.ice_outdated:
        ice = new_ice_credentials(entropy)
    lines, mids = _allot_lines(state, base.lines, base.mids)
    writer = _Writer(identity, ice, "actpass")
    numbering = base.numbering
    negotiated: list[tuple[int, Negotiated]] = []
    for index, line in enumerate(lines):
        transceiver = state.transceiver(line.owner) if isinstance(line.owner, int) else None
        if line.owner == DATA and not line.rejected:
            writer.data(line.mid)
        elif transceiver is not None and not transceiver.stopping:
            before = state.stable.of(transceiver.id) if state.stable is not None else transceiver.negotiated
            before = before or Negotiated()
            codecs = _offered_codecs(transceiver, before, numbering)
            extensions = numbering.number_extensions(HEADER_EXTENSIONS[transceiver.kind])
            numbering = numbering.learn(codecs, extensions)
            writer.rtp(transceiver, line.mid, transceiver.direction, codecs, extensions)
            negotiated.append(
                (
                    transceiver.id,
                    replace(before, mid=line.mid, codecs=codecs, header_extensions=extensions),
                )
            )
        else:
            writer.rejected(line.kind, line.mid)
            lines[index] = replace(line, rejected=True)
    session = replace(base, lines=tuple(lines), mids=mids, numbering=numbering)
    if _needs_transport(lines):
        session = replace(session, local_ice=ice)
    return _proposal(state, "offer", writer, session, negotiated)


def describe_answer(
    state: JsepState, identity: LocalIdentity, entropy: random.Random, type_: SdpType
) -> Proposal:
    """Make an answer (RFC 9429 section 5.3); raises InvalidStateError if there is no remote offer to
    answer.
    """
    if state.signaling not in ("have-remote-offer", "have-local-pranswer"):
        raise InvalidStateError(
            f"createAnswer() in signaling state {state.signaling}: set a remote offer first"
        )
    if state.stable is None or state.pending_remote is None:
        raise AssertionError("a remote offer is pending, so the stable state and the offer are kept")
    old = state.stable.session
    ice = state.session.local_ice
    if state.signaling == "have-remote-offer":
        restarted = old.remote_ice is not None and old.remote_ice != state.session.remote_ice
        if ice is None or restarted:
            ice = new_ice_credentials(entropy)
    if ice is None:
        raise AssertionError("a provisional answer has fixed the ICE credentials")
    dtls_role: Literal["client", "server"] = state.session.dtls_role or "client"
    writer = _Writer(identity, ice, "active" if dtls_role == "client" else "passive")
    negotiated: list[tuple[int, Negotiated]] = []
    lines = list(state.session.lines)
    sections = state.pending_remote.session.media
    for index, (line, offered) in enumerate(zip(state.session.lines, sections, strict=True)):
        transceiver = state.transceiver(line.owner) if isinstance(line.owner, int) else None
        if line.rejected or (line.owner != DATA and (transceiver is None or transceiver.stopped)):
            writer.rejected(line.kind, line.mid, offered)
            lines[index] = replace(line, rejected=True)
        elif transceiver is None:
            writer.data(line.mid, offered.protocol)
        else:
            agreed = transceiver.negotiated
            codecs = prefer(agreed.codecs, transceiver.preferences) or agreed.codecs
            direction = intersect(transceiver.direction, reverse(offered.direction))
            writer.rtp(
                transceiver,
                line.mid,
                direction,
                codecs,
                agreed.header_extensions,
                protocol=offered.protocol,
                reduced_size=offered.rtcp_rsize,
            )
            negotiated.append((transceiver.id, replace(agreed, current_direction=direction, codecs=codecs)))
    session = replace(state.session, lines=tuple(lines))
    if _needs_transport(lines):
        session = replace(session, local_ice=ice, dtls_role=dtls_role)
    return _proposal(state, type_, writer, session, negotiated)


def _needs_transport(lines: Sequence[Line]) -> bool:
    """Whether anything is to be carried: without that there is no ICE to gather for, and no DTLS role to fix.

    The peer cannot learn a role or credentials from a description that has no accepted section.
    """
    return any(not line.rejected for line in lines)


def render(applied: Applied, candidates: tuple[str, ...], complete: bool) -> str:
    """Return the text of a local description with the candidates that are known by now."""
    tagged = applied.tagged
    media = tuple(
        replace(section, candidates=candidates, end_of_candidates=complete) if section is tagged else section
        for section in applied.session.media
    )
    return str(replace(applied.session, media=media))


def _proposal(
    state: JsepState,
    type_: SdpType,
    writer: _Writer,
    session_state: SessionState,
    negotiated: list[tuple[int, Negotiated]],
) -> Proposal:
    ice = session_state.local_ice
    ufrag = ice.ufrag if ice is not None else None
    applied = Applied(type_, writer.session(state), ufrag)
    known = next((entry for entry in state.local_candidates if entry.ufrag == ufrag), None)
    text = render(applied, known.candidates if known else (), known is not None and known.complete)
    return Proposal(text, applied, session_state, tuple(negotiated), state.basis())


def _allot_lines(
    state: JsepState, lines: tuple[Line, ...], mids: frozenset[str]
) -> tuple[list[Line], frozenset[str]]:
    """Give each transceiver an m-line: its own, else a rejected one (RFC 9429 section 5.2.2), else a new
    one.
    """
    allotted = list(lines)
    used = set(mids)

    def place(kind: str, owner: int | Literal["data"]) -> None:
        mid = next(name for name in map(str, range(len(used) + 1)) if name not in used)
        used.add(mid)
        line = Line(kind, mid, owner)
        for index, old in enumerate(allotted):
            if old.rejected and old.owner is None:
                allotted[index] = line
                return
        allotted.append(line)

    owned = {line.owner for line in lines}
    for transceiver in state.transceivers:
        if transceiver.id not in owned and not transceiver.stopping:
            place(transceiver.kind, transceiver.id)
    if state.wants_data and not any(line.owner == DATA and not line.rejected for line in allotted):
        place("application", DATA)
    return allotted, frozenset(used)


def _offered_codecs(
    transceiver: TransceiverState, before: Negotiated, numbering: Numbering
) -> tuple[RtpCodec, ...]:
    ours = numbering.number_codecs(CODECS[transceiver.kind])
    if transceiver.preferences is not None:
        return prefer(ours, transceiver.preferences)
    # What is agreed on keeps its place, so that nobody changes codecs without need (RFC 9429 section 5.2.2).
    agreed = common_codecs(ours, before.codecs) if before.mid is not None else ()
    numbers = {codec.payload_type for codec in agreed}
    return (*agreed, *(codec for codec in ours if codec.payload_type not in numbers))
