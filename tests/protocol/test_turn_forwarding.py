"""The way of data through the TURN server core: permissions, channels, and meeting inside."""

from __future__ import annotations

import pytest

from calllab.protocol import stun
from calllab.protocol.stun import MessageClass, Method, StunMessage
from calllab.protocol.stun_attributes import Attribute
from tests.protocol.turn_desk import RELAY_HOST, Client, Desk, received, sent

PEER = ("9.9.9.9", 5000)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def client(desk: Desk) -> Client:
    client = desk.client()
    assert client.allocate().code == 0
    return client


def test_a_permission_lasts_five_minutes(desk: Desk, client: Client) -> None:
    """Data passes in both directions until the permission expires, and a refresh counts from its own time."""
    client.permit(PEER)
    desk.now += 200
    assert sent(client.indicate(b"x", PEER)) == (PEER, b"x")
    client.permit(PEER)
    desk.now += 299
    assert received(client.hear(b"y", PEER)) == ("data", PEER, b"y")
    desk.now += 1
    assert client.indicate(b"x", PEER) == []
    assert client.hear(b"y", PEER) == []


def test_a_channel_outlives_its_permission(desk: Desk, client: Client) -> None:
    """A channel without permission is silent both ways, and speaks again once there is one."""
    client.refresh(3600)
    client.bind(0x4000, PEER)
    allocation = desk.core.allocation_of(client.address)
    assert allocation is not None
    assert (allocation.routes, allocation.returns) == ({0x4000: PEER}, {PEER: 0x4000})
    desk.now += 300
    assert client.channel(0x4000, b"x") == []
    assert client.hear(b"y", PEER) == []
    assert (allocation.routes, allocation.returns) == ({}, {})
    client.permit(PEER)
    assert sent(client.channel(0x4000, b"x")) == (PEER, b"x")
    assert received(client.hear(b"y", PEER)) == ("channel", 0x4000, b"y")
    assert (allocation.routes, allocation.returns) == ({0x4000: PEER}, {PEER: 0x4000})


def test_a_channel_lasts_ten_minutes(desk: Desk, client: Client) -> None:
    """After ten minutes the number is free, and the peer's data comes as indications again."""
    client.refresh(3600)
    client.bind(0x4000, PEER)
    desk.now += 599
    client.nonce = None
    client.permit(PEER)
    assert sent(client.channel(0x4000, b"x")) == (PEER, b"x")
    desk.now += 1
    assert client.channel(0x4000, b"x") == []
    assert received(client.hear(b"y", PEER)) == ("data", PEER, b"y")
    assert client.bind(0x4000, ("9.9.9.10", 1)).code == 0
    assert client.bind(0x4001, PEER).code == 0


def test_channel_data_is_cut_to_its_length(desk: Desk, client: Client) -> None:
    """Padding is not forwarded, a frame that is cut short is dropped, and empty data is data."""
    client.bind(0x4000, PEER)
    frame = stun.encode_channel_data(0x4000, b"abc")
    assert sent(desk.from_client(frame + b"\0", client.address)) == (PEER, b"abc")
    assert desk.from_client(frame[:-1], client.address) == []
    assert sent(client.channel(0x4000, b"")) == (PEER, b"")
    assert received(client.hear(b"", PEER)) == ("channel", 0x4000, b"")
    assert client.channel(0x4001, b"unbound") == []
    assert desk.from_client(frame, ("5.6.7.8", 1)) == []
    assert desk.core.counters().packets_dropped == 3


