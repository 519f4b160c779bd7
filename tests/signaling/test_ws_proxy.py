"""The proxy before the real service: as the relay to its clients, but for the faults."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from socket import SHUT_RDWR
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from calllab.errors import AuthenticationError, ChannelClosed, InvalidSetting, LabError
from calllab.protocol.wire import MAX_FRAME_BYTES, SUBPROTOCOL
from calllab.signaling import (
    BackoffSettings,
    ChannelState,
    RelayChannel,
    RelayChannelSettings,
    ServiceSession,
    SignalingFault,
)
from calllab.signaling.channel import Message
from calllab.signaling.ws_proxy import ProxyEvent, SignalingProxy
from calllab_server import Service
from tests.signaling.helpers import MS, StateLog, Wire, logged_in, typing

QUICK = RelayChannelSettings(
    heartbeat_s=5, backoff=BackoffSettings(first_s=5 * MS, cap_s=20 * MS), give_up_after_s=5
)


@pytest.fixture
async def proxy(service: Service) -> AsyncIterator[SignalingProxy]:
    async with SignalingProxy(service.http_url) as proxy:
        yield proxy


class Users:
    """Logged-in users with channels or raw sockets, for as long as the context lasts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._stack = AsyncExitStack()
        self.sessions: dict[str, ServiceSession] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def session(self, name: str, url: str | None = None) -> ServiceSession:
        self.sessions[name] = await self._stack.enter_async_context(logged_in(url or self.url, name))
        return self.sessions[name]

    async def channel(self, name: str, url: str | None = None) -> RelayChannel:
        """A user's channel, through the proxy unless another address is given."""
        session = await self.session(name, url)
        channel = await RelayChannel.open(session, settings=QUICK, entropy=random.Random(name))
        return await self._stack.enter_async_context(channel)

    async def socket(self, name: str, **options: Any) -> aiohttp.ClientWebSocketResponse[bool]:
        """A user's raw WebSocket, as a browser opens it: with the token as a subprotocol."""
        session = await self.session(name)
        client = await self._stack.enter_async_context(aiohttp.ClientSession())
        socket = await client.ws_connect(
            f"{self.url}/ws", protocols=(SUBPROTOCOL, f"bearer.{session.access_token}"), **options
        )
        self._stack.push_async_callback(socket.close)
        return socket


async def ids(channel: RelayChannel, count: int) -> list[str]:
    async with asyncio.timeout(5):
        return [(await channel.receive())["id"] for _ in range(count)]


async def test_clients_notice_nothing(proxy: SignalingProxy) -> None:
    """Accounts, tokens, TURN credentials and messages both ways pass; the proxy knows whose they are."""
    told: list[ProxyEvent] = []
    proxy.on_event(told.append)
    async with Users(proxy.url) as users:
        alice, bob = await users.channel("alice"), await users.channel("bob")
        for n in range(30):
            await alice.send(typing("bob", id=str(n)))
        assert await ids(bob, 30) == [str(n) for n in range(30)]
        await alice.send(typing("nobody"))
        assert (await alice.receive())["code"] == "recipient-unknown"
        credentials = await users.sessions["alice"].fetch_with_auth("GET", "/api/turn/credentials")
        assert set(credentials.json()) == {"username", "password", "ttl", "uris"}
        missing = await users.sessions["alice"].fetch_with_auth("GET", "/api/nothing")
        assert missing.status == 404
        async with ServiceSession(proxy.url) as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.login("alice", "wrong password")
        assert proxy.connections == 2
    assert [event.user_id for event in told if event.event == "connected"] == ["alice", "bob"]
    out = [event for event in told if event.event == "message" and event.direction == "out"]
    assert {(event.user_id, event.type) for event in out} == {("alice", "typing")}
    assert len(out) == 31


