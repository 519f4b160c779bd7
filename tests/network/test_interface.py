from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from calllab._aiortc import DatagramInterface
from calllab._aiortc.datagrams import open_udp
from calllab.errors import InvalidSetting
from calllab.network import LinkSettings, NetworkEvent, NetworkInterface
from calllab.network import interface as interface_module
from tests.network.helpers import HERE, JumpingLoop, Wire, run_jumping

SOCKET = object()


def send(
    interface: NetworkInterface, wire: Callable[..., None], number: int, socket: object = SOCKET
) -> None:
    interface.send(socket, number.to_bytes(4, "big"), HERE, wire)


def timers() -> int:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, JumpingLoop)
    return loop.timers


def test_a_network_interface_is_a_datagram_interface() -> None:
    """The interface fits the seam of the ICE driver, by its types too."""
    interface: DatagramInterface = NetworkInterface()
    assert callable(interface.send)


def test_a_clean_interface_delivers_before_send_returns() -> None:
    """Without a fault there is no detour through the loop."""

    async def main() -> None:
        interface, wire = NetworkInterface(), Wire()
        send(interface, wire, 1)
        assert wire.numbers == [1]
        assert timers() == 0

    run_jumping(main)


def test_delay_is_exact_and_one_timer_serves_all() -> None:
    """A hundred datagrams under way need one timer, and each arrives when its time has come."""

    async def main() -> None:
        interface, wire = NetworkInterface(LinkSettings(delay_ms=50)), Wire()
        loop = asyncio.get_running_loop()
        sent = []
        for number in range(100):
            sent.append(loop.time())
            send(interface, wire, number)
            assert timers() == 1
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)
        assert wire.numbers == list(range(100))
        for at, (arrived, _) in zip(sent, wire.arrivals, strict=True):
            assert arrived - at == pytest.approx(0.050, abs=1e-6)
        assert interface.under_way == timers() == 0

    run_jumping(main)


def test_everything_on_is_repeatable_and_accounted_for() -> None:
    """Two runs of a seed deliver the same at the same times, and the counters agree with the wire."""

    async def main() -> tuple[list[tuple[float, bytes]], Any]:
        settings = LinkSettings(
            loss=0.05, loss_burst=2, delay_ms=30, jitter_ms=10, reorder=0.05, duplicate=0.05, rate_kbps=400
        )
        interface, wire = NetworkInterface(settings, seed=5, name="alice->bob"), Wire()
        interface.fault(at_s=1.0, for_s=0.5, blackout=True)
        chance = random.Random(1)
        for number in range(1000):
            interface.send(SOCKET, number.to_bytes(4, "big").ljust(200, b"\0"), HERE, wire)
            await asyncio.sleep(chance.uniform(0, 0.006))
        await asyncio.sleep(2)
        counters, passed = interface.counters, interface.interface_counters
        assert counters.offered == 1000
        assert counters.delivered == passed.sent == len(wire.arrivals)
        assert counters.delivered == 1000 + counters.duplicated - counters.dropped
        assert min(counters.lost, counters.duplicated, counters.held_back, counters.blackout_dropped) > 10
        assert passed.sent_bytes == counters.delivered_bytes == 200 * passed.sent
        numbers = [int.from_bytes(data[:4], "big") for _, data in wire.arrivals]
        latest = late = 0
        for number in numbers:
            late += number < latest
            latest = max(latest, number)
        assert passed.reordered == late > 0
        return wire.arrivals, counters

    assert run_jumping(main) == run_jumping(main)


def test_changing_settings_keeps_what_is_under_way() -> None:
    """Less delay, then none: nothing is lost, nothing overtakes, nothing is retimed."""

    async def main() -> None:
        interface, wire = NetworkInterface(LinkSettings(delay_ms=100)), Wire()
        loop = asyncio.get_running_loop()
        start = loop.time()
        send(interface, wire, 1)
        await asyncio.sleep(0.02)
        interface.set(delay_ms=10)
        send(interface, wire, 2)
        await asyncio.sleep(0.02)
        interface.set(delay_ms=0)
        send(interface, wire, 3)
        assert wire.numbers == []
        await asyncio.sleep(0.2)
        send(interface, wire, 4)
        assert wire.numbers == [1, 2, 3, 4]
        assert [at - start for at, _ in wire.arrivals] == pytest.approx([0.1, 0.1, 0.1, 0.24])

    run_jumping(main)


