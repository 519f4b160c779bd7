"""Setting descriptions: states, attributes, what is refused and in which order (webrtc-pc 4.4.1.5, 4.4.2)."""

from __future__ import annotations

import re
from typing import Any

import pytest

from calllab.rtc import (
    AudioStreamTrack,
    InvalidAccessError,
    InvalidModificationError,
    InvalidStateError,
    OperationError,
    RtcError,
    RTCPeerConnection,
    RTCSessionDescription,
    SdpError,
)
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import Log, answer, lines, local, negotiate, offer, peers, without_candidates


@clause("4.4.1.5", "a local offer becomes the pending local description")
async def test_4_4_1_5_local_offer_is_pending() -> None:
    """After a local offer the state is have-local-offer, and the offer is pending, not current."""
    async with peers() as (a, _):
        a.addTransceiver("audio")
        assert a.localDescription is None
        await a.setLocalDescription()
        assert a.signalingState == "have-local-offer"
        assert a.pendingLocalDescription is a.localDescription is not None
        assert a.currentLocalDescription is None
        assert a.remoteDescription is None


@clause("4.4.1.5", "a remote offer becomes the pending remote description")
async def test_4_4_1_5_remote_offer_is_pending() -> None:
    """After a remote offer the state is have-remote-offer, and its very text is pending."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await offer(a, b)
        assert b.signalingState == "have-remote-offer"
        assert b.pendingRemoteDescription is b.remoteDescription is not None
        assert b.currentRemoteDescription is None
        assert without_candidates(b.remoteDescription) == without_candidates(local(a))


@clause("4.4.1.5", "an answer makes both descriptions current and leaves nothing pending")
async def test_4_4_1_5_answer_completes() -> None:
    """After the answer both sides are stable, and offer and answer are the current descriptions."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await negotiate(a, b)
        for peer, mine, theirs in ((a, "offer", "answer"), (b, "answer", "offer")):
            assert peer.signalingState == "stable"
            assert peer.pendingLocalDescription is peer.pendingRemoteDescription is None
            assert peer.currentLocalDescription is not None
            assert peer.currentRemoteDescription is not None
            assert (peer.currentLocalDescription.type, peer.currentRemoteDescription.type) == (mine, theirs)


@clause("4.4.1.5", "a provisional answer stays pending, with its offer")
async def test_4_4_1_5_pranswer_is_pending_on_both_sides() -> None:
    """A pranswer leaves both descriptions pending, locally and remotely; the answer makes both current."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await offer(a, b)
        made = await b.createAnswer()
        await b.setLocalDescription({"type": "pranswer", "sdp": made.sdp})
        assert b.signalingState == "have-local-pranswer"
        assert b.currentLocalDescription is b.currentRemoteDescription is None
        assert (local(b).type, local(b)) == ("pranswer", b.pendingLocalDescription)
        await a.setRemoteDescription(local(b))
        assert a.signalingState == "have-remote-pranswer"
        assert a.pendingRemoteDescription is not None
        assert a.pendingRemoteDescription.type == "pranswer"
        await answer(a, b)
        assert a.signalingState == b.signalingState == "stable"
        assert (local(b).type, b.pendingLocalDescription) == ("answer", None)


@clause("4.4.1.5", "a provisional answer sets currentDirection, as a final one does")
async def test_4_4_1_5_pranswer_sets_the_current_direction() -> None:
    """currentDirection and the track event are there with the pranswer, not only with the answer."""
    async with peers() as (a, b):
        (transceiver,) = (a.addTransceiver("audio"),)
        await offer(a, b)
        log = Log().watch(a, "track")
        b.addTrack(AudioStreamTrack())
        await b.setLocalDescription({"type": "pranswer"})
        await a.setRemoteDescription(local(b))
        assert transceiver.currentDirection == "sendrecv"
        assert b.getTransceivers()[0].currentDirection == "sendrecv"
        assert log.take() == ["track"]
        await answer(a, b)
        assert log.take() == []


@clause("4.4.1.5", "more provisional answers may follow one")
async def test_4_4_1_5_pranswers_may_repeat() -> None:
    """Several provisional answers may be set, and the direction follows each."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio")
        await offer(a, b)
        for direction, seen in (("inactive", "inactive"), ("sendonly", "recvonly"), ("recvonly", "sendonly")):
            b.getTransceivers()[0].direction = direction
            await b.setLocalDescription({"type": "pranswer"})
            await a.setRemoteDescription(local(b))
            assert transceiver.currentDirection == seen
        await answer(a, b)
        assert transceiver.currentDirection == "sendonly"


