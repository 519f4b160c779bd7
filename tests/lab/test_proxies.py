"""A call between two unmodified peers through both proxies, on real sockets."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from calllab.call import Call, Phone
from calllab.errors import InvalidSetting
from calllab.lab.proxies import CallProxy
from calllab.lab.proxy_command import parse_fault
from calllab.media import SpeechTrack
from calllab.rtc import MediaStream
from calllab.signaling import RelayChannel, ServiceSession, SignalingFault, TurnApi
from calllab_server import Service, ServiceConfig


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with Service(ServiceConfig.for_loopback(cheap_passwords=True)) as service:
        yield service


@asynccontextmanager
async def phones(*urls: str, policy: str = "all") -> AsyncIterator[list[Phone]]:
    """Phones of alice and bob, each at the service's address that is given."""
    async with AsyncExitStack() as stack:
        made = []
        for name, url in zip(("alice", "bob"), urls, strict=True):
            session = await stack.enter_async_context(ServiceSession(url))
            await session.register(name, "a password for tests")
            await session.login(name, "a password for tests")
            channel = await RelayChannel.open(session, entropy=random.Random(name))
            await stack.enter_async_context(channel)
            phone = Phone(
                channel,
                local_stream=lambda: MediaStream([SpeechTrack(seed=1)]),
                turn_api=TurnApi(session) if policy == "relay" else None,
                entropy=random.Random(name),
            )
            phone.ice_transport_policy = policy  # type: ignore[assignment]
            made.append(await stack.enter_async_context(phone))
        yield made


async def connected(alice: Phone) -> Call:
    """A call from alice to bob that is connected."""
    call = await alice.call("bob")
    async with asyncio.timeout(20):
        await call.wait_connected()
    return call


async def selected(call: Call) -> dict[str, Any]:
    """The statistics of the selected candidate pair, with both candidates."""
    assert call.manager is not None
    report = await call.manager.get_stats()
    (transport,) = (stats for stats in report.values() if stats["type"] == "transport")
    pair = dict(report[transport["selectedCandidatePairId"]])
    pair["remote"] = report[pair["remoteCandidateId"]]
    pair["local"] = report[pair["localCandidateId"]]
    return pair


@pytest.mark.parametrize("both", [True, False], ids=["both sides", "one side"])
async def test_no_datagram_goes_past_the_proxy(service: Service, both: bool) -> None:
    """Whether both peers or one use the proxy: each sends to it alone, and the delay set is measured."""
    async with CallProxy(service.http_url, seed=1) as proxy:
        assert proxy.media is not None
        await proxy.fault("*->*", delay_ms=60)
        async with phones(proxy.url, proxy.url if both else service.http_url) as (alice, bob):
            call = await connected(alice)
            await asyncio.sleep(1.5)
            counted = await proxy.media.counters()
            legs = {(leg["user"], leg["local"][1]) for leg in counted["legs"]}
            for phone, other in ((alice, "bob"), (bob, "alice")):
                current = phone.current
                assert current is not None
                pair = await selected(current)
                assert (other, pair["remote"]["port"]) in legs
                assert 0.12 <= pair["currentRoundTripTime"] < 0.6
            for user in ("alice", "bob"):
                assert counted["users"][user]["delivered"] > 20
            await call.hang_up()


async def test_a_relayed_call_passes_too(service: Service) -> None:
    """Relayed candidates are replaced like all others: the TURN server talks to the proxy."""
    async with CallProxy(service.http_url) as proxy:
        assert proxy.media is not None
        async with phones(proxy.url, proxy.url, policy="relay") as (alice, _):
            call = await connected(alice)
            pair = await selected(call)
            assert pair["local"]["candidateType"] == "relay"
            counted = await proxy.media.counters()
            assert ("bob", pair["remote"]["port"]) in {
                (leg["user"], leg["local"][1]) for leg in counted["legs"]
            }
            await call.hang_up()


async def test_a_blackout_silences_one_direction(service: Service) -> None:
    """While alice's media is taken, nothing of it is delivered, and bob's goes on; afterwards it is back."""
    async with CallProxy(service.http_url) as proxy, phones(proxy.url, proxy.url) as (alice, _):
        assert proxy.media is not None
        call = await connected(alice)
        fault = await proxy.fault("alice->bob", blackout=True)
        before = (await proxy.media.counters())["users"]
        await asyncio.sleep(0.6)
        after = (await proxy.media.counters())["users"]
        assert after["alice"]["delivered"] == before["alice"]["delivered"]
        assert after["alice"]["blackout_dropped"] > 10
        assert after["bob"]["delivered"] > before["bob"]["delivered"] + 10
        await fault.end()
        await fault.end()
        await asyncio.sleep(0.3)
        assert (await proxy.media.counters())["users"]["alice"]["delivered"] > after["alice"]["delivered"]
        await call.hang_up()


async def test_signaling_faults_and_events(service: Service) -> None:
    """A lost answer is sent by nobody else; both kinds of faults are told of."""
    told: list[object] = []
    async with CallProxy(service.http_url, media=False) as proxy, phones(proxy.url, proxy.url) as (alice, _):
        stop = proxy.on_event(told.append)
        lost = proxy.signaling_fault(
            SignalingFault(kind="drop", types=("call-answer",), direction="bob->alice")
        )
        call = await alice.call("bob")
        async with asyncio.timeout(10):
            while not proxy.faults.count(lost):
                await asyncio.sleep(0.02)
        assert call.state != "connected"
        await call.hang_up()
        with pytest.raises(InvalidSetting, match="media=True"):
            await proxy.fault("alice->bob", loss=0.1)
        stop()
    assert {getattr(event, "event", None) for event in told} >= {"planned", "started", "message"}


def test_faults_are_read_from_the_command_line() -> None:
    """A kind makes a fault of signaling; the rest are settings of a link; nonsense is named."""
    assert parse_fault("alice->bob loss=0.1 at_s=5") == ("alice->bob", {"loss": 0.1, "at_s": 5})
    assert parse_fault("blackout=true for_s=3") == ("*->*", {"blackout": True, "for_s": 3})
    assert parse_fault("alice->* kind=drop types=call-offer,call-answer count=1") == SignalingFault(
        kind="drop", direction="alice->*", types=("call-offer", "call-answer"), count=1
    )
    assert parse_fault("kind=disconnect peer=alice for_s=2") == SignalingFault(
        kind="disconnect", peer="alice", for_s=2
    )
    for wrong in ("", "alice->bob", "loss", "kind=nonsense", "kind=drop count=x", "at_s=3", "loss="):
        with pytest.raises(InvalidSetting, match="--fault"):
            parse_fault(wrong)


async def test_the_command_tells_its_address_and_ends_cleanly(service: Service) -> None:
    """`calllab proxy` says what clients use, tells of faults, and ends with 0 at an interrupt."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "calllab.cli", "proxy", "--relay", service.http_url),
        *("--fault", "*->* delay_ms=20", "--fault", "alice->bob kind=drop types=typing"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    async with asyncio.timeout(30):
        said = b""
        while b"clients use http://" not in said:
            line = await child.stdout.readline()
            assert line, said
            said += line
        child.send_signal(signal.SIGINT)
        said += await child.stdout.read()
        assert await child.wait() == 0
    child._transport.close()  # type: ignore[attr-defined]
    assert b"signaling fault started: kind=drop" in said
    assert b"no media passed" in said
