"""Statistics of whole connections (webrtc-pc section 8, webrtc-stats)."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

from calllab.rtc import (
    AudioStreamTrack,
    InvalidAccessError,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCStatsReport,
    VideoStreamTrack,
)
from tests._aiortc.helpers import Wire
from tests._aiortc.test_relay import account, turn_server
from tests.rtc.conformance.channels import WiredPair, inbox_of, pair_with, wired_pair
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.reports import check_counters, check_references
from tests.rtc.peers import until
from tests.rtc.test_statistics import MANDATORY, UNDEFINED

PAGE: Final = Path(__file__).parents[3] / "docs" / "statistics.md"
GENERIC: Final = {"id", "type", "timestamp"}
REAL: Final = {
    "jitter", "jitterBufferDelay", "lastPacketReceivedTimestamp", "lastPacketSentTimestamp", "audioLevel",
    "totalAudioEnergy",
    "totalSamplesDuration", "framesPerSecond", "totalDecodeTime", "totalEncodeTime",
    "totalInterFrameDelay", "totalSquaredInterFrameDelay", "totalFreezesDuration", "fractionLost",
    "roundTripTime", "totalRoundTripTime", "remoteTimestamp", "currentRoundTripTime", "timestamp",
}  # fmt: skip
TEXT: Final = {
    "id", "type", "kind", "mid", "transportId", "codecId", "trackIdentifier", "remoteId", "localId",
    "mediaSourceId", "mimeType", "sdpFmtpLine", "label", "protocol", "state", "iceRole", "iceState",
    "dtlsState", "dtlsRole", "tlsVersion", "dtlsCipher", "srtpCipher", "iceLocalUsernameFragment",
    "selectedCandidatePairId", "localCertificateId", "remoteCertificateId", "localCandidateId",
    "remoteCandidateId", "address", "candidateType", "foundation", "relatedAddress", "usernameFragment",
    "url", "relayProtocol", "fingerprint", "fingerprintAlgorithm", "base64Certificate",
}  # fmt: skip
TRUTH: Final = {"active", "nominated"}


async def media_of(pair: WiredPair, *, h264: bool = False) -> None:
    """Let both send audio and video, with a channel between them, and connect."""
    for peer in (pair.a, pair.b):
        peer.addTrack(AudioStreamTrack())
        peer.addTrack(VideoStreamTrack())
        if h264:
            codecs = RTCRtpSender.getCapabilities("video").codecs  # type: ignore[union-attr]
            peer.getTransceivers()[1].setCodecPreferences([c for c in codecs if c.mimeType != "video/VP8"])
    here, there = await pair.channel_pair("chat")
    there.on("message", there.send)
    here.send("hello")


def members_of(*reports: RTCStatsReport) -> dict[str, set[str]]:
    """Return the members of each type that the reports hold."""
    found: dict[str, set[str]] = defaultdict(set)
    for report in reports:
        for entry in report.values():
            found[entry["type"]] |= entry.keys() - GENERIC
    return found


def documented() -> dict[str, set[str]]:
    """Return the members of each type that the page lists, up to what is not there."""
    found: dict[str, set[str]] = {}
    for part in PAGE.read_text().split("# What is not there")[0].split("\n## ")[1:]:
        rows = [line for line in part.splitlines() if line.startswith("| `")]
        found[part.splitlines()[0]] = {row.split("`")[1] for row in rows}
    return found


def absent() -> set[tuple[str, str]]:
    """Return the members that the page says are absent."""
    found: set[tuple[str, str]] = set()
    for line in PAGE.read_text().split("# What is not there")[1].splitlines():
        if line.startswith("| ") and "`" in line:
            cell = line.split("|")[1]
            for part in cell.split(" and outbound-rtp") if " and outbound-rtp" in cell else [cell]:
                type_ = part.split()[0].strip("`")
                found |= {(type_, name) for name in part.split("`")[1::2]}
    return found


@clause("8.6", "mandatory to implement statistics: 93 of 95 members, and two that do not exist here")
@clause(
    "8", "every member has the type and unit that it should, and references resolve", document="webrtc-stats"
)
async def test_8_6_all_members_of_a_real_call() -> None:
    """In a call over a relay, with loss: all members, their types and ranges, and docs/statistics.md."""
    async with turn_server() as server:
        known = account(server)
        relay = RTCIceServer(known.urls[0], known.username, known.credential)
        entropy = random.Random(5)
        wires = Wire(), Wire()
        a = RTCPeerConnection(RTCConfiguration(iceServers=[relay]), interface=wires[0])
        async with pair_with(a, RTCPeerConnection(interface=wires[1])) as pair:
            await media_of(pair, h264=True)  # the one codec here that has parameters
            for wire in wires:
                wire.drop = lambda data: 127 < data[0] < 192 and entropy.random() < 0.05
            wanted = {
                (type_, name) for type_, names in MANDATORY.items() for name in names.split()
            } - UNDEFINED
            listed = {(type_, name) for type_, names in documented().items() for name in names}
            there: set[tuple[str, str]] = set()
            began = time.monotonic()
            while not listed <= there:
                assert time.monotonic() < began + 15, f"never seen: {sorted(listed - there)}"
                reports = [await peer.getStats() for peer in (pair.a, pair.b)]
                there |= {(t, n) for t, names in members_of(*reports).items() for n in names}
                await asyncio.sleep(0.1)
            assert wanted <= there
            assert there - listed == set(), "members that docs/statistics.md does not know"
            assert there & absent() == set()
            assert len(wanted) == 93
            for report in reports:
                check_values(report)
                check_references(report)
                inbound = report.of_type("inbound-rtp")
                assert [entry["kind"] for entry in inbound] == ["audio", "video"]
                assert len({entry["ssrc"] for entry in inbound}) == 2


def check_values(report: RTCStatsReport) -> None:
    """Each value has the type of its member and lies where it can."""
    now_ms = time.time() * 1000
    for entry in report.values():
        assert abs(entry["timestamp"] - now_ms) < 10_000
        for name, value in entry.items():
            where = f"{entry['type']}.{name}"
            if name in TEXT:
                assert isinstance(value, str), where
            elif name in TRUTH:
                assert isinstance(value, bool), where
            elif name in REAL:
                assert isinstance(value, float), where
                assert value >= 0, where
            else:
                assert type(value) is int, where
                assert value >= 0 or name == "packetsLost", where
    for entry in [*report.of_type("inbound-rtp"), *report.of_type("remote-inbound-rtp")]:
        assert entry["jitter"] < 1, "seconds, not clock ticks"
        assert 0 <= entry.get("fractionLost", 0) <= 1
    for entry in report.of_type("remote-inbound-rtp"):
        assert entry.get("roundTripTime", 0) < 1
    for entry in report.of_type("inbound-rtp"):
        if entry["kind"] == "video":
            assert entry["framesDecoded"] <= entry["framesReceived"]
            assert entry["keyFramesDecoded"] >= 1
            assert entry["bytesReceived"] > entry["framesDecoded"]
        else:
            assert entry["totalSamplesReceived"] == pytest.approx(
                entry["totalSamplesDuration"] * 48000, rel=0.01
            )
            assert entry["audioLevel"] <= 1
        assert entry["jitterBufferDelay"] <= 1.2 * entry["jitterBufferEmittedCount"]
    for entry in report.of_type("candidate-pair"):
        assert entry["requestsSent"] >= entry["responsesReceived"]
        assert entry["requestsSent"] >= entry["consentRequestsSent"]


@clause("8.5", "identifiers last, counters never fall, over an ICE restart too")
async def test_8_5_counters_and_identifiers_over_a_restart() -> None:
    """What does not belong to an ICE generation keeps its id and goes on counting when ICE restarts."""
    async with wired_pair() as pair:
        await media_of(pair)
        reports: list[RTCStatsReport] = []

        async def sample(seconds: float) -> None:
            for _ in range(round(seconds / 0.1)):
                reports.append(await pair.a.getStats())
                await asyncio.sleep(0.1)

        await sample(1.2)
        pair.a.restartIce()
        await pair.exchange()
        await sample(1.2)
        for before, after in pairwise(reports):
            for id_, entry in before.items():
                if entry["type"] not in ("candidate-pair", "local-candidate", "remote-candidate"):
                    assert id_ in after, f"{id_} has vanished"
        check_counters(reports)
        first, last = reports[0], reports[-1]
        assert first["transport"]["selectedCandidatePairId"] != last["transport"]["selectedCandidatePairId"]
        changes = "selectedCandidatePairChanges"
        assert last["transport"][changes] > first["transport"][changes]
        assert last["transport"]["bytesSent"] > first["transport"]["bytesSent"]
        check_references(last)


@clause("8", "candidate pairs stay in the report after one is nominated", document="webrtc-stats")
async def test_8_5_pairs_stay_after_nomination() -> None:
    """Every pair of both peers' candidates is reported, the selected one as nominated."""
    async with wired_pair() as pair:
        await pair.channel_pair()
        ice = pair.a.sctp.transport.iceTransport  # type: ignore[union-attr]
        await until(lambda: ice.state == "completed", "the end of the checks")
        report = await pair.a.getStats()
        pairs = report.of_type("candidate-pair")
        families = [
            (local, remote)
            for local in ice.getLocalCandidates()
            for remote in ice.getRemoteCandidates()
            if (":" in str(local.address)) == (":" in str(remote.address))
        ]
        assert len(pairs) >= len(families) > 1
        # Checks of two pairs that cross may nominate both (RFC 8445 section 8.1.1); one is selected.
        nominated = [entry for entry in pairs if entry["nominated"]]
        assert {entry["state"] for entry in nominated} == {"succeeded"}
        assert report["transport"]["selectedCandidatePairId"] in [entry["id"] for entry in nominated]


