"""What can be negotiated at all, in W3C terms (webrtc-pc section 5.2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def preference_keys(kind: Kind, codecs: Sequence[RTCRtpCodec]) -> tuple[CodecKey, ...]:
    """Return the keys of ``codecs``; raises InvalidModificationError for what cannot be received."""
    known = {_comparable(RTCRtpCodec.of(codec, with_number=False)): codec for codec in CODECS[kind]}
    keys: list[CodecKey] = []
    for codec in codecs:
        found = known.get(_comparable(codec))
        if found is None:
            raise InvalidModificationError(
                f"{codec.mimeType} {codec.sdpFmtpLine or ''} is not in getCapabilities({kind!r})"
            )
        keys.append(preference_key(found))
    if keys and all("/rtx" in key[0] for key in keys):
        raise InvalidModificationError("retransmission alone is no codec: prefer at least one real codec")
    return tuple(dict.fromkeys(keys))


def _comparable(codec: RTCRtpCodec) -> tuple[object, ...]:
    return codec.mimeType.lower(), codec.clockRate, codec.channels, codec.sdpFmtpLine or ""
