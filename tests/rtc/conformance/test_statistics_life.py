"""Counters and identifiers of statistics over the life of what they stand for (webrtc-stats)."""

from __future__ import annotations

import asyncio

import pytest

from calllab.network import NetworkInterface, VirtualNetwork, simulate
from calllab.rtc import AudioStreamTrack, RTCPeerConnection, RTCStatsReport
from tests.rtc.conformance.channels import pair_with, wired_pair
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.reports import check_counters, check_references
from tests.rtc.conformance.steps import local, negotiate, offer, without_candidates
from tests.rtc.conformance.test_codecs import codecs, flowing
from tests.rtc.peers import more_packets, pair

STATS = "webrtc-stats"


@clause(
    "8", "jitterBufferDelay and jitterBufferEmittedCount count samples, of whatever codec", document=STATS
)
async def test_stats_8_the_jitter_buffer_counts_samples() -> None:
    """Where the codec changes to one with fewer samples a frame, both go on from where they were."""
    async with pair() as call:
        sender = call.a.addTrack(AudioStreamTrack())
        sender.transceiver.setCodecPreferences(codecs("audio", "opus"))
        await call.exchange()
        await call.connected()
        (theirs,) = call.b.getTransceivers()
        reports: list[RTCStatsReport] = []
        for name in ("opus", "PCMU", "opus"):
            sender.transceiver.setCodecPreferences(codecs("audio", name))
            await negotiate(call.a, call.b)
            await flowing(call, theirs, f"audio/{name}")
            for _ in range(20):
                await theirs.receiver.track.recv()
                reports.append(await call.b.getStats())
        check_counters(reports)
        for report in reports:
            (heard,) = report.of_type("inbound-rtp")
            assert heard["jitterBufferEmittedCount"] == heard["totalSamplesReceived"]
            assert 0 < heard["jitterBufferDelay"] / heard["jitterBufferEmittedCount"] < 1


@clause("8", "jitter is in seconds, of whatever codec", document=STATS)
@pytest.mark.parametrize("first_timestamp", [0, 2**32 - 48_000])
def test_stats_8_jitter_over_a_change_of_clock(monkeypatch: pytest.MonkeyPatch, first_timestamp: int) -> None:
    """On a steady network there is next to none, also where the clock rate changes or timestamps wrap."""
    monkeypatch.setattr("aiortc.rtcrtpsender.random32", lambda: first_timestamp)

    async def call() -> list[float]:
        network = VirtualNetwork(seed=1)
        ends = [NetworkInterface(host=network.add_host(name)) for name in ("a", "b")]
        found: list[float] = []
        async with pair_with(*(RTCPeerConnection(interface=end) for end in ends)) as pair:
            sender = pair.a.addTrack(AudioStreamTrack())
            for name in ("opus", "PCMU", "G722", "opus"):
                sender.transceiver.setCodecPreferences(codecs("audio", name))
                await pair.exchange()
                await asyncio.sleep(3)
                reports = [await peer.getStats() for peer in (pair.a, pair.b)]
                found += [report.of_type("inbound-rtp")[0]["jitter"] for report in reports[1:]]
                found += [report.of_type("remote-inbound-rtp")[0]["jitter"] for report in reports[:1]]
        return found

    assert max(simulate(call, seed=1)) < 0.003


@clause(
    "8",
    "media-source: one for each time that a sender takes a track; its counters never fall",
    document=STATS,
)
async def test_stats_8_media_sources() -> None:
    """A track that is taken again, or by a second sender, has another id; the counters of none fall."""
    async with pair() as call:
        track = AudioStreamTrack()
        sender = call.a.addTrack(track)
        await call.exchange()
        await call.connected()
        (theirs,) = call.b.getTransceivers()
        reports: list[RTCStatsReport] = []

        async def sources() -> list[str]:
            await more_packets(theirs)
            reports.append(await call.a.getStats())
            return [entry["id"] for entry in reports[-1].of_type("media-source")]

        (first,) = await sources()
        assert reports[-1][first]["totalSamplesDuration"] > 0
        await sender.replaceTrack(track)
        assert await sources() == [first], "the same track stays what it is"
        await sender.replaceTrack(None)
        report = await call.a.getStats()
        assert not report.of_type("media-source")
        assert "mediaSourceId" not in report.of_type("outbound-rtp")[0]
        await sender.replaceTrack(track)
        (second,) = await sources()
        assert second != first
        call.a.addTransceiver(track)
        assert second in await sources()
        await call.exchange()
        assert len(await sources()) == 2
        assert {entry["trackIdentifier"] for entry in reports[-1].of_type("media-source")} == {track.id}
        used = [entry["mediaSourceId"] for entry in reports[-1].of_type("outbound-rtp")]
        assert len(set(used)) == 2
        own = await sender.getStats()
        assert [entry["id"] for entry in own.of_type("media-source")] == [second]
        reports += [own, await call.a.getStats()]
        check_counters(reports)
        for report in reports:
            check_references(report)


