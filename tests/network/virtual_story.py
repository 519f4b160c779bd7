"""An eventful hour of one call in virtual time, shortened; run as a program it prints what must be the same.

Behind NATs, over TURN, with ICE restarts, a change of network, a server that dies, several data channels, and
another codec half way.  ``python -m tests.network.virtual_story SEED``
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from calllab.media import TestPatternTrack
from calllab.network import LinkSettings, NatSettings, VirtualNetwork, nat_kind, simulate
from calllab.rtc import RTCConfiguration, RTCIceServer, RTCRtpReceiver
from tests.network.virtual_call import Caller, digest

LINK = LinkSettings(delay_ms=30, jitter_ms=3, loss=0.02)


async def negotiate(a: Caller, b: Caller) -> None:
    """Exchange descriptions once, offered by ``a``."""
    await a.pc.setLocalDescription()
    await b.pc.setRemoteDescription(a.pc.localDescription)
    await b.pc.setLocalDescription()
    await a.pc.setRemoteDescription(b.pc.localDescription)


async def story(seed: int) -> dict[str, Any]:
    """Live through it, and return what both saw and what the network carried."""
    network = VirtualNetwork(seed=seed, log=True)
    network.add_nat("flat", NatSettings(port_assignment="random", filtering="address-dependent"))
    alice = network.add_host("alice", nat="flat")
    bob = network.add_host("bob", nat=nat_kind("symmetric"))
    network.set_route("alice", "bob", LinkSettings(delay_ms=5, jitter_ms=1, reorder=0.05))
    server = network.add_turn_server()
    made = server.credentials("both")
    configuration = RTCConfiguration(
        iceServers=[
            RTCIceServer(urls=list(server.stun_uris)),
            RTCIceServer(urls=list(made.uris), username=made.username, credential=made.password),
        ]
    )
    a, b = (
        Caller(host.name, seed, LINK, host, (160, 120, 10.0), configuration=configuration)
        for host in (alice, bob)
    )
    a.trickle_to(b)
    b.trickle_to(a)
    channels = [
        a.pc.createDataChannel(f"c{n}", ordered=n % 2 == 0, maxRetransmits=n or None) for n in range(4)
    ]
    b.pc.on("datachannel", lambda theirs: theirs.on("message", lambda text: theirs.send(f"{text}!")))
    for channel in channels:
        channel.on("message", lambda message, label=channel.label: a.note(f"{label} {message}"))
        channel.on("open", lambda channel=channel: channel.send("hello"))
    await negotiate(a, b)
    await asyncio.sleep(2.0)
    a.interface.change_network()
    a.pc.restartIce()
    await negotiate(a, b)
    await asyncio.sleep(1.5)
    server.stop()
    server.start()
    (video,) = [s for s in a.pc.getSenders() if s.track is not None and s.track.kind == "video"]
    before = video.track
    await video.replaceTrack(TestPatternTrack(320, 240, 5.0, seed=4))
    assert before is not None
    before.stop()
    h264 = [c for c in RTCRtpReceiver.getCapabilities("video").codecs if c.mimeType == "video/H264"]
    for transceiver in b.pc.getTransceivers():
        if transceiver.receiver.track.kind == "video":
            transceiver.setCodecPreferences(h264)
    b.pc.restartIce()
    await negotiate(b, a)
    for channel in channels:
        channel.send("again")
    await asyncio.sleep(1.5)
    statistics = [dict(await peer.pc.getStats()) for peer in (a, b)]
    await asyncio.gather(a.close(), b.close())
    network.close()
    return {
        "events": [a.events, b.events],
        "statistics": statistics,
        "playout": [[repr(sink.take()) for sink in peer.sinks] for peer in (a, b)],
        "counters": repr(server.counters()),
        "network": network.digest(),
    }


def run(seed: int) -> dict[str, Any]:
    """Live through it in virtual time."""
    return simulate(lambda: story(seed), seed=seed, codecs="stand-in")


if __name__ == "__main__":
    print(digest(run(int(sys.argv[1]))))
