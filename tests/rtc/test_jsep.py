"""The rules of the JSEP core, one by one."""

from __future__ import annotations

from typing import get_args

import pytest

from calllab.rtc.actions import (
    AddRemoteCandidate,
    AddRemoteTrack,
    CreateTransceiver,
    DiscardIce,
    PrepareIce,
    RemoveRemoteTrack,
    SetRemoteStreams,
    StartTransport,
    StopTransceiver,
)
from calllab.rtc.errors import (
    InvalidAccessError,
    InvalidModificationError,
    InvalidStateError,
    OperationError,
    SdpError,
)
from calllab.rtc.jsep import TRANSITIONS, JsepCore, Side
from calllab.rtc.parameters import SdpType, SignalingState
from calllab.rtc.sdp_parser import parse_session
from tests.rtc.helpers import assert_agree, local_text, make_core, negotiate, settle
from tests.rtc.samples import CHROMIUM_OFFER, FIREFOX_OFFER

PAIRS = [(side, type_) for side in ("local", "remote") for type_ in get_args(SdpType)]
STATES = [state for state in get_args(SignalingState) if state != "closed"]


def in_state(state: SignalingState) -> tuple[JsepCore, JsepCore]:
    """Return a core in a signaling state, and its peer."""
    core, peer = make_core(1), make_core(2)
    core.add_track("audio", "t1")
    peer.add_track("audio", "t2")
    if state in ("have-local-offer", "have-remote-pranswer"):
        core.set_local("offer")
        peer.set_remote(*local_text(core))
    if state in ("have-remote-offer", "have-local-pranswer"):
        peer.set_local("offer")
        core.set_remote(*local_text(peer))
    if state == "have-remote-pranswer":
        peer.set_local("pranswer")
        core.set_remote(*local_text(peer))
    if state == "have-local-pranswer":
        core.set_local("pranswer")
    assert core.signaling_state == state
    return core, peer


def a_description(core: JsepCore, peer: JsepCore, side: Side, type_: SdpType) -> str:
    """Return a text of the given type that fits the session, as far as its state allows one at all."""
    if side == "local" or type_ == "rollback":
        return ""
    if type_ == "offer":
        other = make_core(3)
        other.add_track("audio", "t3")
        other.set_local("offer")
        return local_text(other)[1]
    if core.signaling_state in ("have-local-offer", "have-remote-pranswer"):
        peer.set_local("answer")
        return local_text(peer)[1]
    return FIREFOX_OFFER


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("side", "type_"), PAIRS)
def test_each_cell_of_the_signaling_table(state: SignalingState, side: Side, type_: SdpType) -> None:
    """What the table allows leads to its state; all else is an InvalidStateError and changes nothing."""
    core, peer = in_state(state)
    allowed = TRANSITIONS[side, type_].get(state)
    text = a_description(core, peer, side, type_)
    if (state, side, type_) == ("have-local-offer", "remote", "offer"):
        allowed = "have-remote-offer"  # after the implicit rollback
    if allowed is None:
        before = core.key()
        with pytest.raises(InvalidStateError, match=state):
            core.set_local(type_) if side == "local" else core.set_remote(type_, text)
        assert core.key() == before
        assert core.signaling_state == state
    else:
        core.set_local(type_) if side == "local" else core.set_remote(type_, text)
        assert core.signaling_state == allowed


def test_provisional_answer_starts_and_the_final_one_settles() -> None:
    """A pranswer starts the transports and settles nothing; the answer settles, without a second start."""
    one, other = make_core(1), make_core(2)
    one.add_track("audio", "t1")
    one.set_local("offer")
    other.set_remote(*local_text(one))
    started = [action for action in other.set_local("pranswer") if isinstance(action, StartTransport)]
    assert len(started) == 1
    type_, text = local_text(other)
    assert type_ == "pranswer"
    assert any(isinstance(action, StartTransport) for action in one.set_remote(type_, text))
    assert one.state.current_local is None
    assert one.state.pending_remote is not None
    final = other.set_local("answer")
    assert not any(isinstance(action, StartTransport | PrepareIce) for action in final)
    assert not any(isinstance(action, StartTransport) for action in one.set_remote(*local_text(other)))
    assert_agree(one, other)


