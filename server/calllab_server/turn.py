"""The embedded STUN/TURN server: sockets, clock and timer around the core in :mod:`calllab.protocol`.

Relayed media is by far the most of the traffic, and all of it has the same shape: ChannelData of a bound
channel.  So that shape has a path of its own, from one socket to the other without a copy: a datagram is read
into the one buffer of the server, four bytes behind its start, and sent on from there with the header written
in front of it, or left out.  Everything else goes through the core.  Readers take what is there, up to a
batch, since waking the event loop costs more than a packet.

Datagrams that a socket does not take at once are dropped and counted, as a router would.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from calllab.protocol.stun_attributes import Address, Family, family_of
from calllab.protocol.turn_actions import (
    CloseRelay,
    OpenRelay,
    Output,
    ReleaseReservation,
    SendToClient,
    SendToPeer,
    TurnCounters,
    TurnLimits,
    TurnSettings,
)
from calllab.protocol.turn_allocation import Allocation
from calllab.protocol.turn_server import TurnServerCore
from calllab_server.turn_ports import RelayPorts, can_forbid_fragments, open_socket, send_unfragmented

__all__ = ["TurnServer"]

logger = logging.getLogger(__name__)

_BATCH: Final = 32
_BUFFER_BYTES: Final = 65540
_SOCKET_BYTES: Final = 4 << 20
# Timers of the event loop may come early by its clock's resolution; what is due must be due when they come.
_TIMER_SLACK_S: Final = 0.001
_HEADER: Final = struct.Struct("!HH")


class TurnServer:
    """A STUN/TURN server over UDP on the running event loop.

    Use it as ``async with TurnServer(...) as turn``; it serves once.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        secret: str | bytes,
        realm: str = "calllab",
        allow_private_peers: bool = False,
        external_ip: str | None = None,
        relay_ports: tuple[int, int] | None = None,
        clock: Callable[[], float] = time.time,
        entropy: random.Random | None = None,
        limits: TurnLimits | None = None,
        rfc5766_channels: bool = False,
    ) -> None:
        """Make a server for ``host`` and ``port`` (0: any), whose credentials are signed with ``secret``.

        ``external_ip`` is the address under which the world sees this machine, if that is not ``host``.
        ``relay_ports`` are the lowest and the highest port of relayed addresses (None: whatever the system
        gives).  ``clock`` gives Unix seconds, for the expiry of credentials; everything else is measured on
        the event loop's clock.  ``entropy`` makes keys, nonces and tokens: leave it out, except in tests.
        ``rfc5766_channels`` lets clients bind channels above 0x4FFF, as RFC 5766 allowed and some
        clients do.

        Raises :exc:`ValueError` for settings that cannot work.
        """
        if relay_ports is not None and not 1 <= relay_ports[0] <= relay_ports[1] <= 65535:
            raise ValueError(f"relay_ports is {relay_ports}: give the lowest and the highest port")
        self._host = host
        self._port = port
        self._external_ip = None if external_ip is None else str(ipaddress.ip_address(external_ip))
        self._relay_ports = relay_ports
        self._clock = clock
        self._entropy = entropy or random.SystemRandom()
        self._settings = TurnSettings(
            secret=secret,
            realm=realm,
            allow_private_peers=allow_private_peers,
            limits=limits or TurnLimits(),
            rfc5766_channels=rfc5766_channels,
        )
        self._service: _Service | None = None

    async def start(self) -> None:
        """Open the port and serve.

        Raises :exc:`OSError` if the port cannot be had, :exc:`ValueError` if the host stands for all of the
        machine's addresses and no ``external_ip`` names one of them, :exc:`RuntimeError` the second time.
        """
        if self._service is not None:
            raise RuntimeError("this TurnServer has been started before: make a new one")
        host = await _numeric_host(self._host)
        if ipaddress.ip_address(host).is_unspecified and self._external_ip is None:
            raise ValueError(
                f"host is {host}, which names no address that peers could send to: "
                "give external_ip, or the one address to listen on"
            )
        public_host = self._external_ip or host
        family = family_of(host)
        if family_of(public_host) is not family:
            raise ValueError(
                f"host is {host} and external_ip is {public_host}: both must be of one IP version"
            )
        settings = replace(
            self._settings,
            own_hosts=(public_host,),
            families=frozenset({family}),
            can_forbid_fragments=can_forbid_fragments(family),
        )
        core = TurnServerCore(settings, entropy=self._entropy, clock=self._clock)
        sock = open_socket(host, self._port, _SOCKET_BYTES)
        ports = RelayPorts(host, self._relay_ports, entropy=self._entropy)
        self._service = _Service(asyncio.get_running_loop(), core, sock, ports, public_host)
        logger.info("TURN listens on %s port %d", *self.address)

    async def close(self) -> None:
        """Stop serving and close every socket; allocations end without a word to their clients."""
        if self._service is not None:
            self._service.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def address(self) -> Address:
        """Host and port that it listens on; raises :exc:`RuntimeError` before the start."""
        return self._started.address

    @property
    def uris(self) -> tuple[str, ...]:
        """The URIs to hand out with credentials (RFC 7065), with the external address if there is one."""
        service = self._started
        host = f"[{service.public_host}]" if ":" in service.public_host else service.public_host
        return (f"turn:{host}:{service.address[1]}?transport=udp",)

    def counters(self) -> TurnCounters:
        """Return what it has done so far, after the end too; raises :exc:`RuntimeError` before the start."""
        return self._started.core.counters()

    @property
    def _started(self) -> _Service:
        if self._service is None:
            raise RuntimeError("this TurnServer is not started: await start() first")
        return self._service


