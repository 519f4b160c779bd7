"""What STUN servers see of a NAT."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from calllab.network import NetworkInterface, VirtualNetwork, nat_kind, simulate
from calllab.rtc import RTCConfiguration, RTCIceServer, RTCPeerConnection


async def reflexive_ports(kind: str) -> set[int]:
    """Return the public ports that two STUN servers see of one socket."""
    network = VirtualNetwork(seed=1)
    servers = [network.add_stun_server(name) for name in ("stun-one", "stun-two")]
    interface = NetworkInterface(name="alice", host=network.add_host("alice", nat=nat_kind(kind)))
    urls = [uri for server in servers for uri in server.stun_uris]
    pc = RTCPeerConnection(
        RTCConfiguration(iceServers=[RTCIceServer(urls=urls)]), interface=interface, entropy=random.Random(1)
    )
    ports: set[int] = set()
    done = asyncio.Event()

    def on_candidate(candidate: Any) -> None:
        if candidate is None:
            done.set()
        elif candidate.type == "srflx":
            ports.add(candidate.port)

    pc.on("icecandidate", on_candidate)
    pc.createDataChannel("any")
    await pc.setLocalDescription()
    async with asyncio.timeout(30.0):
        await done.wait()
    await pc.close()
    interface.close()
    network.close()
    return ports


@pytest.mark.parametrize(
    ("kind", "ports"),
    [("full-cone", 1), ("port-restricted-cone", 1), ("address-dependent", 2), ("symmetric", 2)],
)
def test_two_stun_servers_tell_the_mapping(kind: str, ports: int) -> None:
    """Behind a NAT whose mappings depend on the destination, two servers see two ports of one socket."""
    assert len(simulate(lambda: reflexive_ports(kind))) == ports