def test_remote_rollback_restores_exactly() -> None:
    """A remote offer taken back leaves the state as it was, and says what to undo."""
    one, other = make_core(1), make_core(2)
    one.add_track("audio", "a1", ["s"])
    other.add_track("audio", "b1")
    settle(one, other)
    before = other.key()
    one.add_track("video", "v1", ["s"])
    one.remove_track(one.transceivers[0].id)
    one.set_local("offer")
    done = other.set_remote(*local_text(one))
    new = next(action.transceiver for action in done if isinstance(action, CreateTransceiver))
    assert CreateTransceiver(new, "v1") in done
    assert AddRemoteTrack(new) in done
    assert RemoveRemoteTrack(0) in done
    undone = other.rollback("remote")
    assert StopTransceiver(new) in undone
    assert SetRemoteStreams(0, ("s",)) in undone
    assert other.key() == before
    one.rollback("local")
    settle(one, other)
    assert_agree(one, other)


def test_a_transceiver_that_got_a_track_outlives_the_rollback_of_its_offer() -> None:
    """What a remote offer made stays if addTrack() used it since (RFC 9429 section 4.1.10.2)."""
    one, other = make_core(1), make_core(2)
    one.add_track("audio", "a1")
    one.set_local("offer")
    other.set_remote(*local_text(one))
    kept = other.add_track("audio", "b1")
    other.rollback("remote")
    assert [t.id for t in other.transceivers] == [kept]
    assert other.transceivers[0].mid is None
    assert other.negotiation_needed()


def test_add_track_on_both_sides_shares_an_m_line_and_add_transceiver_does_not() -> None:
    """A remote offer takes a transceiver of addTrack(), never of addTransceiver() (RFC 9429 section 5.10)."""
    for add, expected in (("track", 1), ("transceiver", 2)):
        one, other = make_core(1), make_core(2)
        for core in (one, other):
            if add == "track":
                core.add_track("audio", "t")
            else:
                core.add_transceiver("audio", track_id="t")
        settle(one, other)
        assert len(one.state.session.lines) == expected
        assert_agree(one, other)


def test_offers_replace_each_other_without_leaking_generations() -> None:
    """Offering again while an offer is pending keeps its generation; a restart discards it for a new one."""
    core = make_core(1)
    core.add_track("audio", "t")
    first = core.set_local("offer")
    assert [type(action) for action in first] == [PrepareIce]
    assert core.set_local("offer") == ()
    text = core.create_offer(ice_restart=True)
    again = core.set_local("offer", text)
    assert [type(action) for action in again] == [DiscardIce, PrepareIce]
    assert core.rollback("local") == (DiscardIce(again[1].credentials),)  # type: ignore[union-attr]


def test_descriptions_must_be_set_as_created() -> None:
    """A text that is not the one created last is refused; so is one from before the state changed."""
    core = make_core(1)
    core.add_track("audio", "t")
    text = core.create_offer()
    with pytest.raises(InvalidModificationError):
        core.set_local("offer", text.replace("sendrecv", "recvonly"))
    core.create_offer()
    with pytest.raises(InvalidModificationError):
        core.set_local("offer", text)
    assert core.signaling_state == "stable"


def test_restart_ice_survives_rollback_and_remote_offers() -> None:
    """restartIce() is satisfied by new local credentials only, as the Web Platform Tests demand."""
    one, other = make_core(1), make_core(2)
    one.restart_ice()
    assert not one.negotiation_needed()
    one.add_track("audio", "t")
    settle(one, other)
    before = one.state.session.local_ice
    one.restart_ice()
    assert one.negotiation_needed()
    one.set_local("offer")
    one.rollback("local")
    assert one.negotiation_needed()
    negotiate(other, one)
    assert one.negotiation_needed()
    assert one.state.session.local_ice == before
    offering, answering = negotiate(one, other)
    assert not one.negotiation_needed()
    assert one.state.session.local_ice != before
    assert any(isinstance(action, StartTransport) for action in offering)
    assert any(isinstance(action, StartTransport) for action in answering)
    one.restart_ice()
    other.restart_ice()
    negotiate(other, one)
    assert not one.negotiation_needed()
    assert_agree(one, other)


