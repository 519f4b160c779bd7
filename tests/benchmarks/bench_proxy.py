"""How punctual the UDP proxy is: its timing error at 1,000 datagrams/s, beside a forwarder that does nothing.

``python -m tests.benchmarks.bench_proxy [--rate N] [--seconds N] [--json]``.  Each datagram carries the time
of its sending; the time of its arrival is the kernel's.  The forwarder delays nothing, so that its latency is
what the machine itself adds in the same run; the proxy's error is its latency less the delay that was set.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import statistics
import struct
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Final

from calllab.network.udp_proxy_process import UdpProxyProcess
from tests.benchmarks.table import Table, benchmark
from tests.network.udp_peers import HOST, Address, IcePeer, addresses

_SO_TIMESTAMPNS: Final = 35
_STAMP: Final = struct.Struct("!xq")
_PAYLOAD_BYTES: Final = 172
_DELAY_MS: Final = 20.0
_ROUNDS: Final = 3


def _forward(bound: socket.socket, target: Address) -> None:
    """Pass on what comes, at once."""
    while data := bound.recv(2048):
        bound.sendto(data, target)


def _send(sending: socket.socket, target: Address, count: int, every_s: float) -> None:
    """Send datagrams at an even pace."""
    due = time.monotonic()
    for _ in range(count):
        due += every_s
        time.sleep(max(0.0, due - time.monotonic()))
        # RTP's first two bits, so that nobody takes it for anything else.
        stamped = b"\x80" + _STAMP.pack(time.time_ns())[1:]
        sending.sendto(stamped.ljust(_PAYLOAD_BYTES, b"\0"), target)


def _collect(receiving: socket.socket, count: int) -> list[float]:
    """Return the latencies of what arrives, in seconds, by the kernel's time of arrival."""
    receiving.setblocking(True)
    receiving.settimeout(1.0)
    latencies: list[float] = []
    while len(latencies) < count:
        try:
            data, ancillary, _, _ = receiving.recvmsg(2048, 64)
        except TimeoutError:
            break
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("qq", value[:16])
                (sent,) = _STAMP.unpack_from(data)
                latencies.append((seconds * 10**9 + nanoseconds - sent) / 1e9)
    return latencies


async def _measure(
    sending: socket.socket, receiving: socket.socket, target: Address, count: int, rate: float
) -> list[float]:
    receiving.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sender = multiprocessing.get_context("fork").Process(
        target=_send, args=(sending, target, count, 1.0 / rate)
    )
    sender.start()
    latencies = await asyncio.to_thread(_collect, receiving, count)
    sender.join()
    return latencies


async def _no_op(count: int, rate: float) -> list[float]:
    with IcePeer("alice") as alice, IcePeer("bob") as bob:
        middle = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        middle.bind((HOST, 0))
        forwarder = multiprocessing.get_context("fork").Process(
            target=_forward, args=(middle, bob.address), daemon=True
        )
        forwarder.start()
        try:
            return await _measure(alice.socket, bob.socket, middle.getsockname(), count, rate)
        finally:
            forwarder.terminate()
            forwarder.join()
            middle.close()


async def _proxied(count: int, rate: float) -> list[float]:
    async with UdpProxyProcess(seed=1) as proxy:
        with IcePeer("alice") as alice, IcePeer("bob") as bob:
            (alice_leg,) = addresses(await proxy.description("c1", "alice", alice.description()))
            (bob_leg,) = addresses(await proxy.description("c1", "bob", bob.description()))
            for one, other, leg in ((alice, bob, bob_leg), (bob, alice, alice_leg)):
                one.send(one.check(other), leg)
                await other.receive()
            await proxy.set("alice", delay_ms=_DELAY_MS)
            latencies = await _measure(alice.socket, bob.socket, bob_leg, count, rate)
    return [latency - _DELAY_MS / 1000.0 for latency in latencies]


def _percentile_us(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1e6


KINDS: Final[Mapping[str, Callable[[int, float], Coroutine[None, None, list[float]]]]] = {
    "no-op forwarder": _no_op,
    "proxy": _proxied,
}


def measure() -> list[Table]:
    """Measure both by turns; what is reported are medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000.0, help="datagrams per second")
    parser.add_argument("--seconds", type=float, default=4.0)
    options, _ = parser.parse_known_args()
    count = int(options.rate * options.seconds)
    found: dict[str, list[list[float]]] = {name: [] for name in KINDS}
    for _ in range(_ROUNDS):
        for name, one_round in KINDS.items():
            found[name].append(asyncio.run(one_round(count, options.rate)))
    table = Table(
        f"UDP proxy, {options.rate:g} datagrams/s",
        f"{count} datagrams a round, {_ROUNDS} rounds by turns, microseconds, median of the rounds",
    )
    for name, rounds in found.items():
        p50, p99 = (
            round(statistics.median(_percentile_us(values, share) for values in rounds))
            for share in (0.5, 0.99)
        )
        got = sum(len(values) for values in rounds) / (count * _ROUNDS)
        table.row(path=name, p50_us=p50, p99_us=p99, arrived=f"{got:.1%}")
    return [table]


main = benchmark(measure)

if __name__ == "__main__":
    main()
