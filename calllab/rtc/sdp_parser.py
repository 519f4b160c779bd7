"""Reading session descriptions that somebody else wrote, friend or foe.

The text is bounded in size and in the number of its parts before anything is built from it, numbers are read
strictly (ASCII digits, in range), and every refusal is an :exc:`~calllab.rtc.errors.SdpError` that names the
line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from calllab.rtc.errors import SdpError
from calllab.rtc.parameters import (
    Direction,
    Fingerprint,
    HeaderExtension,
    IceCredentials,
    RtcpFeedback,
    RtpCodec,
)
from calllab.rtc.sdp import Group, MediaSection, Msid, Origin, Session, Setup, SsrcAttribute

__all__ = ["MAX_SDP_CHARACTERS", "parse_session"]

MAX_SDP_CHARACTERS: Final = 1 << 20
_MAX_SECTIONS: Final = 512
_MAX_PARTS: Final = 512  # of one kind in one section: candidates, codecs, extensions, sources ...

# RFC 3551 table 4 and 5: payload types that need no a=rtpmap.
_STATIC_CODECS: Final = {
    0: RtpCodec(0, "audio/PCMU", 8000, 1),
    3: RtpCodec(3, "audio/GSM", 8000, 1),
    8: RtpCodec(8, "audio/PCMA", 8000, 1),
    9: RtpCodec(9, "audio/G722", 8000, 1),
    13: RtpCodec(13, "audio/CN", 8000, 1),
}

_TOKEN = re.compile(r"[!-~]{1,256}")
_MEDIA_LINE = re.compile(r"([a-z]{1,32}) ([0-9]{1,5})(?:/[0-9]{1,5})? ([!-~]{1,64})((?: [!-~]{1,64})+)")
_ORIGIN_LINE = re.compile(r"([!-~]{1,64}) ([0-9]{1,20}) ([0-9]{1,20}) (IN IP[46] [!-~]{1,255})")
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PWD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_FINGERPRINT = re.compile(r"([A-Za-z0-9-]{1,16}) +([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){7,127})")
_RTPMAP = re.compile(r"([0-9]{1,3}) +([A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,64})/([0-9]{1,9})(?:/([0-9]{1,3}))?")
_EXTMAP = re.compile(r"([0-9]{1,5})(?:/(?:sendrecv|sendonly|recvonly|inactive))? +([!-~]{1,512})(?: .*)?")
# RFC 8839 section 5.1, but for the characters of a foundation: transports, types and extensions that nobody
# here knows are no fault of the description.
_CANDIDATE = re.compile(
    r"[!-~]{1,64} [0-9]{1,3} [!-~]{1,32} [0-9]{1,10} [!-~]{1,255} [0-9]{1,5} typ [!-~]{1,32}(?: +[!-~]+)* *"
)
_SSRC = re.compile(r"([0-9]{1,10})(?: ([a-z-]{1,32})(?::(.{0,512}))?)?")

_DIRECTIONS: Final[dict[str, Direction]] = {
    "sendrecv": "sendrecv",
    "sendonly": "sendonly",
    "recvonly": "recvonly",
    "inactive": "inactive",
}
_SETUPS: Final[dict[str, Setup]] = {"actpass": "actpass", "active": "active", "passive": "passive"}


@dataclass(slots=True)
class _Common:
    """What may stand at session level for all sections."""

    ufrag: str | None = None
    pwd: str | None = None
    ice_options: tuple[str, ...] = ()
    fingerprints: list[Fingerprint] = field(default_factory=list)
    setup: Setup | None = None
    direction: Direction | None = None
    header_extensions: list[HeaderExtension] = field(default_factory=list)


@dataclass(slots=True)
class _Section(_Common):
    """A media section under construction."""

    kind: str = ""
    port: int = 0
    protocol: str = ""
    formats: tuple[str, ...] = ()
    line_number: int = 0
    mid: str = ""
    rtpmaps: dict[int, RtpCodec] = field(default_factory=dict)
    fmtps: dict[int, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    feedback: dict[str, list[RtcpFeedback]] = field(default_factory=dict)
    msids: list[Msid] = field(default_factory=list)
    sources: dict[int, SsrcAttribute] = field(default_factory=dict)
    ssrc_groups: list[Group] = field(default_factory=list)
    bundle_only: bool = False
    rtcp_mux: bool = False
    rtcp_rsize: bool = False
    sctp_port: int | None = None
    max_message_size: int | None = None
    candidates: list[str] = field(default_factory=list)
    end_of_candidates: bool = False


@dataclass(slots=True)
class _Head(_Common):
    """The session level under construction."""

    origin: Origin | None = None
    groups: list[Group] = field(default_factory=list)
    msid_semantics: list[Group] = field(default_factory=list)
    extmap_allow_mixed: bool = False
    ice_lite: bool = False


def parse_session(text: str) -> Session:
    """Read ``text`` into a :class:`Session`; raises SdpError."""
    if len(text) > MAX_SDP_CHARACTERS:
        raise SdpError(
            f"the description has {len(text)} characters, more than {MAX_SDP_CHARACTERS} are refused"
        )
    head = _Head()
    sections: list[_Section] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line:
            continue
        if len(line) < 2 or line[1] != "=" or "\r" in line or "\0" in line:
            raise SdpError(f"not of the form x=value: {_quote(line)}", number)
        if number == 1 and line != "v=0":
            raise SdpError(f"a description begins with v=0, not {_quote(line)}", number)
        kind, value = line[0], line[2:]
        if kind == "m":
            if len(sections) >= _MAX_SECTIONS:
                raise SdpError(f"more than {_MAX_SECTIONS} media sections", number)
            sections.append(_media_line(value, number))
        elif kind == "o":
            head.origin = _origin(value, number)
        elif kind == "a":
            name, _, argument = value.partition(":")
            _attribute(head, sections[-1] if sections else None, name, argument, number)
    if head.origin is None:
        raise SdpError("there is no o= line")
    media = tuple(_finish(section, head) for section in sections)
    _refuse_double_mids(media)
    return Session(
        origin=head.origin,
        media=media,
        groups=tuple(head.groups),
        msid_semantics=tuple(head.msid_semantics),
        extmap_allow_mixed=head.extmap_allow_mixed,
        ice_lite=head.ice_lite,
    )


def _quote(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _number(text: str, limit: int, what: str, number: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= limit):
        raise SdpError(f"{what} must be a number from 0 to {limit}, not {_quote(text)}", number)
    return int(text)


def _match(pattern: re.Pattern[str], text: str, what: str, number: int) -> re.Match[str]:
    found = pattern.fullmatch(text)
    if found is None:
        raise SdpError(f"malformed {what}: {_quote(text)}", number)
    return found


def _token(text: str, what: str, number: int) -> str:
    return _match(_TOKEN, text, what, number)[0]


def _origin(value: str, number: int) -> Origin:
    found = _match(_ORIGIN_LINE, value, "o= line", number)
    return Origin(int(found[2]), int(found[3]), found[1], found[4])


def _media_line(value: str, number: int) -> _Section:
    found = _match(_MEDIA_LINE, value, "m= line", number)
    formats = tuple(found[4].split())
    if len(formats) > _MAX_PARTS:
        raise SdpError(f"more than {_MAX_PARTS} formats", number)
    return _Section(
        kind=found[1],
        port=_number(found[2], 65535, "a port", number),
        protocol=found[3],
        formats=formats,
        line_number=number,
    )


def _attribute(head: _Head, section: _Section | None, name: str, value: str, number: int) -> None:
    level: _Common = head if section is None else section
    if (common := _COMMON.get(name)) is not None:
        common(level, value, number)
    elif name in _DIRECTIONS:
        level.direction = _DIRECTIONS[name]
    elif name == "extmap-allow-mixed":
        head.extmap_allow_mixed = True
    elif section is not None:
        if (reader := _SECTION.get(name)) is not None:
            reader(section, value, number)
    elif name == "ice-lite":
        head.ice_lite = True
    elif name in ("group", "msid-semantic"):
        target = head.groups if name == "group" else head.msid_semantics
        _bounded(target, name, number)
        items = value.split()
        if items:
            target.append(Group(items[0], tuple(items[1:])))


def _bounded(parts: list[Group], what: str, number: int) -> None:
    if len(parts) >= _MAX_PARTS:
        raise SdpError(f"more than {_MAX_PARTS} attributes a={what}", number)


def _ice_ufrag(level: _Common, value: str, number: int) -> None:
    level.ufrag = _match(_UFRAG, value, "ice-ufrag", number)[0]


def _ice_pwd(level: _Common, value: str, number: int) -> None:
    level.pwd = _match(_PWD, value, "ice-pwd", number)[0]


def _ice_options(level: _Common, value: str, number: int) -> None:
    level.ice_options = tuple(_token(option, "ice-options", number) for option in value.split())


def _fingerprint(level: _Common, value: str, number: int) -> None:
    found = _match(_FINGERPRINT, value, "fingerprint", number)
    if len(level.fingerprints) >= 16:
        raise SdpError("more than 16 fingerprints", number)
    level.fingerprints.append(Fingerprint(found[1].lower(), found[2].upper()))


def _setup(level: _Common, value: str, number: int) -> None:
    if value == "holdconn":
        raise SdpError("a=setup:holdconn is not allowed in WebRTC (RFC 8842 section 5.3)", number)
    if value not in _SETUPS:
        raise SdpError(f"malformed setup: {_quote(value)}", number)
    level.setup = _SETUPS[value]


def _extmap(level: _Common, value: str, number: int) -> None:
    found = _match(_EXTMAP, value, "extmap", number)
    if len(level.header_extensions) >= _MAX_PARTS:
        raise SdpError(f"more than {_MAX_PARTS} attributes a=extmap", number)
    level.header_extensions.append(
        HeaderExtension(_number(found[1], 65535, "an extmap id", number), found[2])
    )


def _mid(section: _Section, value: str, number: int) -> None:
    section.mid = _token(value, "mid", number)


def _payload_type(value: str, number: int) -> int:
    return _number(value, 127, "a payload type", number)


def _rtpmap(section: _Section, value: str, number: int) -> None:
    found = _match(_RTPMAP, value, "rtpmap", number)
    payload_type = _payload_type(found[1], number)
    channels = int(found[4]) if found[4] else (1 if section.kind == "audio" else None)
    codec = RtpCodec(payload_type, f"{section.kind}/{found[2]}", int(found[3]), channels)
    if section.rtpmaps.setdefault(payload_type, codec) != codec:
        raise SdpError(f"another rtpmap for payload type {payload_type}: {_quote(value)}", number)


def _fmtp(section: _Section, value: str, number: int) -> None:
    target, _, text = value.partition(" ")
    pairs: list[tuple[str, str]] = []
    for part in text.split(";")[:_MAX_PARTS]:
        name, _, argument = part.strip().partition("=")
        if name:
            pairs.append((name, argument))
    section.fmtps[_payload_type(target, number)] = tuple(pairs)


def _rtcp_fb(section: _Section, value: str, number: int) -> None:
    target, _, text = value.partition(" ")
    kind, _, parameter = text.strip().partition(" ")
    if target != "*":
        _payload_type(target, number)
    known = section.feedback.setdefault(target, [])
    if len(known) >= _MAX_PARTS:
        raise SdpError(f"more than {_MAX_PARTS} attributes a=rtcp-fb", number)
    known.append(RtcpFeedback(_token(kind, "rtcp-fb", number), parameter.strip()))


def _msid(section: _Section, value: str, number: int) -> None:
    stream, _, track = value.partition(" ")
    if len(section.msids) >= _MAX_PARTS:
        raise SdpError(f"more than {_MAX_PARTS} attributes a=msid", number)
    track_id = _token(track, "msid", number) if track else ""
    msid = Msid(_token(stream, "msid", number), track_id)
    if msid in section.msids:
        raise SdpError(f"the same msid twice in one section: {_quote(value)}", number)
    section.msids.append(msid)


def _ssrc(section: _Section, value: str, number: int) -> None:
    found = _match(_SSRC, value, "ssrc", number)
    ssrc = _number(found[1], 0xFFFFFFFF, "an SSRC", number)
    if ssrc not in section.sources and len(section.sources) >= _MAX_PARTS:
        raise SdpError(f"more than {_MAX_PARTS} sources", number)
    source = section.sources.setdefault(ssrc, SsrcAttribute(ssrc))
    if found[2] == "cname":
        section.sources[ssrc] = replace(source, cname=found[3] or "")
    elif found[2] == "msid":
        section.sources[ssrc] = replace(source, msid=found[3] or "")


def _ssrc_group(section: _Section, value: str, number: int) -> None:
    items = value.split()
    _bounded(section.ssrc_groups, "ssrc-group", number)
    if len(items) < 2:
        raise SdpError(f"malformed ssrc-group: {_quote(value)}", number)
    members = tuple(str(_number(item, 0xFFFFFFFF, "an SSRC", number)) for item in items[1:])
    section.ssrc_groups.append(Group(items[0], members))


def _sctp_port(section: _Section, value: str, number: int) -> None:
    section.sctp_port = _number(value, 65535, "an SCTP port", number)


def _sctpmap(section: _Section, value: str, number: int) -> None:
    section.sctp_port = _number(value.split(" ")[0], 65535, "an SCTP port", number)


def _max_message_size(section: _Section, value: str, number: int) -> None:
    section.max_message_size = _number(value, (1 << 63) - 1, "max-message-size", number)


def _candidate(section: _Section, value: str, number: int) -> None:
    if len(section.candidates) >= _MAX_PARTS:
        raise SdpError(f"more than {_MAX_PARTS} candidates", number)
    section.candidates.append(f"candidate:{_match(_CANDIDATE, value, 'candidate', number)[0]}")


def _flag(name: str) -> Callable[[_Section, str, int], None]:
    def set_flag(section: _Section, value: str, number: int) -> None:
        setattr(section, name, True)

    return set_flag


_COMMON: Final[dict[str, Callable[[_Common, str, int], None]]] = {
    "ice-ufrag": _ice_ufrag,
    "ice-pwd": _ice_pwd,
    "ice-options": _ice_options,
    "fingerprint": _fingerprint,
    "setup": _setup,
    "extmap": _extmap,
}
_SECTION: Final[dict[str, Callable[[_Section, str, int], None]]] = {
    "mid": _mid,
    "rtpmap": _rtpmap,
    "fmtp": _fmtp,
    "rtcp-fb": _rtcp_fb,
    "msid": _msid,
    "ssrc": _ssrc,
    "ssrc-group": _ssrc_group,
    "sctp-port": _sctp_port,
    "sctpmap": _sctpmap,
    "max-message-size": _max_message_size,
    "candidate": _candidate,
    "end-of-candidates": _flag("end_of_candidates"),
    "bundle-only": _flag("bundle_only"),
    "rtcp-mux": _flag("rtcp_mux"),
    "rtcp-rsize": _flag("rtcp_rsize"),
}


def _codecs(section: _Section) -> tuple[RtpCodec, ...]:
    found: dict[int, RtpCodec] = {}
    for text in section.formats:
        if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 127):
            raise SdpError(f"malformed payload type {_quote(text)} in the m= line", section.line_number)
        payload_type = int(text)
        codec = section.rtpmaps.get(payload_type)
        if codec is None and section.kind == "audio":
            codec = _STATIC_CODECS.get(payload_type)
        if codec is not None:
            feedback = section.feedback.get("*", []) + section.feedback.get(text, [])
            found[payload_type] = replace(
                codec, parameters=section.fmtps.get(payload_type, ()), feedback=tuple(feedback)
            )
    return tuple(found.values())


def _finish(section: _Section, head: _Head) -> MediaSection:
    is_media = section.kind in ("audio", "video") and "RTP/" in section.protocol
    ufrag = section.ufrag or head.ufrag
    pwd = section.pwd or head.pwd
    if (ufrag is None) != (pwd is None):
        raise SdpError("ice-ufrag and ice-pwd come together", section.line_number)
    return MediaSection(
        kind=section.kind,
        port=section.port,
        protocol=section.protocol,
        formats=section.formats,
        mid=section.mid,
        direction=section.direction or head.direction or "sendrecv",
        ice=IceCredentials(ufrag, pwd) if ufrag is not None and pwd is not None else None,
        ice_options=section.ice_options or head.ice_options,
        fingerprints=tuple(section.fingerprints or head.fingerprints),
        setup=section.setup or head.setup,
        codecs=_codecs(section) if is_media else (),
        header_extensions=tuple(section.header_extensions or head.header_extensions) if is_media else (),
        msids=tuple(section.msids),
        ssrcs=tuple(section.sources.values()),
        ssrc_groups=tuple(section.ssrc_groups),
        bundle_only=section.bundle_only,
        rtcp_mux=section.rtcp_mux,
        rtcp_rsize=section.rtcp_rsize,
        sctp_port=section.sctp_port,
        max_message_size=section.max_message_size,
        candidates=tuple(section.candidates),
        end_of_candidates=section.end_of_candidates,
    )


def _refuse_double_mids(media: tuple[MediaSection, ...]) -> None:
    mids = [section.mid for section in media if section.mid]
    if len(mids) != len(set(mids)):
        double = next(mid for mid in mids if mids.count(mid) > 1)
        raise SdpError(f"two media sections have the mid {_quote(double)}")