@pytest.mark.parametrize("state", ["have-local-pranswer", "have-remote-pranswer"])
@clause("4.4.1.5", "step 2: neither side's offer can be rolled back after a provisional answer")
async def test_4_4_1_5_no_rollback_after_pranswer(state: str) -> None:
    """In both pranswer states a rollback of either side is an InvalidStateError, and so is a new offer."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await offer(a, b)
        await b.setLocalDescription({"type": "pranswer"})
        await a.setRemoteDescription(local(b))
        peer = b if state == "have-local-pranswer" else a
        assert peer.signalingState == state
        for setter in (peer.setLocalDescription, peer.setRemoteDescription):
            with pytest.raises(InvalidStateError):
                await setter({"type": "rollback"})
        with pytest.raises(InvalidStateError):
            await peer.setRemoteDescription(RTCSessionDescription("offer", local(a).sdp))
        assert peer.signalingState == state


@clause("4.4.1.5", "step 2: there is nothing to roll back in stable")
async def test_4_4_1_5_no_rollback_in_stable() -> None:
    """A rollback in stable is an InvalidStateError, locally and remotely, and fires nothing."""
    async with peers() as (a, _):
        log = Log().watch(a, "signalingstatechange", "negotiationneeded")
        for setter in (a.setLocalDescription, a.setRemoteDescription):
            with pytest.raises(InvalidStateError):
                await setter({"type": "rollback", "sdp": "ignored"})
        assert await log.settled() == []


@clause("4.4.1.5", "a description that does not fit the signaling state is an InvalidStateError")
async def test_4_4_1_5_answers_without_offers() -> None:
    """An answer or pranswer without an offer is refused with InvalidStateError whoever makes it."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await negotiate(a, b)
        for type_ in ("answer", "pranswer"):
            with pytest.raises(InvalidStateError):
                await a.setRemoteDescription({"type": type_, "sdp": local(b).sdp})
            with pytest.raises(InvalidStateError):
                await a.setLocalDescription({"type": type_})


@clause("4.4.1.5", "SDP that cannot be parsed is an RTCError with the number of the line")
async def test_4_4_1_5_syntax_errors_name_the_line() -> None:
    """Malformed SDP is an OperationError with errorDetail sdp-syntax-error and sdpLineNumber."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        made = await a.createOffer()
        broken = made.sdp.replace("a=setup:actpass", "a=setup:whatever")
        with pytest.raises(SdpError) as refused:
            await b.setRemoteDescription({"type": "offer", "sdp": broken})
        assert refused.value.name == "OperationError"
        assert refused.value.errorDetail == "sdp-syntax-error"
        line = refused.value.sdpLineNumber
        assert line is not None
        assert broken.split("\r\n")[line - 1] == "a=setup:whatever"
        assert b.signalingState == "stable"


@clause("4.4.1.5", "a description whose content is invalid is an InvalidAccessError")
@clause("4.4.1.5", "a remote description without RTCP multiplexing is an InvalidAccessError")
async def test_4_4_1_5_content_errors() -> None:
    """Without rtcp-mux, without a fingerprint, with other m-lines in the answer: InvalidAccessError."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await a.setLocalDescription()
        for cut in ("a=rtcp-mux", "a=fingerprint", "a=ice-ufrag", "a=ice-pwd"):
            kept = [line for line in local(a).sdp.split("\r\n") if not line.startswith(cut)]
            with pytest.raises((InvalidAccessError, SdpError)) as refused:
                await b.setRemoteDescription({"type": "offer", "sdp": "\r\n".join(kept)})
            if cut in ("a=rtcp-mux", "a=fingerprint"):
                assert isinstance(refused.value, InvalidAccessError)
        await b.setRemoteDescription(local(a))
        await b.setLocalDescription()
        other = local(b).sdp.replace("a=mid:0", "a=mid:other").replace("BUNDLE 0", "BUNDLE other")
        with pytest.raises(InvalidAccessError):
            await a.setRemoteDescription({"type": "answer", "sdp": other})
        assert a.signalingState == "have-local-offer"


