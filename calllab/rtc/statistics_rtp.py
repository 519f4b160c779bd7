"""Statistics of media: sources, codecs, RTP streams both ways, and what the peer reports of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from calllab._aiortc import RtpReceiver, RtpSender
from calllab._aiortc.inbound import InboundSnapshot, ReceiverSnapshot
from calllab._aiortc.rtp_counters import RtpCounters
from calllab._aiortc.rtp_sender import SenderSnapshot
from calllab._aiortc.switch_track import SourceSnapshot
from calllab.rtc.statistics_transport import Add

__all__ = ["MediaStats", "add_media"]


@dataclass(frozen=True, slots=True)
class MediaStats:
    """One transceiver's halves."""

    mid: str | None
    sender: RtpSender | None
    receiver: RtpReceiver | None


class _Codec(Protocol):
    """What is needed of a codec."""

    @property
    def payload_type(self) -> int: ...
    @property
    def mime_type(self) -> str: ...
    @property
    def clock_rate(self) -> int: ...
    @property
    def channels(self) -> int | None: ...
    @property
    def parameters(self) -> tuple[tuple[str, str], ...]: ...


def add_media(add: Add, media: MediaStats, transport_id: str) -> None:
    """Add all that is known of one transceiver's media."""
    if media.sender is not None:
        _add_sender(add, media.sender.statistics(), media.mid, transport_id)
    if media.receiver is not None:
        _add_receiver(add, media.receiver.statistics(), media.mid, transport_id)


def _add_codec(add: Add, codec: _Codec, way: Literal["encode", "decode"], transport_id: str) -> str:
    fmtp = ";".join(f"{name}={value}" if value else name for name, value in codec.parameters)
    return add(
        "codec",
        f"codec-{way}-{codec.payload_type}-{codec.mime_type}-{fmtp}",
        {
            "transportId": transport_id,
            "payloadType": codec.payload_type,
            "mimeType": codec.mime_type,
            "clockRate": codec.clock_rate,
            "channels": codec.channels,
            "sdpFmtpLine": fmtp or None,
        },
    )


def _total(media: RtpCounters, rtx: RtpCounters) -> dict[str, int]:
    """W3C counts retransmissions with their stream, even if they have their own SSRC."""
    return {
        "packets": media.packets + rtx.packets,
        "bytes": media.payload_bytes + rtx.payload_bytes,
        "header_bytes": media.header_bytes + rtx.header_bytes,
    }


# Sending


def _add_source(add: Add, kind: str, ssrc: int, source: SourceSnapshot) -> str:
    # Two senders of one track have a source each: every frame goes to one of them alone.
    members: dict[str, Any] = {"trackIdentifier": source.track_id, "kind": kind}
    if kind == "audio":
        members |= {
            "audioLevel": source.audio_level,
            "totalAudioEnergy": source.total_audio_energy,
            "totalSamplesDuration": source.total_samples_duration_s,
        }
    else:
        members |= {
            "width": source.width,
            "height": source.height,
            "frames": source.frames,
            "framesPerSecond": source.frames_per_s,
        }
    return add("media-source", f"media-source-{kind}-{ssrc}-{source.number}", members)


def _add_sender(add: Add, sender: SenderSnapshot, mid: str | None, transport_id: str) -> None:
    source_id = (
        _add_source(add, sender.kind, sender.ssrc, sender.source) if sender.source is not None else None
    )
    if sender.codec is None:
        return  # never negotiated: there is no RTP stream yet
    codec_id = _add_codec(add, sender.codec, "encode", transport_id)
    outbound_id = f"outbound-rtp-{sender.kind}-{sender.ssrc}"
    remote_id = f"remote-inbound-rtp-{sender.kind}-{sender.ssrc}" if sender.remote is not None else None
    total = _total(sender.media, sender.rtx)
    members: dict[str, Any] = {
        "ssrc": sender.ssrc,
        "kind": sender.kind,
        "transportId": transport_id,
        "codecId": codec_id,
        "mid": mid,
        "mediaSourceId": source_id,
        "remoteId": remote_id,
        "active": sender.active,
        "packetsSent": total["packets"],
        "bytesSent": total["bytes"],
        "headerBytesSent": total["header_bytes"],
        "retransmittedPacketsSent": sender.rtx.packets,
        "retransmittedBytesSent": sender.rtx.payload_bytes,
        "rtxSsrc": sender.rtx_ssrc,
        "nackCount": sender.nack_count,
        "targetBitrate": sender.target_bitrate,
    }
    if sender.kind == "video":
        encoder = sender.encoder
        members |= {
            "framesEncoded": encoder.frames,
            "keyFramesEncoded": encoder.key_frames,
            "framesSent": sender.frames_sent,
            "framesPerSecond": sender.frames_per_s,
            "totalEncodeTime": encoder.total_time_s,
            "frameWidth": encoder.width,
            "frameHeight": encoder.height,
            "pliCount": sender.pli_count,
            "firCount": sender.fir_count,
        }
    add("outbound-rtp", outbound_id, members)
    remote = sender.remote
    if remote is None or remote_id is None:
        return
    add(
        "remote-inbound-rtp",
        remote_id,
        {
            "ssrc": sender.ssrc,
            "kind": sender.kind,
            "transportId": transport_id,
            "codecId": codec_id,
            "localId": outbound_id,
            "packetsReceived": remote.packets_received,
            "packetsLost": remote.packets_lost,
            "fractionLost": remote.fraction_lost,
            "jitter": remote.jitter_s,
            "roundTripTime": remote.round_trip_s,
            "totalRoundTripTime": remote.total_round_trip_s,
            "roundTripTimeMeasurements": remote.round_trip_measurements,
        },
        timestamp_ms=remote.received_at_s * 1000,
    )


