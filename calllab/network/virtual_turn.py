"""A STUN and TURN server on the virtual network: the rules of the real one, on virtual sockets.

The rules are those of :mod:`calllab.protocol`, as in the service.  Faults are put in between the socket and
the rules, so a refusal is one that a real server could have sent.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final, TypeAlias

from calllab._aiortc import wall_time
from calllab.errors import InvalidSetting
from calllab.network.virtual_host import VirtualHost, VirtualSocket
from calllab.protocol import stun
from calllab.protocol.stun_attributes import Attribute, encode_error_code
from calllab.protocol.turn_actions import (
    CloseRelay,
    OpenRelay,
    Output,
    Ports,
    ReleaseReservation,
    SendToClient,
    SendToPeer,
    TurnCounters,
    TurnLimits,
    TurnSettings,
)
from calllab.protocol.turn_credentials import TurnCredentials, make_credentials, password_for
from calllab.protocol.turn_server import TurnServerCore

__all__ = ["REFUSALS", "VirtualTurnServer"]

Address: TypeAlias = tuple[str, int]

STUN_PORT: Final = 3478

REFUSALS: Final = frozenset({400, 401, 403, 437, 438, 441, 442, 486, 508})
"""The error codes that the server can be told to answer with (RFC 8656 section 18)."""


class _Port(asyncio.DatagramProtocol):
    """One socket of the server."""

    def __init__(self, received: Callable[[bytes, Address], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._received(data, (addr[0], addr[1]))


class VirtualTurnServer:
    """Answers STUN, and relays for those who have credentials; made by ``VirtualNetwork.add_turn_server``.

    It serves from :meth:`start` to :meth:`stop`, on a running event loop.

    :param secret: what credentials are signed with.
    :param relays: False: STUN alone, every TURN request gets 403.
    """

    def __init__(
        self,
        host: VirtualHost,
        *,
        secret: str,
        realm: str = "calllab",
        limits: TurnLimits | None = None,
        relays: bool = True,
        seed: int = 0,
    ) -> None:
        self.host = host
        self._secret = secret
        self._entropy = random.Random(f"{seed}/{host.name}/turn")
        self._settings = TurnSettings(
            secret=secret,
            realm=realm,
            # The networks behind NATs are part of the laboratory; routes decide who reaches whom.
            allow_private_peers=True,
            limits=limits if limits is not None else TurnLimits(),
            own_hosts=(host.address,),
        )
        self._core: TurnServerCore | None = None
        self._socket: VirtualSocket | None = None
        self._relays: dict[int, VirtualSocket] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._reject: int | None = None if relays else 403
        self._silent = False

    # What clients are told

    @property
    def uris(self) -> tuple[str, ...]:
        """The TURN URIs (RFC 7065) to hand out; its name resolves on this network."""
        return (f"turn:{self.host.name}:{STUN_PORT}?transport=udp",)

    @property
    def stun_uris(self) -> tuple[str, ...]:
        """The STUN URIs (RFC 7064) to hand out."""
        return (f"stun:{self.host.name}:{STUN_PORT}",)

    def credentials(self, user_id: str, *, ttl_s: int = 3600, secret: str | None = None) -> TurnCredentials:
        """Make credentials, valid from now for ``ttl_s`` seconds of the loop's clock.

        :param secret: sign with another one than the server's: it will answer 401.
        """
        return make_credentials(
            self._secret if secret is None else secret, user_id, now=wall_time(), ttl=ttl_s, uris=self.uris
        )

    # Life and faults

    @property
    def running(self) -> bool:
        """Whether it serves."""
        return self._socket is not None

    def start(self) -> None:
        """Serve from now on; nothing happens if it does."""
        if self._socket is not None:
            return
        settings = replace(self._settings, own_hosts=(self.host.address,))
        self._core = TurnServerCore(settings, entropy=self._entropy, clock=wall_time)
        self._socket = self.host.open_socket(_Port(self._from_client), local=(self.host.address, STUN_PORT))

    def stop(self) -> None:
        """Die: all allocations are gone without a word; nothing happens if it is dead."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for opened in (*self._relays.values(), *((self._socket,) if self._socket is not None else ())):
            opened.close()
        self._relays.clear()
        self._socket = None

    def fault(self, *, reject: int | None = None, silent: bool = False) -> None:
        """Change how it serves from now on; without arguments it serves well again.

        :param reject: the error code that answers every TURN request with credentials: 401 (never the right
            ones), 438 (always another nonce), 486 (quota reached), or another of :data:`REFUSALS`.
        :param silent: take everything and answer nothing, STUN included; allocations relay nothing.

        Raises :exc:`~calllab.errors.InvalidSetting` for an unknown code.
        """
        if reject is not None and reject not in REFUSALS:
            known = ", ".join(map(str, sorted(REFUSALS)))
            raise InvalidSetting(f"reject={reject!r}: a TURN server answers {known}")
        self._reject = reject
        self._silent = silent

    def counters(self) -> TurnCounters | None:
        """Return what it has done since the latest start; None before the first."""
        return None if self._core is None else self._core.counters()

    # From sockets to rules and back

    def _from_client(self, data: bytes, client: Address) -> None:
        if self._silent or self._core is None or self._socket is None:
            return
        refusal = self._refusal(data) if self._reject is not None else None
        if refusal is not None:
            self._socket.sendto(refusal, client)
            return
        self._perform(self._core.receive_from_client(data, client, self._now()))

    def _from_peer(self, allocation: int, data: bytes, peer: Address) -> None:
        if not self._silent and self._core is not None:
            self._perform(self._core.receive_from_peer(allocation, data, peer, self._now()))

    def _refusal(self, data: bytes) -> bytes | None:
        """Return the answer to a request that a fault refuses."""
        if not stun.is_stun(data):
            return None
        try:
            request = stun.decode(data)
        except stun.StunError:
            return None
        username = request.get(Attribute.USERNAME)
        if (
            request.message_class is not stun.MessageClass.REQUEST
            or request.method == stun.Method.BINDING
            or request.integrity is None
            or username is None
        ):
            return None
        assert self._reject is not None
        attributes: list[tuple[int, bytes]] = [(Attribute.ERROR_CODE, encode_error_code(self._reject))]
        key = None
        if self._reject in (401, 438):
            # Without integrity, and with what a client needs to try again (RFC 8489 section 9.2.4).
            attributes += [
                (Attribute.REALM, self._settings.realm.encode()),
                (Attribute.NONCE, self._entropy.randbytes(16).hex().encode()),
            ]
        else:
            name = username.decode(errors="replace")
            key = stun.long_term_key(name, self._settings.realm, password_for(self._secret, name))
        answer = stun.StunMessage(
            request.method, stun.MessageClass.ERROR, request.transaction_id, tuple(attributes)
        )
        return answer.encode(key, integrity=request.integrity, fingerprint=True)

    def _perform(self, outputs: Iterable[Output]) -> None:
        waiting = deque(outputs)
        while waiting:
            match waiting.popleft():
                case SendToClient(data=data, client=client):
                    if self._socket is not None:
                        self._socket.sendto(data, client)
                case SendToPeer(allocation=allocation, data=data, peer=peer):
                    if (relay := self._relays.get(allocation)) is not None:
                        relay.sendto(data, peer)
                case OpenRelay() as order:
                    waiting.extend(self._open_relay(order))
                case CloseRelay(allocation=allocation):
                    if (relay := self._relays.pop(allocation, None)) is not None:
                        relay.close()
                case ReleaseReservation():
                    pass  # nothing is held back: see _open_relay
        self._set_timer()

    def _open_relay(self, order: OpenRelay) -> list[Output]:
        core = self._core
        assert core is not None
        if order.ports not in (Ports.ANY, Ports.EVEN):
            return core.relay_failed(order.allocation, self._now())  # reserved pairs are for RTP without mux
        identifier = order.allocation
        port = _Port(lambda data, peer: self._from_peer(identifier, data, peer))
        try:
            opened = self.host.open_socket(port)
        except OSError:
            return core.relay_failed(identifier, self._now())
        self._relays[identifier] = opened
        return core.relay_opened(identifier, opened.local, self._now())

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _set_timer(self) -> None:
        assert self._core is not None
        due = self._core.next_timeout()
        if self._timer is not None:
            if due is not None and self._timer.when() == due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None and self._socket is not None:
            self._timer = asyncio.get_running_loop().call_at(due, self._timed_out)

    def _timed_out(self) -> None:
        self._timer = None
        if self._core is not None:
            # A real clock may wake a moment early.
            due = self._core.next_timeout()
            now = self._now()
            self._perform(self._core.timeouts(now if due is None else max(now, due)))
