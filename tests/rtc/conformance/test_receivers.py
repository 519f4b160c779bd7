"""Receivers: their track, their parameters, who is heard (webrtc-pc 5.3); telephone tones (section 7)."""

from __future__ import annotations

import time

import pytest
from aiortc.rtp import HeaderExtensions, RtpPacket

from calllab.rtc import AudioStreamTrack, InvalidStateError, VideoStreamTrack
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import Log, answer, negotiate, offer, peers
from tests.rtc.peers import audio_call, turns, until

STREAMS = "mediacapture-streams"


@clause("5.3", "a receiver's track exists from the beginning, live and muted")
async def test_5_3_receiver_track() -> None:
    """Before anything is negotiated the track is there, muted, of the transceiver's kind."""
    async with peers(1) as (a,):
        for kind in ("audio", "video"):
            track = a.addTransceiver(kind).receiver.track
            assert (track.kind, track.readyState, track.muted) == (kind, "live", True)


@clause("9.3", "a remote track is muted until packets come, and unmuted by them")
@clause("5.3", "the track is the same whoever stops and starts sending")
async def test_9_3_mute_and_unmute() -> None:
    """unmute comes with the first packets, mute with the end of sending, and unmute once more after it."""
    async with audio_call() as call:
        track = call.b.getReceivers()[0].track
        assert not track.muted
        log = Log().watch(track, "mute", "unmute", "ended")
        mine = call.a.getTransceivers()[0]
        mine.direction = "recvonly"
        await negotiate(call.a, call.b)
        assert log.take() == ["mute"]
        mine.direction = "sendrecv"
        await negotiate(call.a, call.b)
        await until(lambda: not track.muted, "packets on a track that is sent again")
        assert log.take() == ["unmute"]


@clause("4.3.3", "a received track is an event target with onmute, onunmute and onended", document=STREAMS)
async def test_streams_4_3_3_handlers_of_a_received_track() -> None:
    """Each kind of handler is called, in order; one that raises harms neither the others nor the call."""
    async with audio_call() as call:
        track = call.b.getReceivers()[0].track
        seen: list[str] = []

        def broken() -> None:
            seen.append("broken")
            raise ZeroDivisionError

        async def later() -> None:
            seen.append("later")

        track.addEventListener("mute", broken)
        track.addEventListener("mute", broken)
        track.onmute = lambda: seen.append("onmute")
        track.onunmute = broken
        track.onunmute = lambda: seen.append("onunmute")
        track.onended = later
        mine = call.a.getTransceivers()[0]
        mine.direction = "recvonly"
        await negotiate(call.a, call.b)
        track.removeEventListener("mute", broken)
        mine.direction = "sendrecv"
        await negotiate(call.a, call.b)
        await until(lambda: not track.muted, "packets on a track that is sent again")
        assert seen == ["broken", "onmute", "onunmute"]
        call.b.getTransceivers()[0].stop()
        assert track.readyState == "ended"
        await turns()
        assert seen[3:] == ["later"]
        assert track.onended is later
        assert call.b.connectionState == "connected"


@clause("4.3.3", "stop: the track has ended at once", document=STREAMS)
async def test_streams_4_3_3_tracks_of_the_application() -> None:
    """They are aiortc's: without listeners and handler attributes; and their own stop() fires ended."""
    track, ended = AudioStreamTrack(), []
    assert not hasattr(track, "addEventListener")
    assert not hasattr(track, "onended")
    track.on("ended", lambda: ended.append(True))
    track.stop()
    assert track.readyState == "ended"
    assert ended == [True]


@clause("5.3", "getParameters: what the latest description would receive, without encodings and CNAME")
async def test_5_3_parameters() -> None:
    """There are codecs as soon as a description is set; after the answer only those that it kept."""
    async with peers() as (a, b):
        receiver = a.addTransceiver("video").receiver
        assert receiver.getParameters()["codecs"] == []
        assert receiver.getParameters()["rtcp"] == {"reducedSize": False}
        await a.setLocalDescription()
        offered = receiver.getParameters()["codecs"]
        made = (await a.createOffer()).sdp.replace("H264/90000", "H265/90000")
        await b.setRemoteDescription({"type": "offer", "sdp": made})
        assert [c.mimeType for c in b.getReceivers()[0].getParameters()["codecs"]][:1] == ["video/VP8"]
        await answer(a, b)
        kept = receiver.getParameters()
        assert "encodings" not in kept
        assert [c.mimeType for c in kept["codecs"]] == ["video/VP8", "video/rtx"]
        assert len(offered) > len(kept["codecs"])
        assert kept["rtcp"] == {"reducedSize": True}
        assert {e["id"] for e in kept["headerExtensions"]} == {2, 4}


