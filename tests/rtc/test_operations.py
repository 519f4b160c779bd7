"""The operations chain keeps the order of the calls, whoever awaits them and whoever gives up."""

from __future__ import annotations

import asyncio

import pytest

from calllab.rtc import InvalidStateError, RTCPeerConnection
from calllab.rtc.operations import OperationsChain


async def test_an_operation_takes_its_place_at_the_call() -> None:
    """The chain is not empty from the call on, before anybody has awaited anything."""
    empty: list[bool] = []
    chain = OperationsChain(lambda: empty.append(True))

    async def nothing() -> None:
        assert empty == []

    pending = chain.run("first", nothing)
    assert not chain.is_empty
    await pending
    assert chain.is_empty
    assert empty == [True]


async def test_operations_run_in_the_order_of_their_calls() -> None:
    """Awaiting the last one first changes nothing."""
    chain, order = OperationsChain(lambda: None), []

    def operation(number: int) -> asyncio.Future[None]:
        async def run() -> None:
            await asyncio.sleep(0)
            order.append(number)

        return asyncio.ensure_future(chain.run(str(number), run))

    pending = [operation(number) for number in range(4)]
    await pending[3]
    assert order == [0, 1, 2, 3]
    await asyncio.gather(*pending)


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_a_cancelled_operation_does_not_stall_the_chain(steps: int) -> None:
    """Whether it is cancelled while it waits for its turn or in the middle, the next one runs."""
    chain = OperationsChain(lambda: None)

    async def forever() -> None:
        await asyncio.Event().wait()

    async def soon() -> str:
        return "done"

    stuck = asyncio.ensure_future(chain.run("stuck", forever))
    waiting = asyncio.ensure_future(chain.run("waiting", forever))
    following = chain.run("following", soon)
    for _ in range(steps):
        await asyncio.sleep(0)
    waiting.cancel()
    stuck.cancel()
    async with asyncio.timeout(1):
        assert await following == "done"
    assert chain.is_empty


async def test_a_closed_connection_refuses_what_waited_and_what_comes() -> None:
    """Operations that had not begun when the connection was closed are refused, and so are later ones."""
    pc = RTCPeerConnection()
    pc.addTransceiver("audio")
    early = pc.createOffer()
    await pc.close()
    with pytest.raises(InvalidStateError, match="createOffer"):
        await early
    with pytest.raises(InvalidStateError, match="setLocalDescription"):
        await pc.setLocalDescription()


async def test_an_answer_is_made_once_although_tracks_wait_to_be_negotiated() -> None:
    """A remote offer set right after addTrack is answered with the track in it: no offer of ours follows."""
    async with RTCPeerConnection() as offerer, RTCPeerConnection() as answerer:
        offerer.addTransceiver("audio")
        await offerer.setLocalDescription()
        fired: list[str] = []
        answerer.on("negotiationneeded", lambda: fired.append(answerer.signalingState))
        answerer.addTransceiver("audio")
        assert offerer.localDescription is not None
        pending = answerer.setRemoteDescription(offerer.localDescription)
        await pending
        await answerer.setLocalDescription()
        await asyncio.sleep(0.05)
        assert answerer.signalingState == "stable"
        assert fired in ([], ["stable"])
