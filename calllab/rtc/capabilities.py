"""What can be negotiated at all, in W3C terms (webrtc-pc section 5.2.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calllab.rtc.codecs import CODECS, HEADER_EXTENSIONS, CodecKey, preference_key
from calllab.rtc.errors import InvalidModificationError
from calllab.rtc.parameters import Kind, RtpCodec

__all__ = [
    "RTCRtpCapabilities",
    "RTCRtpCodec",
    "RTCRtpHeaderExtensionCapability",
    "capabilities",
    "preference_keys",
]


@dataclass(frozen=True, slots=True)
class RTCRtpCodec:
    """A codec as applications name it; ``payloadType`` is None where no number is agreed on."""

    mimeType: str
    clockRate: int
    channels: int | None = None
    sdpFmtpLine: str | None = None
    payloadType: int | None = None

    @classmethod
    def of(cls, codec: RtpCodec, *, with_number: bool) -> RTCRtpCodec:
        """Return the W3C form of one of our codecs."""
        number = codec.payload_type if with_number else None
        fmtp = codec.fmtp if with_number or not codec.is_rtx else ""
        return cls(codec.mime_type, codec.clock_rate, codec.channels, fmtp or None, number)


@dataclass(frozen=True, slots=True)
class RTCRtpHeaderExtensionCapability:
    """A header extension that can be negotiated."""

    uri: str


@dataclass(frozen=True, slots=True)
class RTCRtpCapabilities:
    """The codecs and header extensions of one kind of media."""

    codecs: tuple[RTCRtpCodec, ...]
    headerExtensions: tuple[RTCRtpHeaderExtensionCapability, ...]


def capabilities(kind: str) -> RTCRtpCapabilities | None:
    """Return what can be sent and received of a kind; None for a kind that does not exist."""
    if kind not in CODECS:
        return None
    return RTCRtpCapabilities(
        tuple(dict.fromkeys(RTCRtpCodec.of(codec, with_number=False) for codec in CODECS[kind])),
        tuple(RTCRtpHeaderExtensionCapability(extension.uri) for extension in HEADER_EXTENSIONS[kind]),
    )


def preference_keys(kind: Kind, codecs: Sequence[RTCRtpCodec | Mapping[str, Any]]) -> tuple[CodecKey, ...]:
    """Return the keys of ``codecs``.

    Raises TypeError for what is no codec, InvalidModificationError for what cannot be received.
    """
    if isinstance(codecs, str | Mapping) or not isinstance(codecs, Sequence):
        raise TypeError(f"a sequence of codecs is needed, not {type(codecs).__name__}")
    known = {_comparable(RTCRtpCodec.of(codec, with_number=False)): codec for codec in CODECS[kind]}
    keys: list[CodecKey] = []
    for given in codecs:
        codec = _codec(given)
        found = known.get(_comparable(codec))
        if found is None:
            raise InvalidModificationError(
                f"{codec.mimeType} {codec.sdpFmtpLine or ''} is not in getCapabilities({kind!r})"
            )
        keys.append(preference_key(found))
    if keys and all("/rtx" in key[0] for key in keys):
        raise InvalidModificationError("retransmission alone is no codec: prefer at least one real codec")
    return tuple(dict.fromkeys(keys))


def _codec(given: RTCRtpCodec | Mapping[str, Any]) -> RTCRtpCodec:
    if isinstance(given, RTCRtpCodec):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"a codec is an RTCRtpCodec or a mapping, not {type(given).__name__}")
    mime_type, clock_rate = given.get("mimeType"), given.get("clockRate")
    if not isinstance(mime_type, str) or not isinstance(clock_rate, int):
        raise TypeError(f"a codec has a mimeType and a clockRate, not {mime_type!r} and {clock_rate!r}")
    return RTCRtpCodec(mime_type, clock_rate, given.get("channels"), given.get("sdpFmtpLine"))


def _comparable(codec: RTCRtpCodec) -> tuple[object, ...]:
    return codec.mimeType.lower(), codec.clockRate, codec.channels, codec.sdpFmtpLine or ""
