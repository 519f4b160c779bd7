from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any

import pytest

from calllab._aiortc import SctpTransport
from calllab.rtc.statistics import MediaStats, RTCStatsReport, build_report, report_for
from tests._aiortc.helpers import Call, Peer, call, picture, tone, until
from tests._aiortc.test_media import Paced, grey, read, sound
from tests._aiortc.test_relay import account, turn_server

STREAM = "ssrc kind transportId codecId "
MANDATORY = {
    "codec": "payloadType mimeType clockRate channels sdpFmtpLine",
    "inbound-rtp": STREAM
    + "packetsReceived packetsLost jitter trackIdentifier remoteId framesDecoded framesDropped "
    "nackCount framesReceived bytesReceived totalAudioEnergy totalSamplesDuration packetsDiscarded",
    "outbound-rtp": STREAM + "packetsSent bytesSent remoteId framesEncoded nackCount framesSent",
    "remote-inbound-rtp": STREAM + "packetsReceived packetsLost jitter localId roundTripTime",
    "remote-outbound-rtp": STREAM + "packetsSent bytesSent localId remoteTimestamp",
    "media-source": "trackIdentifier kind totalAudioEnergy totalSamplesDuration width height framesPerSecond",
    "peer-connection": "dataChannelsOpened dataChannelsClosed",
    "data-channel": "label protocol dataChannelIdentifier state "
    "messagesSent bytesSent messagesReceived bytesReceived",
    "transport": "bytesSent bytesReceived selectedCandidatePairId localCertificateId remoteCertificateId",
    "candidate-pair": "transportId localCandidateId remoteCandidateId state nominated bytesSent "
    "bytesReceived totalRoundTripTime responsesReceived currentRoundTripTime",
    "local-candidate": "address port protocol candidateType url",
    "remote-candidate": "address port protocol candidateType url",
    "certificate": "fingerprint fingerprintAlgorithm base64Certificate issuerCertificateId",
}
"""The mandatory-to-implement statistics of webrtc-pc section 8.6: 95 members."""

UNDEFINED = {
    ("remote-candidate", "url"),  # webrtc-stats: only for local candidates
    ("certificate", "issuerCertificateId"),  # a self-signed certificate has no other issuer
}


def report_of(peer: Peer, ice: Any, **options: Any) -> RTCStatsReport:
    """Build a peer's report."""
    mids = sorted(peer.senders.keys() | peer.receivers.keys())
    media = [MediaStats(mid, peer.senders.get(mid), peer.receivers.get(mid)) for mid in mids]
    return build_report(
        ice=ice, dtls=peer.dtls, media=media, channels=peer.sctp.ledger if peer.sctp else None, **options
    )


def alice(c: Call, **options: Any) -> RTCStatsReport:
    return report_of(c.alice, c.ice.alice.ice, **options)


def bob(c: Call, **options: Any) -> RTCStatsReport:
    return report_of(c.bob, c.ice.bob.ice, **options)


def only(entries: Iterable[dict[str, Any]], **members: Any) -> dict[str, Any]:
    """Return the one entry that has these members."""
    (found,) = [e for e in entries if all(e.get(name) == value for name, value in members.items())]
    return found


async def open_channel(c: Call) -> None:
    """Send one message of five characters each way over a channel."""
    heard: list[Any] = []
    for peer in (c.alice, c.bob):
        peer.sctp = SctpTransport(peer.dtls)
    assert c.alice.sctp is not None
    assert c.bob.sctp is not None

    def adopt(channel: Any) -> None:
        channel.on_message = lambda data: (heard.append(data), channel.send(data))

    c.bob.sctp.on_data_channel = adopt
    channel = c.alice.sctp.create_channel("chat", protocol="text")
    channel.on_open = lambda: channel.send("häll\N{GRINNING FACE}")
    channel.on_message = heard.append
    await asyncio.gather(c.alice.sctp.start(5000, 65536), c.bob.sctp.start(5000, 65536))
    await until(lambda: len(heard) == 2)


