"""The TURN server on real sockets."""

from __future__ import annotations

import os
import random
import resource
import socket

import pytest

from calllab.protocol.stun import Method
from calllab.protocol.stun_attributes import Attribute, Family
from calllab.protocol.turn_actions import Ports, TurnLimits
from calllab_server.turn import TurnServer
from calllab_server.turn_ports import RelayPorts, can_forbid_fragments
from tests.server.turn_helpers import (
    SECRET,
    code_of,
    endpoint,
    eventually,
    lab_server,
    relayed_address,
    turn_client,
)

IPV6_FAMILY = (Attribute.REQUESTED_ADDRESS_FAMILY, b"\2\0\0\0")


async def test_data_by_indications() -> None:
    """Without a channel data travels in Send and Data indications, and is counted."""
    async with lab_server() as server, endpoint() as peer, turn_client(server) as client:
        relayed = relayed_address(await client.allocate())
        assert code_of(await client.permit(peer.address)) == 0
        client.indicate(b"there", peer.address)
        assert await peer.receive() == (b"there", relayed)
        peer.transport.sendto(b"and back", relayed)
        assert await client.receive() == (peer.address, b"and back")
        counters = server.counters()
        assert (counters.packets_to_peers, counters.bytes_to_peers) == (1, 5)
        assert (counters.packets_to_clients, counters.bytes_to_clients) == (1, 8)


@pytest.mark.parametrize("size", [1, 1200, 9000, 65_000])
async def test_data_by_channels(size: int) -> None:
    """A bound channel carries datagrams of every size, byte for byte."""
    data = os.urandom(size)
    async with lab_server() as server, endpoint() as peer, turn_client(server) as client:
        relayed = relayed_address(await client.allocate())
        assert code_of(await client.bind(0x4000, peer.address)) == 0
        client.send(0x4000, data)
        assert await peer.receive() == (data, relayed)
        peer.transport.sendto(data, relayed)
        assert await client.receive() == (0x4000, data)
        counters = server.counters()
        assert (counters.packets_to_peers, counters.packets_to_clients) == (1, 1)
        assert counters.bytes_to_peers == counters.bytes_to_clients == size


async def test_empty_datagrams_are_datagrams() -> None:
    """A datagram without data passes both ways, with its frame."""
    async with lab_server() as server, turn_client(server) as client:
        relayed = relayed_address(await client.allocate())
        # A plain socket, since asyncio's transports do not send what is empty.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            await client.bind(0x4000, peer.getsockname())
            peer.sendto(b"", relayed)
            assert await client.receive() == (0x4000, b"")
            client.send(0x4000, b"")
            await eventually(lambda: server.counters().packets_to_peers == 1, "it is sent")
            assert peer.recvfrom(100, socket.MSG_DONTWAIT) == (b"", relayed)


async def test_a_burst_keeps_its_order() -> None:
    """More datagrams than one batch arrive all, in order, both ways."""
    count = 200
    async with lab_server() as server, endpoint(echo=True) as peer, turn_client(server) as client:
        await client.allocate()
        await client.bind(0x4000, peer.address)
        for number in range(count):
            client.send(0x4000, number.to_bytes(2, "big"))
        got = [await client.receive() for _ in range(count)]
        assert got == [(0x4000, number.to_bytes(2, "big")) for number in range(count)]


async def test_strangers_do_not_get_through() -> None:
    """A datagram from a host without permission is dropped and counted."""
    async with lab_server() as server, endpoint() as stranger, turn_client(server) as client:
        relayed = relayed_address(await client.allocate())
        stranger.transport.sendto(b"psst", relayed)
        await eventually(lambda: server.counters().packets_dropped == 1, "the drop is counted")
        assert client.socket.inbox.empty()


async def test_clients_of_one_server_meet() -> None:
    """Two relayed addresses of one server reach each other."""
    async with lab_server() as server, turn_client(server) as alice, turn_client(server, "bob") as bob:
        at_alice = relayed_address(await alice.allocate())
        at_bob = relayed_address(await bob.allocate())
        await alice.bind(0x4000, at_bob)
        await bob.permit(at_alice)
        alice.send(0x4000, b"hello")
        assert await bob.receive() == (at_alice, b"hello")
        bob.indicate(b"hi", at_alice)
        assert await alice.receive() == (0x4000, b"hi")


