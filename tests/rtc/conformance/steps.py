"""What the conformance tests do over and over."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from calllab.rtc import RTCPeerConnection, RTCSessionDescription
from tests.rtc.peers import turns

PC_EVENTS = (
    "negotiationneeded",
    "signalingstatechange",
    "icegatheringstatechange",
    "iceconnectionstatechange",
    "connectionstatechange",
)


class Log:
    """The names of events, in the order in which they fired."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def watch(self, thing: Any, *events: str, name: Callable[..., str] | None = None) -> Log:
        """Write down each of these events; ``name`` makes the entry of its arguments."""
        for event in events:

            def note(*arguments: Any, event: str = event) -> None:
                self.entries.append(event if name is None else name(*arguments))

            thing.on(event, note)
        return self

    def take(self) -> list[str]:
        """Return what was written since the last time."""
        taken, self.entries = self.entries, []
        return taken

    async def settled(self) -> list[str]:
        """Let the event loop turn, then return what was written."""
        await turns(24)
        return self.take()


@contextlib.asynccontextmanager
async def peers(count: int = 2) -> AsyncIterator[list[RTCPeerConnection]]:
    """Unconnected peer connections that are closed at the end."""
    made = [RTCPeerConnection() for _ in range(count)]
    try:
        yield made
    finally:
        for peer in made:
            await peer.close()


async def offer(offerer: RTCPeerConnection, answerer: RTCPeerConnection) -> None:
    """Set an offer on both sides."""
    await offerer.setLocalDescription()
    await answerer.setRemoteDescription(local(offerer))


async def answer(offerer: RTCPeerConnection, answerer: RTCPeerConnection) -> None:
    """Set an answer on both sides."""
    await answerer.setLocalDescription()
    await offerer.setRemoteDescription(local(answerer))


async def negotiate(offerer: RTCPeerConnection, answerer: RTCPeerConnection) -> None:
    """Carry one offer and its answer over, without candidates."""
    await offer(offerer, answerer)
    await answer(offerer, answerer)


def local(peer: RTCPeerConnection) -> RTCSessionDescription:
    """Return a local description that is known to be there."""
    assert peer.localDescription is not None
    return peer.localDescription


def without_candidates(description: RTCSessionDescription | None) -> RTCSessionDescription | None:
    """Return a description as it was set: candidates come in their own time."""
    if description is None:
        return None
    kept = [
        line
        for line in description.sdp.split("\r\n")
        if not line.startswith(("a=candidate:", "a=end-of-candidates"))
    ]
    return RTCSessionDescription(description.type, "\r\n".join(kept))


def lines(description: RTCSessionDescription | None, *prefixes: str) -> list[str]:
    """Return the lines of a description that begin with one of these."""
    assert description is not None
    return [line for line in description.sdp.split("\r\n") if line.startswith(prefixes)]
