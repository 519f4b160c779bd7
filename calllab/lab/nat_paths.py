"""Which path two peers find, for every pairing of NATs: real ICE agents on a network in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from calllab.errors import InvalidSetting
from calllab.network import (
    NAT_KINDS,
    LinkSettings,
    NetworkInterface,
    VirtualNetwork,
    nat_kind,
    simulate,
)
from calllab.rtc import RTCConfiguration, RTCIceCandidate, RTCIceServer, RTCPeerConnection

__all__ = ["OPEN", "PATIENCE_S", "NatMatrix", "NatPath", "nat_matrix"]

OPEN: Final = "open"
"""No NAT at all: a public address."""

PATIENCE_S: Final = 3.0
"""How long a call is left alone once it is connected: a direct path may take the place of a relayed one."""

_ENDED: Final = frozenset({"connected", "failed"})


@dataclass(frozen=True, slots=True)
class NatPath:
    """What a caller behind one NAT and a callee behind another came to."""

    caller: str
    callee: str
    local: str | None
    """The type of the caller's candidate in the selected pair (RFC 8445 section 5.1.1); None: it failed."""
    remote: str | None
    """The type of the callee's candidate, as the caller sees it."""
    connected_s: float | None
    """How long it took until both were connected."""

    @property
    def outcome(self) -> str:
        """``direct``, ``relayed`` or ``failed``."""
        if self.local is None:
            return "failed"
        return "relayed" if "relay" in (self.local, self.remote) else "direct"

    @property
    def pair(self) -> str:
        """The selected pair, like ``host/srflx``, or ``failed``."""
        return "failed" if self.local is None else f"{self.local}/{self.remote}"


@dataclass(frozen=True)
class NatMatrix:
    """The paths between all kinds; ``matrix[caller, callee]`` is one of them."""

    kinds: tuple[str, ...]
    turn: bool
    paths: Mapping[tuple[str, str], NatPath]

    def __getitem__(self, pairing: tuple[str, str]) -> NatPath:
        return self.paths[pairing]


def nat_matrix(kinds: Sequence[str] = (OPEN, *NAT_KINDS), *, turn: bool = False, seed: int = 0) -> NatMatrix:
    """Call from behind each kind of NAT to behind each other, in virtual time, and return what came of it.

    A STUN server tells the peers their public addresses; with ``turn`` there is a TURN server too.  It takes
    about a second and needs a thread without a running event loop: in a notebook,
    ``await asyncio.to_thread(nat_matrix)``.

    Raises :exc:`~calllab.errors.InvalidSetting` for an unknown kind.
    """
    for kind in kinds:
        if kind != OPEN:
            nat_kind(kind)
    if not kinds:
        raise InvalidSetting(f"no kind of NAT is named: there are {', '.join((OPEN, *NAT_KINDS))}")

    def one(caller: str, callee: str) -> NatPath:
        return simulate(lambda: _call(caller, callee, turn, seed), seed=seed)

    paths = {(caller, callee): one(caller, callee) for caller in kinds for callee in kinds}
    return NatMatrix(tuple(kinds), turn, paths)


async def _call(caller: str, callee: str, turn: bool, seed: int) -> NatPath:
    network = VirtualNetwork(seed=seed)
    configuration = _servers(network, turn)
    interfaces, pcs = [], []
    for name, kind in (("caller", caller), ("callee", callee)):
        host = network.add_host(name, nat=None if kind == OPEN else nat_kind(kind))
        interfaces.append(NetworkInterface(LinkSettings(delay_ms=10), seed=seed, name=name, host=host))
        pcs.append(
            RTCPeerConnection(
                configuration, interface=interfaces[-1], entropy=random.Random(f"{seed}/{name}")
            )
        )
    try:
        here, there = pcs
        _trickle(here, there)
        _trickle(there, here)
        here.createDataChannel("any")
        ended = asyncio.create_task(_ended(here, there))
        await here.setLocalDescription()
        assert here.localDescription is not None
        await there.setRemoteDescription(here.localDescription)
        await there.setLocalDescription()
        assert there.localDescription is not None
        await here.setRemoteDescription(there.localDescription)
        return await _outcome(caller, callee, here, await ended)
    finally:
        for pc in pcs:
            await pc.close()
        for interface in interfaces:
            interface.close()
        network.close()


def _servers(network: VirtualNetwork, turn: bool) -> RTCConfiguration:
    server = network.add_turn_server()
    servers = [RTCIceServer(urls=list(server.stun_uris))]
    if turn:
        made = server.credentials("anybody")
        servers.append(RTCIceServer(urls=list(made.uris), username=made.username, credential=made.password))
    return RTCConfiguration(iceServers=servers)


def _trickle(sender: RTCPeerConnection, receiver: RTCPeerConnection) -> None:
    """Signal candidates at once, but not before the description that they belong to."""
    described = asyncio.Event()

    def signaling_changed() -> None:
        if receiver.remoteDescription is not None:
            described.set()

    async def add(candidate: RTCIceCandidate | None) -> None:
        await described.wait()
        await receiver.addIceCandidate(candidate)

    receiver.on("signalingstatechange", signaling_changed)
    sender.on("icecandidate", add)


async def _ended(*pcs: RTCPeerConnection) -> float | None:
    """Wait until each has connected or failed; return how long it took, None if one has failed."""
    clock = asyncio.get_running_loop().time
    began, changed = clock(), asyncio.Event()
    for pc in pcs:
        pc.on("connectionstatechange", changed.set)
    while not {pc.connectionState for pc in pcs} <= _ENDED:
        changed.clear()
        await changed.wait()
    return None if "failed" in {pc.connectionState for pc in pcs} else clock() - began


async def _outcome(caller: str, callee: str, here: RTCPeerConnection, took: float | None) -> NatPath:
    if took is None:
        return NatPath(caller, callee, None, None, None)
    await asyncio.sleep(PATIENCE_S)
    assert here.sctp is not None
    pair = here.sctp.transport.iceTransport.getSelectedCandidatePair()
    assert pair is not None
    return NatPath(caller, callee, pair.local.type, pair.remote.type, took)
