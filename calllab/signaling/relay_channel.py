"""The channel to the service: one WebSocket at a time, made anew whenever it is lost.

Theory of operation.  One task owns the socket: it reads until the socket ends, decides from the close code
whether to go on, waits, connects again.  Senders take turns; one that finds no socket waits for the next.

A message that was handed to a socket is never sent again on the next one.  The one exception is a socket that
fails under ``send_frame``: aiohttp raises then either before it writes, or because the connection broke while
more than its buffer's low-water mark was still unsent.  The frame is at the very end of what was unsent, so
the relay cannot have received it whole, and sending it again cannot double it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from socket import SHUT_RDWR
from typing import Any, Final, Self

import aiohttp
import msgspec

from calllab.errors import AuthenticationError, ServiceUnavailable, SignalingError
from calllab.protocol.wire import CloseCode, is_device_id
from calllab.signaling._base import BaseChannel
from calllab.signaling.backoff import Backoff, BackoffSettings
from calllab.signaling.channel import ChannelState, StateChange, encode_message
from calllab.signaling.session import ServiceSession, WebSocket

__all__ = ["RelayChannel", "RelayChannelSettings"]

_log = logging.getLogger(__name__)

_ADVICE: Final[Mapping[int, str]] = {
    CloseCode.UNAUTHORIZED: "the session has ended: log in again and open a new channel",
    CloseCode.REPLACED: "a newer channel of the same device took over: give each channel a device of its own",
    CloseCode.ABUSE: "the relay has had enough of this client: send less, and read its errors",
    CloseCode.BINARY_FRAME: "the relay and this client do not speak the same protocol: compare versions",
    CloseCode.INVALID_UTF8: "the relay and this client do not speak the same protocol: compare versions",
    CloseCode.TOO_BIG: "a message was too big: send less at once",
}
"""The close codes after which connecting again would only lead to the same end, and what to do instead."""


@dataclass(frozen=True, kw_only=True)
class RelayChannelSettings:
    """How a channel keeps itself alive."""

    heartbeat_s: float = 10.0
    """After so long a silence the service is pinged; no answer within half of it means that it is lost."""
    send_timeout_s: float = 15.0
    """How long a message may wait to be sent while the channel reconnects."""
    give_up_after_s: float | None = 60.0
    """How long to try to reconnect before the channel closes for good; None: for ever."""
    backoff: BackoffSettings = field(default_factory=BackoffSettings)
    """How long to wait between attempts."""
    inbox_messages: int = 4096
    """The most messages that may wait to be received; more than that closes the channel."""


@dataclass(frozen=True)
class _Loss:
    """How a socket ended."""

    reason: str
    code: int | None = None
    is_final: bool = False
    """Whether connecting again would only lead to the same end."""


def _closed(code: int, reason: str | None) -> _Loss:
    text = f"the relay closed it with {code} ({reason or 'no reason given'})"
    if code in _ADVICE:
        return _Loss(f"{text}: {_ADVICE[code]}", code, is_final=True)
    return _Loss(text, code)


class RelayChannel(BaseChannel):
    """A channel through the service's relay; made by :meth:`open`.

    It reconnects by itself and tells of it through :meth:`on_state`.  It closes for good when the session
    has ended (4401), when a newer channel of the same device took over (4409), when the relay has had enough
    of it (1008), when nobody receives what comes, or when the service stays away for too long.
    """

    def __init__(
        self,
        session: ServiceSession,
        device_id: str,
        settings: RelayChannelSettings,
        entropy: random.Random,
    ) -> None:
        super().__init__(session.user_id, device_id, ChannelState.CONNECTING)
        self._session = session
        self._settings = settings
        self._backoff = Backoff(settings.backoff, entropy)
        self._socket: WebSocket | None = None
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._state_changed = asyncio.Event()
        self._unstarted: WebSocket | None = None
        self._cut_reason = ""
        self._reading: asyncio.Timeout | None = None
        self._may_connect = asyncio.Event()
        self._may_connect.set()

    @classmethod
    async def open(
        cls,
        session: ServiceSession,
        *,
        device_id: str | None = None,
        settings: RelayChannelSettings | None = None,
        entropy: random.Random | None = None,
    ) -> Self:
        """Connect the user whom ``session`` has logged in; tries once.

        Args:
            session: must stay open as long as the channel.
            device_id: names the device over reconnects; by default one is made up for this channel.
            settings: how the channel keeps itself alive.
            entropy: for the device's name and the delays; by default the operating system's.

        Raises:
            AuthenticationError: nobody is logged in, or the session has ended; log in again.
            ServiceUnavailable: the service cannot be reached.
            ValueError: ``device_id`` is none.

        """
        entropy = entropy or random.SystemRandom()
        if device_id is not None and not is_device_id(device_id):
            raise ValueError(f"{device_id!r} is not a device id: use letters, digits and hyphens")
        channel = cls(
            session,
            device_id or f"{entropy.getrandbits(64):016x}",
            settings or RelayChannelSettings(),
            entropy,
        )
        socket = channel._unstarted = await channel._connect()
        channel._task = asyncio.get_running_loop().create_task(
            channel._run(socket), name=f"signaling of {channel.user_id}"
        )
        channel._enter_connected(socket)
        return channel

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; while the channel reconnects, wait for a new connection."""
        frame = encode_message(self._numbered(message))
        try:
            async with asyncio.timeout(self._settings.send_timeout_s), self._turn:
                while not await self._sent(frame):
                    self._refuse_if_closed()
                    self._state_changed.clear()
                    await self._state_changed.wait()
        except TimeoutError as error:
            raise ServiceUnavailable(
                f"the connection of {self.user_id} did not come back within "
                f"{self._settings.send_timeout_s:g} s: the message was not sent"
            ) from error

    def interrupt(self, reason: str = "interrupted") -> None:
        """Cut the TCP connection without a word to the relay, and make no other until :meth:`resume`.

        As long as it is kept away the time counts in which the channel would give up.
        """
        if self.state is ChannelState.CLOSED:
            return
        self._may_connect.clear()
        self._cut_reason = reason
        self._socket = None
        self._stop_reading()

    def resume(self) -> None:
        """Let the channel connect again, which it does by itself."""
        self._may_connect.set()

    async def close(self) -> None:
        """Close the channel for good; may be called again."""
        if self.state is not ChannelState.CLOSED:
            self._closed_by_owner = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._unstarted is not None:
            # The task was cancelled before its first step: it never came to own its socket.
            await self._unstarted.close()
            self._unstarted = None
        if self.state is not ChannelState.CLOSED:
            self._end("closed here", discard=True)

    async def _sent(self, frame: bytes) -> bool:
        """Hand a frame to the socket; False if there is none, or it has failed."""
        socket = self._socket
        if socket is None or socket.closed:
            return False
        try:
            await socket.send_frame(frame, aiohttp.WSMsgType.TEXT)
        except (aiohttp.ClientError, ConnectionError) as error:
            _log.debug(
                "%s: a socket failed under a message, which waits for the next: %s", self.user_id, error
            )
            return False
        return True

    async def _connect(self) -> WebSocket:
        if self._session.user_id != self.user_id:
            raise AuthenticationError(
                f"the session is {self._session.user_id}'s by now, not {self.user_id}'s: open a new channel"
            )
        return await self._session.open_socket(self.device_id, heartbeat_s=self._settings.heartbeat_s)

    async def _run(self, socket: WebSocket) -> None:
        """Own the socket and its successors until the end."""
        self._unstarted = None
        try:
            await self._serve(socket)
        except Exception as error:
            _log.exception("the signaling of %s failed", self.user_id)
            self._end(f"it failed: {error!r}")

    async def _serve(self, socket: WebSocket | None) -> None:
        loop = asyncio.get_running_loop()
        while socket is not None:
            since_s = loop.time()
            try:
                loss = await self._read(socket)
            finally:
                self._socket = None
                await socket.close()
            self._backoff.connected_for(loop.time() - since_s)
            if loss.is_final:
                self._end(loss.reason, loss.code)
                return
            socket = await self._reconnect(loss)
            if socket is not None:
                self._enter_connected(socket)

    async def _read(self, socket: WebSocket) -> _Loss:
        """Receive messages until the socket ends; returns how it did."""
        try:
            async with asyncio.timeout(None) as self._reading:
                if not self._may_connect.is_set():
                    # Cut while the connection was being made.
                    self._stop_reading()
                return await self._read_until_end(socket)
        except TimeoutError:
            _cut(socket)
            return _Loss(self._cut_reason)
        finally:
            self._reading = None

    def _stop_reading(self) -> None:
        # A socket that broke under its reader would never let go of its connection: the reader goes first.
        if self._reading is not None:
            self._reading.reschedule(asyncio.get_running_loop().time())

    async def _read_until_end(self, socket: WebSocket) -> _Loss:
        while True:
            received = await socket.receive()
            match received.type:
                case aiohttp.WSMsgType.TEXT:
                    self._take(received.data)
                    if (waiting := len(self._inbox)) >= self._settings.inbox_messages:
                        return _Loss(f"nobody received the {waiting} messages that came", is_final=True)
                case aiohttp.WSMsgType.CLOSE:
                    return _closed(received.data, received.extra)
                case aiohttp.WSMsgType.ERROR:
                    return _Loss(f"the connection failed: {received.data}", socket.close_code)
                case aiohttp.WSMsgType.CLOSED | aiohttp.WSMsgType.CLOSING:
                    return _Loss("the connection was lost", socket.close_code)
                case _:
                    _log.warning("%s: the relay sent a frame of type %s", self.user_id, received.type.name)

    def _take(self, text: str) -> None:
        try:
            message = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            _log.warning("%s: the relay sent what is not JSON: %s", self.user_id, error)
            return
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            _log.warning("%s: the relay sent what is not a message", self.user_id)
            return
        self._inbox.put(message)

    async def _reconnect(self, loss: _Loss) -> WebSocket | None:
        """Try until there is a new socket; None if the channel was closed instead."""
        reason, code = loss.reason, loss.code
        at_least_s = 0.0
        try:
            async with asyncio.timeout(self._settings.give_up_after_s):
                while True:
                    delay_s = self._backoff.next_delay_s(at_least_s)
                    self._change_state(
                        StateChange(
                            state=ChannelState.RECONNECTING,
                            reason=reason,
                            code=code,
                            attempt=self._backoff.attempt,
                            retry_in_s=delay_s,
                        )
                    )
                    await asyncio.sleep(delay_s)
                    await self._may_connect.wait()
                    try:
                        return await self._connect()
                    except ServiceUnavailable as error:
                        reason, code, at_least_s = str(error), None, error.retry_after_s or 0.0
        except TimeoutError:
            self._end(f"the service stayed away for {self._settings.give_up_after_s:g} s: {reason}")
        except AuthenticationError as error:
            self._end(str(error), CloseCode.UNAUTHORIZED)
        except SignalingError as error:
            self._end(str(error))
        return None

    def _enter_connected(self, socket: WebSocket) -> None:
        if not self._may_connect.is_set():
            return  # cut while the connection was being made: its reader will see
        self._socket = socket
        self._change_state(StateChange(state=ChannelState.CONNECTED, reason="connected"))

    def _end(self, reason: str, code: int | None = None, *, discard: bool = False) -> None:
        self._inbox.end(f"the channel of {self.user_id} is closed: {reason}", code, discard=discard)
        self._change_state(StateChange(state=ChannelState.CLOSED, reason=reason, code=code))

    def _change_state(self, change: StateChange) -> None:
        super()._change_state(change)
        self._state_changed.set()


def _cut(socket: WebSocket) -> None:
    """End a TCP connection in both directions at once, without closing the WebSocket."""
    connection = socket.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(SHUT_RDWR)
