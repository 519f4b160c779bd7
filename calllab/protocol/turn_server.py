"""A TURN server over UDP without sockets and clocks (RFC 8656, with the authentication of RFC 8489).

The driver hands in every datagram with the time and does what the returned outputs say::

    receive_from_client(data, client, now)              from the server's own socket
    receive_from_peer(allocation, data, peer, now)      from the relay socket of an allocation
    relay_opened / relay_failed(allocation, ..., now)   in answer to OpenRelay
    timeouts(now)                                       at next_timeout()

``now`` is any monotonic clock in seconds.  Expired things never count, even if ``timeouts`` is called late:
each entry looks first at what is due.  Requests are handled in three steps, each of which may refuse:
authentication, unknown attributes, the method's own rules in the order of RFC 8656.

Two clients of one server meet at relayed addresses of this server.  Their data is handed over inside, without
a trip through the network, so that it also works where the relay cannot reach its own external address.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from calllab.protocol import stun
from calllab.protocol.peer_filter import PeerFilter
from calllab.protocol.stun import (
    MAX_CHANNEL,
    MAX_RFC5766_CHANNEL,
    MIN_CHANNEL,
    Integrity,
    MessageClass,
    Method,
    StunMessage,
)
from calllab.protocol.stun_attributes import (
    Address,
    Attribute,
    Family,
    StunError,
    decode_uint32,
    decode_xor_address,
    encode_error_code,
    encode_unknown_attributes,
    encode_xor_address,
    family_of,
)
from calllab.protocol.turn_actions import (
    CloseRelay,
    OpenRelay,
    Output,
    Ports,
    ReleaseReservation,
    SendToClient,
    TurnCounters,
    TurnSettings,
)
from calllab.protocol.turn_allocation import Allocation
from calllab.protocol.turn_authentication import Authenticator, Login, Refused
from calllab.protocol.turn_forwarding import Forwarder
from calllab.protocol.turn_table import AllocationTable, Reservation

__all__ = ["TurnServerCore"]

_UDP: Final = 17
_TOKEN_BYTES: Final = 8


class TurnServerCore:
    """All the rules of the server; one instance per listening socket."""

    def __init__(self, settings: TurnSettings, *, entropy: random.Random, clock: Callable[[], float]) -> None:
        """Make a server that draws keys, nonces and tokens from ``entropy``.

        ``clock`` gives Unix seconds; it is asked only whether credentials have expired.  Off a laboratory,
        ``entropy`` must be a :class:`random.SystemRandom`.
        """
        self.settings = settings
        self._limits = settings.limits
        self._entropy = entropy
        self._authenticator = Authenticator(settings, entropy=entropy, clock=clock)
        self._filter = PeerFilter(allow_private=settings.allow_private_peers, own_hosts=settings.own_hosts)
        self._table = AllocationTable()
        self._forwarder = Forwarder(
            self._table,
            self._filter,
            can_forbid_fragments=settings.can_forbid_fragments,
            entropy=entropy,
        )
        self.traffic = self._forwarder.traffic
        self._opening: dict[int, tuple[StunMessage, OpenRelay]] = {}
        self._next_id = 0
        self._refusals: Counter[int] = Counter()
        self._methods: Mapping[int, Callable[[StunMessage, Login, Address, float], list[Output]]] = {
            Method.ALLOCATE: self._allocate,
            Method.REFRESH: self._refresh,
            Method.CREATE_PERMISSION: self._create_permission,
            Method.CHANNEL_BIND: self._channel_bind,
        }

    # What the driver calls.

    def receive_from_client(self, data: bytes, client: Address, now: float) -> list[Output]:
        """Take a datagram that came to the server's own address."""
        outputs = self.timeouts(now)
        if stun.is_channel_data(data):
            outputs += self._forwarder.channel_data(data, client)
        elif stun.is_stun(data):
            outputs += self._message(data, client, now)
        else:
            self.traffic.dropped += 1
        return outputs

    def receive_from_peer(self, allocation_id: int, data: bytes, peer: Address, now: float) -> list[Output]:
        """Take a datagram that came to the relayed address of an allocation."""
        outputs = self.timeouts(now)
        allocation = self._table.by_id(allocation_id)
        if allocation is not None:
            outputs += self._forwarder.deliver(allocation, data, peer)
        return outputs

    def relay_opened(self, allocation_id: int, relayed: Address, now: float) -> list[Output]:
        """Take note that a relay socket is open, and under which address peers see it."""
        outputs = self.timeouts(now)
        request, order = self._opening.pop(allocation_id, (None, None))
        allocation = self._table.by_id(allocation_id)
        if allocation is None or request is None or order is None:
            outputs.append(CloseRelay(allocation_id))
            if order is not None and order.ports is Ports.PAIR and order.reservation is not None:
                outputs.append(ReleaseReservation(order.reservation))
            return outputs
        self._table.set_relayed(allocation, relayed)
        attributes = [
            (Attribute.XOR_RELAYED_ADDRESS, encode_xor_address(relayed, request.transaction_id)),
            (Attribute.LIFETIME, _uint32(round(allocation.expires_at - now))),
            (Attribute.XOR_MAPPED_ADDRESS, encode_xor_address(allocation.client, request.transaction_id)),
        ]
        if order.ports is Ports.PAIR and order.reservation is not None:
            until = now + self._limits.reservation_lifetime_s
            self._table.reserve(Reservation(order.reservation, allocation.user, order.family, until))
            attributes.append((Attribute.RESERVATION_TOKEN, order.reservation))
        allocation.response = self._success(request, allocation.login, *attributes)
        return [*outputs, SendToClient(allocation.response, allocation.client)]

    def relay_failed(self, allocation_id: int, now: float) -> list[Output]:
        """Take note that a relay socket could not be opened: its client gets a 508."""
        outputs = self.timeouts(now)
        request, _ = self._opening.pop(allocation_id, (None, None))
        allocation = self._table.by_id(allocation_id)
        if allocation is None or request is None:
            return outputs
        self._table.remove(allocation)
        error = self._error(request, Refused(508), allocation.client, now, allocation.login)
        return [*outputs, SendToClient(error, allocation.client)]

    def next_timeout(self) -> float | None:
        """Return when :meth:`timeouts` is due, on the clock of ``now``; None if nothing waits."""
        return self._table.next_due()

    def timeouts(self, now: float) -> list[Output]:
        """End what has expired."""
        due = self._table.next_due()
        if due is None or due > now:
            return []
        outputs: list[Output] = []
        for allocation in self._table.due_allocations(now):
            outputs += self._close(allocation)
        outputs += [ReleaseReservation(one.token) for one in self._table.due_reservations(now)]
        return outputs

    def allocation_of(self, client: Address) -> Allocation | None:
        """Return the allocation of a client, for the driver's fast path; the driver only reads it."""
        return self._table.by_client(client)

    def allocation(self, allocation_id: int) -> Allocation | None:
        """Return an allocation by its id, for the driver's fast path; the driver only reads it."""
        return self._table.by_id(allocation_id)

    def counters(self) -> TurnCounters:
        """Return what has been done so far."""
        traffic = self.traffic
        return TurnCounters(
            allocations=len(self._table),
            allocations_total=self._next_id,
            packets_to_peers=traffic.packets_to_peers,
            bytes_to_peers=traffic.bytes_to_peers,
            packets_to_clients=traffic.packets_to_clients,
            bytes_to_clients=traffic.bytes_to_clients,
            refusals=dict(self._refusals),
            packets_dropped=traffic.dropped,
        )

    # Messages.

    def _message(self, data: bytes, client: Address, now: float) -> list[Output]:
        try:
            message = stun.decode(data)
        except StunError:
            self.traffic.dropped += 1
            return []
        if message.message_class is MessageClass.REQUEST:
            if message.method == Method.BINDING:
                return self._binding(message, client, now)
            if message.method in self._methods:
                return self._request(message, data, client, now)
        elif message.message_class is MessageClass.INDICATION and message.method == Method.SEND:
            return self._forwarder.send_indication(message, client)
        # RFC 8489 section 6.3: unknown methods, and responses to nothing, are silently discarded.
        self.traffic.dropped += 1
        return []

    def _binding(self, request: StunMessage, client: Address, now: float) -> list[Output]:
        if unknown := request.unknown_required():
            return [SendToClient(self._error(request, Refused(420, unknown=unknown), client, now), client)]
        mapped = (Attribute.XOR_MAPPED_ADDRESS, encode_xor_address(client, request.transaction_id))
        return [SendToClient(self._success(request, None, mapped), client)]

    def _request(self, request: StunMessage, data: bytes, client: Address, now: float) -> list[Output]:
        login: Login | None = None
        try:
            login = self._authenticator.check(request, data, client, now)
            if unknown := request.unknown_required():
                raise Refused(420, unknown=unknown)
            return self._methods[request.method](request, login, client, now)
        except Refused as refused:
            refusal = refused
        except StunError as exc:
            refusal = Refused(400, f"Bad Request: {exc}"[:200])
        if (login is None or refusal.challenge) and not self._authenticator.may_answer(client, now):
            self.traffic.dropped += 1
            return []
        # A challenge is not signed: its reader does not share a key with us, or not one that counts.
        signer = None if refusal.challenge else login
        return [SendToClient(self._error(request, refusal, client, now, signer), client)]

    def _success(self, request: StunMessage, login: Login | None, *attributes: tuple[int, bytes]) -> bytes:
        return _encode(request, MessageClass.SUCCESS, login, attributes)

    def _error(
        self, request: StunMessage, refusal: Refused, client: Address, now: float, login: Login | None = None
    ) -> bytes:
        self._refusals[refusal.code] += 1
        attributes = [(Attribute.ERROR_CODE, encode_error_code(refusal.code, refusal.reason))]
        if refusal.unknown:
            attributes.append((Attribute.UNKNOWN_ATTRIBUTES, encode_unknown_attributes(refusal.unknown)))
        if refusal.challenge:
            attributes.append((Attribute.REALM, self.settings.realm.encode()))
            attributes.append((Attribute.NONCE, self._authenticator.new_nonce(client, now)))
        return _encode(request, MessageClass.ERROR, login, attributes)

    # Requests, each in the order of checks of its section in RFC 8656.

    def _allocate(self, request: StunMessage, login: Login, client: Address, now: float) -> list[Output]:
        existing = self._table.by_client(client)
        if existing is not None:
            if (existing.transaction_id, existing.login.username) != (request.transaction_id, login.username):
                raise Refused(437, "Allocation Mismatch: this 5-tuple has an allocation")
            # A retransmission: the answer got lost, or is not there yet.
            return [SendToClient(existing.response, client)] if existing.response else []
        self._authenticator.check_expiry(login)
        transport = request.get(Attribute.REQUESTED_TRANSPORT)
        if transport is None:
            raise Refused(400, "Bad Request: REQUESTED-TRANSPORT is missing")
        if decode_uint32(transport) >> 24 != _UDP:
            raise Refused(442)
        if request.get(Attribute.DONT_FRAGMENT) is not None and not self.settings.can_forbid_fragments:
            raise Refused(420, unknown=(Attribute.DONT_FRAGMENT,))
        family, ports, token = self._wanted_relay(request)
        user = login.user
        if ports is not Ports.RESERVED:
            # The reserved port has been counted already.
            more = 2 if ports is Ports.PAIR else 1
            if self._table.held_by(user) + more > self._limits.max_allocations_per_user:
                raise Refused(486)
            if self._table.held + more > self._limits.max_allocations:
                raise Refused(508)
        elif token is not None:
            reservation = self._table.take_reservation(token, user)
            if reservation is None:
                raise Refused(508, "Insufficient Capacity: nothing is reserved under this token")
            family = reservation.family
        self._next_id += 1
        allocation = Allocation(
            self._next_id,
            client,
            login,
            family=family,
            transaction_id=request.transaction_id,
            expires_at=now + self._lifetime(request),
        )
        self._table.add(allocation)
        order = OpenRelay(allocation.id, family, ports, token)
        self._opening[allocation.id] = (request, order)
        return [order]

    def _wanted_relay(self, request: StunMessage) -> tuple[Family, Ports, bytes | None]:
        token = request.get(Attribute.RESERVATION_TOKEN)
        even = request.get(Attribute.EVEN_PORT)
        wanted = request.get(Attribute.REQUESTED_ADDRESS_FAMILY)
        if token is not None:
            if even is not None or wanted is not None:
                raise Refused(400, "Bad Request: RESERVATION-TOKEN settles port and address family")
            if len(token) != _TOKEN_BYTES:
                raise Refused(400, f"Bad Request: RESERVATION-TOKEN has {_TOKEN_BYTES} bytes")
            return Family.IPV4, Ports.RESERVED, token
        family = Family.IPV4 if wanted is None else _family(wanted)
        if family not in self.settings.families:
            raise Refused(440)
        if even is None:
            return family, Ports.ANY, None
        if len(even) != 1:
            raise Refused(400, "Bad Request: EVEN-PORT has 1 byte")
        if even[0] & 0x80:
            return family, Ports.PAIR, self._entropy.randbytes(_TOKEN_BYTES)
        return family, Ports.EVEN, None

    def _refresh(self, request: StunMessage, login: Login, client: Address, now: float) -> list[Output]:
        allocation = self._owned(login, client)
        wanted = request.get(Attribute.REQUESTED_ADDRESS_FAMILY)
        if wanted is not None and _family(wanted) is not allocation.family:
            raise Refused(443)
        lifetime_s = self._lifetime(request, allow_zero=True)
        response = SendToClient(
            self._success(request, login, (Attribute.LIFETIME, _uint32(lifetime_s))), client
        )
        if lifetime_s == 0:
            return [*self._close(allocation), response]
        allocation.expires_at = now + lifetime_s
        self._table.watch(allocation)
        return [response]

    def _create_permission(
        self, request: StunMessage, login: Login, client: Address, now: float
    ) -> list[Output]:
        allocation = self._owned(login, client)
        values = request.get_all(Attribute.XOR_PEER_ADDRESS)
        if not values:
            raise Refused(400, "Bad Request: XOR-PEER-ADDRESS is missing")
        hosts = {decode_xor_address(value, request.transaction_id)[0] for value in values}
        # All or nothing: every peer is checked before the first permission is installed.
        for host in hosts:
            self._check_host(allocation, host)
        if not allocation.room_for(hosts, self._limits.max_permissions):
            raise Refused(508)
        for host in hosts:
            allocation.permit(host, now + self._limits.permission_lifetime_s)
        self._table.watch(allocation)
        return [SendToClient(self._success(request, login), client)]

    def _channel_bind(self, request: StunMessage, login: Login, client: Address, now: float) -> list[Output]:
        allocation = self._owned(login, client)
        number, value = request.get(Attribute.CHANNEL_NUMBER), request.get(Attribute.XOR_PEER_ADDRESS)
        if number is None or value is None:
            raise Refused(400, "Bad Request: CHANNEL-NUMBER and XOR-PEER-ADDRESS are needed")
        channel = decode_uint32(number) >> 16
        peer = decode_xor_address(value, request.transaction_id)
        highest = MAX_RFC5766_CHANNEL if self.settings.rfc5766_channels else MAX_CHANNEL
        if not MIN_CHANNEL <= channel <= highest:
            raise Refused(400, f"Bad Request: channels are from 0x4000 to {highest:#06X}")
        if allocation.peer_of(channel) not in (None, peer):
            raise Refused(400, "Bad Request: the channel is bound to another peer")
        if allocation.channel_of(peer) not in (None, channel):
            raise Refused(400, "Bad Request: the peer is bound to another channel")
        self._check_host(allocation, peer[0])
        is_ours = self._table.by_relayed(peer) is not None
        if not is_ours and self._filter.is_relays_only(peer[0]):
            raise Refused(403)
        if not allocation.room_for_channel(channel, self._limits.max_permissions) or not allocation.room_for(
            {peer[0]}, self._limits.max_permissions
        ):
            raise Refused(508)
        allocation.permit(peer[0], now + self._limits.permission_lifetime_s)
        allocation.bind(channel, peer, now + self._limits.channel_lifetime_s, is_direct=not is_ours)
        self._table.watch(allocation)
        return [SendToClient(self._success(request, login), client)]

    def _owned(self, login: Login, client: Address) -> Allocation:
        allocation = self._table.by_client(client)
        if allocation is None or allocation.relayed is None:
            raise Refused(437, "Allocation Mismatch: this 5-tuple has no allocation")
        if allocation.login.username != login.username:
            raise Refused(441)
        return allocation

    def _check_host(self, allocation: Allocation, host: str) -> None:
        if family_of(host) is not allocation.family:
            raise Refused(443)
        if not self._filter.allows(host):
            raise Refused(403, "Forbidden: this relay does not send to such addresses")

    def _lifetime(self, request: StunMessage, *, allow_zero: bool = False) -> int:
        value = request.get(Attribute.LIFETIME)
        wanted_s = self._limits.default_lifetime_s if value is None else decode_uint32(value)
        if allow_zero and wanted_s == 0:
            return 0
        return min(max(wanted_s, self._limits.default_lifetime_s), self._limits.max_lifetime_s)

    def _close(self, allocation: Allocation) -> list[Output]:
        self._table.remove(allocation)
        # A relay that is just being opened is closed when the driver says that it is there.
        return [] if allocation.id in self._opening else [CloseRelay(allocation.id)]


def _encode(
    request: StunMessage,
    message_class: MessageClass,
    login: Login | None,
    attributes: Sequence[tuple[int, bytes]],
) -> bytes:
    response = StunMessage(request.method, message_class, request.transaction_id, tuple(attributes))
    return response.encode(
        login.key if login else None,
        integrity=login.integrity if login else Integrity.SHA1,
        # In kind: who asks with a fingerprint has to tell STUN from other traffic on the same port.
        fingerprint=request.get(Attribute.FINGERPRINT) is not None,
    )


def _family(value: bytes) -> Family:
    try:
        return Family(decode_uint32(value) >> 24)
    except StunError:
        raise
    except ValueError as exc:
        raise Refused(440) from exc


def _uint32(number: int) -> bytes:
    return number.to_bytes(4, "big")
