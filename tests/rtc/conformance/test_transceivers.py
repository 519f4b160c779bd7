"""addTrack, removeTrack, addTransceiver and the life of a transceiver (webrtc-pc 5.1, 5.4)."""

from __future__ import annotations

from typing import Any

import pytest

from calllab.rtc import (
    AudioStreamTrack,
    InvalidAccessError,
    InvalidStateError,
    MediaStream,
    VideoStreamTrack,
)
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import Log, answer, lines, local, negotiate, offer, peers


@clause("5.1", "addTrack: a new transceiver is sendrecv and comes last")
async def test_5_1_add_track_makes_a_transceiver() -> None:
    """Without a sender to reuse, addTrack() makes a sendrecv transceiver whose sender has the track."""
    async with peers(1) as (a,):
        first = a.addTransceiver("audio", direction="recvonly")
        track = VideoStreamTrack()
        sender = a.addTrack(track)
        made = a.getTransceivers()[1]
        assert (made.sender, made.kind, made.direction) == (sender, "video", "sendrecv")
        assert (made.mid, made.currentDirection, sender.track) == (None, None, track)
        assert made.receiver.track.kind == "video"
        assert a.getTransceivers() == [first, made]
        assert a.getSenders() == [first.sender, sender]
        assert a.getReceivers() == [first.receiver, made.receiver]


@clause("5.1", "addTrack: a track that is being sent is an InvalidAccessError")
async def test_5_1_add_track_twice() -> None:
    """The same track cannot be added twice; it can once its sender has let go of it."""
    async with peers(1) as (a,):
        track = AudioStreamTrack()
        sender = a.addTrack(track)
        with pytest.raises(InvalidAccessError):
            a.addTrack(track, MediaStream())
        await sender.replaceTrack(None)
        assert a.addTrack(track) is sender


@pytest.mark.parametrize(("before", "after"), [("recvonly", "sendrecv"), ("inactive", "sendonly")])
@clause("5.1", "addTrack: a sender that never sent is used again, and its direction widened")
async def test_5_1_add_track_reuses_senders(before: Any, after: str) -> None:
    """A free sender of the kind is taken, with recvonly becoming sendrecv and inactive sendonly."""
    async with peers() as (a, b):
        a.addTransceiver("video")
        transceiver = a.addTransceiver("audio", direction=before)
        await negotiate(a, b)
        assert a.addTrack(AudioStreamTrack(), MediaStream(id="s")) is transceiver.sender
        assert transceiver.direction == after
        await a.setLocalDescription()
        assert [line.split()[0] for line in lines(local(a), "a=msid:")][-1] == "a=msid:s"


@clause("5.1", "addTrack: a sender that has been used to send is not used again")
async def test_5_1_add_track_does_not_reuse_used_senders() -> None:
    """After its track was removed a sender stays free if its currentDirection was ever sending."""
    async with peers() as (a, b):
        used = a.addTrack(AudioStreamTrack())
        await negotiate(a, b)
        a.removeTrack(used)
        await negotiate(a, b)
        assert used.transceiver.currentDirection == "inactive"
        assert a.addTrack(AudioStreamTrack()) is not used


@clause("5.1", "addTrack: a sender whose sending was offered and never accepted is used again")
async def test_5_1_add_track_reuses_what_was_never_accepted() -> None:
    """Only currentDirection counts: an answer without sending leaves the sender fresh."""
    async with peers() as (a, b):
        sender = a.addTrack(AudioStreamTrack())
        await offer(a, b)
        b.getTransceivers()[0].direction = "inactive"
        await answer(a, b)
        a.removeTrack(sender)
        assert a.addTrack(AudioStreamTrack()) is sender


