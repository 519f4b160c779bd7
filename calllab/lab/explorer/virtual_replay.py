"""Replaying a trace on real peer connections in virtual time: at once, and the same every time."""

from __future__ import annotations

from calllab.lab.explorer.connection_replay import ConnectionDriver
from calllab.lab.explorer.mutant import Mutant
from calllab.lab.explorer.scripted_replay import Replay, replay
from calllab.lab.explorer.trace import PEERS, Trace
from calllab.network import NetworkInterface, VirtualNetwork, simulate

__all__ = ["replay_in_virtual_time"]


def replay_in_virtual_time(trace: Trace, mutant: Mutant | None = None) -> Replay:
    """Replay a trace on two peer connections of a virtual network.

    :param mutant: other peers than the trace's, as :data:`~calllab.lab.explorer.UNCHANGED`: what cannot
        happen with them is left out, and then all runs on until they agree.

    Raises LabError if the trace is not one of these peers; RuntimeError if an event loop is running.
    """

    async def main() -> Replay:
        network = VirtualNetwork(seed=0)
        interfaces = {
            name: NetworkInterface(seed=0, name=name, host=network.add_host(name)) for name in PEERS
        }
        try:
            async with ConnectionDriver(trace, mutant, interfaces=interfaces) as driver:
                return await replay(trace, driver, then_settle=mutant not in (None, trace.mutation))
        finally:
            for interface in interfaces.values():
                interface.close()

    return simulate(main)
