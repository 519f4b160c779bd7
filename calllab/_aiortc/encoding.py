"""An encoder that survives what its source does, and counts."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from aiortc.codecs import get_encoder
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av import VideoFrame

from calllab._aiortc.switch_track import SwitchTrack

__all__ = ["EncoderCounters", "SteadyEncoder", "is_keyframe"]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class EncoderCounters:
    """What an encoder did; times are processor-independent wall time in the encoder's thread."""

    frames: int = 0
    key_frames: int = 0
    failures: int = 0
    total_time_s: float = 0.0
    width: int | None = None
    height: int | None = None


def is_keyframe(codec_name: str, data: bytes) -> bool:
    """Whether an encoded frame can be decoded without any before it."""
    if not data:
        return False
    if codec_name.upper() == "VP8":
        return data[0] & 1 == 0  # RFC 6386 section 9.1
    if codec_name.upper() == "H264":
        # Annex B: an IDR slice (5) or the parameter sets (7) that come before it.
        position = data.find(b"\x00\x00\x01")
        while 0 <= position < len(data) - 3:
            if data[position + 3] & 0x1F in (5, 7):
                return True
            position = data.find(b"\x00\x00\x01", position + 3)
        return False
    return True


class SteadyEncoder:
    """What aiortc's sender takes for its encoder (aiortc.codecs.base.Encoder).

    aiortc keeps one encoder for the life of a sender and lets its RTP task die of an exception
    (rtcrtpsender.py:410).  A new source may have another format, and its time line begins anew.  So each
    source gets a fresh encoder, RTP timestamps go on by the time that passed, and a frame that cannot be
    encoded is left out.  It runs in a worker thread, one frame at a time.
    """

    def __init__(self, codec: RTCRtpCodecParameters, track: SwitchTrack) -> None:
        self.counters = EncoderCounters()
        self._codec = codec
        self._track = track
        self._inner: Any = get_encoder(codec)
        self._epoch = track.epoch
        self._offset = 0
        self._rebase = True
        self._last_timestamp: int | None = None
        self._last_at = 0.0

    def encode(self, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """Encode a frame; no payloads if it could not be."""
        started = time.perf_counter()
        self._follow_source()
        try:
            payloads, timestamp = self._inner.encode(frame, force_keyframe)
        except Exception:
            self._failed()
            return [], 0
        if not payloads:
            return [], 0
        counters = self.counters
        counters.frames += 1
        counters.total_time_s += time.perf_counter() - started
        if isinstance(frame, VideoFrame):
            counters.width, counters.height = frame.width, frame.height
            counters.key_frames += self._starts_keyframe(payloads[0])
        return payloads, self._continue(timestamp)

    def pack(self, packet: Any) -> tuple[list[bytes], int]:
        """Packetise a frame that is already encoded."""
        self._follow_source()
        try:
            payloads, timestamp = self._inner.pack(packet)
        except Exception:
            self._failed()
            return [], 0
        if not payloads:
            return [], 0
        self.counters.frames += 1
        return payloads, self._continue(timestamp)

    def _failed(self) -> None:
        self.counters.failures += 1
        if self.counters.failures == 1:
            logger.warning(
                "a %s frame could not be encoded and is left out", self._codec.mimeType, exc_info=True
            )

    def _follow_source(self) -> None:
        if self._track.epoch == self._epoch:
            return
        self._epoch = self._track.epoch
        self._rebase = True
        before, self._inner = self._inner, get_encoder(self._codec)
        for name in ("picture_id", "target_bitrate"):
            if hasattr(before, name):
                setattr(self._inner, name, getattr(before, name))

    def _continue(self, timestamp: int) -> int:
        """Put a timestamp of the source on the one line of the stream, which never turns back."""
        last = self._last_timestamp
        if last is not None and (self._rebase or timestamp + self._offset <= last):
            passed = max(1, round((self._track.handed_at - self._last_at) * self._codec.clockRate))
            self._offset = last + passed - timestamp
        self._rebase = False
        self._last_timestamp = timestamp + self._offset
        self._last_at = self._track.handed_at
        return self._last_timestamp & 0xFFFFFFFF

    def _starts_keyframe(self, payload: bytes) -> bool:
        name = self._codec.name.upper()
        if name == "VP8":
            # aiortc's own descriptor (vpx.py:300): X, I and a 15-bit picture id are four bytes.
            return len(payload) > 4 and payload[4] & 1 == 0
        # RFC 6184: a single NAL unit, an aggregate (24) or the first fragment (28).
        kind = payload[0] & 0x1F
        if kind == 24 and len(payload) > 3:
            kind = payload[3] & 0x1F
        elif kind == 28 and len(payload) > 1:
            kind = payload[1] & 0x1F
        return kind in (5, 7)


class SteadyVideoEncoder(SteadyEncoder):
    """A video encoder also takes the bitrate that the peer asks for (rtcrtpsender.py:289 looks for it)."""

    @property
    def target_bitrate(self) -> int:
        """In bits per second."""
        return int(self._inner.target_bitrate)

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        self._inner.target_bitrate = bitrate
