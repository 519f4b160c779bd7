"""The W3C peer connection, over a JSEP core without IO."""

from __future__ import annotations

from calllab._aiortc import (
    AudioStreamTrack,
    DatagramInterface,
    MediaStreamError,
    MediaStreamTrack,
    RemoteTrack,
    VideoStreamTrack,
)
from calllab.rtc.capabilities import RTCRtpCapabilities, RTCRtpCodec, RTCRtpHeaderExtensionCapability
from calllab.rtc.certificate import RTCCertificate, RTCDtlsFingerprint
from calllab.rtc.configuration import RTCConfiguration, RTCIceServer
from calllab.rtc.datachannel import RTCDataChannel
from calllab.rtc.description import (
    RTCIceCandidate,
    RTCPeerConnectionIceErrorEvent,
    RTCSessionDescription,
)
from calllab.rtc.dtmf import RTCDTMFSender
from calllab.rtc.errors import (
    InvalidAccessError,
    InvalidModificationError,
    InvalidStateError,
    NotSupportedError,
    OperationError,
    RtcError,
    SdpError,
    SyntaxError_,
)
from calllab.rtc.mediastream import MediaStream
from calllab.rtc.peerconnection import RTCPeerConnection
from calllab.rtc.receiver import RTCRtpReceiver
from calllab.rtc.sender import RTCRtpSender
from calllab.rtc.statistics import RTCStatsReport
from calllab.rtc.transceiver import RTCRtpTransceiver
from calllab.rtc.transport_errors import RTCError, RTCErrorEvent
from calllab.rtc.transports import (
    RTCDtlsTransport,
    RTCIceCandidatePair,
    RTCIceParameters,
    RTCIceTransport,
    RTCSctpTransport,
)

__all__ = [
    "AudioStreamTrack",
    "DatagramInterface",
    "InvalidAccessError",
    "InvalidModificationError",
    "InvalidStateError",
    "MediaStream",
    "MediaStreamError",
    "MediaStreamTrack",
    "NotSupportedError",
    "OperationError",
    "RTCCertificate",
    "RTCConfiguration",
    "RTCDTMFSender",
    "RTCDataChannel",
    "RTCDtlsFingerprint",
    "RTCDtlsTransport",
    "RTCError",
    "RTCErrorEvent",
    "RTCIceCandidate",
    "RTCIceCandidatePair",
    "RTCIceParameters",
    "RTCIceServer",
    "RTCIceTransport",
    "RTCPeerConnection",
    "RTCPeerConnectionIceErrorEvent",
    "RTCRtpCapabilities",
    "RTCRtpCodec",
    "RTCRtpHeaderExtensionCapability",
    "RTCRtpReceiver",
    "RTCRtpSender",
    "RTCRtpTransceiver",
    "RTCSctpTransport",
    "RTCSessionDescription",
    "RTCStatsReport",
    "RemoteTrack",
    "RtcError",
    "SdpError",
    "SyntaxError_",
    "VideoStreamTrack",
]
