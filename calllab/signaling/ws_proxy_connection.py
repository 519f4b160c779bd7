"""One client of the signaling proxy: its WebSocket, the one to the relay, and the faults between them.

Theory of operation.  Two readers put what comes in into two lanes, two pumps pass on what leaves them, and
whatever ends one of the two sockets ends the other in the same way: a close with its code and reason, a loss
without a word.  Text frames meet the faults by the message in them; all other frames pass as they are, so
that the relay, and not the proxy, says what it thinks of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import select
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from socket import SHUT_RDWR
from typing import Any, Final, TypeAlias

import aiohttp
import msgspec
from aiohttp import WSMsgType, web

from calllab.signaling.channel import Message
from calllab.signaling.fault_plan import SignalingFaults
from calllab.signaling.faults import Direction
from calllab.signaling.lane import Lane
from calllab.signaling.pump import Pump

__all__ = ["Frame", "ProxiedConnection", "Rewrite"]

_log = logging.getLogger(__name__)

_FRAMES_IN_LANE: Final = 1024
"""So many frames may be on their way in one direction; then their sender has to wait."""
_LOOK_S: Final = 0.5
"""How often a sender that has to wait is looked at: nothing is read from it, so its end is not noticed."""
_WAIT_S: Final = 30.0
"""So long a sender may have to wait, then it is cut off: the end of one that has filled its TCP window cannot
be seen at all."""
_CLOSE_TIMEOUT_S: Final = 1.0
"""How long the other side has to take what may still go on, and the close."""

ClientSocket: TypeAlias = web.WebSocketResponse[bool]
RelaySocket: TypeAlias = aiohttp.ClientWebSocketResponse[bool]

Rewrite: TypeAlias = Callable[[str, Message], Awaitable[Message | None]]
"""Takes a user and a message of that user, and returns the message as it should go on: the same object if it
is unchanged, None if it should not go on at all."""


@dataclass(frozen=True)
class Frame:
    """A frame on its way."""

    type: WSMsgType
    data: bytes


@dataclass(frozen=True)
class _End:
    """How a socket ended; without a code it was lost."""

    code: int | None = None
    reason: bytes = b""


class ProxiedConnection:
    """A client's connection through the proxy; :meth:`run` it to its end.

    Args:
        client: the socket of the client.
        relay: the socket to the relay.
        user_id: whose it is, as far as is known.
        faults: the planned faults that happen to it.
        rewrite: changes messages before they meet the faults.
        on_message: told of each message that came in from either side, before anything happens to it.

    """

    def __init__(
        self,
        client: ClientSocket,
        relay: RelaySocket,
        *,
        user_id: str | None,
        faults: SignalingFaults,
        rewrite: Rewrite | None,
        on_message: Callable[[ProxiedConnection, Direction, Message], None],
    ) -> None:
        entropy = random.Random(0)  # each planned fault has its own
        self._client = client
        self._relay = relay
        self._user_id = user_id
        self._faults = faults
        self._rewrite = rewrite
        self._on_message = on_message
        self._out = Pump(Lane[Frame]("out", entropy, user_id=user_id, attached=faults.users), self._to_relay)
        self._in = Pump(Lane[Frame]("in", entropy, user_id=user_id, attached=faults.users), self._to_client)
        self._is_cut = False
        self._cut_now = asyncio.Event()

    @property
    def user_id(self) -> str | None:
        """Whose connection it is; None: not known yet."""
        return self._user_id

    @property
    def lanes(self) -> tuple[Lane[Frame], Lane[Frame]]:
        """What goes out and what comes in, for the planned faults."""
        return self._out.lane, self._in.lane

    @property
    def was_cut(self) -> bool:
        """Whether a planned fault has ended it."""
        return self._is_cut

    def wake(self) -> None:
        """Look again at what may go on."""
        self._out.wake()
        self._in.wake()

    def interrupt(self, reason: str) -> None:
        """Cut both TCP connections; the client may come back as soon as the faults let it."""
        _log.info("the signaling of %s: %s", self._user_id, reason)
        self._is_cut = True
        self._cut_now.set()

    def resume(self) -> None:
        """Do nothing: to come back is the client's to do."""

    async def run(self) -> None:
        """Pass frames until one of the sockets has ended, then end the other; raises nothing of theirs."""
        loop = asyncio.get_running_loop()
        self._faults.attach(self)
        pumps = [loop.create_task(pump.run()) for pump in (self._out, self._in)]
        readers = [
            loop.create_task(self._read(self._client, "out")),
            loop.create_task(self._read(self._relay, "in")),
        ]
        cut = loop.create_task(self._cut_now.wait())
        try:
            await asyncio.wait([*pumps, *readers, cut], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._faults.detach(self)
            # aiohttp's client never lets go of a connection that breaks under its reader: that ends first.
            for task in (*pumps, *readers, cut):
                task.cancel()
            ends = await asyncio.gather(*readers, return_exceptions=True)
            failed = await asyncio.gather(*pumps, return_exceptions=True)
            for error in (*ends, *failed):
                if isinstance(error, Exception) and not isinstance(error, ConnectionError):
                    _log.error("the signaling of %s failed", self._user_id, exc_info=error)
            await self._finish(*(end if isinstance(end, _End) else None for end in ends))
            for lane in self.lanes:
                lane.discard()

    async def _finish(self, client_end: _End | None, relay_end: _End | None) -> None:
        """End what is not over yet as the other one ended, after what may still go on."""
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self._close_other(client_end, relay_end)
        finally:
            self._cut()
            # Releases the connection; it is cut, so there is nothing to wait for.
            await self._relay.close()

    async def _close_other(self, client_end: _End | None, relay_end: _End | None) -> None:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            if self._is_cut:
                pass
            elif client_end is not None and client_end.code is not None:
                await self._out.flush()
                await self._relay.close(code=client_end.code, message=client_end.reason)
            elif relay_end is not None and relay_end.code is not None:
                await self._in.flush()
                await self._client.close(code=relay_end.code, message=relay_end.reason)

    async def _read(self, socket: ClientSocket | RelaySocket, direction: Direction) -> _End:
        """Put what comes in into its lane until the socket ends; returns how it did."""
        pump, other = (self._out, self._relay) if direction == "out" else (self._in, self._client)
        while True:
            received = await socket.receive()
            match received.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    if not await self._has_room(pump, socket):
                        return _End()
                    await self._take(Frame(received.type, received.data), pump, direction)
                case WSMsgType.PING:
                    await other.ping(received.data)
                case WSMsgType.PONG:
                    await other.pong(received.data)
                case WSMsgType.CLOSE:
                    return _End(_sendable(received.data), (received.extra or "").encode())
                case WSMsgType.ERROR:
                    # After a violation of the protocol aiohttp has closed with a code; else it is a loss.
                    code = socket.close_code
                    return _End(None if code in (None, 1006) else _sendable(code))
                case _:
                    return _End()

    async def _has_room(self, pump: Pump[Frame], socket: ClientSocket | RelaySocket) -> bool:
        """Wait until a lane takes another frame; False: its sender is gone, or has waited too long."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _WAIT_S
        while loop.time() < until_s:
            try:
                async with asyncio.timeout(_LOOK_S):
                    await pump.room(_FRAMES_IN_LANE)
                return True
            except TimeoutError:
                if _is_gone(socket):
                    return False
        _log.info("the signaling of %s had to wait for %g s, and is cut off", self._user_id, _WAIT_S)
        return False

    async def _take(self, frame: Frame, pump: Pump[Frame], direction: Direction) -> None:
        message = _message_in(frame)
        if direction == "in" and self._user_id is None and isinstance(message.get("recipientId"), str):
            self._identify(message["recipientId"])
        self._on_message(self, direction, message)
        owner = self._user_id if direction == "out" else message.get("senderId")
        if self._rewrite is not None and isinstance(owner, str) and "type" in message:
            rewritten = await self._rewrite(owner, message)
            if rewritten is None:
                return
            if rewritten is not message:
                message, frame = rewritten, Frame(WSMsgType.TEXT, msgspec.json.encode(rewritten))
        pump.put(message, frame)

    def _identify(self, user_id: str) -> None:
        """Learn from what the relay delivers whose connection this is."""
        self._faults.detach(self)
        self._user_id = user_id
        for lane in self.lanes:
            lane.user_id = user_id
        self._faults.attach(self)

    async def _to_relay(self, frame: Frame) -> None:
        await self._relay.send_frame(frame.data, frame.type)

    async def _to_client(self, frame: Frame) -> None:
        await self._client.send_frame(frame.data, frame.type)

    def _cut(self) -> None:
        for socket in (self._client, self._relay):
            connection: Any = socket.get_extra_info("socket")
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.shutdown(SHUT_RDWR)


def _is_gone(socket: ClientSocket | RelaySocket) -> bool:
    """Say whether the other end has closed or lost its TCP connection, without reading from it."""
    connection: Any = socket.get_extra_info("socket")
    if socket.closed or connection is None or connection.fileno() < 0:
        return True
    # Without poll (Windows) the end is noticed when there is room again.
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(connection.fileno(), getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))


def _message_in(frame: Frame) -> Message:
    """Return the message in a frame; an empty one if there is none."""
    if frame.type is not WSMsgType.TEXT:
        return {}
    try:
        content = msgspec.json.decode(frame.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("type"), str) else {}


def _sendable(code: int | None) -> int:
    """Return a close code that may be sent (RFC 6455 section 7.4); a close without one counts as normal."""
    if code is None or not (1000 <= code < 5000) or code in (1004, 1005, 1006, 1015):
        return 1000
    return int(code)
