"""What two peers agree on: codecs, header extensions, ICE credentials, fingerprints, streams.

Everything here is frozen and hashable, so that negotiated state can be kept, compared and put back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = [
    "Direction",
    "Fingerprint",
    "HeaderExtension",
    "IceCredentials",
    "Kind",
    "ReceiveParameters",
    "RtcpFeedback",
    "RtpCodec",
    "SdpType",
    "SendParameters",
    "SignalingState",
    "StreamEncoding",
    "intersect",
    "receives",
    "reverse",
    "sends",
]

Kind: TypeAlias = Literal["audio", "video"]
Direction: TypeAlias = Literal["sendrecv", "sendonly", "recvonly", "inactive"]
SdpType: TypeAlias = Literal["offer", "pranswer", "answer", "rollback"]
SignalingState: TypeAlias = Literal[
    "stable", "have-local-offer", "have-remote-offer", "have-local-pranswer", "have-remote-pranswer", "closed"
]


@dataclass(frozen=True, slots=True)
class RtcpFeedback:
    """One ``a=rtcp-fb`` of a codec (RFC 4585 section 4.2)."""

    type: str
    parameter: str = ""


@dataclass(frozen=True, slots=True)
class RtpCodec:
    """A codec with its payload type (W3C RTCRtpCodecParameters)."""

    payload_type: int
    mime_type: str
    clock_rate: int
    channels: int | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    """The ``a=fmtp`` pairs in their order; a parameter without a value has the value ``""``."""
    feedback: tuple[RtcpFeedback, ...] = ()

    @property
    def kind(self) -> str:
        """The media kind: what stands before the slash."""
        return self.mime_type.partition("/")[0]

    @property
    def name(self) -> str:
        """The encoding name: what stands after the slash."""
        return self.mime_type.partition("/")[2]

    @property
    def is_rtx(self) -> bool:
        """Whether this is the retransmission format (RFC 4588) of another codec."""
        return self.name.lower() == "rtx"

    @property
    def apt(self) -> int | None:
        """The payload type that an rtx codec retransmits."""
        value = self.parameter("apt")
        return int(value) if value is not None and value.isascii() and value.isdigit() else None

    @property
    def fmtp(self) -> str:
        """The format parameters as they stand in ``a=fmtp`` (W3C sdpFmtpLine)."""
        return ";".join(f"{name}={value}" if value else name for name, value in self.parameters)

    def parameter(self, name: str) -> str | None:
        """Return the value of a format parameter, None if there is none."""
        return next((value for key, value in self.parameters if key.lower() == name), None)


@dataclass(frozen=True, slots=True)
class HeaderExtension:
    """An RTP header extension and its id (RFC 8285)."""

    id: int
    uri: str


@dataclass(frozen=True, slots=True)
class IceCredentials:
    """The user name fragment and password of one ICE generation (RFC 8445 section 5.3)."""

    ufrag: str
    pwd: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The hash of a DTLS certificate (RFC 8122)."""

    algorithm: str
    value: str


@dataclass(frozen=True, slots=True)
class StreamEncoding:
    """The SSRC of one media stream, and that of its retransmissions."""

    ssrc: int
    rtx_ssrc: int | None = None


@dataclass(frozen=True, slots=True)
class SendParameters:
    """How one transceiver sends: ``codecs[0]`` is what is sent, rtx codecs follow."""

    mid: str
    cname: str
    codecs: tuple[RtpCodec, ...]
    header_extensions: tuple[HeaderExtension, ...]


@dataclass(frozen=True, slots=True)
class ReceiveParameters:
    """What one transceiver receives; ``encodings`` is empty if the peer names no SSRC."""

    mid: str
    codecs: tuple[RtpCodec, ...]
    header_extensions: tuple[HeaderExtension, ...]
    encodings: tuple[StreamEncoding, ...] = ()
    cname: str | None = None


_BITS: dict[Direction, int] = {"inactive": 0, "sendonly": 1, "recvonly": 2, "sendrecv": 3}
_BY_BITS: dict[int, Direction] = {bits: direction for direction, bits in _BITS.items()}


def sends(direction: Direction | None) -> bool:
    """Whether media flows out."""
    return direction in ("sendonly", "sendrecv")


def receives(direction: Direction | None) -> bool:
    """Whether media flows in."""
    return direction in ("recvonly", "sendrecv")


def reverse(direction: Direction) -> Direction:
    """Return the same direction as the other peer sees it."""
    if direction == "sendonly":
        return "recvonly"
    return "sendonly" if direction == "recvonly" else direction


def intersect(one: Direction, other: Direction) -> Direction:
    """Return what both directions allow."""
    return _BY_BITS[_BITS[one] & _BITS[other]]
