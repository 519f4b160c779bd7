"""The TURN server and other people's clients: aioice, and the tools of coturn."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aioice import Candidate, Connection, turn
from aioice.stun import TransactionFailed

from calllab.protocol.turn_actions import TurnLimits
from calllab.protocol.turn_credentials import TurnCredentials, make_credentials
from calllab_server.turn import TurnServer
from tests.server.turn_helpers import SECRET, Endpoint, credentials_for, endpoint, eventually, lab_server

needs_coturn = pytest.mark.skipif(
    shutil.which("turnutils_uclient") is None,
    reason="NOT TESTED against coturn: turnutils_uclient is missing (apt-get install coturn)",
)


@asynccontextmanager
async def aioice_client(
    server: TurnServer, credentials: TurnCredentials, **options: object
) -> AsyncIterator[tuple[asyncio.DatagramTransport, Endpoint]]:
    """An allocation that is made, used and deleted by aioice."""
    transport, protocol = await turn.create_turn_endpoint(
        Endpoint,
        server_addr=server.address,
        username=credentials.username,
        password=credentials.password,
        **options,  # type: ignore[arg-type]
    )
    try:
        yield transport, protocol
    finally:
        transport.close()
        await eventually(lambda: server.counters().allocations == 0, "aioice deletes its allocation")


async def test_aioice_relays_both_ways() -> None:
    """aioice allocates, binds a channel, sends, hears the echo and deletes."""
    async with lab_server() as server, endpoint(echo=True) as peer:
        async with aioice_client(server, credentials_for(server)) as (transport, inbox):
            transport.sendto(b"hello", peer.address)
            assert await inbox.receive() == (b"hello", peer.address)
            assert await peer.receive() == (b"hello", transport.get_extra_info("sockname"))
        assert server.counters().refusals == {401: 1}


async def test_aioice_refreshes() -> None:
    """aioice keeps a short allocation, its channel and its nonce alive by refreshing them."""
    limits = TurnLimits(
        default_lifetime_s=1,
        max_lifetime_s=1,
        permission_lifetime_s=1,
        channel_lifetime_s=1,
        nonce_lifetime_s=1,
    )
    options = {"lifetime": 1, "channel_refresh_time": 0.5}
    async with (
        lab_server(limits=limits) as server,
        endpoint(echo=True) as peer,
        aioice_client(server, credentials_for(server), **options) as (transport, inbox),
    ):
        loop = asyncio.get_running_loop()
        end = loop.time() + 2.5
        while loop.time() < end:
            transport.sendto(b"still here", peer.address)
            assert await inbox.receive() == (b"still here", peer.address)
            # Not a condition to wait for, but the pace of a sender: a busy one would starve the machine.
            await asyncio.sleep(0.02)
        counters = server.counters()
        assert (counters.allocations, counters.allocations_total) == (1, 1)
        # The nonce ran out on the way, and a new one came with the 438.
        assert counters.refusals[438] >= 1


async def test_aioice_hears_why_it_is_refused() -> None:
    """Wrong and expired credentials give 401 at once; the expired ones say when they expired."""
    async with lab_server() as server:
        good = credentials_for(server)
        wrong = TurnCredentials(good.username, "wrong", 60, ())
        expired = make_credentials(SECRET, "alice", now=1_000_000_000, ttl=60, uris=())
        for credentials, reason in (
            (wrong, "Unauthorized"),
            (expired, "Unauthorized: the credentials expired at 2001-09-09T01:47:40Z"),
        ):
            with pytest.raises(TransactionFailed) as caught:
                async with asyncio.timeout(2):
                    await turn.create_turn_endpoint(
                        asyncio.DatagramProtocol,
                        server_addr=server.address,
                        username=credentials.username,
                        password=credentials.password,
                    )
            assert caught.value.response.attributes["ERROR-CODE"] == (401, reason)
        assert server.counters().allocations_total == 0


async def test_aioice_connects_through_relays_only() -> None:
    """Two ICE agents that only know each other's relayed candidates connect, and their data is counted."""
    async with lab_server() as server:
        agents = []
        for controlling, user in ((True, "alice"), (False, "bob")):
            credentials = credentials_for(server, user)
            agents.append(
                Connection(
                    ice_controlling=controlling,
                    components=1,
                    turn_server=server.address,
                    turn_username=credentials.username,
                    turn_password=credentials.password,
                )
            )
        one, two = agents
        try:
            for agent in agents:
                await agent.gather_candidates()
            for agent, other in ((one, two), (two, one)):
                relayed = [c for c in agent.local_candidates if c.type == "relay"]
                assert relayed, "a relayed candidate was gathered"
                for candidate in relayed:
                    await other.add_remote_candidate(Candidate.from_sdp(candidate.to_sdp()))
                await other.add_remote_candidate(None)
                other.remote_username = agent.local_username
                other.remote_password = agent.local_password
            async with asyncio.timeout(10):
                await asyncio.gather(one.connect(), two.connect())
                before = server.counters()
                for number in range(20):
                    await one.send(b"%d" % number)
                    assert await two.recv() == b"%d" % number
                    await two.send(b"re %d" % number)
                    assert await one.recv() == b"re %d" % number
            after = server.counters()
            assert after.packets_to_clients - before.packets_to_clients >= 40
        finally:
            for agent in agents:
                await agent.close()


