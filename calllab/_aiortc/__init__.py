"""All knowledge of aiortc's and aioice's insides.

No other room imports these libraries.  What is pinned and private is checked when this package is imported:
:exc:`~calllab.errors.UnsupportedAiortc` names what moved.
"""

from __future__ import annotations

from calllab._aiortc import selftest as _selftest

_selftest.check()

from calllab._aiortc.candidates import (  # noqa: E402
    IceCandidate,
    IceCandidateError,
    IceUrl,
    SelectedPair,
    parse_ice_url,
)
from calllab._aiortc.data import DataChannel, SctpTransport  # noqa: E402
from calllab._aiortc.datagrams import Address, DatagramInterface, Deliver  # noqa: E402
from calllab._aiortc.dtls import Certificate, DtlsFingerprint, DtlsTransport  # noqa: E402
from calllab._aiortc.ice_transport import IceParameters, IceTransport  # noqa: E402
from calllab._aiortc.liveness import IceTimers  # noqa: E402
from calllab._aiortc.rtp_receiver import RtpReceiver  # noqa: E402
from calllab._aiortc.rtp_sender import RtpSender  # noqa: E402
from calllab._aiortc.tracks import (  # noqa: E402
    AudioStreamTrack,
    MediaPlayer,
    MediaStreamError,
    MediaStreamTrack,
    RemoteStreamTrack,
    RemoteTrack,
    VideoStreamTrack,
)

__all__ = [
    "Address",
    "AudioStreamTrack",
    "Certificate",
    "DataChannel",
    "DatagramInterface",
    "Deliver",
    "DtlsFingerprint",
    "DtlsTransport",
    "IceCandidate",
    "IceCandidateError",
    "IceParameters",
    "IceTimers",
    "IceTransport",
    "IceUrl",
    "MediaPlayer",
    "MediaStreamError",
    "MediaStreamTrack",
    "RemoteStreamTrack",
    "RemoteTrack",
    "RtpReceiver",
    "RtpSender",
    "SctpTransport",
    "SelectedPair",
    "VideoStreamTrack",
    "parse_ice_url",
]
