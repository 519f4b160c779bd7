"""Bad input to the relay through real sockets: its code comes back, and nobody else notices."""

from __future__ import annotations

import asyncio
import random
import struct
from typing import Any

import aiohttp
import jwt
import msgspec
import pytest

from calllab.protocol import RelayLimits
from tests.server.helpers import Account, Bench, RawSocket, bystanders, eventually, running

_CALL = {"type": "call-offer", "recipientId": "victim", "callId": "c1", "sdp": "v=0"}


_REFUSED: list[tuple[bytes | dict[str, Any], str]] = [
    (b"", "bad-json"),
    (b"hello", "bad-json"),
    (b'{"type":"typing","recipientId":"victim"', "bad-json"),
    (b"[" * 60_000, "bad-json"),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "bad-json"),
    (b"null", "bad-message"),
    (b"[]", "bad-message"),
    (b"{}", "bad-message"),
    (b'{"type":7,"recipientId":"victim"}', "bad-message"),
    ({"type": "shutdown", "recipientId": "victim"}, "unknown-type"),
    ({"type": "error", "recipientId": "victim"}, "unknown-type"),
    ({"type": "typing"}, "bad-message"),
    ({"type": "typing", "recipientId": 7}, "bad-message"),
    ({"type": "typing", "recipientId": ["victim"]}, "bad-message"),
    ({"type": "typing", "recipientId": "victim", "callId": "c1"}, "bad-message"),
    ({"type": "typing", "recipientId": "victim", "__proto__": {}}, "bad-message"),
    ({"type": "typing", "recipientId": "victim", "senderId": "dave"}, "sender-forbidden"),
    ({"type": "typing", "recipientId": "victim", "senderDevice": "x"}, "sender-forbidden"),
    (b'{"type":"typing","recipientId":"victim","senderId":"dave","senderId":"eve"}', "sender-forbidden"),
    ({**_CALL, "sdp": None}, "bad-message"),
    ({**_CALL, "sdp": {"type": "offer"}}, "bad-message"),
    ({"type": "call-offer", "recipientId": "victim", "callId": "c1"}, "bad-message"),
    ({"type": "call-ice-candidate", "recipientId": "victim", "callId": "c1"}, "bad-message"),
    (
        {"type": "call-ice-candidate", "recipientId": "victim", "callId": "c1", "candidate": "x"},
        "bad-message",
    ),
    (
        b'{"type":"call-ice-candidate","recipientId":"victim","callId":"c1",'
        b'"candidate":{"sdpMLineIndex":1' + b"0" * 5000 + b"}}",
        "bad-message",
    ),
    ({"type": "typing", "recipientId": "nobody-here"}, "recipient-unknown"),
    ({"type": "typing", "recipientId": "victim\u0000"}, "recipient-unknown"),
    ({"type": "typing", "recipientId": "victim", "recipientDevice": "none"}, "recipient-offline"),
]


async def test_refused_messages(bench: Bench) -> None:
    """A message that is none is answered with its code, on a socket that stays open; nobody else notices."""
    eve, victim = await bench.user("eve"), await bench.user("victim")
    async with bystanders(bench), bench.socket(eve) as of_eve, bench.socket(victim) as of_victim:
        for number, (frame, code) in enumerate(_REFUSED):
            payload = frame if isinstance(frame, bytes) else msgspec.json.encode(frame)
            await of_eve.websocket.send_frame(payload, aiohttp.WSMsgType.TEXT)
            error = await of_eve.receive()
            assert (error["type"], error["code"]) == ("error", code), payload[:100]
            assert error["message"]
            # The victim's next message is the next good one: nothing of the bad one was forwarded.
            await of_eve.send({"type": "read", "recipientId": "victim", "messageId": str(number)})
            assert (await of_victim.receive())["messageId"] == str(number), payload[:100]


_VIOLATIONS: list[tuple[str, bytes, dict[str, int], int]] = [
    ("binary frame", b"\x00\x01", {"opcode": 2}, 1003),
    ("invalid UTF-8", b'{"type":"typing","recipientId":"\xff\xfe"}', {}, 1007),
    (
        "half a surrogate pair",
        b'{"type":"message","recipientId":"victim","encryptedContent":"\xed\xa0\x80"}',
        {},
        1007,
    ),
    ("overlong UTF-8", b'{"type":"message","recipientId":"victim","encryptedContent":"\xc0\xaf"}', {}, 1007),
    ("a byte too long", b'"' + b"x" * (64 * 1024 - 1) + b'"', {}, 1009),
    ("1 MiB", b"x" * (1 << 20), {}, 1009),
    ("32 MiB", b"x" * (32 << 20), {}, 1009),
    ("1 MiB of binary", b"x" * (1 << 20), {"opcode": 2}, 1009),
    ("reserved bit", b"{}", {"first_bits": 0xC0}, 1002),
    ("unknown opcode", b"{}", {"opcode": 3}, 1002),
    ("stray continuation", b"{}", {"opcode": 0}, 1002),
    ("long ping", b"x" * 126, {"opcode": 9}, 1002),
]


async def test_closing_violations(bench: Bench) -> None:
    """A frame that breaks the protocol closes the socket; its code arrives whatever is still being sent."""
    eve, victim = await bench.user("eve"), await bench.user("victim")
    async with bystanders(bench), bench.socket(victim) as of_victim:
        for name, payload, form, code in _VIOLATIONS:
            async with RawSocket.connect(bench, eve) as raw:
                raw.send(payload, **form)
                # A good message in the same breath: its sender is gone by then.
                raw.send(b'{"type":"typing","recipientId":"victim"}')
                assert await raw.close_code() == code, name
            await eventually(lambda: "eve" not in {c.user_id for c in bench.parts.relay._sockets})
            async with bench.socket(eve) as of_eve:
                await of_eve.send({"type": "read", "recipientId": "victim", "messageId": name})
                assert (await of_victim.receive())["messageId"] == name


