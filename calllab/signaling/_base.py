"""What all channels have in common: an inbox, a state, listeners, ids for messages."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

from calllab.errors import ChannelClosed
from calllab.signaling.channel import ChannelState, Message, StateChange, StateListener

__all__ = ["BaseChannel", "Inbox"]

_log = logging.getLogger(__name__)


class Inbox:
    """Messages that wait to be received, and the end after them."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._end: tuple[str, int | None] | None = None
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        """Add a message; after the end there is nothing to add to."""
        if self._end is None:
            self._messages.append(message)
            self._changed.set()

    def end(self, reason: str, code: int | None = None, *, discard: bool = False) -> None:
        """Let :meth:`get` raise :exc:`ChannelClosed` after what is there, or at once with ``discard``."""
        if discard:
            self._messages.clear()
        if self._end is None:
            self._end = (reason, code)
        self._changed.set()

    async def get(self) -> Message:
        """Wait for the next message, or the end."""
        while not self._messages:
            if self._end is not None:
                reason, code = self._end
                raise ChannelClosed(reason, code=code)
            self._changed.clear()
            await self._changed.wait()
        return self._messages.popleft()


class BaseChannel:
    """The half of a channel that does not depend on what carries it."""

    def __init__(self, user_id: str, device_id: str, state: ChannelState) -> None:
        self._user_id = user_id
        self._device_id = device_id
        self._state = state
        self._inbox = Inbox()
        self._listeners: list[StateListener] = []
        self._message_count = 0
        self._closed_by_owner = False

    @property
    def user_id(self) -> str:
        """The user's name."""
        return self._user_id

    @property
    def device_id(self) -> str:
        """The device's id; it stays the same over reconnects."""
        return self._device_id

    @property
    def state(self) -> ChannelState:
        """The state now."""
        return self._state

    async def receive(self) -> Message:
        """Wait for the next message; raises :exc:`ChannelClosed` after the last."""
        return await self._inbox.get()

    async def _iterate(self) -> AsyncIterator[Message]:
        while True:
            try:
                message = await self.receive()
            except ChannelClosed:
                if self._closed_by_owner:
                    return
                raise
            yield message

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._iterate()

    def on_state(self, listener: StateListener) -> Callable[[], None]:
        """Call ``listener`` at each change of state from now on; returns a function that stops this."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def interrupt(self, reason: str = "interrupted") -> None:
        """Cut the connection to the relay, and keep it away until :meth:`resume`."""
        raise NotImplementedError

    def resume(self) -> None:
        """Let the connection come back; nothing happens if it was not kept away."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the channel for good; may be called again."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _numbered(self, message: Mapping[str, Any]) -> Message:
        """Return a copy of the message that has an id."""
        if "id" in message:
            return dict(message)
        self._message_count += 1
        return {**message, "id": f"{self._device_id}.{self._message_count}"}

    def _change_state(self, change: StateChange) -> None:
        self._state = change.state
        for listener in list(self._listeners):
            try:
                listener(change)
            except Exception:
                _log.exception("a state listener of %s/%s failed", self._user_id, self._device_id)

    def _refuse_if_closed(self) -> None:
        if self._state is ChannelState.CLOSED:
            raise ChannelClosed(f"the channel of {self._user_id} is closed: open a new one")
