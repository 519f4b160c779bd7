"""Which codecs are offered, answered and sent, and changing them in a call (webrtc-pc 5.4, RFC 9429)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from calllab.rtc import (
    AudioStreamTrack,
    InvalidModificationError,
    RTCRtpCodec,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import Log, lines, local, negotiate, offer, peers
from tests.rtc.conformance.test_senders import SmallVideo
from tests.rtc.peers import Pair, more_packets, pair

JSEP = "RFC 9429"


def codecs(kind: str, *names: str) -> list[RTCRtpCodec]:
    """Return the capabilities with these names, in this order."""
    found = RTCRtpReceiver.getCapabilities(kind)
    assert found is not None
    return [codec for name in names for codec in found.codecs if codec.mimeType == f"{kind}/{name}"]


def offered(description: RTCSessionDescription) -> list[str]:
    """Return the names of the codecs of the first section, in the order of its m-line, without rtx."""
    names = dict(line.removeprefix("a=rtpmap:").split() for line in lines(description, "a=rtpmap:"))
    listed = [names[number].split("/")[0] for number in lines(description, "m=")[0].split()[3:]]
    return list(dict.fromkeys(name for name in listed if name != "rtx"))


@clause("5.4", "setCodecPreferences: offers have these codecs, in this order, and no others")
async def test_5_4_preferences_in_offers() -> None:
    """An empty list brings the default back; double entries count once."""
    async with peers(1) as (a,):
        transceiver = a.addTransceiver("audio")
        assert offered(await a.createOffer()) == ["opus", "G722", "PCMU", "PCMA"]
        chosen = codecs("audio", "PCMA", "opus")
        transceiver.setCodecPreferences([*chosen, *chosen])
        assert offered(await a.createOffer()) == ["PCMA", "opus"]
        transceiver.setCodecPreferences([])
        assert offered(await a.createOffer()) == ["opus", "G722", "PCMU", "PCMA"]


@clause("5.4", "setCodecPreferences: answers have the common codecs in our order")
async def test_5_4_preferences_in_answers() -> None:
    """The answerer's preferences order and filter what was offered; both sides then agree."""
    async with peers() as (a, b):
        mine = a.addTransceiver("audio")
        await offer(a, b)
        b.getTransceivers()[0].setCodecPreferences(codecs("audio", "PCMU", "opus"))
        await b.setLocalDescription()
        await a.setRemoteDescription(local(b))
        assert offered(local(b)) == ["PCMU", "opus"]
        assert [codec.mimeType for codec in mine.sender.getParameters()["codecs"]] == [
            "audio/PCMU",
            "audio/opus",
        ]


@clause("5.4", "setCodecPreferences: what is not in the capabilities is an InvalidModificationError")
async def test_5_4_unknown_preferences() -> None:
    """Unknown codecs, changed ones, those of the other kind, and retransmission alone are refused."""
    async with peers(1) as (a,):
        transceiver = a.addTransceiver("video")
        vp8, rtx = codecs("video", "VP8")[0], codecs("video", "rtx")[0]
        for bad in (
            [RTCRtpCodec("video/AV1", 90000)],
            [replace(vp8, clockRate=8000)],
            [replace(vp8, channels=2)],
            [replace(vp8, sdpFmtpLine="x=1")],
            [vp8, RTCRtpCodec("video/VP9", 90000)],
            codecs("audio", "opus"),
            [rtx],
        ):
            with pytest.raises(InvalidModificationError):
                transceiver.setCodecPreferences(bad)
        assert offered(await a.createOffer())[0] == "VP8"


@clause("5.4", "setCodecPreferences: codecs are dictionaries, and wrong types are TypeErrors")
async def test_5_4_forms_of_preferences() -> None:
    """Mappings are taken like RTCRtpCodec; what is no codec, or lacks a member that is required, is not."""
    async with peers(1) as (a,):
        transceiver = a.addTransceiver("audio")
        transceiver.setCodecPreferences(
            [{"mimeType": "audio/PCMU", "clockRate": 8000, "channels": 1}, *codecs("audio", "opus")]
        )
        assert offered(await a.createOffer()) == ["PCMU", "opus"]
        bad: Any
        for bad in (
            None,
            "audio/PCMU",
            ["audio/PCMU"],
            [None],
            [{"mimeType": "audio/PCMU"}],
            [{"clockRate": 8000}],
            [{"mimeType": 5, "clockRate": 8000}],
        ):
            with pytest.raises(TypeError, match="codec"):
                transceiver.setCodecPreferences(bad)
        assert offered(await a.createOffer()) == ["PCMU", "opus"]


