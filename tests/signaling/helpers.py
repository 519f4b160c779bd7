"""Helpers of the signaling tests: state recorders, users of a service, and a network between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Self
from urllib.parse import urlsplit

from calllab.signaling import Channel, ChannelState, ServiceSession, StateChange

PASSWORD = "a password for tests"

MS = 0.001


class StateLog:
    """The changes of a channel's state, to be looked at and waited for."""

    def __init__(self, channel: Channel) -> None:
        self.changes: list[StateChange] = []
        self._changed = asyncio.Event()
        self.stop = channel.on_state(self._note)

    @property
    def states(self) -> list[ChannelState]:
        """The states, in order; each change to the same state counts."""
        return [change.state for change in self.changes]

    def _note(self, change: StateChange) -> None:
        self.changes.append(change)
        self._changed.set()

    async def until(self, state: ChannelState, count: int = 1) -> StateChange:
        """Wait for so many changes to a state; returns the last of them."""
        async with asyncio.timeout(10):
            while self.states.count(state) < count:
                self._changed.clear()
                await self._changed.wait()
        return [change for change in self.changes if change.state is state][count - 1]


@contextlib.asynccontextmanager
async def logged_in(url: str, name: str, *, register: bool = True) -> AsyncIterator[ServiceSession]:
    """A session of a user that is registered and logged in."""
    async with ServiceSession(url) as session:
        if register:
            await session.register(name, PASSWORD)
        await session.login(name, PASSWORD)
        yield session


def typing(recipient: str, **fields: Any) -> dict[str, Any]:
    """A message of the shortest kind."""
    return {"type": "typing", "recipientId": recipient, **fields}


class Wire:
    """A TCP path to a service that can be cut, blocked and frozen like a real network's."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.is_blocked = False
        self.accepted = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Break all connections at once."""
        for writer in list(self._writers):
            writer.transport.abort()

    def freeze(self) -> None:
        """Let nothing pass any more, without a word to anyone."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Let what was frozen pass again."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = [writer]
        try:
            if not self.is_blocked:
                there, back = await asyncio.open_connection(*self._target)
                ends.append(back)
                self._writers.update(ends)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass(reader, back))
                    group.create_task(self._pass(there, writer))
        finally:
            for end in ends:
                end.transport.abort()
            self._writers.difference_update(ends)
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
