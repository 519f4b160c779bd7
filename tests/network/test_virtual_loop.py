"""The loop whose clock jumps."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import threading
import time

import pytest
from aiortc.mediastreams import AudioStreamTrack

from calllab.errors import InvalidSetting, SimulationStuck
from calllab.network import VirtualLoop, simulate


def test_an_hour_passes_at_once() -> None:
    """Who sleeps an hour finds the clock an hour later, and no real time gone."""

    async def main() -> float:
        await asyncio.sleep(3600.0)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert simulate(main) == 3600.0
    assert time.monotonic() - began < 5.0


def test_equal_deadlines_fire_in_the_order_they_were_set() -> None:
    """Of many timers with one deadline, the one set first fires first, as asyncio alone does not promise."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        fired: list[int] = []
        for number in range(200):
            loop.call_at(1.0, fired.append, number)
        await asyncio.sleep(2.0)
        return fired

    assert simulate(main) == list(range(200))


def test_timeouts_are_virtual() -> None:
    """asyncio's timeouts follow the virtual clock."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(90.0):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert simulate(main) == 90.0


def test_a_deadlock_names_who_waits() -> None:
    """A program that waits for what can never happen ends with an error that names the task and its line."""

    async def wait_for_nobody() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.sleep(5.0)
        await asyncio.create_task(wait_for_nobody(), name="the forgotten one")

    with pytest.raises(SimulationStuck, match=r"nothing will ever happen again at 5 s") as caught:
        simulate(main)
    assert "the forgotten one" in str(caught.value)
    assert "wait_for_nobody" in str(caught.value)
    assert "test_virtual_loop.py:" in str(caught.value)


def test_polling_without_sleeping_is_an_error() -> None:
    """A program that asks again and again while the clock stands still ends with an error, not in a hang."""

    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(SimulationStuck, match="polls without sleeping"):
        simulate(main)


@pytest.mark.parametrize("step_s", [1e-12, 1e-10, 1e-8])
def test_time_that_hardly_moves_is_an_error(step_s: float) -> None:
    """Who sleeps for next to no time, for ever, ends with an error like one who does not sleep at all."""

    async def main() -> None:
        await asyncio.sleep(5.0)
        while True:
            await asyncio.sleep(step_s)

    with pytest.raises(SimulationStuck, match=r"from 5 s .* polls without sleeping"):
        simulate(main)


def test_many_things_may_happen_at_one_moment() -> None:
    """A thousand tasks that tick in step, and one that ticks a million times a second, are no error."""

    async def tick(every_s: float, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(every_s)

    async def main() -> None:
        await asyncio.gather(tick(1e-6, 10_000), *(tick(0.02, 10) for _ in range(1000)))

    simulate(main)


def test_a_program_may_be_given_an_end() -> None:
    """Who waits for what never comes while something ticks is named when the time is over, and cleans up."""
    cleaned: list[float] = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(1.0)

    async def main() -> None:
        ticker = asyncio.create_task(tick(), name="the sampler")
        try:
            await asyncio.Event().wait()
        finally:
            ticker.cancel()
            await asyncio.sleep(3.0)
            cleaned.append(asyncio.get_running_loop().time())

    with pytest.raises(SimulationStuck, match=r"60.5 s of virtual time are over.*2 tasks wait.*the sampler"):
        simulate(main, until_s=60.5)
    assert cleaned == [63.0], "after the last tick before the end"


def test_what_does_not_let_itself_be_cancelled_ends_all_the_same() -> None:
    """Cleaning up has its limit too, when the program has one."""

    async def tick() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1.0)

    async def main() -> None:
        ticker = asyncio.create_task(tick(), name="immortal")
        await asyncio.sleep(5.0)
        del ticker

    with pytest.raises(SimulationStuck, match="immortal"):
        simulate(main, until_s=10.0)


def test_an_end_that_is_not_reached_changes_nothing() -> None:
    """A program that ends before, or just then, returns what it returns; an end that is none is refused."""

    async def main() -> str:
        await asyncio.sleep(10.0)
        return "done"

    assert simulate(main, until_s=10.0) == "done"
    for nothing in (0.0, -1.0, math.nan):
        with pytest.raises(InvalidSetting, match="until_s"):
            simulate(main, until_s=nothing)


def test_work_for_threads_takes_the_time_it_costs() -> None:
    """What would run in a pool runs at once and arrives when its virtual cost is over, in order."""

    class Coder:
        def simulated_cost_s(self, cost_s: float) -> float:
            return cost_s

        def code(self, cost_s: float) -> str:
            return f"took {cost_s:g}"

    async def main() -> list[tuple[float, str]]:
        loop = asyncio.get_running_loop()
        coder = Coder()

        async def one(cost_s: float) -> tuple[float, str]:
            outcome = await loop.run_in_executor(None, coder.code, cost_s)
            return loop.time(), outcome

        return sorted(await asyncio.gather(one(0.25), one(0.0), one(1.5)))

    assert simulate(main) == [(0.0, "took 0"), (0.25, "took 0.25"), (1.5, "took 1.5")]


def test_errors_of_such_work_reach_who_asked() -> None:
    """What the function raises is raised where its result is awaited."""

    def fail() -> None:
        raise ArithmeticError("wrong")

    async def main() -> None:
        await asyncio.get_running_loop().run_in_executor(None, fail)

    with pytest.raises(ArithmeticError, match="wrong"):
        simulate(main)


def test_chance_follows_from_the_seed() -> None:
    """The loop's entropy is the same for the same seed, and another for another."""

    async def draw() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return loop.entropy.random()

    assert simulate(draw, seed=5) == simulate(draw, seed=5)
    assert simulate(draw, seed=5) != simulate(draw, seed=6)