@clause("5.1", "addTrack: a stopping transceiver is not used again")
async def test_5_1_add_track_does_not_reuse_stopping_transceivers() -> None:
    """A stopped transceiver's sender stays out, even if it never sent."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio", direction="recvonly")
        await negotiate(a, b)
        transceiver.stop()
        assert a.addTrack(AudioStreamTrack()) is not transceiver.sender


@clause("5.1", "removeTrack: the track goes at once, the sender and its section stay")
async def test_5_1_remove_track() -> None:
    """sendrecv becomes recvonly and sendonly inactive; a second call does nothing."""
    async with peers(1) as (a,):
        both = a.addTrack(AudioStreamTrack())
        only = a.addTransceiver(VideoStreamTrack(), direction="sendonly").sender
        for sender in (both, only, both):
            a.removeTrack(sender)
        assert [(t.direction, t.sender.track) for t in a.getTransceivers()] == [
            ("recvonly", None),
            ("inactive", None),
        ]
        assert a.getSenders() == [both, only]


@clause("5.1", "removeTrack: a stopping transceiver is left alone")
async def test_5_1_remove_track_of_a_stopped_transceiver() -> None:
    """On a transceiver that is stopping, stopped, or rolled back, removeTrack() does nothing."""
    async with peers() as (a, b):
        sender = a.addTrack(AudioStreamTrack())
        await negotiate(a, b)
        sender.transceiver.stop()
        a.removeTrack(sender)
        assert sender.track is not None
        await negotiate(a, b)
        a.removeTrack(sender)
        await offer(a, b)
        a.addTransceiver("audio")
        await a.setLocalDescription({"type": "rollback"})
        await b.setRemoteDescription({"type": "rollback"})


@clause("5.1", "addTransceiver: kind, direction and streams are what was asked for")
async def test_5_1_add_transceiver() -> None:
    """A kind gives a sender without a track; a track gives one with it; the direction is kept."""
    async with peers(1) as (a,):
        empty = a.addTransceiver("video", direction="inactive")
        track = AudioStreamTrack()
        full = a.addTransceiver(track, direction="sendonly", streams=[MediaStream(id="s")])
        assert (empty.sender.track, empty.direction, empty.kind) == (None, "inactive", "video")
        assert (full.sender.track, full.direction, full.kind) == (track, "sendonly", "audio")
        assert a.getTransceivers() == [empty, full]
        await a.setLocalDescription()
        assert lines(local(a), "a=msid:") == [f"a=msid:s {track.id}"]


@clause("5.1", "addTransceiver: never takes a transceiver that is there")
async def test_5_1_add_transceiver_makes_a_new_one() -> None:
    """It makes a new transceiver each time, even for a track that is being sent already."""
    async with peers(1) as (a,):
        a.addTransceiver("audio")
        track = AudioStreamTrack()
        a.addTransceiver(track)
        a.addTransceiver(track)
        assert len(a.getTransceivers()) == 3


@pytest.mark.parametrize(
    ("kind", "members"),
    [("text", {}), ("", {}), ("audio", {"direction": "stopped"}), ("audio", {"direction": "sideways"})],
)
@clause("5.1", "addTransceiver: an unknown kind, and stopped as a direction, are TypeErrors")
async def test_5_1_add_transceiver_types(kind: str, members: dict[str, Any]) -> None:
    """A wrong kind or direction is a TypeError, and nothing is added."""
    async with peers(1) as (a,):
        with pytest.raises(TypeError):
            a.addTransceiver(kind, **members)
        assert a.getTransceivers() == []


@pytest.mark.parametrize(
    ("kind", "encodings", "error"),
    [
        ("video", [{"rid": "a"}, {"rid": "a"}], TypeError),
        ("video", [{"rid": "a"}, {}], TypeError),
        ("video", [{"rid": "a-b"}], TypeError),
        ("video", [{"rid": ""}], TypeError),
        ("video", [{"ssrc": 7}], InvalidAccessError),
        ("video", [{"scaleResolutionDownBy": 0.5}], ValueError),
        ("video", [{"maxFramerate": -1}], ValueError),
        ("video", [{"maxBitrate": "much"}], TypeError),
    ],
)
@clause("5.1", "addTransceiver: sendEncodings are validated before anything is made")
async def test_5_1_send_encodings_are_validated(
    kind: str, encodings: list[dict[str, Any]], error: type[Exception]
) -> None:
    """Bad or double rids, read-only members and numbers out of range are refused, and nothing is added."""
    async with peers(1) as (a,):
        with pytest.raises(error):
            a.addTransceiver(kind, sendEncodings=encodings)
        assert a.getTransceivers() == []


@clause("5.1", "addTransceiver: encodings beyond what can be had are cut off, and a lone rid goes")
@clause("5.4.1", "simulcast that is not supported is cut to one encoding")
async def test_5_1_send_encodings_are_cut() -> None:
    """Of three simulcast encodings the first is kept, without its rid, and the offer has no simulcast."""
    async with peers(1) as (a,):
        transceiver = a.addTransceiver(
            "video", sendEncodings=[{"rid": rid, "maxBitrate": 5} for rid in ("q", "h", "f")]
        )
        assert transceiver.sender.getParameters()["encodings"] == [
            {"active": True, "maxBitrate": 5, "scaleResolutionDownBy": 1.0}
        ]
        await a.setLocalDescription()
        assert lines(local(a), "a=rid", "a=simulcast") == []


@clause("5.1", "addTransceiver: members that audio has not are dropped")
async def test_5_1_send_encodings_of_audio() -> None:
    """An audio sender has neither scaleResolutionDownBy nor maxFramerate, even if they were out of range."""
    async with peers(1) as (a,):
        encoding = {"scaleResolutionDownBy": 0.1, "maxFramerate": -3, "active": False}
        sender = a.addTransceiver("audio", sendEncodings=[encoding]).sender
        assert sender.getParameters()["encodings"] == [{"active": False}]


@clause("5", "a remote offer takes transceivers of addTrack, never of addTransceiver")
async def test_5_who_may_take_an_offered_section() -> None:
    """The offered section goes to what addTrack() made, although others were made, and used by it, before."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        own = b.addTransceiver(AudioStreamTrack())
        used = b.addTransceiver("audio")
        assert b.addTrack(AudioStreamTrack()) is used.sender
        shared = b.addTrack(AudioStreamTrack())
        await offer(a, b)
        assert (own.mid, used.mid, shared.transceiver.mid) == (None, None, "0")
        assert len(b.getTransceivers()) == 3