@clause("8", "round trips are measured by consent checks without any media", document="webrtc-stats")
async def test_8_5_a_connection_with_data_only() -> None:
    """A report of a data-only connection has all its types, and its round trip time goes on."""
    async with wired_pair() as pair:
        here, there = await pair.channel_pair("only")
        here.send("é")
        there.close()
        await until(lambda: here.readyState == "closed", "the channel closed")

        async def selected() -> dict[str, Any]:
            report = await pair.a.getStats()
            return report[report["transport"]["selectedCandidatePairId"]]

        report = await pair.a.getStats()
        assert {entry["type"] for entry in report.values()} == {
            "transport", "certificate", "candidate-pair", "local-candidate", "remote-candidate",
            "data-channel", "peer-connection",
        }  # fmt: skip
        (channel,) = report.of_type("data-channel")
        assert (channel["state"], channel["messagesSent"], channel["bytesSent"]) == ("closed", 1, 2)
        counts = report["peer-connection"]
        assert (counts["dataChannelsOpened"], counts["dataChannelsClosed"]) == (1, 1)
        before = await selected()
        async with asyncio.timeout(6):
            while (after := await selected())["responsesReceived"] < before["responsesReceived"] + 2:
                await asyncio.sleep(0.05)
        assert after["consentRequestsSent"] > before["consentRequestsSent"]
        assert after["totalRoundTripTime"] > before["totalRoundTripTime"]
        assert 0 < after["currentRoundTripTime"] < 0.5