def test_sets_of_tasks_have_one_order() -> None:
    """Tasks hash by their number, so a set of them is walked in the order in which they were made."""

    async def nothing() -> None:
        await asyncio.sleep(1.0)

    async def main() -> list[str]:
        tasks = {asyncio.create_task(nothing(), name=str(number)) for number in range(50)}
        done, _ = await asyncio.wait(tasks)
        return [task.get_name() for task in done]

    assert simulate(main) == simulate(main)


def test_there_is_no_world_outside() -> None:
    """Real sockets, connections and names are refused with a sentence."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(OSError, match="no real sockets"):
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        with pytest.raises(OSError, match="no real connections"):
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", 80)
        with pytest.raises(OSError, match="cannot be resolved"):
            await loop.getaddrinfo("localhost", 80)

    simulate(main)


def test_the_real_clock_runs_the_same_program() -> None:
    """With clock="real" the program runs on an ordinary loop."""

    async def main() -> bool:
        await asyncio.sleep(0.01)
        return isinstance(asyncio.get_running_loop(), VirtualLoop)

    assert simulate(main, clock="real") is False


def test_who_polls_is_stopped_and_may_clean_up() -> None:
    """After the error everybody is cancelled and has turns enough for what stands in finally."""
    cleaned: list[str] = []

    async def poll() -> None:
        try:
            while True:
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(1.0)
            cleaned.append("poller")

    async def main() -> None:
        poller = asyncio.create_task(poll())
        try:
            await asyncio.sleep(5.0)
        finally:
            cleaned.append("main")
            await asyncio.wait([poller])

    with pytest.raises(SimulationStuck, match="polls without sleeping"):
        simulate(main)
    assert sorted(cleaned) == ["main", "poller"]


def test_a_time_that_never_comes_does_not_move_the_clock() -> None:
    """An infinite sleep can be cancelled; if nothing else is left it is a deadlock.  NaN is no time."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        forever = asyncio.create_task(asyncio.sleep(math.inf))
        await asyncio.sleep(2.0)
        forever.cancel()
        with pytest.raises(ValueError, match="NaN"):
            loop.call_later(math.nan, print)
        return loop.time()

    assert simulate(main) == 2.0
    with pytest.raises(SimulationStuck, match="nothing will ever happen again at 0 s"):
        simulate(lambda: asyncio.sleep(math.inf))


def test_an_interrupt_cancels_the_program() -> None:
    """Ctrl-C ends the program as on any loop: what stands in finally is run, in virtual time."""
    cleaned: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(3.0, os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(1000.0)
        finally:
            await asyncio.sleep(1.0)
            cleaned.append(loop.time())

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            simulate(main)
    finally:
        signal.signal(signal.SIGINT, before)
    # The signal is noticed within the next turns of the loop, which may be those of the last timers.
    assert cleaned
    assert cleaned[0] >= 4.0


async def test_a_simulation_inside_of_a_loop_is_refused() -> None:
    """The error says what to do; the program is not even made."""
    made: list[bool] = []

    async def main() -> None:
        made.append(True)

    for clock in ("virtual", "real"):
        with pytest.raises(RuntimeError, match=r"asyncio\.to_thread\(simulate, main\)"):
            simulate(main, clock=clock)  # type: ignore[arg-type]
    assert await asyncio.to_thread(simulate, main) is None
    assert made == [True]


def test_simulations_in_several_threads_do_not_disturb_each_other() -> None:
    """Each has its own clock and chance, while others begin and end."""

    async def main() -> tuple[float, str]:
        for _ in range(100):
            await asyncio.sleep(0.01)
        return round(asyncio.get_running_loop().time(), 6), AudioStreamTrack().id

    found: list[tuple[float, str]] = []

    def run() -> None:
        for _ in range(4):
            found.append(simulate(main, seed=9))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [simulate(main, seed=9)] * 12


def test_servers_and_names_of_addresses_are_refused() -> None:
    """Nothing is opened on the machine by a program that forgets where it is."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(OSError, match="no real servers"):
            await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        with pytest.raises(OSError, match="no name in virtual time"):
            await loop.getnameinfo(("127.0.0.1", 80))

    simulate(main)
