"""The state of one JSEP agent, as one frozen object.

Theory.  What is negotiated (:class:`Negotiated` of each transceiver, :class:`SessionState` of the whole) is
kept apart from what the application said (direction, tracks, stopping).  A rollback undoes the former and
never the latter, so it is nothing but putting the old objects back; :class:`Stable` holds them while an offer
is pending.  Before an answer nothing has been done in the world but gathering, which can be thrown away.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Final, Literal, TypeAlias

from calllab.rtc.codecs import CodecKey, Numbering
from calllab.rtc.parameters import (
    Direction,
    Fingerprint,
    HeaderExtension,
    IceCredentials,
    Kind,
    RtpCodec,
    SdpType,
    SignalingState,
    StreamEncoding,
)
from calllab.rtc.sdp import MediaSection, Session

__all__ = [
    "DATA",
    "Applied",
    "IceCandidates",
    "JsepState",
    "Line",
    "Negotiated",
    "Proposal",
    "SessionState",
    "Stable",
    "TransceiverState",
    "canonical",
]

DATA: Final = "data"
Owner: TypeAlias = int | Literal["data"] | None


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What a transceiver has agreed on; a rollback puts the old one back."""

    mid: str | None = None
    current_direction: Direction | None = None
    fired_direction: Direction | None = None
    codecs: tuple[RtpCodec, ...] = ()
    header_extensions: tuple[HeaderExtension, ...] = ()
    remote_stream_ids: tuple[str, ...] = ()
    encodings: tuple[StreamEncoding, ...] = ()
    remote_cname: str | None = None


@dataclass(frozen=True, slots=True)
class TransceiverState:
    """One transceiver: what the application wants of it, and what is negotiated."""

    id: int
    kind: Kind
    direction: Direction
    ssrc: int
    rtx_ssrc: int
    track_id: str
    stream_ids: tuple[str, ...] = ()
    has_track: bool = False
    by_add_track: bool = False
    """Whether addTrack() made it or put a track into it: then it outlives the rollback of its offer."""
    made_by_add_track: bool = False
    """Whether addTrack() made it: then a remote offer may take it (RFC 9429 section 5.10)."""
    by_remote: bool = False
    has_sent: bool = False
    """Whether it was ever negotiated to send: then addTrack() must not reuse its sender."""
    stopping: bool = False
    stopped: bool = False
    preferences: tuple[CodecKey, ...] | None = None
    negotiated: Negotiated = Negotiated()

    @property
    def mid(self) -> str | None:
        """The media id, None before it is negotiated."""
        return self.negotiated.mid


@dataclass(frozen=True, slots=True)
class Line:
    """One m-line of the session and who holds it; a rejected one without an owner may be used again."""

    kind: str
    mid: str
    owner: Owner
    rejected: bool = False


@dataclass(frozen=True, slots=True)
class SessionState:
    """What the session has agreed on; a rollback puts the old one back."""

    lines: tuple[Line, ...] = ()
    mids: frozenset[str] = frozenset()
    local_ice: IceCredentials | None = None
    remote_ice: IceCredentials | None = None
    remote_ice_lite: bool = False
    remote_fingerprints: tuple[Fingerprint, ...] = ()
    dtls_role: Literal["client", "server"] | None = None
    numbering: Numbering = field(default_factory=Numbering)
    sctp_port: int | None = None
    remote_max_message_size: int | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """A description that was set: its content, and the peer's own text if it came from there."""

    type: SdpType
    session: Session
    ufrag: str | None
    text: str | None = None

    @property
    def tagged(self) -> MediaSection | None:
        """The section whose transport all others share (RFC 9143): the first that is not rejected."""
        bundle = self.session.bundle
        if bundle and (section := self.session.section(bundle[0])) is not None and not section.rejected:
            return section
        return next((section for section in self.session.media if not section.rejected), None)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A description that was created and not set yet, with all that setting it will do."""

    text: str
    applied: Applied
    session: SessionState
    negotiated: tuple[tuple[int, Negotiated], ...]
    basis: Hashable = field(default=None, compare=False)
    """What it was made from (:meth:`JsepState.basis`); None: it must not be set again without being asked."""


@dataclass(frozen=True, slots=True)
class Stable:
    """What was negotiated when the signaling state was last stable."""

    session: SessionState
    negotiated: tuple[tuple[int, Negotiated], ...]

    def of(self, transceiver: int) -> Negotiated | None:
        """Return what this transceiver had negotiated, None if it did not exist."""
        return next((negotiated for id_, negotiated in self.negotiated if id_ == transceiver), None)


@dataclass(frozen=True, slots=True)
class IceCandidates:
    """The candidates of one generation, ours or the peer's, in the order in which they came."""

    ufrag: str
    candidates: tuple[str, ...] = ()
    complete: bool = False


