"""When connectivity checks are sent, to the millisecond: ICE agents in virtual time."""

from __future__ import annotations

import asyncio
import random

from calllab._aiortc.ice_transport import IceTransport
from calllab.network import LinkSettings, NetworkInterface, VirtualNetwork, simulate
from tests._aiortc.helpers import IcePair, Side, Wire, until


async def connect(late_s: float) -> float:
    """Let two agents meet over 1 ms, candidates ``late_s`` after the credentials; return how long it took."""
    network = VirtualNetwork(seed=1)
    sides, interfaces = [], []
    for name in ("alice", "bob"):
        interface = NetworkInterface(LinkSettings(delay_ms=1), name=name, host=network.add_host(name))
        ice = IceTransport(interface=interface, entropy=random.Random(name))
        interfaces.append(interface)
        sides.append(Side(name, ice, Wire(), random.Random(name)))
    alice, bob = sides
    loop = asyncio.get_running_loop()
    try:
        alice.prepare(offerer=True)
        bob.prepare(offerer=False)
        await asyncio.sleep(0.1)  # both have gathered
        for here, there in ((alice, bob), (bob, alice)):
            here.ice.commit(here.credentials, there.credentials, candidates=())
        await asyncio.sleep(late_s)
        began = loop.time()
        for here, there in ((alice, bob), (bob, alice)):
            for line in there.candidates[there.credentials.ufrag]:
                here.ice.add_remote_candidate(there.credentials.ufrag, line)
        await until(lambda: IcePair(*sides) and alice.ice.state == bob.ice.state == "completed")
        return loop.time() - began
    finally:
        await asyncio.gather(*(side.ice.close() for side in sides))
        for interface in interfaces:
            interface.close()


def test_a_trickled_candidate_is_checked_at_once() -> None:
    """A candidate that finds nothing else to check does not wait for the next tick of the pace."""
    for late_s in (0.0, 0.001, 0.007, 0.019, 0.25):
        assert simulate(lambda late_s=late_s: connect(late_s)) < 0.012, late_s  # type: ignore[misc]