async def test_fragments_add_up_to_the_limit(bench: Bench) -> None:
    """A message in fragments is measured as a whole."""
    eve = await bench.user("eve")
    async with RawSocket.connect(bench, eve) as raw:
        raw.send(b"x" * 40_000, first_bits=0)
        raw.send(b"x" * 40_000, opcode=0)
        assert await raw.close_code() == 1009


async def test_client_that_goes_on_sending_sees_the_code(bench: Bench) -> None:
    """A client that writes megabytes before it reads finds the close code all the same."""
    eve = await bench.user("eve")
    async with bystanders(bench), RawSocket.connect(bench, eve) as raw:
        raw.send(b"x" * (1 << 20))
        for _ in range(40):
            raw.send(b"y" * 100_000)
        await raw.writer.drain()
        assert await raw.close_code() == 1009


async def test_burst(bench: Bench) -> None:
    """10,000 messages in a burst are answered with rate-limited beyond the allowance; nobody else notices."""
    eve, victim = await bench.user("eve"), await bench.user("victim")
    async with bystanders(bench), bench.socket(eve) as of_eve, bench.socket(victim) as of_victim:
        count = 10_000

        async def send() -> None:
            for number in range(count):
                await of_eve.send({"type": "read", "recipientId": "victim", "messageId": str(number)})

        async def receive_errors() -> int:
            refused = 0
            while True:
                message = await of_eve.receive()
                if message["code"] != "rate-limited":
                    assert message["code"] == "recipient-unknown"
                    return refused
                refused += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            # Read on until the allowance has grown back enough for one more message.
            refused = group.create_task(receive_errors())
            await eventually(lambda: bench.parts.relay.core.counters.received >= count)
            await asyncio.sleep(0.1)
            await of_eve.send({"type": "typing", "recipientId": "nobody"})
        limits = bench.parts.relay.core.limits
        assert limits.burst <= count - refused.result() < count / 2
        arrived = [int((await of_victim.receive())["messageId"]) for _ in range(count - refused.result())]
        assert arrived == sorted(set(arrived))


async def test_abuse_without_end() -> None:
    """A client that never stops breaking the rules is closed with 1008, and sees it while still sending."""
    async with running(limits=RelayLimits(abuse_after_refusals=500)) as bench:
        eve = await bench.user("eve")
        async with bystanders(bench), RawSocket.connect(bench, eve) as raw:
            for _ in range(5000):
                raw.send(b"nonsense")
            assert await raw.close_code() == 1008


async def test_noise(bench: Bench) -> None:
    """Random frames are each answered or end the socket; nothing is forwarded and the service stays up."""
    eve, victim = await bench.user("eve"), await bench.user("victim")
    entropy = random.Random(7)
    alphabet = [
        b'{"type":"typing"',
        b',"recipientId":"victim"',
        b"}",
        b"\xc3",
        b"\\ud800",
        b'"',
        b"\x00",
        b"[",
    ]
    async with bystanders(bench), bench.socket(victim) as of_victim:
        for _ in range(20):
            async with RawSocket.connect(bench, eve) as raw:
                for _ in range(20):
                    payload = b"".join(entropy.choices(alphabet, k=entropy.randrange(1, 6)))
                    if payload.count(b"typing") == 1 and payload.endswith(b"}"):
                        continue
                    raw.send(payload, opcode=entropy.choice([1, 1, 1, 9, 10]))
                raw.send(struct.pack("!H", 1000), opcode=8)
                assert await raw.close_code() in (1000, 1007)
        async with bench.socket(eve) as of_eve:
            await of_eve.send({"type": "read", "recipientId": "victim", "messageId": "good"})
            assert (await of_victim.receive())["messageId"] == "good"


@pytest.mark.parametrize("way", ["header", "subprotocol"])
async def test_foreign_and_forged_tokens(bench: Bench, way: str) -> None:
    """A token of another secret, another algorithm, another kind, or expired opens no socket."""
    eve = await bench.user("eve")
    secret = bench.parts.config.jwt_secret
    claims = jwt.decode(eve.access_token, secret, ["HS256"])
    tokens = {
        jwt.encode(claims, "another secret, as long as the real one", "HS256"): "token-invalid",
        jwt.encode(claims, None, "none"): "token-invalid",
        jwt.encode({**claims, "typ": "refresh"}, secret, "HS256"): "token-invalid",
        jwt.encode({**claims, "iss": "somebody"}, secret, "HS256"): "token-invalid",
        jwt.encode({**claims, "sub": "Eve!"}, secret, "HS256"): "token-invalid",
        jwt.encode({**claims, "exp": claims["iat"] - 60}, secret, "HS256"): "token-expired",
        jwt.encode({**claims, "sid": "no-such-session"}, secret, "HS256"): "session-revoked",
        jwt.encode({k: v for k, v in claims.items() if k != "exp"}, secret, "HS256"): "token-invalid",
        eve.access_token[:-2]: "token-invalid",
        eve.refresh_token: "token-invalid",
        "x" * 5000: "token-invalid",
    }
    async with bystanders(bench):
        for token, code in tokens.items():
            forged = Account("eve", token, "")
            headers = forged.headers if way == "header" else {}
            protocols = () if way == "header" else ("calllab.v1", f"bearer.{token}")
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await bench.http.ws_connect("/ws", headers=headers, protocols=protocols)
            assert refusal.value.status == 401
            status, body = await bench.get("/api/turn/credentials", token=token)
            assert (status, body["code"]) == (401, code)
