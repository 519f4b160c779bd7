"""Glare in mid-call, seen on the wire: nothing that was being sent is interrupted."""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import pairwise

from calllab.call import Call, Phone
from calllab.media import SpeechTrack, TestPatternTrack
from calllab.rtc import MediaStream
from calllab.signaling import FaultyChannel
from tests.call.phones import Desk, connected

Address = tuple[str, int]


class WireTap:
    """A network interface that passes everything on and reads the headers of the RTP packets that leave."""

    def __init__(self) -> None:
        self.sent: dict[int, list[tuple[int, int, float]]] = defaultdict(list)

    def send(
        self, socket: object, data: bytes, address: Address, deliver: Callable[[bytes, Address], None]
    ) -> None:
        """Note SSRC, sequence number, timestamp and time of an RTP packet (RFC 3550 section 5.1)."""
        # RFC 7983: 128-191 is RTP or RTCP; RFC 5761: payload types 64-95 are RTCP.
        if 128 <= data[0] <= 191 and not 64 <= data[1] & 0x7F <= 95:
            sequence, timestamp, ssrc = struct.unpack_from("!HII", data, 2)
            self.sent[ssrc].append((sequence, timestamp, asyncio.get_running_loop().time()))
        deliver(data, address)

    def receive(
        self, socket: object, data: bytes, address: Address, deliver: Callable[[bytes, Address], None]
    ) -> None:
        """Pass on what arrives."""
        deliver(data, address)

    def closed(self, socket: object) -> None:
        """Note nothing."""


def media() -> MediaStream:
    """Return generated speech and a small moving picture."""
    return MediaStream([SpeechTrack(seed=1), TestPatternTrack(160, 120, 10, seed=1)])


async def test_media_is_continuous_through_glare() -> None:
    """States, DTLS session, SSRCs, sequence numbers and timestamps go on as if nothing had happened."""
    async with AsyncExitStack() as stack:
        office = Desk(stack)
        stack.push_async_callback(office.hub.close)
        taps = {name: WireTap() for name in ("alice", "bob")}
        channels, phones = {}, {}
        for name, tap in taps.items():
            faulty = FaultyChannel(office.hub.connect(name))
            channels[name] = await stack.enter_async_context(faulty)
            phones[name] = await stack.enter_async_context(
                Phone(channels[name], local_stream=media, interface=tap)
            )
        calls = dict(zip(taps, await connected(phones["alice"], phones["bob"]), strict=True))
        await asyncio.sleep(1.0)
        sessions = {name: call.pc.getSenders()[0].transport for name, call in calls.items()}
        known = {name: dict(tap.sent) for name, tap in taps.items()}
        counts = {ssrc: len(packets) for streams in known.values() for ssrc, packets in streams.items()}
        changes: list[str] = []
        for call in calls.values():
            call.pc.on("connectionstatechange", lambda call=call: changes.append(call.pc.connectionState))
            call.pc.on(
                "iceconnectionstatechange", lambda call=call: changes.append(call.pc.iceConnectionState)
            )

        tracks = await _glare(calls, channels)
        await asyncio.sleep(1.0)

        assert changes == []
        for name, call in calls.items():
            assert call.pc.getSenders()[0].transport is sessions[name]
            assert call.manager is not None
            assert call.manager.errors == []
            for ssrc in known[name]:
                packets = taps[name].sent[ssrc]
                assert len(packets) > counts[ssrc] + 10
                _assert_continuous(packets)
        for track in tracks:
            track.stop()


async def _glare(calls: dict[str, Call], channels: dict[str, FaultyChannel]) -> list[TestPatternTrack]:
    tracks = []
    with channels["alice"].hold("call-offer") as one, channels["bob"].hold("call-offer") as other:
        for call in calls.values():
            track = TestPatternTrack(160, 120, 10, seed=2)
            tracks.append(track)
            call.pc.addTrack(track, MediaStream([track]))
        async with asyncio.timeout(5):
            await asyncio.gather(one.arrived(1), other.arrived(1))
    managers = [call.manager for call in calls.values() if call.manager is not None]
    async with asyncio.timeout(5):
        while not all(m.is_settled for m in managers) or len(calls["bob"].pc.getTransceivers()) != 3:
            await asyncio.sleep(0.01)
    return tracks


def _assert_continuous(packets: list[tuple[int, int, float]]) -> None:
    for (sequence, timestamp, at), (following, later, then) in pairwise(packets):
        assert following == (sequence + 1) & 0xFFFF
        # Timestamps advance with the media clock: a restart of the encoder would jump.
        assert 0 <= (later - timestamp) & 0xFFFFFFFF <= 90_000 * 1.0, (timestamp, later, then - at)
