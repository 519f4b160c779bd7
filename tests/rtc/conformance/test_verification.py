"""Descriptions of the peer that cannot be right (RFC 9429 section 5.8, RFC 9143)."""

from __future__ import annotations

import pytest

from calllab.rtc import AudioStreamTrack, InvalidAccessError, MediaStream, RTCPeerConnection, SdpError
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import answer, lines, local, negotiate, offer, peers
from tests.rtc.samples import CHROMIUM_OFFER

JSEP = "RFC 9429"


async def refused(peer: RTCPeerConnection, type_: str, text: str, match: str) -> InvalidAccessError:
    """Set a description that must be refused as one that does not fit, and return the error."""
    before = peer.signalingState, peer.remoteDescription
    with pytest.raises(InvalidAccessError, match=match) as caught:
        await peer.setRemoteDescription({"type": type_, "sdp": text})
    assert (peer.signalingState, peer.remoteDescription) == before
    return caught.value


async def malformed(text: str, match: str) -> str:
    """Set an offer that must be refused as one that is no SDP, and return the line that is blamed."""
    async with peers(1) as (peer,):
        with pytest.raises(SdpError, match=match) as caught:
            await peer.setRemoteDescription({"type": "offer", "sdp": text})
        assert (caught.value.name, caught.value.errorDetail) == ("OperationError", "sdp-syntax-error")
        number = caught.value.sdpLineNumber
        assert number is not None
        return text.split("\r\n")[number - 1]


# Protocols


@clause(
    "5.1.2", "offers may have any of eight RTP profiles, and answers have that of the offer", document=JSEP
)
@pytest.mark.parametrize(
    "protocol",
    [
        f"{below}{profile}"
        for below in ("RTP/", "RTP/S", "UDP/TLS/RTP/S", "TCP/DTLS/RTP/S")
        for profile in ("AVP", "AVPF")
    ],
)
async def test_9429_5_1_2_profiles(protocol: str) -> None:
    """With ICE credentials and a fingerprint even RTP/AVP means DTLS; the answer repeats it."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await a.setLocalDescription()
        await b.setRemoteDescription(
            {"type": "offer", "sdp": local(a).sdp.replace("UDP/TLS/RTP/SAVPF", protocol)}
        )
        await b.setLocalDescription()
        assert lines(local(b), "m=")[0].split()[1:3] == ["9", protocol]


@clause("5.1.2", "data sections may be UDP/DTLS/SCTP, TCP/DTLS/SCTP or DTLS/SCTP", document=JSEP)
@pytest.mark.parametrize("protocol", ["UDP/DTLS/SCTP", "TCP/DTLS/SCTP", "DTLS/SCTP"])
async def test_9429_5_1_2_data_protocols(protocol: str) -> None:
    """The answer has the protocol of the offer."""
    async with peers() as (a, b):
        a.createDataChannel("data")
        await a.setLocalDescription()
        await b.setRemoteDescription(
            {"type": "offer", "sdp": local(a).sdp.replace("UDP/DTLS/SCTP", protocol)}
        )
        await b.setLocalDescription()
        assert lines(local(b), "m=") == [f"m=application 9 {protocol} webrtc-datachannel"]


@clause("5.3.1", "sections of unknown protocols are rejected, in the form of the offer", document=JSEP)
async def test_9429_5_3_1_unknown_protocols() -> None:
    """A profile and a transport that nobody knows are answered with port zero; the rest is accepted."""
    async with peers() as (a, b):
        for kind in ("video", "audio"):
            a.addTransceiver(kind)
        a.createDataChannel("data")
        await a.setLocalDescription()
        text = local(a).sdp.replace("m=audio 9 UDP/TLS/RTP/SAVPF", "m=audio 9 QUIC/RTP/AVPF")
        text = text.replace("UDP/DTLS/SCTP", "UDP/SCTP")
        await b.setRemoteDescription({"type": "offer", "sdp": text})
        await b.setLocalDescription()
        found = [line.split()[:3] for line in lines(local(b), "m=")]
        assert found == [
            ["m=video", "9", "UDP/TLS/RTP/SAVPF"],
            ["m=audio", "0", "QUIC/RTP/AVPF"],
            ["m=application", "0", "UDP/SCTP"],
        ]


@clause("5.8.3", "the protocols of an answer are those of the offer", document=JSEP)
@pytest.mark.parametrize(
    ("ours", "theirs"), [("UDP/TLS/RTP/SAVPF", "RTP/AVP"), ("UDP/DTLS/SCTP", "TCP/DTLS/SCTP")]
)
async def test_9429_5_8_3_protocol_of_an_answer(ours: str, theirs: str) -> None:
    """Another one is refused, for media and for data, and the right answer can still be set."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        a.createDataChannel("data")
        await offer(a, b)
        await b.setLocalDescription()
        await refused(a, "answer", local(b).sdp.replace(ours, theirs), "protocol of its offer")
        await a.setRemoteDescription(local(b))


