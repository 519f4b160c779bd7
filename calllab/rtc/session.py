"""The inside of a peer connection: it carries out what the JSEP core asks for.

Everything that the core says is done at once or handed to one of two owned tasks: *transport* starts DTLS
once ICE is through and then keeps senders, receivers and data channels in step with what is negotiated;
*teardown* takes everything down.  Media follows only what is in force, never an offer that may yet be
rolled back.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from calllab._aiortc import (
    DatagramInterface,
    DtlsTransport,
    IceCandidateError,
    IceTransport,
)
from calllab._aiortc import entropy as default_entropy
from calllab._aiortc.ice_transport import IceGatheringState
from calllab.emitter import Emitter
from calllab.rtc import actions as do
from calllab.rtc.candidate_gate import CandidateGate
from calllab.rtc.configuration import RTCConfiguration
from calllab.rtc.description import RTCIceCandidate, RTCPeerConnectionIceErrorEvent
from calllab.rtc.errors import InvalidStateError
from calllab.rtc.jsep import JsepCore
from calllab.rtc.jsep_state import Negotiated
from calllab.rtc.operations import OperationsChain
from calllab.rtc.parameters import Fingerprint, ReceiveParameters, SendParameters, receives, sends
from calllab.rtc.peer_data import PeerData
from calllab.rtc.receiver import RTCRtpReceiver
from calllab.rtc.remote_tracks import RemoteTracks, TrackChanges
from calllab.rtc.sender import RTCRtpSender
from calllab.rtc.states import PeerConnectionState, connection_state
from calllab.rtc.statistics import MediaStats, RTCStatsReport, build_report, report_for
from calllab.rtc.transceiver import RTCRtpTransceiver
from calllab.rtc.transports import RTCDtlsTransport, RTCIceTransport

__all__ = ["PeerSession"]

logger = logging.getLogger(__name__)


class PeerSession:
    """Core, transports and transceivers of one peer connection, and the events it fires."""

    def __init__(
        self,
        events: Emitter,
        configuration: RTCConfiguration,
        interface: DatagramInterface | None,
        entropy: random.Random | None,
    ) -> None:
        self._events = events
        random_source = entropy or default_entropy()
        self.cname = str(uuid.UUID(int=random_source.getrandbits(128), version=4))
        self.ice = IceTransport(
            servers=configuration.iceServers,
            policy=configuration.iceTransportPolicy,
            interface=interface,
            entropy=entropy,
        )
        given = configuration.certificates
        self.dtls = DtlsTransport(self.ice, certificate=given[0].inner if given else None)
        self.ice_transport = RTCIceTransport(self.ice, lambda: self.core.state)
        self.dtls_transport = RTCDtlsTransport(self.dtls, self.ice_transport)
        self.data = PeerData(
            self.dtls,
            self.dtls_transport,
            lambda: self.core.state,
            lambda channel: self._tell(self._events, "datachannel", channel),
        )
        fingerprints = tuple(Fingerprint(f.algorithm, f.value) for f in self.dtls.fingerprints)
        self.core = JsepCore(random_source, fingerprints, self.cname)
        self._gate = CandidateGate()
        self.chain = OperationsChain(self._on_chain_empty)
        self.closed = False
        self.gathering_state = "new"
        self.ice_state = "new"
        self.connection_state: PeerConnectionState = "new"
        self._transceivers: dict[int, RTCRtpTransceiver] = {}
        self._remote = RemoteTracks()
        self._needs_negotiation = False
        self._check_when_empty = False
        self._media_changed = asyncio.Event()
        self._transport_task: asyncio.Task[None] | None = None
        self._teardown_task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.ice.on_candidate = self._on_candidate
        self.ice.on_candidate_error = self._on_candidate_error
        self.ice.on_state_change = self._on_ice_state_change
        self.ice.on_gathering_state_change = self._on_gathering_state_change
        self.ice.on_selected_pair_change = lambda: self._gate.pass_through(
            lambda: self._tell(self.ice_transport, "selectedcandidatepairchange")
        )
        self.dtls.on_state_change = self._on_dtls_state_change

    # Transceivers and channels

    @property
    def transceivers(self) -> list[RTCRtpTransceiver]:
        """The set of transceivers in creation order."""
        return [self._transceivers[state.id] for state in self.core.transceivers]

    def id_of(self, transceiver: RTCRtpTransceiver) -> int:
        """Return the core's id of a transceiver; raises InvalidStateError once it has been removed."""
        for id_, known in self._transceivers.items():
            if known is transceiver and self.core.state.transceiver(id_) is not None:
                return id_
        raise InvalidStateError("the transceiver was stopped: add another one")

    def _id_of_known(self, transceiver: RTCRtpTransceiver) -> int:
        return next((id_ for id_, known in self._transceivers.items() if known is transceiver), -1)

    def adopt(self, id_: int) -> RTCRtpTransceiver:
        """Return the object of a transceiver that the core knows, making it if it is new."""
        if id_ not in self._transceivers:
            self._transceivers[id_] = RTCRtpTransceiver(self, id_)
        return self._transceivers[id_]

    def stop_transceiver(self, transceiver: RTCRtpTransceiver) -> None:
        """Begin to stop a transceiver: it stops sending and receiving now, negotiation makes it final."""
        if transceiver.direction == "stopped":
            return
        changes = TrackChanges()
        self._perform(self.core.stop(self.id_of(transceiver)), changes)
        self._end_media(transceiver)
        self._remote.tell(changes, self._events)
        self._spawn(transceiver.sender.media.stop(), "the BYE of a stopping transceiver")
        self.update_negotiation_needed()

    def in_force(self, transceiver: RTCRtpTransceiver) -> Negotiated | None:
        """Return what a transceiver may act on: an offer that can be rolled back does not count."""
        state = self.core.state.transceiver(self._id_of_known(transceiver))
        if state is None or state.stopped:
            return None
        if self.core.state.stable is not None and self.core.signaling_state in (
            "have-local-offer",
            "have-remote-offer",
        ):
            return self.core.state.stable.of(state.id)
        return state.negotiated

    def receivable(self, transceiver: RTCRtpTransceiver) -> Negotiated | None:
        """Return what is described for a transceiver; None if the latest description receives nothing."""
        state = self.core.state.transceiver(self._id_of_known(transceiver))
        if state is None or state.stopped or transceiver.direction == "stopped":
            return None
        for applied in (self.core.state.pending_local, self.core.state.current_local):
            if applied is not None and (section := applied.session.section(state.mid)) is not None:
                return state.negotiated if receives(section.direction) else None
        return state.negotiated if receives(state.negotiated.fired_direction) else None

    def reduced_size(self, transceiver: RTCRtpTransceiver) -> bool:
        """Whether both sides agreed on reduced-size RTCP (RFC 5506)."""
        state = self.core.state
        sections = [
            applied.session.section(transceiver.mid)
            for applied in (state.current_local, state.current_remote)
            if applied is not None
        ]
        return len(sections) == 2 and all(section is not None and section.rtcp_rsize for section in sections)

    def transport_of(self, transceiver: RTCRtpTransceiver) -> RTCDtlsTransport | None:
        """Return the transport once a description of ours that is set has the transceiver's section."""
        state, mid = self.core.state, transceiver.mid
        described = [applied.session for applied in (state.pending_local, state.current_local) if applied]
        return self.dtls_transport if any(session.section(mid) for session in described) else None

    def statistics(
        self, *, sender: RTCRtpSender | None = None, receiver: RTCRtpReceiver | None = None
    ) -> RTCStatsReport:
        """Return the report of everything, or of what concerns one sender or receiver."""
        media = [MediaStats(t.mid, t.sender.media, t.receiver.media) for t in self.transceivers]
        report = build_report(ice=self.ice, dtls=self.dtls, media=media, channels=self.data.ledger)
        if sender is not None:
            return report_for(report, sender=sender.media)
        if receiver is not None:
            return report_for(report, receiver=receiver.media)
        return report

    # Negotiation needed (webrtc-pc 4.7.3)

    def refuse_if_closed(self, what: str) -> None:
        """Raise InvalidStateError on a closed connection."""
        if self.closed:
            raise InvalidStateError(f"{what} on a closed connection: make a new RTCPeerConnection")

    def update_negotiation_needed(self) -> None:
        """Check soon whether to fire negotiationneeded; not while operations run."""
        if self.closed:
            return
        if not self.chain.is_empty:
            self._check_when_empty = True
            return
        # In a browser whoever awaited the operation goes on before this event.
        asyncio.get_running_loop().call_soon(self._gate.pass_through, self._check_negotiation_needed)

    def _on_chain_empty(self) -> None:
        if self._check_when_empty:
            self._check_when_empty = False
            self.update_negotiation_needed()

    def _check_negotiation_needed(self) -> None:
        if self.closed:
            return
        if not self.chain.is_empty:
            self._check_when_empty = True
            return
        if self.core.signaling_state != "stable":
            return
        if not self.core.negotiation_needed():
            self._needs_negotiation = False
        elif not self._needs_negotiation:
            self._needs_negotiation = True
            self._events.emit("negotiationneeded")

    # Setting descriptions

    def begin_change(self, what: str) -> None:
        """Tell what the last description set in motion, before the next one changes everything.

        Raises InvalidStateError if a handler of that closes the connection.
        """
        self._gate.hurry()
        self.refuse_if_closed(what)

    def apply(self, change: Callable[[], tuple[do.Action, ...]], *, rolled_back: bool | None = None) -> None:
        """Let the core change, do what it asks for, and tell the application (webrtc-pc 4.4.1.5).

        ``rolled_back`` says that the change is a rollback, and whether it is an implicit one.
        """
        before = self.core.signaling_state
        requested = change()
        self._gate.close_for_a_moment()
        changes = TrackChanges()
        self._perform(requested, changes)
        changes.muted += self._follow_directions()
        if (closing := self.data.follow()) is not None:
            self._spawn(closing, "the end of an SCTP association")
        self._media_changed.set()
        if self.core.signaling_state == "stable":
            self._needs_negotiation = False
            self.update_negotiation_needed()
        if self.core.signaling_state != before:
            self._events.emit("signalingstatechange")
        if rolled_back is not None:
            self._events.emit("rollback", rolled_back)
        self._remote.tell(changes, self._events)

    def perform(self, requested: tuple[do.Action, ...]) -> None:
        """Do what the core asks for outside of descriptions."""
        self._perform(requested, TrackChanges())

    def _perform(self, requested: tuple[do.Action, ...], changes: TrackChanges) -> None:
        for action in requested:
            match action:
                case do.PrepareIce(credentials, offerer):
                    self.ice.prepare(credentials, offerer=offerer)
                case do.DiscardIce(credentials):
                    self._gate.drop_candidates()
                    self.ice.discard(credentials)
                case do.StartTransport():
                    self._start_transport(action)
                case do.AddRemoteCandidate(ufrag, candidate):
                    self.ice.add_remote_candidate(ufrag, candidate)
                case do.CreateTransceiver(id_, track_id):
                    transceiver = self.adopt(id_)
                    if track_id is not None:
                        transceiver.receiver.media.set_track_id(track_id)
                case do.StopTransceiver(id_):
                    self._stop(id_, changes)
                case do.SetRemoteStreams(id_, stream_ids):
                    self._remote.associate(id_, self._transceivers[id_], stream_ids, changes)
                case do.AddRemoteTrack(id_):
                    self._remote.start(id_, self._transceivers[id_], changes)
                case do.RemoveRemoteTrack(id_):
                    changes.muted.append(self._transceivers[id_])
                case do.ConfigureMedia():
                    self._media_changed.set()

    def _stop(self, id_: int, changes: TrackChanges) -> None:
        transceiver = self._transceivers.get(id_)
        if transceiver is None:
            return
        transceiver.sender.media.set_active(False)
        self._remote.stop(id_, transceiver, changes)
        self._spawn(self._stop_media(transceiver), f"stop of transceiver {id_}")

    @staticmethod
    def _end_media(transceiver: RTCRtpTransceiver) -> None:
        """Stop sending and receiving now, as far as anybody can see ("stop sending and receiving")."""
        transceiver.sender.media.set_active(False)
        transceiver.receiver.media.track.end()
        transceiver.receiver.media.set_active(False)

    async def _stop_media(self, transceiver: RTCRtpTransceiver) -> None:
        await transceiver.sender.media.stop()
        await transceiver.receiver.media.stop()
        known = {state.id for state in self.core.transceivers}
        self._transceivers = {
            id_: kept for id_, kept in self._transceivers.items() if id_ in known or kept is not transceiver
        }

    def _follow_directions(self) -> list[RTCRtpTransceiver]:
        """Let media flow as it is negotiated; return the transceivers whose receivers must fall silent."""
        silent: list[RTCRtpTransceiver] = []
        for state in self.core.transceivers:
            if state.stopping:
                continue
            transceiver = self._transceivers[state.id]
            negotiated = self.in_force(transceiver)
            current = negotiated.current_direction if negotiated is not None else None
            transceiver.sender.media.set_active(sends(current))
            # A pending offer that takes the track away mutes it already; one that brings it does not unmute
            # it.
            if receives(current) and receives(state.negotiated.fired_direction):
                transceiver.receiver.media.set_active(True)
            else:
                silent.append(transceiver)
        return silent

    # The transport task

    def _start_transport(self, start: do.StartTransport) -> None:
        self.ice.commit(start.local, start.remote, remote_lite=start.remote_lite, candidates=start.candidates)
        if self._transport_task is None:
            self._transport_task = asyncio.get_running_loop().create_task(
                self._run_transport(start), name="transport of a peer connection"
            )

    async def _run_transport(self, start: do.StartTransport) -> None:
        try:
            await self.dtls.start("client" if start.dtls_client else "server", start.fingerprints)
            while self.dtls.state == "connected":
                self._media_changed.clear()
                await self._configure_media()
                await self._media_changed.wait()
        except Exception:
            logger.exception("the transport of a peer connection failed")

    async def _configure_media(self) -> None:
        for transceiver in self.transceivers:
            negotiated = self.in_force(transceiver)
            if negotiated is None or negotiated.mid is None or transceiver.direction == "stopped":
                continue
            try:
                await self._configure_transceiver(transceiver, negotiated, negotiated.mid)
            except Exception:
                # Stopping may come between; what is stopped need not be configured.
                if self.in_force(transceiver) is not None:
                    logger.exception("%r could not be configured", transceiver)
        await self.data.start()

    async def _configure_transceiver(
        self, transceiver: RTCRtpTransceiver, negotiated: Negotiated, mid: str
    ) -> None:
        if receives(negotiated.current_direction):
            await transceiver.receiver.media.configure(
                ReceiveParameters(
                    mid,
                    negotiated.codecs,
                    negotiated.header_extensions,
                    negotiated.encodings,
                    negotiated.remote_cname,
                )
            )
        if sends(negotiated.current_direction):
            await transceiver.sender.media.configure(
                SendParameters(mid, self.cname, negotiated.codecs, negotiated.header_extensions)
            )

    # News from the transports

    def _on_candidate(self, ufrag: str, candidate: str | None) -> None:
        self._gate.pass_through(lambda: self._tell_candidate(ufrag, candidate), of_candidates=True)

    def _tell_candidate(self, ufrag: str, candidate: str | None) -> None:
        place = None if self.closed else self.core.add_local_candidate(ufrag, candidate)
        if place is not None:
            mid, index = place
            told = RTCIceCandidate(candidate or "", mid, index, ufrag)
            self._events.emit("icecandidate", told.from_server(self.ice.server_of(ufrag, told.candidate)))

    def _on_candidate_error(self, ufrag: str, error: IceCandidateError) -> None:
        event = RTCPeerConnectionIceErrorEvent(
            error.url, error.errorCode, error.errorText, error.address, error.port
        )
        self._gate.pass_through(lambda: self._tell(self._events, "icecandidateerror", event))

    def _on_gathering_state_change(self) -> None:
        state = self.ice.gathering_state
        self._gate.pass_through(lambda: self._tell_gathering_state(state), of_candidates=state == "complete")

    def _tell_gathering_state(self, state: IceGatheringState) -> None:
        if self.closed or state == self.gathering_state:
            return
        self.gathering_state = state
        self.ice_transport.tell_gathering_state(state)
        self._events.emit("icegatheringstatechange")
        if state == "complete":
            self._events.emit("icecandidate", None)

    def _on_ice_state_change(self) -> None:
        state = self.ice.state
        self._gate.pass_through(lambda: self._tell_states(lambda: self.ice_transport.tell_state(state)))

    def _on_dtls_state_change(self) -> None:
        state = self.dtls.state
        self._gate.pass_through(lambda: self._tell_states(lambda: self.dtls_transport.tell_state(state)))

    def _tell_states(self, change: Callable[[], None]) -> None:
        # What a description sets in motion is news of its own, after the caller of that went on.
        if self.closed:
            return
        change()
        if self.ice_transport.state != self.ice_state:
            self.ice_state = self.ice_transport.state
            self._events.emit("iceconnectionstatechange")
        state = connection_state(self.ice_transport.state, self.dtls_transport.state, closed=self.closed)
        if state != self.connection_state:
            self.connection_state = state
            self._events.emit("connectionstatechange")

    def _tell(self, emitter: Emitter | None, event: str, *arguments: Any) -> None:
        if emitter is not None and not self.closed:
            emitter.emit(event, *arguments)

    # The end

    def close(self) -> asyncio.Task[None]:
        """Close at once what the application sees, and return the task that takes down the rest."""
        self._events.spare_handler()
        if self._teardown_task is None:
            self.closed = True
            self.chain.close()
            for transceiver in self._transceivers.values():
                self._end_media(transceiver)
            self._gate.drop()
            self.data.shut()
            self.dtls_transport.shut()
            self.ice_transport.shut()
            self.ice_state = "closed"
            self.connection_state = "closed"
            self._teardown_task = asyncio.get_running_loop().create_task(
                self._tear_down(), name="teardown of a peer connection"
            )
        return self._teardown_task

    async def _tear_down(self) -> None:
        transceivers = list(self._transceivers.values())
        pending = [*self._tasks]
        if self._transport_task is not None:
            self._transport_task.cancel()
            pending.append(self._transport_task)
        steps: list[tuple[str, Coroutine[Any, Any, Any]]] = []
        steps.append(("SCTP", self.data.stop()))
        steps += [("media", self._stop_media(known)) for known in transceivers]
        steps += [("DTLS", self.dtls.stop()), ("ICE", self.ice.close())]
        await asyncio.gather(*pending, return_exceptions=True)
        for what, step in steps:
            try:
                await step
            except Exception:
                logger.exception("closing %s failed", what)
        await self._events.cancel_handlers()

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("%s failed", name, exc_info=error)

        task.add_done_callback(done)
