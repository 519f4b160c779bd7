"""The sending half of a transceiver, around aiortc's RTCRtpSender."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpsender import RTCRtpSender
from aiortc.rtp import (
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RTP_HISTORY_SIZE,
    AnyRtcpPacket,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    is_rtcp,
)
from av import VideoFrame

from calllab._aiortc.codecs import CodecLike, SendParametersLike, is_rtx, send_parameters, to_aiortc
from calllab._aiortc.dtls import DtlsTransport
from calllab._aiortc.encoding import (
    EncoderCounters,
    EncodingLimits,
    SteadyAudioEncoder,
    SteadyEncoder,
    SteadyVideoEncoder,
)
from calllab._aiortc.insides import inside, set_inside
from calllab._aiortc.levels import FrameRate
from calllab._aiortc.rtp_counters import RemoteReport, RtpCounters, RtpHeader, SenderReports
from calllab._aiortc.simulated import wall_time
from calllab._aiortc.switch_track import SourceSnapshot, SwitchTrack
from calllab._aiortc.tracks import Kind

__all__ = ["RtpSender", "SenderSnapshot"]

# After an outage some receivers ask for all that they missed.  What is older than this no picture waits for;
# and a key frame comes anyway.
_RETRANSMIT_FOR_S = 2.0


@dataclass(frozen=True, slots=True)
class SenderSnapshot:
    """What a sender did; counters of the media stream and of its retransmissions."""

    kind: Kind
    mid: str | None
    ssrc: int
    rtx_ssrc: int | None
    active: bool
    codec: CodecLike | None
    media: RtpCounters
    rtx: RtpCounters
    frames_sent: int
    frames_per_s: float
    """Encoded and sent in the last second."""
    encoder: EncoderCounters
    nack_count: int
    pli_count: int
    fir_count: int
    target_bitrate: int | None
    remote: RemoteReport | None
    source: SourceSnapshot | None


class _SenderTransport:
    """What one sender sees of the DTLS transport: everything it sends passes here and is counted."""

    def __init__(self, dtls: DtlsTransport, on_packet: Callable[[bytes], None]) -> None:
        self._inner = dtls.inner
        self._on_packet = on_packet

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def _send_rtp(self, data: bytes) -> None:
        await self._inner._send_rtp(data)
        if not is_rtcp(data):
            self._on_packet(data)


class _Sender(RTCRtpSender):
    """aiortc's sender, which tells what comes back over RTCP."""

    def __init__(self, track: SwitchTrack, transport: _SenderTransport, owner: RtpSender) -> None:
        self._owner = owner
        super().__init__(track, cast(RTCDtlsTransport, transport))

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        self._owner.rtcp_received(packet)
        if isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            packet = replace(packet, lost=[number for number in packet.lost if self._owner.is_fresh(number)])
        await super()._handle_rtcp_packet(packet)

    async def _send_rtcp(self, packets: list[AnyRtcpPacket]) -> None:
        if isinstance(packets[0], RtcpSrPacket):
            self._owner.report_sent(packets[0])
        await super()._send_rtcp(packets)


