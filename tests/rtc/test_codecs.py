"""Codecs, their numbers, and what is common."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from aiortc.codecs import CODECS as AIORTC_CODECS
from aiortc.codecs import HEADER_EXTENSIONS as AIORTC_EXTENSIONS
from hypothesis import given

from calllab.rtc.capabilities import RTCRtpCodec, capabilities, preference_keys
from calllab.rtc.codecs import CODECS, HEADER_EXTENSIONS, Numbering, common_codecs, common_extensions, prefer
from calllab.rtc.errors import InvalidModificationError
from calllab.rtc.parameters import HeaderExtension, Kind, RtcpFeedback, RtpCodec

KINDS: tuple[Kind, ...] = ("audio", "video")
VIDEO = CODECS["video"]


@pytest.mark.parametrize("kind", KINDS)
def test_we_offer_what_aiortc_can_do(kind: Kind) -> None:
    """Our list holds every codec and header extension of aiortc, and nothing else."""
    assert [(c.mime_type, c.clock_rate, c.channels) for c in CODECS[kind]] == [
        (c.mimeType, c.clockRate, c.channels) for c in AIORTC_CODECS[kind]
    ]
    profiles = [c.parameter("profile-level-id") for c in CODECS[kind] if c.name == "H264"]
    theirs = [c.parameters["profile-level-id"] for c in AIORTC_CODECS[kind] if c.mimeType == "video/H264"]
    assert profiles == theirs
    assert {e.uri for e in HEADER_EXTENSIONS[kind]} == {e.uri for e in AIORTC_EXTENSIONS[kind]}


def test_default_numbers_are_free_of_collisions() -> None:
    """No payload type or extension id stands for two things in one bundle."""
    everything = [codec.payload_type for kind in KINDS for codec in CODECS[kind]]
    assert len(everything) == len(set(everything))
    ids = {extension.uri: extension.id for kind in KINDS for extension in HEADER_EXTENSIONS[kind]}
    assert len(set(ids.values())) == len(ids)


def test_common_codecs_follow_the_peer() -> None:
    """Order and numbers are the peer's, parameters ours, feedback what both have; rtx needs its codec."""
    theirs = (
        RtpCodec(45, "video/AV1", 90000),
        RtpCodec(46, "video/rtx", 90000, None, (("apt", "45"),)),
        RtpCodec(
            50, "video/H264", 90000, None, (("packetization-mode", "1"), ("profile-level-id", "42e034"))
        ),
        RtpCodec(51, "video/rtx", 90000, None, (("apt", "50"),)),
        RtpCodec(60, "video/vp8", 90000, None, (), (RtcpFeedback("nack"), RtcpFeedback("transport-cc"))),
        RtpCodec(61, "video/rtx", 90000, None, (("apt", "nonsense"),)),
    )
    common = common_codecs(VIDEO, theirs)
    assert [(c.payload_type, c.mime_type) for c in common] == [
        (50, "video/H264"), (51, "video/rtx"), (60, "video/VP8"),
    ]  # fmt: skip
    assert common[0].parameter("profile-level-id") == "42e01f"
    assert common[1].apt == 50
    assert common[2].feedback == (RtcpFeedback("nack"),)


@pytest.mark.parametrize(
    ("profile_level_id", "mode", "matches"),
    [
        ("42e01f", "1", True),
        ("42c015", "1", True),
        ("42001f", "1", True),
        ("42e01f", "0", False),
        ("640c1f", "1", False),
        ("zz", "1", False),
        (None, "1", True),
    ],
)
def test_h264_profiles(profile_level_id: str | None, mode: str, matches: bool) -> None:
    """H.264 matches by profile and packetization mode, not by level; without a profile it is 42e01f."""
    parameters = [("packetization-mode", mode)]
    if profile_level_id is not None:
        parameters.append(("profile-level-id", profile_level_id))
    assert (
        bool(common_codecs(VIDEO, [RtpCodec(120, "video/H264", 90000, None, tuple(parameters))])) is matches
    )


@given(st.permutations(VIDEO), st.lists(st.integers(96, 127), min_size=6, max_size=6, unique=True))
def test_learned_numbers_stay(order: list[RtpCodec], numbers: list[int]) -> None:
    """Whatever numbers a peer uses, we use them too from then on, and none twice."""
    moved = dict(zip((codec.payload_type for codec in order), numbers, strict=True))
    theirs = [
        replace(
            codec,
            payload_type=moved[codec.payload_type],
            parameters=(("apt", str(moved[codec.apt])),) if codec.apt is not None else codec.parameters,
        )
        for codec in order
    ]
    numbering = Numbering().learn(theirs, [HeaderExtension(7, HEADER_EXTENSIONS["video"][0].uri)])
    ours = numbering.number_codecs(VIDEO)
    assert {c.payload_type: (c.mime_type, c.parameters) for c in ours} == {
        c.payload_type: (c.mime_type, c.parameters) for c in theirs
    }
    audio = numbering.number_codecs(CODECS["audio"])
    assert not {c.payload_type for c in audio} & set(numbers)
    extensions = numbering.number_extensions(HEADER_EXTENSIONS["video"])
    assert extensions[0].id == 7
    assert len({extension.id for extension in extensions}) == len(extensions)


def test_extension_ids_that_are_taken_are_avoided() -> None:
    """An extension of ours whose default id the peer uses for another gets a free one."""
    numbering = Numbering().learn((), [HeaderExtension(4, "urn:other")])
    assert [e.id for e in numbering.number_extensions(HEADER_EXTENSIONS["audio"])] == [1, 2]
    assert common_extensions(HEADER_EXTENSIONS["audio"], [HeaderExtension(4, "urn:other")]) == ()


def test_preferences_filter_and_order() -> None:
    """setCodecPreferences chooses codecs, puts them into order, and takes rtx along only if it is listed."""
    listed = capabilities("video")
    assert listed is not None
    by_name = {codec.mimeType: codec for codec in listed.codecs}
    chosen = preference_keys("video", [by_name["video/H264"], by_name["video/VP8"], by_name["video/rtx"]])
    assert [c.name for c in prefer(VIDEO, chosen)] == ["H264", "rtx", "VP8", "rtx"]
    assert [c.name for c in prefer(VIDEO, preference_keys("video", [by_name["video/VP8"]]))] == ["VP8"]
    assert prefer(VIDEO, None) == VIDEO
    with pytest.raises(InvalidModificationError, match="AV1"):
        preference_keys("video", [RTCRtpCodec("video/AV1", 90000)])
    with pytest.raises(InvalidModificationError, match="retransmission"):
        preference_keys("video", [by_name["video/rtx"]])
    assert capabilities("text") is None