# Receiving


def _add_receiver(add: Add, receiver: ReceiverSnapshot, mid: str | None, transport_id: str) -> None:
    for stream in receiver.streams:
        _add_stream(add, receiver, stream, mid, transport_id)


def _add_stream(
    add: Add, receiver: ReceiverSnapshot, stream: InboundSnapshot, mid: str | None, transport_id: str
) -> None:
    kind = receiver.kind
    codec_id = _add_codec(add, stream.codec, "decode", transport_id) if stream.codec is not None else None
    inbound_id = f"inbound-rtp-{kind}-{stream.ssrc}"
    remote_id = f"remote-outbound-rtp-{kind}-{stream.ssrc}" if stream.remote is not None else None
    total = _total(stream.media, stream.rtx)
    members: dict[str, Any] = {
        "ssrc": stream.ssrc,
        "kind": kind,
        "transportId": transport_id,
        "codecId": codec_id,
        "mid": mid,
        "trackIdentifier": receiver.track_id,
        "remoteId": remote_id,
        "packetsReceived": total["packets"],
        "bytesReceived": total["bytes"],
        "headerBytesReceived": total["header_bytes"],
        "packetsLost": stream.packets_lost,
        "jitter": stream.jitter_s,
        "packetsDiscarded": stream.buffer.packets_discarded,
        "lastPacketReceivedTimestamp": stream.last_packet_at_ms,
        "nackCount": stream.nack_count,
        "jitterBufferDelay": stream.buffer_delay_s,
        "jitterBufferEmittedCount": stream.buffer_emitted,
    }
    if stream.rtx_ssrc is not None:
        members |= {
            "rtxSsrc": stream.rtx_ssrc,
            "retransmittedPacketsReceived": stream.rtx.packets,
            "retransmittedBytesReceived": stream.rtx.payload_bytes,
        }
    members |= _video(stream) if kind == "video" else _audio(stream)
    add("inbound-rtp", inbound_id, members)
    remote = stream.remote
    if remote is None or remote_id is None:
        return
    add(
        "remote-outbound-rtp",
        remote_id,
        {
            "ssrc": stream.ssrc,
            "kind": kind,
            "transportId": transport_id,
            "codecId": codec_id,
            "localId": inbound_id,
            "packetsSent": remote.packets_sent,
            "bytesSent": remote.bytes_sent,
            "remoteTimestamp": remote.remote_at_s * 1000,
            "reportsSent": remote.reports,
        },
        timestamp_ms=remote.received_at_s * 1000,
    )


def _audio(stream: InboundSnapshot) -> dict[str, Any]:
    return {
        "audioLevel": stream.audio_level,
        "totalAudioEnergy": stream.total_audio_energy,
        "totalSamplesDuration": stream.total_samples_duration_s,
        "totalSamplesReceived": stream.total_samples,
    }


def _video(stream: InboundSnapshot) -> dict[str, Any]:
    return {
        "framesReceived": stream.buffer.frames,
        "framesDecoded": stream.frames_decoded,
        "keyFramesDecoded": stream.key_frames_decoded,
        "framesDropped": stream.frames_dropped,
        "framesPerSecond": stream.frames_per_s,
        "frameWidth": stream.width,
        "frameHeight": stream.height,
        "totalDecodeTime": stream.decode_time_s,
        "totalInterFrameDelay": stream.total_inter_frame_s,
        "totalSquaredInterFrameDelay": stream.total_squared_inter_frame_s,
        "freezeCount": stream.freeze_count,
        "totalFreezesDuration": stream.freezes_duration_s,
        "pliCount": stream.pli_count,
        "firCount": 0,
    }