@pytest.mark.parametrize(
    "attributes",
    [
        ((Attribute.DATA, b"x"),),
        ((Attribute.XOR_PEER_ADDRESS, bytes.fromhex("0001329a281bad4b")),),
        ((Attribute.XOR_PEER_ADDRESS, b"\0"), (Attribute.DATA, b"x")),
        (
            (Attribute.XOR_PEER_ADDRESS, bytes.fromhex("0001329a281bad4b")),
            (0x7001, b""),
            (Attribute.DATA, b"x"),
        ),
        (
            (Attribute.XOR_PEER_ADDRESS, bytes.fromhex("0001329a281bad4b")),
            (Attribute.DONT_FRAGMENT, b""),
            (Attribute.DATA, b"x"),
        ),
    ],
)
def test_malformed_indications_are_dropped(
    desk: Desk, client: Client, attributes: tuple[tuple[int, bytes], ...]
) -> None:
    """A Send indication that lacks something, or asks for what we cannot do, is dropped without a word."""
    client.permit(PEER)
    message = StunMessage(Method.SEND, MessageClass.INDICATION, bytes(12), attributes)
    assert desk.from_client(message.encode(), client.address) == []
    good = ((Attribute.XOR_PEER_ADDRESS, bytes.fromhex("0001329a281bad4b")), (Attribute.DATA, b"x"))
    message = StunMessage(Method.SEND, MessageClass.INDICATION, bytes(12), good)
    assert sent(desk.from_client(message.encode(), client.address)) == (PEER, b"x")


def meeting(desk: Desk) -> tuple[Client, Client, tuple[str, int], tuple[str, int]]:
    """Return two clients with allocations and the two relayed addresses."""
    one, two = desk.client("alice", port=1), desk.client("bob", port=2)
    return (
        one,
        two,
        one.allocate().address(Attribute.XOR_RELAYED_ADDRESS),
        two.allocate().address(Attribute.XOR_RELAYED_ADDRESS),
    )


@pytest.mark.parametrize("allow_private_peers", [False, True])
def test_clients_of_one_relay_meet_inside(allow_private_peers: bool) -> None:
    """Data for another allocation of this server is handed over, under the relayed address it comes from."""
    desk = Desk(allow_private_peers=allow_private_peers)
    one, two, relayed_one, relayed_two = meeting(desk)
    assert one.permit(relayed_two).code == 0
    assert one.indicate(b"too early", relayed_two) == []
    assert two.bind(0x4000, relayed_one).code == 0
    assert received(one.indicate(b"hello", relayed_two)) == ("channel", 0x4000, b"hello")
    assert received(two.channel(0x4000, b"hi")) == ("data", relayed_two, b"hi")
    counters = desk.core.counters()
    assert (counters.packets_to_peers, counters.packets_to_clients) == (3, 2)
    # The fast path of a driver must not take the way through the network.
    allocation = desk.core.allocation_of(two.address)
    assert allocation is not None
    assert allocation.routes == {}


def test_only_relays_can_be_reached_at_the_own_address(desk: Desk) -> None:
    """Other services of this machine stay out of reach, also after a relay that was there has gone."""
    one, two, _, relayed_two = meeting(desk)
    assert one.permit(relayed_two).code == 0
    assert one.bind(0x4000, relayed_two).code == 0
    assert one.bind(0x4001, (RELAY_HOST, 53)).code == 403
    assert one.indicate(b"x", (RELAY_HOST, 53)) == []
    two.refresh(0)
    assert one.channel(0x4000, b"x") == []
    assert one.bind(0x4000, relayed_two).code == 403


def test_a_laboratory_reaches_its_own_machine() -> None:
    """With private peers allowed, other ports of the own address are peers like any."""
    desk = Desk(allow_private_peers=True)
    one, two, _, relayed_two = meeting(desk)
    assert one.bind(0x4000, relayed_two).code == 0
    assert one.bind(0x4001, (RELAY_HOST, 53)).code == 0
    assert sent(one.channel(0x4001, b"x")) == ((RELAY_HOST, 53), b"x")
    two.refresh(0)
    assert sent(one.channel(0x4000, b"x")) == (relayed_two, b"x")


def test_counters_count_payload(desk: Desk, client: Client) -> None:
    """Bytes are those of the data, without framing."""
    client.bind(0x4000, PEER)
    client.channel(0x4000, b"12345")
    client.indicate(b"123", PEER)
    client.hear(b"12", PEER)
    counters = desk.core.counters()
    assert (counters.packets_to_peers, counters.bytes_to_peers) == (2, 8)
    assert (counters.packets_to_clients, counters.bytes_to_clients) == (1, 2)


def test_data_for_a_closed_relay_is_dropped(desk: Desk) -> None:
    """A late datagram from a socket that is being closed harms nobody."""
    assert desk.from_peer(77, b"x", PEER) == []
