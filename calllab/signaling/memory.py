"""Channels inside one process, over the same routing core as the service's."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from calllab.errors import ChannelClosed, ServiceUnavailable
from calllab.protocol.limits import RelayLimits
from calllab.protocol.relay import Close, Connection, Deliver, Output, RelayCore
from calllab.protocol.wire import CloseCode
from calllab.signaling._base import BaseChannel
from calllab.signaling.channel import ChannelState, Message, StateChange, encode_message

__all__ = ["MemoryChannel", "MemoryHub"]


class MemoryHub:
    """A relay in memory: routes, refuses and limits exactly as the service does.

    Its only clock is the running loop's, so it works in virtual time.

    Args:
        entropy: names devices that do not name themselves; by default seeded with 0.
        users: users that exist without being connected; :meth:`connect` adds its own.
        limits: as of the service.
        send_timeout_s: how long a message may wait to be sent while its channel is interrupted.

    """

    def __init__(
        self,
        *,
        entropy: random.Random | None = None,
        users: Iterable[str] = (),
        limits: RelayLimits | None = None,
        send_timeout_s: float = 15.0,
    ) -> None:
        self.send_timeout_s = send_timeout_s
        self._users = set(users)
        self.core = RelayCore(
            knows_user=self._users.__contains__, entropy=entropy or random.Random(0), limits=limits
        )
        self._channels: dict[Connection, MemoryChannel] = {}
        self._interrupted: list[MemoryChannel] = []
        self._outputs: deque[Output] = deque()
        self._is_performing = False

    def register(self, user_id: str) -> None:
        """Let a user exist: messages to it are then ``recipient-offline`` while it is not connected."""
        self._users.add(user_id)

    def connect(self, user_id: str, device_id: str | None = None) -> MemoryChannel:
        """Return a new channel of a user; an older channel of the same device is closed with 4409.

        Raises:
            ChannelClosed: the user has too many devices.

        """
        self.register(user_id)
        connection, outputs = self.core.connect(user_id, device_id, _now())
        channel = MemoryChannel(self, connection)
        self._admit(channel, connection, outputs)
        return channel

    def log_out(self, user_id: str) -> None:
        """Close all channels of a user with 4401, as the service does at logout."""
        self._perform(self.core.drop_user(user_id))

    def interrupt(self, channel: MemoryChannel, reason: str = "interrupted") -> None:
        """Take a channel's connection away until :meth:`resume`; the relay sees its user leave."""
        if channel.state is ChannelState.CONNECTED:
            self._forget(channel)
            self._interrupted.append(channel)
            channel._change_state(StateChange(state=ChannelState.RECONNECTING, reason=reason, attempt=1))

    def resume(self, channel: MemoryChannel) -> None:
        """Connect an interrupted channel again; what was sent to it meanwhile has been refused."""
        if channel.state is ChannelState.RECONNECTING:
            self._interrupted.remove(channel)
            connection, outputs = self.core.connect(channel.user_id, channel.device_id, _now())
            channel._connection = connection
            self._admit(channel, connection, outputs)
            channel._reconnected()

    async def close(self) -> None:
        """Close all channels with 1001, interrupted ones too."""
        self._perform(self.core.shutdown())
        for channel in self._interrupted:
            channel._ended(CloseCode.GOING_AWAY, "the hub is closed")
        self._interrupted.clear()

    def _admit(self, channel: MemoryChannel, connection: Connection, outputs: tuple[Output, ...]) -> None:
        if not connection.is_open:
            (refusal,) = (output for output in outputs if isinstance(output, Close))
            channel._ended(refusal.code, refusal.reason)
            raise ChannelClosed(f"the relay refused {channel.user_id}: {refusal.reason}", code=refusal.code)
        self._channels[connection] = channel
        self._perform(outputs)

    def _forget(self, channel: MemoryChannel) -> None:
        self.core.disconnect(channel._connection)
        self._channels.pop(channel._connection, None)
        if channel in self._interrupted:
            self._interrupted.remove(channel)

    def _send(self, channel: MemoryChannel, frame: bytes) -> None:
        self._perform(self.core.receive(channel._connection, frame, _now()))

    def _perform(self, outputs: Iterable[Output]) -> None:
        """Do outputs in their order, also when a state listener sends or closes in the middle of them."""
        self._outputs.extend(outputs)
        if self._is_performing:
            return
        self._is_performing = True
        try:
            while self._outputs:
                output = self._outputs.popleft()
                channel = self._channels.get(output.connection)
                if channel is None:
                    continue
                if isinstance(output, Deliver):
                    channel._deliver(output.connection, output.frame)
                else:
                    del self._channels[output.connection]
                    channel._ended(output.code, output.reason)
        finally:
            self._is_performing = False


class MemoryChannel(BaseChannel):
    """One user's channel of a :class:`MemoryHub`; made by :meth:`MemoryHub.connect`.

    What is not received counts as queued: a channel that nobody reads makes its senders see
    ``recipient-slow``, as on the service.
    """

    def __init__(self, hub: MemoryHub, connection: Connection) -> None:
        super().__init__(connection.user_id, connection.device_id, ChannelState.CONNECTED)
        self._hub = hub
        self._connection = connection
        self._unread: deque[tuple[Connection, int]] = deque()
        self._turn = asyncio.Lock()
        self._state_changed = asyncio.Event()

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; while the channel is interrupted, wait for it to come back."""
        frame = encode_message(self._numbered(message))
        try:
            async with asyncio.timeout(self._hub.send_timeout_s), self._turn:
                while self.state is ChannelState.RECONNECTING:
                    self._state_changed.clear()
                    await self._state_changed.wait()
                self._refuse_if_closed()
                self._hub._send(self, frame)
        except TimeoutError as error:
            raise ServiceUnavailable(
                f"the channel of {self.user_id} did not come back within "
                f"{self._hub.send_timeout_s:g} s: the message was not sent"
            ) from error

    async def receive(self) -> Message:
        """Wait for the next message; raises :exc:`ChannelClosed` after the last."""
        message = await super().receive()
        self._hub.core.flushed(*self._unread.popleft())
        return message

    def interrupt(self, reason: str = "interrupted") -> None:
        """Take the connection away until :meth:`resume`; the relay sees the user leave."""
        self._hub.interrupt(self, reason)

    def resume(self) -> None:
        """Connect again; what was sent to this channel meanwhile has been refused."""
        self._hub.resume(self)

    async def close(self) -> None:
        """Close the channel for good; may be called again."""
        if self.state is ChannelState.CLOSED:
            return
        self._closed_by_owner = True
        self._hub._forget(self)
        self._inbox.end(f"the channel of {self.user_id} was closed here", discard=True)
        self._unread.clear()
        self._change_state(StateChange(state=ChannelState.CLOSED, reason="closed here"))

    def _deliver(self, connection: Connection, frame: bytes) -> None:
        self._unread.append((connection, len(frame)))
        self._inbox.put(msgspec.json.decode(frame))

    def _ended(self, code: int, reason: str) -> None:
        self._inbox.end(f"the relay closed the channel of {self.user_id}: {reason}", code)
        self._change_state(StateChange(state=ChannelState.CLOSED, reason=reason, code=code))

    def _reconnected(self) -> None:
        self._change_state(StateChange(state=ChannelState.CONNECTED, reason="connected again"))

    def _change_state(self, change: StateChange) -> None:
        super()._change_state(change)
        self._state_changed.set()


def _now() -> float:
    return asyncio.get_running_loop().time()
