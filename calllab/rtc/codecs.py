"""What we can send and receive, and under which numbers.

Two rules keep a BUNDLE group valid for as long as the call lasts, whoever offers (RFC 9429 section 5.2.2):
the first choice of payload types and header extension ids is libwebrtc's, so that two offers made
independently rarely disagree; and once a number has been seen for a codec or extension anywhere in the
group, it stays. Chromium rejects its own next offer if an answerer renumbered what it had offered before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeVar

from calllab.rtc.parameters import HeaderExtension, Kind, RtcpFeedback, RtpCodec

__all__ = [
    "CODECS",
    "HEADER_EXTENSIONS",
    "CodecKey",
    "Numbering",
    "common_codecs",
    "common_extensions",
    "prefer",
]

CodecKey: TypeAlias = tuple[str, ...]
Key = TypeVar("Key")

_VIDEO_FEEDBACK: Final = (RtcpFeedback("goog-remb"), RtcpFeedback("nack"), RtcpFeedback("nack", "pli"))


def _h264(payload_type: int, profile_level_id: str) -> tuple[RtpCodec, RtpCodec]:
    parameters = (
        ("level-asymmetry-allowed", "1"),
        ("packetization-mode", "1"),
        ("profile-level-id", profile_level_id),
    )
    h264 = RtpCodec(payload_type, "video/H264", 90000, None, parameters, _VIDEO_FEEDBACK)
    return h264, _rtx(payload_type)


def _rtx(payload_type: int) -> RtpCodec:
    return RtpCodec(payload_type + 1, "video/rtx", 90000, None, (("apt", str(payload_type)),))


CODECS: Final[dict[Kind, tuple[RtpCodec, ...]]] = {
    "audio": (
        RtpCodec(111, "audio/opus", 48000, 2),
        RtpCodec(9, "audio/G722", 8000, 1),
        RtpCodec(0, "audio/PCMU", 8000, 1),
        RtpCodec(8, "audio/PCMA", 8000, 1),
    ),
    "video": (
        RtpCodec(96, "video/VP8", 90000, None, (), _VIDEO_FEEDBACK),
        _rtx(96),
        *_h264(102, "42001f"),
        *_h264(108, "42e01f"),
    ),
}
"""What aiortc encodes and decodes, in order of preference."""

_MID = HeaderExtension(4, "urn:ietf:params:rtp-hdrext:sdes:mid")
HEADER_EXTENSIONS: Final[dict[Kind, tuple[HeaderExtension, ...]]] = {
    "audio": (HeaderExtension(1, "urn:ietf:params:rtp-hdrext:ssrc-audio-level"), _MID),
    "video": (HeaderExtension(2, "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"), _MID),
}

_DYNAMIC_PAYLOAD_TYPES: Final = (*range(96, 128), *range(35, 64))
_EXTENSION_IDS: Final = (*range(1, 15), *range(16, 256))

# RFC 6184 section 8.1, table 5: (profile_idc, mask of profile-iop, value of profile-iop, profile).
_H264_PROFILES: Final = (
    (0x42, 0x4F, 0x40, "constrained-baseline"),
    (0x4D, 0x8F, 0x80, "constrained-baseline"),
    (0x58, 0xCF, 0xC0, "constrained-baseline"),
    (0x42, 0x4F, 0x00, "baseline"),
    (0x58, 0xCF, 0x80, "baseline"),
    (0x4D, 0xAF, 0x00, "main"),
    (0x64, 0xFF, 0x00, "high"),
    (0x64, 0xFF, 0x0C, "constrained-high"),
)


def _h264_profile(profile_level_id: str) -> str:
    """Return the profile that a ``profile-level-id`` means; what is unknown is its own profile."""
    try:
        number = int(profile_level_id, 16)
    except ValueError:
        return profile_level_id
    idc, iop = number >> 16, number >> 8 & 0xFF
    for known_idc, mask, value, profile in _H264_PROFILES:
        if idc == known_idc and iop & mask == value:
            return profile
    return profile_level_id.lower()


def _identity(codec: RtpCodec) -> CodecKey:
    """Return what makes two codecs the same codec, whatever their payload types."""
    key = (codec.mime_type.lower(), str(codec.clock_rate), str(codec.channels or 1))
    if codec.mime_type.lower() == "video/h264":
        # RFC 6184 section 8.1: without the parameter, single NAL unit mode; libwebrtc: without, 42E01F.
        mode = codec.parameter("packetization-mode") or "0"
        return (*key, mode, _h264_profile(codec.parameter("profile-level-id") or "42e01f"))
    return (*key, codec.parameter("profile-id") or codec.parameter("profile") or "")


def identities(codecs: Sequence[RtpCodec]) -> Iterator[tuple[CodecKey, RtpCodec]]:
    """Yield each codec with its identity; an rtx codec is identified by what it retransmits."""
    by_payload_type = {codec.payload_type: codec for codec in codecs}
    for codec in codecs:
        if not codec.is_rtx:
            yield _identity(codec), codec
            continue
        base = by_payload_type.get(codec.apt) if codec.apt is not None else None
        if base is not None and not base.is_rtx:
            yield ("rtx", *_identity(base)), codec


@dataclass(frozen=True, slots=True)
class Numbering:
    """The payload types and extension ids in use in one BUNDLE group."""

    payload_types: tuple[tuple[CodecKey, int], ...] = ()
    extension_ids: tuple[tuple[str, int], ...] = ()

    def learn(self, codecs: Sequence[RtpCodec], extensions: Iterable[HeaderExtension]) -> Numbering:
        """Return the numbering after a section with these was seen; it takes precedence."""
        seen_codecs: dict[CodecKey, int] = {}
        for key, codec in identities(codecs):
            seen_codecs.setdefault(key, codec.payload_type)
        seen_ids: dict[str, int] = {}
        for extension in extensions:
            seen_ids.setdefault(extension.uri, extension.id)
        return Numbering(
            _merge(self.payload_types, seen_codecs),
            _merge(self.extension_ids, seen_ids),
        )

    def number_codecs(self, codecs: Sequence[RtpCodec]) -> tuple[RtpCodec, ...]:
        """Return ``codecs`` with the payload types they have, or may have, in this group."""
        known = dict(self.payload_types)
        used = set(known.values())
        moved: dict[int, int] = {}
        numbered: list[RtpCodec] = []
        for key, codec in identities(codecs):
            payload_type = known.get(key)
            if payload_type is None:
                payload_type = codec.payload_type
                if payload_type >= 35 and payload_type in used:
                    payload_type = next(free for free in _DYNAMIC_PAYLOAD_TYPES if free not in used)
                used.add(payload_type)
            moved[codec.payload_type] = payload_type
            if codec.apt is not None and codec.is_rtx:
                codec = replace(codec, parameters=(("apt", str(moved[codec.apt])),))
            numbered.append(replace(codec, payload_type=payload_type))
        return tuple(numbered)

    def number_extensions(self, extensions: Iterable[HeaderExtension]) -> tuple[HeaderExtension, ...]:
        """Return ``extensions`` with the ids they have, or may have, in this group."""
        known = dict(self.extension_ids)
        used = set(known.values())
        numbered: list[HeaderExtension] = []
        for extension in extensions:
            number = known.get(extension.uri)
            if number is None:
                number = extension.id
                if number in used:
                    number = next(free for free in _EXTENSION_IDS if free not in used)
                used.add(number)
            numbered.append(HeaderExtension(number, extension.uri))
        return tuple(numbered)


def _merge(old: tuple[tuple[Key, int], ...], seen: dict[Key, int]) -> tuple[tuple[Key, int], ...]:
    taken = set(seen.values())
    kept = {key: number for key, number in old if key not in seen and number not in taken}
    return tuple((kept | seen).items())


def common_codecs(ours: Sequence[RtpCodec], theirs: Sequence[RtpCodec]) -> tuple[RtpCodec, ...]:
    """Return what both sides can do, in their order, with their payload types and our parameters.

    An rtx codec is common if what it retransmits is.
    """
    available = dict(reversed(list(identities(ours))))
    accepted: dict[int, RtpCodec] = {}
    taken: set[CodecKey] = set()
    for key, codec in identities(theirs):
        mine = available.get(key)
        if mine is None or key in taken:
            continue
        if codec.is_rtx and codec.apt not in accepted:
            continue
        taken.add(key)
        accepted[codec.payload_type] = replace(
            mine,
            payload_type=codec.payload_type,
            parameters=codec.parameters if codec.is_rtx else mine.parameters,
            feedback=tuple(feedback for feedback in mine.feedback if feedback in codec.feedback),
        )
    return tuple(accepted.values())


def common_extensions(
    ours: Iterable[HeaderExtension], theirs: Iterable[HeaderExtension]
) -> tuple[HeaderExtension, ...]:
    """Return the header extensions that both sides know, in their order, with their ids."""
    uris = {extension.uri for extension in ours}
    found: dict[str, HeaderExtension] = {}
    for extension in theirs:
        if extension.uri in uris:
            found.setdefault(extension.uri, extension)
    return tuple(found.values())


def prefer(codecs: Sequence[RtpCodec], preferences: Sequence[CodecKey] | None) -> tuple[RtpCodec, ...]:
    """Return ``codecs`` filtered and ordered by preference (setCodecPreferences); rtx follows its codec."""
    if not preferences:
        return tuple(codecs)
    keyed = list(identities(codecs))
    ordered: list[RtpCodec] = []
    allow_rtx = any("/rtx" in key[0] for key in preferences)
    for wanted in preferences:
        ordered += [codec for key, codec in keyed if key == wanted]
        if allow_rtx:
            ordered += [codec for key, codec in keyed if key == ("rtx", *wanted)]
    return tuple(ordered)


def preference_key(codec: RtpCodec) -> CodecKey:
    """Return the key by which :func:`prefer` knows ``codec``; all rtx are one."""
    return ("video/rtx",) if codec.is_rtx else _identity(codec)
