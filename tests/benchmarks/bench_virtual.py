"""How fast calls run in virtual time: against the real clock, and against the codecs' own work.

``python -m tests.benchmarks.bench_virtual [--json]``.  The pure codec time is what the encoders and decoders
took in the same run, for the same frames.  Everything is single-threaded, so processor time is what counts.
"""

from __future__ import annotations

import asyncio
import functools
import random
import resource
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiortc.codecs.opus import OpusDecoder, OpusEncoder
from aiortc.codecs.vpx import Vp8Decoder, Vp8Encoder

from calllab.media import EncodedSpeechTrack, EncodedVideoTrack, MediaSink, SpeechTrack, TestPatternTrack
from calllab.network import CodecMode, LinkSettings, NetworkInterface, VirtualNetwork, simulate
from calllab.rtc import MediaStreamTrack, RTCPeerConnection
from tests.benchmarks.table import Table, benchmark

Program: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

LINK = LinkSettings(delay_ms=25, loss=0.01)


@dataclass
class Pair:
    """Two peers that send each other the same kind of media."""

    network: VirtualNetwork
    names: tuple[str, str]
    picture: tuple[int, int, float] | None
    encoded: bool = False

    async def run(self, long_s: float, settings: LinkSettings = LINK) -> None:
        """Call, stay connected for ``long_s``, close."""
        interfaces, pcs, sinks = [], [], []
        for name in self.names:
            host = self.network.add_host(name)
            interfaces.append(NetworkInterface(settings, seed=1, name=name, host=host))
            pc = RTCPeerConnection(interface=interfaces[-1], entropy=random.Random(name))
            pcs.append(pc)

            def on_track(track: MediaStreamTrack, *_: object) -> None:
                sinks.append(MediaSink(track))
                sinks[-1].start()

            pc.on("track", on_track)
            pc.addTrack(EncodedSpeechTrack(seed=1) if self.encoded else SpeechTrack(seed=1))
            if self.picture is not None:
                video = EncodedVideoTrack if self.encoded else TestPatternTrack
                pc.addTrack(video(*self.picture, seed=2))
        a, b = pcs
        for pc, other in ((a, b), (b, a)):
            pc.on("icecandidate", functools.partial(_trickle, other))
        await a.setLocalDescription()
        await b.setRemoteDescription(a.localDescription)
        await b.setLocalDescription()
        await a.setRemoteDescription(b.localDescription)
        await asyncio.sleep(long_s)
        for sink in sinks:
            await sink.stop()
        for pc in pcs:
            for sender in pc.getSenders():
                if sender.track is not None:
                    sender.track.stop()
            await pc.close()
        for interface in interfaces:
            interface.close()


def _trickle(other: RTCPeerConnection, candidate: Any) -> None:
    async def take() -> None:
        while other.remoteDescription is None:
            await asyncio.sleep(0.005)
        await other.addIceCandidate(candidate)

    asyncio.ensure_future(take())  # noqa: RUF006


@contextmanager
def codec_clock() -> Iterator[dict[str, float]]:
    """Measure the processor time inside the codecs."""
    spent = {"s": 0.0}
    methods = [
        (OpusEncoder, "encode"),
        (OpusDecoder, "decode"),
        (Vp8Encoder, "encode"),
        (Vp8Decoder, "decode"),
    ]
    originals = [(kind, name, getattr(kind, name)) for kind, name in methods]

    def timed(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return original(*args, **kwargs)
            finally:
                spent["s"] += time.thread_time() - began

        return call

    for kind, name, original in originals:
        setattr(kind, name, timed(original))
    try:
        yield spent
    finally:
        for kind, name, original in originals:
            setattr(kind, name, original)


def measure(table: Table, case: str, long_s: float, codecs: CodecMode, main: Program) -> None:
    """Run something in virtual time and add a row."""
    with codec_clock() as codec:
        cpu, wall = time.process_time(), time.perf_counter()
        simulate(main, seed=1, codecs=codecs)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    table.row(
        case=case,
        virtual_s=long_s,
        cpu_s=round(cpu, 2),
        times_real=round(long_s / wall, 1),
        codec_s=round(codec["s"], 2),
        cpu_to_codec=round(cpu / codec["s"], 2) if codec["s"] else None,
        rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )


def one_call(picture: tuple[int, int, float] | None, long_s: float, encoded: bool = False) -> Program:
    """Return the program of one call."""
    return lambda: Pair(VirtualNetwork(seed=1), ("alice", "bob"), picture, encoded).run(long_s)


async def many_calls(count: int, long_s: float) -> None:
    """Make so many audio calls in one loop."""
    network = VirtualNetwork(seed=1)
    await asyncio.gather(*(Pair(network, (f"a{n}", f"b{n}"), None).run(long_s) for n in range(count)))


async def failing_ice() -> None:
    """Let two peers look for a path where there is none."""
    await Pair(VirtualNetwork(seed=1), ("alice", "bob"), None).run(64.0, LinkSettings(blackout=True))


@benchmark
def main() -> list[Table]:
    """Measure all cases."""
    table = Table(
        "Calls in virtual time, both ways, over 25 ms and 1 % loss",
        "cpu_to_codec: processor time of everything to that of the codecs; goal 1.5 with real codecs",
    )
    simulate(one_call((160, 120, 5.0), 1.0))  # imports, the key, the first table of everything
    simulate(one_call((320, 240, 15.0), 1.0, encoded=True))
    simulate(one_call((640, 480, 30.0), 1.0, encoded=True))
    modes: tuple[tuple[str, CodecMode, bool], ...] = (
        ("real codecs", "real", False),
        ("packets", "real", True),
        ("stand-ins", "stand-in", False),
    )
    for name, codecs, encoded in modes:
        small, large = (320, 240, 15.0), (640, 480, 30.0)
        measure(table, f"audio, {name}", 60.0, codecs, one_call(None, 60.0, encoded))
        measure(table, f"audio + 320x240@15, {name}", 60.0, codecs, one_call(small, 60.0, encoded))
        measure(table, f"audio + 640x480@30, {name}", 30.0, codecs, one_call(large, 30.0, encoded))
    measure(table, "50 audio calls, real", 10.0, "real", lambda: many_calls(50, 10.0))
    measure(table, "a failing ICE", 64.0, "real", failing_ice)
    return [table]


if __name__ == "__main__":
    main()
