"""One call in virtual time, run as a program: it prints what must be the same each time.

``python -m tests.network.virtual_call SEED``
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
from typing import Any, Literal

from calllab.media import EncodedSpeechTrack, EncodedVideoTrack, MediaSink, SpeechTrack, TestPatternTrack
from calllab.network import LinkSettings, NetworkInterface, VirtualHost, VirtualNetwork, simulate
from calllab.rtc import MediaStreamTrack, RTCConfiguration, RTCIceCandidate, RTCPeerConnection

DIFFICULT = LinkSettings(delay_ms=40, jitter_ms=4, loss=0.03, duplicate=0.01, rate_kbps=900)
LONG_S = 6.0


class Caller:
    """One peer of the call: it sends speech, a picture and messages, and notes what it sees."""

    def __init__(
        self,
        name: str,
        seed: int,
        settings: LinkSettings,
        host: VirtualHost | None,
        picture: tuple[int, int, float] | None,
        encoded: bool = False,
        configuration: RTCConfiguration | None = None,
    ) -> None:
        self.interface = NetworkInterface(settings, seed=seed, name=name, host=host)
        self.pc = RTCPeerConnection(configuration, interface=self.interface, entropy=random.Random(name))
        self.sinks: list[MediaSink] = []
        self.events: list[tuple[float, str]] = []
        self._began = asyncio.get_running_loop().time()
        for event in ("connectionstatechange", "iceconnectionstatechange", "signalingstatechange"):
            self.pc.on(event, lambda event=event: self.note(f"{event} {getattr(self.pc, _STATES[event])}"))
        self.pc.on("track", self._on_track)
        if picture is None:
            return  # messages alone
        if encoded:
            self.pc.addTrack(EncodedSpeechTrack(seed=1))
            self.pc.addTrack(EncodedVideoTrack(*picture, seed=2))
        else:
            self.pc.addTrack(SpeechTrack(seed=1))
            self.pc.addTrack(TestPatternTrack(*picture, seed=2))

    def note(self, what: str) -> None:
        """Write down what happened, and when."""
        self.events.append((asyncio.get_running_loop().time() - self._began, what))

    def _on_track(self, track: MediaStreamTrack, *_: object) -> None:
        sink = MediaSink(track)
        self.sinks.append(sink)
        sink.start()

    def trickle_to(self, other: Caller) -> None:
        """Send candidates on as they come."""

        async def take(candidate: RTCIceCandidate | None) -> None:
            while other.pc.remoteDescription is None:
                await asyncio.sleep(0.005)
            await other.pc.addIceCandidate(candidate)

        self.pc.on("icecandidate", lambda candidate: asyncio.ensure_future(take(candidate)))

    async def close(self) -> None:
        """Close everything."""
        for sink in self.sinks:
            await sink.stop()
        for sender in self.pc.getSenders():
            if sender.track is not None:
                sender.track.stop()
        await self.pc.close()
        self.interface.close()


_STATES = {
    "connectionstatechange": "connectionState",
    "iceconnectionstatechange": "iceConnectionState",
    "signalingstatechange": "signalingState",
}


async def call(
    seed: int,
    settings: LinkSettings = DIFFICULT,
    long_s: float = LONG_S,
    *,
    sockets: bool = False,
    picture: tuple[int, int, float] = (160, 120, 10.0),
    encoded: bool = False,
) -> dict[str, Any]:
    """Make a call and return what both saw of it, and what the network carried.

    :param sockets: use the machine's own sockets instead of a network in memory.
    :param encoded: send media that was encoded beforehand.
    """
    network = None if sockets else VirtualNetwork(seed=seed, log=True)
    hosts = [None if network is None else network.add_host(name) for name in ("alice", "bob")]
    a, b = (
        Caller(name, seed, settings, host, picture, encoded)
        for name, host in zip(("alice", "bob"), hosts, strict=True)
    )
    a.trickle_to(b)
    b.trickle_to(a)
    channel = a.pc.createDataChannel("echo")
    channel.on("message", lambda message: a.note(f"heard {message}"))
    b.pc.on("datachannel", lambda theirs: theirs.on("message", lambda text: theirs.send(f"{text} yourself")))
    channel.on("open", lambda: channel.send("hello"))
    await a.pc.setLocalDescription()
    await b.pc.setRemoteDescription(a.pc.localDescription)
    await b.pc.setLocalDescription()
    await a.pc.setRemoteDescription(b.pc.localDescription)
    await asyncio.sleep(long_s)
    statistics = [dict(await peer.pc.getStats()) for peer in (a, b)]
    await a.close()
    await b.close()
    return {
        "events": [a.events, b.events],
        "statistics": statistics,
        "playout": [[repr(sink.take()) for sink in peer.sinks] for peer in (a, b)],
        "network": None if network is None else network.digest(),
    }


def run(seed: int, codecs: Literal["real", "packets", "stand-in"] = "real") -> dict[str, Any]:
    """Make the call in virtual time."""
    encoded = codecs == "packets"
    return simulate(
        lambda: call(seed, encoded=encoded), seed=seed, codecs="real" if codecs == "packets" else codecs
    )


def digest(result: dict[str, Any]) -> str:
    """Return a hash of all that a call has shown."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    print(digest(run(int(sys.argv[1]))))