async def test_handshakes_are_those_of_the_relay(proxy: SignalingProxy, service: Service) -> None:
    """Subprotocols, refusals with their bodies, and unknown paths are as without the proxy."""
    async with Users(proxy.url) as users, aiohttp.ClientSession() as client:
        socket = await users.socket("alice")
        assert socket.protocol == SUBPROTOCOL
        for url in (proxy.url, service.http_url):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await client.ws_connect(f"{url}/ws", headers={"Authorization": "Bearer nonsense"})
            assert caught.value.status == 401
            handshake = {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            }
            async with client.get(f"{url}/ws", headers=handshake) as refused:
                assert (refused.status, (await refused.json())["code"]) == (401, "token-missing")
            elsewhere = {**handshake, "Origin": "https://example.org"}
            async with client.get(f"{url}/ws", headers=elsewhere) as refused:
                assert (refused.status, (await refused.json())["code"]) == (403, "origin-forbidden")
            async with client.get(f"{url}/ws?device=%00", headers=handshake) as refused:
                assert (refused.status, (await refused.json())["code"]) == (400, "bad-device")
            async with client.get(f"{url}/ws") as plain:
                assert plain.status == 401
        async with client.get(f"{proxy.url}/other", headers=handshake) as refused:
            assert (refused.status, (await refused.json())["code"]) == (404, "not-found")


async def test_a_page_of_the_proxy_is_a_page_of_the_service(proxy: SignalingProxy) -> None:
    """A browser's Origin is the proxy; the relay sees its own, and accepts it."""
    async with Users(proxy.url) as users:
        socket = await users.socket("alice", headers={"Origin": proxy.url})
        await socket.send_str('{"type":"typing","recipientId":"nobody"}')
        assert (await socket.receive_json())["code"] == "recipient-unknown"


