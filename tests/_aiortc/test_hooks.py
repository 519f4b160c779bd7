"""Clock and chance of simulated loops in the libraries below."""

from __future__ import annotations

import asyncio
import fractions
import gc
import importlib
import random
import time
import weakref
from typing import Any

import pytest
from aiortc import clock as aiortc_clock
from aiortc.codecs import h264
from aiortc.codecs.vpx import vp8_depayload
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import AudioStreamTrack
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av import AudioFrame, VideoFrame
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from calllab._aiortc import hooks
from calllab._aiortc.dtls import Certificate, DtlsTransport
from calllab._aiortc.dtls_clock import pace_retransmissions, patch_gettimeofday
from calllab._aiortc.ice_transport import IceTransport
from calllab._aiortc.simulated import entropy, new_uuid, stopwatch, wall_time
from calllab._aiortc.stand_in import decoder_for, encoder_for
from calllab._aiortc.worker import DecoderThreads, WorkerQueue
from calllab.network import LinkSettings, NetworkInterface, VirtualLoop, VirtualNetwork, simulate
from calllab.network.interface import Deliver
from calllab.network.virtual_loop import EPOCH
from tests._aiortc.helpers import IcePair, Side, Wire


def test_the_libraries_call_what_the_hooks_know() -> None:
    """Each call of aiortc and aioice that depends on clock, chance or threads is one that was looked at."""
    assert hooks.drift() == []


def test_every_hook_has_its_place() -> None:
    """What the hooks replace is there: a name that moved would leave them without effect."""
    missing = [f"{m}.{n}" for m, n, _ in hooks._MODULES if not hasattr(importlib.import_module(m), n)]
    assert missing == []