@clause("5.3", "getParameters: a receiver that does not receive has no codecs")
async def test_5_3_parameters_of_a_sendonly_transceiver() -> None:
    """With sendonly and inactive the list is empty; a rollback gives back what was there."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio")
        await negotiate(a, b)
        before = transceiver.receiver.getParameters()
        transceiver.direction = "sendonly"
        await a.setLocalDescription()
        assert transceiver.receiver.getParameters()["codecs"] == []
        await a.setLocalDescription({"type": "rollback"})
        assert transceiver.receiver.getParameters() == before


@clause("5.2.8", "reduced-size RTCP is what both sides said")
async def test_5_2_8_reduced_size() -> None:
    """An offer without a=rtcp-rsize gets an answer without it, and the parameters say so."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        made = await a.createOffer()
        plain = made.sdp.replace("a=rtcp-rsize\r\n", "")
        await b.setRemoteDescription({"type": "offer", "sdp": plain})
        reply = await b.createAnswer()
        assert "rtcp-rsize" not in reply.sdp
        await b.setLocalDescription()
        (transceiver,) = b.getTransceivers()
        assert transceiver.receiver.getParameters()["rtcp"]["reducedSize"] is False
        assert transceiver.sender.getParameters()["rtcp"]["reducedSize"] is False


@clause("5.3", "getSynchronizationSources: who was heard lately, when, and how loud")
async def test_5_3_synchronization_sources() -> None:
    """There is one source with a time of now, an RTP timestamp that advances, and a level of audio."""
    async with audio_call() as call:
        receiver = call.b.getReceivers()[0]
        (source,) = receiver.getSynchronizationSources()
        assert abs(source["timestamp"] - time.time() * 1000) < 2000
        assert 0 <= source["audioLevel"] <= 1
        report = await receiver.getStats()
        assert {e["ssrc"] for e in report.values() if e["type"] == "inbound-rtp"} == {source["source"]}
        first = source["rtpTimestamp"]
        await until(
            lambda: receiver.getSynchronizationSources()[0]["rtpTimestamp"] != first, "a later RTP timestamp"
        )
        assert receiver.getContributingSources() == []
        assert call.a.addTransceiver("video").receiver.getSynchronizationSources() == []


@clause("5.3", "getContributingSources: the CSRCs of a mixer, the latest first")
async def test_5_3_contributing_sources() -> None:
    """Sources that a packet names as contributors are listed, without a level of their own."""
    async with audio_call() as call:
        receiver = call.b.getReceivers()[0]
        (source,) = receiver.getSynchronizationSources()
        codec = receiver.getParameters()["codecs"][0]
        for number, contributors in enumerate(([7, 8], [9], [7])):
            packet = RtpPacket(
                payload_type=codec.payloadType,
                sequence_number=number,
                timestamp=1000 + number,
                ssrc=int(source["source"]),
            )
            packet.csrc = contributors
            packet.extensions = HeaderExtensions(audio_level=(False, 20))
            receiver.media.packet_received(packet)
        assert [(s["source"], s["rtpTimestamp"]) for s in receiver.getContributingSources()] == [
            (7, 1002), (9, 1001), (8, 1000),
        ]  # fmt: skip
        assert all("audioLevel" not in entry for entry in receiver.getContributingSources())
        loudest = receiver.getSynchronizationSources()[0]
        assert loudest["audioLevel"] == pytest.approx(0.1)


@clause("5.3", "a receiver keeps what it received: counters of the last negotiation go on")
async def test_5_3_receivers_survive_renegotiation() -> None:
    """Renegotiating does not begin a new stream: the same SSRC is heard before and after."""
    async with audio_call() as call:
        receiver = call.b.getReceivers()[0]
        (before,) = receiver.getSynchronizationSources()
        await negotiate(call.b, call.a)
        await call.media_flows()
        (after,) = receiver.getSynchronizationSources()
        assert after["source"] == before["source"]


@clause("7.2", "canInsertDTMF is false unless telephone-event is negotiated; insertDTMF then throws")
@clause("7.1", "an audio sender has dtmf, a video sender has none")
async def test_7_2_dtmf() -> None:
    """Nothing here can send tones, and that is what the object says, before and in a call."""
    async with audio_call() as call:
        sender = call.a.getSenders()[0]
        assert sender.dtmf is sender.dtmf is not None
        assert sender.dtmf.canInsertDTMF is False
        assert sender.dtmf.toneBuffer == ""
        with pytest.raises(InvalidStateError):
            sender.dtmf.insertDTMF("1")
        assert call.a.addTransceiver(VideoStreamTrack()).sender.dtmf is None
        assert call.a.addTransceiver(AudioStreamTrack()).sender.dtmf is not None
        await offer(call.a, call.b)
        assert "telephone-event" not in (call.a.localDescription or sender).sdp  # type: ignore[union-attr]
        await answer(call.a, call.b)
