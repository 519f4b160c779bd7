"""Peers for the tests of the UDP proxy: one socket each, with ICE credentials and signed checks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from calllab.network.udp_proxy import UdpProxy, own_address
from calllab.protocol.stun import MessageClass, Method, StunMessage, decode
from calllab.protocol.stun_attributes import Attribute

Address = tuple[str, int]

HOST = own_address(socket.AF_INET) or "127.0.0.1"


class IcePeer:
    """One side of a call as far as a proxy can see it."""

    def __init__(self, name: str, host: str = HOST) -> None:
        self.name = name
        self.ufrag, self.pwd = f"{name}-ufrag", f"{name}-{'x' * 22}"
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((host, 0))
        self.address: Address = self.socket.getsockname()[:2]
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def candidate(self, host: str | None = None, port: int | None = None, kind: str = "host") -> str:
        """A candidate of this peer; by default its socket's address."""
        related = "" if kind == "host" else f" raddr {self.address[0]} rport {self.address[1]}"
        return (
            f"candidate:1 1 udp 2130706431 {host or self.address[0]} {port or self.address[1]} "
            f"typ {kind}{related} ufrag {self.ufrag}"
        )

    def description(self, *candidates: str) -> str:
        """A session description with these candidates; by default its own."""
        lines = [
            "v=0",
            "o=- 1 1 IN IP4 0.0.0.0",
            "s=-",
            "t=0 0",
            f"m=audio {self.address[1]} UDP/TLS/RTP/SAVPF 111",
            f"c=IN IP4 {self.address[0]}",
            f"a=ice-ufrag:{self.ufrag}",
            f"a=ice-pwd:{self.pwd}",
            *(f"a={candidate}" for candidate in candidates or (self.candidate(),)),
            "a=end-of-candidates",
        ]
        return "".join(f"{line}\r\n" for line in lines)

    def check(self, other: IcePeer, *, pwd: str | None = None, ufrag: str | None = None) -> bytes:
        """A connectivity check for ``other``, signed with its password unless told otherwise."""
        self._count += 1
        message = StunMessage(
            Method.BINDING,
            MessageClass.REQUEST,
            self._count.to_bytes(12, "big"),
            ((Attribute.USERNAME, f"{other.ufrag}:{ufrag or self.ufrag}".encode()),),
        )
        return message.encode((pwd or other.pwd).encode(), fingerprint=True)

    def answer(self, request: bytes) -> bytes:
        """The answer to a check, signed with this peer's own password."""
        asked = decode(request)
        reply = StunMessage(Method.BINDING, MessageClass.SUCCESS, asked.transaction_id)
        return reply.encode(self.pwd.encode(), fingerprint=True)

    def send(self, data: bytes, address: Address) -> None:
        """Send a datagram from this peer's socket."""
        self.socket.sendto(data, address)

    async def receive(self, timeout_s: float = 2.0) -> tuple[bytes, Address]:
        """Wait for a datagram; raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            data, source = await asyncio.get_running_loop().sock_recvfrom(self.socket, 65536)
        return data, source[:2]

    async def silent(self, for_s: float = 0.05) -> bool:
        """Whether nothing comes in for a while."""
        try:
            await self.receive(for_s)
        except TimeoutError:
            return True
        return False


def addresses(text: str) -> list[Address]:
    """The addresses of the candidates in a description, or in one candidate."""
    found = []
    for line in text.splitlines():
        if "candidate:" in line and "end-of" not in line:
            words = line.split()
            found.append((words[4], int(words[5])))
    return found


class ProxiedPair:
    """Alice and Bob in a call through a proxy; each knows the other by the address that it was told."""

    def __init__(self, proxy: UdpProxy, alice: IcePeer, bob: IcePeer, call_id: str = "c1") -> None:
        self.alice, self.bob = alice, bob
        (self.alice_leg,) = addresses(proxy.description(call_id, "alice", alice.description()))
        (self.bob_leg,) = addresses(proxy.description(call_id, "bob", bob.description()))

    async def connect(self) -> None:
        """Exchange checks and answers both ways, so that data may pass."""
        for one, other, leg in ((self.alice, self.bob, self.bob_leg), (self.bob, self.alice, self.alice_leg)):
            check = one.check(other)
            one.send(check, leg)
            data, source = await other.receive()
            assert data == check
            other.send(other.answer(data), source)
            await one.receive()


@asynccontextmanager
async def connected_pair(**options: Any) -> AsyncIterator[tuple[UdpProxy, ProxiedPair]]:
    """A proxy with a connected call between Alice and Bob."""
    proxy = UdpProxy(**options)
    with IcePeer("alice") as alice, IcePeer("bob") as bob:
        try:
            pair = ProxiedPair(proxy, alice, bob)
            await pair.connect()
            yield proxy, pair
        finally:
            proxy.close()