def test_drift_names_what_is_new_and_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that the list does not know, or knows too often, is named with its file."""
    known = {**hooks.CALL_SITES, "aiortc/rtp.py": {}, "aiortc/gone.py": {"time.time": 2}}
    monkeypatch.setattr(hooks, "CALL_SITES", known)
    assert hooks.drift() == [
        "aiortc/gone.py calls time.time 0 times, the hooks know of 2",
        "aiortc/rtp.py calls os.urandom 1 times, the hooks know of 0",
    ]


def test_hooks_are_taken_out_again() -> None:
    """Afterwards every module has what it had before, however often the context was entered."""

    def contents() -> list[object]:
        found = [getattr(importlib.import_module(m), n) for m, n, _ in hooks._MODULES]
        return [*found, *(kind.__hash__ for kind in hooks._ORDERED)]

    before = contents()
    with hooks.library_hooks():
        with hooks.library_hooks():
            assert contents() != before
        assert contents() != before
    assert contents() == before


async def test_ordinary_loops_notice_nothing() -> None:
    """With the hooks in place, a loop on the machine's clock still gets the machine's time and chance."""
    with hooks.library_hooks():
        assert abs(aiortc_clock.current_datetime().timestamp() - time.time()) < 5.0
        assert AudioStreamTrack().id != AudioStreamTrack().id
        assert isinstance(entropy(), random.SystemRandom)
        assert abs(wall_time() - time.time()) < 5.0


def test_simulated_loops_give_time_and_chance() -> None:
    """The libraries see the virtual clock, and draw the same for the same seed."""

    async def main() -> tuple[float, str, str, float, float]:
        await asyncio.sleep(60.0)
        return (
            aiortc_clock.current_datetime().timestamp(),
            AudioStreamTrack().id,
            new_uuid(),
            wall_time(),
            stopwatch(),
        )

    first = simulate(main, seed=3)
    assert first == simulate(main, seed=3)
    assert first[0] == first[3] == EPOCH + 60.0
    assert first[4] == 60.0
    assert first[1:3] != simulate(main, seed=4)[1:3]


def test_simulated_certificates_are_repeatable_and_all_of_one_size() -> None:
    """The certificate follows from the seed; that of another seed has another name and the same size."""

    async def main() -> tuple[str, int]:
        certificate = Certificate.generate()
        der = certificate.inner._cert.public_bytes(Encoding.DER)
        return certificate.fingerprints[0].value, len(der)

    assert simulate(main, seed=1) == simulate(main, seed=1)
    (one, size), (other, other_size) = simulate(main, seed=1), simulate(main, seed=2)
    assert one != other
    assert size == other_size


async def handshake(lost_flights: int) -> float:
    """Shake hands over 50 ms, losing the first DTLS datagrams of the client; return how long it took."""
    network = VirtualNetwork(seed=1)
    interfaces = [_Losing(lost, name, network) for name, lost in (("client", lost_flights), ("server", 0))]
    ices = [IceTransport(interface=i, entropy=random.Random(i.name)) for i in interfaces]
    pair = IcePair(
        *(Side(i.name, ice, Wire(), random.Random(i.name)) for i, ice in zip(interfaces, ices, strict=True))
    )
    client, server = (DtlsTransport(ice) for ice in ices)
    loop = asyncio.get_running_loop()
    try:
        pair.negotiate()
        await pair.connected()
        began = loop.time()
        async with asyncio.timeout(60.0):
            await asyncio.gather(
                client.start("client", server.fingerprints), server.start("server", client.fingerprints)
            )
        assert (client.state, server.state) == ("connected", "connected")
        return loop.time() - began
    finally:
        await asyncio.gather(client.stop(), server.stop())
        await asyncio.gather(*(ice.close() for ice in ices))
        for interface in interfaces:
            interface.close()


class _Losing(NetworkInterface):
    """Loses the first DTLS datagrams."""

    def __init__(self, lost: int, name: str, network: VirtualNetwork) -> None:
        super().__init__(LinkSettings(delay_ms=50), name=name, host=network.add_host(name))
        self._lost = lost

    def send(self, socket: object, data: bytes, address: tuple[str, int], deliver: Deliver) -> None:
        if 20 <= data[0] < 64 and self._lost:
            self._lost -= 1
            return
        super().send(socket, data, address, deliver)


@pytest.mark.parametrize(("lost", "seconds"), [(0, 0.0), (1, 1.0), (3, 7.0)])
def test_lost_flights_are_sent_again_on_the_virtual_clock(lost: int, seconds: float) -> None:
    """A lost DTLS flight is repeated after 1, then 2, then 4 s of virtual time, and in no real time."""
    began = time.monotonic()
    took = simulate(lambda: handshake(lost))
    assert took == pytest.approx(seconds + 0.2, abs=0.12)
    assert time.monotonic() - began < 5.0


def test_without_the_table_the_schedule_is_kept_in_python() -> None:
    """Where the table of imported functions cannot be written, flights are repeated all the same."""
    undo = pace_retransmissions()
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            took = runner.run(handshake(1))
    finally:
        undo()
    assert took == pytest.approx(1.2, abs=0.15)
    assert SSL.Connection.bio_read.__name__ == "bio_read"


def test_the_table_is_put_back() -> None:
    """After the patch is undone OpenSSL reads the machine's clock again: a handshake times out for real."""
    undo = patch_gettimeofday()
    undo()
    context = SSL.Context(SSL.DTLS_METHOD)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    left = connection.DTLSv1_get_timeout()
    assert left is not None
    assert 0.5 < left <= 1.0


def test_the_order_of_sets_does_not_follow_from_earlier_simulations() -> None:
    """Objects that aiortc keeps in sets are numbered anew by each loop, and keep their number."""

    async def main() -> list[int]:
        made = [hooks._ORDERED[2].__new__(hooks._ORDERED[2]) for _ in range(5)]
        kept.append(made[0])
        return [hash(each) for each in made]

    kept: list[Any] = []
    assert [simulate(main) for _ in range(3)] == [[1, 2, 3, 4, 5]] * 3
    with hooks.library_hooks():
        assert hash(kept[0]) == 1


def test_a_hook_that_cannot_be_put_in_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """If one name is missing the others are taken out again, and the next try meets the originals."""
    before = importlib.import_module("aiortc.mediastreams").time
    monkeypatch.setattr(hooks, "_MODULES", (*hooks._MODULES, ("aiortc.rtp", "no_such_name", None)))
    with pytest.raises(AttributeError, match="no_such_name"), hooks.library_hooks():
        pass
    assert importlib.import_module("aiortc.mediastreams").time is before


