"""A call between two unmodified peers through both proxies, on real sockets."""

from __future__ import annotations

import asyncio
import math
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from calllab.call import Call, Phone
from calllab.errors import InvalidSetting
from calllab.lab.proxies import CallProxy
from calllab.lab.proxy_command import parse_fault, run_proxy
from calllab.media import SpeechTrack
from calllab.network import NetworkInterface
from calllab.rtc import MediaStream
from calllab.signaling import RelayChannel, ServiceSession, SignalingFault, TurnApi
from calllab_server import Service, ServiceConfig


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with Service(ServiceConfig.for_loopback(cheap_passwords=True)) as service:
        yield service


class Watched(NetworkInterface):
    """A clean interface that notes where everything goes."""

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name)
        self.destinations: set[tuple[str, int]] = set()

    def send(self, socket: object, data: bytes, address: Any, deliver: Any) -> None:
        """Note the destination, and send."""
        self.destinations.add(address[:2])
        super().send(socket, data, address, deliver)


def destinations(phone: Phone) -> set[tuple[str, int]]:
    """Where a phone has sent datagrams."""
    assert isinstance(phone._interface, Watched)
    return phone._interface.destinations


@asynccontextmanager
async def phones(*urls: str, policy: str = "all") -> AsyncIterator[list[Phone]]:
    """Phones of alice and bob, and a second one of bob's, each at the service's address that is given."""
    async with AsyncExitStack() as stack:
        made = []
        for name, url in zip(("alice", "bob", "bob"), urls, strict=False):
            session = await stack.enter_async_context(ServiceSession(url))
            if name not in [phone.user_id for phone in made]:
                await session.register(name, "a password for tests")
            await session.login(name, "a password for tests")
            device = f"{name}'s device {len(made)}"
            channel = await RelayChannel.open(session, entropy=random.Random(device))
            await stack.enter_async_context(channel)
            phone = Phone(
                channel,
                local_stream=lambda: MediaStream([SpeechTrack(seed=1)]),
                turn_api=TurnApi(session) if policy == "relay" else None,
                interface=Watched(name=name),
                entropy=random.Random(device),
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


async def test_a_restart_of_ice_stays_on_the_proxy_and_its_losses(service: Service) -> None:
    """New addresses get new legs, no datagram ever goes elsewhere, and as many are lost as were asked for."""
    async with CallProxy(service.http_url, seed=3) as proxy, phones(proxy.url, proxy.url) as (alice, bob):
        assert proxy.media is not None
        call = await connected(alice)
        await proxy.fault("alice->bob", loss=0.2)
        before = await proxy.media.counters()
        await asyncio.sleep(1.0)
        assert call.manager is not None
        old = (await selected(call))["remote"]["port"]
        call.manager.restart_ice()
        async with asyncio.timeout(15):
            while (await selected(call))["remote"]["port"] == old:
                await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)
        counted = await proxy.media.counters()
        legs = {tuple(leg["local"]) for leg in counted["legs"]}
        assert len(legs) > len(before["legs"])
        for phone in (alice, bob):
            assert destinations(phone)
            assert destinations(phone) <= legs
        offered, lost = (
            counted["users"]["alice"][name] - before["users"]["alice"][name] for name in ("offered", "lost")
        )
        assert offered > 50
        # Four standard deviations of the binomial distribution: once in 16,000 seeds.
        assert abs(lost - 0.2 * offered) < 4 * math.sqrt(offered * 0.2 * 0.8)
        assert counted["users"]["bob"]["lost"] == 0
        await call.hang_up()


