"""TURN credentials, health and metrics through the HTTP API."""

from __future__ import annotations

import asyncio
import base64
import hmac
import re

import pytest

from tests.server.helpers import PATIENCE_S, Bench, running, turn_client


async def test_turn_credentials_are_of_the_rest_scheme() -> None:
    """The credentials have four members; the password is the HMAC-SHA1 of the user name with the secret."""
    async with running(turn_secret="t" * 32, turn_ttl_s=600) as bench:
        alice = await bench.user("alice")
        status, body = await bench.get("/api/turn/credentials", token=alice.access_token)
        assert status == 200
        assert set(body) == {"username", "password", "ttl", "uris"}
        expiry, _, user = body["username"].partition(":")
        assert user == "alice"
        assert int(expiry) == pytest.approx(bench.clock() + 600, abs=5)
        digest = hmac.digest(b"t" * 32, body["username"].encode(), "sha1")
        assert body["password"] == base64.b64encode(digest).decode()
        assert body["ttl"] == 600
        assert body["uris"] == list(bench.parts.turn.uris)
        assert re.fullmatch(r"turn:127\.0\.0\.1:\d+\?transport=udp", body["uris"][0])


async def test_turn_credentials_open_an_allocation(bench: Bench) -> None:
    """With the credentials of the API a client relays its packets through the embedded TURN server."""
    alice = await bench.user("alice")
    _, credentials = await bench.get("/api/turn/credentials", token=alice.access_token)
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[bytes] = loop.create_future()

    class Peer(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, _address: object) -> None:
            arrived.set_result(data)

    peer, _ = await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))
    try:
        async with turn_client(bench.parts.turn.address, credentials) as transport:
            transport.sendto(b"through the relay", peer.get_extra_info("sockname"))
            async with asyncio.timeout(PATIENCE_S):
                assert await arrived == b"through the relay"
            assert "calllab_turn_allocations 1.0" in (await _metrics(bench))[1].splitlines()
    finally:
        peer.close()


async def test_turn_credentials_need_a_token(bench: Bench) -> None:
    """Without a token there are no credentials, and the answer names the scheme."""
    async with bench.http.get("/api/turn/credentials") as response:
        assert (response.status, (await response.json())["code"]) == (401, "token-missing")
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert response.headers["Cache-Control"] == "no-store"


async def test_turn_credentials_are_limited(bench: Bench) -> None:
    """A user who asks without end is told to wait."""
    alice = await bench.user("alice")
    answers = [await bench.get("/api/turn/credentials", token=alice.access_token) for _ in range(70)]
    assert {status for status, _ in answers} == {200, 429}
    assert answers[-1][1]["code"] == "rate-limited"


async def test_alive_and_ready(bench: Bench) -> None:
    """A running service is alive and ready."""
    assert await bench.get("/healthz") == (200, {"status": "ok"})
    assert await bench.get("/readyz") == (200, {"status": "ready"})


async def test_not_ready_without_its_database(bench: Bench) -> None:
    """A service that has lost its database is alive but not ready, and its API says so."""
    await bench.parts.database.close()
    assert (await bench.get("/healthz"))[0] == 200
    status, body = await bench.get("/readyz")
    assert (status, body["code"]) == (503, "not-ready")
    status, body = await bench.post("/api/auth/refresh", {"refreshToken": "x"})
    assert (status, body["code"]) == (503, "unavailable")


async def test_failures_inside_stay_inside(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of the service's own is answered as JSON that tells nothing of its insides."""

    async def fail(_refresh_token: str) -> None:
        raise LookupError("the secret of the house")

    monkeypatch.setattr(bench.parts.sessions, "refresh", fail)
    status, body = await bench.post("/api/auth/refresh", {"refreshToken": "x"})
    assert (status, body["code"]) == (500, "internal-error")
    assert "secret" not in body["message"]


async def test_unknown_paths_and_methods(bench: Bench) -> None:
    """What is not there, or takes another method, is said as JSON."""
    status, body = await bench.get("/nowhere")
    assert (status, body["code"]) == (404, "not-found")
    async with bench.http.get("/api/auth/login") as response:
        assert (response.status, (await response.json())["code"]) == (405, "method-not-allowed")
        assert response.headers["Allow"] == "POST"


async def _metrics(bench: Bench, token: str | None = None) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with bench.http.get("/metrics", headers=headers) as response:
        return response.status, await response.text()


async def test_metrics_count(bench: Bench) -> None:
    """/metrics shows users, sockets, messages and refusals as they are."""
    alice, bob = await bench.user("alice"), await bench.user("bob")
    await bench.post("/api/auth/login", {"username": "alice", "password": "not hers"})
    async with bench.socket(alice) as of_alice, bench.socket(bob) as of_bob:
        await of_alice.send({"type": "typing", "recipientId": "bob"})
        await of_bob.receive()
        await of_alice.send({"type": "typing", "recipientId": "nobody"})
        await of_alice.receive()
        status, shown = await _metrics(bench)
    assert status == 200
    for line in (
        "calllab_users 2.0",
        "calllab_relay_sockets 2.0",
        "calllab_relay_received_total 2.0",
        "calllab_relay_delivered_total 1.0",
        'calllab_relay_refused_total{code="recipient-unknown"} 1.0',
        'calllab_logins_total{outcome="succeeded"} 2.0',
        'calllab_logins_total{outcome="failed"} 1.0',
        'calllab_http_requests_total{method="POST",route="/api/auth/register",status="201"} 2.0',
        "calllab_turn_allocations 0.0",
    ):
        assert line in shown.splitlines()


async def test_metrics_do_not_grow_with_what_is_asked(bench: Bench) -> None:
    """Unknown paths and methods share one label."""
    for number, method in enumerate(("PROPFIND", "MKCOL", "LOCK", "UNLOCK", "REPORT", "SEARCH")):
        async with bench.http.request(method, f"/path/{number}") as response:
            assert response.status == 404
    _, shown = await _metrics(bench)
    assert len([line for line in shown.splitlines() if line.startswith("calllab_http_requests_total")]) == 1


async def test_metrics_may_need_a_token() -> None:
    """With a token set, /metrics is shown to who knows it."""
    async with running(metrics_token="for the watchers") as bench:
        assert (await _metrics(bench))[0] == 401
        assert (await _metrics(bench, "for nobody"))[0] == 401
        assert (await _metrics(bench, "for the watchers"))[0] == 200
