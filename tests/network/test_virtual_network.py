"""Hosts, sockets, routes and servers in memory."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any

import pytest

from calllab.errors import InvalidSetting
from calllab.network import HostCosts, LinkSettings, NetworkInterface, VirtualHost, VirtualNetwork, simulate
from calllab.protocol import stun
from calllab.protocol.stun_attributes import Attribute, decode_xor_address
from calllab.rtc import RTCConfiguration, RTCIceServer, RTCPeerConnection


class Inbox(asyncio.DatagramProtocol):
    """Keeps what comes in, and when."""

    def __init__(self) -> None:
        self.received: list[tuple[float, bytes, Any]] = []
        self.lost = False

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append((asyncio.get_running_loop().time(), data, addr))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


def test_a_datagram_arrives_at_once_and_says_where_it_came_from() -> None:
    """Without link or route a datagram takes no time, and is never delivered from inside sendto."""

    async def main() -> None:
        network = VirtualNetwork(log=True)
        alice, bob = network.add_host("alice"), network.add_host("bob")
        inbox = Inbox()
        here = alice.open_socket(Inbox())
        there = bob.open_socket(inbox, local=(bob.address, 5000))
        here.sendto(b"hello", (bob.address, 5000))
        assert inbox.received == []
        await asyncio.sleep(0)
        assert inbox.received == [(0.0, b"hello", here.local)]
        assert [record.verdict for record in network.log] == ["delivered"]
        there.close()
        here.sendto(b"anybody?", (bob.address, 5000))
        here.sendto(b"nobody", ("198.19.255.1", 1))
        await asyncio.sleep(0)
        assert inbox.lost
        assert [record.verdict for record in network.log] == ["delivered", "no-socket", "no-route"]

    simulate(main)


def test_routes_are_one_way_links() -> None:
    """A route delays what goes one way between two hosts, and leaves the other way alone."""

    async def main() -> list[float]:
        network = VirtualNetwork()
        alice, bob = network.add_host("alice"), network.add_host("bob")
        network.set_route("alice", "bob", LinkSettings(delay_ms=70))
        inboxes = [Inbox(), Inbox()]
        a, b = (host.open_socket(inbox) for host, inbox in zip((alice, bob), inboxes, strict=True))
        a.sendto(b"there", b.local)
        b.sendto(b"and back", a.local)
        await asyncio.sleep(1.0)
        network.close()
        return [inbox.received[0][0] for inbox in inboxes]

    assert simulate(main) == [0.0, 0.07]


def test_ports_and_addresses_are_those_of_a_machine() -> None:
    """A taken port and a foreign address are refused as an operating system would; names resolve."""

    async def main() -> None:
        network = VirtualNetwork()
        host = network.add_host("alice")
        host.open_socket(Inbox(), local=("0.0.0.0", 4000))
        with pytest.raises(OSError, match="port 4000 of alice is taken"):
            host.open_socket(Inbox(), local=(host.address, 4000))
        with pytest.raises(OSError, match=r"not 192\.0\.2\.1"):
            host.open_socket(Inbox(), local=("192.0.2.1", 0))
        assert host.resolve("alice", 80) == (host.address, 80)
        assert host.resolve("192.0.2.7", 80) == ("192.0.2.7", 80)
        with pytest.raises(socket.gaierror, match="no host 'nobody'"):
            host.resolve("nobody", 80)

    simulate(main)


def test_a_connected_socket_hears_its_peer_alone() -> None:
    """A socket with a remote address drops what comes from elsewhere."""

    async def main() -> list[bytes]:
        network = VirtualNetwork()
        a, b, c = (network.add_host(name) for name in "abc")
        server = b.open_socket(Inbox(), local=(b.address, 1))
        inbox = Inbox()
        client = a.open_socket(inbox, remote=server.local)
        c.open_socket(Inbox()).sendto(b"from elsewhere", client.local)
        server.sendto(b"from the peer", client.local)
        await asyncio.sleep(0)
        return [data for _, data, _ in inbox.received]

    assert simulate(main) == [b"from the peer"]


def test_names_are_unique_and_known() -> None:
    """A second host of one name, an unknown host and an unknown NAT are refused by name."""
    network = VirtualNetwork()
    network.add_host("alice")
    with pytest.raises(InvalidSetting, match="'alice' already"):
        network.add_host("alice")
    with pytest.raises(InvalidSetting, match="no host 'bob' on this network: there are alice"):
        network.set_route("alice", "bob", LinkSettings())
    with pytest.raises(InvalidSetting, match="no NAT 'office'"):
        network.add_host("carol", nat="office")


def test_a_change_of_network_changes_the_address() -> None:
    """After a change of network old sockets are dead both ways, and the host has another address."""

    async def main() -> None:
        network = VirtualNetwork()
        alice, bob = network.add_host("alice"), network.add_host("bob")
        interface = NetworkInterface(name="alice", host=alice)
        inbox, before = Inbox(), alice.address
        old = alice.open_socket(inbox)
        there = bob.open_socket(Inbox())
        interface.change_network()
        assert alice.address != before
        assert alice.addresses() == [alice.address]
        there.sendto(b"too late", old.local)
        await asyncio.sleep(0)
        assert inbox.received == []
        assert alice.open_socket(Inbox()).local[0] == alice.address
        interface.close()

    simulate(main)


def test_costs_are_checked_and_drawn_between_their_bounds() -> None:
    """A frame costs between the two bounds, more for a larger picture; bad bounds are refused."""
    costs, entropy = HostCosts(encode_video_ms=(2.0, 4.0)), random.Random(1)
    drawn = [costs.draw_s("encode", "video", 320 * 240, entropy) for _ in range(200)]
    assert 0.002 <= min(drawn) < 0.0022
    assert 0.0038 < max(drawn) <= 0.004
    assert costs.draw_s("encode", "video", 640 * 480, entropy) >= 0.008
    with pytest.raises(InvalidSetting, match=r"decode_audio_ms=\(3, 1\)"):
        HostCosts(decode_audio_ms=(3.0, 1.0))


# STUN and TURN


def relay_only(server: Any, *, secret: str | None = None, ttl_s: int = 600) -> RTCConfiguration:
    """Return a configuration that uses the server's relay alone."""
    credentials = server.credentials("alice", ttl_s=ttl_s, secret=secret)
    ice_server = RTCIceServer(
        urls=list(credentials.uris), username=credentials.username, credential=credentials.password
    )
    return RTCConfiguration(iceServers=[ice_server], iceTransportPolicy="relay")