class RtpSender:
    """Sends one stream of one kind; its SSRC is fixed, its track and its activity are not.

    The application's track is never stopped by it.  Nothing is sent while the sender is inactive or ICE has
    no path with consent; the source is read all the same, so that it does not run behind.
    """

    def __init__(self, dtls: DtlsTransport, kind: Kind, *, ssrc: int, rtx_ssrc: int | None = None) -> None:
        self.kind: Kind = kind
        self.ssrc = ssrc
        self.rtx_ssrc = rtx_ssrc
        self._dtls = dtls
        self._loop = asyncio.get_running_loop()
        self._active = False
        self._stopped = False
        self._codec: CodecLike | None = None
        self._has_rtx = False
        self._mid: str | None = None
        self._encoder: SteadyEncoder | None = None
        self._limits = EncodingLimits()
        self._media, self._rtx = RtpCounters(), RtpCounters()
        self._frames_sent = 0
        self._rate = FrameRate()
        self._nacks = self._plis = self._firs = 0
        self._reports = SenderReports()
        self._sent_at: dict[int, float] = {}
        """Loop times of the latest media packets, by sequence number."""
        self._switch = SwitchTrack(kind, self._may_send, self._nothing_under_way)
        self._inner = _Sender(self._switch, _SenderTransport(dtls, self._packet_sent), self)
        self._inner._ssrc = ssrc
        self._inner._rtx_ssrc = rtx_ssrc if rtx_ssrc is not None else 0
        dtls.ice.recovery_listeners.add(self.request_keyframe)

    @property
    def track(self) -> MediaStreamTrack | None:
        """The application's track."""
        return self._switch.source

    @property
    def codec(self) -> CodecLike | None:
        """What is being sent; None before :meth:`configure`."""
        return self._codec

    @property
    def inner(self) -> RTCRtpSender:
        """aiortc's own sender: for this room alone."""
        return self._inner

    def replace_track(self, track: MediaStreamTrack | None) -> None:
        """Send another track, or nothing, from now on."""
        self._switch.set_source(track)

    def set_active(self, active: bool) -> None:
        """Follow the negotiated direction."""
        if active and not self._active:
            self.request_keyframe()
        self._active = active

    def set_limits(self, limits: EncodingLimits) -> None:
        """Keep within what the application allows from the next frame on."""
        if limits.active and not self._limits.active:
            self.request_keyframe()
        self._limits = limits
        if self._encoder is not None:
            self._encoder.limits = limits

    def request_keyframe(self) -> None:
        """Make the next video frame one that can be decoded alone."""
        self._inner._send_keyframe()

    async def configure(self, parameters: SendParametersLike) -> None:
        """Start to send; once started, later calls change the codec and the header extensions.

        Once DTLS has closed it does nothing.
        Raises RuntimeError after :meth:`stop` or before DTLS is connected, ValueError without a codec.
        """
        if self._stopped:
            raise RuntimeError("this RTP sender was stopped for good")
        if not parameters.codecs:
            raise ValueError("no codec was negotiated for this sender")
        if self._dtls.state in ("new", "connecting"):
            # aiortc's RTP task would end for good with the first packet (rtcrtpsender.py:408).
            raise RuntimeError("an RTP sender starts when DTLS is connected, not before")
        if self._dtls.state != "connected":
            return
        converted = send_parameters(parameters)
        self._mid = parameters.mid
        if self._codec is None:
            self._codec = parameters.codecs[0]
            self._has_rtx = any(is_rtx(codec) for codec in parameters.codecs)
            steady = SteadyVideoEncoder if self.kind == "video" else SteadyAudioEncoder
            self._encoder = steady(converted.codecs[0], self._switch, self._encoding_cost_s)
            self._encoder.limits = self._limits
            # Set beforehand, so that aiortc does not make its own (rtcrtpsender.py:308).
            set_inside(self._inner, RTCRtpSender, "__encoder", self._encoder)
            await self._inner.send(converted)
        else:
            self._change_codec(parameters.codecs)
            inside(self._inner, RTCRtpSender, "__rtp_header_extensions_map").configure(converted)
            self._dtls.inner._rtp_header_extensions_map.configure(converted)

    def _change_codec(self, codecs: Sequence[CodecLike]) -> None:
        chosen = codecs[0]
        rtx = next(
            (c for c in codecs if is_rtx(c) and to_aiortc(c).parameters["apt"] == chosen.payload_type), None
        )
        self._has_rtx = rtx is not None
        set_inside(self._inner, RTCRtpSender, "__rtx_payload_type", rtx.payload_type if rtx else None)
        before, self._codec = self._codec, chosen
        if self._encoder is None or before is None:
            return
        if (before.payload_type, before.mime_type, before.parameters) != (
            chosen.payload_type,
            chosen.mime_type,
            chosen.parameters,
        ):
            self._encoder.change_codec(to_aiortc(chosen))
            self.request_keyframe()

    async def stop(self) -> None:
        """Stop for good, saying BYE to the peer. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        self._active = False
        self._dtls.ice.recovery_listeners.discard(self.request_keyframe)
        self._switch.stop()
        await self._inner.stop()
        self._switch.set_source(None)

    def statistics(self) -> SenderSnapshot:
        """Return the counters as they stand; changes nothing."""
        encoder = self._encoder
        return SenderSnapshot(
            kind=self.kind,
            mid=self._mid,
            ssrc=self.ssrc,
            rtx_ssrc=self.rtx_ssrc if self._has_rtx else None,
            active=self._active and self._limits.active,
            codec=self._codec,
            media=replace(self._media),
            rtx=replace(self._rtx),
            frames_sent=self._frames_sent,
            frames_per_s=self._rate.per_second(self._loop.time()),
            encoder=replace(encoder.counters) if encoder is not None else EncoderCounters(),
            nack_count=self._nacks,
            pli_count=self._plis,
            fir_count=self._firs,
            target_bitrate=encoder.target_bitrate if isinstance(encoder, SteadyVideoEncoder) else None,
            remote=self._reports.latest,
            source=self._switch.snapshot(),
        )

    def _encoding_cost_s(self, frame: Any) -> float:
        host = self._dtls.ice.host
        if host is None:
            return 0.0
        pixels = frame.width * frame.height if isinstance(frame, VideoFrame) else 0
        return host.coding_cost_s("encode", self.kind, pixels)

    # Taps

    def _may_send(self) -> bool:
        return self._active and self._limits.active and self._dtls.ice.can_send

    def _nothing_under_way(self) -> None:
        """The RTP task asks for a frame: all packets of those before it are sent."""
        if self._encoder is not None and self._encoder.counters.frames > self._frames_sent:
            self._frames_sent = self._encoder.counters.frames
            self._rate.add(self._loop.time())

    def _packet_sent(self, data: bytes) -> None:
        header = RtpHeader.of(data)
        counters = self._rtx if header.ssrc == self.rtx_ssrc else self._media
        counters.add(header, self._loop.time())
        if counters is self._media:
            self._reports.packet_sent(header.sequence_number)
            self._sent_at[header.sequence_number] = self._loop.time()
            if len(self._sent_at) > RTP_HISTORY_SIZE:
                del self._sent_at[next(iter(self._sent_at))]

    def is_fresh(self, sequence_number: int) -> bool:
        """Whether a media packet was sent so recently that sending it again can help."""
        sent_at = self._sent_at.get(sequence_number)
        return sent_at is not None and self._loop.time() <= sent_at + _RETRANSMIT_FOR_S

    def report_sent(self, packet: RtcpSrPacket) -> None:
        """Remember when a sender report left."""
        self._reports.report_sent(packet.sender_info.ntp_timestamp, self._loop.time())

    def rtcp_received(self, packet: AnyRtcpPacket) -> None:
        """Count feedback, and take what the peer reports of this stream."""
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            clock_rate = self._codec.clock_rate if self._codec is not None else 1
            for report in packet.reports:
                if report.ssrc == self.ssrc:
                    self._reports.report_received(report, clock_rate, self._loop.time(), wall_time())
        elif isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            self._nacks += 1
        elif isinstance(packet, RtcpPsfbPacket):
            self._plis += packet.fmt == RTCP_PSFB_PLI
            self._firs += packet.fmt == RTCP_PSFB_FIR
