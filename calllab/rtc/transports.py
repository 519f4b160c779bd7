"""The transports of a peer connection as applications see them (webrtc-pc sections 5.5, 5.6, 6.1)."""

from __future__ import annotations

from dataclasses import dataclass

from calllab._aiortc import DtlsTransport, IceTransport, SctpTransport
from calllab.rtc.description import RTCIceCandidate
from calllab.rtc.emitter import Emitter

__all__ = [
    "RTCDtlsTransport",
    "RTCIceCandidatePair",
    "RTCIceParameters",
    "RTCIceTransport",
    "RTCSctpTransport",
]


@dataclass(frozen=True, slots=True)
class RTCIceCandidatePair:
    """The two ends of the path that is in use."""

    local: RTCIceCandidate
    remote: RTCIceCandidate


@dataclass(frozen=True, slots=True)
class RTCIceParameters:
    """The ICE credentials of one side."""

    usernameFragment: str
    password: str


class RTCIceTransport(Emitter):
    """The ICE transport (``statechange``, ``gatheringstatechange``, ``selectedcandidatepairchange``)."""

    def __init__(self, ice: IceTransport) -> None:
        super().__init__()
        self._ice = ice
        self.component = "rtp"

    @property
    def role(self) -> str:
        """``controlling``, ``controlled``, or ``unknown`` before the first description."""
        return self._ice.role

    @property
    def state(self) -> str:
        """The W3C RTCIceTransportState."""
        return self._ice.state

    @property
    def gatheringState(self) -> str:
        """``new``, ``gathering`` or ``complete``."""
        return self._ice.gathering_state

    def getLocalCandidates(self) -> list[RTCIceCandidate]:
        """Return the candidates that were gathered for the current generation."""
        return [_candidate(text) for text in self._ice.local_candidates]

    def getRemoteCandidates(self) -> list[RTCIceCandidate]:
        """Return the candidates that the peer sent for the current generation."""
        return [_candidate(text) for text in self._ice.remote_candidates]

    def getSelectedCandidatePair(self) -> RTCIceCandidatePair | None:
        """Return the pair that carries the packets, None before there is one."""
        pair = self._ice.selected_pair
        if pair is None:
            return None
        return RTCIceCandidatePair(_candidate(_text(pair.local)), _candidate(_text(pair.remote)))

    def getLocalParameters(self) -> RTCIceParameters | None:
        """Return our credentials, None before there are any."""
        found = self._ice.local_credentials
        return None if found is None else RTCIceParameters(found.usernameFragment, found.password)

    def getRemoteParameters(self) -> RTCIceParameters | None:
        """Return the peer's credentials, None before they are known."""
        found = self._ice.remote_credentials
        return None if found is None else RTCIceParameters(found.usernameFragment, found.password)


class RTCDtlsTransport(Emitter):
    """The DTLS transport; event ``statechange``."""

    def __init__(self, dtls: DtlsTransport, ice_transport: RTCIceTransport) -> None:
        super().__init__()
        self._dtls = dtls
        self.iceTransport = ice_transport

    @property
    def state(self) -> str:
        """``new``, ``connecting``, ``connected``, ``closed`` or ``failed``."""
        return self._dtls.state


class RTCSctpTransport(Emitter):
    """The SCTP transport; event ``statechange``."""

    def __init__(self, sctp: SctpTransport, transport: RTCDtlsTransport) -> None:
        super().__init__()
        self._sctp = sctp
        self.transport = transport

    @property
    def state(self) -> str:
        """``connecting``, ``connected`` or ``closed``."""
        return self._sctp.state

    @property
    def maxMessageSize(self) -> float:
        """The largest message that the peer takes, in bytes; infinite if it says so."""
        return self._sctp.max_message_size

    @property
    def maxChannels(self) -> int | None:
        """How many channels can be open at a time, None before the transport is connected."""
        return self._sctp.max_channels


def _candidate(text: str) -> RTCIceCandidate:
    return RTCIceCandidate(text, sdpMLineIndex=0)


def _text(candidate: object) -> str:
    return str(candidate)
