"""A user's phone: it rings, dials, and carries the calls of one device over a signaling channel."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self, TypeAlias

from calllab._aiortc import entropy as default_entropy
from calllab.call.call import Call
from calllab.call.core import (
    CallCore,
    Effect,
    Feed,
    Rename,
    Ring,
    Send,
    StartNegotiation,
    StateChanged,
)
from calllab.errors import CalllabError, ChannelClosed, InvalidCallState, SignalingError, WireError
from calllab.negotiation import (
    Description,
    PeerConnectionConfig,
    PeerConnectionManager,
    create_peer_connection,
)
from calllab.rtc import DatagramInterface, MediaStream
from calllab.signaling import Channel, ChannelState, StateChange, TurnApi

__all__ = ["Phone"]

logger = logging.getLogger(__name__)

Incoming: TypeAlias = Callable[[Call], Awaitable[None] | None]
Observer: TypeAlias = Callable[[str, Mapping[str, Any]], None]


class Phone:
    """The calls of one device.

    Use it as an asynchronous context manager; on exit a call that is up is hung up.

    :param channel: signaling of the user; the phone reads it, so nobody else may.
    :param local_stream: makes the media of each new call; None: the call sends nothing until tracks are
        added.
    :param turn_api: where TURN credentials come from before each connection; None: no ICE servers.
    :param on_incoming: called with each call that rings; None: every call is accepted.
    :param on_track: called with the call and each remote stream that a track arrives in.
    :param on_event: called with name and members of everything worth recording.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        local_stream: Callable[[], MediaStream] | None = None,
        turn_api: TurnApi | None = None,
        ice_transport_policy: Literal["all", "relay"] = "all",
        interface: DatagramInterface | None = None,
        entropy: random.Random | None = None,
        on_incoming: Incoming | None = None,
        on_track: Callable[[Call, MediaStream], None] | None = None,
        on_event: Observer | None = None,
    ) -> None:
        self.channel = channel
        self.user_id = channel.user_id
        self.ice_transport_policy: Literal["all", "relay"] = ice_transport_policy
        self.on_incoming = on_incoming
        self.current: Call | None = None
        self._local_stream = local_stream
        self._turn_api = turn_api
        self._interface = interface
        self._entropy = entropy or default_entropy()
        self._on_track = on_track
        self._on_event = on_event
        self._core = CallCore(self.user_id)
        self._legs: dict[str, _Leg] = {}
        self._outbox: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._message_ids = 0
        self._open = False

    async def __aenter__(self) -> Self:
        """Start to listen."""
        self._open = True
        self._unsubscribe = self.channel.on_state(self._channel_state_changed)
        for work in (self._read(), self._write(), self._keep_time()):
            self._spawn(work)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Hang up and stop listening."""
        await self.close()

    async def close(self) -> None:
        """Hang up, end all tasks of the phone; the channel stays open for its owner."""
        if not self._open:
            return
        self._open = False
        self._unsubscribe()
        if self.current is not None:
            self._do(self._core.hang_up(self.current.id))
        await self._drain_outbox()
        await asyncio.gather(*(leg.close() for leg in list(self._legs.values())))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What the user does

    async def call(self, remote_user_id: str) -> Call:
        """Dial ``remote_user_id`` and return the call, which rings there.

        Raises :exc:`~calllab.errors.InvalidCallState` while this phone is in another call.
        """
        if not self._open:
            raise InvalidCallState("the phone is closed: use it inside `async with`")
        call_id = f"{self._entropy.getrandbits(128):032x}"
        effects = self._core.dial(remote_user_id, call_id, self._now())
        if self.current is None or self.current.state == "ended":
            self.current = Call(self, call_id, remote_user_id, outgoing=True)
        call = self.current
        self._do(effects)
        return call

    def accept(self, call: Call) -> None:
        """Take an incoming call (see :meth:`Call.accept`)."""
        self._do(self._core.accept(call.id, self._now()))

    def reject(self, call: Call, reason: str | None = None) -> None:
        """Decline an incoming call (see :meth:`Call.reject`)."""
        self._do(self._core.reject(call.id, reason))

    async def hang_up(self, call: Call) -> None:
        """End a call and close its peer connection (see :meth:`Call.hang_up`)."""
        leg = self._legs.get(call.id)
        self._do(self._core.hang_up(call.id))
        if leg is not None:
            await leg.close()

    async def wait_closed(self, call: Call) -> None:
        """Wait until the peer connection of a call that has ended is closed."""
        if (leg := self._legs.get(call.id)) is not None:
            await leg.close()

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a message of a call, addressed to the device that accepted it."""
        self._outbox.put_nowait(self._core.address(message))

    # The core's effects

    def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(message):
                    self._outbox.put_nowait(message)
                case Ring(call_id, _):
                    self._ring(call_id)
                case StartNegotiation(call_id, remote_user_id, polite):
                    self._start(call_id, remote_user_id, polite)
                case Feed(call_id, message):
                    if (leg := self._legs.get(call_id)) is not None:
                        leg.feed(message)
                case Rename(call_id, new_call_id):
                    self._rename(call_id, new_call_id)
                case StateChanged():
                    self._state_changed(effect)
        self._wake.set()

    def _state_changed(self, change: StateChanged) -> None:
        call = self.current
        if call is None or call.id != change.call_id:
            # An incoming call exists from its first state on.
            call = self.current = Call(self, change.call_id, "", outgoing=False)
        reason = {} if change.reason is None else {"reason": change.reason}
        detail = {} if change.detail is None else {"detail": change.detail}
        self._observe("call-state", callId=change.call_id, state=change.state, **reason, **detail)
        if change.state == "ended":
            self._observe("call-end", callId=change.call_id, **reason, **detail)
            if (leg := self._legs.get(change.call_id)) is not None:
                leg.end()
        call.enter(change.state, change.reason, change.detail)

    def _ring(self, call_id: str) -> None:
        call = self.current
        assert call is not None and call.id == call_id
        if self.on_incoming is None:
            self._do(self._core.accept(call_id, self._now()))
            return
        try:
            result = self.on_incoming(call)
        except Exception:
            # The user's own mistake must not end the phone: the call rings on and can still be taken.
            logger.exception("%s: on_incoming failed", self.user_id)
            return
        if inspect.isawaitable(result):
            self._spawn(_awaited(result))

    def _start(self, call_id: str, remote_user_id: str, polite: bool) -> None:
        call = self.current
        assert call is not None and call.id == call_id
        call.is_polite = polite
        config = PeerConnectionConfig(
            is_polite=polite,
            on_track=partial(self._remote_stream, call),
            on_ice_connection_state_change=_ignore,
            signaling=self,
            call_id=call_id,
            remote_user_id=remote_user_id,
            turn_api=self._turn_api,
            ice_transport_policy=self.ice_transport_policy,
            interface=self._interface,
            entropy=self._entropy,
            on_event=self._observe_negotiation,
        )
        self._legs[call_id] = _Leg(self, call, config)

    def _rename(self, call_id: str, new_call_id: str) -> None:
        call = self.current
        assert call is not None and call.id == call_id
        if (leg := self._legs.get(call_id)) is not None:
            leg.end()
        call.id = new_call_id
        call.manager = None
        call.remote_streams = []

    def _remote_stream(self, call: Call, stream: MediaStream) -> None:
        if stream not in call.remote_streams:
            call.remote_streams.append(stream)
        if self._on_track is not None:
            self._on_track(call, stream)

    def _channel_state_changed(self, change: StateChange) -> None:
        self._observe("signaling-state", state=str(change.state), reason=change.reason)
        if change.state == ChannelState.CONNECTED:
            # Delivery is at most once: an offer or its answer may have gone down with the old connection.
            for leg in self._legs.values():
                leg.resend_offer()

    # Tasks

    async def _read(self) -> None:
        try:
            async for message in self.channel:
                self._observe_wire("signal-received", message, message.get("senderId"))
                if message.get("type") == "error":
                    self._relay_error(message)
                else:
                    self._receive(message)
        except ChannelClosed as exc:
            logger.warning("%s: signaling is closed: %s", self.user_id, exc)

    def _receive(self, message: Mapping[str, Any]) -> None:
        effects = self._core.message(message, self._now())
        for effect in effects:
            if isinstance(effect, StateChanged) and effect.state == "ringing":
                self.current = Call(self, effect.call_id, str(message["senderId"]), outgoing=False)
        self._do(effects)

    def _relay_error(self, message: Mapping[str, Any]) -> None:
        code, detail = str(message.get("code")), str(message.get("message"))
        logger.info("%s: the relay answered %s: %s", self.user_id, code, detail)
        if isinstance(call_id := message.get("callId"), str):
            self._do(self._core.undeliverable(call_id, code, detail))

    async def _write(self) -> None:
        while True:
            message = await self._outbox.get()
            self._message_ids += 1
            numbered = {**message, "id": f"{self.channel.device_id}.{self._message_ids}"}
            try:
                await self.channel.send(numbered)
            except SignalingError as exc:
                logger.warning("%s: %s was not sent: %s", self.user_id, message["type"], exc)
            except WireError as exc:
                # Too big, or not what the wire allows: it will never get through, so the call cannot go on.
                logger.warning("%s: %s cannot be sent: %s", self.user_id, message["type"], exc)
                self._do(
                    self._core.fail(str(message.get("callId")), f"{message['type']} cannot be sent: {exc}")
                )
            else:
                self._observe_wire("signal-sent", numbered, numbered.get("recipientId"))
            finally:
                self._outbox.task_done()

    async def _drain_outbox(self) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._outbox.join()
        except TimeoutError:
            logger.warning("%s: closed with messages unsent", self.user_id)

    async def _keep_time(self) -> None:
        while True:
            self._wake.clear()
            remaining = self._core.timeout() - self._now()
            try:
                async with asyncio.timeout(None if remaining == float("inf") else max(remaining, 0.0)):
                    await self._wake.wait()
            except TimeoutError:
                self._do(self._core.tick(self._now()))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: a task of the phone failed", self.user_id, exc_info=error)

    # Observation

    def _observe(self, event: str, **members: Any) -> None:
        if self._on_event is not None:
            self._on_event(event, members)

    def _observe_negotiation(self, event: str, members: Mapping[str, Any]) -> None:
        if self._on_event is not None:
            self._on_event(event, members)

    def _observe_wire(self, event: str, message: Mapping[str, Any], other: Any) -> None:
        side = "to" if event == "signal-sent" else "from"
        known = {"id": message.get("id") or message.get("inReplyTo"), "callId": message.get("callId")}
        self._observe(event, type=message.get("type"), **known, **{side: other})


