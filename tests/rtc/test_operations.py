"""The operations chain, the emitter and the candidate gate."""

from __future__ import annotations

import asyncio

import pytest

from calllab.rtc.candidate_gate import CandidateGate
from calllab.rtc.emitter import Emitter
from calllab.rtc.errors import InvalidStateError
from calllab.rtc.operations import OperationsChain
from calllab.rtc.states import connection_state


async def test_operations_run_one_after_the_other() -> None:
    """Operations run in the order of their calls, one after the other; then the chain is empty."""
    order: list[str] = []
    empty: list[bool] = []
    chain = OperationsChain(lambda: empty.append(chain.is_empty))
    release = asyncio.Event()

    async def slow() -> str:
        order.append("slow begins")
        await release.wait()
        order.append("slow ends")
        return "slow"

    async def quick() -> str:
        order.append("quick")
        return "quick"

    async def fails() -> str:
        raise ZeroDivisionError

    tasks = [asyncio.create_task(chain.run("x", operation)) for operation in (slow, fails, quick)]
    await asyncio.sleep(0)
    assert not chain.is_empty
    release.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["slow begins", "slow ends", "quick"]
    assert [results[0], results[2]] == ["slow", "quick"]
    assert isinstance(results[1], ZeroDivisionError)
    assert empty == [True]


async def test_a_cancelled_operation_leaves_the_chain() -> None:
    """An operation that is cancelled while it waits never runs and holds nobody up."""
    chain = OperationsChain(lambda: None)
    release, ran = asyncio.Event(), []

    async def wait() -> None:
        await release.wait()

    async def note() -> None:
        ran.append(True)

    first = asyncio.create_task(chain.run("first", wait))
    cancelled = asyncio.create_task(chain.run("second", note))
    last = asyncio.create_task(chain.run("third", note))
    await asyncio.sleep(0)
    cancelled.cancel()
    release.set()
    await asyncio.gather(first, last)
    assert ran == [True]
    assert cancelled.cancelled()
    assert chain.is_empty


async def test_a_closed_chain_refuses() -> None:
    """After close() neither new operations nor those that wait run."""
    chain = OperationsChain(lambda: pytest.fail("a closed chain tells nobody"))
    release, ran = asyncio.Event(), []

    async def wait() -> None:
        await release.wait()

    async def note() -> None:
        ran.append(True)

    first = asyncio.create_task(chain.run("first", wait))
    second = asyncio.create_task(chain.run("second", note))
    await asyncio.sleep(0)
    chain.close()
    release.set()
    await first
    with pytest.raises(InvalidStateError, match="second"):
        await second
    with pytest.raises(InvalidStateError, match="third"):
        await chain.run("third", note)
    assert not ran


async def test_emitter() -> None:
    """Handlers run in order, once() once, removed ones never, coroutines as tasks that can be cancelled."""
    emitter, seen = Emitter(), []
    forever = asyncio.Event()

    @emitter.on("event")
    def first(value: int) -> None:
        seen.append(("first", value))

    emitter.once("event", lambda value: seen.append(("once", value)))
    removed = emitter.on("event", lambda value: seen.append(("removed", value)))
    emitter.remove_listener("event", removed)

    async def coroutine(value: int) -> None:
        seen.append(("coroutine", value))
        await forever.wait()

    emitter.on("event", coroutine)
    assert emitter.emit("event", 1)
    assert emitter.emit("event", 2)
    assert not emitter.emit("other")
    assert seen == [("first", 1), ("once", 1), ("first", 2)]
    await asyncio.sleep(0)
    assert seen[3:] == [("coroutine", 1), ("coroutine", 2)]
    await emitter.cancel_handlers()
    emitter.remove_all_listeners()
    assert not emitter.emit("event", 3)


async def test_a_handler_may_close_what_called_it() -> None:
    """Cancelling the handlers from within one of them does not cancel that one."""
    emitter, reached = Emitter(), asyncio.Event()

    async def closes() -> None:
        await emitter.cancel_handlers()
        reached.set()

    emitter.on("event", closes)
    emitter.emit("event")
    async with asyncio.timeout(2):
        await reached.wait()


async def test_gate_keeps_the_order() -> None:
    """What is held back comes out in order, before what comes later."""
    gate, seen = CandidateGate(), []
    gate.pass_through(lambda: seen.append(1))
    assert seen == [1]
    gate.close_for_a_moment()
    for number in (2, 3):
        gate.pass_through(lambda number=number: seen.append(number))
    assert seen == [1]
    while len(seen) < 3:
        await asyncio.sleep(0)
    gate.pass_through(lambda: seen.append(4))
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("ice", "dtls", "state"),
    [
        ("new", "new", "new"),
        ("checking", "new", "connecting"),
        ("connected", "connecting", "connecting"),
        ("completed", "connected", "connected"),
        ("connected", "closed", "connected"),
        ("disconnected", "connected", "disconnected"),
        ("failed", "connected", "failed"),
        ("connected", "failed", "failed"),
    ],
)
def test_connection_states(ice: str, dtls: str, state: str) -> None:
    """The connection state is the first row of the table in webrtc-pc 4.3.3 that applies."""
    assert connection_state(ice, dtls, closed=False) == state
    assert connection_state(ice, dtls, closed=True) == "closed"