async def test_private_peers_are_denied_by_default() -> None:
    """Without the laboratory's setting loopback is out of reach, except for the relays themselves."""
    async with (
        lab_server(allow_private_peers=False) as server,
        endpoint() as peer,
        turn_client(server) as client,
        turn_client(server, "bob") as other,
    ):
        await client.allocate()
        relayed = relayed_address(await other.allocate())
        assert code_of(await client.bind(0x4000, peer.address)) == 403
        assert code_of(await client.permit(("10.0.0.1", 1))) == 403
        assert code_of(await client.permit(("169.254.169.254", 80))) == 403
        assert code_of(await client.bind(0x4000, relayed)) == 0
        client.indicate(b"x", peer.address)
        await eventually(lambda: server.counters().packets_dropped == 1, "the drop is counted")
        assert peer.inbox.empty()


async def test_deleting_closes_the_port() -> None:
    """A deleted allocation gives its port back at once."""
    async with lab_server() as server, turn_client(server) as client:
        relayed = relayed_address(await client.allocate())
        assert code_of(await client.refresh(0)) == 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(relayed)
        assert server.counters().allocations == 0


async def test_an_abandoned_allocation_expires() -> None:
    """The timer closes the port of a client that went away."""
    limits = TurnLimits(default_lifetime_s=1, max_lifetime_s=1)
    async with lab_server(limits=limits) as server, turn_client(server) as client:
        relayed = relayed_address(await client.allocate())
        assert server.counters().allocations == 1
        await eventually(lambda: server.counters().allocations == 0, "the allocation expires")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(relayed)


async def test_the_fast_path_ends_with_the_permission() -> None:
    """A channel is silent once its permission has expired, without any request in between."""
    limits = TurnLimits(permission_lifetime_s=1)
    async with lab_server(limits=limits) as server, endpoint() as peer, turn_client(server) as client:
        await client.allocate()
        await client.bind(0x4000, peer.address)
        client.send(0x4000, b"in time")
        await peer.receive()

        def silent() -> bool:
            client.send(0x4000, b"again")
            return server.counters().packets_dropped >= 3

        await eventually(silent, "the channel falls silent")


async def test_credentials_expire_on_the_wall_clock() -> None:
    """Expired credentials make no allocation; the answer says when they expired."""
    now = 2_000_000_000.0
    async with lab_server(clock=lambda: now) as server, turn_client(server) as client:
        response = await client.allocate()
        assert code_of(response) == 401
        assert b"the credentials expired at 20" in (response.get(Attribute.ERROR_CODE) or b"")


async def test_ports_come_from_the_range() -> None:
    """Relayed ports stay within the range; a full range is 508, and a port that is given back can be had."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        low = min(probe.getsockname()[1], 65_000)
    async with (
        lab_server(relay_ports=(low, low + 1)) as server,
        turn_client(server) as one,
        turn_client(server) as two,
        turn_client(server) as three,
    ):
        first, second = relayed_address(await one.allocate()), relayed_address(await two.allocate())
        assert {first[1], second[1]} == {low, low + 1}
        assert code_of(await three.allocate()) == 508
        await one.refresh(0)
        assert relayed_address(await three.allocate()) == first


async def test_even_ports_and_reservations() -> None:
    """EVEN-PORT gives an even port, and its token the next one."""
    async with lab_server() as server, turn_client(server) as one, turn_client(server) as two:
        response = await one.allocate((Attribute.EVEN_PORT, b"\x80"))
        relayed = relayed_address(response)
        token = response.get(Attribute.RESERVATION_TOKEN)
        assert relayed[1] % 2 == 0
        assert token is not None
        assert relayed_address(await two.allocate((Attribute.RESERVATION_TOKEN, token)))[1] == relayed[1] + 1


async def test_reserved_ports_are_closed_at_the_end() -> None:
    """A server that is closed while a port is held back leaves no socket (the fixture counts them)."""
    async with lab_server() as server, turn_client(server) as client:
        assert code_of(await client.allocate((Attribute.EVEN_PORT, b"\x80"))) == 0


async def test_running_out_of_file_descriptors() -> None:
    """A client hears 508 while no socket can be had; the others go on, and it works again afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with (
        lab_server() as server,
        endpoint(echo=True) as peer,
        turn_client(server) as one,
        turn_client(server) as two,
    ):
        await one.allocate()
        await one.bind(0x4000, peer.address)
        # The limit is on the number of a descriptor, and the lowest free one comes next.
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            assert code_of(await two.allocate()) == 508
            one.send(0x4000, b"still here")
            assert await one.receive() == (0x4000, b"still here")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert code_of(await two.allocate()) == 0