@clause(
    "8", "candidate-pair: when the latest packet was sent and received, checks apart", document="webrtc-stats"
)
async def test_8_5_when_a_pair_was_last_used() -> None:
    """The times stand still through consent checks, move with data, and are absent before any packet."""
    async with wired_pair() as pair:
        here, there = await pair.channel_pair()
        heard = inbox_of(there)

        async def used() -> dict[str, Any]:
            report = await pair.a.getStats()
            for entry in report.of_type("candidate-pair"):
                for way in ("Sent", "Received"):
                    assert (f"lastPacket{way}Timestamp" in entry) == (entry[f"packets{way}"] > 0)
            return report[report["transport"]["selectedCandidatePairId"]]

        def idle(entry: dict[str, Any]) -> tuple[Any, ...]:
            return tuple(entry.get(f"lastPacket{way}Timestamp") for way in ("Sent", "Received"))

        before = await used()
        async with asyncio.timeout(8):
            while True:
                await asyncio.sleep(0.1)
                after = await used()
                packets = [after[f"packets{way}"] - before[f"packets{way}"] for way in ("Sent", "Received")]
                if packets != [0, 0]:
                    before = after  # the association is still settling
                elif after["responsesReceived"] > before["responsesReceived"]:
                    break
        assert idle(after) == idle(before)
        sent_at_ms = time.time() * 1000
        here.send("now")
        await until(lambda: heard == ["now"], "the message")
        await until(lambda: here.bufferedAmount == 0, "nothing left to send")
        last = await used()
        assert sent_at_ms <= last["lastPacketSentTimestamp"] <= last["timestamp"]
        # Two pairs may be nominated, if their checks crossed: the peer may use the other one.
        pairs = (await pair.a.getStats()).of_type("candidate-pair")
        received_ms = max(entry.get("lastPacketReceivedTimestamp", 0.0) for entry in pairs)
        assert 0 < after.get("lastPacketReceivedTimestamp", 0.1) <= received_ms


