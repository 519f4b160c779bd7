"""Two peer connections with data channels, over wires that a test can cut."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from calllab.rtc import RTCDataChannel, RTCPeerConnection
from tests._aiortc.helpers import Wire
from tests.rtc.peers import Candidates, Pair, until


class WiredPair(Pair):
    """A pair whose datagrams pass wires: ``wires[0]`` is a's, ``wires[1]`` b's."""

    def __init__(self, a: RTCPeerConnection | None = None, b: RTCPeerConnection | None = None) -> None:
        self.wires = Wire(), Wire()
        self.a = a or RTCPeerConnection(interface=self.wires[0])
        self.b = b or RTCPeerConnection(interface=self.wires[1])
        self.candidates = Candidates(self.a, self.b), Candidates(self.b, self.a)
        self.events = []
        self.tracks = []
        self.channels: list[RTCDataChannel] = []
        """What the peer of a was told of."""
        self.b.on("datachannel", self.channels.append)

    async def channel_pair(self, label: str = "", **options: Any) -> tuple[RTCDataChannel, RTCDataChannel]:
        """Return both ends of a channel that is open; connects if that has not happened."""
        if options.get("negotiated"):
            here, there = (peer.createDataChannel(label, **options) for peer in (self.a, self.b))
            await self.connect()
        else:
            known = len(self.channels)
            here = self.a.createDataChannel(label, **options)
            await self.connect()
            await until(lambda: len(self.channels) > known, "the channel at the peer")
            there = self.channels[-1]
        await until(lambda: here.readyState == there.readyState == "open", "both ends open")
        return here, there

    async def connect(self) -> None:
        """Negotiate once, and wait until both are connected."""
        if self.a.signalingState == "stable" and self.a.currentLocalDescription is None:
            await self.exchange()
        await self.connected()


def events_of(channel: RTCDataChannel) -> list[str]:
    """Return a list that grows with the names of the events of a channel's life."""
    seen: list[str] = []
    for name in ("open", "closing", "error", "close"):
        channel.on(name, lambda *_, name=name: seen.append(name))
    return seen


def inbox_of(channel: RTCDataChannel) -> list[str | bytes]:
    """Return a list that grows with a channel's messages."""
    inbox: list[str | bytes] = []
    channel.on("message", inbox.append)
    return inbox


@contextlib.asynccontextmanager
async def pair_with(
    a: RTCPeerConnection | None = None, b: RTCPeerConnection | None = None
) -> AsyncIterator[WiredPair]:
    """Two peer connections, one or both given; closed at the end."""
    made = WiredPair(a, b)
    try:
        yield made
    finally:
        for wire in made.wires:
            wire.cut_out = wire.cut_in = False
            wire.drop = lambda data: False
        await made.close()


def wired_pair() -> contextlib.AbstractAsyncContextManager[WiredPair]:
    """Two peer connections over wires, closed at the end."""
    return pair_with()