async def test_a_datagram_that_cannot_be_sent_is_dropped() -> None:
    """What the system refuses to send (here: to port 0) is counted, on both paths, and hurts nothing."""
    async with lab_server() as server, endpoint(echo=True) as peer, turn_client(server) as client:
        await client.allocate()
        await client.bind(0x4000, ("127.0.0.1", 0))
        await client.bind(0x4001, peer.address)
        client.send(0x4000, b"x")
        client.indicate(b"x", ("127.0.0.1", 0))
        client.send(0x4001, b"y")
        assert await client.receive() == (0x4001, b"y")
        assert server.counters().packets_dropped == 2


@pytest.mark.skipif(not can_forbid_fragments(Family.IPV4), reason="DONT-FRAGMENT needs Linux")
async def test_dont_fragment() -> None:
    """A Send indication with DONT-FRAGMENT is sent, and the next one without is too."""
    async with lab_server() as server, endpoint() as peer, turn_client(server) as client:
        relayed = relayed_address(await client.allocate((Attribute.DONT_FRAGMENT, b"")))
        await client.permit(peer.address)
        client.indicate(b"whole", peer.address, (Attribute.DONT_FRAGMENT, b""))
        client.indicate(b"as you like", peer.address)
        assert await peer.receive() == (b"whole", relayed)
        assert await peer.receive() == (b"as you like", relayed)


async def test_noise_on_both_sides() -> None:
    """Hundreds of random datagrams to the server and to a relay change nothing for others."""
    noise = random.Random(5)
    async with (
        lab_server() as server,
        endpoint(echo=True) as peer,
        endpoint() as hooligan,
        turn_client(server) as client,
        turn_client(server, "bob") as other,
    ):
        await client.allocate()
        await client.bind(0x4000, peer.address)
        relayed = relayed_address(await other.allocate())
        for _ in range(500):
            data = noise.randbytes(noise.randrange(1, 64))
            first = noise.choice([b"", b"\0\1", b"\x40\0", b"\0\x16"])
            hooligan.transport.sendto(first + data, server.address)
            hooligan.transport.sendto(data, relayed)
        client.send(0x4000, b"still here")
        assert await client.receive() == (0x4000, b"still here")
        await eventually(lambda: server.counters().packets_dropped >= 500, "the noise is dropped")
        assert other.socket.inbox.empty()


