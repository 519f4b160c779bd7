"""Taking in what the peer describes (RFC 9429 sections 5.10 and 5.11)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal, cast

from calllab.rtc.codecs import (
    CODECS,
    HEADER_EXTENSIONS,
    common_codecs,
    common_extensions,
    prefer,
)
from calllab.rtc.errors import InvalidAccessError
from calllab.rtc.jsep_state import (
    DATA,
    Applied,
    IceCandidates,
    Line,
    Negotiated,
    SessionState,
    TransceiverState,
)
from calllab.rtc.jsep_transaction import Transaction
from calllab.rtc.jsep_verify import can_be_used, is_bundled, verify, verify_answer, verify_role
from calllab.rtc.parameters import Kind, RtpCodec, SdpType, intersect, receives, reverse, sends
from calllab.rtc.sdp import MediaSection, Session

__all__ = ["apply_remote_answer", "apply_remote_offer", "with_candidates", "with_mids"]


def with_mids(session: Session) -> Session:
    """Give a mid to each section that has none (peers older than BUNDLE)."""
    used = {section.mid for section in session.media if section.mid}
    media: list[MediaSection] = []
    for index, section in enumerate(session.media):
        if not section.mid:
            names = (str(number) for number in range(index, index + len(session.media) + len(used) + 1))
            section = replace(section, mid=next(name for name in names if name not in used))
            used.add(section.mid)
        media.append(section)
    return replace(session, media=tuple(media))


def with_candidates(applied: Applied, text: str, known: IceCandidates) -> str:
    """Return the peer's text with the candidates that came after it (webrtc-pc 4.4.2, addIceCandidate)."""
    tagged = applied.tagged
    if tagged is None:
        return text
    late = [f"a={candidate}" for candidate in known.candidates if candidate not in tagged.candidates]
    # Of a peer that cannot trickle we know that there is no more, but it never said so.
    if known.complete and not tagged.end_of_candidates and "trickle" in tagged.ice_options:
        late.append("a=end-of-candidates")
    if not late:
        return text
    parts = re.split(r"(?m)^(?=m=)", text)  # the session, and then one part a section
    index = 1 + applied.session.media.index(tagged)
    separator = "" if parts[index].endswith("\n") else "\r\n"
    parts[index] += separator + "".join(f"{line}\r\n" for line in late)
    return "".join(parts)


def apply_remote_offer(tx: Transaction, session: Session, text: str) -> None:
    """Make the session follow a remote offer; raises InvalidAccessError if it does not fit."""
    session = with_mids(session)
    applied = Applied("offer", session, None, text)
    tagged = applied.tagged
    stable_lines = tx.state.stable.session.lines if tx.state.stable is not None else tx.state.session.lines
    if len(session.media) < len(stable_lines):
        raise InvalidAccessError(
            f"the offer has {len(session.media)} m-lines, but the session has {len(stable_lines)}: "
            "m-lines are never dropped, only rejected"
        )
    verify(applied)
    tx.remember_stable()
    before = tx.state.session
    lines: list[Line] = []
    for index, section in enumerate(session.media):
        previous = before.lines[index] if index < len(before.lines) else None
        lines.append(_offered_line(tx, session, section, previous, tagged, lines))
    _release_unmentioned(tx, lines)
    state = tx.state.session
    numbering = state.numbering
    for section in session.media:
        if not section.rejected:
            numbering = numbering.learn(section.codecs, section.header_extensions)
    mids = state.mids | {section.mid for section in session.media}
    state = replace(state, lines=tuple(lines), numbering=numbering, mids=mids)
    if tagged is not None and any(not line.rejected for line in lines):
        if tx.state.stable is not None:  # an earlier version of this offer binds nobody
            agreed = tx.state.stable.session
            state = replace(state, dtls_role=agreed.dtls_role, remote_fingerprints=agreed.remote_fingerprints)
        state = _with_transport(state, session, tagged, answer=False)
        tx.learn_candidates(tagged)
        applied = replace(applied, ufrag=tagged.ice.ufrag if tagged.ice is not None else None)
    tx.state = replace(
        tx.state,
        signaling="have-remote-offer",
        session=_with_sctp(state, session),
        pending_remote=applied,
        created_answer=None,
    )