def test_renegotiation_without_restart_starts_nothing() -> None:
    """A second negotiation keeps credentials and roles, and starts no transport."""
    one, other = make_core(1), make_core(2)
    one.add_track("audio", "t")
    settle(one, other)
    roles = one.state.session.dtls_role, other.state.session.dtls_role
    offering, answering = negotiate(other, one)
    assert not any(isinstance(action, StartTransport | PrepareIce) for action in offering + answering)
    assert (one.state.session.dtls_role, other.state.session.dtls_role) == roles


def test_stop_before_negotiation_removes_at_once() -> None:
    """A transceiver that was never negotiated goes when it is stopped, and nothing is needed."""
    core = make_core(1)
    id_ = core.add_transceiver("video")
    assert core.stop(id_) == (StopTransceiver(id_),)
    assert core.transceivers == ()
    assert not core.negotiation_needed()
    assert core.stop(id_) == ()


def test_stop_is_no_part_of_answers() -> None:
    """A stopping transceiver answers inactive, and is rejected by the next offer (webrtc-pc 5.4)."""
    one, other = make_core(1), make_core(2)
    one.add_track("audio", "t")
    settle(one, other)
    other.stop(other.transceivers[0].id)
    negotiate(one, other)
    assert other.transceivers[0].negotiated.current_direction == "inactive"
    assert other.negotiation_needed()
    offering, answering = negotiate(other, one)
    assert [action for action in offering + answering if isinstance(action, StopTransceiver)]
    assert one.transceivers == other.transceivers == ()
    assert not one.negotiation_needed()
    assert not other.negotiation_needed()


def test_chromium_offer_is_answered_in_its_numbers() -> None:
    """The answer takes what we can do of Chromium's offer, under its payload types and extension ids."""
    core = make_core(1)
    core.set_remote("offer", CHROMIUM_OFFER)
    core.set_local("answer")
    answer = parse_session(local_text(core)[1])
    audio, video, data = answer.media
    assert [codec.payload_type for codec in audio.codecs] == [111, 9, 0, 8]
    assert [codec.payload_type for codec in video.codecs] == [96, 97, 103, 104]
    assert {e.uri.rsplit(":", 1)[-1].rsplit("/", 1)[-1]: e.id for e in video.header_extensions} == {
        "abs-send-time": 2, "mid": 4,
    }  # fmt: skip
    assert answer.bundle == ("0", "1", "2")
    assert audio.setup == "active"
    assert audio.direction == video.direction == "recvonly"
    assert data.sctp_port == 5000
    assert core.state.session.remote_max_message_size == 262144


def test_numbers_of_the_bundle_stay() -> None:
    """What Firefox calls VP8 and abs-send-time keeps its numbers in our offers; others avoid these."""
    core = make_core(1)
    core.set_remote("offer", FIREFOX_OFFER)
    core.set_local("answer")
    core.add_transceiver("video")
    core.set_local("offer")
    offer = parse_session(local_text(core)[1])
    by_name = {codec.name: codec.payload_type for codec in offer.media[2].codecs if not codec.is_rtx}
    assert by_name["VP8"] == 120
    extensions = {extension.uri: extension.id for extension in offer.media[2].header_extensions}
    assert extensions["urn:ietf:params:rtp-hdrext:sdes:mid"] == 3
    assert extensions["http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"] == 4
    numbers = [(codec.payload_type, codec.mime_type) for section in offer.media for codec in section.codecs]
    assert len({number for number, _ in numbers}) == len(set(numbers))