@clause("4.4.1.5", "what is refused changes nothing")
async def test_4_4_1_5_refused_descriptions_change_nothing() -> None:
    """A refused offer leaves transceivers, descriptions and states as they were, and fires nothing."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        a.addTransceiver("video")
        await negotiate(a, b)
        log = Log().watch(b, "signalingstatechange", "track", "negotiationneeded")

        def state() -> object:
            described = [without_candidates(d) for d in (b.localDescription, b.remoteDescription)]
            return b.getTransceivers(), described

        before = state()
        await a.setLocalDescription()
        text = local(a).sdp
        with pytest.raises(InvalidAccessError):
            await b.setRemoteDescription({"type": "offer", "sdp": text[: text.index("m=video")]})
        assert state() == before
        assert await log.settled() == []


@clause("4.4.1.5", "a second remote offer replaces the pending one")
@clause("4.4.1.5", "back-to-back offers are checked as if answers had come in between")
async def test_4_4_1_5_back_to_back_remote_offers() -> None:
    """A remote offer may follow another one; the last one counts, and m-lines in use cannot be turned."""
    async with peers(3) as (a, b, other):
        a.addTransceiver("audio")
        other.addTransceiver("video")
        await offer(a, b)
        log = Log().watch(b, "signalingstatechange")
        a.addTransceiver("video")
        again = await a.createOffer()
        await b.setRemoteDescription(again)
        assert [t.receiver.track.kind for t in b.getTransceivers()] == ["audio", "video"]
        assert b.remoteDescription == again
        with pytest.raises(InvalidAccessError):
            await b.setRemoteDescription(await other.createOffer())
        assert b.remoteDescription == again
        assert log.take() == []


@clause("4.4.2", "setLocalDescription: an offer that is not the last created one is refused")
@clause("4.4.2", "setLocalDescription: an answer that is not the last created one is refused")
async def test_4_4_2_munged_descriptions_are_refused() -> None:
    """Changed SDP is an InvalidModificationError for offers and answers, whatever else is wrong."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        made = await a.createOffer()
        with pytest.raises(InvalidModificationError):
            await a.setLocalDescription({"type": "offer", "sdp": made.sdp.replace("sendrecv", "sendonly")})
        await a.setLocalDescription(made)
        await b.setRemoteDescription(local(a))
        reply = await b.createAnswer()
        for type_ in ("answer", "pranswer"):
            with pytest.raises(InvalidModificationError):
                await b.setLocalDescription({"type": type_, "sdp": reply.sdp + "a=x\r\n"})
        await b.setLocalDescription(reply)


@clause("4.4.2", "setLocalDescription: the text is compared before the signaling state is")
async def test_4_4_2_the_text_is_compared_first() -> None:
    """A wrong text in the wrong state is an InvalidModificationError; without a text it is the state."""
    async with peers() as (a, _):
        for type_ in ("answer", "pranswer", "offer"):
            with pytest.raises(InvalidModificationError):
                await a.setLocalDescription({"type": type_, "sdp": "v=0\r\n"})
        for type_ in ("answer", "pranswer"):
            with pytest.raises(InvalidStateError):
                await a.setLocalDescription({"type": type_})


@clause("4.4.2", "setLocalDescription: without a text the last created offer is set if it still holds")
async def test_4_4_2_the_last_offer_is_used() -> None:
    """createOffer() and a bare setLocalDescription() set that very offer; its ICE restart is not lost."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        made = await a.createOffer()
        await a.setLocalDescription()
        assert local(a) == made
        await b.setRemoteDescription(made)
        await answer(a, b)
        before = lines(local(a), "a=ice-ufrag")
        made = await a.createOffer(iceRestart=True)
        await a.setLocalDescription({"type": "offer"})
        assert lines(local(a), "a=ice-ufrag") == lines(made, "a=ice-ufrag") != before


@clause("4.4.2", "setLocalDescription: a created offer that no longer fits is made again")
async def test_4_4_2_a_stale_offer_is_made_again() -> None:
    """What was added after createOffer() is in the offer that a bare setLocalDescription() sets."""
    async with peers() as (a, _):
        a.addTransceiver("audio")
        made = await a.createOffer()
        a.addTransceiver("video")
        await a.setLocalDescription()
        assert local(a) != made
        assert [line.split()[0] for line in lines(local(a), "m=")] == ["m=audio", "m=video"]


@clause("4.4.2", "setLocalDescription: an older created offer may be set although more was added since")
async def test_4_4_2_an_offer_may_be_set_although_more_was_added() -> None:
    """An offer set with its text covers what was there when it was created; the rest needs negotiation."""
    async with peers() as (a, b):
        first = a.addTransceiver("audio")
        made = await a.createOffer()
        second = a.addTransceiver("video")
        await a.setLocalDescription(made)
        assert (first.mid, second.mid) == ("0", None)
        await b.setRemoteDescription(local(a))
        log = Log().watch(a, "negotiationneeded")
        await answer(a, b)
        assert await log.settled() == ["negotiationneeded"]


@clause("4.4.2", "setLocalDescription: the last created answer is used too")
async def test_4_4_2_the_last_answer_is_used() -> None:
    """createAnswer() and a bare setLocalDescription() set that answer, as pranswer and as answer."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await offer(a, b)
        made = await b.createAnswer()
        await b.setLocalDescription({"type": "pranswer", "sdp": made.sdp})
        await b.setLocalDescription(made)
        assert without_candidates(local(b)) == made


