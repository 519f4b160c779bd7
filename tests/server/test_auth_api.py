"""Accounts and tokens through the HTTP API."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from calllab_server.config import PasswordCost, ServiceConfig
from calllab_server.database import Database
from calllab_server.errors import ServiceError
from calllab_server.sessions import MAX_SESSIONS_PER_USER
from tests.server.helpers import PASSWORD, Bench, running


async def test_register_and_login(bench: Bench) -> None:
    """Who has registered can log in, and the tokens open what needs them."""
    status, body = await bench.post("/api/auth/register", {"username": "alice", "password": PASSWORD})
    assert (status, body) == (201, {"userId": "alice"})
    status, body = await bench.post("/api/auth/login", {"username": "alice", "password": PASSWORD})
    assert (status, set(body)) == (200, {"accessToken", "refreshToken", "expiresIn"})
    assert body["expiresIn"] == 900
    status, _ = await bench.get("/api/turn/credentials", token=body["accessToken"])
    assert status == 200


async def test_names_that_cannot_be(bench: Bench) -> None:
    """A name that no recipientId could be is refused."""
    for username in ["al", "Alice", "al ice", "a" * 33, "élise", "alice\n", "alice:1", ""]:
        status, body = await bench.post("/api/auth/register", {"username": username, "password": PASSWORD})
        assert (status, body["code"]) == (400, "bad-request")


async def test_passwords_that_cannot_be(bench: Bench) -> None:
    """A password that is too short or too long is refused, and not repeated in the answer."""
    for password in ["", "1234567", "x" * 257]:
        status, body = await bench.post("/api/auth/register", {"username": "alice", "password": password})
        assert (status, body["code"]) == (400, "bad-request")
        assert not password or password not in body["message"]


async def test_name_is_taken_once(bench: Bench) -> None:
    """Of many who register the same name at once exactly one gets it."""
    body = {"username": "alice", "password": PASSWORD}
    answers = await asyncio.gather(*(bench.post("/api/auth/register", body) for _ in range(8)))
    assert sorted(status for status, _ in answers) == [201] + [409] * 7
    assert {content["code"] for status, content in answers if status == 409} == {"username-taken"}


_NO_BODIES: list[tuple[str, Any]] = [
    ("/api/auth/register", {}),
    ("/api/auth/register", {"username": "alice", "password": PASSWORD, "isAdmin": True}),
    ("/api/auth/register", {"username": ["alice"], "password": PASSWORD}),
    ("/api/auth/login", {"username": "alice"}),
    ("/api/auth/login", []),
    ("/api/auth/login", None),
    ("/api/auth/login", {"username": "alice", "password": None}),
    ("/api/auth/refresh", {"refresh_token": "x"}),
    ("/api/auth/refresh", {"refreshToken": 5}),
]


async def test_bodies_that_are_none(bench: Bench) -> None:
    """A body that lacks a field, has another, or is of the wrong type is refused as JSON."""
    for path, content in _NO_BODIES:
        status, body = await bench.post(path, content)
        assert (status, body["code"]) == (400, "bad-request")


_NO_JSON: list[tuple[bytes, int, str]] = [
    (b"{", 400, "bad-request"),
    (b"\xff\xfe", 400, "bad-request"),
    (b"[" * 8000, 400, "bad-request"),
    (b'{"username":"' + b"x" * 20_000 + b'"}', 413, "too-large"),
]


async def test_bodies_of_bytes(bench: Bench) -> None:
    """A body that is no JSON, nested without end, or too long is refused as JSON."""
    for data, status, code in _NO_JSON:
        async with bench.http.post("/api/auth/login", data=data) as response:
            assert (response.status, (await response.json())["code"]) == (status, code)


async def test_wrong_password_and_unknown_user_read_alike(bench: Bench) -> None:
    """Nothing in the answer tells whether the user exists."""
    await bench.user("alice")
    known = await bench.post("/api/auth/login", {"username": "alice", "password": "not hers"})
    unknown = await bench.post("/api/auth/login", {"username": "zelda", "password": "not hers"})
    assert known == unknown
    assert (known[0], known[1]["code"]) == (401, "wrong-credentials")


async def test_wrong_password_and_unknown_user_take_alike() -> None:
    """The time of the answer does not tell either."""
    async with running(password_cost=PasswordCost(passes=2, memory_kib=4096, lanes=1)) as bench:
        await bench.user("alice")

        async def took_s(name: str) -> float:
            start_s = time.perf_counter()
            assert not await bench.parts.accounts.verify(name, "not hers")
            return time.perf_counter() - start_s

        known, unknown = [
            statistics.median([await took_s(name) for _ in range(9)]) for name in ("alice", "zelda")
        ]
        # Without a hash for the unknown user the two differ by a factor of ten and more.
        assert 1 / 3 < known / unknown < 3


async def test_passwords_are_stored_as_argon2id(bench: Bench) -> None:
    """The database holds an argon2id hash, never the password."""
    await bench.user("alice")
    async with bench.parts.database.session() as session:
        stored = (await session.execute(text("SELECT password_hash FROM users"))).scalar_one()
    assert stored.startswith("$argon2id$")
    assert PASSWORD not in stored


async def test_hashes_follow_the_cost(tmp_path: Path) -> None:
    """A login replaces a hash that was made at another cost."""
    async with running(database=tmp_path / "a.sqlite") as bench:
        await bench.user("alice")
    cost = PasswordCost(passes=2, memory_kib=128, lanes=1)
    async with running(database=tmp_path / "a.sqlite", password_cost=cost) as bench:
        await bench.login("alice")
        await bench.login("alice")
        async with bench.parts.database.session() as session:
            stored = (await session.execute(text("SELECT password_hash FROM users"))).scalar_one()
    assert "m=128,t=2,p=1" in stored


async def test_guesses_are_limited(bench: Bench) -> None:
    """After ten wrong passwords the eleventh attempt waits, right or wrong; other users do not."""
    await bench.user("alice")
    bob = {"username": "bob", "password": PASSWORD}
    await bench.post("/api/auth/register", bob)
    wrong = {"username": "alice", "password": "not hers"}
    guesses = [await bench.post("/api/auth/login", wrong) for _ in range(10)]
    assert {status for status, _ in guesses} == {401}
    async with bench.http.post(
        "/api/auth/login", json={"username": "alice", "password": PASSWORD}
    ) as response:
        assert (response.status, (await response.json())["code"]) == (429, "rate-limited")
        assert 1 <= int(response.headers["Retry-After"]) <= 10
    assert (await bench.post("/api/auth/login", bob))[0] == 200


async def test_right_passwords_are_not_counted_as_guesses(bench: Bench) -> None:
    """A user may log in as often as the address may."""
    await bench.user("alice")
    for _ in range(15):
        await bench.login("alice")


async def test_attempts_of_an_address_are_limited(bench: Bench) -> None:
    """One address cannot keep the hashing busy without end."""
    statuses = []
    for number in range(70):
        status, _ = await bench.post("/api/auth/login", {"username": f"user{number}", "password": "x"})
        statuses.append(status)
    assert set(statuses) == {401, 429}
    assert statuses.index(429) >= 60


async def test_invite() -> None:
    """Where an invite is set, only who knows it registers."""
    async with running(invite="friends only") as bench:
        body = {"username": "alice", "password": PASSWORD}
        for wrong in ({}, {"invite": "friends"}, {"invite": ""}, {"invite": "fr\u00fcnds \U0001f600"}):
            status, answer = await bench.post("/api/auth/register", {**body, **wrong})
            assert (status, answer["code"]) == (403, "invite-required")
        status, _ = await bench.post("/api/auth/register", {**body, "invite": "friends only"})
        assert status == 201


async def test_refresh_rotates(bench: Bench) -> None:
    """Each refresh yields new tokens of the same session."""
    alice = await bench.user("alice")
    token = alice.refresh_token
    for _ in range(3):
        status, body = await bench.post("/api/auth/refresh", {"refreshToken": token})
        assert (status, set(body)) == (200, {"accessToken", "refreshToken", "expiresIn"})
        assert body["refreshToken"] != token
        token = body["refreshToken"]
        assert (await bench.get("/api/turn/credentials", token=body["accessToken"]))[0] == 200


async def test_reuse_revokes_the_family(bench: Bench) -> None:
    """A refresh token used twice ends its session: its successor, its access tokens, its sockets."""
    alice = await bench.user("alice")
    elsewhere = await bench.login("alice")
    _, fresh = await bench.post("/api/auth/refresh", {"refreshToken": alice.refresh_token})
    async with bench.socket(alice) as here, bench.socket(elsewhere) as there:
        status, body = await bench.post("/api/auth/refresh", {"refreshToken": alice.refresh_token})
        assert (status, body["code"]) == (401, "refresh-reused")
        assert await here.close_code() == 4401
        await there.send({"type": "typing", "recipientId": "nobody"})
        assert (await there.receive())["type"] == "error"
    status, body = await bench.post("/api/auth/refresh", {"refreshToken": fresh["refreshToken"]})
    assert (status, body["code"]) == (401, "session-revoked")
    for token in (alice.access_token, fresh["accessToken"]):
        status, body = await bench.get("/api/turn/credentials", token=token)
        assert (status, body["code"]) == (401, "session-revoked")
    assert (await bench.post("/api/auth/refresh", {"refreshToken": elsewhere.refresh_token}))[0] == 200


async def test_two_refreshes_at_once(bench: Bench) -> None:
    """Of two bearers of one refresh token at the same moment one wins, and the session is revoked."""
    alice = await bench.user("alice")
    spend = {"refreshToken": alice.refresh_token}
    answers = await asyncio.gather(*(bench.post("/api/auth/refresh", spend) for _ in range(4)))
    assert sorted(status for status, _ in answers) == [200, 401, 401, 401]
    (winner,) = [body for status, body in answers if status == 200]
    status, body = await bench.get("/api/turn/credentials", token=winner["accessToken"])
    assert (status, body["code"]) == (401, "session-revoked")


async def test_refresh_tokens_expire(bench: Bench) -> None:
    """A session that is not refreshed in time ends; the answer says since when."""
    alice = await bench.user("alice")
    bench.clock.advance(30 * 24 * 3600 + 5)
    status, body = await bench.post("/api/auth/refresh", {"refreshToken": alice.refresh_token})
    assert (status, body["code"]) == (401, "refresh-expired")
    assert "5 s ago" in body["message"]


async def test_refresh_tokens_that_are_none(bench: Bench) -> None:
    """A refresh token that nobody issued is refused."""
    for token in ["", "x", "x" * 10_000, "\U0001f600"]:
        status, body = await bench.post("/api/auth/refresh", {"refreshToken": token})
        assert (status, body["code"]) == (401, "refresh-invalid")


async def test_logout_with_the_refresh_token(bench: Bench) -> None:
    """Who has only the refresh token left can log out with it."""
    alice = await bench.user("alice")
    bench.clock.advance(3600)
    status, body = await bench.post("/api/auth/logout", token=alice.access_token)
    assert (status, body["code"]) == (401, "token-expired")
    async with bench.socket(await bench.login("alice")):
        spend = {"refreshToken": alice.refresh_token}
        assert (await bench.post("/api/auth/logout", spend))[0] == 204
        status, body = await bench.post("/api/auth/refresh", spend)
        assert (status, body["code"]) == (401, "session-revoked")


async def test_logout_needs_to_know_whom(bench: Bench) -> None:
    """A logout without any token is refused."""
    status, body = await bench.post("/api/auth/logout")
    assert (status, body["code"]) == (401, "token-missing")
    status, body = await bench.post("/api/auth/logout", {"refreshToken": "made up"})
    assert (status, body["code"]) == (401, "refresh-invalid")


async def test_sessions_of_a_user_are_bounded(bench: Bench) -> None:
    """Beyond the limit a login ends the user's oldest session."""
    alice = await bench.user("alice")
    newest = alice
    for _ in range(MAX_SESSIONS_PER_USER):
        grant = await bench.parts.sessions.open("alice")
        bench.clock.advance(0.01)
    assert await bench.parts.sessions.is_live(grant.session_id)
    status, body = await bench.get("/api/turn/credentials", token=newest.access_token)
    assert (status, body["code"]) == (401, "session-revoked")


