"""The transports of a peer connection as applications see them (webrtc-pc sections 5.5, 5.6, 6.1).

Everything is bundled, so there is one of each; the objects are the same for the life of the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from calllab._aiortc import DtlsTransport, IceTransport, SctpTransport, SelectedPair
from calllab._aiortc.dtls import DtlsState
from calllab._aiortc.ice_transport import IceGatheringState, IceState
from calllab.emitter import Emitter, EventHandler
from calllab.rtc.description import RTCIceCandidate
from calllab.rtc.jsep_state import Applied, IceCandidates, JsepState
from calllab.rtc.transport_errors import RTCError, RTCErrorEvent

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


class _Transport(Emitter):
    """A transport whose connection may be closed: then its state is so at once, and it tells nothing."""

    onstatechange = EventHandler()

    def __init__(self) -> None:
        super().__init__()
        self._closed = False

    def shut(self) -> None:
        """The connection is being closed (for calllab's own use)."""
        self._closed = True


class RTCIceTransport(_Transport):
    """The ICE transport.

    Events: ``statechange``, ``gatheringstatechange``, ``selectedcandidatepairchange``.
    """

    ongatheringstatechange = EventHandler()
    onselectedcandidatepairchange = EventHandler()

    def __init__(self, ice: IceTransport, descriptions: Callable[[], JsepState]) -> None:
        super().__init__()
        self._ice = ice
        self._descriptions = descriptions
        self._state, self._gathering = ice.state, ice.gathering_state
        self._pair: tuple[SelectedPair, RTCIceCandidatePair] | None = None
        self.component: Literal["rtp"] = "rtp"

    @property
    def role(self) -> str:
        """``controlling``, ``controlled``, or ``unknown`` before the first description."""
        return self._ice.role

    @property
    def state(self) -> IceState:
        """The W3C RTCIceTransportState, as it was told last."""
        return "closed" if self._closed else self._state

    @property
    def gatheringState(self) -> str:
        """``new``, ``gathering`` or ``complete``, as it was told last."""
        return self._gathering

    def tell_state(self, state: IceState) -> None:
        """Change the state, and fire what that fires (for calllab's own use)."""
        if state != self._state:
            self._state = state
            self.emit("statechange")

    def tell_gathering_state(self, state: IceGatheringState) -> None:
        """Change the gathering state, and fire what that fires (for calllab's own use)."""
        if state != self._gathering:
            self._gathering = state
            self.emit("gatheringstatechange")

    def getLocalCandidates(self) -> list[RTCIceCandidate]:
        """Return what was gathered for the newest local description."""
        state = self._descriptions()
        return _candidates(_local(state), state.local_candidates)

    def getRemoteCandidates(self) -> list[RTCIceCandidate]:
        """Return what the peer named for the newest remote description."""
        state = self._descriptions()
        return _candidates(_remote(state), state.remote_candidates)

    def getSelectedCandidatePair(self) -> RTCIceCandidatePair | None:
        """Return the pair that carries the packets, the same object while it does; None without one."""
        pair = None if self._closed else self._ice.selected_pair
        if pair is None:
            return None
        if self._pair is None or self._pair[0] != pair:
            state = self._descriptions()
            local = _of_generation(pair.local_ufrag, state.current_local, state.pending_local)
            remote = _of_generation(pair.remote_ufrag, state.current_remote, state.pending_remote)
            self._pair = (
                pair,
                RTCIceCandidatePair(
                    _candidate(local, str(pair.local), pair.local_ufrag),
                    _candidate(remote, str(pair.remote), pair.remote_ufrag),
                ),
            )
        return self._pair[1]

    def getLocalParameters(self) -> RTCIceParameters | None:
        """Return our credentials in the newest local description, None before there is one."""
        return _parameters(_local(self._descriptions()))

    def getRemoteParameters(self) -> RTCIceParameters | None:
        """Return the peer's credentials in the newest remote description, None before there is one."""
        return _parameters(_remote(self._descriptions()))


class RTCDtlsTransport(_Transport):
    """The DTLS transport; events ``statechange`` and, before it when it failed, ``error``."""

    onerror = EventHandler()

    def __init__(self, dtls: DtlsTransport, ice_transport: RTCIceTransport) -> None:
        super().__init__()
        self._dtls = dtls
        self._state: DtlsState = dtls.state
        self.iceTransport = ice_transport

    @property
    def state(self) -> DtlsState:
        """``new``, ``connecting``, ``connected``, ``closed`` or ``failed``, as it was told last."""
        return "closed" if self._closed else self._state

    def getRemoteCertificates(self) -> list[bytes]:
        """Return the peer's certificate chain (DER), empty before the handshake."""
        return self._dtls.remote_certificates

    def tell_state(self, state: DtlsState) -> None:
        """Change the state, and fire what that fires (for calllab's own use)."""
        if state == self._state:
            return
        self._state = state
        if state == "failed":
            detail = self._dtls.error_detail
            self.emit("error", RTCErrorEvent(RTCError(self._dtls.error_text or "DTLS failed", detail)))
        self.emit("statechange")


class RTCSctpTransport(_Transport):
    """The SCTP transport; event ``statechange``."""

    def __init__(self, sctp: SctpTransport, transport: RTCDtlsTransport) -> None:
        super().__init__()
        self._sctp = sctp
        self.transport = transport

    @property
    def state(self) -> str:
        """``connecting``, ``connected`` or ``closed``."""
        return "closed" if self._closed else self._sctp.state

    @property
    def maxMessageSize(self) -> float:
        """The largest message that can be sent, in bytes: what the peer takes, and 16 MiB at most."""
        return self._sctp.max_message_size

    @property
    def maxChannels(self) -> int | None:
        """How many channels can be open at a time, None before the transport is connected."""
        return self._sctp.max_channels

    def tell_state(self) -> None:
        """Fire what a change of state fires (for calllab's own use)."""
        self.emit("statechange")


def _local(state: JsepState) -> Applied | None:
    return state.pending_local or state.current_local


def _remote(state: JsepState) -> Applied | None:
    return state.pending_remote or state.current_remote


def _of_generation(ufrag: str, *applied: Applied | None) -> Applied | None:
    """Return the description that has these credentials; if it was replaced, the first that there is."""
    known = [description for description in applied if description is not None]
    return next((description for description in known if description.ufrag == ufrag), next(iter(known), None))


def _candidate(applied: Applied | None, line: str, ufrag: str | None) -> RTCIceCandidate:
    tagged = applied.tagged if applied is not None else None
    if applied is None or tagged is None:
        return RTCIceCandidate(line, sdpMLineIndex=0, usernameFragment=ufrag)
    return RTCIceCandidate(line, tagged.mid, applied.session.media.index(tagged), ufrag)


def _candidates(applied: Applied | None, known: Sequence[IceCandidates]) -> list[RTCIceCandidate]:
    if applied is None:
        return []
    found = next((entry for entry in known if entry.ufrag == applied.ufrag), None)
    return (
        [_candidate(applied, line, applied.ufrag) for line in found.candidates] if found is not None else []
    )


def _parameters(applied: Applied | None) -> RTCIceParameters | None:
    tagged = applied.tagged if applied is not None else None
    if tagged is None or tagged.ice is None:
        return None
    return RTCIceParameters(tagged.ice.ufrag, tagged.ice.pwd)