@clause("5.4", "setCodecPreferences: retransmission can be left out")
async def test_5_4_preferences_without_rtx() -> None:
    """Without rtx among the preferences there is none in the offer, and no second SSRC."""
    async with peers(1) as (a,):
        transceiver = a.addTransceiver("video")
        transceiver.setCodecPreferences(codecs("video", "VP8"))
        made = await a.createOffer()
        assert "rtx" not in made.sdp
        assert "FID" not in made.sdp
        transceiver.setCodecPreferences(codecs("video", "VP8", "rtx"))
        assert "rtx/90000" in (await a.createOffer()).sdp


@clause("5.4", "setCodecPreferences needs no negotiation and works in every state")
async def test_5_4_preferences_fire_nothing() -> None:
    """They may be set on a stopped transceiver, too, where they mean nothing."""
    async with peers() as (a, b):
        transceiver = a.addTransceiver("audio")
        await negotiate(a, b)
        log = Log().watch(a, "negotiationneeded")
        transceiver.setCodecPreferences(codecs("audio", "PCMU"))
        assert await log.settled() == []
        transceiver.stop()
        transceiver.setCodecPreferences([])


@clause("5.2.2", "a later offer has what is agreed on first, and all else again", document=JSEP)
async def test_9429_5_2_2_later_offers_have_all_codecs() -> None:
    """What the answer left out is offered again, behind what it kept, under the same numbers."""
    async with peers() as (a, b):
        a.addTransceiver("audio")
        before = lines(await a.createOffer(), "a=rtpmap:")
        await offer(a, b)
        b.getTransceivers()[0].setCodecPreferences(codecs("audio", "PCMA", "opus"))
        await b.setLocalDescription()
        await a.setRemoteDescription(local(b))
        made = await a.createOffer()
        assert offered(made) == ["PCMA", "opus", "G722", "PCMU"]
        assert sorted(lines(made, "a=rtpmap:")) == sorted(before)


@clause("5.2.2", "payload types keep their meaning for the whole session", document=JSEP)
async def test_9429_5_2_2_numbers_stay() -> None:
    """Whatever is preferred later, each payload type stays with its codec on both sides."""
    async with peers() as (a, b):
        a.addTransceiver("video")
        a.addTransceiver("video")
        seen: set[str] = set()
        for names in (("VP8", "rtx"), ("H264",), ("H264", "VP8", "rtx")):
            for transceiver in a.getTransceivers()[:1]:
                transceiver.setCodecPreferences(codecs("video", *names))
            await negotiate(a, b)
            await negotiate(b, a)
            for peer in (a, b):
                seen |= {line for line in lines(local(peer), "a=rtpmap:") if "rtx" not in line}
        numbers = [line.split()[0] for line in seen]
        assert len(numbers) == len(set(numbers))


async def flowing(call: Pair, transceiver: RTCRtpTransceiver, mime_type: str) -> None:
    """Wait until a transceiver receives packets of a codec, and its track gives frames of them."""
    async with asyncio.timeout(10):
        while True:
            report = await transceiver.receiver.getStats()
            found = [e for e in report.values() if e["type"] == "inbound-rtp"]
            if found and report.get(found[0].get("codecId", ""), {}).get("mimeType") == mime_type:
                break
            await asyncio.sleep(0.02)
        await more_packets(transceiver)
        before = await decoded(transceiver)
        while await decoded(transceiver) <= before + 3:
            await transceiver.receiver.track.recv()


async def decoded(transceiver: RTCRtpTransceiver) -> int:
    """Return how many frames, or samples, were decoded."""
    report = await transceiver.receiver.getStats()
    (entry,) = [e for e in report.values() if e["type"] == "inbound-rtp"]
    return int(entry.get("framesDecoded", entry.get("totalSamplesReceived", 0)))


@pytest.mark.parametrize(
    ("kind", "first", "second"), [("video", "VP8", "H264"), ("audio", "opus", "PCMU")], ids=["video", "audio"]
)
@clause("5.4", "setCodecPreferences: in a call the next negotiation changes what is sent")
async def test_5_4_changing_the_codec_in_a_call(kind: str, first: str, second: str) -> None:
    """The sender changes its codec and back, over the same SSRC, and the other side decodes both."""
    async with pair() as call:
        track: Any = SmallVideo() if kind == "video" else AudioStreamTrack()
        sender: RTCRtpSender = call.a.addTrack(track)
        sender.transceiver.setCodecPreferences(codecs(kind, first))
        await call.exchange()
        await call.connected()
        (theirs,) = call.b.getTransceivers()
        ssrcs = set()
        for name in (first, second, first):
            sender.transceiver.setCodecPreferences(codecs(kind, name))
            await negotiate(call.a, call.b)
            await flowing(call, theirs, f"{kind}/{name}")
            assert sender.getParameters()["codecs"][0].mimeType == f"{kind}/{name}"
            (source, *_) = theirs.receiver.getSynchronizationSources()
            ssrcs.add(source["source"])
        assert len(ssrcs) == 1
