"""The REST client against the real service."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from calllab.errors import AuthenticationError, ServiceUnavailable, SignalingError
from calllab.protocol.turn_credentials import expiry_of, verify_credentials
from calllab.signaling import ServiceSession, TurnApi, ice_server
from calllab_server import Service, ServiceConfig
from tests.signaling.helpers import PASSWORD, logged_in


@pytest.fixture
async def brief() -> AsyncIterator[Service]:
    """A service whose access tokens live for one second."""
    config = ServiceConfig.for_loopback(cheap_passwords=True, access_ttl_s=1)
    async with Service(config) as service:
        yield service


def expired(session: ServiceSession) -> ServiceSession:
    """Make a session hold an access token that the service refuses."""
    assert session._tokens is not None
    session._tokens = type(session._tokens)("not a token", session._tokens.refresh_token, 1)
    return session


async def test_register_log_in_and_fetch_credentials(service: Service) -> None:
    """A new user gets TURN credentials that the service's own secret vouches for."""
    async with logged_in(service.http_url, "alice") as session:
        assert session.user_id == "alice"
        credentials = await TurnApi(session).get_credentials()
    assert credentials.uris == (service.turn_uri,)
    expiry = expiry_of(credentials.username)
    assert expiry is not None
    assert abs(expiry - time.time() - credentials.ttl) < 60
    secret = service.config.turn_secret
    checked = verify_credentials(secret, credentials.username, credentials.password, now=time.time())
    assert checked == "valid"
    assert ice_server(credentials) == {
        "urls": [service.turn_uri],
        "username": credentials.username,
        "credential": credentials.password,
    }


async def test_each_fetch_gives_credentials_of_its_own_moment(service: Service) -> None:
    """Nothing is cached: after a change of user the credentials are the new user's."""
    async with logged_in(service.http_url, "alice") as session:
        api = TurnApi(session)
        assert (await api.get_credentials()).username.endswith(":alice")
        await session.register("bob", PASSWORD)
        await session.login("bob", PASSWORD)
        assert (await api.get_credentials()).username.endswith(":bob")


async def test_wrong_passwords_and_taken_names_say_so(service: Service) -> None:
    """The service's own code and words are in the error."""
    async with ServiceSession(service.http_url) as session:
        await session.register("alice", PASSWORD)
        with pytest.raises(SignalingError, match="username-taken"):
            await session.register("alice", PASSWORD)
        with pytest.raises(AuthenticationError, match="wrong-credentials"):
            await session.login("alice", "some other password")
        with pytest.raises(AuthenticationError, match="nobody is logged in"):
            await session.fetch_with_auth("GET", "/api/turn/credentials")
        with pytest.raises(AuthenticationError, match="nobody is logged in"):
            _ = session.user_id


async def test_an_invite_is_asked_for_and_passed_on() -> None:
    """Where registration needs an invite, only the right one will do."""
    config = ServiceConfig.for_loopback(cheap_passwords=True, invite="come in, come in")
    async with Service(config) as service, ServiceSession(service.http_url) as session:
        with pytest.raises(AuthenticationError, match="invite-required"):
            await session.register("alice", PASSWORD)
        await session.register("alice", PASSWORD, invite="come in, come in")
        await session.login("alice", PASSWORD)


async def test_a_refused_token_is_refreshed_once_for_all_callers(service: Service) -> None:
    """Twenty requests at once with a stale token cost one refresh, and all succeed."""
    async with logged_in(service.http_url, "alice") as session:
        refreshes = _count_refreshes(session)
        expired(session)
        responses = await asyncio.gather(
            *(session.fetch_with_auth("GET", "/api/turn/credentials") for _ in range(20))
        )
        assert [response.status for response in responses] == [200] * 20
        assert refreshes() == 1
        # Rotating refresh tokens: a second refresh would have revoked the session.
        assert (await session.fetch_with_auth("GET", "/api/turn/credentials")).ok
        assert refreshes() == 1


def _count_refreshes(session: ServiceSession) -> Callable[[], int]:
    count = 0
    original = session._refresh

    async def counted() -> None:
        nonlocal count
        count += 1
        await original()

    session._refresh = counted  # type: ignore[method-assign]
    return lambda: count


