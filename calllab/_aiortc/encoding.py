"""An encoder that survives what its source does, and counts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.opus import OpusEncoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av import VideoFrame

from calllab._aiortc.insides import set_inside
from calllab._aiortc.simulated import stopwatch
from calllab._aiortc.stand_in import encoder_for
from calllab._aiortc.switch_track import SwitchTrack

__all__ = ["EncoderCounters", "EncodingLimits", "SteadyEncoder", "is_keyframe"]

logger = logging.getLogger(__name__)

# Less than this no encoder can make anything of; W3C allows one frame even at zero.
_LEAST_BITRATE = 10_000
# RFC 6716 section 2.1.1.
_LEAST_OPUS_BITRATE = 6_000


@dataclass(slots=True)
class EncoderCounters:
    """What an encoder did; times are processor-independent wall time in the encoder's thread."""

    frames: int = 0
    key_frames: int = 0
    failures: int = 0
    total_time_s: float = 0.0
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class EncodingLimits:
    """What the application allows an encoding (W3C RTCRtpEncodingParameters); None: as much as can be had."""

    active: bool = True
    max_bitrate: int | None = None
    """Bits per second, without IP and UDP."""
    max_framerate: float | None = None
    scale_down_by: float = 1.0


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

    limits = EncodingLimits()

    def __init__(
        self,
        codec: RTCRtpCodecParameters,
        track: SwitchTrack,
        cost_s: Callable[[Any], float] = lambda _: 0.0,
    ) -> None:
        self.counters = EncoderCounters()
        self._codec = codec
        self._track = track
        self._cost_s = cost_s
        self._cost = 0.0
        self._inner: Any = encoder_for(codec)
        self._epoch = track.epoch
        self._offset = 0
        self._rebase = True
        self._last_timestamp: int | None = None
        self._last_at = 0.0
        self._next_codec: RTCRtpCodecParameters | None = None

    def change_codec(self, codec: RTCRtpCodecParameters) -> None:
        """Encode the next frame with another codec.

        The codec that it was made with is the very object from which aiortc's RTP task takes the payload type
        of each packet (rtcrtpsender.py:366); it changes between two frames.
        """
        self._next_codec = codec

    def simulated_cost_s(self, frame: Any, _force_keyframe: bool = False) -> float:
        """Return how long the next frame takes to encode in virtual time (see virtual_loop.py)."""
        self._cost = self._cost_s(frame)
        return self._cost

    def encode(self, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """Encode a frame; no payloads if it could not be."""
        started = stopwatch()
        self._follow_source()
        try:
            fitted = self._fit(frame, force_keyframe)
            if fitted is None:
                return [], 0
            frame, force_keyframe = fitted
            payloads, timestamp = self._inner.encode(frame, force_keyframe)
        except Exception:
            self._failed()
            return [], 0
        if not payloads:
            return [], 0
        counters = self.counters
        counters.frames += 1
        counters.total_time_s += stopwatch() - started + self._cost
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

    def _fit(self, frame: Any, force_keyframe: bool) -> tuple[Any, bool] | None:
        """Return a frame as it is to be encoded, and whether as a key frame; None: it is left out."""
        return frame, force_keyframe

    def _failed(self) -> None:
        self.counters.failures += 1
        if self.counters.failures == 1:
            logger.warning(
                "a %s frame could not be encoded and is left out", self._codec.mimeType, exc_info=True
            )

    def _follow_source(self) -> None:
        codec, self._next_codec = self._next_codec, None
        if codec is not None:
            self._rebase |= codec.clockRate != self._codec.clockRate
            vars(self._codec).update(vars(codec))
        elif self._track.epoch == self._epoch:
            return
        self._rebase |= self._track.epoch != self._epoch
        self._epoch = self._track.epoch
        before, self._inner = self._inner, encoder_for(self._codec)
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


class SteadyAudioEncoder(SteadyEncoder):
    """An audio encoder keeps within the bitrate that the application allows, if its codec has a choice."""

    _free_bitrate: int | None = None

    def _fit(self, frame: Any, force_keyframe: bool) -> tuple[Any, bool] | None:
        if isinstance(self._inner, OpusEncoder):
            free, limit = self._free_bitrate, self.limits.max_bitrate
            if free is None:
                free = self._free_bitrate = self._inner.codec.bit_rate or 0
            bitrate = free if limit is None else max(_LEAST_OPUS_BITRATE, min(limit, free))
            if self._inner.codec.bit_rate != bitrate:
                # The rate is that of the codec's opening: a fresh one goes on in its place.
                self._inner = encoder_for(self._codec)
                self._inner.codec.bit_rate = bitrate
                self._rebase = True
        return frame, force_keyframe


class SteadyVideoEncoder(SteadyEncoder):
    """A video encoder also takes the bitrate that the peer asks for (rtcrtpsender.py:289 looks for it), and
    keeps within what the application allows.
    """

    _asked: int | None = None
    _last_shown_s: float | None = None
    _owes_keyframe = False

    @property
    def target_bitrate(self) -> int:
        """In bits per second."""
        return int(self._inner.target_bitrate)

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        self._asked = bitrate

    def _fit(self, frame: Any, force_keyframe: bool) -> tuple[Any, bool] | None:
        self._bound_bitrate()
        limits, at_s = self.limits, frame.pts * float(frame.time_base)
        if limits.max_framerate is not None and self._last_shown_s is not None:
            # The interval may be short by a part of the source's own, else 15 of 30 would become 10.
            passed_s = at_s - self._last_shown_s
            too_soon = limits.max_framerate == 0 or 0 <= passed_s < 0.9 / limits.max_framerate
            if too_soon:
                self._owes_keyframe |= force_keyframe
                return None
        self._last_shown_s = at_s
        force_keyframe |= self._owes_keyframe
        self._owes_keyframe = False
        if limits.scale_down_by > 1.0:
            # Codecs want even sizes.
            width, height = (
                max(2, int(size / limits.scale_down_by) // 2 * 2) for size in (frame.width, frame.height)
            )
            scaled = frame.reformat(width=width, height=height)
            scaled.pts, scaled.time_base = frame.pts, frame.time_base
            frame = scaled
        return frame, force_keyframe

    def _bound_bitrate(self) -> None:
        """Give the encoder what the peer asked for, within what the application allows."""
        limit = self.limits.max_bitrate
        asked = self._asked
        if asked is None:
            if limit is None:
                return
            asked = self._asked = int(self._inner.target_bitrate)
        if limit is not None and asked > limit:
            asked = max(limit, _LEAST_BITRATE)
        self._inner.target_bitrate = asked
        if limit is not None and self._inner.target_bitrate > asked:
            # Below the least that aiortc would set (vpx.py, h264.py: MIN_BITRATE).
            for owner in (Vp8Encoder, H264Encoder):
                if isinstance(self._inner, owner):
                    set_inside(self._inner, owner, "__target_bitrate", asked)