def test_a_bad_change_changes_nothing() -> None:
    """A refused setting leaves the old ones, and tells no one."""

    async def main() -> None:
        interface = NetworkInterface(LinkSettings(loss=0.1))
        with pytest.raises(InvalidSetting, match="delay_ms=-5"):
            interface.set(loss=0.2, delay_ms=-5)
        with pytest.raises(InvalidSetting, match="loss=9"):
            interface.fault(loss=9)
        assert interface.settings == LinkSettings(loss=0.1)
        assert interface.events == []
        assert timers() == 0

    run_jumping(main)


def test_a_fault_takes_effect_to_the_datagram_and_reports_what_it_did() -> None:
    """Datagrams from the first moment of a blackout to its last are dropped, and its end says how many."""

    async def main() -> None:
        interface, wire = NetworkInterface(), Wire()
        heard: list[NetworkEvent] = []
        interface.on_event(heard.append)
        interface.fault(at_s=1.0, for_s=2.0, blackout=True)
        for number in range(50):
            send(interface, wire, number)
            await asyncio.sleep(0.1 + 1e-9)
        assert wire.numbers == [*range(10), *range(30, 50)]
        assert [(event.event, event.at_s) for event in heard] == [
            ("planned", 0.0),
            ("started", 1.0),
            ("ended", 3.0),
        ]
        assert heard == interface.events
        ended = heard[-1]
        assert ended.realised is not None
        assert (ended.realised.offered, ended.realised.blackout_dropped) == (20, 20)
        assert ended.fault is not None
        assert ended.fault.causes == ("blackout",)
        assert [event.settings.blackout for event in heard] == [False, True, False]

    run_jumping(main)


def test_a_fault_starts_without_any_traffic() -> None:
    """The timer alone brings the timeline on, at its exact times."""

    async def main() -> None:
        interface = NetworkInterface(epoch=asyncio.get_running_loop().time() - 10.0)
        started = asyncio.Event()
        interface.on_event(lambda event: started.set() if event.event == "started" else None)
        interface.fault(at_s=12.5, delay_ms=40)
        await started.wait()
        assert asyncio.get_running_loop().time() == pytest.approx(1002.5)
        assert interface.settings.delay_ms == 40

    run_jumping(main)


def test_a_fault_in_the_past_starts_now() -> None:
    """Without a time, or with one that has just passed, a fault is on when the call returns."""

    async def main() -> None:
        interface = NetworkInterface()
        first = interface.fault(loss=0.5)
        assert interface.running_faults == (first,)
        await asyncio.sleep(3.0)
        second = interface.fault(at_s=2.0, for_s=1.0, delay_ms=10)
        assert (second.at_s, second.end_s) == (3.0, 4.0)
        assert interface.settings == LinkSettings(loss=0.5, delay_ms=10)
        interface.cancel(first)
        interface.cancel(first)
        assert interface.settings == LinkSettings(delay_ms=10)
        struck = interface.fault(at_s=9.0, loss=0.1)
        interface.cancel(struck)
        interface.cancel(struck)
        await asyncio.sleep(20)
        assert interface.settings == LinkSettings()
        assert [event.event for event in interface.events] == [
            "planned", "started", "planned", "started", "ended", "planned", "cancelled", "ended",
        ]  # fmt: skip

    run_jumping(main)


def test_base_settings_changed_under_a_fault_show_when_it_ends() -> None:
    """A fault keeps what it governs; the rest of a change takes effect at once."""

    async def main() -> None:
        interface = NetworkInterface()
        fault = interface.fault(loss=0.5)
        assert interface.set(loss=0.1, delay_ms=5) == LinkSettings(loss=0.5, delay_ms=5)
        assert interface.base_settings == LinkSettings(loss=0.1, delay_ms=5)
        interface.cancel(fault)
        assert interface.settings == LinkSettings(loss=0.1, delay_ms=5)

    run_jumping(main)


