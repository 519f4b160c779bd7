"""Pictures and sound through the codecs of a call, without the call."""

from __future__ import annotations

import fractions
from collections.abc import Iterable, Iterator

from aiortc.codecs.opus import OpusDecoder, OpusEncoder
from aiortc.codecs.vpx import Vp8Decoder, Vp8Encoder, vp8_depayload
from aiortc.jitterbuffer import JitterFrame
from av import AudioFrame, VideoFrame

from calllab._aiortc import MediaStreamError, MediaStreamTrack


def through_vp8(frames: Iterable[VideoFrame], *, bitrate: int) -> Iterator[VideoFrame]:
    """Encode and decode pictures as a call does."""
    encoder, decoder = Vp8Encoder(), Vp8Decoder()
    encoder.target_bitrate = bitrate
    for index, frame in enumerate(frames):
        frame.pts, frame.time_base = index * 3000, fractions.Fraction(1, 90_000)
        payloads, timestamp = encoder.encode(frame, force_keyframe=index == 0)
        data = b"".join(vp8_depayload(payload) for payload in payloads)
        for picture in decoder.decode(JitterFrame(data=data, timestamp=timestamp)):
            assert isinstance(picture, VideoFrame)
            yield picture


def through_opus(frames: Iterable[AudioFrame], *, bitrate: int) -> Iterator[AudioFrame]:
    """Encode and decode sound as a call does."""
    encoder, decoder = OpusEncoder(), OpusDecoder()
    encoder.codec.bit_rate = bitrate
    for frame in frames:
        payloads, timestamp = encoder.encode(frame)
        for payload in payloads:
            for sound in decoder.decode(JitterFrame(data=payload, timestamp=timestamp)):
                assert isinstance(sound, AudioFrame)
                yield sound


class ScriptedTrack(MediaStreamTrack):
    """Hands out given frames, and raises given exceptions, one after the other, then ends."""

    def __init__(self, kind: str, script: Iterable[AudioFrame | VideoFrame | Exception]) -> None:
        super().__init__()
        self.kind = kind
        self._script = iter(script)

    async def recv(self) -> AudioFrame | VideoFrame:
        step = next(self._script, None)
        if step is None:
            raise MediaStreamError("the script is at its end")
        if isinstance(step, Exception):
            raise step
        return step
