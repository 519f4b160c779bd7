"""Session descriptions altered on their way: what exactly, when, and for whom."""

from __future__ import annotations

import asyncio
import math
import re

import pytest

from calllab.lab.middlebox import Alteration, SdpAlteration, SdpMiddlebox, altered
from calllab.signaling import ChannelState, MemoryHub

SDP = (
    "v=0\r\na=fingerprint:sha-256 00:FF:A5\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\n"
    "a=fingerprint:sha-256 01:02\r\n"
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\n"
)


def test_fingerprints_are_those_of_nobody() -> None:
    """Each octet is another one; all else stays."""
    changed = altered(SDP, "fingerprint")
    assert re.findall(r"sha-256 (\S+)", changed) == ["FF:00:5A", "FE:FD"]
    assert altered(changed, "fingerprint") == SDP


def test_codecs_are_unknown_in_the_sections_that_are_meant() -> None:
    """The names of the codecs change, their payload types and rates do not."""
    changed = altered(SDP, "codecs", "video")
    assert re.findall(r"a=rtpmap:(\S+ \S+)", changed) == [
        "111 opus/48000/2",
        "96 x-unknown/90000",
        "97 x-unknown/90000",
    ]
    assert "opus" not in altered(SDP, "codecs")


def test_sections_change_places() -> None:
    """Several are reversed; a single one gets another kind."""
    changed = altered(SDP, "m-lines")
    assert re.findall(r"m=(\w+)", changed) == ["video", "audio"]
    assert sorted(changed.splitlines()) == sorted(SDP.splitlines())
    single = SDP[: SDP.index("m=video")]
    assert re.findall(r"m=(\w+)", altered(single, "m-lines")) == ["video"]


@pytest.mark.parametrize("what", ["fingerprint", "codecs", "m-lines"])
def test_a_description_without_what_is_altered_stays(what: Alteration) -> None:
    """Nothing is added to what has no fingerprint, codec or section."""
    assert altered("v=0\r\ns=-\r\n", what) == "v=0\r\ns=-\r\n"


async def test_only_descriptions_to_the_one_at_the_time_are_altered() -> None:
    """Other recipients, other messages and other times pass untouched; everything else is the channel's."""
    hub = MemoryHub()
    now = asyncio.get_running_loop().time()
    plan = [
        SdpAlteration("bob", "codecs", None, now, math.inf),
        SdpAlteration("bob", "m-lines", None, 0, now),
    ]
    async with (
        SdpMiddlebox(hub.connect("alice"), plan) as alice,
        hub.connect("bob") as bob,
        hub.connect("eve") as eve,
    ):
        assert (alice.user_id, alice.state) == ("alice", ChannelState.CONNECTED)
        message = {"type": "call-offer", "callId": "c1", "sdp": SDP}
        for recipient in ("bob", "eve"):
            await alice.send({**message, "recipientId": recipient})
        assert (await bob.receive())["sdp"] == altered(SDP, "codecs")
        assert (await eve.receive())["sdp"] == SDP
        await alice.send({"type": "typing", "recipientId": "bob"})
        assert (await bob.receive())["type"] == "typing"
        assert alice.altered == 1
        await bob.send({"type": "typing", "recipientId": "alice"})
        assert (await alice.receive())["senderId"] == "bob"
        states: list[ChannelState] = []
        alice.on_state(lambda change: states.append(change.state))
        alice.interrupt()
        alice.resume()
        await asyncio.sleep(0)
        assert states[0] is ChannelState.RECONNECTING
    assert alice.state is ChannelState.CLOSED
    await hub.close()
