"""RTCPeerConnection (W3C webrtc-pc section 4.4)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast, get_args

from calllab._aiortc import DatagramInterface, MediaStreamTrack
from calllab.emitter import Emitter, EventHandler
from calllab.rtc.certificate import RTCCertificate
from calllab.rtc.configuration import RTCConfiguration
from calllab.rtc.datachannel import RTCDataChannel, check_data_channel_types
from calllab.rtc.description import RTCIceCandidate, RTCSessionDescription
from calllab.rtc.encodings import initial_encodings
from calllab.rtc.errors import InvalidAccessError
from calllab.rtc.jsep_state import Applied
from calllab.rtc.mediastream import MediaStream, ids_of
from calllab.rtc.parameters import Direction, Kind, SdpType
from calllab.rtc.receiver import RTCRtpReceiver
from calllab.rtc.sender import RTCRtpSender
from calllab.rtc.session import PeerSession
from calllab.rtc.states import PeerConnectionState
from calllab.rtc.statistics import RTCStatsReport
from calllab.rtc.transceiver import RTCRtpTransceiver
from calllab.rtc.transports import RTCSctpTransport

__all__ = ["RTCPeerConnection"]


class RTCPeerConnection(Emitter):
    """One end of a WebRTC connection, in the shape of the browser's.

    Events, by :meth:`on` or by attributes such as ``ontrack``: ``negotiationneeded``, ``icecandidate`` (an
    RTCIceCandidate; None when gathering is complete), ``icecandidateerror``, ``signalingstatechange``,
    ``icegatheringstatechange``, ``iceconnectionstatechange``, ``connectionstatechange``, ``track`` (track,
    receiver, transceiver, streams), ``datachannel`` (channel), and one of ours: ``rollback`` (whether it was
    implicit).  A handler sees the state already changed.

    Needs a running event loop.  ``interface`` is the network interface that all datagrams pass (None: the
    host's sockets); ``entropy`` is the source of everything random (None: the operating system's).
    """

    onnegotiationneeded = EventHandler()
    onicecandidate = EventHandler()
    onicecandidateerror = EventHandler()
    onsignalingstatechange = EventHandler()
    onicegatheringstatechange = EventHandler()
    oniceconnectionstatechange = EventHandler()
    onconnectionstatechange = EventHandler()
    ontrack = EventHandler()
    ondatachannel = EventHandler()

    def __init__(
        self,
        configuration: RTCConfiguration | Mapping[str, Any] | None = None,
        *,
        interface: DatagramInterface | None = None,
        entropy: random.Random | None = None,
    ) -> None:
        super().__init__()
        self._configuration = RTCConfiguration.of(configuration)
        self._configuration.validate()
        self._session = PeerSession(self, self._configuration, interface, entropy)
        self._shown: dict[Applied, RTCSessionDescription] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # State

    @property
    def signalingState(self) -> str:
        """The W3C RTCSignalingState."""
        return "closed" if self._session.closed else self._session.core.signaling_state

    @property
    def iceGatheringState(self) -> str:
        """``new``, ``gathering`` or ``complete``."""
        return self._session.gathering_state

    @property
    def iceConnectionState(self) -> str:
        """The W3C RTCIceConnectionState."""
        return self._session.ice_state

    @property
    def connectionState(self) -> PeerConnectionState:
        """The W3C RTCPeerConnectionState."""
        return self._session.connection_state

    @property
    def negotiationIsNeeded(self) -> bool:
        """Whether an offer would change something (ours; the result of webrtc-pc section 4.7.3's check)."""
        return not self._session.closed and self._session.core.negotiation_needed()

    @property
    def canTrickleIceCandidates(self) -> bool | None:
        """Whether the peer takes candidates after its description; None before it has said."""
        state = self._session.core.state
        applied = state.pending_remote or state.current_remote
        if applied is None:
            return None
        return any("trickle" in section.ice_options for section in applied.session.media)

    @property
    def sctp(self) -> RTCSctpTransport | None:
        """The SCTP transport, None until data channels are negotiated."""
        return self._session.data.transport

    @property
    def currentLocalDescription(self) -> RTCSessionDescription | None:
        """Our description that was last agreed on, with the candidates gathered since."""
        return self._show(self._session.core.state.current_local)

    @property
    def pendingLocalDescription(self) -> RTCSessionDescription | None:
        """Our description that waits for its answer."""
        return self._show(self._session.core.state.pending_local)

    @property
    def currentRemoteDescription(self) -> RTCSessionDescription | None:
        """The peer's description that was last agreed on."""
        return self._show(self._session.core.state.current_remote)

    @property
    def pendingRemoteDescription(self) -> RTCSessionDescription | None:
        """The peer's description that waits for its answer."""
        return self._show(self._session.core.state.pending_remote)

    @property
    def localDescription(self) -> RTCSessionDescription | None:
        """Our pending description, else the current one."""
        return self.pendingLocalDescription or self.currentLocalDescription

    @property
    def remoteDescription(self) -> RTCSessionDescription | None:
        """The peer's pending description, else the current one."""
        return self.pendingRemoteDescription or self.currentRemoteDescription

    # Offer and answer

    def createOffer(
        self,
        *,
        iceRestart: bool = False,
        offerToReceiveAudio: bool | None = None,
        offerToReceiveVideo: bool | None = None,
    ) -> Coroutine[Any, Any, RTCSessionDescription]:
        """Make an offer; it takes effect when it is set.

        ``iceRestart`` gives it new ICE credentials.  ``offerToReceiveAudio`` and ``offerToReceiveVideo`` are
        the legacy options of webrtc-pc 4.4.3.2: True adds a transceiver if none would receive that kind,
        False lets those that receive only send.
        """
        if not self._session.closed:
            self._offer_to_receive("audio", offerToReceiveAudio)
            self._offer_to_receive("video", offerToReceiveVideo)

        async def operation() -> RTCSessionDescription:
            return RTCSessionDescription("offer", self._session.core.create_offer(ice_restart=iceRestart))

        return self._session.chain.run("createOffer", operation)

    def createAnswer(self) -> Coroutine[Any, Any, RTCSessionDescription]:
        """Make an answer to the remote offer; it takes effect when it is set."""

        async def operation() -> RTCSessionDescription:
            return RTCSessionDescription("answer", self._session.core.create_answer())

        return self._session.chain.run("createAnswer", operation)

    def setLocalDescription(
        self, description: RTCSessionDescription | Mapping[str, Any] | None = None
    ) -> Coroutine[Any, Any, None]:
        """Set an offer or answer of ours, or ``{"type": "rollback"}``; without a text make the right one.

        Without a type, the signaling state decides whether it is an offer or an answer.  Raises
        InvalidStateError, or InvalidModificationError if the text is not what was created last.
        """
        init = {} if description is None else description
        typed = True
        if isinstance(init, Mapping) and "type" not in init:
            init, typed = {"type": "offer", **init}, False
        given = RTCSessionDescription.of(init)

        async def operation() -> None:
            self._session.begin_change("setLocalDescription()")
            core = self._session.core
            by_state: SdpType = "answer" if core.signaling_state in _ANSWERING else "offer"
            type_ = given.type if typed else by_state
            if type_ == "rollback":
                self._session.apply(lambda: core.rollback("local"), rolled_back=False)
            else:
                self._session.apply(lambda: core.set_local(type_, given.sdp or None))

        return self._session.chain.run("setLocalDescription", operation)

    def setRemoteDescription(
        self, description: RTCSessionDescription | Mapping[str, Any]
    ) -> Coroutine[Any, Any, None]:
        """Set a description of the peer's; an offer rolls a pending one of ours back first.

        Raises InvalidStateError, SdpError (it is not SDP) or InvalidAccessError (it does not fit the
        session).
        """
        given = RTCSessionDescription.of(description)

        async def operation() -> None:
            self._session.begin_change("setRemoteDescription()")
            core = self._session.core
            if given.type == "rollback":
                self._session.apply(lambda: core.rollback("remote"), rolled_back=False)
                return
            if given.type == "offer" and core.signaling_state == "have-local-offer":
                self._session.apply(lambda: core.rollback("local"), rolled_back=True)
            self._session.apply(lambda: core.set_remote(given.type, given.sdp))

        return self._session.chain.run("setRemoteDescription", operation)

    def addIceCandidate(
        self, candidate: RTCIceCandidate | Mapping[str, Any] | None = None
    ) -> Awaitable[None]:
        """Add a candidate of the peer's; None or an empty candidate is the end of candidates.

        Raises TypeError if it does not say where it belongs, InvalidStateError without a remote description,
        OperationError if it belongs to nothing that was described.
        """
        init = _candidate_init(candidate)

        async def operation() -> None:
            self._session.perform(self._session.core.add_remote_candidate(init))

        return self._session.chain.run("addIceCandidate", operation)

    def restartIce(self) -> None:
        """Ask for new ICE credentials and candidates: negotiationneeded fires if something is negotiated."""
        if not self._session.closed:
            self._session.core.restart_ice()
            self._session.update_negotiation_needed()

    # Configuration

    def getConfiguration(self) -> RTCConfiguration:
        """Return the configuration in force."""
        return self._configuration

    def setConfiguration(self, configuration: RTCConfiguration | Mapping[str, Any] | None = None) -> None:
        """Use other ICE servers or another policy from the next gathering on: the next offer restarts ICE if
        they differ, and nothing asks for that offer (RFC 9429 section 4.1.18).
        """
        self._session.refuse_if_closed("setConfiguration()")
        before = self._configuration
        self._configuration = changed = before.changed_to(RTCConfiguration.of(configuration))
        if not changed.gathers_like(before):
            self._session.core.outdate_ice()
        self._session.ice.configure(changed.iceServers, changed.iceTransportPolicy)

    @staticmethod
    async def generateCertificate(keygenAlgorithm: str | Mapping[str, Any]) -> RTCCertificate:
        """Make a certificate for a configuration; see :meth:`RTCCertificate.generate`."""
        return RTCCertificate.generate(keygenAlgorithm)

    # Media

    def getTransceivers(self) -> list[RTCRtpTransceiver]:
        """Return the transceivers that are not stopped for good, in creation order."""
        return self._session.transceivers

    def getSenders(self) -> list[RTCRtpSender]:
        """Return the senders of all transceivers that are not stopped."""
        return [transceiver.sender for transceiver in self._unstopped()]

    def getReceivers(self) -> list[RTCRtpReceiver]:
        """Return the receivers of all transceivers that are not stopped."""
        return [transceiver.receiver for transceiver in self._unstopped()]

    def addTrack(self, track: MediaStreamTrack, *streams: MediaStream) -> RTCRtpSender:
        """Send a track, over a transceiver that never sent if there is one; return its sender.

        Raises InvalidAccessError if the track is being sent already.
        """
        kind = _kind_of(track)
        stream_ids = ids_of(streams)
        self._session.refuse_if_closed("addTrack()")
        if any(sender.track is track for sender in self.getSenders()):
            raise InvalidAccessError(f"track {track.id} is being sent already: one sender a track")
        id_ = self._session.core.add_track(kind, track.id, stream_ids)
        sender = self._session.adopt(id_).sender
        sender.use(track)
        self._session.update_negotiation_needed()
        return sender

    def removeTrack(self, sender: RTCRtpSender) -> None:
        """Stop sending a track; its transceiver remains.

        Raises InvalidAccessError for the sender of another connection.
        """
        if not isinstance(sender, RTCRtpSender):
            raise TypeError(f"an RTCRtpSender is needed, not {type(sender).__name__}")
        self._session.refuse_if_closed("removeTrack()")
        if not sender.belongs_to(self._session):
            raise InvalidAccessError("the sender belongs to another RTCPeerConnection")
        transceiver = sender.transceiver
        if sender.track is None or transceiver.direction == "stopped":
            return
        sender.use(None)
        self._session.core.remove_track(self._session.id_of(transceiver))
        self._session.update_negotiation_needed()

    def addTransceiver(
        self,
        kind_or_track: str | MediaStreamTrack,
        *,
        direction: Direction = "sendrecv",
        streams: Sequence[MediaStream] = (),
        sendEncodings: Sequence[Mapping[str, Any]] = (),
    ) -> RTCRtpTransceiver:
        """Add a transceiver for a track, or for a kind of media without one.

        There is no simulcast: of several encodings the first is kept.  Raises TypeError for an unknown kind
        or direction, and what :func:`~calllab.rtc.encodings.initial_encodings` raises.
        """
        track = None if isinstance(kind_or_track, str) else kind_or_track
        kind = _check_kind(kind_or_track) if isinstance(kind_or_track, str) else _kind_of(kind_or_track)
        if direction not in get_args(Direction):
            raise TypeError(f"a direction is one of {', '.join(get_args(Direction))}, not {direction!r}")
        stream_ids = ids_of(streams)
        self._session.refuse_if_closed("addTransceiver()")
        encodings = initial_encodings(kind, sendEncodings)
        id_ = self._session.core.add_transceiver(
            kind,
            direction,
            track_id=track.id if track is not None else None,
            stream_ids=stream_ids,
        )
        transceiver = self._session.adopt(id_)
        transceiver.sender.encode(encodings)
        if track is not None:
            transceiver.sender.use(track)
        self._session.update_negotiation_needed()
        return transceiver

    def _unstopped(self) -> list[RTCRtpTransceiver]:
        return [known for known in self._session.transceivers if known.currentDirection != "stopped"]

    def _offer_to_receive(self, kind: Kind, wanted: bool | None) -> None:
        """Follow one legacy option; it does not ask for negotiation, the offer is being made already."""
        alive = [known for known in self._session.transceivers if known.kind == kind]
        core, id_of = self._session.core, self._session.id_of
        if wanted is False:
            for transceiver in alive:
                if transceiver.direction in ("sendrecv", "recvonly"):
                    left: Direction = "sendonly" if transceiver.direction == "sendrecv" else "inactive"
                    core.set_direction(id_of(transceiver), left)
        elif wanted and all(known.direction not in ("sendrecv", "recvonly") for known in alive):
            self._session.adopt(core.add_transceiver(kind, "recvonly"))

    # Data

    def createDataChannel(
        self,
        label: str,
        *,
        ordered: bool = True,
        maxPacketLifeTime: int | None = None,
        maxRetransmits: int | None = None,
        protocol: str = "",
        negotiated: bool = False,
        id: int | None = None,
    ) -> RTCDataChannel:
        """Make a data channel; it opens when the connection is up.

        Raises InvalidStateError on a closed connection, TypeError for bad arguments, OperationError if the id
        is in use or too high, or none is left.
        """
        check_data_channel_types(label, protocol, maxPacketLifeTime, maxRetransmits, id)
        self._session.refuse_if_closed("createDataChannel()")
        channel = self._session.data.create(
            label,
            ordered=ordered,
            maxPacketLifeTime=maxPacketLifeTime,
            maxRetransmits=maxRetransmits,
            protocol=protocol,
            negotiated=negotiated,
            id=id,
        )
        self._session.core.want_data_channel()
        self._session.update_negotiation_needed()
        return channel

    # Statistics and end

    async def getStats(self, selector: MediaStreamTrack | None = None) -> RTCStatsReport:
        """Return the statistics of everything, or of the one sender or receiver that has this track.

        Raises InvalidAccessError if no sender or receiver has it, or more than one.
        """
        if selector is None:
            return self._session.statistics()
        if not isinstance(selector, MediaStreamTrack):
            raise TypeError(f"a selector is a MediaStreamTrack, not {type(selector).__name__}")
        senders = [sender for sender in self.getSenders() if sender.track is selector]
        receivers = [receiver for receiver in self.getReceivers() if receiver.track is selector]
        if len(senders) + len(receivers) != 1:
            raise InvalidAccessError(
                f"{len(senders) + len(receivers)} senders and receivers have track {selector.id}, not one"
            )
        return await senders[0].getStats() if senders else await receivers[0].getStats()

    def close(self) -> Awaitable[None]:
        """Close the connection: ``signalingState`` is "closed" at once; await the result to have all taken
        down.

        Closing twice does nothing.  As in the browser, no event tells the application of its own closing.
        """
        return asyncio.shield(self._session.close())

    def _show(self, applied: Applied | None) -> RTCSessionDescription | None:
        if applied is None:
            return None
        text = self._session.core.text(applied)
        shown = self._shown.get(applied)
        if shown is None or shown.sdp != text:
            state = self._session.core.state
            kept = (state.current_local, state.pending_local, state.current_remote, state.pending_remote)
            self._shown = {key: value for key, value in self._shown.items() if key in kept}
            shown = self._shown[applied] = RTCSessionDescription(applied.type, text)
        return shown


_ANSWERING = ("have-remote-offer", "have-local-pranswer")


def _check_kind(kind: str) -> Kind:
    if kind not in get_args(Kind):
        raise TypeError(f'media is "audio" or "video", not {kind!r}')
    return cast("Kind", kind)


def _kind_of(track: MediaStreamTrack) -> Kind:
    if not isinstance(track, MediaStreamTrack):
        raise TypeError(f"a MediaStreamTrack is needed, not {type(track).__name__}")
    return _check_kind(track.kind)


def _candidate_init(candidate: RTCIceCandidate | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the RTCIceCandidateInit of any form; raises TypeError as in webrtc-pc 4.4.2."""
    if candidate is None:
        return {"candidate": ""}
    if isinstance(candidate, RTCIceCandidate):
        return candidate.toJSON()
    if not isinstance(candidate, Mapping):
        raise TypeError(f"a candidate is needed, not {type(candidate).__name__}")
    init = dict(candidate)
    text = init.get("candidate") or ""
    mid, index, ufrag = init.get("sdpMid"), init.get("sdpMLineIndex"), init.get("usernameFragment")
    # The end of candidates may leave its place away, which no candidate may; types are checked the same.
    RTCIceCandidate(text, mid if mid is not None or index is not None or text else "", index, ufrag)
    return init