# coturn's tools.


async def run(*command: str) -> tuple[int, str]:
    """Run a program to its end; return its exit code and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(45):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


@asynccontextmanager
async def turnutils_peer() -> AsyncIterator[int]:
    """coturn's echo peer on a free port (it uses the next one too)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1] & ~1
    process = await asyncio.create_subprocess_exec(
        "turnutils_peer",
        "-L",
        "127.0.0.1",
        "-p",
        str(port),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with endpoint() as probe_socket:

            def answers() -> bool:
                probe_socket.transport.sendto(b"are you there?", ("127.0.0.1", port))
                return not probe_socket.inbox.empty()

            await eventually(answers, "turnutils_peer echoes")
        yield port
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@pytest.mark.interop
@needs_coturn
async def test_turnutils_stunclient() -> None:
    """coturn's STUN client learns its address."""
    async with lab_server() as server:
        code, output = await run("turnutils_stunclient", "-p", str(server.address[1]), "127.0.0.1")
    assert code == 0
    assert "UDP reflexive addr: 127.0.0.1:" in output


@pytest.mark.interop
@needs_coturn
async def test_turnutils_uclient() -> None:
    """coturn's TURN client loses nothing with channels, indications, DONT-FRAGMENT, and client to client.

    The runs go side by side: each spends most of its time waiting.
    """
    # The uclient binds channels of the whole range of RFC 5766.
    async with lab_server(rfc5766_channels=True) as server, turnutils_peer() as peer:
        common = ["-p", str(server.address[1]), "-u", "user", "-W", SECRET, "-n", "10", "-z", "5"]
        to_peer = [*common, "-e", "127.0.0.1", "-r", str(peer)]
        runs = {
            "channels, with a reserved port": to_peer,
            "channels, one port": ["-c", *to_peer],
            "indications": ["-s", *to_peer],
            "indications with DONT-FRAGMENT": ["-s", "-g", *to_peer],
            "address families and DONT-FRAGMENT": ["-X", "-g", *to_peer],
            "client to client": ["-y", *common],
        }
        results = await asyncio.gather(
            *(run("turnutils_uclient", *options, "127.0.0.1") for options in runs.values())
        )
        for name, (code, output) in zip(runs, results, strict=True):
            assert code == 0, f"{name}: {output}"
            totals = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)\s*$", output, re.MULTILINE)
            assert totals, f"{name}: {output}"
            sent, got = map(int, totals[-1])
            assert sent == got > 0, f"{name}: {output}"
            assert "Total lost packets 0 (0.000000%)" in output, f"{name}: {output}"


@pytest.mark.interop
@needs_coturn
async def test_turnutils_uclient_with_a_wrong_secret() -> None:
    """coturn's client gives up with a wrong secret, and nothing was allocated."""
    async with lab_server() as server:
        code, output = await run(
            *("turnutils_uclient", "-p", str(server.address[1]), "-u", "user", "-W", "wrong", "-n", "1"),
            *("-e", "127.0.0.1", "127.0.0.1"),
        )
        assert code != 0
        assert "Cannot complete Allocation" in output
        assert server.counters().allocations_total == 0
