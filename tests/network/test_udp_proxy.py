"""The UDP proxy on real sockets: what it forwards, from where, how late, and what it refuses."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator

import pytest

from calllab.errors import InvalidSetting
from calllab.network.udp_proxy import UdpProxy, is_own_address, own_address
from calllab.protocol.stun import MessageClass, Method, StunMessage
from tests.network.udp_peers import HOST, IcePeer, ProxiedPair, addresses, connected_pair


@pytest.fixture
async def proxy() -> AsyncIterator[UdpProxy]:
    proxy = UdpProxy()
    yield proxy
    proxy.close()


async def test_each_side_sees_the_other_at_the_address_it_was_told() -> None:
    """Datagrams leave from the sender's leg, both ways, unchanged."""
    async with connected_pair() as (proxy, pair):
        assert pair.alice_leg != pair.alice.address
        assert pair.bob_leg != pair.bob.address
        pair.alice.send(b"\x80rtp", pair.bob_leg)
        assert await pair.bob.receive() == (b"\x80rtp", pair.alice_leg)
        pair.bob.send(b"\x16dtls", pair.alice_leg)
        assert await pair.alice.receive() == (b"\x16dtls", pair.bob_leg)
        counted = proxy.counters()
        assert counted["users"]["alice"]["delivered"] == 3
        assert counted["refused"] == {}


async def test_a_link_delays_what_its_user_sends() -> None:
    """alice's delay is met by alice's datagrams alone; what is under way keeps its time."""
    async with connected_pair() as (proxy, pair):
        loop = asyncio.get_running_loop()
        proxy.set("alice", delay_ms=300)
        sent = loop.time()
        pair.alice.send(b"\x80late", pair.bob_leg)
        pair.bob.send(b"\x80prompt", pair.alice_leg)
        await pair.alice.receive()
        proxy.set("alice", delay_ms=0)
        assert proxy.interface("alice").under_way == 1
        await pair.bob.receive()
        assert 0.3 <= loop.time() - sent < 0.6


async def test_losses_are_those_of_the_seed() -> None:
    """With 30 % loss about as many are lost, counted, and the same ones for the same seed."""
    lost = []
    for _ in range(2):
        async with connected_pair(seed=5) as (proxy, pair):
            proxy.set("alice", loss=0.3)
            for n in range(200):
                pair.alice.send(b"\x80%d" % n, pair.bob_leg)
            arrived = set()
            while len(arrived) < 200 - proxy.counters()["users"]["alice"]["lost"] or not arrived:
                arrived.add((await pair.bob.receive())[0])
            lost.append(frozenset(b"\x80%d" % n for n in range(200)) - arrived)
    assert lost[0] == lost[1]
    assert 40 <= len(lost[0]) <= 80


async def test_a_blackout_has_an_end() -> None:
    """A fault on the timeline takes everything while it lasts; its events say what it did."""
    async with connected_pair() as (proxy, pair):
        told: list[tuple[str, str]] = []
        stop = proxy.on_event(lambda user, event: told.append((user, event.event)))
        proxy.fault("bob", for_s=0.1, blackout=True)
        pair.bob.send(b"\x80gone", pair.alice_leg)
        assert await pair.alice.silent(0.08)
        await asyncio.sleep(0.04)
        pair.bob.send(b"\x80back", pair.alice_leg)
        assert (await pair.alice.receive())[0] == b"\x80back"
        assert told == [("bob", "planned"), ("bob", "started"), ("bob", "ended")]
        stop()


async def test_faults_of_everyone_hold_for_those_who_come_later(proxy: UdpProxy) -> None:
    """``*`` means all links, those of the future too, with what is left of the fault by then."""
    over = proxy.fault("*", for_s=0.01, blackout=True)
    number = proxy.fault("*", delay_ms=40)
    proxy.set("*", jitter_ms=1)
    await asyncio.sleep(0.02)
    settings = proxy.interface("alice").settings
    assert (settings.delay_ms, settings.jitter_ms, settings.blackout) == (40, 1, False)
    proxy.cancel(number)
    proxy.cancel(number)
    proxy.cancel(over)
    assert proxy.interface("alice").settings.delay_ms == 0
    assert proxy.interface("bob").settings.delay_ms == 0


async def test_impossible_settings_are_refused(proxy: UdpProxy) -> None:
    """Also for users who are not there yet; nothing is planned then."""
    for user in ("*", "alice"):
        with pytest.raises(InvalidSetting, match="loss=8"):
            proxy.fault(user, loss=8)
        with pytest.raises(InvalidSetting, match="at_s=-1"):
            proxy.fault(user, at_s=-1, loss=0.1)
        with pytest.raises(InvalidSetting, match="nonsense"):
            proxy.set(user, nonsense=1)
    assert proxy.interface("carol").settings.is_clean
    with pytest.raises(InvalidSetting, match=r"198\.51\.100\.1"):
        UdpProxy(host="198.51.100.1")
    with pytest.raises(InvalidSetting, match="allowed"):
        UdpProxy(allowed=["everything"])


