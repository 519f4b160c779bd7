"""The receiving half of a transceiver, around aiortc's RTCRtpReceiver."""

from __future__ import annotations

import asyncio
import queue
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpreceiver import NackGenerator, RTCRtpReceiver, TimestampMapper
from aiortc.rtp import AnyRtcpPacket, RtcpByePacket, RtcpSrPacket, RtpPacket
from aiortc.utils import uint16_add
from av import AudioFrame, VideoFrame
from av.frame import Frame

from calllab._aiortc.codecs import CodecLike, ReceiveParametersLike, is_rtx, receive_parameters
from calllab._aiortc.dtls import DtlsTransport
from calllab._aiortc.inbound import InboundSnapshot, InboundStream, ReceiverSnapshot
from calllab._aiortc.insides import inside, set_inside
from calllab._aiortc.jitter import MAX_WAIT_S, EncodedFrame, JitterCounters, PatientJitterBuffer, uint16_after
from calllab._aiortc.rtp_counters import RtpHeader
from calllab._aiortc.simulated import stopwatch, wall_time
from calllab._aiortc.tracks import Kind, RemoteTrack
from calllab._aiortc.worker import WorkerQueue

__all__ = ["HeardSource", "RtpReceiver"]

_SOURCE_AGE_S = 10.0
# SSRCs of one receiver that are counted; an honest peer uses a handful in the longest call.
_MAX_STREAMS = 64
# How long a retransmission may take before it is asked for once more.
_ASK_AGAIN_AFTER_S = 0.1
# Encoded frames that wait for the decoder; more means that the processor cannot keep up.
_MAX_UNDECODED = {"audio": 150, "video": 60}


@dataclass(frozen=True, slots=True)
class HeardSource:
    """The latest packet of one source (W3C RTCRtpContributingSource)."""

    source: int
    heard_at_s: float
    """Unix time."""
    rtp_timestamp: int
    audio_level: float | None
    """0..1, linear; None if the packet does not tell."""


