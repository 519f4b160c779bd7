"""Counters and identifiers of statistics over the life of what they stand for (webrtc-stats)."""

from __future__ import annotations

from calllab.rtc import AudioStreamTrack, RTCStatsReport
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.reports import check_counters
from tests.rtc.conformance.steps import negotiate
from tests.rtc.conformance.test_codecs import codecs, flowing
from tests.rtc.peers import pair

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