async def test_every_mandatory_member_that_exists_is_there() -> None:
    """93 of the 95 members of webrtc-pc 8.6; the other two are undefined for these objects."""
    async with turn_server() as server, call(servers=[account(server)]) as c:
        await open_channel(c)
        for here, there in ((c.alice, c.bob), (c.bob, c.alice)):
            await c.send_media(here, there, tone())
            await c.send_media(here, there, picture())
        await until(lambda: len(alice(c).of_type("remote-inbound-rtp")) == 2)
        await until(lambda: len(alice(c).of_type("remote-outbound-rtp")) == 2)
        await until(lambda: any("roundTripTime" in e for e in alice(c).of_type("remote-inbound-rtp")))
        await until(lambda: any("currentRoundTripTime" in e for e in alice(c).of_type("candidate-pair")))
        report = alice(c)
        wanted = {(type_, name) for type_, names in MANDATORY.items() for name in names.split()}
        assert len(wanted) == 95
        there = {(entry["type"], name) for entry in report.values() for name in entry}
        assert wanted - there == UNDEFINED
        for id_, entry in report.items():
            assert entry["id"] == id_
            assert not any(value is None for value in entry.values())
            for name, value in entry.items():
                if name.endswith("Id") and name != "dataChannelIdentifier":
                    assert value in report, f"{id_}.{name} leads nowhere"
        channel = only(report.of_type("data-channel"))
        assert (channel["messagesSent"], channel["bytesSent"], channel["bytesReceived"]) == (1, 9, 9)
        assert only(report.of_type("peer-connection"))["dataChannelsOpened"] == 1


async def test_both_ends_of_a_clean_stream_agree() -> None:
    """What one side sent is what the other received: packets, payload and header bytes, frames, SSRCs."""
    async with call() as c:
        await c.send_media(c.alice, c.bob, Paced("video", grey(320, 240), 30))
        await c.send_media(c.alice, c.bob, Paced("audio", sound(48000, 960, "stereo")))
        await until(lambda: c.alice.senders["video"].statistics().frames_sent >= 20)
        for sender in c.alice.senders.values():
            sender.set_active(False)
        await asyncio.sleep(0.1)
        before, received = alice(c), bob(c)
        for kind in ("audio", "video"):
            out = only(before.of_type("outbound-rtp"), kind=kind)
            into = only(received.of_type("inbound-rtp"), kind=kind)
            assert out["ssrc"] == into["ssrc"]
            assert out["packetsSent"] == into["packetsReceived"] > 0
            assert out["bytesSent"] == into["bytesReceived"]
            assert out["headerBytesSent"] == into["headerBytesReceived"]
            assert into["packetsLost"] == into["packetsDiscarded"] == 0
            assert into["trackIdentifier"] == c.bob.receivers[kind].track.id
            assert 0 <= into["jitter"] < 0.1
            assert 0 < into["jitterBufferDelay"] / into["jitterBufferEmittedCount"] < 0.3
            assert abs(received[into["id"]]["lastPacketReceivedTimestamp"] - into["timestamp"]) < 2000
        out = only(before.of_type("outbound-rtp"), kind="video")
        into = only(received.of_type("inbound-rtp"), kind="video")
        assert out["framesSent"] == into["framesReceived"] == into["framesDecoded"] == out["framesEncoded"]
        assert into["framesDropped"] == 0
        assert (into["frameWidth"], into["frameHeight"]) == (320, 240)
        assert out["keyFramesEncoded"] >= into["keyFramesDecoded"] >= 1
        assert 0 < into["totalDecodeTime"] < 5
        assert 0 < out["totalEncodeTime"] < 5
        source = only(before.of_type("media-source"), kind="video")
        assert (source["width"], source["height"]) == (320, 240)
        sounds = only(before.of_type("media-source"), kind="audio")
        heard = only(received.of_type("inbound-rtp"), kind="audio")
        # A sine of a quarter of full scale has 1/32 of the energy of full scale; Opus keeps it about.
        assert sounds["totalAudioEnergy"] / sounds["totalSamplesDuration"] == pytest.approx(0.0298, rel=0.02)
        assert heard["totalAudioEnergy"] / heard["totalSamplesDuration"] == pytest.approx(0.0298, rel=0.3)


async def test_the_transport_counts_what_the_pair_carries() -> None:
    """The selected pair's bytes are those of the transport; both agree with what left the sockets."""
    async with call() as c:
        await c.send_media(c.alice, c.bob, tone())
        await read(c.bob.receivers["audio"].track, 5)
        report = alice(c)
        transport = report["transport"]
        pair = report[transport["selectedCandidatePairId"]]
        assert transport["bytesSent"] == pair["bytesSent"]
        assert transport["packetsSent"] == pair["packetsSent"]
        assert (pair["state"], pair["nominated"]) == ("succeeded", True)
        assert transport["packetsSent"] + pair["requestsSent"] <= c.ice.alice.wire.sent
        assert pair["requestsSent"] >= pair["responsesReceived"] >= 1
        assert 0 < pair["currentRoundTripTime"] < 0.5
        assert transport["iceState"] == "completed"
        assert (transport["dtlsState"], transport["dtlsRole"]) == ("connected", "server")
        local, remote = (report[transport[f"{side}CertificateId"]] for side in ("local", "remote"))
        assert local["fingerprint"] == c.alice.dtls.fingerprints[0].value
        assert remote["fingerprint"] == c.bob.dtls.fingerprints[0].value


