"""What is counted of one stream that comes in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from aiortc.clock import datetime_from_ntp
from aiortc.rtp import RtcpSrPacket
from av import AudioFrame

from calllab._aiortc.codecs import CodecLike
from calllab._aiortc.jitter import JitterCounters
from calllab._aiortc.levels import AudioLevel, FrameRate, Freezes
from calllab._aiortc.rtp_counters import RtpCounters
from calllab._aiortc.tracks import Kind

__all__ = ["InboundSnapshot", "InboundStream", "ReceiverSnapshot", "RemoteSender"]


@dataclass(frozen=True, slots=True)
class RemoteSender:
    """What the peer said last about a stream that it sends."""

    received_at_s: float
    """Unix time at which the report arrived."""
    remote_at_s: float
    """Unix time, by the peer's clock, of the report."""
    packets_sent: int
    bytes_sent: int
    reports: int


@dataclass(frozen=True, slots=True)
class InboundSnapshot:
    """One media stream; its retransmissions are counted apart."""

    ssrc: int
    rtx_ssrc: int | None
    codec: CodecLike | None
    media: RtpCounters
    rtx: RtpCounters
    packets_lost: int
    jitter_s: float
    nack_count: int
    pli_count: int
    buffer: JitterCounters
    buffer_delay_s: float
    """Sum over what left the buffer and was decoded: samples of audio, frames of video."""
    buffer_emitted: int
    """How many these are."""
    frames_decoded: int
    key_frames_decoded: int
    frames_dropped: int
    decode_time_s: float
    width: int | None
    height: int | None
    frames_per_s: float | None
    freeze_count: int
    freezes_duration_s: float
    total_inter_frame_s: float
    total_squared_inter_frame_s: float
    audio_level: float | None
    total_audio_energy: float
    total_samples_duration_s: float
    total_samples: int
    last_packet_at_ms: float | None
    """Unix time."""
    remote: RemoteSender | None


@dataclass(frozen=True, slots=True)
class ReceiverSnapshot:
    """All streams of one receiver."""

    kind: Kind
    mid: str | None
    track_id: str
    streams: tuple[InboundSnapshot, ...]


class InboundStream:
    """The live counters of one media SSRC."""

    def __init__(self, ssrc: int) -> None:
        self.ssrc = ssrc
        self.rtx_ssrc: int | None = None
        self.codec: CodecLike | None = None
        self.media, self.rtx = RtpCounters(), RtpCounters()
        self.last_packet_at_ms: float | None = None
        self.buffer = JitterCounters()
        self.nacks = self.plis = 0
        self.frames_decoded = self.key_frames_decoded = self.frames_undecoded = 0
        self.frames_late = 0
        self.decode_time_s = 0.0
        self.level = AudioLevel()
        self._samples_delay_s = 0.0
        self._rate = FrameRate()
        self._freezes = Freezes()
        self._size: tuple[int, int] | None = None
        self._remote: RemoteSender | None = None

    def take_audio(self, frame: AudioFrame, delay_s: float) -> None:
        """Count decoded sound, and how long it was in the jitter buffer."""
        self.frames_decoded += 1
        self.level.add(frame)
        self._samples_delay_s += frame.samples * delay_s

    @property
    def pixels(self) -> int:
        """The size of the latest picture; 0 before the first."""
        return 0 if self._size is None else self._size[0] * self._size[1]

    def take_video(self, width: int, height: int, now: float) -> None:
        """Count a decoded picture."""
        self.frames_decoded += 1
        self._size = (width, height)
        self._rate.add(now)
        self._freezes.add(now)

    def take_report(self, packet: RtcpSrPacket, wall_s: float) -> None:
        """Keep a sender report."""
        info = packet.sender_info
        self._remote = RemoteSender(
            received_at_s=wall_s,
            remote_at_s=datetime_from_ntp(info.ntp_timestamp).timestamp() if info.ntp_timestamp else wall_s,
            packets_sent=info.packet_count,
            bytes_sent=info.octet_count,
            reports=(self._remote.reports if self._remote is not None else 0) + 1,
        )

    def snapshot(self, now: float, reception: Any) -> InboundSnapshot | None:
        """Return the counters as they stand; None if aiortc has not counted a packet yet."""
        if reception is None or self.codec is None:
            return None
        width, height = self._size if self._size is not None else (None, None)
        is_video = self.codec.mime_type.startswith("video/")
        return InboundSnapshot(
            ssrc=self.ssrc,
            rtx_ssrc=self.rtx_ssrc,
            codec=self.codec,
            media=replace(self.media),
            rtx=replace(self.rtx),
            packets_lost=reception.packets_lost,
            jitter_s=reception.jitter / self.codec.clock_rate,
            nack_count=self.nacks,
            pli_count=self.plis,
            buffer=replace(self.buffer),
            buffer_delay_s=self.buffer.delay_s if is_video else self._samples_delay_s,
            buffer_emitted=self.buffer.emitted if is_video else self.level.samples,
            frames_decoded=self.frames_decoded,
            key_frames_decoded=self.key_frames_decoded,
            frames_dropped=self.buffer.frames_dropped + self.frames_undecoded + self.frames_late,
            decode_time_s=self.decode_time_s,
            width=width,
            height=height,
            frames_per_s=self._rate.per_second(now) if is_video else None,
            freeze_count=self._freezes.count,
            freezes_duration_s=self._freezes.duration_s,
            total_inter_frame_s=self._freezes.total_inter_frame_s,
            total_squared_inter_frame_s=self._freezes.total_squared_inter_frame_s,
            audio_level=self.level.level,
            total_audio_energy=self.level.energy,
            total_samples_duration_s=self.level.duration_s,
            total_samples=self.level.samples,
            last_packet_at_ms=self.last_packet_at_ms,
            remote=self._remote,
        )