@clause("8.5", "dataChannelsClosed counts channels that left the open state, and no others")
async def test_8_5_opened_and_closed_channels() -> None:
    """A channel that never opened counts nowhere; one that is closing is not open any more."""
    async with wired_pair() as pair:
        never = pair.a.createDataChannel("never")
        never.close()
        here, _ = await pair.channel_pair("once")
        stays, _ = await pair.channel_pair("stays")
        here.close()
        report = await pair.a.getStats()
        counts = report["peer-connection"]
        assert (counts["dataChannelsOpened"], counts["dataChannelsClosed"]) == (2, 1)
        assert stays.readyState == "open"
        await until(lambda: never.readyState == here.readyState == "closed", "both closed")
        states = [entry["state"] for entry in (await pair.a.getStats()).of_type("data-channel")]
        assert states == ["closed", "closed", "open"]


@clause("8.3", "getStats(selector): the sender or receiver of a track, and what it refers to")
@clause("8.3", "getStats(selector): a track of no one, or of more than one, is an InvalidAccessError")
async def test_8_3_selectors() -> None:
    """A track selects its sender's or receiver's objects, as their own getStats() do; errors by name."""
    async with wired_pair() as pair:
        audio, video = AudioStreamTrack(), VideoStreamTrack()
        pair.a.addTrack(audio)
        sender = pair.a.addTrack(video)
        pair.b.addTrack(AudioStreamTrack())
        assert len(await pair.a.getStats(audio)) == 0, "nothing is sent before it is negotiated"
        await pair.exchange()
        await pair.connected()
        await pair.media_flows()
        report = await pair.a.getStats(video)
        (outbound,) = report.of_type("outbound-rtp")
        assert outbound["kind"] == "video"
        assert report.keys() == (await sender.getStats()).keys()
        assert {"transport", "codec", "media-source", "candidate-pair", "certificate"} <= {
            entry["type"] for entry in report.values()
        }
        assert not report.of_type("inbound-rtp")
        check_references(report)
        receiver = pair.a.getReceivers()[0]
        received = await pair.a.getStats(receiver.track)
        assert [entry["kind"] for entry in received.of_type("inbound-rtp")] == ["audio"]
        assert not received.of_type("outbound-rtp")
        assert received.keys() == (await receiver.getStats()).keys()
        assert not (await pair.a.getReceivers()[1].getStats()).of_type("inbound-rtp")
        with pytest.raises(InvalidAccessError, match="0 senders"):
            await pair.a.getStats(AudioStreamTrack())
        await pair.a.getSenders()[1].replaceTrack(None)
        pair.a.addTransceiver(audio)
        with pytest.raises(InvalidAccessError, match="2 senders"):
            await pair.a.getStats(audio)
        with pytest.raises(TypeError):
            await pair.a.getStats("audio")  # type: ignore[arg-type]


@clause("4.4.2", "getStats works on a connection that is closed")
async def test_4_4_2_statistics_after_close() -> None:
    """The last counters can still be read when everything is down."""
    async with wired_pair() as pair:
        pair.a.addTrack(AudioStreamTrack())
        await pair.exchange()
        await pair.connected()
        await pair.media_flows()
        before = await pair.b.getStats()
        await pair.b.close()
        after = await pair.b.getStats()
        (heard,) = before.of_type("inbound-rtp")
        assert after[heard["id"]]["packetsReceived"] >= heard["packetsReceived"]
        assert after["transport"]["iceState"] == after["transport"]["dtlsState"] == "closed"
