"""Two phones on one hub: real peer connections, real relay core, no sockets but those of the media."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from calllab.call import Call, Phone
from calllab.media import SpeechTrack
from calllab.rtc import MediaStream
from calllab.signaling import MemoryHub


class Desk:
    """A hub and phones on it; every state that their calls go through is kept in ``states``."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.hub = MemoryHub()
        self.states: dict[str, list[str]] = {}
        self.events: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self._stack = stack

    async def phone(self, user: str, *, device: str | None = None, **options: Any) -> Phone:
        """Return an open phone of ``user``, sending generated speech."""
        channel = await self._stack.enter_async_context(self.hub.connect(user, device))
        name = device or user
        states, events = self.states.setdefault(name, []), self.events.setdefault(name, [])

        def observe(event: str, members: Any) -> None:
            events.append((event, dict(members)))
            if event == "call-state":
                states.append(members["state"])

        options.setdefault("local_stream", speech)
        return await self._stack.enter_async_context(Phone(channel, on_event=observe, **options))


def speech() -> MediaStream:
    """Return a stream of generated speech."""
    return MediaStream([SpeechTrack(seed=1)])


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    """Open a hub; on exit hang up and close everything on it."""
    async with AsyncExitStack() as stack:
        opened = Desk(stack)
        stack.push_async_callback(opened.hub.close)
        yield opened


async def connected(caller: Phone, callee: Phone) -> tuple[Call, Call]:
    """Let ``caller`` call ``callee`` and return both ends once they are connected."""
    outgoing = await caller.call(callee.user_id)
    await outgoing.wait_connected(10)
    incoming = callee.current
    assert incoming is not None
    await incoming.wait_connected(10)
    return outgoing, incoming
