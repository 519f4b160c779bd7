"""Hosts, sockets, routes and servers in memory."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import weakref
from itertools import pairwise
from typing import Any

import pytest

from calllab.errors import InvalidSetting
from calllab.network import (
    NO_COSTS,
    HostCosts,
    LinkSettings,
    NatSettings,
    NetworkInterface,
    VirtualHost,
    VirtualNetwork,
    simulate,
)
from calllab.protocol import stun
from calllab.protocol.stun_attributes import Attribute, decode_xor_address
from calllab.rtc import RTCConfiguration, RTCIceServer, RTCPeerConnection
from tests.network.virtual_call import Caller


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
        network = VirtualNetwork(log=True, costs=NO_COSTS)
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
        network = VirtualNetwork(costs=NO_COSTS)
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
        network = VirtualNetwork(costs=NO_COSTS)
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
        network = VirtualNetwork(costs=NO_COSTS)
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
    network = VirtualNetwork(costs=NO_COSTS)
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
        network = VirtualNetwork(costs=NO_COSTS)
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


def sent_at_odd_times(costs: HostCosts | None, seed: int = 1) -> list[tuple[float, bytes]]:
    """Send a datagram each millisecond for a while and return when each arrives, without link or route."""

    async def main() -> list[tuple[float, bytes]]:
        network = VirtualNetwork(seed=seed, costs=costs)
        alice, bob = network.add_host("alice"), network.add_host("bob")
        inbox = Inbox()
        here, there = alice.open_socket(Inbox()), bob.open_socket(inbox)
        for number in range(400):
            here.sendto(number.to_bytes(2, "big"), there.local)
            await asyncio.sleep(0.001)
        here.sendto(b"the last word", there.local)
        here.close()
        await asyncio.sleep(0.1)
        network.close()
        return [(at, data) for at, data, _ in inbox.received]

    return simulate(main)


def test_hosts_send_a_little_late_and_in_order() -> None:
    """In virtual time each datagram leaves late by what is drawn, or with the one before it; none is lost."""
    seen = sent_at_odd_times(HostCosts(send_ms=(0.5, 2.5)))
    assert [data for _, data in seen] == [n.to_bytes(2, "big") for n in range(400)] + [b"the last word"]
    late = [at - number / 1000 for number, (at, _) in enumerate(seen)]
    assert min(late) > -1e-9
    assert 0.0023 < max(late) <= 0.0025
    assert 0.0008 < sum(late) / len(late) < 0.0016
    moments = {at for at, _ in seen}
    assert 150 < len(moments) < 350, "what follows closely leaves together"
    assert sent_at_odd_times(HostCosts(send_ms=(0.5, 2.5))) == seen
    assert sent_at_odd_times(HostCosts(send_ms=(0.5, 2.5)), seed=2) != seen
    exact = [at - number / 1000 for number, (at, _) in enumerate(sent_at_odd_times(NO_COSTS))]
    assert max(map(abs, exact)) < 1e-9
    assert len(sent_at_odd_times(None)) == 401


def test_on_the_real_clock_nobody_is_late_on_purpose() -> None:
    """Where processes are late all by themselves, hosts send at once, whatever they cost."""

    async def main() -> int:
        network = VirtualNetwork(costs=HostCosts(send_ms=(10_000.0, 10_000.0)))
        alice, bob = network.add_host("alice"), network.add_host("bob")
        inbox = Inbox()
        alice.open_socket(Inbox()).sendto(b"now", bob.open_socket(inbox).local)
        await asyncio.sleep(0)
        return len(inbox.received)

    assert simulate(main, clock="real") == 1


def test_what_a_host_has_not_sent_when_it_moves_is_lost() -> None:
    """A datagram that waits for its process does not leave from an address that the host has no longer."""

    async def main() -> list[bytes]:
        network = VirtualNetwork(costs=HostCosts(send_ms=(1.0, 1.0)))
        alice, bob = network.add_host("alice"), network.add_host("bob")
        inbox = Inbox()
        here, there = alice.open_socket(Inbox()), bob.open_socket(inbox)
        here.sendto(b"sent", there.local)
        await asyncio.sleep(0.002)
        here.sendto(b"not sent", there.local)
        alice.change_address()
        await asyncio.sleep(0.002)
        return [data for _, data, _ in inbox.received]

    assert simulate(main) == [b"sent"]


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
        network = VirtualNetwork(costs=NO_COSTS)
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
        network = VirtualNetwork(costs=NO_COSTS)
        server = network.add_turn_server()
        server.fault(**fault)
        outcome = await gather(network.add_host("alice"), relay_only(server))
        network.close()
        return outcome

    assert simulate(main) == expected


def test_wrong_and_expired_credentials_are_refused() -> None:
    """Credentials signed with another secret, and those whose time is over, get 401."""

    async def main() -> None:
        network = VirtualNetwork(costs=NO_COSTS)
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
        network = VirtualNetwork(costs=NO_COSTS)
        with pytest.raises(InvalidSetting, match="reject=418"):
            network.add_turn_server().fault(reject=418)
        network.close()

    simulate(main)


# Many hosts, many addresses, many routes


def test_routes_reach_hosts_that_share_a_nat() -> None:
    """A route leads to one of several hosts behind a NAT, and between two behind the same one."""

    async def main() -> list[list[float]]:
        network = VirtualNetwork(costs=NO_COSTS)
        network.add_nat("home", NatSettings())
        hosts = [network.add_host(name, nat="home") for name in ("desk", "sofa")] + [network.add_host("far")]
        inboxes = [Inbox(), Inbox(), Inbox()]
        desk, sofa, far = (h.open_socket(i) for h, i in zip(hosts, inboxes, strict=True))
        network.set_route("far", "sofa", LinkSettings(delay_ms=50))
        network.set_route("desk", "sofa", LinkSettings(delay_ms=7))
        for inner in (desk, sofa):
            inner.sendto(b"open the NAT", far.local)
        await asyncio.sleep(0)
        for _, _, seen in inboxes[2].received:
            far.sendto(b"from far", seen)
        desk.sendto(b"from the desk", sofa.local)
        await asyncio.sleep(1.0)
        network.close()
        return [[at for at, _, _ in inbox.received] for inbox in inboxes[:2]]

    assert simulate(main) == [[0.0], [0.007, 0.05]]


def test_a_route_keeps_no_socket_alive() -> None:
    """What has sent over a route and was closed can be collected."""

    async def main() -> None:
        network = VirtualNetwork(costs=NO_COSTS)
        alice, bob = network.add_host("alice"), network.add_host("bob")
        network.set_route("alice", "bob", LinkSettings(delay_ms=5))
        protocol = Inbox()
        gone = weakref.ref(protocol)
        sender = alice.open_socket(protocol)
        sender.sendto(b"hello", (bob.address, 1))
        sender.close()
        await asyncio.sleep(1.0)
        assert network.verdicts["no-socket"] == 1
        del protocol, sender
        gc.collect()
        assert gone() is None
        network.close()

    simulate(main)


def test_addresses_come_back_when_they_are_used_up() -> None:
    """A host may move as often as it likes; more hosts than addresses are refused, and nothing has moved."""
    network = VirtualNetwork(costs=NO_COSTS)
    network.add_nat("home", NatSettings())
    host = network.add_host("phone", nat="home")
    seen = [host.change_address() for _ in range(600)]
    assert len(set(seen)) == 253
    assert all(one != other for one, other in pairwise(seen))
    network.add_nat("office", NatSettings())
    for number in range(253):
        network.add_host(f"desk {number}", nat="office")
    with pytest.raises(InvalidSetting, match="no address is left on 'office'"):
        network.move(host, nat="office")
    assert host.site.name == "home"
    assert host.address == seen[-1]


def test_ports_run_out_like_those_of_a_machine() -> None:
    """With all dynamic ports taken the next socket is refused, until one is closed."""

    async def main() -> None:
        host = VirtualNetwork(costs=NO_COSTS).add_host("alice")
        opened = [host.open_socket(Inbox()) for _ in range(16384)]
        with pytest.raises(OSError, match="alice has no free port"):
            host.open_socket(Inbox())
        opened[77].close()
        assert host.open_socket(Inbox()).local == opened[77].local

    simulate(main)


def test_a_datagram_has_a_largest_size() -> None:
    """More than UDP can carry is an error of the protocol, as on a machine."""
    errors: list[Exception] = []

    class Sender(Inbox):
        def error_received(self, exc: Exception) -> None:
            errors.append(exc)

    async def main() -> list[int]:
        network = VirtualNetwork(costs=NO_COSTS)
        inbox = Inbox()
        there = network.add_host("bob").open_socket(inbox)
        here = network.add_host("alice").open_socket(Sender())
        here.sendto(bytes(65507), there.local)
        here.sendto(bytes(65508), there.local)
        await asyncio.sleep(1.0)
        return [len(data) for _, data, _ in inbox.received]

    assert simulate(main) == [65507]
    assert [str(error) for error in errors] == ["[Errno 90] 65508 bytes are too many for a datagram"]


@pytest.mark.parametrize("refused_later", [False, True])
def test_a_relayed_call_outlives_its_first_permissions(refused_later: bool) -> None:
    """Permissions end after five minutes and allocations after ten: both are renewed in time.  A server that
    refuses to renew them ends the call, and nothing else.
    """

    async def main() -> tuple[list[str], list[str]]:
        problems: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(repr(context)))
        network = VirtualNetwork(costs=NO_COSTS)
        server = network.add_turn_server()
        callers = [
            Caller(
                n, 1, LinkSettings(delay_ms=20), network.add_host(n), None, configuration=relay_only(server)
            )
            for n in ("alice", "bob")
        ]
        a, b = callers
        a.trickle_to(b)
        b.trickle_to(a)
        a.pc.createDataChannel("any")
        await a.pc.setLocalDescription()
        await b.pc.setRemoteDescription(a.pc.localDescription)
        await b.pc.setLocalDescription()
        await a.pc.setRemoteDescription(b.pc.localDescription)
        await asyncio.sleep(5.0)
        if refused_later:
            server.fault(reject=437)
        await asyncio.sleep(1200.0)
        states = [caller.pc.connectionState for caller in callers]
        for caller in callers:
            await caller.close()
        network.close()
        return states, problems

    assert simulate(main) == (["failed" if refused_later else "connected"] * 2, [])