async def test_expired_sessions_are_forgotten(bench: Bench) -> None:
    """A login removes what is left of the user's expired sessions."""
    alice = await bench.user("alice")
    await bench.post("/api/auth/refresh", {"refreshToken": alice.refresh_token})
    bench.clock.advance(31 * 24 * 3600)
    await bench.login("alice")
    async with bench.parts.database.session() as session:
        for table in ("sessions", "refresh_tokens"):
            assert (await session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one() == 1


async def test_accounts_outlive_the_service(tmp_path: Path) -> None:
    """With a database of their own, accounts and sessions are there after a restart."""
    settings = {"database": tmp_path / "accounts.sqlite", "jwt_secret": "j" * 32}
    async with running(**settings) as bench:
        alice = await bench.user("alice")
    async with running(**settings) as bench:
        assert (await bench.get("/api/turn/credentials", token=alice.access_token))[0] == 200
        await bench.login("alice")
        async with bench.socket(alice) as of_alice:
            await of_alice.send({"type": "typing", "recipientId": "alice"})
            assert (await of_alice.receive())["code"] == "recipient-offline"


@pytest.mark.parametrize("trouble", ["folder missing", "no database", "another schema"])
async def test_databases_that_cannot_be_used(tmp_path: Path, trouble: str) -> None:
    """A database that cannot be opened, or is somebody else's, is refused by its name and left as it is."""
    path = tmp_path / "accounts.sqlite"
    if trouble == "folder missing":
        path = tmp_path / "missing" / "accounts.sqlite"
    elif trouble == "no database":
        path.write_bytes(b"The quick brown fox jumps over the lazy dog." * 100)
    else:
        async with Database(path) as database, database.session() as session, session.begin():
            await session.execute(text("PRAGMA user_version = 99"))
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(ServiceError, match=r"accounts\.sqlite"):
        async with Database(path):
            pass
    assert (path.read_bytes() if path.exists() else None) == before


async def test_a_database_serves_one_service(tmp_path: Path) -> None:
    """A second service on the same database is refused; the file is for its owner alone."""
    path = tmp_path / "accounts.sqlite"
    async with Database(path):
        assert path.stat().st_mode & 0o077 == 0
        with pytest.raises(ServiceError, match="locked"):
            async with Database(path):
                pass
    async with Database(path):
        pass


async def test_temporary_database_is_removed() -> None:
    """Without a path the accounts live in a folder that is gone after the service."""
    database = Database(ServiceConfig.for_loopback().database)
    async with database:
        folder = database._temporary
        assert folder is not None
        assert (folder / "calllab.sqlite").exists()
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()
