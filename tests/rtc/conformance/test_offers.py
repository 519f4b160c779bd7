"""What offers and answers say (RFC 9429 sections 5.2 and 5.3), and the options of createOffer (webrtc-pc)."""

from __future__ import annotations

import re

import pytest

from calllab.rtc import AudioStreamTrack, MediaStream, RTCPeerConnection, VideoStreamTrack
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import Log, answer, lines, local, negotiate, offer, peers
from tests.rtc.samples import FIREFOX_OFFER

JSEP = "RFC 9429"


def ufrags(sdp: str) -> set[str]:
    """Return the ICE user name fragments of a description."""
    return set(re.findall(r"a=ice-ufrag:(\S+)", sdp))


@clause("5.2.1", "the session part of an offer", document=JSEP)
async def test_9429_5_2_1_session_part() -> None:
    """v=0, an origin with a numeric id below 2^63, s=-, t=0 0 and a BUNDLE group of all sections."""
    async with peers(1) as (a,):
        a.addTransceiver("audio")
        a.addTransceiver("video")
        a.createDataChannel("x")
        made = (await a.createOffer()).sdp.split("\r\n")
        assert made[0] == "v=0"
        origin = re.fullmatch(r"o=- (\d+) (\d+) IN IP4 127\.0\.0\.1", made[1])
        assert origin is not None
        assert int(origin[1]) < 2**63
        assert made[2:4] == ["s=-", "t=0 0"]
        assert "a=group:BUNDLE 0 1 2" in made
        assert made[-1] == ""


@clause("5.2.1", "one section for each transceiver, in the order of their creation, data last", document=JSEP)
@clause("4.4.2", "createOffer: each transceiver has its section")
async def test_9429_5_2_1_sections() -> None:
    """The sections follow getTransceivers(), and one section serves all data channels."""
    async with peers(1) as (a,):
        a.createDataChannel("x")
        a.createDataChannel("y")
        a.addTransceiver("video")
        a.addTrack(AudioStreamTrack())
        made = await a.createOffer()
        assert [line.split()[0] for line in lines(made, "m=")] == ["m=video", "m=audio", "m=application"]
        assert lines(made, "a=mid:") == ["a=mid:0", "a=mid:1", "a=mid:2"]
        assert lines(made, "a=sctp-port", "a=max-message-size")[0] == "a=sctp-port:5000"


@clause("5.2.1", "an offer of nothing has no sections", document=JSEP)
async def test_9429_5_2_1_empty_offers() -> None:
    """An offer without transceivers and channels is valid, can be set, and gathers nothing."""
    async with peers() as (a, b):
        await negotiate(a, b)
        assert lines(local(a), "m=", "a=group") == []
        assert a.signalingState == b.signalingState == "stable"
        assert a.iceGatheringState == b.iceGatheringState == "new"


@clause("5.2.1", "what each section says of its transport and media", document=JSEP)
@clause("5.1", "the offerer of DTLS says actpass, the answerer active", document="RFC 8842")
async def test_9429_5_2_1_section_attributes() -> None:
    """Credentials, fingerprint, role, rtcp-mux, rtcp-rsize, direction and mid stand in every section."""
    async with peers() as (a, b):
        a.addTransceiver("audio", direction="sendonly")
        a.addTransceiver("video", direction="recvonly")
        await negotiate(a, b)
        for peer, setup, directions in (
            (a, "actpass", ("sendonly", "recvonly")),
            (b, "active", ("recvonly", "inactive")),
        ):
            for part, direction in zip(local(peer).sdp.split("m=")[1:], directions, strict=True):
                for wanted in (
                    "a=ice-ufrag:", "a=ice-pwd:", "a=ice-options:trickle", "a=fingerprint:sha-256 ",
                    f"a=setup:{setup}\r\n", "a=mid:", "a=rtcp-mux\r\n", "a=rtcp-rsize\r\n",
                    "UDP/TLS/RTP/SAVPF", f"a={direction}\r\n",
                ):  # fmt: skip
                    assert wanted in part
        assert len(ufrags(local(a).sdp)) == 1


