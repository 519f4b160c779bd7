"""A UDP proxy in the path of calls, on the sockets of this process, with one impaired link for each user.

The sockets are drained in one go whenever they are readable; what the links let through waits in the heap of
the sender's :class:`~calllab.network.NetworkInterface`, which has one timer of the running loop.  For numbers
that are reported it runs in a process of its own (:mod:`calllab.network.udp_proxy_process`), where nothing
else keeps that loop busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final, Literal

from calllab.errors import InvalidSetting
from calllab.network.candidate_substitution import Address
from calllab.network.interface import NetworkEvent, NetworkInterface
from calllab.network.settings import LinkSettings
from calllab.network.timeline import Fault, Timeline, check_time
from calllab.network.udp_proxy_table import AddressPolicy, Forward, Leg, ProxyTable

__all__ = ["EVERYONE", "UdpProxy", "is_own_address", "own_address"]

EVERYONE: Final = "*"
"""Stands for all users, also for those who come later."""

_DATAGRAM_BYTES: Final = 65_536
_DATAGRAMS_PER_TURN: Final = 64
_RECEIVE_BUFFER_BYTES: Final = 1024 * 1024
_SILENCE_S: Final = 10.0
"""The legs of a call that has ended are closed when nothing came for so long: two checks of consent (RFC 7675
section 5.1: every 5 s)."""

UserListener = Callable[[str, NetworkEvent], None]


class _LegSocket:
    """The socket of one leg."""

    def __init__(self, proxy: UdpProxy, leg: Leg, bound: socket.socket) -> None:
        self.leg = leg
        self._proxy = proxy
        self._socket = bound
        self._buffer = proxy.buffer
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(bound, self._drain)

    def transmit(self, data: bytes, address: Address) -> None:
        """Send a datagram whose time has come."""
        try:
            self._socket.sendto(data, address)
        except BlockingIOError:
            self._proxy.refused["socket-full"] += 1

    def close(self) -> None:
        """Close the socket."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _drain(self) -> None:
        receive, buffer, take = self._socket.recvfrom_into, self._buffer, self._proxy.take
        for _ in range(_DATAGRAMS_PER_TURN):
            try:
                size, source = receive(buffer)
            except BlockingIOError:
                return
            except OSError:
                continue  # what an earlier datagram met elsewhere
            take(self.leg, bytes(buffer[:size]), (source[0], source[1]))


