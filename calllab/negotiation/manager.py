"""One peer connection, negotiated perfectly over a signaling channel and brought back when its path dies."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, cast

from calllab.errors import SignalingError, TurnError, TurnUnauthorized
from calllab.negotiation.negotiator import (
    AddIceCandidate,
    Command,
    Description,
    Notice,
    Operation,
    PerfectNegotiator,
    SendDescription,
    SetLocalDescription,
    SetRemoteDescription,
    Surface,
)
from calllab.rtc import (
    DatagramInterface,
    MediaStream,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from calllab.rtc.parameters import SignalingState

__all__ = ["PeerConnectionConfig", "PeerConnectionManager", "create_peer_connection"]

logger = logging.getLogger(__name__)

# Chromium and Firefox say "disconnected" for interruptions of a few seconds that pass by themselves.
DISCONNECTED_GRACE_S = 3.0
LONGEST_PAUSE_S = 30.0
"""Restarts that do not help are made after 1, 2, 4 s and so on, up to this."""

Handler: TypeAlias = Callable[[Any], Awaitable[None] | None]
Observer: TypeAlias = Callable[[str, Mapping[str, Any]], None]


class Signaling(Protocol):
    """What the manager needs of a signaling channel."""

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one message of the wire protocol; per recipient the order is kept."""


class TurnCredentialSource(Protocol):
    """What :func:`create_peer_connection` needs of a TURN credential service."""

    async def get_credentials(self) -> Any:
        """Return an object with ``username``, ``password``, ``ttl`` and ``uris``."""


@dataclass(frozen=True, kw_only=True)
class PeerConnectionConfig:
    """How to make one peer connection of a call."""

    is_polite: bool
    """Whether this peer takes its own offer back on glare (the callee of the call)."""
    on_track: Handler
    """Called with the MediaStream of each remote track that starts; function or coroutine."""
    on_ice_connection_state_change: Handler
    """Called with the new ICE connection state; function or coroutine."""
    signaling: Signaling
    """Where descriptions and candidates go."""
    call_id: str
    """The call to which all signaling messages of this connection belong."""
    remote_user_id: str
    """The recipient of all signaling messages."""
    turn_api: TurnCredentialSource | None = None
    """Where TURN credentials come from; None: no ICE servers at all, never a public default."""
    ice_transport_policy: Literal["all", "relay"] = "all"
    """W3C RTCIceTransportPolicy: ``relay`` uses TURN alone."""
    interface: DatagramInterface | None = None
    """The network interface that all datagrams of this connection pass; None: the host's own sockets."""
    entropy: random.Random | None = None
    """Source of everything random; None: the operating system's."""
    on_event: Observer | None = None
    """Called with the name and members of each thing worth recording (see :mod:`calllab.lab`)."""