@clause("4.1.1", "bundle-only sections in offers: what we write instead", document=JSEP)
async def test_9429_4_1_1_no_bundle_only() -> None:
    """All sections are offered with port 9 and none is bundle-only, as Chromium does."""
    async with peers(1) as (a,):
        a.addTransceiver("audio")
        a.addTransceiver("video")
        made = await a.createOffer()
        assert [line.split()[1] for line in lines(made, "m=")] == ["9", "9"]
        assert lines(made, "a=bundle-only") == []


@clause("7.2", "bundle-only sections with port zero are accepted", document="RFC 9143")
@clause("5.10", "a bundle-only section is not a rejected one", document=JSEP)
async def test_9429_5_10_bundle_only_is_accepted() -> None:
    """An offer as Firefox makes it, whose second section has port zero, is answered with both sections."""
    async with peers(1) as (a,):
        await a.setRemoteDescription({"type": "offer", "sdp": FIREFOX_OFFER})
        await a.setLocalDescription()
        assert [line.split()[1] for line in lines(local(a), "m=")] == ["9", "9"]
        assert "a=group:BUNDLE 0 1" in local(a).sdp


@clause("5.10", "sections outside of the BUNDLE group are rejected under max-bundle", document=JSEP)
async def test_9429_5_10_unbundled_sections() -> None:
    """The first section lives, one that is not bundled with it is answered with port zero."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        a.addTransceiver("video")
        made = (await a.createOffer()).sdp.replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 0")
        await b.setRemoteDescription({"type": "offer", "sdp": made})
        await b.setLocalDescription()
        assert [line.split()[1] for line in lines(local(b), "m=")] == ["9", "0"]
        assert "a=group:BUNDLE 0\r\n" in local(b).sdp


@clause("5.2.2", "sections stay in their place, the version of the origin rises", document=JSEP)
async def test_9429_5_2_2_later_offers() -> None:
    """The session id stays, the version rises with each description, new sections come last."""
    async with peers() as (a, b):
        a.createDataChannel("x")
        await negotiate(a, b)
        first = lines(local(a), "o=")[0].split()
        a.addTransceiver("audio")
        await negotiate(a, b)
        second = lines(local(a), "o=")[0].split()
        assert first[1] == second[1]
        assert int(second[2]) > int(first[2])
        assert [line.split()[0] for line in lines(local(a), "m=")] == ["m=application", "m=audio"]


@clause("5.3.1", "an answer has the sections of the offer, in their order", document=JSEP)
async def test_9429_5_3_1_answers() -> None:
    """Kinds, mids and payload types are the offer's; msids are there although nothing may be sent."""
    async with peers() as (a, b):
        a.addTransceiver("video", direction="sendonly")
        a.createDataChannel("x")
        b.addTrack(VideoStreamTrack(), MediaStream(id="s"))
        b.addTrack(AudioStreamTrack())
        await negotiate(a, b)
        assert [line.split()[0] for line in lines(local(b), "m=")] == ["m=video", "m=application"]
        assert lines(local(a), "a=mid:") == lines(local(b), "a=mid:")
        (transceiver,) = [t for t in b.getTransceivers() if t.mid == "0"]
        # An offer that only sends takes no transceiver of addTrack(): it would have nobody to send to.
        assert transceiver.direction == "recvonly"
        assert lines(local(b), "a=msid:") == []


@clause("5.3.1", "the a=msid of an answer follows the transceiver, not what the offer leaves", document=JSEP)
async def test_9429_5_3_1_msid_of_an_answer() -> None:
    """An answer to a sendonly offer is recvonly, and still names the stream that would be sent."""
    async with peers() as (a, b):
        mine = a.addTrack(AudioStreamTrack()).transceiver
        b.addTrack(AudioStreamTrack(), MediaStream(id="s"))
        await negotiate(a, b)
        mine.direction = "sendonly"
        await negotiate(a, b)
        assert lines(local(b), "a=recvonly") == ["a=recvonly"]
        assert [line.split()[0] for line in lines(local(b), "a=msid:")] == ["a=msid:s"]


