from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from calllab._aiortc import IceTransport
from calllab.protocol.turn_credentials import make_credentials, password_for
from calllab_server.turn import TurnServer
from tests._aiortc.helpers import FAST, ice_pair, until

SECRET = "a secret that both the service and its TURN server know"


@dataclass(frozen=True)
class Server:
    """What an application configures (RTCIceServer)."""

    urls: str | tuple[str, ...]
    username: str | None = None
    credential: str | None = None


@asynccontextmanager
async def turn_server() -> AsyncIterator[TurnServer]:
    async with TurnServer(secret=SECRET, allow_private_peers=True) as server:
        yield server


def account(server: TurnServer, *, expires_in_s: int = 600, password: str | None = None) -> Server:
    now = time.time()
    if expires_in_s > 0:
        given = make_credentials(SECRET, "alice", now=now, ttl=expires_in_s, uris=server.uris)
        return Server(given.uris, given.username, password or given.password)
    username = f"{int(now) + expires_in_s}:alice"
    return Server(server.uris, username, password or password_for(SECRET, username))


async def test_relay_only_connects_through_the_server_and_passes_the_interface_once() -> None:
    """With policy "relay" only relayed candidates are told, and every datagram goes to the server."""
    async with turn_server() as server, ice_pair(servers=[account(server)], policy="relay") as pair:
        pair.negotiate()
        await pair.connected()
        for side in (pair.alice, pair.bob):
            lines = [line for line in side.candidates[side.credentials.ufrag] if line]
            assert len(lines) == 1
            assert " typ relay raddr 0.0.0.0 rport 9" in lines[0]
            assert len(side.wire.open) == 1, "the TURN client's socket is the only one"
        selected = pair.alice.ice.selected_pair
        assert selected is not None
        assert selected.local.type == selected.remote.type == "relay"
        assert selected.local.url == server.uris[0]
        packet, passed = b"\x80" + bytes(range(99)), list[bytes]()

        def note(data: bytes) -> bool:
            passed.append(data)
            return False

        pair.alice.wire.drop = note
        await pair.alice.ice._send(packet)
        assert await pair.bob.ice._recv() == packet
        # Checks, permissions and channels go their own way meanwhile.
        assert sum(packet in data for data in passed) == 1
        assert server.counters().packets_to_peers > 0


async def test_hosts_come_before_the_relay_and_all_are_told() -> None:
    """Policy "all" with STUN and TURN: hosts first, then what the servers give."""
    async with turn_server() as server:
        host, port = server.address
        stun = Server(f"stun:{host}:{port}")
        async with ice_pair(servers=[stun, account(server)]) as pair:
            pair.negotiate()
            await until(lambda: pair.alice.ice.gathering_state == "complete")
            types = [
                line.split(" typ ")[1].split()[0]
                for line in pair.alice.candidates[pair.alice.credentials.ufrag]
                if line is not None
            ]
            assert types[0] == "host"
            assert types.count("relay") == 1
            assert not pair.alice.errors
            await pair.connected()


async def test_wrong_password_is_an_error_within_seconds() -> None:
    """Relay-only with a wrong password: 401, the reason in words, and a failed state; nothing hangs."""
    async with turn_server() as server:
        server_config = account(server, password="not the password")
        async with ice_pair(servers=[server_config], policy="relay") as pair:
            started = asyncio.get_running_loop().time()
            pair.negotiate()
            await until(lambda: pair.alice.ice.state == pair.bob.ice.state == "failed", timeout_s=3)
            assert asyncio.get_running_loop().time() - started < 2
            (error,) = pair.alice.errors
            assert error.errorCode == 401
            assert "password" in error.errorText
            assert "valid until" in error.errorText
            assert error.url == server.uris[0]
            assert pair.alice.ice.failure == "no local candidate was found"


async def test_expired_credentials_say_what_expired_when() -> None:
    """The error names the user name, the time of its expiry, and how long ago that was."""
    async with turn_server() as server:
        expired = account(server, expires_in_s=-90)
        async with ice_pair(servers=[expired], policy="relay") as pair:
            pair.negotiate()
            await until(lambda: pair.alice.errors and pair.bob.errors, timeout_s=3)
            error = pair.alice.errors[0]
            assert error.errorCode == 401
            assert expired.username is not None
            assert expired.username in error.errorText
            assert "expired at 20" in error.errorText
            assert "UTC, 9" in error.errorText


async def test_a_silent_server_is_error_701_and_others_still_serve() -> None:
    """A server that never answers costs its time limit; the relay of another one is there long before."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        url = f"turn:127.0.0.1:{deaf.getsockname()[1]}?transport=udp"
        async with turn_server() as server:
            servers = [Server(url, "u", "p"), account(server)]
            async with ice_pair(servers=servers, policy="relay") as pair:
                pair.negotiate()
                await until(lambda: pair.alice.ice.state == "connected", timeout_s=1)
                await until(lambda: pair.alice.errors, timeout_s=FAST.gather_timeout_s + 1)
                error = pair.alice.errors[0]
                assert (error.errorCode, error.url) == (701, url)
                assert "did not answer" in error.errorText
                await pair.connected()


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("stun:no-such-host.invalid:3478", "resolved"),
        ("turn:no-such-host.invalid:3478", "resolved"),
        ("turn:127.0.0.1:1?transport=tcp", "reached"),
        ("turns:127.0.0.1:1", "reached"),
    ],
)
async def test_unreachable_servers_are_explained(url: str, word: str) -> None:
    """A name that does not resolve and a port that refuses are told apart, both with code 701."""
    async with ice_pair(servers=[Server(url, "u", "p")]) as pair:
        pair.negotiate()
        await until(lambda: pair.alice.errors)
        assert pair.alice.errors[0].errorCode == 701
        assert word in pair.alice.errors[0].errorText
        await pair.connected()


async def test_closing_does_not_wait_for_a_server_that_is_gone() -> None:
    """A relayed connection whose server fell silent closes within about a second, not after a minute."""
    async with turn_server() as server, ice_pair(servers=[account(server)], policy="relay") as pair:
        pair.negotiate()
        await pair.connected()
        pair.alice.wire.cut_out = pair.alice.wire.cut_in = True
        started = asyncio.get_running_loop().time()
        await pair.alice.ice.close()
        assert asyncio.get_running_loop().time() - started < 2.5


async def test_relay_policy_takes_effect_on_the_next_generation() -> None:
    """configure() changes the servers and policy of a restart, not of what is running."""
    async with turn_server() as server, ice_pair() as pair:
        pair.negotiate()
        await pair.connected()
        for side in (pair.alice, pair.bob):
            side.ice.configure([account(server)], "relay")
        pair.negotiate()
        await until(lambda: (s := pair.alice.ice.selected_pair) is not None and s.local.type == "relay")
        await pair.connected()


def test_malformed_urls_are_refused_at_once() -> None:
    """A URL that is none is a ValueError that quotes it."""
    with pytest.raises(ValueError, match="'http://x'"):
        IceTransport(servers=[Server("http://x")])