@dataclass(frozen=True, slots=True)
class JsepState:
    """All that a JSEP agent knows."""

    signaling: SignalingState = "stable"
    transceivers: tuple[TransceiverState, ...] = ()
    session: SessionState = SessionState()
    stable: Stable | None = None
    current_local: Applied | None = None
    pending_local: Applied | None = None
    current_remote: Applied | None = None
    pending_remote: Applied | None = None
    created_offer: Proposal | None = None
    created_answer: Proposal | None = None
    ice_to_replace: frozenset[IceCredentials] = frozenset()
    """W3C [[LocalIceCredentialsToReplace]]: what restartIce() wants gone."""
    ice_outdated: frozenset[IceCredentials] = frozenset()
    """What the next offer replaces because the ICE servers or the policy are others now; nothing asks for
    that offer."""
    default_stream_id: str | None = None
    """The stream of tracks whose streams the peer does not tell."""
    local_candidates: tuple[IceCandidates, ...] = ()
    remote_candidates: tuple[IceCandidates, ...] = ()
    started: tuple[IceCredentials, IceCredentials] | None = None
    wants_data: bool = False
    next_id: int = 0
    session_id: int = 0
    version: int = 1

    def basis(self) -> Hashable:
        """Return all that a description depends on: equal bases make equal descriptions."""
        return (
            self.signaling,
            self.transceivers,
            self.session,
            self.stable,
            self.wants_data,
            self.ice_to_replace,
            self.ice_outdated,
        )

    @property
    def has_data(self) -> bool:
        """Whether an accepted m-line carries data channels."""
        return any(line.owner == DATA and not line.rejected for line in self.session.lines)

    def transceiver(self, id_: int) -> TransceiverState | None:
        """Return the transceiver with this id, None if it is gone."""
        return next((transceiver for transceiver in self.transceivers if transceiver.id == id_), None)

    def with_transceiver(self, transceiver: TransceiverState) -> JsepState:
        """Return this state with one transceiver in place of the one with its id."""
        return replace(
            self,
            transceivers=tuple(transceiver if t.id == transceiver.id else t for t in self.transceivers),
        )


# Random tokens: equal states may differ in them, so a canonical key names them by order of appearance.
_TOKENS: Final = frozenset({"ufrag", "pwd", "ssrc", "rtx_ssrc", "session_id", "cname", "value"})
_NAMES: Final = frozenset(
    {"track", "track_id", "stream", "stream_ids", "remote_stream_ids", "remote_cname", "msid"}
)
# Texts and SSRC groups repeat what stands elsewhere; created descriptions matter only to who sets them by
# text.
_IGNORED: Final = frozenset(
    {"text", "version", "next_id", "created_offer", "created_answer", "ssrc_groups", "default_stream_id"}
)

# What has neither tokens nor ids of transceivers in it is its own canonical form (a header extension's id is
# a number on the wire).
_WIRE_VALUES: Final = (RtpCodec, HeaderExtension, Numbering)


def canonical(state: JsepState, names: dict[object, int] | None = None) -> Hashable:
    """Return ``state`` as a hashable value in which random tokens are numbered by order of appearance.

    Agents with equal keys act alike.  Give the same ``names`` to the keys of both peers of a connection to
    keep the relation between their tokens (that one's remote ufrag is the other's local one).
    """
    names = {} if names is None else names
    order = {transceiver.id: index for index, transceiver in enumerate(state.transceivers)}

    def token(value: object) -> Hashable:
        if isinstance(value, tuple):
            return tuple(token(item) for item in value)
        if value is None or value == "-" or value == "":
            return str(value)
        return names.setdefault(str(value), len(names))

    def walk(value: object, name: str) -> Hashable:
        if name in _TOKENS or name in _NAMES:
            return token(value)
        if name in ("id", "owner") and isinstance(value, int):
            return order.get(value, -1)
        if isinstance(value, _WIRE_VALUES):
            return value
        if is_dataclass(value) and not isinstance(value, type):
            parts = (walk(getattr(value, f.name), f.name) for f in fields(value) if f.name not in _IGNORED)
            return (type(value).__name__, *parts)
        if isinstance(value, tuple):
            if name == "negotiated":  # pairs of a transceiver's id and what it had
                return tuple((order.get(id_, -1), walk(negotiated, "")) for id_, negotiated in value)
            return tuple(walk(item, "") for item in value)
        if isinstance(value, frozenset):
            return frozenset(walk(item, "") for item in value)
        return value if isinstance(value, Hashable) else repr(value)

    return walk(state, "")
