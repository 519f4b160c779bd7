"""The relay through real sockets: who gets what, on which device, and how sockets end."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest
from aiohttp import WSMsgType

from calllab.protocol import RelayLimits
from tests.server.helpers import Bench, RawSocket, Socket, bystanders, eventually, running


async def test_message_arrives_with_its_sender(bench: Bench) -> None:
    """A message reaches its recipient as it was sent, with the sender's name and device added."""
    alice, bob = await bench.user("alice"), await bench.user("bob")
    async with bench.socket(alice, "laptop") as of_alice, bench.socket(bob) as of_bob:
        offer = {"type": "call-offer", "recipientId": "bob", "callId": "c1", "sdp": "v=0\r\n", "id": "m1"}
        await of_alice.send(offer)
        assert await of_bob.receive() == {**offer, "senderId": "alice", "senderDevice": "laptop"}


async def test_order_is_kept(bench: Bench) -> None:
    """Messages of one sender arrive in the order they were sent, each once."""
    alice, bob = await bench.user("alice"), await bench.user("bob")
    async with bench.socket(alice) as of_alice, bench.socket(bob) as of_bob:
        for number in range(200):
            await of_alice.send({"type": "read", "recipientId": "bob", "messageId": str(number)})
        arrived = [(await of_bob.receive())["messageId"] for _ in range(200)]
    assert arrived == [str(number) for number in range(200)]


async def test_largest_frame_is_forwarded(bench: Bench) -> None:
    """A frame of exactly 64 KiB is no byte too long."""
    alice, bob = await bench.user("alice"), await bench.user("bob")
    async with bench.socket(alice) as of_alice, bench.socket(bob) as of_bob:
        head = '{"type":"message","recipientId":"bob","encryptedContent":"'
        frame = head + "x" * (64 * 1024 - len(head) - 2) + '"}'
        assert len(frame) == 64 * 1024
        await of_alice.websocket.send_str(frame)
        assert len((await of_bob.receive())["encryptedContent"]) == 64 * 1024 - len(head) - 2


async def test_browsers_authenticate_by_subprotocol(bench: Bench) -> None:
    """The token may be offered as a subprotocol; only calllab.v1 is echoed, and frames are not compressed."""
    alice = await bench.user("alice")
    offered = ("calllab.v1", f"bearer.{alice.access_token}")
    async with bench.http.ws_connect("/ws", protocols=offered, compress=15) as websocket:
        assert websocket.protocol == "calllab.v1"
        assert not websocket.compress


async def test_all_devices_get_a_message_and_one_answers(bench: Bench) -> None:
    """A call rings on all devices of the callee; when one accepts, the others are told."""
    alice, bob = await bench.user("alice"), await bench.user("bob")
    async with (
        bench.socket(alice, "desk") as of_alice,
        bench.socket(bob, "phone") as phone,
        bench.socket(bob, "tablet") as tablet,
    ):
        await of_alice.send({"type": "call-offer", "recipientId": "bob", "callId": "c1", "sdp": "v=0"})
        assert (await phone.receive())["type"] == (await tablet.receive())["type"] == "call-offer"
        await phone.send(
            {"type": "call-accept", "recipientId": "alice", "recipientDevice": "desk", "callId": "c1"}
        )
        assert (await of_alice.receive())["senderDevice"] == "phone"
        hangup = await tablet.receive()
        assert (hangup["type"], hangup["reason"]) == ("call-hangup", "answered-elsewhere")
        await of_alice.send({"type": "typing", "recipientId": "bob", "recipientDevice": "tablet"})
        assert (await tablet.receive())["type"] == "typing"


async def test_newer_socket_of_a_device_takes_over(bench: Bench) -> None:
    """A second socket of the same device closes the first with 4409 and gets its messages."""
    alice, bob = await bench.user("alice"), await bench.user("bob")
    async with (
        bench.socket(alice) as of_alice,
        bench.socket(bob, "phone") as older,
        bench.socket(bob, "phone") as newer,
    ):
        assert await older.close_code() == 4409
        await of_alice.send({"type": "typing", "recipientId": "bob"})
        assert (await newer.receive())["type"] == "typing"