class _DecoderQueue(WorkerQueue):
    """Encoded frames on their way to the decoder thread (rtcrtpreceiver.py:63), with a clock at its exit.

    The thread comes back for the next frame when it has decoded the one before, so that the time between is
    what decoding took.
    """

    def __init__(
        self,
        on_decoded: Callable[[float, bool], None],
        cost_s: Callable[[Any], float],
        codecs: Mapping[int, RTCRtpCodecParameters],
    ) -> None:
        super().__init__(cost_s)
        self._on_decoded = on_decoded
        self._codecs = codecs
        self._began: float | None = None
        self.decoding: EncodedFrame | None = None
        """What the thread is at."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next frame; called by the decoder thread alone."""
        if self._began is not None:
            took_s = stopwatch() - self._began + self.last_cost_s
            self._on_decoded(took_s, self.decoding is not None and self.decoding.is_key)
            self._began = None
        item = super().get(block, timeout)
        if item is not None:
            self.decoding = item[1]
            self._began = stopwatch()
        return item

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add a frame with its codec; None ends the thread.

        aiortc gives the codec of the packet that has completed the frame (rtcrtpreceiver.py:570): where the
        codec changes and a packet comes late, that is the codec of the next frame.
        """
        if item is not None:
            item = (self._codecs[item[1].payload_type], item[1])
        super().put(item, block, timeout)

    def discard(self) -> int:
        """Throw away what waits; returns how much."""
        count = 0
        while True:
            try:
                super().get(block=False)
            except queue.Empty:
                return count
            count += 1


class _Receiver(RTCRtpReceiver):
    """aiortc's receiver with a better jitter buffer, and with taps."""

    def __init__(self, kind: Kind, dtls: DtlsTransport, owner: RtpReceiver) -> None:
        super().__init__(kind, dtls.inner)
        self._owner = owner
        self._codecs: dict[int, RTCRtpCodecParameters] = inside(self, RTCRtpReceiver, "__codecs")
        self._decoder_queue = _DecoderQueue(owner.frame_decoded, owner.decoding_cost_s, self._codecs)
        # The thread takes its queue when it starts (rtcrtpreceiver.py:413), later than this.
        set_inside(self, RTCRtpReceiver, "__decoder_queue", self._decoder_queue)
        self._kind = kind
        self._asked_at: dict[int, float] = {}
        self._buffer: PatientJitterBuffer
        self.begin_stream(JitterCounters())

    @property
    def decoding(self) -> EncodedFrame | None:
        """What the decoder thread is at, or was at last."""
        return self._decoder_queue.decoding

    def begin_stream(self, counters: JitterCounters) -> None:
        """Forget the sequence numbers and timestamps of another SSRC; count in ``counters`` from now on."""
        self._buffer = PatientJitterBuffer(
            counters,
            video=self._kind == "video",
            clock=asyncio.get_running_loop().time,
            codec_name=lambda payload_type: self._codecs[payload_type].name,
        )
        set_inside(self, RTCRtpReceiver, "__jitter_buffer", self._buffer)
        set_inside(self, RTCRtpReceiver, "__timestamp_mapper", TimestampMapper())
        if self._kind == "video":
            set_inside(self, RTCRtpReceiver, "__nack_generator", NackGenerator())

    async def _handle_rtp_packet(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        codec = self._codecs.get(packet.payload_type)
        if not self._enabled or codec is None:
            return
        silence_s = self._owner.silence_s(packet.ssrc)
        self._owner.packet_received(packet)
        if self._kind == "video" and codec.name.lower() != "rtx" and silence_s > MAX_WAIT_S["video"]:
            await self._pass_outage(packet)
        await super()._handle_rtp_packet(packet, arrival_time_ms)
        self._work_off_backlog()

    def follow_clock(self, packet: RtpPacket, clock_rate: int) -> None:
        """Let jitter be reckoned by the clock of a packet's codec (RFC 7160), and over the end of 32 bits;
        aiortc takes the clock of the first packet for ever, and what begins anew at 0 for hours of jitter
        (rtcrtpreceiver.py:512, :172).
        """
        known = inside(self, RTCRtpReceiver, "__remote_streams").get(packet.ssrc)
        if known is None or known._last_timestamp is None:
            return
        if known._clockrate != clock_rate:
            known._jitter_q4 = known._jitter_q4 * clock_rate // known._clockrate
            known._clockrate = clock_rate
            # Timestamps of two clocks have no distance: this packet is the first to be reckoned from.
            known._last_timestamp = packet.timestamp
            return
        passed = (packet.timestamp - known._last_timestamp + 2**31) % 2**32 - 2**31
        known._last_timestamp = packet.timestamp - passed

    async def _pass_outage(self, packet: RtpPacket) -> None:
        """Ask for a key frame, and for nothing else, after an outage longer than a hole is waited for.

        What was lost is of no use any more, and asking for it would fill the path for a second: aiortc asks
        for the latest 128 packets (rtp.py:13), and again with each new loss.
        """
        nacks = inside(self, RTCRtpReceiver, "__nack_generator")
        if nacks.max_seq is None or packet.sequence_number == uint16_add(nacks.max_seq, 1):
            return  # it was silent, and nothing is missing
        if uint16_after(packet.sequence_number, nacks.max_seq):
            set_inside(self, RTCRtpReceiver, "__nack_generator", NackGenerator())
            self._buffer.start_again()
            await self._send_rtcp_pli(packet.ssrc)

    def _work_off_backlog(self) -> None:
        buffer = self._buffer
        if self._kind == "video" and buffer.origin is not None:
            # What is skipped need not be sent again.
            missing = inside(self, RTCRtpReceiver, "__nack_generator").missing
            missing -= {sequence for sequence in missing if uint16_after(buffer.origin, sequence)}
        if inside(self, RTCRtpReceiver, "__decoder_thread") is None:
            return
        while (frame := buffer.next_frame()) is not None:
            frame.timestamp = inside(self, RTCRtpReceiver, "__timestamp_mapper").map(frame.timestamp)
            self._decoder_queue.put((None, frame))
        if self._decoder_queue.qsize() > _MAX_UNDECODED[self._kind]:
            self._owner.frames_discarded(self._decoder_queue.discard())
            buffer.require_keyframe()

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpByePacket):
            # aiortc ends the track (rtcrtpreceiver.py:469); but the stream may come back, and W3C only mutes.
            self._owner.track.set_muted(True)
            return
        if isinstance(packet, RtcpSrPacket):
            self._owner.report_received(packet)
        await super()._handle_rtcp_packet(packet)

    async def _send_rtcp_nack(self, media_ssrc: int, lost: list[int]) -> None:
        lost = self._due(lost)
        if lost:
            self._owner.asked(media_ssrc, nack=True)
            await super()._send_rtcp_nack(media_ssrc, lost)

    def _due(self, lost: list[int]) -> list[int]:
        """Leave out what was asked for a moment ago: its retransmission is still on its way.

        aiortc asks for everything that is missing with each new hole (rtcrtpreceiver.py:536).
        """
        now = asyncio.get_running_loop().time()
        self._asked_at = {number: at for number, at in self._asked_at.items() if number in lost}
        due = [number for number in lost if now >= self._asked_at.get(number, 0.0) + _ASK_AGAIN_AFTER_S]
        self._asked_at.update(dict.fromkeys(due, now))
        return due

    async def _send_rtcp_pli(self, media_ssrc: int) -> None:
        self._owner.asked(media_ssrc, nack=False)
        await super()._send_rtcp_pli(media_ssrc)

    def _handle_disconnect(self) -> None:
        self._decoder_queue.discard()
        super()._handle_disconnect()

    async def stop(self) -> None:
        # aiortc joins the decoder thread on the event loop (rtcrtpreceiver.py:650): leave it nothing to do.
        self._decoder_queue.discard()
        await super().stop()