@clause("5", "a transceiver of addTransceiver whose track was replaced is not taken either")
async def test_5_a_replaced_track_does_not_make_it_an_add_track_transceiver() -> None:
    """replaceTrack() does not turn a transceiver of addTransceiver() into one of addTrack()."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        own = b.addTransceiver("audio")
        await own.sender.replaceTrack(AudioStreamTrack())
        await offer(a, b)
        assert own.mid is None
        assert len(b.getTransceivers()) == 2


@clause("5", "a transceiver made for a remote offer is recvonly until the application says otherwise")
async def test_5_transceivers_of_remote_offers_are_recvonly() -> None:
    """It is recvonly, also where the offer only receives; the answer is then inactive."""
    async with peers() as (a, b):
        a.addTransceiver("audio", direction="recvonly")
        await offer(a, b)
        (made,) = b.getTransceivers()
        assert (made.direction, made.currentDirection) == ("recvonly", None)
        await answer(a, b)
        assert made.currentDirection == a.getTransceivers()[0].currentDirection == "inactive"


@clause("5", "what an answer cannot hold waits for the next offer")
async def test_5_transceivers_beyond_the_offer_wait() -> None:
    """A second video track of the answerer has no mid after the answer, and gets one with its own offer."""
    async with peers() as (a, b):
        a.addTransceiver("video")
        senders = [b.addTrack(VideoStreamTrack()) for _ in range(2)]
        await negotiate(a, b)
        assert [sender.transceiver.mid for sender in senders] == ["0", None]
        await negotiate(b, a)
        assert [sender.transceiver.mid for sender in senders] == ["0", "1"]


@clause("5.4", "mid, sender and receiver stay the same objects and values")
async def test_5_4_identity() -> None:
    """The objects of a transceiver are the same each time, through negotiations."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio")
        seen = (transceiver.sender, transceiver.receiver, transceiver.receiver.track)
        await negotiate(a, b)
        await negotiate(b, a)
        assert (transceiver.sender, transceiver.receiver, transceiver.receiver.track) == seen
        assert a.getTransceivers() == [transceiver]
        assert transceiver.mid == b.getTransceivers()[0].mid == "0"


@clause("5.4", "direction: setting it changes nothing before the next negotiation")
async def test_5_4_direction_takes_effect_by_negotiation() -> None:
    """currentDirection follows with the answer, on both sides, each from its own point of view."""
    async with peers() as (a, b):
        a.addTrack(AudioStreamTrack())
        b.addTrack(AudioStreamTrack())
        await negotiate(a, b)
        (mine,), (theirs,) = a.getTransceivers(), b.getTransceivers()
        for direction, ours, other in (
            ("sendonly", "sendonly", "recvonly"),
            ("inactive", "inactive", "inactive"),
            ("recvonly", "recvonly", "sendonly"),
            ("sendrecv", "sendrecv", "sendrecv"),
        ):
            before = mine.currentDirection
            mine.direction = direction  # type: ignore[assignment]
            assert mine.currentDirection == before
            await negotiate(a, b)
            assert (mine.currentDirection, theirs.currentDirection) == (ours, other)