@clause("5.3.1", "the direction of an answer is the meet of both sides", document=JSEP)
@clause("5.4", "currentDirection is the same meet, seen from each side")
@pytest.mark.parametrize("theirs", ["sendrecv", "sendonly", "recvonly", "inactive"])
@pytest.mark.parametrize("ours", ["sendrecv", "sendonly", "recvonly", "inactive"])
async def test_9429_5_3_1_directions(ours: str, theirs: str) -> None:
    """All sixteen pairs of directions: each side sends exactly if it wants to and the other receives."""
    async with peers() as (a, b):
        offering = a.addTransceiver("audio", direction=ours)  # type: ignore[arg-type]
        await offer(a, b)
        (answering,) = b.getTransceivers()
        answering.direction = theirs  # type: ignore[assignment]
        await answer(a, b)

        def allows(direction: str | None) -> tuple[bool, bool]:
            return direction in ("sendrecv", "sendonly"), direction in ("sendrecv", "recvonly")

        a_sends = allows(ours)[0] and allows(theirs)[1]
        b_sends = allows(theirs)[0] and allows(ours)[1]
        assert allows(offering.currentDirection) == (a_sends, b_sends)
        assert allows(answering.currentDirection) == (b_sends, a_sends)


@clause("4.1.8", "iceRestart gives an offer new credentials", document=JSEP)
@clause("4.4.2", "createOffer: the option iceRestart")
async def test_4_4_2_ice_restart_option() -> None:
    """Each such offer has other credentials; one that is not set restarts nothing."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await negotiate(a, b)
        before = ufrags(local(a).sdp)
        restarting = await a.createOffer(iceRestart=True)
        assert not ufrags(restarting.sdp) & before
        assert ufrags((await a.createOffer()).sdp) == before
        await a.setLocalDescription(await a.createOffer(iceRestart=True))
        await b.setRemoteDescription(local(a))
        await answer(a, b)
        assert not ufrags(local(a).sdp) & before


@clause(
    "5.3.1", "an answer to a restart has new credentials too, and to any other offer the old", document=JSEP
)
async def test_9429_5_3_1_credentials_of_answers() -> None:
    """The answerer changes its credentials exactly when the offerer did."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await negotiate(a, b)
        first = ufrags(local(b).sdp)
        await negotiate(a, b)
        assert ufrags(local(b).sdp) == first
        a.restartIce()
        await negotiate(a, b)
        assert not ufrags(local(b).sdp) & first


