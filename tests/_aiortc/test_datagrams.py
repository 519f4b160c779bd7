from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from calllab._aiortc import Address, Deliver
from calllab._aiortc.datagrams import open_udp
from tests._aiortc.helpers import until


class Keeper(asyncio.DatagramProtocol):
    """Keeps what arrives."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, Address]] = []
        self.lost = False
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.heard.append((data, addr))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    @property
    def address(self) -> Address:
        address: Address = self.transport.get_extra_info("sockname")[:2]
        return address


class Shelf:
    """An interface that puts every datagram aside, to be delivered by hand. It has no ``opened``."""

    def __init__(self) -> None:
        self.sent: list[Callable[[], None]] = []
        self.received: list[Callable[[], None]] = []
        self.sockets: list[object] = []
        self.gone: list[object] = []

    def send(self, socket: object, data: bytes, address: Address, deliver: Deliver) -> None:
        self.sockets.append(socket)
        self.sent.append(lambda: deliver(data, address))

    def receive(self, socket: object, data: bytes, address: Address, deliver: Deliver) -> None:
        self.sockets.append(socket)
        self.received.append(lambda: deliver(data, address))

    def closed(self, socket: object) -> None:
        self.gone.append(socket)


async def test_each_datagram_passes_once_in_each_direction() -> None:
    """Nothing moves before the interface delivers, and what it delivers twice is heard twice."""
    shelf = Shelf()
    near = await open_udp(Keeper(), shelf, local=("127.0.0.1", 0))
    far = await open_udp(Keeper(), None, local=("127.0.0.1", 0))
    near.transport.sendto(b"one", far.address)
    near.transport.sendto(bytearray(b"two"), far.address)
    assert len(shelf.sent) == 2
    for index in (1, 0, 0):
        shelf.sent[index]()
    await until(lambda: len(far.heard) == 3)
    assert [data for data, _ in far.heard] == [b"two", b"one", b"one"]
    assert {address for _, address in far.heard} == {near.address}
    far.transport.sendto(b"back", near.address)
    await until(lambda: shelf.received)
    assert not near.heard
    shelf.received[0]()
    assert near.heard == [(b"back", far.address)]
    assert len(set(map(id, shelf.sockets))) == 1
    await close(near, far)
    assert shelf.gone == [shelf.sockets[0]]


async def test_late_deliveries_to_a_closed_socket_do_nothing() -> None:
    """A delay that outlives the socket is harmless in both directions."""
    shelf = Shelf()
    near = await open_udp(Keeper(), shelf, local=("127.0.0.1", 0))
    far = await open_udp(Keeper(), None, local=("127.0.0.1", 0))
    near.transport.sendto(b"late", far.address)
    far.transport.sendto(b"late", near.address)
    await until(lambda: shelf.received)
    await close(near)
    shelf.sent[0]()
    shelf.received[0]()
    assert not near.heard
    await close(far)
    assert not far.heard


async def test_connected_sockets_pass_too() -> None:
    """The TURN client's socket talks to one address; the interface sees that address."""
    shelf = Shelf()
    far = await open_udp(Keeper(), None, local=("127.0.0.1", 0))
    near = await open_udp(Keeper(), shelf, remote=far.address)
    near.transport.sendto(b"hello")
    shelf.sent[0]()
    await until(lambda: far.heard)
    far.transport.sendto(b"there", far.heard[0][1])
    await until(lambda: shelf.received)
    shelf.received[0]()
    assert near.heard == [(b"there", far.address)]
    await close(near, far)


async def close(*keepers: Keeper) -> None:
    for keeper in keepers:
        keeper.transport.close()
    await until(lambda: all(keeper.lost for keeper in keepers))