@clause("4.4.2", "setLocalDescription: what is made without an argument follows the signaling state")
async def test_4_4_2_the_right_type_is_made() -> None:
    """Bare calls make an offer in stable and have-local-offer, an answer when a remote offer is pending."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        for _ in range(2):
            await a.setLocalDescription()
            assert local(a).type == "offer"
        await b.setRemoteDescription(local(a))
        await b.setLocalDescription({"type": "pranswer"})
        await a.setRemoteDescription(local(b))
        with pytest.raises(InvalidStateError):
            await a.setLocalDescription()  # have-remote-pranswer: an offer, which cannot be made
        await b.setLocalDescription()
        assert local(b).type == "answer"


@clause("4.4.2", "createOffer works in stable and have-local-offer only")
@clause("4.4.2", "createAnswer works while a remote offer is pending only")
async def test_4_4_2_when_descriptions_can_be_created() -> None:
    """In every other signaling state creating a description is an InvalidStateError."""
    async with peers() as (a, b):
        a.addTransceiver("audio")

        async def possible(peer: RTCPeerConnection) -> tuple[bool, bool]:
            found: list[bool] = []
            for create in (peer.createOffer, peer.createAnswer):
                try:
                    await create()
                except InvalidStateError:
                    found.append(False)
                else:
                    found.append(True)
            return found[0], found[1]

        assert await possible(a) == (True, False)
        await offer(a, b)
        assert await possible(a) == (True, False)
        assert await possible(b) == (False, True)
        await b.setLocalDescription({"type": "pranswer"})
        await a.setRemoteDescription(local(b))
        assert await possible(b) == (False, True)
        assert await possible(a) == (False, False)


@clause("4.4.2", "createOffer changes nothing that anybody could see")
async def test_4_4_2_creating_changes_nothing() -> None:
    """Creating offers neither gives mids nor changes states, and two of them name the same ICE session."""
    async with peers() as (a, _):
        transceiver = a.addTransceiver("audio")
        log = Log().watch(a, "signalingstatechange", "icegatheringstatechange")
        await a.createOffer()
        await a.createOffer()
        assert (transceiver.mid, transceiver.currentDirection, a.localDescription) == (None, None, None)
        assert (a.signalingState, a.iceGatheringState) == ("stable", "new")
        assert await log.settled() == []


@clause("4.4.2", "a created description can be set until the continuation of its promise has run")
async def test_4_4_2_created_offers_stay_usable() -> None:
    """An offer can be set after candidates, streams and directions have changed in between."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio")
        made = await a.createOffer()
        transceiver.direction = "recvonly"
        a.createDataChannel("later")
        await a.setLocalDescription(made)
        assert "a=sendrecv" in local(a).sdp
        await b.setRemoteDescription(local(a))
        await answer(a, b)


@clause("4.4.2", "an offer can be set although a transceiver in it was stopped since")
async def test_4_4_2_created_offers_survive_stop() -> None:
    """The section is negotiated for nobody, and the next offer, which is asked for, rejects it."""
    async with peers() as (a, b):
        gone = a.addTransceiver("audio")
        a.addTransceiver("video")
        made = await a.createOffer()
        gone.stop()
        await a.setLocalDescription(made)
        log = Log().watch(a, "negotiationneeded")
        await b.setRemoteDescription(local(a))
        await answer(a, b)
        assert len(b.getTransceivers()) == 2
        assert await log.settled() == ["negotiationneeded"]
        await negotiate(a, b)
        assert [line.split()[1] for line in lines(local(a), "m=")] == ["0", "9"]
        assert [t.kind for t in b.getTransceivers()] == ["video"]
        assert await log.settled() == []