async def test_too_many_devices(bench: Bench) -> None:
    """The socket over the limit of devices is closed with 1008; the others stay."""
    async with running(limits=RelayLimits(devices_per_user=2)) as small:
        alice = await small.user("alice")
        async with small.socket(alice) as first, small.socket(alice), small.socket(alice) as third:
            assert await third.close_code() == 1008
            await first.send({"type": "typing", "recipientId": "nobody"})
            assert (await first.receive())["code"] == "recipient-unknown"


_UNDELIVERABLE: list[tuple[dict[str, str], str]] = [
    ({"type": "typing", "recipientId": "nobody"}, "recipient-unknown"),
    ({"type": "typing", "recipientId": "bob"}, "recipient-offline"),
    ({"type": "typing", "recipientId": "alice", "recipientDevice": "watch"}, "recipient-offline"),
]


async def test_undeliverable(bench: Bench) -> None:
    """What cannot be delivered now is answered at once, to the sender."""
    alice = await bench.user("alice")
    await bench.user("bob")
    async with bench.socket(alice) as of_alice:
        for message, code in _UNDELIVERABLE:
            await of_alice.send({**message, "id": "m7"})
            error = await of_alice.receive()
            assert (error["type"], error["code"], error["inReplyTo"]) == ("error", code, "m7")


async def test_gone_socket_is_offline(bench: Bench) -> None:
    """A user whose socket has closed is offline at once, and nothing is stored for them."""
    alice, bob = await bench.user("alice"), await bench.user("bob")
    async with bench.socket(alice) as of_alice:
        async with bench.socket(bob):
            await bench.count_sockets(2)
        await bench.count_sockets(1)
        await of_alice.send({"type": "typing", "recipientId": "bob"})
        assert (await of_alice.receive())["code"] == "recipient-offline"
        async with bench.socket(bob) as again:
            await of_alice.send({"type": "read", "recipientId": "bob", "messageId": "new"})
            assert (await again.receive())["messageId"] == "new"


async def test_stalled_recipient_harms_itself_alone() -> None:
    """Senders to a recipient that does not read get recipient-slow, and their other messages get through."""
    async with running(limits=RelayLimits(messages_per_s=10_000, burst=10_000)) as bench:
        alice, stalled, bob = [await bench.user(name) for name in ("alice", "stalled", "bob")]
        async with (
            bystanders(bench),
            RawSocket.connect(bench, stalled) as raw,
            bench.socket(alice) as of_alice,
            bench.socket(bob) as of_bob,
        ):
            transport = raw.writer.transport
            transport.pause_reading()
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            chunk = {"type": "message", "recipientId": "stalled", "encryptedContent": "x" * 60_000}
            refused = asyncio.ensure_future(of_alice.receive())
            sent = 0
            while not refused.done():
                await of_alice.send({**chunk, "id": str(sent)})
                sent += 1
                assert sent < 500, "30 MB for a recipient that reads nothing"
                await asyncio.sleep(0)
            assert (await refused)["code"] == "recipient-slow"
            await of_alice.send({"type": "typing", "recipientId": "bob"})
            assert (await of_bob.receive())["type"] == "typing"
            (queued,) = [c for c in bench.parts.relay._sockets if c.user_id == "stalled"]
            assert queued.queued_bytes <= bench.parts.relay.core.limits.queued_bytes
            # What was accepted arrives when the recipient reads again: whole, in order, and nothing else.
            transport.resume_reading()
            opcode, payload = await raw.receive()
            assert opcode == 1
            assert b'"id":"0"' in payload


