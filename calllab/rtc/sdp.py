"""Session descriptions as frozen objects, and their text (RFC 8866, RFC 9429).

:func:`~calllab.rtc.sdp_parser.parse_session` reads what browsers and aiortc write; ``str(session)`` writes
it back.  Attributes that may stand at session level for all sections (ICE credentials, fingerprints, setup)
are given to each section, so that a reader looks in one place.  What is not understood is dropped, as RFC
8866 section 5 asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from calllab.rtc.parameters import (
    Direction,
    Fingerprint,
    HeaderExtension,
    IceCredentials,
    RtpCodec,
    StreamEncoding,
)

__all__ = ["Group", "MediaSection", "Msid", "Origin", "Session", "Setup", "SsrcAttribute"]

Setup: TypeAlias = Literal["actpass", "active", "passive"]


@dataclass(frozen=True, slots=True)
class Origin:
    """The ``o=`` line: who made the session, and which version of it this is."""

    session_id: int
    version: int
    username: str = "-"
    address: str = "IN IP4 127.0.0.1"


@dataclass(frozen=True, slots=True)
class Group:
    """Things that belong together: ``a=group`` of mids, ``a=ssrc-group`` of SSRCs, ``a=msid-semantic``."""

    semantics: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Msid:
    """One ``a=msid``: the MediaStream and the track of a section (RFC 8830); stream ``-`` is none."""

    stream: str
    track: str = ""


@dataclass(frozen=True, slots=True)
class SsrcAttribute:
    """The source attributes of one SSRC (RFC 5576)."""

    ssrc: int
    cname: str | None = None
    msid: str | None = None


@dataclass(frozen=True, slots=True)
class MediaSection:
    """One ``m=`` section."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    mid: str = ""
    direction: Direction = "sendrecv"
    ice: IceCredentials | None = None
    ice_options: tuple[str, ...] = ()
    fingerprints: tuple[Fingerprint, ...] = ()
    setup: Setup | None = None
    codecs: tuple[RtpCodec, ...] = ()
    header_extensions: tuple[HeaderExtension, ...] = ()
    msids: tuple[Msid, ...] = ()
    ssrcs: tuple[SsrcAttribute, ...] = ()
    ssrc_groups: tuple[Group, ...] = ()
    bundle_only: bool = False
    rtcp_mux: bool = False
    rtcp_rsize: bool = False
    sctp_port: int | None = None
    max_message_size: int | None = None
    candidates: tuple[str, ...] = ()
    """The candidates as they stand after ``a=``: ``candidate:...``."""
    end_of_candidates: bool = False

    @property
    def rejected(self) -> bool:
        """Whether the section is refused: port zero, unless it is only waiting for its bundle."""
        return self.port == 0 and not self.bundle_only

    @property
    def is_data(self) -> bool:
        """Whether this section carries data channels."""
        return self.kind == "application"

    @property
    def has_msid(self) -> bool:
        """Whether the section says anything of the streams and the id of the track."""
        return bool(self.msids) or any(ssrc.msid for ssrc in self.ssrcs)

    @property
    def stream_ids(self) -> tuple[str, ...]:
        """The ids of the MediaStreams to which the track belongs."""
        found = [msid.stream for msid in self.msids]
        if not found:
            found = [ssrc.msid.split(" ")[0] for ssrc in self.ssrcs if ssrc.msid]
        return tuple(dict.fromkeys(stream for stream in found if stream and stream != "-"))

    @property
    def track_id(self) -> str | None:
        """The id of the track, if the section names one."""
        for msid in self.msids:
            if msid.track:
                return msid.track
        for ssrc in self.ssrcs:
            if ssrc.msid and " " in ssrc.msid:
                return ssrc.msid.split(" ")[1]
        return None

    @property
    def encodings(self) -> tuple[StreamEncoding, ...]:
        """The media SSRCs, each with that of its retransmissions."""
        pairs = {
            int(group.items[0]): int(group.items[1])
            for group in self.ssrc_groups
            if group.semantics == "FID" and len(group.items) == 2
        }
        repairs = set(pairs.values())
        return tuple(
            StreamEncoding(source.ssrc, pairs.get(source.ssrc))
            for source in self.ssrcs
            if source.ssrc not in repairs
        )

    @property
    def cname(self) -> str | None:
        """The canonical name of the sender, if the section tells it."""
        return next((source.cname for source in self.ssrcs if source.cname), None)

    def __str__(self) -> str:
        return "".join(f"{line}\r\n" for line in _media_lines(self))


