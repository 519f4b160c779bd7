"""From negotiated parameters to aiortc's, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aiortc.rtcrtpparameters import (
    RTCRtcpFeedback,
    RTCRtcpParameters,
    RTCRtpCodecParameters,
    RTCRtpDecodingParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpReceiveParameters,
    RTCRtpRtxParameters,
    RTCRtpSendParameters,
)

__all__ = ["CodecLike", "EncodingLike", "ReceiveParametersLike", "SendParametersLike"]


class FeedbackLike(Protocol):
    """One kind of RTCP feedback."""

    @property
    def type(self) -> str:
        """Such as nack."""

    @property
    def parameter(self) -> str:
        """Such as pli; empty if there is none."""


class CodecLike(Protocol):
    """A codec with its payload type."""

    @property
    def payload_type(self) -> int:
        """The RTP payload type."""

    @property
    def mime_type(self) -> str:
        """Such as audio/opus."""

    @property
    def clock_rate(self) -> int:
        """RTP ticks in a second."""

    @property
    def channels(self) -> int | None:
        """How many audio channels."""

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """The format parameters in order."""

    @property
    def feedback(self) -> Sequence[FeedbackLike]:
        """The RTCP feedback agreed on."""


class ExtensionLike(Protocol):
    """An RTP header extension."""

    @property
    def id(self) -> int:
        """Its number in the packets."""

    @property
    def uri(self) -> str:
        """What it is."""


class EncodingLike(Protocol):
    """The SSRCs of one stream."""

    @property
    def ssrc(self) -> int:
        """Of the media."""

    @property
    def rtx_ssrc(self) -> int | None:
        """Of the retransmissions."""


class SendParametersLike(Protocol):
    """How one transceiver sends."""

    @property
    def mid(self) -> str:
        """The media section's identification."""

    @property
    def cname(self) -> str:
        """The canonical name in RTCP."""

    @property
    def codecs(self) -> Sequence[CodecLike]:
        """What is sent comes first."""

    @property
    def header_extensions(self) -> Sequence[ExtensionLike]:
        """The extensions agreed on."""


class ReceiveParametersLike(Protocol):
    """What one transceiver receives."""

    @property
    def mid(self) -> str:
        """The media section's identification."""

    @property
    def codecs(self) -> Sequence[CodecLike]:
        """All that may come."""

    @property
    def header_extensions(self) -> Sequence[ExtensionLike]:
        """The extensions agreed on."""

    @property
    def encodings(self) -> Sequence[EncodingLike]:
        """The streams that the peer named; empty if it named none."""


def is_rtx(codec: CodecLike) -> bool:
    """Whether this is the retransmission format of another codec (RFC 4588)."""
    return codec.mime_type.lower().endswith("/rtx")


def to_aiortc(codec: CodecLike) -> RTCRtpCodecParameters:
    """Return aiortc's form of a codec; numbers among the format parameters become int, as it expects."""
    return RTCRtpCodecParameters(
        mimeType=codec.mime_type,
        clockRate=codec.clock_rate,
        channels=codec.channels,
        payloadType=codec.payload_type,
        rtcpFeedback=[RTCRtcpFeedback(f.type, f.parameter or None) for f in codec.feedback],
        parameters={
            name: int(value) if name == "apt" and value.isascii() and value.isdigit() else value
            for name, value in codec.parameters
        },
    )


def _extensions(extensions: Sequence[ExtensionLike]) -> list[RTCRtpHeaderExtensionParameters]:
    return [RTCRtpHeaderExtensionParameters(id=e.id, uri=e.uri) for e in extensions]


def send_parameters(parameters: SendParametersLike) -> RTCRtpSendParameters:
    """Return aiortc's form of what a sender is to do."""
    return RTCRtpSendParameters(
        codecs=[to_aiortc(codec) for codec in parameters.codecs],
        headerExtensions=_extensions(parameters.header_extensions),
        muxId=parameters.mid,
        rtcp=RTCRtcpParameters(cname=parameters.cname, mux=True),
    )


def receive_parameters(parameters: ReceiveParametersLike) -> RTCRtpReceiveParameters:
    """Return aiortc's form of what a receiver is to expect: each stream with each media codec."""
    media = [codec for codec in parameters.codecs if not is_rtx(codec)]
    encodings = [
        RTCRtpDecodingParameters(
            ssrc=encoding.ssrc,
            payloadType=codec.payload_type,
            rtx=RTCRtpRtxParameters(ssrc=encoding.rtx_ssrc) if encoding.rtx_ssrc is not None else None,
        )
        for encoding in parameters.encodings
        for codec in media
    ]
    return RTCRtpReceiveParameters(
        codecs=[to_aiortc(codec) for codec in parameters.codecs],
        headerExtensions=_extensions(parameters.header_extensions),
        muxId=parameters.mid,
        rtcp=RTCRtcpParameters(mux=True),
        encodings=encodings,
    )