async def test_ipv6() -> None:
    """A server on IPv6 relays IPv6 to those who ask for it, and has no IPv4 for the others."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError as exc:
        pytest.skip(f"this machine has no IPv6 loopback: {exc}")
    async with (
        lab_server(host="::1") as server,
        endpoint(host="::1", echo=True) as peer,
        turn_client(server) as client,
    ):
        assert server.uris == (f"turn:[::1]:{server.address[1]}?transport=udp",)
        assert code_of(await client.allocate()) == 440
        relayed = relayed_address(await client.allocate(IPV6_FAMILY))
        assert relayed[0] == "::1"
        assert code_of(await client.bind(0x4000, peer.address)) == 0
        client.send(0x4000, b"six")
        assert await client.receive() == (0x4000, b"six")
        client.indicate(b"six", peer.address)
        assert await client.receive() == (0x4000, b"six")


async def test_external_address() -> None:
    """Behind a NAT, clients are told the address that the world sees, and meet there all the same."""
    async with (
        lab_server(external_ip="203.0.113.7", allow_private_peers=False) as server,
        turn_client(server) as alice,
        turn_client(server, "bob") as bob,
    ):
        assert server.uris == (f"turn:203.0.113.7:{server.address[1]}?transport=udp",)
        at_alice = relayed_address(await alice.allocate())
        at_bob = relayed_address(await bob.allocate())
        assert at_alice[0] == at_bob[0] == "203.0.113.7"
        assert code_of(await alice.bind(0x4000, at_bob)) == 0
        assert code_of(await bob.permit(at_alice)) == 0
        alice.send(0x4000, b"hello")
        assert await bob.receive() == (at_alice, b"hello")


async def test_all_addresses_need_an_external_one() -> None:
    """Listening everywhere is refused unless the relay knows its own name."""
    with pytest.raises(ValueError, match="give external_ip"):
        await TurnServer("0.0.0.0", secret=SECRET).start()
    async with lab_server(host="0.0.0.0", external_ip="127.0.0.1") as server, endpoint() as peer:
        assert server.address[0] == "0.0.0.0"
        async with turn_client(server) as client:
            client.server = ("127.0.0.1", server.address[1])
            assert relayed_address(await client.allocate())[0] == "127.0.0.1"
            await client.bind(0x4000, peer.address)
            client.send(0x4000, b"x")
            assert (await peer.receive())[0] == b"x"


async def test_names_are_resolved() -> None:
    """A host may be a name."""
    async with lab_server(host="localhost") as server:
        assert server.address[0] in ("127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"secret": ""}, "secret"),
        ({"secret": SECRET, "relay_ports": (0, 10)}, "relay_ports"),
        ({"secret": SECRET, "relay_ports": (10, 9)}, "relay_ports"),
        ({"secret": SECRET, "external_ip": "example.org"}, "example.org"),
    ],
)
def test_impossible_settings(settings: dict[str, object], word: str) -> None:
    """Settings that cannot work are refused when the server is made."""
    with pytest.raises(ValueError, match=word):
        TurnServer(**settings)  # type: ignore[arg-type]


async def test_external_address_of_another_ip_version() -> None:
    """Host and external address must be of one IP version."""
    with pytest.raises(ValueError, match="one IP version"):
        await TurnServer(secret=SECRET, external_ip="2001:db8::1").start()


async def test_a_taken_port_is_an_error() -> None:
    """The second server on a port does not start, and leaves nothing."""
    async with lab_server() as server:
        with pytest.raises(OSError, match="in use"):
            await TurnServer(port=server.address[1], secret=SECRET).start()


async def test_life_cycle() -> None:
    """A server is started once, closed any number of times, and has an address while it has been started."""
    server = TurnServer(secret=SECRET)
    await server.close()
    for early in (lambda: server.address, lambda: server.uris, server.counters):
        with pytest.raises(RuntimeError, match="not started"):
            early()
    await server.start()
    with pytest.raises(RuntimeError, match="been started before"):
        await server.start()
    host, port = server.address
    await server.close()
    await server.close()
    assert server.counters().allocations_total == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind((host, port))


async def test_closing_with_allocations() -> None:
    """Close ends every allocation's socket, whatever is under way."""
    async with lab_server() as server, turn_client(server) as client, endpoint() as peer:
        relayed = relayed_address(await client.allocate())
        await client.bind(0x4000, peer.address)
        client.send(0x4000, b"late")
        await server.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(relayed)


async def test_binding_requests_need_no_credentials() -> None:
    """It is a STUN server too."""
    async with lab_server() as server, turn_client(server) as client:
        response = await client.request(Method.BINDING)
        assert code_of(response) == 0
        assert response.get(Attribute.XOR_MAPPED_ADDRESS) is not None


def test_even_ports_from_a_range() -> None:
    """Pairs within a range start at an even port and do not leave the range."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        low = min(probe.getsockname()[1], 65_000) & ~1
    ports = RelayPorts("127.0.0.1", (low + 1, low + 4), entropy=random.Random(1))
    with ports.open(Ports.PAIR, b"token") as even, ports.open(Ports.RESERVED, b"token") as odd:
        assert (even.getsockname()[1], odd.getsockname()[1]) == (low + 2, low + 3)
        with pytest.raises(OSError, match="no free port"):
            ports.open(Ports.PAIR, b"other")
        with pytest.raises(OSError, match="no port is reserved"):
            ports.open(Ports.RESERVED, b"other")
        with ports.open(Ports.EVEN, None) as another:
            assert another.getsockname()[1] == low + 4
    ports.close()
