"""A call between two peers of a laboratory, seen from both sides at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from calllab.call import Call, CallState, EndReason

if TYPE_CHECKING:
    from calllab.lab.peer import LabPeer

__all__ = ["LabCall"]


class LabCall:
    """The two ends of one call; made by :meth:`LabPeer.call <calllab.lab.LabPeer.call>`."""

    def __init__(self, caller: LabPeer, callee: LabPeer, outgoing: Call) -> None:
        self.caller = caller
        self.callee = callee
        self.outgoing = outgoing
        self.incoming: Call | None = None

    @property
    def id(self) -> str:
        """The call's id on the wire."""
        return self.outgoing.id

    @property
    def state(self) -> CallState:
        """The state as the caller sees it."""
        return self.outgoing.state

    @property
    def end_reason(self) -> EndReason | None:
        """Why the call ended, as the caller sees it."""
        return self.outgoing.end_reason

    @property
    def peers(self) -> tuple[LabPeer, LabPeer]:
        """Caller and callee."""
        return self.caller, self.callee

    def side(self, peer: LabPeer) -> Call:
        """Return the call as ``peer`` has it."""
        if peer is self.caller:
            return self.outgoing
        if self.incoming is None:
            raise LookupError(f"{peer.name} has not got the call yet")
        return self.incoming

    def on_state(self, listener: Callable[[Call], None]) -> None:
        """Call ``listener`` after each change of the caller's state."""
        self.outgoing.on_state(listener)

    async def wait_connected(self, timeout: float) -> None:
        """Wait until both sides are connected; raises CallFailed if the call ends before."""
        async with asyncio.timeout(timeout):
            await self.outgoing.wait_connected()
            incoming = self.callee.current
            assert incoming is not None
            await incoming.wait_connected()
        self.incoming = incoming

    async def hang_up(self) -> None:
        """Let the caller hang up, and wait until both sides have ended and released their media."""
        await self.outgoing.hang_up()
        if self.incoming is not None:
            await self.incoming.wait_closed()
        for peer in self.peers:
            await peer.end_of_call()

    def __repr__(self) -> str:
        """Say who calls whom, and the state."""
        return f"<LabCall {self.caller.name} calls {self.callee.name}: {self.state}>"