async def test_stalled_recipient_is_cut_off_at_logout() -> None:
    """A recipient that does not read cannot keep its socket open by not taking the close frame."""
    generous = RelayLimits(messages_per_s=10_000, burst=10_000)
    async with running(limits=generous, close_timeout_s=0.3) as bench:
        alice, stalled = await bench.user("alice"), await bench.user("stalled")
        async with RawSocket.connect(bench, stalled) as raw, bench.socket(alice) as of_alice:
            raw.writer.transport.pause_reading()
            refused = asyncio.ensure_future(of_alice.receive())
            while not refused.done():
                await of_alice.send(
                    {"type": "message", "recipientId": "stalled", "encryptedContent": "x" * 60_000}
                )
                await asyncio.sleep(0)
            assert (await refused)["code"] == "recipient-slow"
            status, _ = await bench.post("/api/auth/logout", token=stalled.access_token)
            assert status == 204
            await eventually(lambda: len(bench.parts.relay._sockets) == 1)


async def test_silent_peer_is_given_up() -> None:
    """A peer that answers no ping is taken for gone."""
    async with running(heartbeat_s=0.2) as bench:
        alice = await bench.user("alice")
        async with RawSocket.connect(bench, alice) as raw:
            opcode, _ = await raw.receive()
            assert opcode == 9
            await bench.count_sockets(0)


async def test_pings_are_answered(bench: Bench) -> None:
    """A ping is answered with its own payload, also in the middle of a fragmented message."""
    alice, bob = await bench.user("alice"), await bench.user("bob")
    async with RawSocket.connect(bench, alice) as raw, bench.socket(bob) as of_bob:
        raw.send(b'{"type":"typing",', first_bits=0)
        raw.send(b"are you there", opcode=9)
        raw.send(b'"recipientId":"bob"}', opcode=0)
        assert await raw.receive() == (10, b"are you there")
        assert (await of_bob.receive())["type"] == "typing"


async def test_logout_closes_the_sessions_sockets(bench: Bench) -> None:
    """Logging out closes the sockets of that session with 4401, and of no other."""
    alice = await bench.user("alice")
    elsewhere = await bench.login("alice")
    async with bench.socket(alice) as here, bench.socket(elsewhere) as there:
        await bench.post("/api/auth/logout", token=alice.access_token)
        assert await here.close_code() == 4401
        await there.send({"type": "typing", "recipientId": "nobody"})
        assert (await there.receive())["code"] == "recipient-unknown"


async def test_socket_outlives_its_access_token(bench: Bench) -> None:
    """A socket is not closed because its access token ages."""
    alice = await bench.user("alice")
    async with bench.socket(alice) as of_alice:
        bench.clock.advance(24 * 3600)
        status, body = await bench.get("/api/turn/credentials", token=alice.access_token)
        assert (status, body["code"]) == (401, "token-expired")
        await of_alice.send({"type": "typing", "recipientId": "nobody"})
        assert (await of_alice.receive())["code"] == "recipient-unknown"


async def test_revoked_while_connecting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is revoked between the check of its token and the upgrade leaves no open socket."""
    alice = await bench.user("alice")
    authorize = bench.parts.auth.authorize

    async def revoked_right_after(token: str | None) -> object:
        claims = await authorize(token)
        await bench.parts.sessions.revoke(claims.session_id)
        return claims

    monkeypatch.setattr(bench.parts.auth, "authorize", revoked_right_after)
    async with bench.socket(alice) as of_alice:
        assert await of_alice.close_code() == 4401


async def test_database_fails_while_connecting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket whose session cannot be checked after the upgrade is closed, and is nobody's recipient."""
    alice = await bench.user("alice")
    authorize = bench.parts.auth.authorize

    async def fails_right_after(token: str | None) -> object:
        claims = await authorize(token)
        await bench.parts.database.close()
        return claims

    monkeypatch.setattr(bench.parts.auth, "authorize", fails_right_after)
    async with bench.socket(alice) as of_alice:
        assert await of_alice.close_code() == 1001
    assert bench.parts.relay.core.connections == 0