def test_no_common_codec_rejects_the_section() -> None:
    """A section with codecs that we do not have is answered with port zero; the others live."""
    text = CHROMIUM_OFFER.replace("VP8/90000", "AV1/90000").replace("H264/90000", "VP9/90000")
    core = make_core(1)
    actions = core.set_remote("offer", text)
    added = {action.transceiver for action in actions if isinstance(action, AddRemoteTrack)}
    created = [action for action in actions if isinstance(action, CreateTransceiver)]
    assert [action.track_id for action in created if action.transceiver in added] == ["track-a"]
    core.set_local("answer")
    answer = parse_session(local_text(core)[1])
    assert [section.rejected for section in answer.media] == [False, True, False]
    assert answer.bundle == ("0", "2")
    assert [t.kind for t in core.transceivers] == ["audio"]


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (("a=fingerprint", "a=x-fingerprint"), InvalidAccessError, "fingerprint"),
        (("a=ice-ufrag:4ZcD\r\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlkP\r\n", ""), InvalidAccessError, "ICE"),
        (("a=rtcp-mux", "a=x"), InvalidAccessError, "rtcp-mux"),
        (("v=0", "v=1"), SdpError, "v=0"),
    ],
)
def test_offers_that_cannot_be_taken(change: tuple[str, str], error: type[Exception], reason: str) -> None:
    """An offer that lacks what WebRTC needs is refused, and nothing has changed."""
    core = make_core(1)
    before = core.key()
    with pytest.raises(error, match=reason):
        core.set_remote("offer", CHROMIUM_OFFER.replace(*change))
    assert core.key() == before


def test_answers_that_do_not_fit() -> None:
    """An answer with other m-lines, no role, or credentials that nobody asked to change is refused."""
    one, other = make_core(1), make_core(2)
    one.add_track("audio", "t")
    one.set_local("offer")
    other.set_remote(*local_text(one))
    other.set_local("answer")
    text = local_text(other)[1]
    for wrong, reason in (
        (text.replace("a=mid:0", "a=mid:7"), "m-lines"),
        (text.replace("a=setup:active", "a=setup:actpass"), "setup"),
        (text.replace("opus", "speex").replace("PCM", "XYZ").replace("G722", "X"), "codecs"),
    ):
        with pytest.raises(InvalidAccessError, match=reason):
            one.set_remote("answer", wrong)
        assert one.signaling_state == "have-local-offer"
    one.set_remote("answer", text)
    one.set_local("offer")
    other.set_remote(*local_text(one))
    other.set_local("answer")
    ufrag = other.state.session.local_ice
    assert ufrag is not None
    with pytest.raises(InvalidAccessError, match="did not restart"):
        one.set_remote("answer", local_text(other)[1].replace(ufrag.ufrag, "another1"))


def test_offers_never_drop_or_turn_m_lines() -> None:
    """An offer with fewer m-lines, or another use of one that is in use, is refused."""
    one, other = make_core(1), make_core(2)
    one.add_track("audio", "t")
    one.add_track("video", "v")
    settle(one, other)
    one.set_local("offer")
    text = local_text(one)[1]
    with pytest.raises(InvalidAccessError, match="never dropped"):
        other.set_remote("offer", text[: text.index("m=video")])
    with pytest.raises(InvalidAccessError, match="in use"):
        other.set_remote("offer", text.replace("a=mid:1", "a=mid:9").replace("BUNDLE 0 1", "BUNDLE 0 9"))


def test_a_changed_fingerprint_is_refused() -> None:
    """Another DTLS certificate in a running session is refused with advice."""
    one, other = make_core(1), make_core(2)
    one.add_track("audio", "t")
    settle(one, other)
    stranger = make_core(9)
    stranger.add_track("audio", "t")
    stranger.set_local("offer")
    with pytest.raises(InvalidAccessError, match="new RTCPeerConnection"):
        other.set_remote(*local_text(stranger))


CANDIDATE = "candidate:1 1 udp 2122260223 192.0.2.1 5000 typ host"


