"""Stand-in codecs: packets of the right size, number and kind, without the work of compression.

In a simulation both peers live in one process.  So a stand-in encoder writes the number of a frame into
packets as large as a real encoder's, and the decoder gives back that very frame.  Loss, retransmission, key
frames, the peer's bitrate limit: all that happens to packets stays as it is.  What compression does to a
picture does not show.
"""

from __future__ import annotations

import fractions
import struct
from collections import OrderedDict
from typing import Any, Final

from aiortc.codecs import get_decoder, get_encoder
from aiortc.codecs.base import Decoder, Encoder
from aiortc.codecs.vpx import DEFAULT_BITRATE, MAX_BITRATE, MIN_BITRATE, VpxPayloadDescriptor
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import VIDEO_CLOCK_RATE, VIDEO_TIME_BASE, convert_timebase
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av import AudioFrame, VideoFrame
from av.frame import Frame
from av.packet import Packet

from calllab._aiortc.simulated import simulated_loop

__all__ = ["decoder_for", "encoder_for"]

_KEPT_BYTES: Final = 64 * 1024 * 1024
"""Frames of one stream that are under way or were lost; the oldest give way."""
_KEPT_FRAMES: Final = 4096
_HEADER: Final = struct.Struct("!BII")
"""What follows, the number of the stream, and that of the frame."""
# The lowest bit of a VP8 frame says that it is no key frame (RFC 6386 section 9.1).
_KEY, _DELTA = 0, 1
_ENCODED: Final = 2
"""Set if the real thing follows: what the application gave was encoded already."""

OPUS_PACKET_BYTES: Final = 240
"""20 ms at the 96 kbit/s that aiortc sets."""
_OPUS_RATE: Final = 48000

VIDEO_PACKET_BYTES: Final = 1300
KEY_FRAME_RATIO: Final = 4.0
"""How much larger than the others a key frame is."""
_MIN_FRAME_BYTES: Final = 64
# What the test pattern needs at good quality: an encoder does not use up every bitrate it is given.
_BITS_PER_PIXEL: Final = 0.25