async def test_a_hidden_address_shows_itself_by_its_first_check(proxy: UdpProxy) -> None:
    """Alice's mDNS name gets a leg; her signed check binds it, and from then on she can be reached."""
    with IcePeer("alice") as alice, IcePeer("bob") as bob:
        name = "0d3c1b1e-7f0e-4f7c-9a59-1c1f4b8d7a10.local"
        said = proxy.description("c1", "alice", alice.description(alice.candidate(name)))
        (alice_leg,) = addresses(said)
        assert alice_leg[0] == HOST
        assert ".local" not in said
        (bob_leg,) = addresses(proxy.description("c1", "bob", bob.description()))
        bob.send(bob.check(alice), alice_leg)
        assert await alice.silent()
        alice.send(alice.check(bob), bob_leg)
        assert (await bob.receive())[1] == alice_leg
        check = bob.check(alice)
        bob.send(check, alice_leg)
        assert await alice.receive() == (check, bob_leg)
        assert proxy.refused == {"no-address": 1}
        assert not any(leg["learned"] for leg in proxy.counters()["legs"])


async def test_an_address_that_was_never_signaled_gets_a_leg_of_its_own(proxy: UdpProxy) -> None:
    """A peer-reflexive address is learned from a signed check, and answers find their way back."""
    with IcePeer("alice") as alice, IcePeer("alice") as other_socket, IcePeer("bob") as bob:
        pair = ProxiedPair(proxy, alice, bob)
        check = other_socket.check(bob)
        other_socket.send(check, pair.bob_leg)
        data, source = await bob.receive()
        assert data == check
        assert source not in (pair.alice_leg, pair.bob_leg, other_socket.address)
        answer = bob.answer(check)
        bob.send(answer, source)
        assert await other_socket.receive() == (answer, pair.bob_leg)
        learned = [leg for leg in proxy.counters()["legs"] if leg["learned"]]
        assert [leg["user"] for leg in learned] == ["alice"]


async def test_calls_do_not_meet(proxy: UdpProxy) -> None:
    """Two calls of the same users have legs of their own; a check of one call opens nothing in the other."""
    with IcePeer("alice") as alice, IcePeer("bob") as bob, IcePeer("eve") as eve, IcePeer("bob") as bob2:
        bob2.ufrag, bob2.pwd = "second-ufrag", "second-password-of-22-chars"
        one = ProxiedPair(proxy, alice, bob, "c1")
        other = ProxiedPair(proxy, eve, bob2, "c2")
        assert len({one.alice_leg, one.bob_leg, other.alice_leg, other.bob_leg}) == 4
        await one.connect()
        alice.send(alice.check(bob), other.bob_leg)
        alice.send(b"\x80stray", other.bob_leg)
        assert await bob2.silent()
        assert proxy.refused == {"unknown-source": 2}


async def test_what_proves_nothing_is_not_forwarded(proxy: UdpProxy) -> None:
    """Strangers, forged checks, noise, and data before any check: nothing of it reaches a peer."""
    entropy = random.Random(3)
    with IcePeer("alice") as alice, IcePeer("bob") as bob, IcePeer("eve") as eve:
        pair = ProxiedPair(proxy, alice, bob)
        forged = [
            eve.check(bob, pwd="wrong password of 22 chars"),
            eve.check(bob, pwd=bob.pwd),  # knows the password, but is nobody in this call
            eve.check(alice, pwd=bob.pwd, ufrag=alice.ufrag),
            StunMessage(Method.BINDING, MessageClass.INDICATION, bytes(12)).encode(),
            StunMessage(Method.BINDING, MessageClass.SUCCESS, bytes(12)).encode(bob.pwd.encode()),
            b"",
            b"\x00",
            *(entropy.randbytes(entropy.randrange(1, 200)) for _ in range(100)),
        ]
        for data in forged:
            eve.send(data, pair.bob_leg)
        alice.send(b"\x80too early", pair.bob_leg)
        alice.send(alice.check(bob, pwd="wrong password of 22 chars"), pair.bob_leg)
        assert await bob.silent(0.1)
        assert await alice.silent(0.01)
        assert proxy.refused == {"unknown-source": len(forged), "unproven": 2}
        await pair.connect()
        eve.send(b"\x80still a stranger", pair.bob_leg)
        assert await bob.silent()