@clause("8", "data channels: counters and identifiers go on when data is negotiated anew", document=STATS)
async def test_stats_8_data_rejected_and_negotiated_again() -> None:
    """Channels of an association that was rejected stay counted, and new ones have other identifiers."""
    async with wired_pair() as pair:
        pair.a.addTransceiver("audio")
        first, _ = await pair.channel_pair("first")
        reports = [await pair.a.getStats()]
        await offer(pair.a, pair.b)
        await pair.b.setLocalDescription()
        head, _, data = local(pair.b).sdp.partition("m=application ")
        await pair.a.setRemoteDescription(
            {"type": "answer", "sdp": head.replace("BUNDLE 0 1", "BUNDLE 0") + "m=application 0 " + data[2:]}
        )
        while first.readyState != "closed":
            reports.append(await pair.a.getStats())
            await asyncio.sleep(0)
        pair.a.createDataChannel("second")
        reports.append(await pair.a.getStats())
        check_counters(reports)
        for report in reports:
            known = report.of_type("data-channel")
            assert [entry["label"] for entry in known] == ["first", "second"][: len(known)]
        assert [entry["id"] for entry in known] == ["data-channel-1", "data-channel-2"]
        counts = reports[-1]["peer-connection"]
        assert (counts["dataChannelsOpened"], counts["dataChannelsClosed"]) == (1, 1)


@clause("8", "references resolve at every moment of close(), and counters go on", document=STATS)
async def test_stats_8_references_while_closing() -> None:
    """In each turn of the event loop until all is down, and afterwards, each reference has its object."""
    async with wired_pair() as pair:
        pair.a.addTrack(AudioStreamTrack())
        pair.b.addTrack(AudioStreamTrack())
        await pair.channel_pair()
        await pair.media_flows()
        for peer in (pair.a, pair.b):
            reports = [await peer.getStats()]
            closing = peer.close()
            down = asyncio.ensure_future(closing)
            while not down.done():
                reports.append(await peer.getStats())
                await asyncio.sleep(0)
            reports.append(await peer.getStats())
            check_counters(reports)
            for report in reports:
                check_references(report)
            gone = [entry["type"] for id_, entry in reports[0].items() if id_ not in reports[-1]]
            assert gone == ["media-source"], "it ends with its sender; all else can be read to the end"


@clause(
    "8",
    "a candidate that was seen before it was signalled keeps its identifier, and its pairs",
    document=STATS,
)
async def test_stats_8_a_candidate_signalled_late() -> None:
    """What was peer-reflexive becomes what the peer says it is, under the same id, and so do its pairs."""
    async with wired_pair() as pair:
        pair.a.createDataChannel("")
        await pair.a.setLocalDescription()
        offered = without_candidates(pair.a.localDescription)
        assert offered is not None
        await pair.b.setRemoteDescription(offered)
        await pair.b.setLocalDescription()
        await pair.a.setRemoteDescription(local(pair.b))
        pair.candidates[1].open()
        await pair.connected()
        reports = [await pair.b.getStats()]
        assert {entry["candidateType"] for entry in reports[0].of_type("remote-candidate")} == {"prflx"}
        pair.candidates[0].open()
        while {entry["candidateType"] for entry in reports[-1].of_type("remote-candidate")} != {"host"}:
            reports.append(await pair.b.getStats())
            await asyncio.sleep(0.01)
        assert reports[0].keys() <= reports[-1].keys()
        check_counters(reports)
        for report in reports:
            check_references(report)