def apply_remote_answer(tx: Transaction, session: Session, text: str, type_: SdpType) -> None:
    """Make the session follow a remote answer, provisional or final; raises InvalidAccessError if it does
    not fit.
    """
    lines_before = tx.state.session.lines
    if len(session.media) == len(lines_before):
        session = replace(
            session,
            media=tuple(
                section if section.mid else replace(section, mid=line.mid)
                for section, line in zip(session.media, lines_before, strict=True)
            ),
        )
    offer = tx.state.pending_local
    if offer is None:
        raise AssertionError("an answer is only taken while an offer of ours is pending")
    verify_answer(session, offer.session)
    applied = Applied(type_, session, None, text)
    verify(applied)
    tagged = applied.tagged
    state = tx.state.session
    numbering = state.numbering
    lines: list[Line] = []
    for section, line in zip(session.media, lines_before, strict=True):
        rejected = section.rejected or line.rejected
        lines.append(replace(line, rejected=rejected))
        transceiver = tx.state.transceiver(line.owner) if isinstance(line.owner, int) else None
        if rejected:
            if transceiver is not None:
                tx.stop(transceiver)
            continue
        if not is_bundled(session, section, tagged):
            raise InvalidAccessError(
                f"section {section.mid!r} of the answer is outside of the BUNDLE group, the only transport"
            )
        if transceiver is not None and not transceiver.stopped:
            numbering = numbering.learn(section.codecs, section.header_extensions)
            _answered_transceiver(tx, transceiver, section)
    state = replace(state, lines=tuple(lines), numbering=numbering)
    if tagged is not None and any(not line.rejected for line in lines):
        state = _with_transport(state, session, tagged, answer=True)
        _refuse_unasked_restart(tx, state)
        tx.learn_candidates(tagged)
        applied = replace(applied, ufrag=tagged.ice.ufrag if tagged.ice is not None else None)
    state = _with_sctp(state, session)
    tx.state = replace(tx.state, session=state)
    if type_ == "pranswer":
        tx.state = replace(tx.state, signaling="have-remote-pranswer", pending_remote=applied)
        tx.start()
        return
    tx.conclude(current_local=offer, current_remote=applied)


def _offered_line(
    tx: Transaction,
    session: Session,
    section: MediaSection,
    previous: Line | None,
    tagged: MediaSection | None,
    lines: list[Line],
) -> Line:
    """Find or make what one offered section belongs to."""
    if previous is not None and previous.owner is not None and not previous.rejected:
        _refuse_other_use(previous, section)
    usable = not section.rejected and is_bundled(session, section, tagged) and can_be_used(section)
    if section.is_data:
        is_sctp = "webrtc-datachannel" in section.formats or section.sctp_port is not None
        double = any(line.owner == DATA and not line.rejected for line in lines)
        return Line(section.kind, section.mid, DATA, not usable or not is_sctp or double)
    transceiver: TransceiverState | None = None
    if previous is not None and isinstance(previous.owner, int) and previous.mid == section.mid:
        transceiver = tx.state.transceiver(previous.owner)
    if section.rejected:
        if transceiver is not None:
            tx.stop(transceiver)
        return Line(section.kind, section.mid, transceiver.id if transceiver else None, True)
    if transceiver is not None and transceiver.stopped:
        return Line(section.kind, section.mid, transceiver.id, True)
    if not usable:
        return Line(section.kind, section.mid, transceiver.id if transceiver else None, True)
    kind = cast("Kind", section.kind)
    if transceiver is None:
        transceiver = _unassociated(tx, kind, section, lines)
    if transceiver is None:
        transceiver = tx.create_remote_transceiver(kind, section.track_id)
    codecs = _acceptable(transceiver, section)
    transceiver = replace(
        transceiver,
        negotiated=replace(
            transceiver.negotiated,
            mid=section.mid,
            codecs=codecs,
            header_extensions=common_extensions(HEADER_EXTENSIONS[kind], section.header_extensions),
        ),
    )
    tx.put(transceiver)
    if codecs:
        tx.receive_track(transceiver, reverse(section.direction), section)
    return Line(section.kind, section.mid, transceiver.id, not codecs)


def _refuse_other_use(line: Line, section: MediaSection) -> None:
    if (line.kind, line.mid) != (section.kind, section.mid):
        raise InvalidAccessError(
            f"the offer turns m-line {line.kind}:{line.mid} into {section.kind}:{section.mid}, "
            "but that m-line is in use"
        )


