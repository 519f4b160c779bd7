"""The channel through the real service, over a network that fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Self

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from calllab.errors import AuthenticationError, ChannelClosed, ServiceUnavailable, SignalingError, WireError
from calllab.signaling import (
    BackoffSettings,
    ChannelState,
    FaultyChannel,
    RelayChannel,
    RelayChannelSettings,
    ServiceSession,
)
from calllab_server import Service, ServiceConfig
from tests.signaling.helpers import MS, PASSWORD, StateLog, Wire, logged_in, typing

QUICK = RelayChannelSettings(
    heartbeat_s=5, backoff=BackoffSettings(first_s=10 * MS, cap_s=40 * MS), give_up_after_s=5
)


@pytest.fixture
async def wire(service: Service) -> AsyncIterator[Wire]:
    async with Wire(service.http_url) as wire:
        yield wire


class Users:
    """Registers, logs in and connects users for as long as the context lasts.

    A user who is ``wired`` reaches the service over a network that can fail.
    """

    def __init__(self, service: Service, wire: Wire | None = None) -> None:
        self._service = service
        self._wire = wire
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def connect(
        self, name: str, *, wired: bool = False, settings: RelayChannelSettings = QUICK
    ) -> RelayChannel:
        """Return a new user's channel."""
        url = self._wire.url if wired and self._wire else self._service.http_url
        session = await self._stack.enter_async_context(logged_in(url, name))
        channel = await RelayChannel.open(session, settings=settings, entropy=random.Random(name))
        return await self._stack.enter_async_context(channel)


async def receive(channel: RelayChannel | FaultyChannel) -> dict[str, object]:
    async with asyncio.timeout(5):
        return await channel.receive()


async def test_messages_pass_through_the_service(service: Service) -> None:
    """What is sent arrives signed and in order; errors and wrong messages are told."""
    async with Users(service) as users:
        alice, bob = await users.connect("alice"), await users.connect("bob")
        for n in range(50):
            await alice.send(typing("bob", id=str(n)))
        got = [await receive(bob) for _ in range(50)]
        assert [message["id"] for message in got] == [str(n) for n in range(50)]
        assert {(message["senderId"], message["senderDevice"]) for message in got} == {
            ("alice", alice.device_id)
        }
        await alice.send(typing("nobody"))
        assert (await receive(alice))["code"] == "recipient-unknown"
        with pytest.raises(WireError):
            await alice.send(typing("bob", senderId="carol"))