async def test_reading_changes_nothing() -> None:
    """A peer that is read a hundred times a second reports the same loss as one that is not."""
    async with call() as c:
        entropy = random.Random(3)
        c.ice.alice.wire.drop = lambda data: 127 < data[0] < 192 and entropy.random() < 0.3
        await c.send_media(c.alice, c.bob, Paced("audio", sound(48000, 960)))
        fractions = set()

        def reported() -> bool:
            bob(c)
            for entry in alice(c).of_type("remote-inbound-rtp"):
                fractions.add(entry["fractionLost"])
                assert 0 <= entry["fractionLost"] <= 1
            return len(fractions) >= 2

        await until(reported)
        assert max(fractions) > 0.05
        first, second = bob(c, timestamp_ms=1.0), bob(c, timestamp_ms=1.0)
        assert first == second or first.keys() == second.keys()


async def test_loss_has_one_inbound_entry_with_retransmissions_folded_in() -> None:
    """One inbound-rtp for the media SSRC; retransmissions are part of its packets, not of its loss."""
    async with call() as c:
        entropy = random.Random(4)
        c.ice.alice.wire.drop = lambda data: 127 < data[0] < 192 and entropy.random() < 0.10
        await c.send_media(c.alice, c.bob, Paced("video", grey(320, 240), 60))
        await until(lambda: c.alice.senders["video"].statistics().frames_sent >= 100)
        await until(lambda: bool(alice(c).of_type("remote-inbound-rtp")))
        into, out = only(bob(c).of_type("inbound-rtp")), only(alice(c).of_type("outbound-rtp"))
        assert into["ssrc"] == out["ssrc"]
        assert into["rtxSsrc"] == out["rtxSsrc"] != into["ssrc"]
        assert out["retransmittedPacketsSent"] >= into["retransmittedPacketsReceived"] > 0
        assert out["packetsSent"] - out["retransmittedPacketsSent"] >= (
            into["packetsReceived"] - into["retransmittedPacketsReceived"]
        )
        assert 0.02 < into["packetsLost"] / out["packetsSent"] < 0.25
        assert into["nackCount"] >= out["nackCount"] > 0
        remote = only(alice(c).of_type("remote-inbound-rtp"))
        assert remote["ssrc"] == out["ssrc"], "the stream that is reported on, not the reporter"
        assert remote["localId"] == out["id"]
        assert out["remoteId"] == remote["id"]


async def test_identifiers_last() -> None:
    """The same objects have the same identifiers in every report."""
    async with call() as c:
        await c.send_media(c.alice, c.bob, tone())
        await c.send_media(c.alice, c.bob, picture())
        await read(c.bob.receivers["video"].track, 2)
        first = set(bob(c))
        await read(c.bob.receivers["video"].track, 5)
        assert first <= set(bob(c))


async def test_the_selection_follows_the_references() -> None:
    """getStats(selector): one sender's stream and all that it refers to, nothing of the others."""
    async with call() as c:
        await c.send_media(c.alice, c.bob, tone())
        await c.send_media(c.alice, c.bob, picture())
        await c.send_media(c.bob, c.alice, tone())
        await read(c.alice.receivers["audio"].track, 2)
        await read(c.bob.receivers["video"].track, 2)
        report = alice(c)
        selected = report_for(report, sender=c.alice.senders["video"])
        assert {e["kind"] for e in selected.of_type("outbound-rtp")} == {"video"}
        assert not selected.of_type("inbound-rtp")
        assert selected.of_type("transport")
        assert selected.of_type("candidate-pair")
        assert selected.of_type("certificate")
        assert selected.of_type("media-source")
        received = report_for(report, receiver=c.alice.receivers["audio"])
        assert [e["kind"] for e in received.of_type("inbound-rtp")] == ["audio"]
        assert not received.of_type("outbound-rtp")


async def test_a_report_before_and_after_the_connection() -> None:
    """Nothing but what exists is reported: no stream before negotiation; after close the counters remain."""
    async with call() as c:
        early = alice(c)
        assert not early.of_type("outbound-rtp")
        assert not early.of_type("inbound-rtp")
        assert early["transport"]["dtlsState"] == "connected"
        await c.send_media(c.alice, c.bob, tone())
        await read(c.bob.receivers["audio"].track, 3)
    late = bob(c)
    assert late["transport"]["dtlsState"] == "closed"
    assert late["transport"]["iceState"] == "closed"
    assert only(late.of_type("inbound-rtp"))["packetsReceived"] > 0
