"""The UDP proxy as a child: the same answers over lines of JSON, and no life without its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from calllab.errors import InvalidSetting, LabError
from calllab.network.udp_proxy_process import UdpProxyProcess
from tests.network.udp_peers import HOST, IcePeer, addresses


async def test_media_passes_a_process_of_its_own() -> None:
    """Descriptions and candidates are replaced, links are set and counted, events and errors come back."""
    events: list[dict[str, object]] = []
    async with UdpProxyProcess(seed=3) as proxy:
        proxy.on_event(events.append)
        assert proxy.host == HOST
        with IcePeer("alice") as alice, IcePeer("bob") as bob:
            await proxy.description("c1", "alice", alice.description())
            (bob_leg,) = addresses(await proxy.description("c1", "bob", bob.description()))
            assert await proxy.candidate("c1", "alice", "candidate:nonsense") is None
            number = await proxy.fault("alice", delay_ms=80)
            loop = asyncio.get_running_loop()
            sent = loop.time()
            check = alice.check(bob)
            alice.send(check, bob_leg)
            assert (await bob.receive())[0] == check
            assert 0.08 <= loop.time() - sent < 0.5
            await proxy.cancel(number)
            await proxy.set("*", loss=0.5)
            with pytest.raises(InvalidSetting, match="loss=8"):
                await proxy.fault("alice", loss=8)
            counted = await proxy.counters()
            assert counted["users"]["alice"]["delivered"] == 1
            await proxy.end_call("c1")
    assert [event["event"] for event in events if event["user"] == "alice"] == [
        "planned",
        "started",
        "ended",
        "set",
    ]
    with pytest.raises(LabError, match="not running"):
        await proxy.counters()


async def test_settings_that_make_no_sense_do_not_start() -> None:
    """The child says what is wrong, and is gone."""
    with pytest.raises(InvalidSetting, match="everything"):
        async with UdpProxyProcess(allowed=["everything"]):
            pass


async def test_a_child_that_dies_is_noticed() -> None:
    """What waits for an answer gets an error, and so does what is asked later."""
    async with UdpProxyProcess() as proxy:
        assert proxy._process is not None
        os.kill(proxy._process.pid, signal.SIGKILL)
        with pytest.raises(LabError, match="has ended"):
            await proxy.counters()


async def test_a_child_does_not_outlive_its_parent() -> None:
    """It ends when its standard input does, and ignores an interrupt, which is its parent's to handle."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "calllab.network.udp_proxy_main",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None and child.stdout is not None
    async with asyncio.timeout(20):
        assert b"ready" in await child.stdout.readline()
        child.send_signal(signal.SIGINT)
        for line in (b"nonsense", b'{"id":1,"do":"nonsense"}', b'{"id":2,"do":"set","args":{"x":1}}'):
            child.stdin.write(line + b"\n")
            assert b'"error"' in await child.stdout.readline()
        child.stdin.close()
        assert await child.wait() == 0
    child._transport.close()  # type: ignore[attr-defined]
