"""A real service, its users, and the sockets they hold: well-behaved ones and raw ones."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import msgspec
from aiohttp import WSMsgType
from aiohttp.test_utils import TestServer
from aioice.turn import TurnTransport, create_turn_endpoint

from calllab.protocol import RelayLimits
from calllab_server.app import PARTS, Parts, create_app
from calllab_server.config import ServiceConfig

PASSWORD = "correct horse battery"
PATIENCE_S = 10.0


class Clock:
    """A clock of seconds since the epoch that a test can turn forward."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self._ahead_s

    def advance(self, seconds: float) -> None:
        self._ahead_s += seconds


@dataclass(frozen=True)
class Account:
    """A logged-in user."""

    name: str
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}


class Socket:
    """A WebSocket of a well-behaved client."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse[bool]) -> None:
        self.websocket = websocket

    async def send(self, message: dict[str, Any]) -> None:
        await self.websocket.send_str(msgspec.json.encode(message).decode())

    async def receive(self) -> dict[str, Any]:
        """Return the next message; fail if the socket closes or stays silent."""
        async with asyncio.timeout(PATIENCE_S):
            message = await self.websocket.receive()
        assert message.type is WSMsgType.TEXT, f"{message!r}, close code {self.websocket.close_code}"
        content: dict[str, Any] = msgspec.json.decode(message.data)
        return content

    async def close_code(self) -> int | None:
        """Read on until the server closes; return its code."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.websocket.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
                pass
        return self.websocket.close_code


class Bench:
    """A running service with a client of its API."""

    def __init__(self, server: TestServer, http: aiohttp.ClientSession, parts: Parts, clock: Clock) -> None:
        self.server = server
        self.http = http
        self.parts = parts
        self.clock = clock

    async def post(
        self, path: str, content: Any = None, *, token: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """POST JSON; return status and JSON body."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data = None if content is None else msgspec.json.encode(content)
        async with self.http.post(path, data=data, headers=headers) as response:
            body = await response.read()
        return response.status, msgspec.json.decode(body) if body else {}

    async def get(self, path: str, *, token: str | None = None) -> tuple[int, dict[str, Any]]:
        """GET JSON; return status and JSON body."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.http.get(path, headers=headers) as response:
            return response.status, msgspec.json.decode(await response.read())

    async def login(self, name: str) -> Account:
        status, body = await self.post("/api/auth/login", {"username": name, "password": PASSWORD})
        assert status == 200, body
        return Account(name, body["accessToken"], body["refreshToken"])

    async def user(self, name: str) -> Account:
        """Register somebody and log in."""
        status, body = await self.post("/api/auth/register", {"username": name, "password": PASSWORD})
        assert status == 201, body
        return await self.login(name)

    @asynccontextmanager
    async def socket(self, account: Account, device: str | None = None) -> AsyncIterator[Socket]:
        """Hold an open socket of a user."""
        path = "/ws" if device is None else f"/ws?device={device}"
        async with self.http.ws_connect(path, headers=account.headers, max_msg_size=0) as websocket:
            yield Socket(websocket)

    async def count_sockets(self, expected: int) -> None:
        """Wait until the relay holds so many sockets."""
        await eventually(lambda: self.parts.relay.core.connections == expected)


@asynccontextmanager
async def running(*, limits: RelayLimits | None = None, **settings: Any) -> AsyncIterator[Bench]:
    """Run a service on loopback; its clock can be turned."""
    clock = Clock()
    config = ServiceConfig.for_loopback(cheap_passwords=True, **settings)
    server = TestServer(create_app(config, clock=clock, relay_limits=limits), skip_url_asserts=True)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.close)
        await server.start_server()
        # No connection is kept alive: its handler in the server would outlive the request.
        connector = aiohttp.TCPConnector(force_close=True)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(server.make_url("/"), connector=connector)
        )
        app = server.app
        assert app is not None
        yield Bench(server, http, app[PARTS], clock)


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds that announces itself by no event."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def bystanders(bench: Bench) -> AsyncIterator[None]:
    """Let two users talk all the while; fail if either notices anything but the other's messages."""
    carol, dave = await bench.user("carol"), await bench.user("dave")
    stop = asyncio.Event()

    async def talk(mine: Socket, other: str) -> int:
        count = 0
        while not stop.is_set():
            await mine.send({"type": "read", "recipientId": other, "messageId": str(count)})
            count += 1
            await asyncio.sleep(0.02)
        await mine.send({"type": "typing", "recipientId": other})
        return count

    async def listen(mine: Socket, other: str) -> int:
        count = 0
        while (message := await mine.receive())["type"] != "typing":
            assert (message["type"], message["senderId"]) == ("read", other), message
            assert message["messageId"] == str(count)
            count += 1
        return count

    async with bench.socket(carol) as of_carol, bench.socket(dave) as of_dave:
        async with asyncio.TaskGroup() as group:
            said = group.create_task(talk(of_carol, "dave")), group.create_task(talk(of_dave, "carol"))
            heard = group.create_task(listen(of_dave, "carol")), group.create_task(listen(of_carol, "dave"))
            try:
                yield
            finally:
                stop.set()
        assert [task.result() for task in said] == [task.result() for task in heard]
        assert all(task.result() > 0 for task in said)


class TurnUser(asyncio.DatagramProtocol):
    """The application side of somebody else's TURN client; ``lost`` tells that its allocation is gone."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.lost.set()


@asynccontextmanager
async def turn_client(
    server: tuple[str, int], credentials: Mapping[str, Any]
) -> AsyncIterator[TurnTransport]:
    """Hold an allocation made by aioice's TURN client."""
    transport, user = await create_turn_endpoint(
        TurnUser, server, credentials["username"], credentials["password"]
    )
    try:
        yield transport
    finally:
        transport.close()
        async with asyncio.timeout(PATIENCE_S):
            await user.lost.wait()


class RawSocket:
    """A WebSocket client that sends whatever bytes it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def connect(cls, bench: Bench, account: Account) -> AsyncIterator[Self]:
        """Shake hands as RFC 6455 section 4.1 has it."""
        reader, writer = await asyncio.open_connection(bench.server.host, bench.server.port)
        try:
            key = base64.b64encode(os.urandom(16)).decode()
            writer.write(
                f"GET /ws HTTP/1.1\r\nHost: {bench.server.host}:{bench.server.port}\r\n"
                f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {key}\r\nAuthorization: Bearer {account.access_token}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            assert b"permessage-deflate" not in head
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    def send(self, payload: bytes, *, opcode: int = 1, first_bits: int = 0x80) -> None:
        """Write one masked frame; ``first_bits`` are FIN and the reserved bits."""
        mask = os.urandom(4)
        length = len(payload)
        if length < 126:
            size = struct.pack("!B", 0x80 | length)
        elif length < 65536:
            size = struct.pack("!BH", 0x80 | 126, length)
        else:
            size = struct.pack("!BQ", 0x80 | 127, length)
        repeated = (mask * (length // 4 + 1))[:length]
        masked = (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(length)
        self.writer.write(bytes((first_bits | opcode,)) + size + mask + masked)

    async def receive(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame."""
        async with asyncio.timeout(PATIENCE_S):
            first, length = await self.reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(length)

    async def close_code(self) -> int:
        """Read on until the close frame; return its code."""
        while True:
            opcode, payload = await self.receive()
            if opcode == 8:
                return int.from_bytes(payload[:2])