def test_h264_is_encoded_in_one_thread() -> None:
    """x264 cuts a picture into as many slices as it has threads, so the number of processors would show."""

    async def main() -> int:
        encoder = h264.H264Encoder()
        frame = VideoFrame(width=160, height=120)
        frame.pts, frame.time_base = 0, fractions.Fraction(1, 90000)
        encoder.encode(frame)
        assert encoder.codec is not None
        return encoder.codec.thread_count

    assert simulate(main) == 1


# Decoders in greenlets


class _Holder:
    """What only the decoder's own frame holds."""


def test_a_parked_worker_ends_with_its_loop() -> None:
    """A simulation that fails in mid-call leaves no greenlet: what it held can be collected."""
    gone: list[weakref.ref[_Holder]] = []

    def work(jobs: WorkerQueue) -> None:
        held = _Holder()
        gone.append(weakref.ref(held))
        while jobs.get() is not None:
            pass

    async def main() -> None:
        jobs = WorkerQueue(lambda _: 0.5)
        DecoderThreads.Thread(target=work, name="w", args=(jobs,)).start()
        jobs.put("never done")
        await asyncio.sleep(0.1)
        raise ArithmeticError("the program fails")

    with pytest.raises(ArithmeticError):
        simulate(main)
    gc.collect()
    assert [held() for held in gone] == [None]


def test_a_worker_that_fails_is_reported_and_gone() -> None:
    """An error of a decoder reaches the loop's handler, once; the queue and the end of the call go on."""
    reported: list[Any] = []

    def work(jobs: WorkerQueue) -> None:
        raise ValueError(f"cannot do {jobs.get()}")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        jobs = WorkerQueue(lambda _: 0.5)
        worker = DecoderThreads.Thread(target=work, name="w", args=(jobs,))
        worker.start()
        jobs.put("this")
        jobs.put("that")
        await asyncio.sleep(2.0)
        assert not worker.is_alive()
        jobs.put(None)
        worker.join()

    simulate(main)
    assert [str(context["exception"]) for context in reported] == ["cannot do this"]


# Stand-in codecs


def test_stand_ins_of_many_streams_do_not_push_each_other_out() -> None:
    """The frames under way of one stream are kept whatever others send; each is given out once."""

    async def main() -> None:
        codec = RTCRtpCodecParameters(mimeType="video/VP8", clockRate=90000, payloadType=96)
        streams = [(encoder_for(codec), decoder_for(codec)) for _ in range(40)]
        picture = VideoFrame(width=1280, height=720)
        for plane in picture.planes:
            plane.update(bytes(range(256)) * (plane.buffer_size // 256))
        waiting = []
        for number in range(3):
            picture.pts, picture.time_base = number * 3000, fractions.Fraction(1, 90000)
            waiting += [(decoder, encoder.encode(picture)[0]) for encoder, decoder in streams]
        for decoder, payloads in waiting:
            data = b"".join(vp8_depayload(payload) for payload in payloads)
            (frame,) = decoder.decode(JitterFrame(data, 77))
            assert frame.pts == 77
            assert [bytes(plane) for plane in frame.planes] == [bytes(plane) for plane in picture.planes]
            assert decoder.decode(JitterFrame(data, 78)) == []
        assert picture.pts == 6000

    simulate(main, codecs="stand-in")


def test_a_stand_in_forgets_what_was_lost() -> None:
    """Of thousands of frames that nobody got only the latest are kept, and those can be decoded."""

    async def main() -> None:
        codec = RTCRtpCodecParameters(mimeType="audio/opus", clockRate=48000, channels=2, payloadType=111)
        encoder, decoder = encoder_for(codec), decoder_for(codec)
        sound = AudioFrame(format="s16", layout="mono", samples=160)
        sound.sample_rate, sound.time_base = 8000, fractions.Fraction(1, 8000)
        sent = [encoder.encode(sound)[0][0] for _ in range(5000)]
        assert decoder.decode(JitterFrame(sent[0], 0)) == []
        assert len(decoder.decode(JitterFrame(sent[-4096], 0))) == 1
        assert len(decoder.decode(JitterFrame(sent[-1], 0))) == 1

    simulate(main, codecs="stand-in")