class _Relay:
    """The socket of one allocation, with what the fast path needs of it."""

    __slots__ = ("client", "id", "returns", "routes", "sock")

    def __init__(self, allocation: Allocation, sock: socket.socket) -> None:
        self.id = allocation.id
        self.client = allocation.client
        self.routes = allocation.routes
        self.returns = allocation.returns
        self.sock = sock


class _Service:
    """All that runs between start and close."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        core: TurnServerCore,
        sock: socket.socket,
        ports: RelayPorts,
        public_host: str,
    ) -> None:
        self.core = core
        self.public_host = public_host
        host, port = sock.getsockname()[:2]
        self.address: Address = (host, port)
        self._loop = loop
        self._sock = sock
        self._ports = ports
        self._is_ipv6 = family_of(host) is Family.IPV6
        self._relays: dict[int, _Relay] = {}
        self._by_client: dict[Address, _Relay] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        buffer = bytearray(_BUFFER_BYTES)
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._behind_header = self._view[_HEADER.size :]
        loop.add_reader(sock.fileno(), self._read_clients)

    def close(self) -> None:
        """Close every socket and end the timer."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._shut(self._sock)
        for relay in self._relays.values():
            self._shut(relay.sock)
        self._relays.clear()
        self._by_client.clear()
        self._ports.close()

    # From sockets to sockets.

    def _read_clients(self) -> None:
        buffer, view, receive = self._buffer, self._view, self._sock.recvfrom_into
        traffic, relay_of, unpack = self.core.traffic, self._by_client.get, _HEADER.unpack_from
        for _ in range(_BATCH):
            try:
                size, client = receive(buffer)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue
            if self._is_ipv6:
                client = client[:2]
            if size >= 4 and buffer[0] & 0xC0 == 0x40 and (relay := relay_of(client)) is not None:
                channel, length = unpack(buffer)
                peer = relay.routes.get(channel)
                if peer is not None and length <= size - 4:
                    try:
                        relay.sock.sendto(view[4 : 4 + length], peer)
                    except OSError:
                        traffic.dropped += 1
                    else:
                        traffic.packets_to_peers += 1
                        traffic.bytes_to_peers += length
                    continue
            self._perform(self.core.receive_from_client(bytes(view[:size]), client, self._loop.time()))

    def _read_peers(self, relay: _Relay) -> None:
        buffer, view, receive, space = self._buffer, self._view, relay.sock.recvfrom_into, self._behind_header
        traffic, channel_of, send, client = (
            self.core.traffic,
            relay.returns.get,
            self._sock.sendto,
            relay.client,
        )
        pack = _HEADER.pack_into
        for _ in range(_BATCH):
            try:
                size, peer = receive(space)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue
            if self._is_ipv6:
                peer = peer[:2]
            channel = channel_of(peer)
            if channel is not None:
                pack(buffer, 0, channel, size)
                try:
                    send(view[: size + 4], client)
                except OSError:
                    traffic.dropped += 1
                else:
                    traffic.packets_to_clients += 1
                    traffic.bytes_to_clients += size
                continue
            data = bytes(space[:size])
            self._perform(self.core.receive_from_peer(relay.id, data, peer, self._loop.time()))
            if relay.id not in self._relays:
                break

    # What the core wants.

    def _perform(self, outputs: Iterable[Output]) -> None:
        waiting = deque(outputs)
        while waiting:
            match waiting.popleft():
                case SendToClient(data=data, client=client):
                    self._send(self._sock.sendto, data, client)
                case SendToPeer(allocation=allocation_id) as order:
                    if (relay := self._relays.get(allocation_id)) is not None:
                        self._send_to_peer(relay.sock, order)
                case OpenRelay() as order:
                    waiting.extend(self._open_relay(order))
                case CloseRelay(allocation=allocation_id):
                    self._close_relay(allocation_id)
                case ReleaseReservation(reservation=token):
                    self._ports.release(token)
        self._set_timer()

    def _send_to_peer(self, sock: socket.socket, order: SendToPeer) -> None:
        if order.dont_fragment:
            self._send(lambda data, peer: send_unfragmented(sock, data, peer), order.data, order.peer)
        else:
            self._send(sock.sendto, order.data, order.peer)

    def _send(self, send: Callable[[bytes, Address], Any], data: bytes, address: Address) -> None:
        try:
            send(data, address)
        except OSError as exc:
            self.core.traffic.dropped += 1
            logger.debug("a datagram of %d bytes to %s was not sent: %s", len(data), address, exc)

    def _open_relay(self, order: OpenRelay) -> list[Output]:
        allocation = self.core.allocation(order.allocation)
        now = self._loop.time()
        try:
            sock = self._ports.open(order.ports, order.reservation)
        except OSError as exc:
            # Out of ports, or of file descriptors: this client hears of it, the others go on.
            logger.warning("no relay socket for a new allocation: %s", exc)
            return self.core.relay_failed(order.allocation, now)
        if allocation is None:
            sock.close()
            return []
        relay = _Relay(allocation, sock)
        self._relays[relay.id] = relay
        self._by_client[relay.client] = relay
        self._loop.add_reader(sock.fileno(), self._read_peers, relay)
        return self.core.relay_opened(relay.id, (self.public_host, sock.getsockname()[1]), now)

    def _close_relay(self, allocation_id: int) -> None:
        relay = self._relays.pop(allocation_id, None)
        if relay is None:
            return
        if self._by_client.get(relay.client) is relay:
            del self._by_client[relay.client]
        self._shut(relay.sock)

    def _shut(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock.fileno())
        sock.close()

    def _set_timer(self) -> None:
        due = self.core.next_timeout()
        if self._timer is not None:
            # A timer that comes too early finds nothing and is set anew: cheaper than moving it each time.
            if due is None or self._timer.when() <= due + _TIMER_SLACK_S:
                return
            self._timer.cancel()
        self._timer = None
        if due is not None and not self._closed:
            self._timer = self._loop.call_at(due + _TIMER_SLACK_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._perform(self.core.timeouts(self._loop.time()))


async def _numeric_host(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        return str(found[0][4][0])