async def test_a_second_device_that_came_too_late_leaves_the_call_alone(service: Service) -> None:
    """Both of bob's devices accept; one is told that it was answered elsewhere, and the media goes on."""
    told: list[Any] = []
    async with CallProxy(service.http_url) as proxy, phones(*[proxy.url] * 3) as (alice, *bobs):
        assert proxy.media is not None
        proxy.on_event(told.append)
        call = await connected(alice)
        async with asyncio.timeout(5):
            while "call-hangup" not in {getattr(event, "type", None) for event in told}:
                await asyncio.sleep(0.02)
            while sum(bob.current is not None and bob.current.state == "connected" for bob in bobs) != 1:
                await asyncio.sleep(0.02)
        before = await proxy.media.counters()
        await asyncio.sleep(0.3)
        after = await proxy.media.counters()
        for user in ("alice", "bob"):
            assert after["users"][user]["delivered"] > before["users"][user]["delivered"] + 5
        await call.hang_up()


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
    assert parse_fault("direction=alice->bob loss=0.1") == ("alice->bob", {"loss": 0.1})
    assert parse_fault("kind=drop direction=alice->bob") == SignalingFault(
        kind="drop", direction="alice->bob"
    )
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind=drop count=x", "count: expected a number or null, got 'x'"),
        ("kind=drop count=0", "count: expected a whole number from 1 to 1000000, got 0"),
        ("kind=drop typs=call-offer", "unknown member 'typs': did you mean types?"),
        (
            "kind=nonsense",
            "kind: expected one of delay, disconnect, drop, duplicate, hold, reorder, got 'nons",
        ),
        (
            "kind=delay delay_ms=5 for_s=-1",
            "for_s: expected a number from 0 to 86400 or null for no end, got",
        ),
        ("alice->bob loss=8", "loss: expected a number from 0 to 1, got 8"),
        ("alice->bob los=0.1", "unknown member 'los': did you mean loss?"),
        ("alice->bob loss=8%", "loss: expected a number, got '8%'"),
        ("alice->bob loss_burst=3", "a fault that names loss_burst must name loss too"),
        ("alice->bob loss=0.1 at_s=-1", "at_s: expected seconds from the start, 0 or more, got -1"),
        ("alice->bob loss=0.1 for_s=0", "for_s: expected seconds, more than 0, or null for no end, got 0"),
        ("alice->bob loss=0.1 at_s=soon", "at_s: expected seconds from the start, 0 or more, got 'soon'"),
        (
            "alice->bob kind=disconnect peer=bob",
            "direction: 'alice->bob' says nothing about kind='disconnect'",
        ),
        ("alice->bob direction=bob->alice loss=0.1", "direction is there twice"),
        ("*->bob loss=0.1", "direction: '*->bob': a link is its sender's"),
        ("alice loss=0.1", "direction: expected 'alice->bob', or 'alice<->bob' for both, got 'alice'"),
    ],
)
def test_wrong_faults_are_told_in_the_words_of_scenarios(text: str, said: str) -> None:
    """With the fault that it is about, before anything is started."""
    with pytest.raises(InvalidSetting) as caught:
        parse_fault(text)
    assert str(caught.value).startswith(f"--fault {text!r}: {said}")


async def test_a_fault_of_media_needs_a_proxy_of_media() -> None:
    """--no-media and a fault of media exclude each other, which is said in the words of the command."""
    with pytest.raises(InvalidSetting, match=r"^--fault 'loss=0\.1': --no-media leaves the media as it is"):
        await run_proxy(
            "http://127.0.0.1:9",
            host="127.0.0.1",
            port=0,
            faults=["kind=drop", "loss=0.1"],
            allowed=[],
            media=False,
            seed=0,
            say=print,
        )


def test_a_trace_and_names_on_the_command_line(tmp_path: Path) -> None:
    """A trace is named by its file; a user may be called by a number; nothing is there twice."""
    (tmp_path / "a trace").write_text("5\n9\n")
    direction, settings = parse_fault(f"alice->bob trace_file='{tmp_path}/a trace' queue_discipline=codel")
    assert (direction, settings) == ("alice->bob", {"trace": "5 9", "queue_discipline": "codel"})
    assert parse_fault("kind=disconnect peer=123") == SignalingFault(kind="disconnect", peer="123")
    for wrong in ("loss=0.1 loss=0.2", "trace=5 trace_file=x", "trace_file='x"):
        with pytest.raises(InvalidSetting, match="--fault"):
            parse_fault(wrong)


async def test_directions_that_no_link_has_are_refused(service: Service) -> None:
    """A link is its sender's: what only the receiver would tell apart is not pretended to be possible."""
    proxy = CallProxy(service.http_url, media=False)
    for wrong in ("*->bob", "alice<->*", "*<->bob", "alice->alice", "alice"):
        with pytest.raises(InvalidSetting, match="direction="):
            await proxy.fault(wrong, loss=0.1)


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
