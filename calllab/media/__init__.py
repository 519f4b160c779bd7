"""Sound and pictures made on the fly, and what arrives of them."""

from __future__ import annotations

from calllab._aiortc import MediaPlayer
from calllab.media.audio_code import AudioTimeReader
from calllab.media.frame_code import FrameStamp, luma_of, read_stamp, write_stamp
from calllab.media.pacing import PacedTrack
from calllab.media.packets import EncodedSpeechTrack, EncodedVideoTrack
from calllab.media.pattern import TestPattern, TestPatternTrack
from calllab.media.playout import PlayoutMeter, PlayoutSummary
from calllab.media.sink import MediaSink
from calllab.media.speech import SpeechTrack, SpeechVoice

__all__ = [
    "AudioTimeReader",
    "EncodedSpeechTrack",
    "EncodedVideoTrack",
    "FrameStamp",
    "MediaPlayer",
    "MediaSink",
    "PacedTrack",
    "PlayoutMeter",
    "PlayoutSummary",
    "SpeechTrack",
    "SpeechVoice",
    "TestPattern",
    "TestPatternTrack",
    "luma_of",
    "read_stamp",
    "write_stamp",
]