def test_candidates_find_their_generation() -> None:
    """Candidates are kept until their generation connects, handed on afterwards, and never twice."""
    one, other = make_core(1), make_core(2)
    init = {"candidate": CANDIDATE, "sdpMid": "0"}
    with pytest.raises(InvalidStateError, match="remote description"):
        one.add_remote_candidate(init)
    one.add_track("audio", "t")
    one.set_local("offer")
    other.set_remote(*local_text(one))
    ufrag = one.state.session.local_ice
    assert ufrag is not None
    assert other.add_remote_candidate({**init, "usernameFragment": ufrag.ufrag}) == ()
    start = next(action for action in other.set_local("answer") if isinstance(action, StartTransport))
    assert start.candidates == (CANDIDATE,)
    assert other.add_remote_candidate(init) == ()
    more = {**init, "candidate": CANDIDATE.replace("5000", "5001")}
    assert other.add_remote_candidate(more) == (AddRemoteCandidate(ufrag.ufrag, more["candidate"]),)
    assert other.add_remote_candidate({"candidate": ""}) == (AddRemoteCandidate(ufrag.ufrag, None),)
    for wrong, reason in (
        ({**init, "sdpMid": "nowhere"}, "mid"),
        ({"candidate": CANDIDATE, "sdpMLineIndex": 3}, "sections"),
        ({"candidate": CANDIDATE, "sdpMLineIndex": -1}, "sections"),
        ({**init, "usernameFragment": "stranger"}, "ufrag"),
    ):
        with pytest.raises(OperationError, match=reason):
            other.add_remote_candidate(wrong)


def test_late_candidates_of_an_old_generation_are_no_error() -> None:
    """A candidate that was overtaken by a restart is dropped in silence."""
    one, other = make_core(1), make_core(2)
    one.add_track("audio", "t")
    settle(one, other)
    old = one.state.session.local_ice
    assert old is not None
    one.restart_ice()
    settle(one, other)
    late = {"candidate": CANDIDATE, "sdpMid": "0", "usernameFragment": old.ufrag}
    assert other.add_remote_candidate(late) == ()


def test_an_end_without_a_name_does_not_end_the_next_generation() -> None:
    """A bare end of candidates that comes after a restart's offer is that of the generation before."""
    one, other = make_core(1), make_core(2)
    one.add_track("audio", "t")
    settle(one, other)
    one.restart_ice()
    negotiate(one, other)
    assert other.add_remote_candidate({"candidate": ""}) == ()
    assert other.state.remote_candidates[-1].complete is False


def test_local_descriptions_gather_candidates() -> None:
    """Candidates appear in the section that carries the bundle, as they come."""
    core = make_core(1)
    core.add_track("audio", "t")
    core.add_track("video", "v")
    core.set_local("offer")
    ice = core.state.session.local_ice
    assert ice is not None
    assert core.add_local_candidate(ice.ufrag, CANDIDATE) == ("0", 0)
    assert core.add_local_candidate("unknown1", CANDIDATE) is None
    core.add_local_candidate(ice.ufrag, None)
    audio, video = parse_session(local_text(core)[1]).media
    assert audio.candidates == (CANDIDATE,)
    assert audio.end_of_candidates
    assert video.candidates == ()


def test_a_peer_that_cannot_trickle_has_said_all() -> None:
    """Candidates in a description without the trickle option are all there will be."""
    core = make_core(1)
    core.set_remote("offer", CHROMIUM_OFFER.replace("a=ice-options:trickle\r\n", ""))
    start = next(action for action in core.set_local("answer") if isinstance(action, StartTransport))
    assert start.candidates[-1] is None
    assert len(start.candidates) == 2


def test_msids_follow_set_streams() -> None:
    """Changing the streams of a sender needs negotiation; a track that joins a stream is announced again."""
    one, other = make_core(1), make_core(2)
    id_ = one.add_track("audio", "t", ["s1", "s2"])
    settle(one, other)
    assert other.transceivers[0].negotiated.remote_stream_ids == ("s1", "s2")
    one.set_streams(id_, ["s2", "s3"])
    assert one.negotiation_needed()
    _, answering = negotiate(one, other)
    assert SetRemoteStreams(0, ("s2", "s3")) in answering
    assert AddRemoteTrack(0) in answering
    assert not one.negotiation_needed()
    one.set_streams(id_, ["s3"])
    _, answering = negotiate(one, other)
    assert SetRemoteStreams(0, ("s3",)) in answering
    assert not any(isinstance(action, AddRemoteTrack) for action in answering)