async def test_an_expired_token_is_replaced_without_a_word(brief: Service) -> None:
    """A token that has run out on the service's clock is refreshed in passing."""
    async with logged_in(brief.http_url, "alice") as session:
        first = session.access_token
        async with asyncio.timeout(10):
            while session.access_token == first:
                assert (await session.fetch_with_auth("GET", "/api/turn/credentials")).ok
                await asyncio.sleep(0.05)


async def test_a_cancelled_caller_does_not_spoil_the_refresh_for_the_others(service: Service) -> None:
    """The refresh goes on for those who still wait for it."""
    async with logged_in(service.http_url, "alice") as session:
        expired(session)
        first = asyncio.create_task(session.refresh())
        second = asyncio.create_task(session.refresh())
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert (await session.fetch_with_auth("GET", "/api/turn/credentials")).ok
        assert first.cancelled()


async def test_an_ended_session_asks_for_a_new_login(service: Service) -> None:
    """After a logout elsewhere the next request says to log in again, for each caller, and a login helps."""
    async with logged_in(service.http_url, "alice") as session:
        response = await session.fetch_with_auth("POST", "/api/auth/logout")
        assert response.ok
        results = await asyncio.gather(
            *(session.fetch_with_auth("GET", "/api/turn/credentials") for _ in range(3)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [AuthenticationError] * 3
        assert "log in again" in str(results[0])
        await session.login("alice", PASSWORD)
        assert (await session.fetch_with_auth("GET", "/api/turn/credentials")).ok


async def test_logout_ends_the_session_even_with_an_expired_token(service: Service) -> None:
    """The refresh token alone is enough, it is worth nothing afterwards, and a second logout is nothing."""
    async with logged_in(service.http_url, "alice") as session, ServiceSession(service.http_url) as thief:
        thief._tokens, thief._user_id = expired(session)._tokens, "alice"
        await session.logout()
        await session.logout()
        with pytest.raises(AuthenticationError, match="nobody is logged in"):
            _ = session.access_token
        with pytest.raises(AuthenticationError, match="log in again"):
            await thief.refresh()


async def test_a_service_that_is_not_there_is_named() -> None:
    """A refused connection says where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with ServiceSession(url) as session:
            with pytest.raises(ServiceUnavailable, match=url):
                await session.login("alice", PASSWORD)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://example.org", "http://", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """A base URL has a scheme and a host."""
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        ServiceSession(url)


@pytest.mark.parametrize("path", ["api", "//example.org/", "http://example.org/"])
async def test_tokens_go_to_the_service_alone(service: Service, path: str) -> None:
    """What is not a path on the service is never requested."""
    async with logged_in(service.http_url, "alice") as session:
        with pytest.raises(ValueError, match="not a path"):
            await session.fetch_with_auth("GET", path)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def impostor() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Servers that are no calllab service: one handler answers everything."""
    servers: list[TestServer] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return str(server.make_url("")).rstrip("/")

    yield start
    for server in servers:
        await server.close()


Impostor = Callable[[Handler], Awaitable[str]]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"accessToken":1}', b"[" * 100_000, b"\xff", b"x" * (2 << 20)]
)
async def test_answers_of_something_else_are_no_tokens(impostor: Impostor, body: bytes) -> None:
    """Whatever answers with 200, only tokens log in."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with ServiceSession(await impostor(answer)) as session:
        with pytest.raises(ServiceUnavailable):
            await session.login("alice", PASSWORD)


async def test_a_redirect_is_not_followed(impostor: Impostor) -> None:
    """A password or token is not carried to wherever a redirect points."""
    paths: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        paths.append(request.path)
        raise web.HTTPTemporaryRedirect("/elsewhere")

    async with ServiceSession(await impostor(answer)) as session:
        with pytest.raises(SignalingError, match="307"):
            await session.login("alice", PASSWORD)
    assert paths == ["/api/auth/login"]


async def test_server_errors_and_limits_say_when_to_come_back(impostor: Impostor) -> None:
    """500 and 429 are ServiceUnavailable; Retry-After is passed on."""
    statuses = iter((503, 500, 429))

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(
            {"code": "busy", "message": "too much to do"},
            status=next(statuses),
            headers={"Retry-After": "7"},
        )

    async with ServiceSession(await impostor(answer)) as session:
        for _ in range(3):
            with pytest.raises(ServiceUnavailable, match="busy: too much to do") as caught:
                await session.login("alice", PASSWORD)
            assert caught.value.retry_after_s == 7.0


async def test_a_silent_server_does_not_hold_anyone_up(impostor: Impostor) -> None:
    """A request ends after the session's limit."""
    release = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    async with ServiceSession(await impostor(answer), timeout_s=0.05) as session:
        with pytest.raises(ServiceUnavailable, match=r"0\.05 s"):
            await session.login("alice", PASSWORD)
    release.set()