async def test_shutdown_says_so() -> None:
    """At shutdown every socket is closed with 1001, after what was sent to it before."""
    async with running() as bench:
        alice, bob = await bench.user("alice"), await bench.user("bob")
        async with bench.socket(alice) as of_alice, bench.socket(bob) as of_bob:
            await bench.count_sockets(2)
            await of_alice.send({"type": "typing", "recipientId": "bob"})
            await eventually(lambda: bench.parts.relay.core.counters.delivered == 1)
            codes = asyncio.gather(_last_and_code(of_bob), of_alice.close_code())
            await bench.server.close()
            assert await codes == [("typing", 1001), 1001]


async def _last_and_code(of_bob: Socket) -> tuple[str, int | None]:
    message = await of_bob.receive()
    return message["type"], await of_bob.close_code()


_REFUSED_HANDSHAKES: list[tuple[dict[str, str], int, str]] = [
    ({"Origin": "https://evil.example"}, 403, "origin-forbidden"),
    ({"Origin": "null"}, 403, "origin-forbidden"),
    ({"Authorization": "Basic YTpi"}, 401, "token-invalid"),
    ({"Authorization": "Bearer nonsense"}, 401, "token-invalid"),
    ({"Sec-WebSocket-Protocol": "chat"}, 400, "bad-subprotocol"),
]


async def test_refused_handshakes(bench: Bench) -> None:
    """What is wrong with a handshake is answered before the upgrade, as JSON."""
    alice = await bench.user("alice")
    for headers, status, code in _REFUSED_HANDSHAKES:
        async with bench.http.get("/ws", headers={**alice.headers, **_UPGRADE, **headers}) as response:
            assert response.status == status
            assert (await response.json())["code"] == code
    assert bench.parts.relay.core.connections == 0


async def test_bad_device_names(bench: Bench) -> None:
    """A device id that is none is refused before the upgrade."""
    alice = await bench.user("alice")
    for device in ["", "a b", "x" * 65, "é", "a/b"]:
        async with bench.http.get(
            "/ws", params={"device": device}, headers={**alice.headers, **_UPGRADE}
        ) as response:
            assert (response.status, (await response.json())["code"]) == (400, "bad-device")


async def test_token_in_the_url_is_refused(bench: Bench) -> None:
    """A token in the URL is not looked at, and the answer says where it belongs."""
    alice = await bench.user("alice")
    status, body = await bench.get(f"/ws?token={alice.access_token}")
    assert (status, body["code"]) == (401, "token-missing")
    assert "URL" in body["message"]


async def test_plain_get_is_no_websocket(bench: Bench) -> None:
    """An authenticated GET without an upgrade is told what this address speaks."""
    alice = await bench.user("alice")
    status, body = await bench.get("/ws", token=alice.access_token)
    assert (status, body["code"]) == (400, "not-a-websocket")


async def test_origins_that_may_connect() -> None:
    """Pages of the service itself and of the allowed origins may connect."""
    async with running(allowed_origins=frozenset({"https://calls.example"})) as bench:
        alice = await bench.user("alice")
        for origin in ("https://calls.example", f"http://{bench.server.host}:{bench.server.port}"):
            async with bench.http.ws_connect("/ws", headers={**alice.headers, "Origin": origin}):
                pass


async def test_token_never_reaches_the_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a handshake offers, no log line carries the token."""
    caplog.set_level("DEBUG")
    alice = await bench.user("alice")
    bearer = f"bearer.{alice.access_token}"
    async with bench.http.ws_connect("/ws", protocols=("calllab.v1", bearer)):
        pass
    for refused in ((bearer,), ("calllab.v1", bearer + "x")):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await bench.http.ws_connect("/ws", protocols=refused)
    assert alice.access_token not in caplog.text


async def test_deliver_before_close(bench: Bench) -> None:
    """What was delivered to a socket before its close arrives before the close frame."""
    alice = await bench.user("alice")
    async with bench.socket(alice) as of_alice:
        await of_alice.send({"type": "nonsense", "recipientId": "bob"})
        await of_alice.websocket.send_bytes(b"\x00")
        assert (await of_alice.receive())["code"] == "unknown-type"
        message = await of_alice.websocket.receive()
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1003)


_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