def test_a_new_rate_counts_from_the_moment_it_is_set() -> None:
    """Ten seconds of idling at 1 kB/s are worth ten kilobytes, though the rate is another afterwards."""

    async def main() -> None:
        wire = Wire()
        interface = NetworkInterface(LinkSettings(rate_kbps=8, burst_bytes=100_000, queue_bytes=10**6))
        for _ in range(100):
            interface.send(wire, bytes(972), HERE, wire)
        await asyncio.sleep(10)
        interface.set(rate_kbps=8000)
        for _ in range(100):
            interface.send(wire, bytes(972), HERE, wire)
        assert len(wire.arrivals) == 110
        await asyncio.sleep(0.0905)
        assert len(wire.arrivals) == 200

    run_jumping(main)


def test_a_network_change_kills_old_sockets_for_good_both_ways() -> None:
    """Old sockets neither send nor receive any more, what they had under way is lost, new ones work."""

    async def main() -> None:
        interface, wire = NetworkInterface(LinkSettings(delay_ms=10)), Wire()
        idle, old, new = object(), object(), object()
        interface.opened(idle)
        send(interface, wire, 1, old)
        interface.change_network()
        send(interface, wire, 2, old)
        interface.receive(old, b"\0", HERE, wire)
        interface.receive(idle, b"\0", HERE, wire)
        interface.opened(old)
        send(interface, wire, 3, old)
        send(interface, wire, 4, new)
        interface.receive(new, b"\5", HERE, wire)
        await asyncio.sleep(1)
        assert wire.numbers == [5, 4]
        assert interface.interface_counters.dead_dropped == 5
        assert [event.event for event in interface.events] == ["network-changed"]
        interface.change_network()
        send(interface, wire, 6, new)
        await asyncio.sleep(1)
        assert wire.numbers == [5, 4]

    run_jumping(main)


def test_a_closed_socket_takes_what_it_had_under_way_along() -> None:
    """Nothing is handed to a socket that its owner has closed."""

    async def main() -> None:
        interface, wire = NetworkInterface(LinkSettings(delay_ms=10)), Wire()
        other = object()
        send(interface, wire, 1)
        send(interface, wire, 2, other)
        interface.closed(SOCKET)
        interface.closed(SOCKET)
        await asyncio.sleep(1)
        assert wire.numbers == [2]

    run_jumping(main)


def test_close_leaves_no_timer_and_ends_running_faults() -> None:
    """Closing drops what is under way, tells what the running faults did, and may be repeated."""

    async def main() -> None:
        interface, wire = NetworkInterface(LinkSettings(delay_ms=10)), Wire()
        interface.fault(for_s=100, loss=0.0)
        interface.fault(at_s=50, blackout=True)
        send(interface, wire, 1)
        assert timers() == 1
        interface.close()
        interface.close()
        assert timers() == interface.under_way == 0
        assert [event.event for event in interface.events] == ["planned", "started", "planned", "ended"]
        assert interface.events[-1].realised is not None
        assert interface.events[-1].realised.offered == 1
        send(interface, wire, 2)
        interface.receive(SOCKET, b"", HERE, wire)
        await asyncio.sleep(100)
        assert wire.arrivals == []
        assert interface.interface_counters.dead_dropped == 3
        assert interface.settings == LinkSettings(delay_ms=10)

    run_jumping(main)


def test_an_interface_that_was_never_used_can_be_closed_without_a_loop() -> None:
    """Making and closing an interface needs no event loop."""
    NetworkInterface(LinkSettings(loss=0.5)).close()