class _Stream:
    """The frames of one encoder that are under way, by number."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._frames: OrderedDict[int, Frame] = OrderedDict()
        self._bytes = 0
        self._next = 0

    def add(self, kind: int, frame: Frame) -> bytes:
        """Keep a frame until it is taken, and return the header that stands for it."""
        number = self._next = (self._next + 1) & 0xFFFFFFFF
        self._frames[number] = frame
        self._bytes += _size(frame)
        while len(self._frames) > (1 if self._bytes > _KEPT_BYTES else _KEPT_FRAMES):
            self._bytes -= _size(self._frames.popitem(last=False)[1])
        return _HEADER.pack(kind, self._number, number)

    def take(self, number: int) -> Frame | None:
        """Return a frame, once.  Those sent before it need not be kept: frames are decoded in their order."""
        if number not in self._frames:
            return None
        while True:
            found, frame = self._frames.popitem(last=False)
            self._bytes -= _size(frame)
            if found == number:
                return frame


def _size(frame: Frame) -> int:
    assert isinstance(frame, VideoFrame | AudioFrame)
    return sum(plane.buffer_size for plane in frame.planes)


def _streams() -> dict[int, _Stream]:
    """Return the streams of the running simulation; a decoder forgets the one before when it sees the next.

    An encoder may be gone while its frames are under way.
    """
    loop: Any = simulated_loop()
    streams: dict[int, _Stream] | None = getattr(loop, "stand_in_streams", None)
    if streams is None:
        streams = loop.stand_in_streams = {}
    return streams


def _new_stream() -> _Stream:
    loop = simulated_loop()
    assert loop is not None
    number = next(loop.object_numbers)
    stream = _streams()[number] = _Stream(number)
    return stream


def _stands_in() -> bool:
    return getattr(simulated_loop(), "codecs", "real") == "stand-in"


def encoder_for(codec: RTCRtpCodecParameters) -> Any:
    """Return an encoder: a stand-in if the running simulation wants that and there is one."""
    if _stands_in():
        if codec.mimeType.lower() == "audio/opus":
            return _OpusEncoder()
        if codec.mimeType.lower() == "video/vp8":
            return _Vp8Encoder()
    return get_encoder(codec)


def decoder_for(codec: RTCRtpCodecParameters) -> Any:
    """Return the decoder that belongs to :func:`encoder_for`."""
    if _stands_in() and codec.mimeType.lower() in ("audio/opus", "video/vp8"):
        return _Decoder(codec)
    return get_decoder(codec)


class _OpusEncoder(Encoder):
    def __init__(self) -> None:
        self._stream = _new_stream()
        self._samples = 0

    def pack(self, packet: Packet[Any]) -> tuple[list[bytes], int]:
        assert packet.pts is not None and packet.time_base is not None
        timestamp = convert_timebase(packet.pts, packet.time_base, fractions.Fraction(1, _OPUS_RATE))
        return [_HEADER.pack(_ENCODED, 0, 0) + bytes(packet)], timestamp

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        assert isinstance(frame, AudioFrame)
        payload = self._stream.add(_KEY, frame).ljust(OPUS_PACKET_BYTES, b"\0")
        timestamp = self._samples
        self._samples += frame.samples * _OPUS_RATE // frame.sample_rate
        return [payload], timestamp


class _Vp8Encoder(Encoder):
    def __init__(self) -> None:
        loop = simulated_loop()
        assert loop is not None
        self.picture_id = loop.entropy.randrange(1 << 15)
        self._stream = _new_stream()
        self._bitrate = DEFAULT_BITRATE
        self._last: int | None = None

    @property
    def target_bitrate(self) -> int:
        return self._bitrate

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        self._bitrate = max(MIN_BITRATE, min(bitrate, MAX_BITRATE))

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        assert isinstance(frame, VideoFrame) and frame.pts is not None and frame.time_base is not None
        timestamp = convert_timebase(frame.pts, frame.time_base, VIDEO_TIME_BASE)
        is_key = force_keyframe or self._last is None
        interval_s = (timestamp - self._last) / VIDEO_CLOCK_RATE if self._last is not None else 1 / 30
        self._last = timestamp
        size = min(self._bitrate * interval_s, frame.width * frame.height * _BITS_PER_PIXEL) / 8
        size = max(_MIN_FRAME_BYTES, int(size * (KEY_FRAME_RATIO if is_key else 1.0)))
        data = self._stream.add(_KEY if is_key else _DELTA, frame).ljust(size, b"\0")
        return self._packets(data), timestamp

    def pack(self, packet: Packet[Any]) -> tuple[list[bytes], int]:
        data = bytes(packet)
        assert packet.pts is not None and packet.time_base is not None
        timestamp = convert_timebase(packet.pts, packet.time_base, VIDEO_TIME_BASE)
        return self._packets(_HEADER.pack(_ENCODED | data[0] & _DELTA, 0, 0) + data), timestamp

    def _packets(self, data: bytes) -> list[bytes]:
        descriptor = VpxPayloadDescriptor(partition_start=1, partition_id=0, picture_id=self.picture_id)
        self.picture_id = (self.picture_id + 1) % (1 << 15)
        payloads = []
        for position in range(0, len(data), VIDEO_PACKET_BYTES):
            payloads.append(bytes(descriptor) + data[position : position + VIDEO_PACKET_BYTES])
            descriptor.partition_start = 0
        return payloads


class _Decoder(Decoder):
    """Gives back the frame that was put in; video only after a key frame, and without a hole."""

    def __init__(self, codec: RTCRtpCodecParameters) -> None:
        self._codec = codec
        self._has_key = codec.mimeType.lower() != "video/vp8"
        self._real: Decoder | None = None
        self._stream: int | None = None

    def decode(self, encoded_frame: JitterFrame) -> list[Frame]:
        if len(encoded_frame.data) < _HEADER.size:
            return []
        kind, stream, number = _HEADER.unpack_from(encoded_frame.data)
        if kind & _ENCODED:
            if self._real is None:
                self._real = get_decoder(self._codec)
            real = JitterFrame(encoded_frame.data[_HEADER.size :], encoded_frame.timestamp)
            return list(self._real.decode(real))
        if kind == _KEY:
            self._has_key = True
        streams = _streams()
        if stream != self._stream:
            streams.pop(self._stream or 0, None)
            self._stream = stream
        frame = streams[stream].take(number) if stream in streams else None
        if frame is None or not self._has_key:
            return []
        return [_copy(frame, encoded_frame.timestamp)]


def _copy(frame: Frame, timestamp: int) -> Frame:
    """Return a frame with the same content, and the time stamps of the receiver's clock.

    Who made the frame may still use it, or have given it to others too.
    """
    copy: Any
    if isinstance(frame, VideoFrame):
        copy = VideoFrame(frame.width, frame.height, frame.format.name)
        if _shapes(copy) == _shapes(frame):
            for mine, theirs in zip(copy.planes, frame.planes, strict=True):
                mine.update(theirs)
        else:  # lines padded in another way
            copy = VideoFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name)
        copy.time_base = VIDEO_TIME_BASE
    else:
        assert isinstance(frame, AudioFrame)
        copy = AudioFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name, layout=frame.layout.name)
        copy.sample_rate = frame.sample_rate
        copy.time_base = frame.time_base
    copy.pts = timestamp
    return copy  # type: ignore[no-any-return]


def _shapes(frame: VideoFrame) -> list[tuple[int, int]]:
    return [(plane.line_size, plane.buffer_size) for plane in frame.planes]