class PeerConnectionManager:
    """Drives one :class:`~calllab.rtc.RTCPeerConnection` by the W3C Perfect Negotiation pattern.

    After construction call :meth:`initialize`, then :meth:`add_local_stream`; feed what signaling brings to
    :meth:`handle_remote_description` and :meth:`handle_ice_candidate`, starting them in the order of arrival.
    It restarts ICE by itself when the connection has failed, or was disconnected for three seconds; if that
    does not help, again and again with longer and longer pauses.
    """

    def __init__(self, config: PeerConnectionConfig) -> None:
        self.config = config
        self.negotiator = PerfectNegotiator(config.is_polite)
        self.errors: list[BaseException] = []
        self._pc: RTCPeerConnection | None = None
        self._outbox: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._restart_timer: asyncio.TimerHandle | None = None
        self._restarts = 0
        """Since the connection was up last."""
        self._candidate_errors: list[Mapping[str, Any]] = []
        self._local_candidates = 0
        self._connected: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def making_offer(self) -> bool:
        """The flag ``makingOffer`` of the W3C example."""
        return self.negotiator.making_offer

    @property
    def ignore_offer(self) -> bool:
        """The flag ``ignoreOffer`` of the W3C example."""
        return self.negotiator.ignore_offer

    @property
    def is_setting_remote_answer_pending(self) -> bool:
        """The flag ``isSettingRemoteAnswerPending`` of the W3C example."""
        return self.negotiator.is_setting_remote_answer_pending

    @property
    def is_settled(self) -> bool:
        """Whether this side is stable, has no operation under way and nothing left to negotiate."""
        return self.negotiator.is_idle and not self.pc.negotiationIsNeeded

    @property
    def pc(self) -> RTCPeerConnection:
        """The peer connection; :meth:`initialize` makes it."""
        if self._pc is None:
            raise RuntimeError("the peer connection does not exist yet: call initialize(ice_servers) first")
        return self._pc

    def initialize(self, ice_servers: Sequence[RTCIceServer] = ()) -> None:
        """Create the peer connection; must be called once, inside a running event loop."""
        if self._pc is not None:
            raise RuntimeError("initialize() was called before: one manager drives one peer connection")
        config = self.config
        pc = self._pc = RTCPeerConnection(
            RTCConfiguration(iceServers=list(ice_servers), iceTransportPolicy=config.ice_transport_policy),
            interface=config.interface,
            entropy=config.entropy,
        )
        self._connected = asyncio.get_running_loop().create_future()
        pc.on("negotiationneeded", self._on_negotiation_needed)
        pc.on("icecandidate", self._on_ice_candidate)
        pc.on("icecandidateerror", self._on_ice_candidate_error)
        pc.on("icegatheringstatechange", self._on_ice_gathering_state_change)
        pc.on("signalingstatechange", self._on_signaling_state_change)
        pc.on("iceconnectionstatechange", self._on_ice_connection_state_change)
        pc.on("connectionstatechange", self._on_connection_state_change)
        pc.on("track", self._on_track)
        pc.on("rollback", self._on_rollback)
        self._spawn(self._write_outbox())

    def add_local_stream(self, stream: MediaStream) -> None:
        """Send all tracks of ``stream``; negotiation starts by itself."""
        for track in stream.getTracks():
            self.pc.addTrack(track, stream)

    def handle_remote_description(self, description: Description | Mapping[str, Any]) -> Awaitable[None]:
        """Take a description from the other peer, at once; await the result to know when it is dealt with."""
        if not isinstance(description, Description):
            description = Description(description["type"], description.get("sdp", ""))
        if self._closed:
            return _done()
        state = cast("SignalingState", self.pc.signalingState)
        return self._carry_out(self.negotiator.remote_description(description, state))

    def handle_ice_candidate(self, candidate: Mapping[str, Any] | None) -> Awaitable[None]:
        """Take a candidate from the other peer, at once (None: it has sent all of them)."""
        if self._closed:
            return _done()
        return self._carry_out(self.negotiator.remote_candidate(candidate))

    def restart_ice(self) -> None:
        """Ask for new ICE credentials and candidates; negotiation follows by itself."""
        self._observe("restartIce")
        self.pc.restartIce()

    def resend_offer(self) -> None:
        """Send the offer that waits for its answer once more: either of them may have been lost."""
        description = self.pc.localDescription
        if not self._closed and self.pc.signalingState == "have-local-offer" and description is not None:
            self._send("call-offer", sdp=description.sdp)

    async def get_stats(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the W3C statistics report of the peer connection."""
        return await self.pc.getStats()

    async def wait_connected(self) -> None:
        """Wait until the connection is up for the first time.

        Raises :exc:`~calllab.errors.TurnUnauthorized` or :exc:`~calllab.errors.TurnError` as soon as it is
        certain that no candidate can be had because the TURN server refused or did not answer.
        """
        if self._connected is None:
            raise RuntimeError("there is nothing to wait for yet: call initialize(ice_servers) first")
        await asyncio.shield(self._connected)

    async def close(self) -> None:
        """Close the peer connection and end all that belongs to it; closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._restart_timer is not None:
            self._restart_timer.cancel()
        if self._connected is not None and not self._connected.done():
            self._connected.cancel()
        if self._pc is not None:
            await self._pc.close()
        # A handler of the configuration may be what closes: it goes on.
        ending = self._tasks - {asyncio.current_task()}
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    # Negotiation

    def _on_negotiation_needed(self) -> None:
        self._observe("negotiationneeded")
        self._carry_out(self.negotiator.negotiation_needed())

    def _carry_out(self, commands: Sequence[Command]) -> Awaitable[None]:
        """Start the commands now, in order, as a JavaScript handler would; the result ends when they have."""
        started = [task for command in commands if (task := self._start(command)) is not None]
        if not started:
            return _done()
        return started[0] if len(started) == 1 else asyncio.gather(*started)  # type: ignore[return-value]

    def _start(self, command: Command) -> asyncio.Task[None] | None:
        match command:
            case SendDescription(description):
                kind = "call-offer" if description.type == "offer" else "call-answer"
                self._send(kind, sdp=description.sdp)
            case Notice(event):
                self._observe(event)
            case Surface(operation, error):
                self._surface(operation, error)
            case _:
                return self._spawn(self._complete(command, self._invoke(command)))
        return None

    def _invoke(self, operation: Operation) -> Awaitable[None]:
        match operation:
            case SetLocalDescription():
                return self.pc.setLocalDescription()
            case SetRemoteDescription(description):
                return self.pc.setRemoteDescription(
                    RTCSessionDescription(type=description.type, sdp=description.sdp)
                )
            case AddIceCandidate(candidate):
                return self.pc.addIceCandidate(candidate)

    async def _complete(self, operation: Operation, pending: Awaitable[None]) -> None:
        error: Exception | None = None
        try:
            await pending
        except Exception as exc:
            error = exc
        if self._closed:
            return
        local = self.pc.localDescription
        self._observe_operation(operation, local, error)
        if error is not None:
            await self._carry_out(self.negotiator.failed(operation, error))
        else:
            description = Description(local.type, local.sdp) if local is not None else None
            await self._carry_out(self.negotiator.succeeded(operation, description))

    def _surface(self, operation: Operation, error: BaseException) -> None:
        self.errors.append(error)
        logger.warning("call %s: %s failed: %s", self.config.call_id, type(operation).__name__, error)

    # Signaling out: one writer keeps the order

    def _send(self, message_type: str, **members: Any) -> None:
        if not self._closed:
            self._outbox.put_nowait(
                {
                    "type": message_type,
                    "recipientId": self.config.remote_user_id,
                    "callId": self.config.call_id,
                    **members,
                }
            )

    async def _write_outbox(self) -> None:
        while True:
            message = await self._outbox.get()
            try:
                await self.config.signaling.send(message)
            except SignalingError as exc:
                self.errors.append(exc)
                logger.warning("call %s: %s was not sent: %s", self.config.call_id, message["type"], exc)

    def _on_ice_candidate(self, candidate: Any) -> None:
        if candidate is None:
            self._observe("icecandidate", candidate=None)
            # The end of each generation was sent before, with its ufrag; null names none, and after a restart
            # it would be taken for the end of the next one.
            return
        init = candidate.toJSON()
        members = ("candidate", "sdpMid", "usernameFragment")
        self._observe("icecandidate", **{name: init[name] for name in members})
        if init["candidate"]:
            self._local_candidates += 1
        self._send("call-ice-candidate", candidate=init)

    # States, recovery

    def _on_signaling_state_change(self) -> None:
        self._observe("signalingstatechange", state=self.pc.signalingState)

    def _on_rollback(self, implicit: bool) -> None:
        self._observe("rollback", implicit=implicit)

    def _on_ice_candidate_error(self, error: Any) -> None:
        members = {"url": error.url, "errorCode": error.errorCode, "errorText": error.errorText}
        self._candidate_errors.append(members)
        self._observe("icecandidateerror", **members)

    def _on_ice_gathering_state_change(self) -> None:
        state = self.pc.iceGatheringState
        self._observe("icegatheringstatechange", state=state)
        if state == "complete" and not self._local_candidates and self._candidate_errors:
            self._give_up(self._no_candidates_error())

    def _no_candidates_error(self) -> TurnError:
        first = self._candidate_errors[0]
        kind = TurnUnauthorized if first["errorCode"] == 401 else TurnError
        return kind(
            f"no relay candidate: {first['url']} answered {first['errorCode']} ({first['errorText']})"
            if first["errorCode"] != 701
            else f"no relay candidate: {first['url']} did not answer ({first['errorText']})",
            code=first["errorCode"],
            url=first["url"],
        )

    def _give_up(self, error: TurnError) -> None:
        self.errors.append(error)
        if self._connected is not None and not self._connected.done():
            self._connected.set_exception(error)
            self._connected.exception()  # whoever waits gets it; nobody has to wait

    def _on_ice_connection_state_change(self) -> None:
        state = self.pc.iceConnectionState
        self._observe("iceconnectionstatechange", state=state)
        self._call(self.config.on_ice_connection_state_change, state)

    def _on_connection_state_change(self) -> None:
        state = self.pc.connectionState
        self._observe("connectionstatechange", state=state)
        if self._restart_timer is not None:
            self._restart_timer.cancel()
            self._restart_timer = None
        if state == "connected":
            self._restarts = 0
            if self._connected is not None and not self._connected.done():
                self._connected.set_result(None)
        elif state == "failed":
            # A restart that fails at once, for want of candidates, must not become a storm of restarts.
            pause_s = min(2.0 ** (self._restarts - 1), LONGEST_PAUSE_S) if self._restarts else 0.0
            self._restart_in(pause_s)
        elif state == "disconnected":
            self._restart_in(DISCONNECTED_GRACE_S)

    def _restart_in(self, pause_s: float) -> None:
        def restart() -> None:
            self._restarts += 1
            self.restart_ice()

        if pause_s == 0:
            restart()
        else:
            self._restart_timer = asyncio.get_running_loop().call_later(pause_s, restart)

    # Media in

    def _on_track(self, track: Any, receiver: Any, transceiver: Any, streams: Sequence[MediaStream]) -> None:
        self._observe("track", kind=track.kind, trackId=track.id, mid=transceiver.mid)
        for stream in streams or [MediaStream([track])]:
            self._call(self.config.on_track, stream)

    # Owned tasks, handlers, observation

    def _call(self, handler: Handler, argument: Any) -> None:
        try:
            result = handler(argument)
        except Exception:
            logger.exception("a handler of call %s failed", self.config.call_id)
            return
        if inspect.isawaitable(result):
            self._spawn(_awaited(result))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)
            logger.error("a task of call %s failed", self.config.call_id, exc_info=error)

    def _observe(self, event: str, **members: Any) -> None:
        if self.config.on_event is not None:
            self.config.on_event(event, {"callId": self.config.call_id, **members})

    def _observe_operation(
        self, operation: Operation, local: RTCSessionDescription | None, error: Exception | None
    ) -> None:
        failure = (
            {}
            if error is None
            else {"error": getattr(error, "name", type(error).__name__), "message": str(error)}
        )
        match operation:
            case SetLocalDescription(purpose):
                made = local if error is None and local is not None else Description(purpose)
                self._observe("setLocalDescription", type=made.type, sdp=made.sdp, **failure)
            case SetRemoteDescription(description):
                self._observe("setRemoteDescription", type=description.type, sdp=description.sdp, **failure)
            case AddIceCandidate(candidate):
                self._observe("addIceCandidate", candidate=candidate, **failure)


async def create_peer_connection(config: PeerConnectionConfig) -> PeerConnectionManager:
    """Fetch TURN credentials, then make and initialize a manager.

    With ``turn_api`` None there are no ICE servers.  What ``get_credentials()`` raises passes through.
    """
    ice_servers: list[RTCIceServer] = []
    if config.turn_api is not None:
        credentials = await config.turn_api.get_credentials()
        ice_servers.append(
            RTCIceServer(
                urls=list(credentials.uris), username=credentials.username, credential=credentials.password
            )
        )
        if config.on_event is not None:
            config.on_event(
                "turn-credentials",
                {
                    "callId": config.call_id,
                    "username": credentials.username,
                    "ttl": credentials.ttl,
                    "uris": list(credentials.uris),
                },
            )
    manager = PeerConnectionManager(config)
    manager.initialize(ice_servers)
    return manager


async def _awaited(awaitable: Awaitable[None]) -> None:
    await awaitable


def _done() -> Awaitable[None]:
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done