@clause("4.4.2", "restartIce: subsequent offers restart until one is agreed on")
async def test_4_4_2_restart_ice_in_offers() -> None:
    """Every created offer has new credentials after restartIce(), and none after it was negotiated."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await negotiate(a, b)
        before = ufrags(local(a).sdp)
        a.restartIce()
        assert not ufrags((await a.createOffer()).sdp) & before
        await negotiate(a, b)
        now = ufrags(local(a).sdp)
        assert ufrags((await a.createOffer()).sdp) == now


def directions(peer: RTCPeerConnection) -> list[tuple[str, str]]:
    """Return kind and direction of each transceiver."""
    return [(t.kind, t.direction) for t in peer.getTransceivers()]


@clause("4.4.3.2", "offerToReceive true adds a recvonly transceiver if none receives that kind")
async def test_4_4_3_2_offer_to_receive() -> None:
    """It is added at the call, once, and negotiation is not asked for."""
    async with peers(1) as (a,):
        log = Log().watch(a, "negotiationneeded")
        pending = a.createOffer(offerToReceiveAudio=True, offerToReceiveVideo=True)
        assert directions(a) == [("audio", "recvonly"), ("video", "recvonly")]
        made = await pending
        assert lines(made, "a=recvonly") == ["a=recvonly"] * 2
        await a.createOffer(offerToReceiveAudio=True)
        assert len(a.getTransceivers()) == 2
        assert log.take() == []


@clause("4.4.3.2", "offerToReceive true is content with what receives already")
async def test_4_4_3_2_offer_to_receive_what_is_received() -> None:
    """A sendrecv transceiver is enough; a sendonly or a stopped one is not."""
    async with peers(1) as (a,):
        a.addTrack(AudioStreamTrack())
        a.addTransceiver("video", direction="sendonly")
        await a.createOffer(offerToReceiveAudio=True, offerToReceiveVideo=True)
        assert directions(a) == [("audio", "sendrecv"), ("video", "sendonly"), ("video", "recvonly")]


@clause("4.4.3.2", "offerToReceive false lets what receives only send")
async def test_4_4_3_2_offer_not_to_receive() -> None:
    """sendrecv becomes sendonly and recvonly inactive, of that kind alone."""
    async with peers(1) as (a,):
        for kind, direction in (("audio", "sendrecv"), ("audio", "recvonly"), ("video", "sendrecv")):
            a.addTransceiver(kind, direction=direction)  # type: ignore[arg-type]
        await a.createOffer(offerToReceiveAudio=False)
        assert directions(a) == [("audio", "sendonly"), ("audio", "inactive"), ("video", "sendrecv")]


@clause("5.10", "the offer of a peer that gives no mids is answered", document=JSEP)
async def test_9429_5_10_no_mids() -> None:
    """Sections without a mid get one, by their place."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        kept = [line for line in (await a.createOffer()).sdp.split("\r\n") if "mid:" not in line]
        text = "\r\n".join(line for line in kept if not line.startswith("a=group"))
        await b.setRemoteDescription({"type": "offer", "sdp": text})
        await b.setLocalDescription()
        assert b.getTransceivers()[0].mid == "0"


@clause("5.10", "a second data section is rejected", document=JSEP)
async def test_9429_5_10_one_data_section() -> None:
    """Of two data sections the first is accepted, the other has port zero in the answer."""
    async with peers() as (a, b):
        a.createDataChannel("x")
        made = (await a.createOffer()).sdp
        section = made[made.index("m=application") :]
        text = made.replace("BUNDLE 0", "BUNDLE 0 1") + section.replace("a=mid:0", "a=mid:1")
        await b.setRemoteDescription({"type": "offer", "sdp": text})
        await b.setLocalDescription()
        assert [line.split()[1] for line in lines(local(b), "m=")] == ["9", "0"]


@clause("5.10", "sections of unknown kinds are rejected, and stay so", document=JSEP)
async def test_9429_5_10_unknown_kinds() -> None:
    """A text section is answered with port zero; the others live, also in later offers of ours."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        made = (await a.createOffer()).sdp
        text = made + "m=text 9 RTP/AVP 98\r\nc=IN IP4 0.0.0.0\r\na=mid:t\r\na=rtpmap:98 t140/1000\r\n"
        await b.setRemoteDescription({"type": "offer", "sdp": text})
        await b.setLocalDescription()
        assert [line.split()[:2] for line in lines(local(b), "m=")] == [["m=audio", "9"], ["m=text", "0"]]
        made_by_b = await b.createOffer()
        assert [line.split()[:2] for line in lines(made_by_b, "m=")] == [["m=audio", "9"], ["m=text", "0"]]


@clause("4.4.2", "canTrickleIceCandidates is null before a remote description, then what that says")
async def test_4_4_2_can_trickle() -> None:
    """It follows a=ice-options of the remote description, and a rollback takes it back."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        made = await a.createOffer()
        assert b.canTrickleIceCandidates is None
        await b.setRemoteDescription(made)
        assert b.canTrickleIceCandidates is True
        await b.setRemoteDescription({"type": "rollback"})
        assert b.canTrickleIceCandidates is None
        mute = made.sdp.replace("a=ice-options:trickle\r\n", "")
        await b.setRemoteDescription({"type": "offer", "sdp": mute})
        assert b.canTrickleIceCandidates is False