@clause("4.4.2", "the candidates of a generation appear in the local description that began it")
@clause("4.4.2", "remote candidates appear in the remote description of their generation")
async def test_4_4_2_candidates_are_added_to_descriptions() -> None:
    """addIceCandidate() adds to remoteDescription.sdp, pending and then current, and each candidate once."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        a.addTransceiver("video")
        await offer(a, b)
        line = "candidate:1 1 udp 2122260223 192.0.2.1 5000 typ host"
        before = b.remoteDescription
        for _ in range(2):
            await b.addIceCandidate({"candidate": line, "sdpMid": "0"})
        assert before is not b.remoteDescription is not None
        assert lines(b.remoteDescription, "a=candidate") == [f"a={line}"]
        assert b.remoteDescription is not None
        assert b.remoteDescription.sdp.index(line) < b.remoteDescription.sdp.index("m=video")
        await b.addIceCandidate({"candidate": "", "sdpMid": "0"})
        await answer(a, b)
        assert lines(b.currentRemoteDescription, "a=candidate", "a=end") == [
            f"a={line}",
            "a=end-of-candidates",
        ]


@clause("4.6.1", "there are four types of descriptions")
@clause("4.6.2", "a description without a type, or with an unknown one, is a TypeError")
async def test_4_6_description_types() -> None:
    """offer, pranswer, answer and rollback are types; all else is a TypeError before anything happens."""
    async with peers() as (a, _):
        for type_ in ("offer", "pranswer", "answer", "rollback"):
            assert RTCSessionDescription(type_).toJSON() == {"type": type_, "sdp": ""}
        bad: Any
        for bad in ({"type": "update"}, {"type": None}, {"type": "offer", "sdp": 5}, "offer", 5):
            with pytest.raises(TypeError):
                await a.setLocalDescription(bad)
            with pytest.raises(TypeError):
                await a.setRemoteDescription(bad)
        for bad in ({}, {"sdp": "v=0"}, None):
            with pytest.raises(TypeError, match="description"):
                await a.setRemoteDescription(bad)


@clause("4.6", "RTCLocalSessionDescriptionInit needs no type: it follows the signaling state")
async def test_4_6_the_type_of_a_local_description_may_be_left_away() -> None:
    """{} is like no argument, for offers and answers; a text alone must be what was created last."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        await a.setLocalDescription({})
        assert local(a).type == "offer"
        await b.setRemoteDescription(local(a))
        made = await b.createAnswer()
        with pytest.raises(InvalidModificationError):
            await b.setLocalDescription({"sdp": made.sdp + "a=x\r\n"})
        await b.setLocalDescription({"sdp": made.sdp})
        assert without_candidates(local(b)) == made


@clause("4.5", "errors carry the names of DOMExceptions")
async def test_4_5_errors_have_dom_names() -> None:
    """Each error of the W3C objects knows its DOMException name, and all have one base."""
    for error in (InvalidAccessError, InvalidModificationError, InvalidStateError, OperationError):
        assert issubclass(error, RtcError)
        assert error.name == error.__name__
        assert error("a sentence").message == "a sentence"
    assert issubclass(SdpError, OperationError)


@clause("5.8.3", "an answer adds nothing to the directions of the offer", document="RFC 9429")
@pytest.mark.parametrize(
    ("offered", "answered", "becomes"),
    [
        ("recvonly", "recvonly", "inactive"),
        ("recvonly", "sendrecv", "recvonly"),
        ("sendonly", "sendrecv", "sendonly"),
        ("sendonly", "sendonly", "inactive"),
        ("inactive", "sendrecv", "inactive"),
        ("sendrecv", "recvonly", "sendonly"),
    ],
)
async def test_9429_5_8_3_directions_of_an_answer(offered: str, answered: str, becomes: str) -> None:
    """What the application does not want to send is never sent, whatever the peer says."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver(AudioStreamTrack(), direction=offered)  # type: ignore[arg-type]
        b.addTrack(AudioStreamTrack())
        await offer(a, b)
        await b.setLocalDescription()
        said = re.sub("a=(sendrecv|sendonly|recvonly|inactive)", f"a={answered}", local(b).sdp)
        await a.setRemoteDescription({"type": "answer", "sdp": said})
        assert transceiver.currentDirection == becomes
        assert transceiver.direction == offered