async def gather(host: VirtualHost, configuration: RTCConfiguration) -> tuple[list[str], list[int]]:
    """Gather candidates on a host; return their types and the codes of the errors."""
    interface = NetworkInterface(name=host.name, host=host)
    pc = RTCPeerConnection(configuration, interface=interface, entropy=random.Random(1))
    types: list[str] = []
    errors: list[int] = []
    done = asyncio.Event()

    def on_candidate(candidate: Any) -> None:
        if candidate is None:
            done.set()
        elif candidate.candidate:
            types.append(candidate.type)

    pc.on("icecandidate", on_candidate)
    pc.on("icecandidateerror", lambda event: errors.append(event.errorCode))
    pc.createDataChannel("any")
    await pc.setLocalDescription()
    async with asyncio.timeout(30.0):
        await done.wait()
    await pc.close()
    interface.close()
    return types, errors


def test_stun_tells_the_address() -> None:
    """The server answers a binding request with the address that it came from."""

    async def main() -> bool:
        network = VirtualNetwork()
        network.add_stun_server()
        host, inbox = network.add_host("alice"), Inbox()
        here = host.open_socket(inbox)
        request = stun.StunMessage(stun.Method.BINDING, stun.MessageClass.REQUEST, bytes(12))
        here.sendto(request.encode(), host.resolve("stun", 3478))
        await asyncio.sleep(0.1)
        network.close()
        answer = stun.decode(inbox.received[0][1])
        mapped = answer.get(Attribute.XOR_MAPPED_ADDRESS)
        assert mapped is not None
        return decode_xor_address(mapped, bytes(12)) == here.local

    assert simulate(main)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({}, (["relay"], [])),
        ({"reject": 401}, ([], [401])),
        ({"reject": 438}, ([], [438])),
        ({"reject": 486}, ([], [486])),
        ({"silent": True}, ([], [701])),
    ],
)
def test_what_the_turn_server_does_is_what_gathering_reports(
    fault: dict[str, Any], expected: tuple[list[str], list[int]]
) -> None:
    """A good server gives a relayed candidate; one that refuses or is silent shows as its error code."""

    async def main() -> tuple[list[str], list[int]]:
        network = VirtualNetwork()
        server = network.add_turn_server()
        server.fault(**fault)
        outcome = await gather(network.add_host("alice"), relay_only(server))
        network.close()
        return outcome

    assert simulate(main) == expected


def test_wrong_and_expired_credentials_are_refused() -> None:
    """Credentials signed with another secret, and those whose time is over, get 401."""

    async def main() -> None:
        network = VirtualNetwork()
        server = network.add_turn_server()
        wrong = relay_only(server, secret="another")
        expired = relay_only(server, ttl_s=10)
        assert await gather(network.add_host("alice"), wrong) == ([], [401])
        await asyncio.sleep(60.0)
        assert await gather(network.add_host("bob"), expired) == ([], [401])
        assert server.running
        server.stop()
        assert await gather(network.add_host("carol"), relay_only(server)) == ([], [701])
        server.start()
        assert await gather(network.add_host("dave"), relay_only(server)) == (["relay"], [])
        network.close()

    simulate(main)


def test_an_unknown_refusal_is_refused() -> None:
    """A server can only be told to answer with a code that TURN knows."""

    async def main() -> None:
        network = VirtualNetwork()
        with pytest.raises(InvalidSetting, match="reject=418"):
            network.add_turn_server().fault(reject=418)
        network.close()

    simulate(main)