def _unassociated(
    tx: Transaction, kind: Kind, section: MediaSection, lines: list[Line]
) -> TransceiverState | None:
    """Find the transceiver of addTrack() that a new section may take (RFC 9429 section 5.10)."""
    if not receives(section.direction):
        return None
    taken = {line.owner for line in lines}
    return next(
        (
            transceiver
            for transceiver in tx.state.transceivers
            if transceiver.kind == kind
            and transceiver.made_by_add_track
            and transceiver.mid is None
            and not transceiver.stopping
            and transceiver.id not in taken
        ),
        None,
    )


def _acceptable(transceiver: TransceiverState, section: MediaSection) -> tuple[RtpCodec, ...]:
    """Return the codecs of a section that this transceiver can use, in the peer's order."""
    return common_codecs(prefer(CODECS[transceiver.kind], transceiver.preferences), section.codecs)


def _answered_transceiver(tx: Transaction, transceiver: TransceiverState, section: MediaSection) -> None:
    codecs = common_codecs(transceiver.negotiated.codecs, section.codecs)
    if not codecs:
        raise InvalidAccessError(
            f"section {section.mid!r} of the answer accepts none of the codecs that were offered"
        )
    # RFC 3264 section 6.1: an answer can only take away from what was offered.  One that adds to it gets no
    # media that the application does not want to send.
    offered = tx.state.pending_local.session.section(section.mid) if tx.state.pending_local else None
    direction = intersect(reverse(section.direction), offered.direction if offered else "inactive")
    transceiver = tx.receive_track(transceiver, direction, section)
    tx.put(
        replace(
            transceiver,
            has_sent=transceiver.has_sent or sends(direction),
            negotiated=replace(
                transceiver.negotiated,
                current_direction=direction,
                codecs=codecs,
                header_extensions=common_extensions(
                    transceiver.negotiated.header_extensions, section.header_extensions
                ),
            ),
        )
    )


def _release_unmentioned(tx: Transaction, lines: list[Line]) -> None:
    """Let go of what an earlier version of the pending offer had, and this one has not."""
    stable = tx.state.stable
    owners = {line.owner for line in lines}
    for transceiver in tx.state.transceivers:
        if transceiver.mid is None or transceiver.id in owners or transceiver.stopped:
            continue
        before = stable.of(transceiver.id) if stable is not None else None
        if before is None and transceiver.by_remote and not transceiver.by_add_track:
            tx.remove(transceiver)
        else:
            tx.restore(transceiver, before or Negotiated())


def _with_transport(
    state: SessionState, session: Session, tagged: MediaSection, *, answer: bool
) -> SessionState:
    """Take over the transport parameters of the section that carries the bundle."""
    if tagged.ice is None or not tagged.fingerprints:
        missing = "ICE credentials" if tagged.ice is None else "a DTLS fingerprint"
        raise InvalidAccessError(f"section {tagged.mid!r} has no {missing}")
    role: Literal["client", "server"] | None = state.dtls_role
    if answer and tagged.setup not in ("active", "passive"):
        raise InvalidAccessError(
            f"an answer says a=setup:active or passive, not {tagged.setup} (RFC 8842 section 5.3)"
        )
    if role is not None:
        verify_role(tagged, role)
    elif tagged.setup in ("active", "passive"):
        role = "server" if tagged.setup == "active" else "client"
    known = state.remote_fingerprints
    if known and not set(known) & set(tagged.fingerprints):
        raise InvalidAccessError(
            "the peer's DTLS fingerprint changed, but a DTLS session cannot be replaced by another one: "
            "make a new RTCPeerConnection"
        )
    return replace(
        state,
        remote_ice=tagged.ice,
        remote_ice_lite=session.ice_lite,
        remote_fingerprints=tagged.fingerprints,
        dtls_role=role,
    )


def _refuse_unasked_restart(tx: Transaction, state: SessionState) -> None:
    stable = tx.state.stable.session if tx.state.stable is not None else None
    if stable is None or stable.remote_ice is None or stable.local_ice != state.local_ice:
        return
    if stable.remote_ice != state.remote_ice:
        raise InvalidAccessError(
            "the answer has new ICE credentials, but the offer did not restart ICE (RFC 8839 section 4.4.3)"
        )


def _with_sctp(state: SessionState, session: Session) -> SessionState:
    for section, line in zip(session.media, state.lines, strict=True):
        if line.owner == DATA and not line.rejected:
            # RFC 8841 sections 5.1 and 6.1: without the attributes, the port is 5000 and the limit 64 KiB.
            return replace(
                state,
                sctp_port=section.sctp_port or 5000,
                remote_max_message_size=65536
                if section.max_message_size is None
                else section.max_message_size,
            )
    return state