@dataclass(frozen=True, slots=True)
class Session:
    """A session description."""

    origin: Origin
    media: tuple[MediaSection, ...] = ()
    groups: tuple[Group, ...] = ()
    msid_semantics: tuple[Group, ...] = ()
    extmap_allow_mixed: bool = False
    ice_lite: bool = False

    @property
    def bundle(self) -> tuple[str, ...] | None:
        """The mids of the BUNDLE group, None if there is no such group."""
        return next((group.items for group in self.groups if group.semantics == "BUNDLE"), None)

    def section(self, mid: str | None) -> MediaSection | None:
        """Return the section with this mid, None if there is none."""
        if mid is None:
            return None
        return next((section for section in self.media if section.mid == mid), None)

    def __str__(self) -> str:
        return "".join(f"{line}\r\n" for line in _session_lines(self)) + "".join(map(str, self.media))


def _session_lines(session: Session) -> Iterator[str]:
    origin = session.origin
    yield "v=0"
    yield f"o={origin.username} {origin.session_id} {origin.version} {origin.address}"
    yield "s=-"
    yield "t=0 0"
    if session.ice_lite:
        yield "a=ice-lite"
    for group in session.groups:
        yield " ".join((f"a=group:{group.semantics}", *group.items))
    if session.extmap_allow_mixed:
        yield "a=extmap-allow-mixed"
    for group in session.msid_semantics:
        yield " ".join((f"a=msid-semantic:{group.semantics}", *group.items))


def _media_lines(section: MediaSection) -> Iterator[str]:
    yield f"m={section.kind} {section.port} {section.protocol} {' '.join(section.formats)}"
    yield "c=IN IP4 0.0.0.0"
    if section.codecs:
        yield "a=rtcp:9 IN IP4 0.0.0.0"
    for candidate in section.candidates:
        yield f"a={candidate}"
    if section.end_of_candidates:
        yield "a=end-of-candidates"
    if section.ice is not None:
        yield f"a=ice-ufrag:{section.ice.ufrag}"
        yield f"a=ice-pwd:{section.ice.pwd}"
    if section.ice_options:
        yield f"a=ice-options:{' '.join(section.ice_options)}"
    for fingerprint in section.fingerprints:
        yield f"a=fingerprint:{fingerprint.algorithm} {fingerprint.value}"
    if section.setup is not None:
        yield f"a=setup:{section.setup}"
    if section.mid:
        yield f"a=mid:{section.mid}"
    if section.bundle_only:
        yield "a=bundle-only"
    for extension in section.header_extensions:
        yield f"a=extmap:{extension.id} {extension.uri}"
    if not section.is_data:
        yield f"a={section.direction}"
    for msid in section.msids:
        yield f"a=msid:{msid.stream} {msid.track}".rstrip(" ")
    if section.rtcp_mux:
        yield "a=rtcp-mux"
    if section.rtcp_rsize:
        yield "a=rtcp-rsize"
    for codec in section.codecs:
        yield from _codec_lines(codec)
    for group in section.ssrc_groups:
        yield " ".join((f"a=ssrc-group:{group.semantics}", *group.items))
    for source in section.ssrcs:
        if source.cname is not None:
            yield f"a=ssrc:{source.ssrc} cname:{source.cname}"
        if source.msid is not None:
            yield f"a=ssrc:{source.ssrc} msid:{source.msid}"
        if source.cname is None and source.msid is None:
            yield f"a=ssrc:{source.ssrc}"
    if section.sctp_port is not None:
        yield f"a=sctp-port:{section.sctp_port}"
    if section.max_message_size is not None:
        yield f"a=max-message-size:{section.max_message_size}"


def _codec_lines(codec: RtpCodec) -> Iterator[str]:
    channels = f"/{codec.channels}" if codec.channels is not None and codec.channels != 1 else ""
    yield f"a=rtpmap:{codec.payload_type} {codec.name}/{codec.clock_rate}{channels}"
    for feedback in codec.feedback:
        yield f"a=rtcp-fb:{codec.payload_type} {feedback.type} {feedback.parameter}".rstrip(" ")
    if codec.parameters:
        yield f"a=fmtp:{codec.payload_type} {codec.fmtp}"