class UdpProxy:
    """Forwards the media of calls between legs, which stand for the peers' ICE candidates.

    Give it the descriptions and candidates that pass between the peers, and pass on what it returns: each
    peer then sends to the proxy instead of the other peer.  What a user sends passes one impaired link, with
    settings and faults as :class:`~calllab.network.NetworkInterface` has them.  It belongs to the running
    event loop; :meth:`close` it at the end.

    Args:
        host: the address of legs that stand for an address of another machine, or a hidden one; None: an
            address of this machine that others can reach.
        seed: the seed of the run.
        epoch: the loop time at which the timelines are at 0 s; None: now.
        allowed: networks beside this machine's own addresses that it may forward to, as ``10.0.0.0/8``.

    """

    def __init__(
        self,
        *,
        host: str | None = None,
        seed: int = 0,
        epoch: float | None = None,
        allowed: Iterable[str] = (),
    ) -> None:
        self.host = host or own_address(socket.AF_INET) or own_address(socket.AF_INET6) or "127.0.0.1"
        if not is_own_address(self.host):
            raise InvalidSetting(f"host={self.host!r}: give an address of this machine")
        try:
            policy = AddressPolicy(is_own_address, allowed)
        except ValueError as error:
            raise InvalidSetting(f"allowed: {error}: give networks, like 10.0.0.0/8") from error
        self.refused: Counter[str] = Counter()
        """How many datagrams were not forwarded, by why."""
        self.buffer = memoryview(bytearray(_DATAGRAM_BYTES))
        self._loop = asyncio.get_running_loop()
        self._epoch = self._loop.time() if epoch is None else epoch
        self._seed = seed
        self._table = ProxyTable(policy, open_leg=self._open_leg, close_leg=self._close_leg)
        self._sockets: dict[Leg, _LegSocket] = {}
        self._interfaces: dict[str, NetworkInterface] = {}
        self._base = LinkSettings()
        self._faults: dict[int, _PlannedForAll] = {}
        self._fault_count = 0
        self._listeners: list[UserListener] = []
        self._ending: dict[str, asyncio.TimerHandle] = {}
        self._closed = False

    @property
    def users(self) -> tuple[str, ...]:
        """The users who have a link."""
        return tuple(self._interfaces)

    @property
    def now_s(self) -> float:
        """Seconds since the epoch."""
        return self._loop.time() - self._epoch

    def interface(self, user: str) -> NetworkInterface:
        """Return the link of a user, which is made if it is not there yet."""
        interface = self._interfaces.get(user)
        if interface is None:
            interface = NetworkInterface(self._base, seed=self._seed, name=user, epoch=self._epoch)
            self._interfaces[user] = interface
            interface.on_event(functools.partial(self._tell, user))
            for planned in self._faults.values():
                planned.plan(interface, self.now_s)
        return interface

    def on_event(self, listener: UserListener) -> Callable[[], None]:
        """Call ``listener`` with user and event at each change of a link; returns how to stop this."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # Signaling

    def description(self, call_id: str, user: str, sdp: str) -> str:
        """Return the session description that ``user`` sends, with legs in place of its candidates."""
        self.interface(user)
        return self._table.description(call_id, user, sdp, self._loop.time())

    def candidate(self, call_id: str, user: str, candidate: str) -> str | None:
        """Return the candidate that ``user`` trickles with a leg in its place; None: do not pass it on.

        The empty candidate, the end of candidates, is returned as it is.
        """
        if not candidate:
            return candidate
        self.interface(user)
        return self._table.candidate(call_id, user, candidate, self._loop.time())

    def end_call(self, call_id: str) -> None:
        """Close the legs of a call as soon as it is silent.

        What ends a call for one device of a user may leave it to another, so what still passes shows that it
        is not over.
        """
        if call_id not in self._ending:
            self._end_when_silent(call_id)

    def _end_when_silent(self, call_id: str) -> None:
        self._ending.pop(call_id, None)
        if (last_s := self._table.last_s(call_id)) is None:
            return
        over_s = last_s + _SILENCE_S
        if self._loop.time() >= over_s:
            self._table.end_call(call_id)
        else:
            self._ending[call_id] = self._loop.call_at(over_s, self._end_when_silent, call_id)

    # Impairments

    def set(self, user: str, **changes: Any) -> None:
        """Change what a user's link does as long as no fault is on; :data:`EVERYONE`: all links'."""
        if user != EVERYONE:
            self.interface(user).set(**changes)
            return
        self._base = self._base.replace(**changes)
        for interface in self._interfaces.values():
            interface.set(**changes)

    def fault(
        self, user: str, *, at_s: float | None = None, for_s: float | None = None, **changes: Any
    ) -> int:
        """Plan a fault of a user's link, or of all (:data:`EVERYONE`); returns its number.

        Times and changes are as of :meth:`~calllab.network.NetworkInterface.fault`.
        """
        planned = _PlannedForAll(user, self.now_s, at_s, for_s, changes)
        if user == EVERYONE:
            for interface in self._interfaces.values():
                planned.plan(interface, self.now_s)
        else:
            planned.plan(self.interface(user), self.now_s)
        self._fault_count += 1
        self._faults[self._fault_count] = planned
        return self._fault_count

    def cancel(self, number: int) -> None:
        """End a fault that is on, or strike one that is planned; nothing happens if it is over."""
        planned = self._faults.pop(number, None)
        if planned is not None:
            planned.cancel()

    def counters(self) -> dict[str, Any]:
        """Return what has happened so far, as JSON can hold it."""
        return {
            "users": {
                user: {**asdict(interface.counters), **asdict(interface.interface_counters)}
                for user, interface in self._interfaces.items()
            },
            "refused": dict(self.refused),
            "leftOut": self._table.left_out,
            "legs": [_described(leg) for leg in self._table.legs],
        }

    def close(self) -> None:
        """Close all links and sockets; may be called again."""
        if self._closed:
            return
        self._closed = True
        for handle in self._ending.values():
            handle.cancel()
        for interface in self._interfaces.values():
            interface.close()
        self._table.close()

    # Sockets

    def take(self, leg: Leg, data: bytes, source: Address) -> None:
        """Take a datagram that came in on a leg."""
        route = self._table.route(leg, data, source, self._loop.time())
        if not isinstance(route, Forward):
            self.refused[route] += 1
            return
        out = self._sockets[route.leg]
        self._interfaces[route.leg.owner].send(out, data, route.destination, out.transmit)

    def _open_leg(self, leg: Leg, host: str | None) -> Address | None:
        host = host or self._host_for(leg)
        if host is None:
            return None
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            bound.setblocking(False)
            with contextlib.suppress(OSError):
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            bound.bind((host, 0))
        except OSError:
            bound.close()
            return None
        address: Address = bound.getsockname()[:2]
        opened = self._sockets[leg] = _LegSocket(self, leg, bound)
        self.interface(leg.owner).opened(opened)
        return address

    def _close_leg(self, leg: Leg) -> None:
        opened = self._sockets.pop(leg)
        self._interfaces[leg.owner].closed(opened)
        opened.close()

    def _host_for(self, leg: Leg) -> str | None:
        """Return the proxy's own host in the family of the leg's real address."""
        if leg.real is None or (":" in leg.real[0]) == (":" in self.host):
            return self.host
        return own_address(socket.AF_INET6 if ":" in leg.real[0] else socket.AF_INET)

    def _tell(self, user: str, event: NetworkEvent) -> None:
        for listener in tuple(self._listeners):
            listener(user, event)


class _PlannedForAll:
    """One fault as asked for, and its parts on the links of users."""

    def __init__(
        self,
        user: str,
        now_s: float,
        at_s: float | None,
        for_s: float | None,
        changes: Mapping[str, Any],
    ) -> None:
        self.user = user
        if at_s is not None:
            check_time(at_s)
        self._at_s = max(now_s, at_s or 0.0)
        self._for_s = for_s
        self._changes = dict(changes)
        self._parts: list[tuple[NetworkInterface, Fault]] = []
        # What makes no sense is refused before anybody comes to use it.
        Timeline().plan(self._at_s, for_s, self._changes)

    def plan(self, interface: NetworkInterface, now_s: float) -> None:
        """Plan it on a link, or what is left of it; nothing happens if it is another user's, or over."""
        if self.user not in (EVERYONE, interface.name):
            return
        end_s = math.inf if self._for_s is None else self._at_s + self._for_s
        if end_s <= now_s:
            return
        at_s = max(self._at_s, now_s)
        for_s = None if self._for_s is None else end_s - at_s
        self._parts.append((interface, interface.fault(at_s=at_s, for_s=for_s, **self._changes)))

    def cancel(self) -> None:
        """End all parts."""
        for interface, fault in self._parts:
            interface.cancel(fault)


Family = Literal[socket.AddressFamily.AF_INET, socket.AddressFamily.AF_INET6]


def own_address(family: Family) -> str | None:
    """Return the address from which this machine reaches others; None if it reaches none.

    No datagram is sent: the operating system is only asked for its choice, for a documentation address.
    """
    target = "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))
        except OSError:
            return None
        host: str = probe.getsockname()[0]
        return host


def is_own_address(host: str) -> bool:
    """Say whether ``host`` is an address of this machine: one that it reaches from that very address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError:
            return False
        return bool(probe.getsockname()[0] == host)


def _described(leg: Leg) -> dict[str, Any]:
    return {
        "callId": leg.call_id,
        "user": leg.owner,
        "real": None if leg.real is None else list(leg.real),
        "local": list(leg.local),
        "learned": leg.is_learned,
        "proven": leg.is_proven,
    }
