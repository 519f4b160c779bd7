from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from calllab.rtc.errors import SdpError
from calllab.rtc.parameters import (
    Fingerprint,
    HeaderExtension,
    IceCredentials,
    RtcpFeedback,
    RtpCodec,
    StreamEncoding,
)
from calllab.rtc.sdp import Group, MediaSection, Msid, Origin, Session, SsrcAttribute
from calllab.rtc.sdp_parser import MAX_SDP_CHARACTERS, parse_session
from tests.rtc.samples import CHROMIUM_OFFER, FIREFOX_OFFER

TOKEN = st.text(string.ascii_letters + string.digits + "-{}._", min_size=1, max_size=12)
ICE_TEXT = string.ascii_letters + string.digits + "+/"
SSRC = st.integers(1, 2**32 - 1)
CREDENTIALS = st.builds(
    IceCredentials, st.text(ICE_TEXT, min_size=4, max_size=8), st.text(ICE_TEXT, min_size=22, max_size=32)
)
FINGERPRINT = st.builds(
    lambda octets: Fingerprint("sha-256", octets.hex(":").upper()), st.binary(min_size=32, max_size=32)
)
PARAMETER = st.tuples(
    st.text(string.ascii_lowercase, min_size=1, max_size=6), st.text("0123456789abcdef", max_size=4)
)


@st.composite
def codecs(draw: st.DrawFn, kind: str) -> tuple[RtpCodec, ...]:
    """Draw codecs with different dynamic payload types."""
    return tuple(
        RtpCodec(
            payload_type,
            f"{kind}/{draw(st.sampled_from(['opus', 'VP8', 'rtx', 'H264', 'G722']))}",
            draw(st.sampled_from([8000, 48000, 90000])),
            draw(st.sampled_from([1, 2])) if kind == "audio" else None,
            tuple(draw(st.lists(PARAMETER, max_size=3, unique_by=lambda pair: pair[0]))),
            tuple(
                RtcpFeedback(kind, parameter)
                for kind, parameter in draw(
                    st.lists(st.sampled_from([("nack", ""), ("nack", "pli"), ("ccm", "fir")]), max_size=2)
                )
            ),
        )
        for payload_type in draw(st.lists(st.integers(96, 127), min_size=1, max_size=4, unique=True))
    )


@st.composite
def sections(draw: st.DrawFn, mid: str) -> MediaSection:
    """Draw a media section as WebRTC peers write them."""
    kind = draw(st.sampled_from(["audio", "video", "application"]))
    common = {
        "mid": mid,
        "ice": draw(st.none() | CREDENTIALS),
        "ice_options": draw(st.sampled_from([(), ("trickle",), ("trickle", "renomination")])),
        "fingerprints": tuple(draw(st.lists(FINGERPRINT, max_size=2))),
        "setup": draw(st.sampled_from([None, "actpass", "active", "passive"])),
        "bundle_only": draw(st.booleans()),
        "candidates": draw(st.sampled_from([(), ("candidate:1 1 udp 2122260223 192.0.2.1 5000 typ host",)])),
        "end_of_candidates": draw(st.booleans()),
    }
    port = draw(st.sampled_from([0, 9, 40000]))
    if kind == "application":
        return MediaSection(
            kind,
            port,
            "UDP/DTLS/SCTP",
            ("webrtc-datachannel",),
            sctp_port=draw(st.none() | st.integers(0, 65535)),
            max_message_size=draw(st.none() | st.integers(0, 2**32)),
            **common,
        )
    chosen = draw(codecs(kind))
    sources = draw(st.lists(SSRC, max_size=2, unique=True))
    return MediaSection(
        kind,
        port,
        "UDP/TLS/RTP/SAVPF",
        tuple(str(codec.payload_type) for codec in chosen),
        direction=draw(st.sampled_from(["sendrecv", "sendonly", "recvonly", "inactive"])),
        codecs=chosen,
        header_extensions=tuple(
            HeaderExtension(id_, f"urn:x:{id_}")
            for id_ in draw(st.lists(st.integers(1, 14), max_size=3, unique=True))
        ),
        msids=tuple(draw(st.lists(st.builds(Msid, TOKEN, TOKEN | st.just("")), max_size=3, unique=True))),
        ssrcs=tuple(
            SsrcAttribute(
                ssrc, draw(st.none() | TOKEN), draw(st.none() | st.builds("{} {}".format, TOKEN, TOKEN))
            )
            for ssrc in sources
        ),
        ssrc_groups=(Group("FID", tuple(map(str, sources))),) if len(sources) == 2 else (),
        rtcp_mux=draw(st.booleans()),
        rtcp_rsize=draw(st.booleans()),
        **common,
    )


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Draw a whole description."""
    mids = draw(st.lists(TOKEN, max_size=4, unique=True))
    return Session(
        origin=Origin(draw(st.integers(0, 2**63)), draw(st.integers(0, 99))),
        media=tuple(draw(sections(mid)) for mid in mids),
        groups=(Group("BUNDLE", tuple(mids)),) if mids else (),
        msid_semantics=draw(st.sampled_from([(), (Group("WMS", ("*",)),)])),
        extmap_allow_mixed=draw(st.booleans()),
        ice_lite=draw(st.booleans()),
    )


@given(sessions())
def test_round_trip(session: Session) -> None:
    """What is written is read back as the same."""
    assert parse_session(str(session)) == session


@given(
    st.text()
    | st.lists(st.sampled_from([*CHROMIUM_OFFER.split("\r\n"), *FIREFOX_OFFER.split("\r\n")])).map("\n".join)
)
@example("v=0\r\no=- 1 1 IN IP4 0\r\na=fmtp:")
@example("v=0\r\no=- 1 1 IN IP4 0\r\nm=audio 9 RTP/AVP ²\r\n")
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever arrives becomes a description, or is an SdpError; nothing else is raised."""
    with contextlib.suppress(SdpError):
        parse_session(text)