class RtpReceiver:
    """Receives the streams of one transceiver into one track.

    ``rtcp_ssrc`` is the SSRC under which feedback is sent: that of the transceiver's sender.
    """

    def __init__(self, dtls: DtlsTransport, kind: Kind, *, rtcp_ssrc: int) -> None:
        self.kind: Kind = kind
        self.track = RemoteTrack(kind, self._frame_decoded, self._frame_late)
        self._dtls = dtls
        self._loop = asyncio.get_running_loop()
        self._codecs: dict[int, CodecLike] = {}
        self._mid: str | None = None
        self._streams: dict[int, InboundStream] = {}
        self._current: InboundStream | None = None
        self._synchronization: OrderedDict[int, HeardSource] = OrderedDict()
        self._contributing: OrderedDict[int, HeardSource] = OrderedDict()
        self._started = self._stopped = False
        self._inner = _Receiver(kind, dtls, self)
        self._inner._enabled = False
        self._inner._track = self.track
        self._inner._set_rtcp_ssrc(rtcp_ssrc)

    @property
    def inner(self) -> RTCRtpReceiver:
        """aiortc's own receiver: for this room alone."""
        return self._inner

    def set_track_id(self, track_id: str) -> None:
        """Give the track the identifier that the peer signalled."""
        self.track.set_id(track_id)

    def set_active(self, active: bool) -> None:
        """Follow the negotiated direction; an inactive track is muted."""
        self._inner._enabled = active and not self._stopped
        if not active:
            self.track.set_muted(True)

    async def configure(self, parameters: ReceiveParametersLike) -> None:
        """Start to receive, or learn of more codecs, extensions and streams.

        Raises RuntimeError after :meth:`stop`.
        """
        if self._stopped:
            raise RuntimeError("this RTP receiver was stopped for good")
        converted = receive_parameters(parameters)
        self._mid = parameters.mid
        self._codecs.update({codec.payload_type: codec for codec in parameters.codecs})
        inner = self._inner
        if not self._started:
            self._started = True
            await inner.receive(converted)
            return
        # receive() works once (rtcrtpreceiver.py:398): what it does with the parameters is done again.
        inside(inner, RTCRtpReceiver, "__codecs").update(
            {codec.payloadType: codec for codec in converted.codecs}
        )
        for encoding in converted.encodings:
            if encoding.rtx is not None:
                inside(inner, RTCRtpReceiver, "__rtx_ssrc")[encoding.rtx.ssrc] = encoding.ssrc
        self._dtls.inner._register_rtp_receiver(inner, converted)

    async def stop(self) -> None:
        """Stop for good and end the track. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        self._inner._enabled = False
        await self._inner.stop()
        self.track.end()

    def synchronization_sources(self) -> list[HeardSource]:
        """Return the SSRCs heard in the last ten seconds, the latest first."""
        return self._heard(self._synchronization)

    def contributing_sources(self) -> list[HeardSource]:
        """Return the CSRCs heard in the last ten seconds, the latest first; their levels are not known."""
        return self._heard(self._contributing)

    def _heard(self, sources: OrderedDict[int, HeardSource]) -> list[HeardSource]:
        since = wall_time() - _SOURCE_AGE_S
        return [source for source in reversed(sources.values()) if source.heard_at_s > since]

    def _hear(self, sources: OrderedDict[int, HeardSource], heard: HeardSource) -> None:
        sources[heard.source] = heard
        sources.move_to_end(heard.source)
        if len(sources) > _MAX_STREAMS:
            sources.popitem(last=False)

    def statistics(self) -> ReceiverSnapshot:
        """Return the counters as they stand; changes nothing."""
        # Never StreamStatistics.fraction_lost: reading it changes the next report (rtcrtpreceiver.py:185).
        reception = inside(self._inner, RTCRtpReceiver, "__remote_streams")
        now = self._loop.time()
        streams: list[InboundSnapshot] = []
        for stream in self._streams.values():
            taken = stream.snapshot(now, reception.get(stream.ssrc))
            if taken is not None:
                streams.append(taken)
        return ReceiverSnapshot(self.kind, self._mid, self.track.id, tuple(streams))

    def decoding_cost_s(self, _job: Any) -> float:
        """Return how long the next frame takes to decode in virtual time."""
        host = self._dtls.ice.host
        if host is None:
            return 0.0
        stream = self._current
        return host.coding_cost_s("decode", self.kind, 0 if stream is None else stream.pixels)

    # Taps

    def silence_s(self, ssrc: int) -> float:
        """Return how long nothing was heard of a media stream; 0 for one that is new."""
        stream = self._streams.get(ssrc)
        last_at = stream.media.last_at if stream is not None else None
        return self._loop.time() - last_at if last_at is not None else 0.0

    def packet_received(self, packet: RtpPacket) -> None:
        """Count a packet that aiortc is going to take."""
        now = self._loop.time()
        ours = self._codecs.get(packet.payload_type)
        if ours is None:
            return
        header = RtpHeader(
            packet.ssrc,
            packet.sequence_number,
            bool(packet.marker),
            self._dtls.inner.rtp_packet_bytes - len(packet.payload),
            len(packet.payload),
        )
        if is_rtx(ours):
            media_ssrc = inside(self._inner, RTCRtpReceiver, "__rtx_ssrc").get(packet.ssrc)
            stream = self._streams.get(media_ssrc) if media_ssrc is not None else None
            if stream is not None:
                stream.rtx_ssrc = packet.ssrc
                stream.rtx.add(header, now)
            return
        stream = self._streams.get(packet.ssrc)
        if stream is None:
            if len(self._streams) >= _MAX_STREAMS:
                return
            stream = self._streams[packet.ssrc] = InboundStream(packet.ssrc)
        if stream is not self._current:
            self._current = stream
            self._inner.begin_stream(stream.buffer)
        stream.codec = ours
        self._inner.follow_clock(packet, ours.clock_rate)
        stream.media.add(header, now)
        level = packet.extensions.audio_level
        wall = wall_time()
        stream.last_packet_at_ms = wall * 1000
        loudness = None if level is None else 0.0 if level[1] == 127 else 10 ** (-level[1] / 20)
        self._hear(self._synchronization, HeardSource(packet.ssrc, wall, packet.timestamp, loudness))
        for source in packet.csrc:
            self._hear(self._contributing, HeardSource(source, wall, packet.timestamp, None))
        self.track.set_muted(False)

    def report_received(self, packet: RtcpSrPacket) -> None:
        """Take what the peer says of a stream that it sends."""
        stream = self._streams.get(packet.ssrc)
        if stream is not None:
            stream.take_report(packet, wall_time())

    def asked(self, media_ssrc: int, *, nack: bool) -> None:
        """Count feedback that is being sent."""
        stream = self._streams.get(media_ssrc)
        if stream is not None:
            stream.nacks += nack
            stream.plis += not nack

    def frames_discarded(self, count: int) -> None:
        """Count encoded frames that the decoder did not get to."""
        if self._current is not None:
            self._current.frames_undecoded += count

    def frame_decoded(self, took_s: float, is_key: bool) -> None:
        """Take the time that the decoder took; called in its thread."""
        stream = self._current
        if stream is not None and not inside(self._inner, RTCRtpReceiver, "__decoder_error").is_set():
            stream.decode_time_s += took_s
            stream.key_frames_decoded += is_key

    def _frame_decoded(self, frame: Frame) -> Callable[[], None]:
        """Take a decoded frame; called in the decoder thread, and what it returns on the loop."""
        stream, encoded = self._current, self._inner.decoding
        delay_s = encoded.delay_s if encoded is not None else 0.0

        def count() -> None:
            if stream is not None and isinstance(frame, AudioFrame):
                stream.take_audio(frame, delay_s)
            elif stream is not None and isinstance(frame, VideoFrame):
                stream.take_video(frame.width, frame.height, self._loop.time())

        return count

    def _frame_late(self) -> None:
        """Count a decoded frame that gave way to a newer one; nobody is late where nobody reads."""
        if self._current is not None and self.track.read:
            self._current.frames_late += 1