def test_too_much_under_way_is_refused_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast sender on a long link meets a bound."""
    monkeypatch.setattr(interface_module, "MAX_UNDER_WAY_BYTES", 10_000)

    async def main() -> None:
        interface, wire = NetworkInterface(LinkSettings(delay_ms=1000)), Wire()
        for _ in range(20):
            interface.send(SOCKET, bytes(1000), HERE, wire)
        assert interface.under_way == 10
        assert interface.interface_counters.overflow_dropped == 10
        await asyncio.sleep(2)
        interface.send(SOCKET, bytes(1000), HERE, wire)
        assert interface.under_way == 1
        interface.close()

    run_jumping(main)


def test_a_socket_or_listener_that_fails_holds_nobody_up() -> None:
    """Errors of one socket, or of a listener, are reported, and the others get their datagrams."""
    problems: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        interface, wire = NetworkInterface(LinkSettings(delay_ms=10), name="bob->alice"), Wire()

        def broken(*_: object) -> None:
            raise OSError("network is unreachable")

        interface.on_event(broken)
        interface.set(delay_ms=20)
        send(interface, broken, 1)
        send(interface, wire, 2)
        await asyncio.sleep(1)
        assert wire.numbers == [2]
        assert interface.interface_counters.failed == 1

    run_jumping(main)
    assert [problem["message"] for problem in problems] == [
        "bob->alice: a listener of a network interface failed",
        "bob->alice: a socket refused a datagram",
    ]


def test_a_removed_listener_hears_nothing() -> None:
    """Removing a listener twice is harmless."""

    async def main() -> None:
        interface = NetworkInterface()
        heard: list[NetworkEvent] = []
        remove = interface.on_event(heard.append)
        interface.set(loss=0.1)
        remove()
        remove()
        interface.set(loss=0.2)
        assert len(heard) == 1

    run_jumping(main)


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.arrivals: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.arrivals.put_nowait((asyncio.get_running_loop().time(), data))


@asynccontextmanager
async def udp_pair() -> AsyncIterator[tuple[asyncio.DatagramTransport, _Receiver, tuple[str, int]]]:
    """Yield a sending socket, and a receiving one with its address."""
    loop = asyncio.get_running_loop()
    receiving, receiver = await loop.create_datagram_endpoint(_Receiver, local_addr=("127.0.0.1", 0))
    sending, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    try:
        yield sending, receiver, receiving.get_extra_info("sockname")
    finally:
        sending.close()
        receiving.close()


async def test_real_datagrams_are_lost_and_delayed_as_the_link_decides() -> None:
    """Over real UDP sockets, what arrives is what the link delivered, in order, and never early."""
    interface = NetworkInterface(LinkSettings(loss=0.1, delay_ms=30, jitter_ms=5), seed=3)
    loop = asyncio.get_running_loop()
    sent_at = []
    async with udp_pair() as (sending, receiver, address):
        for number in range(300):
            sent_at.append(loop.time())
            interface.send(sending, number.to_bytes(4, "big"), address, sending.sendto)
            await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            got = [await receiver.arrivals.get() for _ in range(interface.counters.delivered)]
        assert receiver.arrivals.empty()
        numbers = [int.from_bytes(data, "big") for _, data in got]
        assert numbers == sorted(numbers)
        assert interface.counters.lost == 300 - len(numbers) > 10
        waits = [at - sent_at[number] for (at, _), number in zip(got, numbers, strict=True)]
        assert min(waits) > 0.010
        assert 0.025 < sorted(waits)[len(waits) // 2] < 0.200
        interface.close()


class _Endpoint(_Receiver):
    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)


async def test_a_network_change_at_the_seam_of_the_ice_driver() -> None:
    """Sockets opened through the driver's seam are delayed; after a network change only new ones live."""
    interface = NetworkInterface(LinkSettings(delay_ms=20))
    far = await open_udp(_Endpoint(), None, local=("127.0.0.1", 0))
    old = await open_udp(_Endpoint(), interface, local=("127.0.0.1", 0))
    idle = await open_udp(_Endpoint(), interface, local=("127.0.0.1", 0))
    loop = asyncio.get_running_loop()
    address = far.transport.get_extra_info("sockname")
    async with asyncio.timeout(5):
        start = loop.time()
        old.transport.sendto(b"before", address)
        at, data = await far.arrivals.get()
        assert data == b"before"
        assert at - start > 0.019

        old.transport.sendto(b"under way", address)
        interface.change_network()
        for dead in (old, idle):
            dead.transport.sendto(b"dead", address)
            far.transport.sendto(b"to the dead", dead.transport.get_extra_info("sockname"))
        new = await open_udp(_Endpoint(), interface, local=("127.0.0.1", 0))
        new.transport.sendto(b"after", address)
        _, data = await far.arrivals.get()
        assert data == b"after"
        far.transport.sendto(b"welcome", new.transport.get_extra_info("sockname"))
        _, data = await new.arrivals.get()
        assert data == b"welcome"
    assert far.arrivals.empty()
    assert old.arrivals.empty()
    assert idle.arrivals.empty()
    assert interface.interface_counters.dead_dropped == 5
    interface.close()
    for endpoint in (far, old, idle, new):
        endpoint.transport.close()