async def test_other_machines_and_services_are_out_of_reach(proxy: UdpProxy) -> None:
    """A candidate elsewhere, on a low port, on no address, or by TCP is left out; an allowed one is not."""
    with IcePeer("alice") as alice:
        wrong = [
            alice.candidate("198.51.100.7", 5000),
            alice.candidate("10.1.2.3", 5000),
            alice.candidate(port=53),
            alice.candidate("127.0.0.1", 443),
            alice.candidate("0.0.0.0", 5000),
            alice.candidate("224.0.0.1", 5000),
            alice.candidate("255.255.255.255", 5000),
            alice.candidate("example.org", 5000),
            alice.candidate("fe80::1", 5000),
            alice.candidate(port=70000),
            "candidate:1 1 tcp 1518280447 127.0.0.1 9 typ host tcptype active",
            "candidate:nonsense",
        ]
        said = proxy.description("c1", "alice", alice.description(*wrong))
        assert addresses(said) == []
        assert "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\n" in said
        for text in wrong:
            assert proxy.candidate("c1", "alice", text) is None
        assert proxy.candidate("c1", "alice", "") == ""
        assert proxy.counters()["legs"] == []
        assert proxy.counters()["leftOut"] >= 20
        allowing = UdpProxy(allowed=["198.51.100.0/24"])
        (leg,) = addresses(allowing.description("c1", "alice", alice.description(*wrong)))
        assert leg[0] == HOST
        allowing.close()


async def test_a_call_has_only_so_many_legs(proxy: UdpProxy) -> None:
    """A flood of candidates, and of calls, ends in candidates that are left out."""
    with IcePeer("alice") as alice:
        flood = [alice.candidate(port=2000 + n) for n in range(200)]
        said = proxy.description("c1", "alice", alice.description(*flood))
        assert len(addresses(said)) == 64
        proxy.description("c1", "alice", said)
        assert len(proxy.counters()["legs"]) == 64
        for n in range(100):
            proxy.description(f"flood-{n}", "alice", alice.description())
        assert len({leg["callId"] for leg in proxy.counters()["legs"]}) == 64


async def test_what_was_replaced_is_not_replaced_again(proxy: UdpProxy) -> None:
    """Legs stand for addresses: the same candidate has the same leg, and a leg stays itself."""
    with IcePeer("alice") as alice:
        once = proxy.description("c1", "alice", alice.description())
        assert proxy.description("c1", "alice", alice.description()) == once
        assert proxy.description("c1", "alice", once) == once
        trickled = proxy.candidate("c1", "alice", alice.candidate())
        assert trickled is not None
        assert addresses(trickled) == addresses(once)
        assert trickled.endswith(f"typ host ufrag {alice.ufrag}")


async def test_related_addresses_do_not_give_away_what_was_replaced(proxy: UdpProxy) -> None:
    """raddr and rport name the base's leg where there is one, else nothing."""
    with IcePeer("alice") as alice:
        (base,) = addresses(proxy.candidate("c1", "alice", alice.candidate()) or "")
        reflexive = proxy.candidate("c1", "alice", alice.candidate("127.0.0.1", 4000, "srflx"))
        assert reflexive is not None
        assert f" typ srflx raddr {base[0]} rport {base[1]} " in reflexive
        unknown = proxy.candidate("c2", "alice", alice.candidate("127.0.0.1", 4000, "relay"))
        assert unknown is not None
        assert " typ relay raddr 0.0.0.0 rport 9 " in unknown
        assert str(alice.address[1]) not in reflexive + unknown


async def test_a_call_that_has_ended_gives_its_legs_back() -> None:
    """A little after its end its sockets are closed, and what still comes is not forwarded."""
    async with connected_pair() as (proxy, pair):
        proxy._table.end_call("c1")
        assert proxy.counters()["legs"] == []
        pair.alice.send(b"\x80late", pair.bob_leg)
        assert await pair.bob.silent()
        proxy.end_call("c1")
        proxy.close()
        proxy.close()


async def test_a_call_goes_on_while_anything_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One device's hang-up leaves the call to the other: its legs close when it is silent, not before."""
    monkeypatch.setattr("calllab.network.udp_proxy._SILENCE_S", 0.1)
    async with connected_pair() as (proxy, pair):
        proxy.end_call("c1")
        proxy.end_call("unknown")
        for n in range(8):
            await asyncio.sleep(0.04)
            proxy.end_call("c1")
            pair.alice.send(b"\x80%d" % n, pair.bob_leg)
            assert await pair.bob.receive() == (b"\x80%d" % n, pair.alice_leg)
        async with asyncio.timeout(2):
            while proxy.counters()["legs"]:
                await asyncio.sleep(0.02)
        pair.alice.send(b"\x80late", pair.bob_leg)
        assert await pair.bob.silent()


@pytest.mark.skipif(own_address(socket.AF_INET6) is None, reason="this machine has no IPv6 address")
async def test_legs_are_of_the_family_of_what_they_stand_for(proxy: UdpProxy) -> None:
    """An IPv6 candidate gets an IPv6 leg, and datagrams pass."""
    host = own_address(socket.AF_INET6)
    assert host is not None
    with IcePeer("alice", host) as alice, IcePeer("bob", host) as bob:
        pair = ProxiedPair(proxy, alice, bob)
        assert ":" in pair.alice_leg[0]
        await pair.connect()


def test_own_addresses_are_told_from_others() -> None:
    """An address is own if a datagram to it would come from itself."""
    assert is_own_address(HOST)
    for foreign in ("198.51.100.7", "0.0.0.0", "255.255.255.255", "224.0.0.1"):
        assert not is_own_address(foreign)