class _Leg:
    """The peer connection of one call: made, fed in order, closed."""

    _closing: asyncio.Task[None] | None = None

    def __init__(self, phone: Phone, call: Call, config: PeerConnectionConfig) -> None:
        self._phone, self._call, self._config = phone, call, config
        self._inbox: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._manager: PeerConnectionManager | None = None
        self._stream: MediaStream | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    def feed(self, message: Mapping[str, Any]) -> None:
        """Hand a negotiation message to the peer connection, in order."""
        self._inbox.put_nowait(message)

    def resend_offer(self) -> None:
        """Send an offer again that nobody may have got."""
        if self._manager is not None and self._closing is None:
            self._manager.resend_offer()

    def end(self) -> None:
        """Close the peer connection without waiting for it."""
        if self._closing is None:
            self._closing = self._phone._spawn(self._close())

    async def close(self) -> None:
        """Close the peer connection; closing twice waits for the same end."""
        self.end()
        assert self._closing is not None
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._manager is not None:
            await self._manager.close()
        if self._stream is not None:
            for track in self._stream.getTracks():
                track.stop()
        self._phone._legs.pop(self._config.call_id, None)

    async def _run(self) -> None:
        try:
            manager = self._manager = await create_peer_connection(self._config)
        except CalllabError as exc:
            self._fail(exc)
            return
        self._call.manager = manager
        manager.pc.on("connectionstatechange", self._connection_state_changed)
        if self._phone._local_stream is not None:
            self._stream = self._call.local_stream = self._phone._local_stream()
            manager.add_local_stream(self._stream)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(manager))
            while True:
                self._handle(manager, await self._inbox.get())

    def _handle(self, manager: PeerConnectionManager, message: Mapping[str, Any]) -> None:
        if message["type"] == "call-ice-candidate":
            manager.handle_ice_candidate(message["candidate"])
        else:
            kind: Literal["offer", "answer"] = "offer" if message["type"] == "call-offer" else "answer"
            manager.handle_remote_description(Description(kind, message["sdp"]))

    async def _watch(self, manager: PeerConnectionManager) -> None:
        try:
            await manager.wait_connected()
        except CalllabError as exc:
            self._fail(exc)

    def _connection_state_changed(self) -> None:
        assert self._manager is not None
        state = self._manager.pc.connectionState
        self._phone._do(self._phone._core.connection_state(self._config.call_id, state, self._phone._now()))

    def _fail(self, error: CalllabError) -> None:
        self._call.error = error
        self._phone._do(self._phone._core.fail(self._config.call_id, str(error)))


def _ignore(_: object) -> None:
    """Take an argument and do nothing with it."""


async def _awaited(awaitable: Awaitable[None]) -> None:
    await awaitable
