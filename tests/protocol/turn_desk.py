"""A TURN server core with a driver that opens imaginary ports, and clients that talk to it by hand."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from calllab.protocol import stun
from calllab.protocol.stun import Integrity, MessageClass, Method, StunMessage
from calllab.protocol.stun_attributes import (
    Address,
    Attribute,
    decode_error_code,
    decode_uint32,
    decode_xor_address,
    encode_xor_address,
)
from calllab.protocol.turn_actions import (
    CloseRelay,
    OpenRelay,
    Output,
    Ports,
    ReleaseReservation,
    SendToClient,
    SendToPeer,
    TurnSettings,
)
from calllab.protocol.turn_credentials import make_credentials, password_for
from calllab.protocol.turn_server import TurnServerCore

SECRET = "a secret for tests"
UNIX_S = 1_800_000_000.0
RELAY_HOST = "1.2.3.4"
UDP = bytes((17, 0, 0, 0))


def uint32(number: int) -> bytes:
    return number.to_bytes(4, "big")


class Desk:
    """The core, its clock, and the ports that it was given."""

    def __init__(self, *, now: float = 1000.0, seed: int = 1, **settings: Any) -> None:
        self.now = now
        self.unix_offset_s = UNIX_S - now
        settings.setdefault("secret", SECRET)
        settings.setdefault("own_hosts", (RELAY_HOST,))
        self.core = TurnServerCore(
            TurnSettings(**settings), entropy=random.Random(seed), clock=lambda: self.now + self.unix_offset_s
        )
        self.ports: dict[int, int] = {}
        self.held: dict[bytes, int] = {}
        self.full = False
        self._next_port = 50_000

    def from_client(self, data: bytes, client: Address) -> list[Output]:
        return self._drive(self.core.receive_from_client(data, client, self.now))

    def from_peer(self, allocation: int, data: bytes, peer: Address) -> list[Output]:
        return self._drive(self.core.receive_from_peer(allocation, data, peer, self.now))

    def timeouts(self) -> list[Output]:
        return self._drive(self.core.timeouts(self.now))

    def client(self, user: str = "alice", *, port: int = 40_000, ttl: int = 3600) -> Client:
        return Client(self, ("5.6.7.8", port), user, ttl=ttl)

    def _drive(self, outputs: list[Output]) -> list[Output]:
        """Do what concerns ports; return the datagrams."""
        datagrams: list[Output] = []
        for output in outputs:
            match output:
                case OpenRelay():
                    datagrams += self._drive(self._open(output))
                case CloseRelay(allocation=allocation):
                    del self.ports[allocation]
                case ReleaseReservation(reservation=token):
                    del self.held[token]
                case _:
                    datagrams.append(output)
        return datagrams

    def _open(self, order: OpenRelay) -> list[Output]:
        if self.full:
            return self.core.relay_failed(order.allocation, self.now)
        if order.ports is Ports.RESERVED:
            assert order.reservation is not None
            port = self.held.pop(order.reservation)
        else:
            port = self._next_port
            self._next_port += 2
            if order.ports is Ports.PAIR:
                assert order.reservation is not None
                self.held[order.reservation] = port + 1
        self.ports[order.allocation] = port
        return self.core.relay_opened(order.allocation, (RELAY_HOST, port), self.now)


@dataclass
class Answer:
    """A response, taken apart."""

    message: StunMessage
    data: bytes

    @property
    def code(self) -> int:
        """The error code; 0 for a success."""
        value = self.message.get(Attribute.ERROR_CODE)
        return 0 if value is None else decode_error_code(value)[0]

    @property
    def reason(self) -> str:
        value = self.message.get(Attribute.ERROR_CODE)
        assert value is not None
        return decode_error_code(value)[1]

    @property
    def lifetime_s(self) -> int:
        value = self.message.get(Attribute.LIFETIME)
        assert value is not None
        return decode_uint32(value)

    def address(self, attribute: Attribute) -> Address:
        value = self.message.get(attribute)
        assert value is not None
        return decode_xor_address(value, self.message.transaction_id)


@dataclass
class Client:
    """One client address of one user."""

    desk: Desk
    address: Address
    user: str
    ttl: int = 3600
    username: str = field(init=False)
    password: str = field(init=False)
    realm: str = "calllab"
    nonce: bytes | None = None
    integrity: Integrity = Integrity.SHA1
    _count: int = 0

    def __post_init__(self) -> None:
        now = self.desk.now + self.desk.unix_offset_s
        credentials = make_credentials(SECRET, self.user, now=now, ttl=self.ttl, uris=())
        self.username, self.password = credentials.username, credentials.password

    @property
    def key(self) -> bytes:
        return stun.long_term_key(self.username, self.realm, self.password)

    def use(self, username: str) -> None:
        """Take another username, with its right password."""
        self.username, self.password = username, password_for(SECRET, username)

    def new_id(self) -> bytes:
        self._count += 1
        return self.address[1].to_bytes(4, "big") + self._count.to_bytes(8, "big")

    def signed(
        self, method: Method, *attributes: tuple[int, bytes], transaction_id: bytes | None = None
    ) -> bytes:
        assert self.nonce is not None
        login = (
            (Attribute.USERNAME, self.username.encode()),
            (Attribute.REALM, self.realm.encode()),
            (Attribute.NONCE, self.nonce),
        )
        request = StunMessage(
            method, MessageClass.REQUEST, transaction_id or self.new_id(), (*attributes, *login)
        )
        return request.encode(self.key, integrity=self.integrity)

    def send(self, data: bytes) -> Answer | None:
        """Send bytes that ask for one answer."""
        outputs = self.desk.from_client(data, self.address)
        if not outputs:
            return None
        (output,) = outputs
        assert isinstance(output, SendToClient)
        assert output.client == self.address
        return Answer(stun.decode(output.data), output.data)

    def challenge(self) -> Answer:
        """Ask without credentials, and remember the nonce."""
        request = StunMessage(Method.ALLOCATE, MessageClass.REQUEST, self.new_id())
        answer = self.send(request.encode())
        assert answer is not None
        self.nonce = answer.message.get(Attribute.NONCE)
        return answer

    def request(
        self, method: Method, *attributes: tuple[int, bytes], transaction_id: bytes | None = None
    ) -> Answer:
        """Make a signed request, after a challenge if there was none before."""
        if self.nonce is None:
            self.challenge()
        answer = self.send(self.signed(method, *attributes, transaction_id=transaction_id))
        assert answer is not None
        return answer

    def allocate(self, *attributes: tuple[int, bytes], transaction_id: bytes | None = None) -> Answer:
        return self.request(
            Method.ALLOCATE,
            (Attribute.REQUESTED_TRANSPORT, UDP),
            *attributes,
            transaction_id=transaction_id,
        )

    def refresh(self, lifetime_s: int | None = None) -> Answer:
        attributes = () if lifetime_s is None else ((Attribute.LIFETIME, uint32(lifetime_s)),)
        return self.request(Method.REFRESH, *attributes)

    def permit(self, *peers: Address) -> Answer:
        transaction_id = self.new_id()
        attributes = [(Attribute.XOR_PEER_ADDRESS, encode_xor_address(p, transaction_id)) for p in peers]
        return self.request(Method.CREATE_PERMISSION, *attributes, transaction_id=transaction_id)

    def bind(self, channel: int, peer: Address) -> Answer:
        transaction_id = self.new_id()
        return self.request(
            Method.CHANNEL_BIND,
            (Attribute.CHANNEL_NUMBER, channel.to_bytes(2, "big") + b"\0\0"),
            (Attribute.XOR_PEER_ADDRESS, encode_xor_address(peer, transaction_id)),
            transaction_id=transaction_id,
        )

    def indicate(self, data: bytes, peer: Address, *more: tuple[int, bytes]) -> list[Output]:
        """Send a Send indication."""
        transaction_id = self.new_id()
        attributes = (
            (Attribute.XOR_PEER_ADDRESS, encode_xor_address(peer, transaction_id)),
            *more,
            (Attribute.DATA, data),
        )
        message = StunMessage(Method.SEND, MessageClass.INDICATION, transaction_id, attributes)
        return self.desk.from_client(message.encode(), self.address)

    def channel(self, channel: int, data: bytes) -> list[Output]:
        """Send ChannelData."""
        return self.desk.from_client(stun.encode_channel_data(channel, data), self.address)

    @property
    def allocation_id(self) -> int:
        allocation = self.desk.core.allocation_of(self.address)
        assert allocation is not None
        return allocation.id

    def hear(self, data: bytes, peer: Address) -> list[Output]:
        """Let a datagram come from a peer to this client's relayed address."""
        return self.desk.from_peer(self.allocation_id, data, peer)


def received(outputs: list[Output]) -> tuple[str, int | Address, bytes]:
    """Return what one datagram to a client carries: how, from which channel or peer, and the data."""
    (output,) = outputs
    assert isinstance(output, SendToClient)
    if stun.is_channel_data(output.data):
        return ("channel", *stun.decode_channel_data(output.data))
    message = stun.decode(output.data)
    assert (message.method, message.message_class) == (Method.DATA, MessageClass.INDICATION)
    value, data = message.get(Attribute.XOR_PEER_ADDRESS), message.get(Attribute.DATA)
    assert value is not None
    assert data is not None
    return "data", decode_xor_address(value, message.transaction_id), data


def sent(outputs: list[Output]) -> tuple[Address, bytes]:
    """Return where the one datagram to a peer goes, and its data."""
    (output,) = outputs
    assert isinstance(output, SendToPeer)
    return output.peer, output.data
