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
    UnsupportedIceUrl,
    parse_ice_url,
)
from calllab._aiortc.certificates import Certificate, DtlsFingerprint  # noqa: E402
from calllab._aiortc.channel_ledger import ChannelLedger  # noqa: E402
from calllab._aiortc.data import DataChannel, DataError, SctpTransport  # noqa: E402
from calllab._aiortc.datagrams import Address, DatagramHost, DatagramInterface, Deliver  # noqa: E402
from calllab._aiortc.dtls import DtlsTransport  # noqa: E402
from calllab._aiortc.encoding import EncodingLimits  # noqa: E402
from calllab._aiortc.ice_transport import IceParameters, IceTransport  # noqa: E402
from calllab._aiortc.liveness import IceTimers  # noqa: E402
from calllab._aiortc.rtp_receiver import HeardSource, RtpReceiver  # noqa: E402
from calllab._aiortc.rtp_sender import RtpSender  # noqa: E402
from calllab._aiortc.simulated import entropy, new_uuid, simulated_loop, wall_time  # noqa: E402
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
    "ChannelLedger",
    "DataChannel",
    "DataError",
    "DatagramHost",
    "DatagramInterface",
    "Deliver",
    "DtlsFingerprint",
    "DtlsTransport",
    "EncodingLimits",
    "HeardSource",
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
    "UnsupportedIceUrl",
    "VideoStreamTrack",
    "entropy",
    "new_uuid",
    "parse_ice_url",
    "simulated_loop",
    "wall_time",
]