async def test_a_refresh_that_fails_for_the_moment_keeps_the_session(impostor: Impostor) -> None:
    """When the service cannot be asked, the session is not given up."""
    is_down = True

    async def answer(request: web.Request) -> web.Response:
        tokens = {"accessToken": "a", "refreshToken": "r", "expiresIn": 1}
        if request.path == "/api/auth/login":
            return web.json_response(tokens)
        if request.path == "/api/auth/refresh":
            return web.Response(status=503) if is_down else web.json_response({**tokens, "accessToken": "b"})
        return web.Response(status=200 if request.headers["Authorization"] == "Bearer b" else 401)

    async with ServiceSession(await impostor(answer)) as session:
        await session.login("alice", PASSWORD)
        with pytest.raises(ServiceUnavailable):
            await session.fetch_with_auth("GET", "/x")
        is_down = False
        assert (await session.fetch_with_auth("GET", "/x")).ok


async def test_a_fresh_token_that_is_refused_is_not_refreshed_for_ever(impostor: Impostor) -> None:
    """Two refusals in a row end in an error, not in a loop."""
    requests: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        requests.append(request.path)
        if request.path.startswith("/api/auth/"):
            return web.json_response(
                {"accessToken": f"t{len(requests)}", "refreshToken": "r", "expiresIn": 1}
            )
        return web.Response(status=401)

    async with ServiceSession(await impostor(answer)) as session:
        await session.login("alice", PASSWORD)
        with pytest.raises(AuthenticationError, match="log in again"):
            await session.fetch_with_auth("GET", "/x")
    assert requests == ["/api/auth/login", "/x", "/api/auth/refresh", "/x"]


async def test_a_late_refusal_of_an_old_token_costs_no_second_refresh(impostor: Impostor) -> None:
    """A 401 that arrives when others have refreshed already is answered with the token they got."""
    late = asyncio.Event()
    refreshes = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal refreshes
        if request.path == "/late":
            await late.wait()
        refreshes += request.path == "/api/auth/refresh"
        if request.path.startswith("/api/auth/"):
            return web.json_response({"accessToken": f"t{refreshes}", "refreshToken": "r", "expiresIn": 1})
        return web.Response(status=401 if request.headers["Authorization"] == "Bearer t0" else 200)

    async with ServiceSession(await impostor(answer)) as session:
        await session.login("alice", PASSWORD)
        slow = asyncio.create_task(session.fetch_with_auth("GET", "/late"))
        await asyncio.sleep(0)
        assert (await session.fetch_with_auth("GET", "/x")).ok
        late.set()
        assert (await slow).ok
    assert refreshes == 1


async def test_a_login_during_a_refresh_wins(impostor: Impostor) -> None:
    """The answer to an overtaken refresh does not bring the old user back."""
    refreshing, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/api/auth/refresh":
            refreshing.set()
            await go_on.wait()
            return web.json_response({"accessToken": "old", "refreshToken": "r", "expiresIn": 1})
        name = (await request.json())["username"]
        return web.json_response({"accessToken": name, "refreshToken": "r", "expiresIn": 1})

    async with ServiceSession(await impostor(answer)) as session:
        await session.login("alice", PASSWORD)
        task = asyncio.create_task(session.refresh())
        await refreshing.wait()
        await session.login("bob", PASSWORD)
        go_on.set()
        await task
        assert (session.user_id, session.access_token) == ("bob", "bob")


async def test_closing_in_the_middle_of_a_refresh_leaves_nothing(impostor: Impostor) -> None:
    """close() ends what is under way, and may be called again."""
    refreshing, never = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/api/auth/refresh":
            refreshing.set()
            await never.wait()
        return web.json_response({"accessToken": "a", "refreshToken": "r", "expiresIn": 1})

    session = ServiceSession(await impostor(answer))
    await session.login("alice", PASSWORD)
    task = asyncio.create_task(session.refresh())
    await refreshing.wait()
    await session.close()
    await session.close()
    with pytest.raises(asyncio.CancelledError):
        await task
    never.set()