@given(st.data())
def test_damaged_offers_are_read_or_refused(data: st.DataObject) -> None:
    """A browser's offer with characters changed, cut or repeated is read or refused, and writes what it
    reads.
    """
    text = list(data.draw(st.sampled_from([CHROMIUM_OFFER, FIREFOX_OFFER])))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(text) - 1))
        text[position : position + data.draw(st.integers(0, 3))] = data.draw(st.text(max_size=3))
    try:
        session = parse_session("".join(text))
    except SdpError:
        return
    assert parse_session(str(session)).media == session.media


def test_chromium_offer() -> None:
    """All that matters in Chromium's offer is read."""
    session = parse_session(CHROMIUM_OFFER)
    audio, video, data = session.media
    assert session.bundle == ("0", "1", "2")
    assert session.extmap_allow_mixed
    assert audio.ice == IceCredentials("4ZcD", "2/1muCWoOi3uLifh0NuRHlkP")
    assert audio.setup == "actpass"
    assert audio.codecs[0] == RtpCodec(
        111,
        "audio/opus",
        48000,
        2,
        (("minptime", "10"), ("useinbandfec", "1")),
        (RtcpFeedback("transport-cc"),),
    )
    assert audio.stream_ids == ("stream1",)
    assert audio.track_id == "track-a"
    assert [codec.payload_type for codec in video.codecs] == [96, 97, 103, 104]
    assert video.codecs[1].apt == 96
    assert video.encodings == (StreamEncoding(3570614608, 4231627014),)
    assert video.cname == "4TOk42mSjXCkVIa6"
    assert data.is_data
    assert data.sctp_port == 5000
    assert data.max_message_size == 262144
    assert len(audio.candidates) == 1


def test_firefox_offer() -> None:
    """What Firefox says at session level holds for each section; bundle-only with port zero is not
    rejected.
    """
    session = parse_session(FIREFOX_OFFER)
    audio, video = session.media
    assert audio.fingerprints == video.fingerprints
    assert len(audio.fingerprints) == 1
    assert audio.setup == "actpass"
    assert not video.rejected
    assert video.bundle_only
    assert video.ice_options == ("trickle",)
    assert video.stream_ids == ("{6a1c0c5a}",)


def test_rejected_sections() -> None:
    """Port zero means rejected, unless the section only waits for its bundle."""
    text = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\nm=video 0 UDP/TLS/RTP/SAVPF 0\r\na=mid:a\r\n"
    assert parse_session(text).media[0].rejected
    assert not parse_session(text + "a=bundle-only\r\n").media[0].rejected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no o= line"),
        ("x" * (MAX_SDP_CHARACTERS + 1), "characters"),
        ("hello", "x=value"),
        ("o=- 1 1 IN IP4 0\r\n", "v=0"),
        ("v=0\r\no=- 1 1 IN IP4 0\r\n" + "m=audio 9 X 0\r\n" * 600, "512 media sections"),
        ("v=0\r\no=- 1 1 IN IP4 0\r\nm=audio 99999 X 0\r\n", "port"),
        ("v=0\r\no=- 1 1 IN IP4 0\r\nm=audio 9 X 0\r\na=ice-ufrag:abcd\r\n", "come together"),
        ("v=0\r\no=- 1 1 IN IP4 0\r\nm=audio 9 X 0\r\na=ssrc:4294967296 cname:x\r\n", "SSRC"),
        (
            "v=0\r\no=- 1 1 IN IP4 0\r\nm=audio 9 X 0\r\na=mid:a\r\nm=audio 9 X 0\r\na=mid:a\r\n",
            "the mid 'a'",
        ),
        (
            "v=0\r\no=- 1 1 IN IP4 0\r\nm=audio 9 X 0\r\n"
            + "a=candidate:1 1 udp 5 192.0.2.1 9 typ host\r\n" * 600,
            "512 candidates",
        ),
        ("v=0\r\no=- 1 1 IN IP4 0\r\na=setup:holdconn\r\n", "holdconn"),
        ("v=0\r\no=- 1 1 IN IP4 0\r\na=fingerprint:sha-256 zz\r\n", "fingerprint"),
    ],
)
def test_refusals_name_the_fault(text: str, reason: str) -> None:
    """A refusal says what is wrong."""
    with pytest.raises(SdpError, match=reason):
        parse_session(text)


def test_refusal_names_the_line() -> None:
    """The number of the faulty line is in the error."""
    with pytest.raises(SdpError) as caught:
        parse_session("v=0\r\no=- 1 1 IN IP4 0\r\nm=audio 9 X 0\r\na=rtpmap:nonsense\r\n")
    assert caught.value.sdpLineNumber == 4
    assert caught.value.errorDetail == "sdp-syntax-error"