# Roles


@clause("5.8.3", "a=setup agrees with the role in the DTLS connection that goes on", document=JSEP)
async def test_9429_5_8_3_roles_stay() -> None:
    """Neither an answer nor an offer may turn the roles; actpass leaves them as they are."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await negotiate(a, b)
        assert "a=setup:active" in local(b).sdp
        await offer(a, b)  # actpass
        await b.setLocalDescription()
        await refused(a, "answer", local(b).sdp.replace("setup:active", "setup:passive"), "DTLS session")
        await a.setRemoteDescription(local(b))
        await b.setLocalDescription()
        await refused(a, "offer", local(b).sdp.replace("setup:actpass", "setup:passive"), "DTLS session")
        await a.setRemoteDescription(
            {"type": "offer", "sdp": local(b).sdp.replace("setup:actpass", "setup:active")}
        )
        await a.setLocalDescription()
        assert "a=setup:passive" in local(a).sdp


@clause("5.8.3", "an answer keeps the role of the provisional answer before it", document=JSEP)
async def test_9429_5_8_3_the_role_of_a_pranswer() -> None:
    """DTLS may be under way since the provisional answer, so its role counts."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await offer(a, b)
        await b.setLocalDescription({"type": "pranswer"})
        await a.setRemoteDescription(local(b))
        await refused(a, "answer", local(b).sdp.replace("setup:active", "setup:passive"), "DTLS session")
        await answer(a, b)


# The bundle


@clause("5.8.3", "each media section of the bundle has rtcp-mux, its own or the tagged one's", document=JSEP)
async def test_9429_5_8_3_rtcp_mux() -> None:
    """That a data section comes first excuses nobody; what the tagged section says holds for all."""
    sections = CHROMIUM_OFFER.split("m=")
    head, audio, video, data = sections
    for order, mids in (((audio, video, data), "0 1 2"), ((data, audio, video), "2 0 1")):
        text = "m=".join((head.replace("0 1 2", mids), *order))
        async with peers(1) as (peer,):
            await refused(peer, "offer", text.replace("a=rtcp-mux\r\n", ""), "rtcp-mux")
            await peer.setRemoteDescription({"type": "offer", "sdp": text})
    for order, mids in (((audio, video, data), "0 1 2"), ((data + "a=rtcp-mux\r\n", audio, video), "2 0 1")):
        first, *others = order
        others = [other.replace("a=rtcp-mux\r\n", "") for other in others]
        async with peers(1) as (peer,):
            text = "m=".join((head.replace("0 1 2", mids), first, *others))
            await peer.setRemoteDescription({"type": "offer", "sdp": text})
            await peer.setLocalDescription()


