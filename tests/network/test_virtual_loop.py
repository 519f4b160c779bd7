"""The loop whose clock jumps."""

from __future__ import annotations

import asyncio
import time

import pytest

from calllab.errors import SimulationStuck
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
