"""Real peer connections on this host, linked in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from calllab.rtc import (
    AudioStreamTrack,
    MediaStream,
    RTCIceCandidate,
    RTCPeerConnection,
    RTCRtpTransceiver,
)

WAIT_S = 10.0


async def until(condition: Callable[[], bool], what: str) -> None:
    """Return as soon as ``condition`` holds; fail with ``what`` if it does not in time."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never came to be: {what}") from None


async def turns(count: int = 12) -> None:
    """Let the event loop turn, so that everything that is due has run."""
    for _ in range(count):
        await asyncio.sleep(0)


class Candidates:
    """Carries candidates from one peer to the other, in order, behind what is awaited here."""

    def __init__(self, source: RTCPeerConnection, target: RTCPeerConnection) -> None:
        self.sent: list[RTCIceCandidate | None] = []
        self._target = target
        self._waiting: list[RTCIceCandidate] = []
        self._open = False
        self._tasks: set[asyncio.Task[None]] = set()
        source.on("icecandidate", self._take)

    def _take(self, candidate: RTCIceCandidate | None) -> None:
        self.sent.append(candidate)
        if candidate is None:
            return
        if self._open:
            self._send(candidate)
        else:
            self._waiting.append(candidate)

    def _send(self, candidate: RTCIceCandidate) -> None:
        task = asyncio.get_running_loop().create_task(self._target.addIceCandidate(candidate.toJSON()))
        self._tasks.add(task)

    def open(self) -> None:
        """Let through what waits, and all that comes."""
        self._open = True
        for candidate in self._waiting:
            self._send(candidate)
        self._waiting.clear()

    async def close(self) -> None:
        """Wait for what was sent; raises what the target refused."""
        await asyncio.gather(*self._tasks)


class Pair:
    """Two peer connections, their candidates, and what they said."""

    def __init__(self) -> None:
        self.a, self.b = RTCPeerConnection(), RTCPeerConnection()
        self.candidates = Candidates(self.a, self.b), Candidates(self.b, self.a)
        self.events: list[tuple[str, str, str]] = []
        self.tracks: list[tuple[str, Any, RTCRtpTransceiver, list[MediaStream]]] = []
        for name, peer in (("a", self.a), ("b", self.b)):
            self._watch(name, peer)

    def _watch(self, name: str, peer: RTCPeerConnection) -> None:
        for event, member in (
            ("signalingstatechange", "signalingState"),
            ("connectionstatechange", "connectionState"),
            ("iceconnectionstatechange", "iceConnectionState"),
        ):
            peer.on(
                event,
                lambda event=event, member=member: self.events.append((name, event, getattr(peer, member))),
            )
        peer.on("rollback", lambda implicit: self.events.append((name, "rollback", str(implicit))))
        peer.on(
            "track",
            lambda track, _, transceiver, streams: self.tracks.append((name, track, transceiver, streams)),
        )

    def states(self, name: str, event: str) -> list[str]:
        """Return the states that a peer went through."""
        return [state for who, what, state in self.events if (who, what) == (name, event)]

    async def exchange(self, *, by_b: bool = False) -> None:
        """Carry an offer and its answer over."""
        offerer, answerer = (self.b, self.a) if by_b else (self.a, self.b)
        await offerer.setLocalDescription()
        await finish(offerer, answerer)
        for candidates in self.candidates:
            candidates.open()

    async def connected(self) -> None:
        """Wait until both are connected."""
        await until(
            lambda: self.a.connectionState == self.b.connectionState == "connected",
            f"connected ({self.a.connectionState}, {self.b.connectionState})",
        )

    async def media_flows(self) -> None:
        """Wait until more packets have come for every negotiated direction."""
        for peer, other in ((self.a, self.b), (self.b, self.a)):
            sending = {t.mid for t in other.getTransceivers() if t.sender.track is not None}
            for transceiver in peer.getTransceivers():
                if transceiver.currentDirection in ("sendrecv", "recvonly") and transceiver.mid in sending:
                    await more_packets(transceiver)

    async def close(self) -> None:
        """Close both; raises if a candidate was refused."""
        for candidates in self.candidates:
            await candidates.close()
        await self.a.close()
        await self.b.close()


async def finish(offerer: RTCPeerConnection, answerer: RTCPeerConnection) -> None:
    """Carry the pending offer over, and the answer back."""
    assert offerer.localDescription is not None
    await answerer.setRemoteDescription(offerer.localDescription)
    await answerer.setLocalDescription()
    assert answerer.localDescription is not None
    await offerer.setRemoteDescription(answerer.localDescription.toJSON())


async def packets_received(transceiver: RTCRtpTransceiver) -> int:
    """Return how many RTP packets a transceiver has received."""
    report = await transceiver.receiver.getStats()
    return sum(entry["packetsReceived"] for entry in report.values() if entry["type"] == "inbound-rtp")


async def more_packets(transceiver: RTCRtpTransceiver) -> None:
    """Wait until a transceiver has received five more packets."""
    enough = await packets_received(transceiver) + 5
    try:
        async with asyncio.timeout(WAIT_S):
            while await packets_received(transceiver) < enough:
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"no media comes to {transceiver!r}") from None


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    """Two peer connections that are closed at the end."""
    made = Pair()
    try:
        yield made
    finally:
        await made.close()


@contextlib.asynccontextmanager
async def audio_call() -> AsyncIterator[Pair]:
    """Two peers in a call with audio both ways."""
    async with pair() as call:
        call.a.addTrack(AudioStreamTrack(), MediaStream(id="from-a"))
        call.b.addTrack(AudioStreamTrack(), MediaStream(id="from-b"))
        await call.exchange()
        await call.connected()
        await call.media_flows()
        yield call