@clause("5.8.3", "the BUNDLE group names sections that there are", document=JSEP)
async def test_9429_5_8_3_members_of_the_bundle() -> None:
    """A mid of no section in the group is refused, in offers and in answers; other groups are ignored."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await a.setLocalDescription()
        text = local(a).sdp
        await refused(b, "offer", text.replace("BUNDLE 0", "BUNDLE 0 1"), "BUNDLE group names '1'")
        await b.setRemoteDescription(
            {"type": "offer", "sdp": text.replace("a=group", "a=group:LS 7\r\na=group")}
        )
        await b.setLocalDescription()
        await refused(a, "answer", local(b).sdp.replace("BUNDLE 0", "BUNDLE 0 x"), "BUNDLE group names 'x'")


@clause("9.1.1", "one payload type is one codec in the whole bundle", document="RFC 9143")
async def test_9143_9_1_1_payload_types() -> None:
    """Two codecs under one number are refused; the same codec in two sections has the same one."""
    head, audio, video, data = CHROMIUM_OFFER.split("m=")
    opus = video.replace("SAVPF 96 97", "SAVPF 111 97").replace("rtpmap:96", "rtpmap:111")
    vp8 = audio.replace("111 63 9 0", "111 63 96 0").replace("rtpmap:9 ", "rtpmap:96 ")
    async with peers(1) as (peer,):
        await refused(peer, "offer", "m=".join((head, audio, opus, data)), "payload type 111")
        await refused(peer, "offer", "m=".join((head, vp8, video, data)), "payload type 96")
        again = video.replace("a=mid:1", "a=mid:3").replace("track-v", "track-w")
        again = again.replace("minptime", "x").replace("42001f", "42000c")
        text = "m=".join((head.replace("0 1 2", "0 1 2 3"), audio, video, data, again))
        await peer.setRemoteDescription({"type": "offer", "sdp": text})


@clause("9.1.1", "sections that are rejected, or outside of the bundle, use any numbers", document="RFC 9143")
async def test_9143_9_1_1_only_in_the_bundle() -> None:
    """A section that shares no transport shares no numbers."""
    text = CHROMIUM_OFFER.replace("a=rtpmap:96 VP8", "a=rtpmap:111 VP8").replace(
        "SAVPF 96 97", "SAVPF 111 97"
    )
    for harmless in (text.replace("BUNDLE 0 1 2", "BUNDLE 0 2"), text.replace("m=video 9", "m=video 0")):
        async with peers(1) as (peer,):
            await peer.setRemoteDescription({"type": "offer", "sdp": harmless})
            await peer.setLocalDescription()


@clause("12", "one header extension id is one URI in the whole bundle", document="RFC 9143")
async def test_9143_12_header_extensions() -> None:
    """Two URIs under one id are refused, in two sections and in one."""
    async with peers(1) as (peer,):
        for old in ("a=extmap:14 urn:ietf:params:rtp-hdrext:toffset", "a=extmap:3 http://www.ietf.org"):
            new = old.replace("14", "1").replace(":3", ":2")
            await refused(peer, "offer", CHROMIUM_OFFER.replace(old, new), "header extension id")


# Lines


@clause("5.8.2", "the same a=msid twice in one section is an error", document=JSEP)
async def test_9429_5_8_2_duplicate_msids() -> None:
    """Two streams, or a track in two sections, are none."""
    async with peers() as (a, b):
        a.addTrack(AudioStreamTrack(), MediaStream(id="one"), MediaStream(id="two"))
        await offer(a, b)
        (first, second) = lines(local(a), "a=msid:")
        assert await malformed(local(a).sdp.replace(second, first), "msid") == first


@clause("5.8.2", "a malformed a=candidate is an error, one that cannot be used is none", document=JSEP)
@pytest.mark.parametrize(
    "text",
    [
        "1 1 tcp 5 192.0.2.1 9 typ host tcptype active",
        "1 2 udp 5 192.0.2.1 9 typ host",
        "1 3 udp 5 192.0.2.1 9 typ host",
        "1 1 udp 5 2d1c4cf2-0000-4000-8000-e2c0ffee0000.local 50000 typ host",
        "1 1 sctp 5 192.0.2.1 9 typ host",
        "1 1 UDP 5 192.0.2.1 9 typ wormhole",
        "1 1 udp 5 2001:db8::1 9 typ srflx raddr fe80::1%eth0 rport 0 generation 0 x-more {a}",
        "1 1 udp 5 192.0.2.1 9 typ host ",
    ],
)
async def test_9429_5_8_2_candidates_in_descriptions(text: str) -> None:
    """TCP, RTCP, names, types, transports and extensions that we do not know are passed over."""
    line = "a=candidate:1467250027 1 udp 2122260223 192.0.2.7 46243 typ host generation 0 network-id 1"
    async with peers(1) as (peer,):
        offered = CHROMIUM_OFFER.replace(line, f"a=candidate:{text}")
        await peer.setRemoteDescription({"type": "offer", "sdp": offered})
        await peer.setLocalDescription()
    for broken in ("garbage", "", "1 1 udp 5 192.0.2.1 typ host", "1 1 udp x 192.0.2.1 9 typ host", text[2:]):
        wrong = f"a=candidate:{broken}"
        assert await malformed(CHROMIUM_OFFER.replace(line, wrong), "candidate") == wrong


@clause("5.8.2", "two different a=rtpmap for one payload type are an error", document=JSEP)
async def test_9429_5_8_2_rtpmaps() -> None:
    """The same one twice is none."""
    line = "a=rtpmap:9 G722/8000"
    twice = CHROMIUM_OFFER.replace(line, f"{line}\r\n{line}")
    async with peers(1) as (peer,):
        await peer.setRemoteDescription({"type": "offer", "sdp": twice})
    other = "a=rtpmap:9 PCMU/8000"
    assert await malformed(CHROMIUM_OFFER.replace(line, f"{line}\r\n{other}"), "rtpmap") == other
