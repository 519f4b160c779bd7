"""Real sockets around the TURN server: a client that is driven request by request, and peers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from calllab.protocol import stun
from calllab.protocol.stun import MessageClass, Method, StunMessage
from calllab.protocol.stun_attributes import (
    Address,
    Attribute,
    decode_error_code,
    decode_xor_address,
    encode_xor_address,
)
from calllab.protocol.turn_credentials import TurnCredentials, make_credentials
from calllab_server.turn import TurnServer

SECRET = "a secret for tests"
PATIENCE_S = 5.0
UDP = bytes((17, 0, 0, 0))


@asynccontextmanager
async def lab_server(**settings: Any) -> AsyncIterator[TurnServer]:
    """A server for one machine."""
    settings.setdefault("secret", SECRET)
    settings.setdefault("allow_private_peers", True)
    async with TurnServer(**settings) as server:
        yield server


def credentials_for(server: TurnServer, user: str = "alice", *, ttl: int = 600) -> TurnCredentials:
    return make_credentials(SECRET, user, now=time.time(), ttl=ttl, uris=server.uris)


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds that other sockets or timers bring about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)
    assert condition(), what


class Endpoint(asyncio.DatagramProtocol):
    """A UDP socket that remembers what it gets, and may echo it."""

    def __init__(self, *, echo: bool = False) -> None:
        self.echo = echo
        self.inbox: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own transport is none of its class of that name (before Python 3.14).
        self.transport = cast(asyncio.DatagramTransport, transport)
        self.address: Address = transport.get_extra_info("sockname")[:2]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.echo:
            self.transport.sendto(data, addr)
        self.inbox.put_nowait((data, addr[:2]))

    async def receive(self) -> tuple[bytes, Address]:
        async with asyncio.timeout(PATIENCE_S):
            return await self.inbox.get()


@asynccontextmanager
async def endpoint(*, echo: bool = False, host: str = "127.0.0.1") -> AsyncIterator[Endpoint]:
    """A peer."""
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Endpoint(echo=echo), local_addr=(host, 0)
    )
    try:
        yield protocol
    finally:
        transport.close()


class TurnClient:
    """Makes requests and sends data by hand, over a real socket."""

    def __init__(self, server: TurnServer, socket: Endpoint, credentials: TurnCredentials) -> None:
        self.server = server.address
        self.socket = socket
        self.username = credentials.username
        self.password = credentials.password
        self.realm = ""
        self.nonce: bytes | None = None

    @property
    def key(self) -> bytes:
        return stun.long_term_key(self.username, self.realm, self.password)

    async def request(
        self, method: Method, *attributes: tuple[int, bytes], peer: Address | None = None
    ) -> StunMessage:
        """Make a request, again after the first challenge; a success must be signed."""
        while True:
            transaction_id = os.urandom(12)
            wanted = list(attributes)
            if peer is not None:
                wanted.append((Attribute.XOR_PEER_ADDRESS, encode_xor_address(peer, transaction_id)))
            nonce = self.nonce
            if nonce is not None:
                wanted.append((Attribute.USERNAME, self.username.encode()))
                wanted.append((Attribute.REALM, self.realm.encode()))
                wanted.append((Attribute.NONCE, nonce))
            request = StunMessage(method, MessageClass.REQUEST, transaction_id, tuple(wanted))
            self.socket.transport.sendto(request.encode(self.key if nonce else None), self.server)
            data, source = await self.socket.receive()
            assert source == self.server
            response = stun.decode(data)
            assert response.transaction_id == transaction_id
            if nonce is None and code_of(response) == 401:
                self.nonce = response.get(Attribute.NONCE)
                self.realm = (response.get(Attribute.REALM) or b"").decode()
                continue
            if response.message_class is MessageClass.SUCCESS and method != Method.BINDING:
                assert stun.check_integrity(data, self.key)
            return response

    async def allocate(self, *attributes: tuple[int, bytes]) -> StunMessage:
        return await self.request(Method.ALLOCATE, (Attribute.REQUESTED_TRANSPORT, UDP), *attributes)

    async def bind(self, channel: int, peer: Address) -> StunMessage:
        number = (Attribute.CHANNEL_NUMBER, channel.to_bytes(2, "big") + b"\0\0")
        return await self.request(Method.CHANNEL_BIND, number, peer=peer)

    async def permit(self, peer: Address) -> StunMessage:
        return await self.request(Method.CREATE_PERMISSION, peer=peer)

    async def refresh(self, lifetime_s: int) -> StunMessage:
        return await self.request(Method.REFRESH, (Attribute.LIFETIME, lifetime_s.to_bytes(4, "big")))

    def indicate(self, data: bytes, peer: Address, *more: tuple[int, bytes]) -> None:
        """Send a Send indication."""
        transaction_id = os.urandom(12)
        attributes = (
            (Attribute.XOR_PEER_ADDRESS, encode_xor_address(peer, transaction_id)),
            *more,
            (Attribute.DATA, data),
        )
        message = StunMessage(Method.SEND, MessageClass.INDICATION, transaction_id, attributes)
        self.socket.transport.sendto(message.encode(), self.server)

    def send(self, channel: int, data: bytes) -> None:
        """Send ChannelData."""
        self.socket.transport.sendto(stun.encode_channel_data(channel, data), self.server)

    async def receive(self) -> tuple[int | Address, bytes]:
        """Return from which channel or peer the next data comes, and the data."""
        data, source = await self.socket.receive()
        assert source == self.server
        if stun.is_channel_data(data):
            return stun.decode_channel_data(data)
        message = stun.decode(data)
        assert (message.method, message.message_class) == (Method.DATA, MessageClass.INDICATION)
        value, payload = message.get(Attribute.XOR_PEER_ADDRESS), message.get(Attribute.DATA)
        assert value is not None
        assert payload is not None
        return decode_xor_address(value, message.transaction_id), payload


@asynccontextmanager
async def turn_client(server: TurnServer, user: str = "alice") -> AsyncIterator[TurnClient]:
    """A client with valid credentials."""
    async with endpoint(host=server.address[0]) as socket:
        yield TurnClient(server, socket, credentials_for(server, user))


def code_of(response: StunMessage) -> int:
    """Return the error code; 0 for a success."""
    value = response.get(Attribute.ERROR_CODE)
    return 0 if value is None else decode_error_code(value)[0]


def relayed_address(response: StunMessage) -> Address:
    """Return the relayed address of an Allocate's success."""
    value = response.get(Attribute.XOR_RELAYED_ADDRESS)
    assert value is not None, f"error {code_of(response)}"
    return decode_xor_address(value, response.transaction_id)