@clause("5.4", "direction: on a stopped transceiver setting throws, whatever is set")
async def test_5_4_direction_of_a_stopped_transceiver() -> None:
    """Setting any direction after stop() is an InvalidStateError; before it, stopped is a TypeError."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio")
        with pytest.raises(TypeError):
            transceiver.direction = "stopped"  # type: ignore[assignment]
        await negotiate(a, b)
        transceiver.stop()
        for direction in ("sendrecv", "stopped"):
            with pytest.raises(InvalidStateError):
                transceiver.direction = direction  # type: ignore[assignment]


@clause("5.4", "stop: sending and receiving end at once, the transceiver is stopping until negotiated")
async def test_5_4_stop() -> None:
    """Right after stop() the track has ended and direction is stopped; mid and currentDirection stay."""
    async with peers() as (a, b):
        transceiver = a.addTrack(AudioStreamTrack()).transceiver
        await negotiate(a, b)
        ended = Log().watch(transceiver.receiver.track, "ended")
        transceiver.stop()
        assert (transceiver.direction, transceiver.currentDirection) == ("stopped", "sendonly")
        assert transceiver.mid == "0"
        assert transceiver.receiver.track.readyState == "ended"
        assert ended.take() == ["ended"]
        assert transceiver.sender.track is not None
        transceiver.stop()
        assert a.getTransceivers() == [transceiver]
        assert a.getSenders() == [transceiver.sender]


@clause("5.4", "stop: an offer rejects the section, and the answer removes the transceiver on both sides")
async def test_5_4_stop_is_negotiated() -> None:
    """The offer has port zero; after the answer both transceivers are stopped, without mid, and gone."""
    async with peers() as (a, b):
        mine = a.addTransceiver("audio")
        a.addTransceiver("video")
        await negotiate(a, b)
        theirs = b.getTransceivers()[0]
        mine.stop()
        await offer(a, b)
        assert lines(local(a), "m=")[0].startswith("m=audio 0 ")
        assert theirs.currentDirection == theirs.direction == "stopped"
        assert theirs in b.getTransceivers()
        assert theirs.sender not in b.getSenders()
        assert theirs.receiver.track.readyState == "ended"
        await answer(a, b)
        for peer, stopped in ((a, mine), (b, theirs)):
            assert stopped not in peer.getTransceivers()
            assert (stopped.mid, stopped.currentDirection) == (None, "stopped")
        assert lines(local(b), "m=")[0].startswith("m=audio 0 ")


@clause("5.4", "stop: an answer of a stopping transceiver is inactive, not rejected")
async def test_5_4_stopping_answers_inactive() -> None:
    """A stop() while an offer is pending does not reject the section; the next offer does."""
    async with peers() as (a, b):
        a.addTrack(AudioStreamTrack())
        await offer(a, b)
        b.getTransceivers()[0].stop()
        await answer(a, b)
        assert lines(local(b), "m=audio 9", "a=inactive") != []
        assert a.getTransceivers()[0].currentDirection == "inactive"
        await negotiate(b, a)
        assert a.getTransceivers() == b.getTransceivers() == []


@clause("5.4", "stop: what we do with a transceiver that was never negotiated")
async def test_5_4_stop_before_negotiation() -> None:
    """A transceiver without a mid is gone with stop(): it never was in a description."""
    async with peers(1) as (a,):
        transceiver = a.addTransceiver("audio")
        transceiver.stop()
        assert a.getTransceivers() == []
        assert transceiver.currentDirection == "stopped"
        assert transceiver.receiver.track.readyState == "ended"
        assert not a.negotiationIsNeeded


@clause("5.4", "a rejected answer stops the offerer's transceiver")
async def test_5_4_rejected_by_the_answer() -> None:
    """An answer with port zero stops and removes the transceiver on the side that offered."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio")
        a.addTransceiver("video")
        await offer(a, b)
        made = await b.createAnswer()
        rejected = made.sdp.replace("m=audio 9", "m=audio 0").replace("BUNDLE 0 1", "BUNDLE 1")
        await a.setRemoteDescription({"type": "answer", "sdp": rejected})
        assert transceiver.currentDirection == "stopped"
        assert transceiver not in a.getTransceivers()
        assert transceiver.receiver.track.readyState == "ended"


@clause("5.2.2", "recycled sections", document="RFC 9429")
async def test_9429_5_2_2_sections_are_recycled() -> None:
    """The section of a stopped transceiver serves the next one of any kind, under another mid."""
    async with peers() as (a, b):
        a.addTransceiver("audio").stop()
        first = a.addTransceiver("audio")
        a.addTransceiver("video")
        await negotiate(a, b)
        first.stop()
        await negotiate(a, b)
        again = a.addTransceiver("video")
        await negotiate(a, b)
        assert [line.split()[0] for line in lines(local(a), "m=")] == ["m=video", "m=video"]
        assert again.mid not in (None, "0", "1")
        assert lines(local(a), "a=mid:")[0] == f"a=mid:{again.mid}"
