"""Which path a real call finds between every two kinds of NAT."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from calllab.network import LinkSettings, NetworkInterface, VirtualNetwork, nat_kind, simulate
from calllab.rtc import RTCConfiguration, RTCIceServer, RTCPeerConnection

KINDS = ("open", "full-cone", "restricted-cone", "port-restricted-cone", "address-dependent", "symmetric")

# What RFC 5128 and the field say: a hole can be punched unless the port that one end sends from is new for
# the other (its mapping depends on the destination) and the other lets in only ports that it has sent to
# itself, or has the same trouble.  Rows and columns are in the order of KINDS.
DIRECT = (
    (True, True, True, True, True, True),
    (True, True, True, True, True, True),
    (True, True, True, True, True, True),
    (True, True, True, True, False, False),
    (True, True, True, False, False, False),
    (True, True, True, False, False, False),
)


async def call(kinds: tuple[str, str], turn: bool) -> str:
    """Call from behind one NAT to behind another; return the types of the selected pair, or "failed"."""
    network = VirtualNetwork(seed=1)
    server = network.add_turn_server()
    credentials = server.credentials("anybody")
    ice_servers = [RTCIceServer(urls=list(server.stun_uris))]
    if turn:
        ice_servers.append(
            RTCIceServer(
                urls=list(credentials.uris), username=credentials.username, credential=credentials.password
            )
        )
    interfaces, pcs = [], []
    for name, kind in zip(("alice", "bob"), kinds, strict=True):
        host = network.add_host(name, nat=None if kind == "open" else nat_kind(kind))
        interfaces.append(NetworkInterface(LinkSettings(delay_ms=10), name=name, host=host))
        pcs.append(
            RTCPeerConnection(
                RTCConfiguration(iceServers=ice_servers),
                interface=interfaces[-1],
                entropy=random.Random(name),
            )
        )
    a, b = pcs
    for pc, other in ((a, b), (b, a)):
        pc.on("icecandidate", _add_to(other))
    a.createDataChannel("any")
    await a.setLocalDescription()
    await b.setRemoteDescription(a.localDescription)
    await b.setLocalDescription()
    await a.setRemoteDescription(b.localDescription)
    while {a.connectionState, b.connectionState} - {"connected", "failed"}:
        await asyncio.sleep(0.1)
    await asyncio.sleep(3.0)  # a direct path may take the place of a relayed one
    found = a.connectionState
    if found == "connected":
        pair = a.sctp.transport.iceTransport.getSelectedCandidatePair()
        found = f"{pair.local.type}/{pair.remote.type}"
        # Both ends send over the same path.
        other = b.sctp.transport.iceTransport.getSelectedCandidatePair()
        assert ("relay" in found) == ("relay" in (other.local.type, other.remote.type))
    for pc in pcs:
        await pc.close()
    for interface in interfaces:
        interface.close()
    network.close()
    return found


def _add_to(other: RTCPeerConnection) -> Any:
    async def add(candidate: Any) -> None:
        while other.remoteDescription is None:
            await asyncio.sleep(0.01)
        await other.addIceCandidate(candidate)

    return add


@pytest.mark.parametrize("turn", [False, True], ids=["stun", "turn"])
def test_the_path_is_the_one_that_the_field_knows(turn: bool) -> None:
    """Direct wherever a hole can be punched; else relayed if there is a TURN server, and failed if not."""
    found = {
        (a, b): simulate(lambda a=a, b=b: call((a, b), turn), seed=1)  # type: ignore[misc]
        for a in KINDS
        for b in KINDS
    }
    for row, a in enumerate(KINDS):
        for column, b in enumerate(KINDS):
            path = found[a, b]
            if DIRECT[row][column]:
                assert "relay" not in path, (a, b, path)
                assert path != "failed", (a, b)
            else:
                assert path == ("relay/relay" if turn else "failed"), (a, b)
    assert found["open", "open"] == "host/host"
    assert found["full-cone", "full-cone"] == "host/srflx"
    assert found["full-cone", "symmetric"] == "host/prflx"


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