async def test_tokens_stay_out_of_the_log(proxy: SignalingProxy, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is offered, no token is written anywhere."""
    caplog.set_level(logging.DEBUG)
    async with Users(proxy.url) as users:
        await users.socket("alice")
        token = users.sessions["alice"].access_token
        async with aiohttp.ClientSession() as client:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await client.ws_connect(f"{proxy.url}/ws", protocols=(f"bearer.{token}",))
    assert token not in caplog.text


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        (b"\x00\x01", WSMsgType.BINARY, 1003),
        (b"\xff\xfe", WSMsgType.TEXT, 1007),
        (b"x" * (MAX_FRAME_BYTES + 1), WSMsgType.TEXT, 1009),
        (b"x" * (2 * 1024 * 1024), WSMsgType.TEXT, 1009),
    ],
)
async def test_the_relay_says_what_it_thinks_of_frames(
    proxy: SignalingProxy, data: bytes, kind: WSMsgType, code: int
) -> None:
    """What the relay closes for, it closes for through the proxy, with its code."""
    async with Users(proxy.url) as users:
        socket = await users.socket("alice")
        await socket.send_frame(data, kind)
        async with asyncio.timeout(5):
            end = await socket.receive()
        assert (end.type, end.data) == (WSMsgType.CLOSE, code)


async def test_closes_pass_with_their_codes(proxy: SignalingProxy) -> None:
    """The relay's code and reason reach the client, after what the relay sent before."""
    async with Users(proxy.url) as users:
        first = await users.channel("alice")
        second = await RelayChannel.open(users.sessions["alice"], device_id=first.device_id, settings=QUICK)
        async with second:
            async with asyncio.timeout(5):
                with pytest.raises(ChannelClosed) as caught:
                    await first.receive()
            assert caught.value.code == 4409
            bob = await users.channel("bob")
            log = StateLog(bob)
            await users.sessions["bob"].logout()
            assert (await log.until(ChannelState.CLOSED)).code == 4401


async def test_a_clients_close_reaches_the_relay() -> None:
    """Its code and reason arrive, after what it sent before; pings are answered from the far end."""
    seen: list[Any] = []

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        while (message := await socket.receive()).type is not WSMsgType.CLOSED:
            seen.append((message.type, message.data, message.extra))
            if message.type is WSMsgType.PING:
                await socket.pong(b"from the far end")
            if message.type is WSMsgType.CLOSE:
                break
        return socket

    app = web.Application()
    app.router.add_get("/ws", serve)
    async with TestServer(app) as server, SignalingProxy(str(server.make_url(""))) as proxy:
        async with (
            aiohttp.ClientSession() as client,
            client.ws_connect(f"{proxy.url}/ws", autoping=False) as socket,
        ):
            await socket.ping(b"hello")
            assert (await socket.receive()).data == b"from the far end"
            await socket.send_str("last words")
            await socket.close(code=4321, message=b"enough")
        async with asyncio.timeout(5):
            while len(seen) < 3:
                await asyncio.sleep(0.01)
    assert seen == [
        (WSMsgType.PING, b"hello", ""),
        (WSMsgType.TEXT, "last words", ""),
        (WSMsgType.CLOSE, 4321, "enough"),
    ]


async def test_faults_happen_by_type_and_direction(proxy: SignalingProxy, service: Service) -> None:
    """The same planned faults as on our own channels: once, whoever is behind the proxy."""
    async with Users(proxy.url) as users:
        alice, bob = await users.channel("alice"), await users.channel("bob")
        carol = await users.channel("carol", service.http_url)
        twice = proxy.faults.plan(SignalingFault(kind="duplicate", direction="*->bob", types=("typing",)))
        lost = proxy.faults.plan(SignalingFault(kind="drop", direction="alice->bob", types=("read",)))
        await alice.send({"type": "read", "recipientId": "bob", "messageId": "m", "id": "lost"})
        await alice.send(typing("bob", id="a"))
        assert await ids(bob, 2) == ["a", "a"]
        await carol.send(typing("bob", id="c"))
        assert await ids(bob, 2) == ["c", "c"]
        await bob.send(typing("alice", id="b"))
        assert await ids(alice, 1) == ["b"]
        assert (proxy.faults.count(twice), proxy.faults.count(lost)) == (2, 1)


async def test_a_hold_keeps_and_releases(proxy: SignalingProxy) -> None:
    """What is held comes after the release, byte for byte and in order."""
    async with Users(proxy.url) as users:
        alice, bob = await users.socket("alice"), await users.channel("bob")
        hold = proxy.faults.plan(SignalingFault(kind="hold", direction="alice->bob"))
        for n in range(3):
            await alice.send_str(f'{{ "type":"typing", "recipientId":"bob", "id":"{n}" }}')
        await bob.send(typing("alice"))
        await alice.receive()
        async with asyncio.timeout(5):
            while proxy.faults.count(hold) < 3:
                await asyncio.sleep(0.01)
        proxy.faults.cancel(hold)
        assert await ids(bob, 3) == ["0", "1", "2"]


async def test_a_disconnect_is_real_and_clients_come_back(proxy: SignalingProxy) -> None:
    """The connection is cut without a close; attempts fail until the end, then the channel is back."""
    told: list[ProxyEvent] = []
    proxy.on_event(told.append)
    async with Users(proxy.url) as users:
        alice, bob = await users.channel("alice"), await users.channel("bob")
        log = StateLog(alice)
        proxy.faults.plan(SignalingFault(kind="disconnect", peer="alice", for_s=0.15))
        lost = await log.until(ChannelState.RECONNECTING)
        assert lost.code in (None, 1006)
        await bob.send(typing("alice"))
        assert (await bob.receive())["code"] == "recipient-offline"
        await log.until(ChannelState.CONNECTED)
        await bob.send(typing("alice", id="again"))
        assert await ids(alice, 1) == ["again"]
    assert "refused" in [event.event for event in told]
    assert "cut by a planned fault" in [event.detail for event in told]


async def test_messages_are_rewritten_before_they_meet_the_faults(service: Service) -> None:
    """A rewriter sees each message with its sender, changes some, and keeps some to itself."""
    seen: list[tuple[str, str]] = []

    async def rewrite(user: str, message: Message) -> Message | None:
        seen.append((user, message["type"]))
        if message["type"] == "read":
            return None
        return {**message, "id": "rewritten"} if message.get("id") == "original" else message

    async with SignalingProxy(service.http_url, rewrite=rewrite) as proxy, Users(proxy.url) as users:
        alice, bob = await users.channel("alice"), await users.channel("bob")
        await alice.send({"type": "read", "recipientId": "bob", "messageId": "m"})
        await alice.send(typing("bob", id="original"))
        await alice.send(typing("bob", id="other"))
        assert await ids(bob, 2) == ["rewritten", "other"]
    assert ("alice", "read") in seen
    assert {user for user, _ in seen} == {"alice"}


async def test_a_sender_waits_when_too_much_is_on_its_way(proxy: SignalingProxy) -> None:
    """Held messages are bounded: the proxy stops reading, and memory does not grow."""
    async with Users(proxy.url) as users:
        alice = await users.socket("alice")
        hold = proxy.faults.plan(SignalingFault(kind="hold"))
        frame = b'{"type":"message","recipientId":"nobody","encryptedContent":"%s"}' % (b"x" * 30_000)
        taken = 0
        with contextlib.suppress(TimeoutError):
            for _ in range(3000):
                async with asyncio.timeout(0.5):
                    await alice.send_frame(frame, WSMsgType.TEXT)
                taken += 1
        assert 1024 <= taken < 3000
        assert proxy.faults.count(hold) <= 1024
        proxy.faults.cancel(hold)


async def held_to_the_brim(
    proxy: SignalingProxy, alice: aiohttp.ClientWebSocketResponse[bool], bob: RelayChannel
) -> None:
    """Hold so much of Alice's that one more frame waits; then Bob's messages still reach her."""
    hold = proxy.faults.plan(SignalingFault(kind="hold", direction="alice->*"))
    for _ in range(1026):
        await alice.send_str('{"type":"typing","recipientId":"nobody"}')
    async with asyncio.timeout(5):
        while proxy.faults.count(hold) < 1024:
            await asyncio.sleep(0.01)
    assert proxy.connections == 2
    await bob.send(typing("alice", id="through"))
    assert (await alice.receive_json())["id"] == "through"


async def until_offline(proxy: SignalingProxy, bob: RelayChannel) -> None:
    """Wait until Alice's connection is gone, for the relay too."""
    async with asyncio.timeout(5):
        while proxy.connections == 2:
            await asyncio.sleep(0.01)
    await bob.send(typing("alice"))
    assert (await bob.receive())["code"] == "recipient-offline"


async def test_a_client_that_dies_while_its_direction_is_full_is_noticed(proxy: SignalingProxy) -> None:
    """Though nothing is read from it, its end is seen, and its connection to the relay ends."""
    async with Users(proxy.url) as users:
        alice, bob = await users.socket("alice"), await users.channel("bob")
        await held_to_the_brim(proxy, alice, bob)
        alice.get_extra_info("socket").shutdown(SHUT_RDWR)
        await until_offline(proxy, bob)


async def test_a_sender_that_has_to_wait_too_long_is_cut_off(
    proxy: SignalingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be dead behind a full TCP window, where its end cannot be seen."""
    monkeypatch.setattr("calllab.signaling.ws_proxy_connection._WAIT_S", 0.2)
    async with Users(proxy.url) as users:
        alice, bob = await users.socket("alice"), await users.channel("bob")
        await held_to_the_brim(proxy, alice, bob)
        await until_offline(proxy, bob)
        assert (await alice.receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR, WSMsgType.CLOSE)


async def test_a_relay_that_is_gone_is_named(service: Service) -> None:
    """Requests and handshakes are answered with 502; a relay that dies takes its connections along."""
    async with (
        Wire(service.http_url) as wire,
        SignalingProxy(wire.url) as cut_off,
        Users(cut_off.url) as users,
    ):
        log = StateLog(await users.channel("alice"))
        wire.is_blocked = True
        wire.cut()
        await log.until(ChannelState.RECONNECTING, 3)
        wire.is_blocked = False
        await log.until(ChannelState.CONNECTED)
    async with SignalingProxy("http://127.0.0.1:9") as nowhere, aiohttp.ClientSession() as client:
        async with client.post(f"{nowhere.url}/api/auth/login", json={}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (502, "relay-unreachable")
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(f"{nowhere.url}/ws")
        assert caught.value.status == 502


async def test_addresses_are_checked(proxy: SignalingProxy) -> None:
    """What is no address of a service, or a port that is taken, is named."""
    with pytest.raises(InvalidSetting, match="ftp://x"):
        SignalingProxy("ftp://x")
    with pytest.raises(LabError, match="cannot listen"):
        async with SignalingProxy(proxy.url, port=int(proxy.url.rpartition(":")[2])):
            pass
    for port in (99_999, -1):
        with pytest.raises(LabError, match=f"cannot listen on 127.0.0.1 port {port}"):
            async with SignalingProxy(proxy.url, port=port):
                pass


async def test_only_the_service_can_be_reached(proxy: SignalingProxy) -> None:
    """A request for another host, as to an open proxy, goes to the service all the same."""
    host, port = proxy.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"GET http://198.51.100.1/healthz HTTP/1.1\r\nHost: 198.51.100.1\r\nConnection: close\r\n\r\n"
    )
    async with asyncio.timeout(5):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
