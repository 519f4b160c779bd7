"""Checks at import that the installed aiortc and aioice still have the insides that this room leans on.

The versions are pinned to a minor release, and still every private name is looked up: a distribution may
patch what it ships, and a failure here says in one sentence what a traceback in mid-call would not.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Mapping
from importlib import metadata
from types import ModuleType
from typing import Final

from calllab.errors import UnsupportedAiortc

__all__ = ["ATTRIBUTES", "INSTANCE_ATTRIBUTES", "VERSIONS", "check"]

VERSIONS: Final[Mapping[str, tuple[int, int]]] = {"aiortc": (1, 16), "aioice": (0, 13)}
"""The minor release of each library that this room was written for."""

ATTRIBUTES: Final[Mapping[str, tuple[str, ...]]] = {
    "aioice": ("Candidate", "Connection", "TransportPolicy"),
    "aioice.ice": (
        "ICE_COMPLETED",
        "ICE_FAILED",
        "CandidatePair.State.FROZEN",
        "CandidatePair.State.WAITING",
        "CandidatePair.State.IN_PROGRESS",
        "CandidatePair.State.SUCCEEDED",
        "CandidatePair.State.FAILED",
        "Connection._check_periodic",
        "Connection._pair_remote_candidate",
        "Connection._unfreeze_initial",
        "Connection.add_remote_candidate",
        "Connection.build_request",
        "Connection.check_complete",
        "Connection.check_incoming",
        "Connection.check_start_task",
        "Connection.close",
        "Connection.connect",
        "Connection.data_received",
        "Connection.query_consent",
        "Connection.sort_check_list",
        "Connection.switch_role",
        "StunProtocol.datagram_received",
        "StunProtocol.request",
        "StunProtocol.send_data",
        "StunProtocol.send_stun",
        "TransportPolicy.ALL",
        "TransportPolicy.RELAY",
        "candidate_pair_priority",
        "get_host_addresses",
    ),
    "aioice.candidate": ("Candidate.from_sdp", "candidate_foundation", "candidate_priority"),
    "aioice.stun": (
        "Class.ERROR",
        "Class.RESPONSE",
        "Message.check_message_integrity",
        "Message.error_code",
        "Method.BINDING",
        "TransactionFailed",
        "TransactionTimeout",
    ),
    "aioice.turn": (
        "TurnClientTcpProtocol",
        "TurnClientUdpProtocol",
        "TurnTransport._close",
        "TurnTransport._connect",
        "UDP_SOCKET_BUFFER_SIZE",
    ),
    "aiortc": ("RTCIceTransport",),
    "aiortc.clock": ("datetime_from_ntp",),
    "aiortc.codecs": ("get_decoder", "get_encoder"),
    "aiortc.codecs.base": ("Decoder", "Encoder"),
    "aiortc.codecs.h264": ("H264Encoder",),
    "aiortc.codecs.opus": ("OpusEncoder",),
    "aiortc.codecs.vpx": (
        "DEFAULT_BITRATE",
        "MAX_BITRATE",
        "MIN_BITRATE",
        "Vp8Encoder",
        "VpxPayloadDescriptor",
        "multiprocessing",
        "random",
    ),
    "aiortc.contrib.media": ("MediaPlayer",),
    "aiortc.exceptions": ("InvalidStateError",),
    "aiortc.jitterbuffer": (
        "MAX_MISORDER",
        "JitterBuffer._remove_frame",
        "JitterBuffer.add",
        "JitterBuffer.remove",
        "JitterBuffer.smart_remove",
        "JitterFrame",
    ),
    "aiortc.mediastreams": (
        "AudioStreamTrack",
        "MediaStreamError",
        "MediaStreamTrack",
        "VIDEO_CLOCK_RATE",
        "VIDEO_TIME_BASE",
        "VideoStreamTrack",
        "convert_timebase",
    ),
    "aiortc.rtcdatachannel": (
        "RTCDataChannel._addBufferedAmount",
        "RTCDataChannel._setId",
        "RTCDataChannel._setReadyState",
        "RTCDataChannelParameters",
    ),
    "aiortc.rtcdtlstransport": (
        "RTCCertificate._create_ssl_context",
        "RTCCertificate.expires",
        "RTCCertificate.getFingerprints",
        "RTCDtlsFingerprint",
        "RTCDtlsParameters",
        "RTCDtlsTransport._handle_rtcp_data",
        "RTCDtlsTransport._handle_rtp_data",
        "RTCDtlsTransport._register_rtp_receiver",
        "RTCDtlsTransport._send_data",
        "RTCDtlsTransport._send_rtp",
        "RTCDtlsTransport._set_role",
        "RTCDtlsTransport._set_state",
        "RTCDtlsTransport._validate_peer_identity",
        "RtpRouter.register_receiver",
        "RtpRouter.route_rtp",
        "State.FAILED",
    ),
    "aiortc.rtcrtpparameters": (
        "RTCRtcpFeedback",
        "RTCRtcpParameters",
        "RTCRtpCodecParameters",
        "RTCRtpDecodingParameters",
        "RTCRtpHeaderExtensionParameters",
        "RTCRtpReceiveParameters",
        "RTCRtpRtxParameters",
        "RTCRtpSendParameters",
    ),
    "aiortc.rtcrtpreceiver": (
        "NackGenerator",
        "RTCRtpReceiver._handle_disconnect",
        "RTCRtpReceiver._handle_rtcp_packet",
        "RTCRtpReceiver._handle_rtp_packet",
        "RTCRtpReceiver._send_rtcp_nack",
        "RTCRtpReceiver._send_rtcp_pli",
        "RTCRtpReceiver._set_rtcp_ssrc",
        "RemoteStreamTrack",
        "StreamStatistics.jitter",
        "StreamStatistics.packets_lost",
        "TimestampMapper",
    ),
    "aiortc.rtcrtpsender": (
        "RTCRtpSender._handle_rtcp_packet",
        "RTCRtpSender._send_keyframe",
        "RTCRtpSender._send_rtcp",
    ),
    "aiortc.rtcsctptransport": (
        "AbortChunk",
        "Chunk",
        "DATA_CHANNEL_ACK",
        "DATA_CHANNEL_OPEN",
        "DataChunk",
        "RTCSctpCapabilities",
        "RTCSctpTransport.State.CLOSED",
        "RTCSctpTransport.State.ESTABLISHED",
        "RTCSctpTransport._abort",
        "RTCSctpTransport._data_channel_close",
        "RTCSctpTransport._data_channel_flush",
        "RTCSctpTransport._data_channel_open",
        "RTCSctpTransport._data_channel_receive",
        "RTCSctpTransport._data_channel_send",
        "RTCSctpTransport._handle_data",
        "RTCSctpTransport._receive_chunk",
        "RTCSctpTransport._send",
        "RTCSctpTransport._send_chunk",
        "RTCSctpTransport._set_state",
        "RTCSctpTransport._t1_expired",
        "RTCSctpTransport._t2_expired",
        "RTCSctpTransport._update_advanced_peer_ack_point",
        "WEBRTC_BINARY",
        "WEBRTC_BINARY_EMPTY",
        "WEBRTC_DCEP",
        "WEBRTC_STRING",
        "WEBRTC_STRING_EMPTY",
    ),
    "aiortc.rtp": (
        "AnyRtcpPacket",
        "HeaderExtensionsMap.configure",
        "RTCP_PSFB_FIR",
        "RTCP_PSFB_PLI",
        "RTCP_RTPFB_NACK",
        "RTP_HISTORY_SIZE",
        "RtcpByePacket",
        "RtcpPsfbPacket",
        "RtcpRrPacket",
        "RtcpRtpfbPacket",
        "RtcpSrPacket",
        "RtpPacket",
        "is_rtcp",
    ),
    "aiortc.utils": ("uint16_add",),
}
"""What is looked up by name in the modules of the two libraries."""

INSTANCE_ATTRIBUTES: Final[Mapping[str, tuple[str, ...]]] = {
    "aioice.candidate:Candidate": ("_network_host",),
    "aioice.ice:CandidatePair": ("nominated", "remote_nominated"),
    "aioice.ice:Connection": (
        "_check_list",
        "_check_list_done",
        "_check_list_state",
        "_components",
        "_early_checks",
        "_early_checks_done",
        "_local_candidates",
        "_local_candidates_end",
        "_nominated",
        "_nominating",
        "_protocols",
        "_query_consent_task",
        "_remote_candidates",
        "_remote_candidates_end",
        "_tie_breaker",
    ),
    "aioice.ice:StunProtocol": ("transactions",),
    "aioice.turn:TurnTransport": ("__send_tasks",),
    "aiortc.codecs.h264:H264Encoder": ("__target_bitrate",),
    "aiortc.codecs.opus:OpusEncoder": ("codec",),
    "aiortc.codecs.vpx:Vp8Encoder": ("__target_bitrate",),
    "aiortc.jitterbuffer:JitterBuffer": ("_capacity", "_is_video", "_origin", "_packets", "_prefetch"),
    "aiortc.mediastreams:MediaStreamTrack": ("_id",),
    "aiortc.rtcdtlstransport:RTCCertificate": ("_cert",),
    "aiortc.rtcdtlstransport:RTCDtlsTransport": (
        "__rx_bytes",
        "__rx_packets",
        "__tx_bytes",
        "__tx_packets",
        "_role",
        "_rtp_header_extensions_map",
        "_rtp_router",
        "_ssl",
        "_state",
        "_task",
    ),
    "aiortc.rtcdtlstransport:RtpRouter": ("mid_table", "ssrc_table"),
    "aiortc.rtcrtpreceiver:NackGenerator": ("max_seq", "missing"),
    "aiortc.rtcrtpreceiver:RTCRtpReceiver": (
        "__codecs",
        "__decoder_error",
        "__decoder_queue",
        "__decoder_thread",
        "__jitter_buffer",
        "__nack_generator",
        "__remote_streams",
        "__rtcp_exited",
        "__rtcp_task",
        "__rtx_ssrc",
        "__started",
        "__timestamp_mapper",
        "_enabled",
        "_track",
    ),
    "aiortc.rtcrtpreceiver:RemoteStreamTrack": ("_queue",),
    "aiortc.rtcrtpreceiver:StreamStatistics": (
        "_clockrate",
        "_jitter_q4",
        "_last_timestamp",
        "packets_received",
    ),
    "aiortc.rtcrtpsender:RTCRtpSender": (
        "__encoder",
        "__rtp_header_extensions_map",
        "__rtp_task",
        "__rtx_payload_type",
        "_rtx_ssrc",
        "_ssrc",
    ),
    "aiortc.rtcsctptransport:RTCSctpTransport": (
        "_association_state",
        "_data_channel_queue",
        "_data_channels",
        "_outbound_queue",
        "_remote_max_message_size",
    ),
}
"""What ``__init__`` of a class must set; names with two underscores are mangled by the class."""


def check() -> None:
    """Raise UnsupportedAiortc, with a sentence that names what moved, unless all that is needed is there."""
    missing = [*_wrong_versions(), *_missing_attributes(), *_missing_instance_attributes()]
    if missing:
        pins = " and ".join(f"{name} {major}.{minor}.*" for name, (major, minor) in VERSIONS.items())
        raise UnsupportedAiortc(
            f"calllab needs {pins}; {'; '.join(missing)}. Install the pinned versions again."
        )


def _wrong_versions() -> list[str]:
    wrong = []
    for name, pinned in VERSIONS.items():
        version = metadata.version(name)
        found = tuple(int(part) if part.isdigit() else -1 for part in version.split(".")[:2])
        if found != pinned:
            wrong.append(f"{name} {version} is installed")
    return wrong


def _missing_attributes() -> list[str]:
    missing = []
    for module_name, paths in ATTRIBUTES.items():
        module = _import(module_name)
        if module is None:
            missing.append(f"the module {module_name} is gone")
            continue
        for path in paths:
            found: object = module
            for part in path.split("."):
                found = getattr(found, part, None)
            if found is None:
                missing.append(f"{module_name}.{path} is gone")
    return missing


def _missing_instance_attributes() -> list[str]:
    missing = []
    for target, names in INSTANCE_ATTRIBUTES.items():
        module_name, _, class_name = target.partition(":")
        cls = getattr(_import(module_name), class_name, None)
        if cls is None:
            missing.append(f"the class {module_name}.{class_name} is gone")
            continue
        assigned = _assigned_in_init(cls)
        missing += [
            f"{module_name}.{class_name} no longer sets {name}" for name in names if name not in assigned
        ]
    return missing


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _assigned_in_init(cls: type) -> set[str]:
    """Return the names of ``self`` that ``__init__`` of a class assigns, read from its source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(vars(cls)["__init__"])))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