async def test_the_largest_message_passes_with_what_the_relay_adds(service: Service) -> None:
    """A frame of exactly 64 KiB is delivered; one byte more is refused before it is sent."""
    async with Users(service) as users:
        alice, bob = await users.connect("alice"), await users.connect("bob")
        message = {"type": "message", "recipientId": "bob", "id": "x", "encryptedContent": ""}
        room = 65536 - len('{"type":"message","recipientId":"bob","id":"x","encryptedContent":""}')
        await alice.send({**message, "encryptedContent": "é" * (room // 2) + "x" * (room % 2)})
        assert len(str((await receive(bob))["encryptedContent"])) == room // 2 + room % 2
        with pytest.raises(WireError, match="65537"):
            await alice.send({**message, "encryptedContent": "x" * (room + 1)})


async def test_a_cut_connection_is_made_anew(service: Service, wire: Wire) -> None:
    """The state goes over reconnecting to connected, the device stays, and messages pass again."""
    async with Users(service, wire) as users:
        alice, bob = await users.connect("alice"), await users.connect("bob", wired=True)
        log = StateLog(bob)
        device = bob.device_id
        wire.cut()
        change = await log.until(ChannelState.RECONNECTING)
        assert change.attempt == 1
        assert 0 < change.retry_in_s <= 10 * MS
        await log.until(ChannelState.CONNECTED)
        await alice.send(typing("bob", id="after"))
        got = await receive(bob)
        assert got["id"] == "after"
        assert bob.device_id == device
        await bob.send(typing("alice", recipientDevice=alice.device_id))
        assert (await receive(alice))["senderDevice"] == device


async def test_messages_sent_while_reconnecting_wait_their_turn(service: Service, wire: Wire) -> None:
    """They arrive in order, each once, when the connection is back; each attempt that fails is told."""
    async with Users(service, wire) as users:
        alice, bob = await users.connect("alice"), await users.connect("bob", wired=True)
        log = StateLog(bob)
        wire.is_blocked = True
        wire.cut()
        await log.until(ChannelState.RECONNECTING)
        sending = [asyncio.create_task(bob.send(typing("alice", id=str(n)))) for n in range(10)]
        third = await log.until(ChannelState.RECONNECTING, 3)
        assert third.attempt == 3
        assert "127.0.0.1" in third.reason
        assert not any(task.done() for task in sending)
        wire.is_blocked = False
        await asyncio.gather(*sending)
        assert [(await receive(alice))["id"] for _ in range(10)] == [str(n) for n in range(10)]


async def test_a_message_that_waits_too_long_is_not_sent(service: Service, wire: Wire) -> None:
    """After the limit send() raises, and the message does not come later."""
    async with Users(service, wire) as users:
        settings = RelayChannelSettings(send_timeout_s=30 * MS, backoff=QUICK.backoff)
        alice, bob = await users.connect("alice"), await users.connect("bob", wired=True, settings=settings)
        log = StateLog(bob)
        wire.is_blocked = True
        wire.cut()
        await log.until(ChannelState.RECONNECTING)
        with pytest.raises(ServiceUnavailable, match="was not sent"):
            await bob.send(typing("alice", id="late"))
        wire.is_blocked = False
        await log.until(ChannelState.CONNECTED)
        await bob.send(typing("alice", id="next"))
        assert (await receive(alice))["id"] == "next"


async def test_a_dead_path_is_noticed_by_its_silence(service: Service, wire: Wire) -> None:
    """A network that swallows everything without a word costs the heartbeat, then a new connection."""
    async with Users(service, wire) as users:
        settings = RelayChannelSettings(heartbeat_s=0.2, backoff=QUICK.backoff)
        bob = await users.connect("bob", wired=True, settings=settings)
        log = StateLog(bob)
        wire.freeze()
        change = await log.until(ChannelState.RECONNECTING)
        assert change.reason
        wire.cut()
        wire.thaw()
        await log.until(ChannelState.CONNECTED)


async def test_it_gives_up_at_last(service: Service, wire: Wire) -> None:
    """When the service stays away, the channel closes and says for how long it tried."""
    async with Users(service, wire) as users:
        settings = RelayChannelSettings(give_up_after_s=0.1, backoff=QUICK.backoff)
        bob = await users.connect("bob", wired=True, settings=settings)
        wire.is_blocked = True
        wire.cut()
        with pytest.raises(ChannelClosed, match=r"stayed away for 0\.1 s") as caught:
            await receive(bob)
        assert caught.value.code is None
        assert bob.state is ChannelState.CLOSED
        with pytest.raises(ChannelClosed):
            await bob.send(typing("alice"))


async def test_logout_closes_the_channel_for_good(service: Service) -> None:
    """4401 is not retried; the error says to log in again."""
    async with (
        logged_in(service.http_url, "alice") as session,
        await RelayChannel.open(session, settings=QUICK) as channel,
    ):
        log = StateLog(channel)
        await session.logout()
        with pytest.raises(ChannelClosed, match="log in again") as caught:
            await receive(channel)
        assert caught.value.code == 4401
        assert log.states == [ChannelState.CLOSED]


async def test_a_newer_channel_of_the_device_takes_over(service: Service) -> None:
    """4409 is not retried, so that two channels of one device do not throw each other out for ever."""
    async with logged_in(service.http_url, "alice") as session:
        older = await RelayChannel.open(session, device_id="phone", settings=QUICK)
        newer = await RelayChannel.open(session, device_id="phone", settings=QUICK)
        with pytest.raises(ChannelClosed, match="device") as caught:
            await receive(older)
        assert caught.value.code == 4409
        assert newer.state is ChannelState.CONNECTED
        await older.close()
        await newer.close()


async def test_a_restarted_service_is_found_again(
    unused_tcp_port: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A shutdown (1001) leads to reconnecting; with the same accounts and secrets the channel comes back."""
    config = ServiceConfig.for_loopback(
        cheap_passwords=True,
        port=unused_tcp_port,
        database=tmp_path_factory.mktemp("service") / "accounts.db",
    )
    async with AsyncExitStack() as stack:
        async with Service(config) as service:
            session = await stack.enter_async_context(logged_in(service.http_url, "alice"))
            channel = await stack.enter_async_context(await RelayChannel.open(session, settings=QUICK))
            log = StateLog(channel)
        change = await log.until(ChannelState.RECONNECTING)
        assert change.code == 1001
        async with Service(config):
            await log.until(ChannelState.CONNECTED)
            await channel.send(typing("alice", recipientDevice=channel.device_id))
            assert (await receive(channel))["senderId"] == "alice"
            await channel.close()


async def test_an_expired_token_does_not_stop_a_reconnect(service: Service, wire: Wire) -> None:
    """The token is refreshed on the way; a session that has ended closes the channel with 4401."""
    async with (
        logged_in(wire.url, "alice") as session,
        await RelayChannel.open(session, settings=QUICK) as channel,
    ):
        log = StateLog(channel)
        assert session._tokens is not None
        stale = type(session._tokens)("stale", session._tokens.refresh_token, 1)
        session._tokens = stale
        wire.cut()
        await log.until(ChannelState.CONNECTED)
        assert session.access_token != "stale"
        session._tokens = type(stale)("stale", "spent", 1)
        wire.cut()
        with pytest.raises(ChannelClosed, match="log in again") as caught:
            await receive(channel)
        assert caught.value.code == 4401


async def test_a_channel_stays_with_its_user(service: Service, wire: Wire) -> None:
    """If the session logs in somebody else, a lost connection is not made anew in that name."""
    async with (
        logged_in(wire.url, "alice") as session,
        await RelayChannel.open(session, settings=QUICK) as channel,
    ):
        await session.register("bob", PASSWORD)
        await session.login("bob", PASSWORD)
        wire.cut()
        with pytest.raises(ChannelClosed, match="bob's by now"):
            await receive(channel)


async def test_opening_fails_at_once_and_says_why(service: Service, unused_tcp_port: int) -> None:
    """Nobody logged in, a device id that is none, a service that is not there: each is its own error."""
    async with ServiceSession(service.http_url) as nobody:
        with pytest.raises(AuthenticationError, match="nobody is logged in"):
            await RelayChannel.open(nobody)
    async with logged_in(service.http_url, "alice") as session:
        with pytest.raises(ValueError, match="a phone"):
            await RelayChannel.open(session, device_id="a phone")
        session.base_url = f"http://127.0.0.1:{unused_tcp_port}"
        with pytest.raises(ServiceUnavailable):
            await RelayChannel.open(session)
        session.base_url = f"{service.http_url}/nowhere"
        with pytest.raises(SignalingError, match="404"):
            await RelayChannel.open(session)


async def test_closing_is_quiet_and_final(service: Service) -> None:
    """Iteration ends, the relay sees the user leave, a second close() is nothing."""
    async with Users(service) as users:
        alice, bob = await users.connect("alice"), await users.connect("bob")
        log = StateLog(bob)
        got = asyncio.Event()

        async def read() -> None:
            async for _ in bob:
                got.set()

        reading = asyncio.create_task(read())
        await alice.send(typing("bob"))
        await got.wait()
        await asyncio.gather(bob.close(), bob.close())
        await bob.close()
        await reading
        assert log.states == [ChannelState.CLOSED]
        # The relay may take a moment to see the socket's end.
        answer = asyncio.create_task(receive(alice))
        while not answer.done():
            await alice.send(typing("bob"))
            await asyncio.sleep(10 * MS)
        assert (await answer)["code"] == "recipient-offline"


async def test_closing_while_reconnecting_leaves_nothing(service: Service, wire: Wire) -> None:
    """close() ends the attempts and the messages that wait for them."""
    async with Users(service, wire) as users:
        bob = await users.connect("bob", wired=True)
        log = StateLog(bob)
        wire.is_blocked = True
        wire.cut()
        await log.until(ChannelState.RECONNECTING, 2)
        sending = asyncio.create_task(bob.send(typing("alice")))
        await asyncio.sleep(0)
        await bob.close()
        with pytest.raises(ChannelClosed):
            await sending


async def test_a_channel_that_nobody_reads_ends_with_a_sentence(service: Service) -> None:
    """Messages are not gathered for ever."""
    async with Users(service) as users:
        settings = RelayChannelSettings(inbox_messages=20, backoff=QUICK.backoff)
        alice, bob = await users.connect("alice"), await users.connect("bob", settings=settings)
        log = StateLog(bob)
        for _ in range(30):
            await alice.send(typing("bob"))
        change = await log.until(ChannelState.CLOSED)
        assert "nobody received" in change.reason


async def test_faults_work_on_the_real_channel_too(service: Service) -> None:
    """A held offer leaves through the service when it is released."""
    async with Users(service) as users:
        alice, bob = await users.connect("alice"), await users.connect("bob")
        async with FaultyChannel(alice) as faulty:
            with faulty.hold("call-offer") as hold:
                await faulty.send(
                    {"type": "call-offer", "recipientId": "bob", "callId": "c", "sdp": "v=0\r\n"}
                )
                await hold.arrived()
                await bob.send(typing("alice"))
                assert (await receive(faulty))["senderId"] == "bob"
            assert (await receive(bob))["type"] == "call-offer"


async def test_a_relay_that_talks_nonsense_is_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    """Frames that are no messages are logged and left out; the channel goes on."""

    async def tokens(request: web.Request) -> web.Response:
        return web.json_response({"accessToken": "a", "refreshToken": "r", "expiresIn": 60})

    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for text in ("nonsense", "[]", "{}", '{"type":7}', "[" * 50_000):
            await socket.send_str(text)
        await socket.send_bytes(b"binary")
        await socket.send_str('{"type":"typing","senderId":"bob","recipientId":"alice"}')
        async for _ in socket:
            pass
        return socket

    app = web.Application()
    app.router.add_post("/api/auth/login", tokens)
    app.router.add_get("/ws", talk)
    async with TestServer(app) as server, ServiceSession(str(server.make_url("")).rstrip("/")) as session:
        await session.login("alice", PASSWORD)
        async with await RelayChannel.open(session, settings=QUICK) as channel:
            assert (await receive(channel))["senderId"] == "bob"
    assert caplog.text.count("the relay sent") == 6


async def test_the_relay_hears_exactly_one_connection_per_channel(service: Service, wire: Wire) -> None:
    """After many cuts there is still one socket, and each message arrives once."""
    async with Users(service, wire) as users:
        alice, bob = await users.connect("alice"), await users.connect("bob", wired=True)
        log = StateLog(bob)
        for n in range(1, 6):
            wire.cut()
            await log.until(ChannelState.CONNECTED, n)
        await alice.send(typing("bob", id="one"))
        await alice.send(typing("bob", id="two"))
        assert [(await receive(bob))["id"] for _ in range(2)] == ["one", "two"]


async def test_an_interrupted_channel_comes_back_when_it_may(service: Service) -> None:
    """Its TCP connection is really gone until it is resumed; then it reconnects by itself, and sends on."""
    async with Users(service) as users:
        alice, bob = await users.connect("alice"), await users.connect("bob")
        log = StateLog(alice)
        alice.interrupt("a cable is pulled")
        assert (await log.until(ChannelState.RECONNECTING)).reason == "a cable is pulled"
        async with asyncio.timeout(5):
            while True:
                await bob.send(typing("alice"))
                if (await receive(bob)).get("code") == "recipient-offline":
                    break
        waiting = asyncio.create_task(alice.send(typing("bob", id="sent meanwhile")))
        await asyncio.sleep(100 * MS)
        assert not waiting.done()
        alice.resume()
        await log.until(ChannelState.CONNECTED)
        await waiting
        assert (await receive(bob))["id"] == "sent meanwhile"
        alice.interrupt()
        alice.resume()
        await log.until(ChannelState.CONNECTED, 2)


async def test_an_interrupted_channel_can_be_closed(service: Service) -> None:
    """Closing does not wait for a resume; afterwards neither does anything."""
    async with Users(service) as users:
        alice = await users.connect("alice")
        alice.interrupt()
        await alice.close()
        assert alice.state is ChannelState.CLOSED
        alice.interrupt()
        alice.resume()
        assert alice.state is ChannelState.CLOSED


async def test_a_channel_closed_at_once_lets_go_of_its_socket(service: Service) -> None:
    """A close right after the opening, before the channel's task has run, ends the connection too."""
    async with Users(service) as users:
        bob = await users.connect("bob")
        alice = await users.connect("alice")
        await alice.close()
        async with asyncio.timeout(5):
            while True:
                await bob.send(typing("alice"))
                if (await receive(bob)).get("code") == "recipient-offline":
                    break
