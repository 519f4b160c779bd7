"""Candidates: the object, addIceCandidate(), and what gathering tells (webrtc-pc 4.4.2, 4.8)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from calllab._aiortc import ice_generation
from calllab.rtc import (
    AudioStreamTrack,
    InvalidStateError,
    OperationError,
    RTCConfiguration,
    RTCIceCandidate,
    RTCIceServer,
    RTCPeerConnection,
    RTCPeerConnectionIceErrorEvent,
    RTCSessionDescription,
)
from tests._aiortc.test_relay import account, turn_server
from tests.rtc.conformance.channels import WiredPair, wired_pair
from tests.rtc.conformance.clauses import clause
from tests.rtc.peers import turns, until

HOST = (
    "candidate:1905690388 1 udp 2113937151 192.0.2.1 58041 typ host generation 0 ufrag thC8 network-cost 50"
)


async def offered(pair: WiredPair) -> str:
    """Give b an audio offer of a's; returns a's ufrag."""
    pair.a.addTrack(AudioStreamTrack())
    await pair.a.setLocalDescription()
    assert pair.a.localDescription is not None
    await pair.b.setRemoteDescription(pair.a.localDescription)
    return ufrag_of(pair.a.localDescription)


def ufrag_of(description: RTCSessionDescription | None) -> str:
    assert description is not None
    return description.sdp.split("a=ice-ufrag:")[1].split("\r\n")[0]


# The object


@clause("4.8.1", "RTCIceCandidate constructor: one of sdpMid and sdpMLineIndex is needed")
@pytest.mark.parametrize(
    "init",
    [
        {},
        {"candidate": ""},
        {"candidate": HOST},
        {"sdpMid": None, "sdpMLineIndex": None, "usernameFragment": "thC8"},
        {"candidate": None, "sdpMid": "0"},
        {"candidate": 5, "sdpMid": "0"},
        {"sdpMid": 0},
        {"sdpMLineIndex": -1},
        {"sdpMLineIndex": 65536},
        {"sdpMLineIndex": "0"},
        {"sdpMid": "0", "usernameFragment": 7},
    ],
)
def test_4_8_1_inits_that_are_type_errors(init: dict[str, Any]) -> None:
    """Without a place, or with members of a wrong type, there is no candidate."""
    with pytest.raises(TypeError):
        RTCIceCandidate(**init)


@clause("4.8.1", "RTCIceCandidate constructor: the string is kept as it is, whatever it says")
@clause("4.8.1", "toJSON")
@pytest.mark.parametrize("text", ["", HOST, "<arbitrary string[0] content>;"])
def test_4_8_1_members_are_kept(text: str) -> None:
    """The four members of the init come back unchanged; the ufrag is not taken from the string."""
    init = {"candidate": text, "sdpMid": "anything", "sdpMLineIndex": 65535, "usernameFragment": None}
    candidate = RTCIceCandidate(**init)  # type: ignore[arg-type]
    assert candidate.toJSON() == init
    assert RTCIceCandidate(**candidate.toJSON()) == candidate
    assert RTCIceCandidate(sdpMid="x").toJSON()["candidate"] == ""


@clause("4.8.1", "RTCIceCandidate: the members that are parsed from the string")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HOST, ("1905690388", "rtp", 2113937151, "192.0.2.1", "udp", 58041, "host", None, None, None)),
        (
            "candidate:1 2 UDP 5 2001:db8::1 9 typ srflx raddr 10.0.0.5 rport 46154",
            ("1", "rtcp", 5, "2001:db8::1", "udp", 9, "srflx", None, "10.0.0.5", 46154),
        ),
        (
            "candidate:1 1 tcp 5 d5e3aa1e-8c4d-4f4e-a54d-8d0a9d9d1b5c.local 9 typ host tcptype active",
            (
                "1",
                "rtp",
                5,
                "d5e3aa1e-8c4d-4f4e-a54d-8d0a9d9d1b5c.local",
                "tcp",
                9,
                "host",
                "active",
                None,
                None,
            ),
        ),
        (
            "candidate:a/+B 1 udp 5 192.0.2.1 9 typ relay raddr 0.0.0.0 rport 9",
            ("a/+B", "rtp", 5, "192.0.2.1", "udp", 9, "relay", None, "0.0.0.0", 9),
        ),
    ],
)
def test_4_8_1_parsed_members(text: str, expected: tuple[object, ...]) -> None:
    """Foundation to related port are what the string says."""
    c = RTCIceCandidate(text, sdpMid="0")
    found = (c.foundation, c.component, c.priority, c.address, c.protocol, c.port, c.type, c.tcpType)
    assert (*found, c.relatedAddress, c.relatedPort) == expected
    assert (c.url, c.relayProtocol) == (None, None)


MALFORMED = [
    "nonsense",
    "candidate:",
    "candidate:1 1 udp 5 192.0.2.1 9",
    "candidate:1 1 udp 5 192.0.2.1 9 typ",
    "candidate:1 1 udp 5 192.0.2.1 9 typ other",
    "candidate:1 3 udp 5 192.0.2.1 9 typ host",
    "candidate:1 1 sctp 5 192.0.2.1 9 typ host",
    "candidate:1 1 udp 4294967296 192.0.2.1 9 typ host",
    "candidate:1 1 udp -5 192.0.2.1 9 typ host",
    "candidate:1 1 udp 5 192.0.2.1 65536 typ host",
    "candidate:1 1 udp 5 192.0.2.1 nine typ host",
    "candidate:1 1 tcp 5 192.0.2.1 9 typ host tcptype other",
    "candidate:1 1 udp 5 192.0.2.1 9 typ srflx raddr 10.0.0.1 rport x",
    "candidate:1 1 udp 5 192.0.2.1 9 typ host lonely",
    "candidate:with_underscore 1 udp 5 192.0.2.1 9 typ host",
    "candidate:1 1 udp 5 192.0.2.1 9 typ host\r\na=injected:1",
    "candidate:1 1 udp 5 192.0.2.1 9 typ host x " + "y" * 2000,
]


@clause("4.8.1", "RTCIceCandidate: what does not parse leaves the parsed members null")
@pytest.mark.parametrize("text", MALFORMED)
def test_4_8_1_nothing_is_parsed_of_what_is_malformed(text: str) -> None:
    """If any field is invalid, none of them is there; the object exists all the same."""
    c = RTCIceCandidate(text, sdpMid="0")
    assert (c.foundation, c.component, c.priority, c.address, c.protocol) == (None,) * 5
    assert (c.port, c.type, c.tcpType, c.relatedAddress, c.relatedPort) == (None,) * 5


@clause("4.6.1", "RTCSessionDescription: its members, toJSON, and the types that exist")
def test_4_6_1_session_descriptions() -> None:
    """Type and text are kept; the text defaults to nothing; other types or no text are TypeErrors."""
    description = RTCSessionDescription("offer", "v=0\r\n")
    assert (description.type, description.sdp) == ("offer", "v=0\r\n")
    assert description.toJSON() == {"type": "offer", "sdp": "v=0\r\n"}
    assert RTCSessionDescription(**description.toJSON()) == description  # type: ignore[arg-type]
    assert RTCSessionDescription("rollback").sdp == ""
    for bad in (("bid", ""), (None, ""), ("offer", None)):
        with pytest.raises(TypeError):
            RTCSessionDescription(*bad)  # type: ignore[arg-type]


# addIceCandidate()


@clause("4.4.2", "addIceCandidate, step 2: neither sdpMid nor sdpMLineIndex is a TypeError")
@clause("4.4.2", "addIceCandidate: without a remote description it is an InvalidStateError")
async def test_4_4_2_before_a_remote_description() -> None:
    """A TypeError comes first; all else, the end of candidates too, needs a remote description."""
    async with RTCPeerConnection() as peer:
        for init in (
            {"candidate": HOST},
            {"candidate": HOST, "sdpMid": None},
            {"candidate": 5, "sdpMid": "0"},
        ):
            with pytest.raises(TypeError):
                await peer.addIceCandidate(init)
        for valid in (None, {}, {"candidate": ""}, {"candidate": HOST, "sdpMid": "0"}, {"sdpMid": "0"}):
            with pytest.raises(InvalidStateError):
                await peer.addIceCandidate(valid)
        with pytest.raises(InvalidStateError):
            await peer.addIceCandidate()
    with pytest.raises(InvalidStateError):
        await peer.addIceCandidate({"candidate": HOST, "sdpMid": "0"})


@clause("4.4.2", "addIceCandidate: a place or generation that was never described is an OperationError")
@pytest.mark.parametrize(
    "place",
    [
        {"sdpMid": "9"},
        {"sdpMid": ""},
        {"sdpMid": "9", "sdpMLineIndex": 0},
        {"sdpMLineIndex": 1},
        {"sdpMid": "0", "usernameFragment": "nobody"},
    ],
)
@pytest.mark.parametrize("text", [HOST, ""])
async def test_4_4_2_unknown_places(place: dict[str, Any], text: str) -> None:
    """Unknown mid, index beyond the sections, unknown ufrag; a mid that is given decides over the index."""
    async with wired_pair() as pair:
        await offered(pair)
        before = pair.b.remoteDescription
        with pytest.raises(OperationError):
            await pair.b.addIceCandidate({"candidate": text, **place})
        assert pair.b.remoteDescription == before


@clause("4.4.2", "addIceCandidate: for a section whose transceiver is stopped, nothing is done")
@pytest.mark.parametrize("who", ["offerer", "answerer"])
@pytest.mark.parametrize("place", [{"sdpMid": "1"}, {"sdpMLineIndex": 1}])
async def test_4_4_2_candidates_of_rejected_sections(who: str, place: dict[str, Any]) -> None:
    """It gets into no description and not to ICE, even if it names nobody's generation."""
    async with wired_pair() as pair:
        pair.a.addTrack(AudioStreamTrack())
        pair.a.addTransceiver("video")
        await pair.a.setLocalDescription()
        assert pair.a.localDescription is not None
        await pair.b.setRemoteDescription(pair.a.localDescription)
        pair.b.getTransceivers()[1].stop()
        await pair.b.setLocalDescription()
        assert pair.b.localDescription is not None
        await pair.a.setRemoteDescription(pair.b.localDescription)
        # The answer of a peer that is stopping accepts; the next offer rejects.
        await pair.b.setLocalDescription()
        await pair.a.setRemoteDescription(pair.b.localDescription)
        assert "m=video 0" in pair.b.localDescription.sdp
        if who == "offerer":
            await pair.a.setLocalDescription()
            await pair.b.setRemoteDescription(pair.a.localDescription)
        peer = pair.b if who == "offerer" else pair.a
        for ufrag in (None, ufrag_of(peer.remoteDescription), "nobody"):
            line = "candidate:1 1 udp 5 192.0.2.66 9 typ host"
            await peer.addIceCandidate({"candidate": line, "usernameFragment": ufrag, **place})
        assert peer.remoteDescription is not None
        assert "192.0.2.66" not in peer.remoteDescription.sdp
        transport = peer.getTransceivers()[0].sender.transport
        assert transport is not None
        assert all("192.0.2.66" not in c.candidate for c in transport.iceTransport.getRemoteCandidates())


@clause("4.4.2", "addIceCandidate: a candidate that cannot be parsed is an OperationError")
@pytest.mark.parametrize("text", MALFORMED)
async def test_4_4_2_malformed_candidates(text: str) -> None:
    """What does not follow the grammar is refused, and does not get into the remote description."""
    async with wired_pair() as pair:
        await offered(pair)
        with pytest.raises(OperationError):
            await pair.b.addIceCandidate({"candidate": text, "sdpMid": "0"})
        assert pair.b.remoteDescription is not None
        assert "a=candidate" not in pair.b.remoteDescription.sdp


@clause("4.4.2", "addIceCandidate: candidates that cannot be used are taken, and harm nothing")
@clause("4.4.2", "addIceCandidate: what is added is in remoteDescription")
async def test_4_4_2_useless_candidates_are_taken() -> None:
    """TCP, RTCP, unresolvable and unroutable ones are in the description; the call connects all the same."""
    useless = [
        "candidate:1 1 tcp 5 192.0.2.1 9 typ host tcptype active",
        "candidate:1 2 udp 5 192.0.2.1 9 typ host",
        "candidate:1 1 udp 5 2d1c4cf2-0000-4000-8000-e2c0ffee0000.local 50000 typ host",
        "candidate:1 1 udp 5 host.invalid 50000 typ host",
        "candidate:1 1 udp 5 0.0.0.0 9 typ host",
        "candidate:1 1 udp 5 224.0.0.1 50000 typ host",
        "candidate:1 1 udp 5 192.0.2.77 50000 typ prflx raddr 0.0.0.0 rport 0",
    ]
    async with wired_pair() as pair:
        ufrag = await offered(pair)
        for line in useless:
            await pair.b.addIceCandidate({"candidate": line, "sdpMid": "0", "usernameFragment": ufrag})
        assert pair.b.remoteDescription is not None
        assert all(f"a={line}\r\n" in pair.b.remoteDescription.sdp for line in useless)
        await pair.b.setLocalDescription()
        assert pair.b.localDescription is not None
        await pair.a.setRemoteDescription(pair.b.localDescription)
        for candidates in pair.candidates:
            candidates.open()
        await pair.connected()


@clause("4.4.2", "addIceCandidate: every form of the argument")
async def test_4_4_2_forms_of_the_argument() -> None:
    """An object, a mapping with mid or index or both; the same candidate twice is there once."""
    async with wired_pair() as pair:
        ufrag = await offered(pair)
        line = "candidate:1 1 udp 5 192.0.2.1 9 typ host"
        await pair.b.addIceCandidate(RTCIceCandidate(line, sdpMid="0"))
        await pair.b.addIceCandidate({"candidate": line, "sdpMLineIndex": 0})
        await pair.b.addIceCandidate({"candidate": line, "sdpMid": "0", "sdpMLineIndex": 7})
        await pair.b.addIceCandidate({"candidate": line, "sdpMid": None, "sdpMLineIndex": 0})
        await pair.b.addIceCandidate({"candidate": line, "sdpMid": "0", "usernameFragment": ufrag})
        assert pair.b.remoteDescription is not None
        assert pair.b.remoteDescription.sdp.count(line) == 1


@clause("4.4.2", "addIceCandidate: an empty candidate ends a generation, for one section or for all")
@clause("4.3", "the end of candidates is told with the ufrag of its generation", document="RFC 8838")
@pytest.mark.parametrize(
    "end", [None, {}, {"candidate": ""}, {"candidate": "", "sdpMid": "0"}, {"sdpMLineIndex": 0}, "ufrag"]
)
async def test_4_4_2_end_of_candidates(end: Any) -> None:
    """Each form of the end is in remoteDescription, and the ICE transport can complete."""
    async with wired_pair() as pair:
        ufrag = await offered(pair)
        line = "candidate:1 1 udp 5 127.0.0.1 9 typ host"
        await pair.b.addIceCandidate({"candidate": line, "sdpMid": "0"})
        await pair.b.addIceCandidate({"usernameFragment": ufrag} if end == "ufrag" else end)
        assert pair.b.remoteDescription is not None
        assert "a=end-of-candidates\r\n" in pair.b.remoteDescription.sdp


@clause("4.4.2", "addIceCandidate is an operation of the chain: it waits for setRemoteDescription")
async def test_4_4_2_order_on_the_chain() -> None:
    """A candidate given in the same turn as its description, right behind it, is in time."""
    async with wired_pair() as pair:
        pair.a.addTrack(AudioStreamTrack())
        await pair.a.setLocalDescription()
        assert pair.a.localDescription is not None
        line = "candidate:1 1 udp 5 192.0.2.1 9 typ host"
        await asyncio.gather(
            pair.b.setRemoteDescription(pair.a.localDescription),
            pair.b.addIceCandidate({"candidate": line, "sdpMid": "0"}),
        )
        assert pair.b.remoteDescription is not None
        assert line in pair.b.remoteDescription.sdp


@clause("4.4.2", "addIceCandidate: the usernameFragment chooses the generation during an ICE restart")
async def test_4_4_2_generations() -> None:
    """While an offer restarts ICE both generations take candidates; a replaced one is heard and ignored."""
    async with wired_pair() as pair:
        first = await offered(pair)
        await pair.b.setLocalDescription()
        assert pair.b.localDescription is not None
        await pair.a.setRemoteDescription(pair.b.localDescription)
        pair.a.restartIce()
        await pair.a.setLocalDescription()
        second = ufrag_of(pair.a.localDescription)
        assert second != first
        assert pair.a.localDescription is not None
        await pair.b.setRemoteDescription(pair.a.localDescription)
        lines = {
            ufrag: f"candidate:1 1 udp 5 192.0.2.{number} 9 typ host"
            for number, ufrag in enumerate((first, second))
        }
        for ufrag, line in lines.items():
            await pair.b.addIceCandidate({"candidate": line, "sdpMid": "0", "usernameFragment": ufrag})
        assert pair.b.currentRemoteDescription is not None
        assert pair.b.pendingRemoteDescription is not None
        assert lines[first] in pair.b.currentRemoteDescription.sdp
        assert lines[second] not in pair.b.currentRemoteDescription.sdp
        assert lines[second] in pair.b.pendingRemoteDescription.sdp
        await pair.b.setLocalDescription()
        late = "candidate:9 1 udp 5 192.0.2.9 9 typ host"
        await pair.b.addIceCandidate({"candidate": late, "sdpMid": "0", "usernameFragment": first})
        assert pair.b.remoteDescription is not None
        assert late not in pair.b.remoteDescription.sdp


@clause("4.4.2", "addIceCandidate: too many candidates are an OperationError")
@clause("6.1.2.5", "what a peer can make an agent do is bounded", document="RFC 8445")
async def test_4_4_2_candidates_are_bounded() -> None:
    """After 256 candidates of one generation no more are taken; those that were are there."""
    async with wired_pair() as pair:
        await offered(pair)
        for number in range(256):
            line = f"candidate:1 1 udp 5 192.0.2.1 {1024 + number} typ host"
            await pair.b.addIceCandidate({"candidate": line, "sdpMid": "0"})
        with pytest.raises(OperationError, match="256"):
            await pair.b.addIceCandidate(
                {"candidate": "candidate:1 1 udp 5 192.0.2.1 9 typ host", "sdpMid": "0"}
            )
        await pair.b.addIceCandidate({"candidate": "", "sdpMid": "0"})


# What gathering tells


@clause("4.8.2", "icecandidate: candidates, the end of the generation, and null when gathering is complete")
@clause("4.4.4", "iceGatheringState is complete before the null candidate is told")
async def test_4_8_2_the_order_of_gathering() -> None:
    """gathering, candidates with mid, index and ufrag, an empty one, complete, None; all are in the SDP."""
    async with RTCPeerConnection() as peer:
        seen: list[Any] = []
        peer.addTransceiver("audio")
        peer.on("icecandidate", seen.append)
        peer.on("icegatheringstatechange", lambda: seen.append(peer.iceGatheringState))
        await peer.setLocalDescription()
        await until(lambda: bool(seen) and seen[-1] is None, "the end of gathering")
        candidates = [entry for entry in seen if isinstance(entry, RTCIceCandidate)]
        assert seen == ["gathering", *candidates, "complete", None]
        assert candidates[-1].candidate == ""
        assert len(candidates) > 1
        ufrag = ufrag_of(peer.localDescription)
        assert {(c.sdpMid, c.sdpMLineIndex, c.usernameFragment) for c in candidates} == {("0", 0, ufrag)}
        assert peer.localDescription is not None
        assert all(f"a={c.candidate}\r\n" in peer.localDescription.sdp for c in candidates[:-1])
        assert all((c.type, c.url, c.relayProtocol) == ("host", None, None) for c in candidates[:-1])


@clause("4.8.1", "url and relayProtocol of candidates that a server gave")
async def test_4_8_1_candidates_name_their_server() -> None:
    """A relay candidate says which server gave it, and how it is reached."""
    async with turn_server() as server:
        known = account(server)
        configuration = RTCConfiguration(
            iceServers=[RTCIceServer(known.urls, known.username, known.credential)],
            iceTransportPolicy="relay",
        )
        async with RTCPeerConnection(configuration) as peer:
            seen: list[Any] = []
            peer.addTransceiver("audio")
            peer.on("icecandidate", seen.append)
            await peer.setLocalDescription()
            await until(lambda: bool(seen) and seen[-1] is None, "the end of gathering")
            (relay,) = [c for c in seen if c is not None and c.candidate]
            assert (relay.type, relay.url, relay.relayProtocol) == ("relay", known.urls[0], "udp")
            assert (relay.relatedAddress, relay.relatedPort) == ("0.0.0.0", 9)


@clause("4.8.3", "icecandidateerror: what a server refused, with its error code")
@clause("4.8.3", "icecandidateerror: 701 for one that cannot be reached, once for each URL")
async def test_4_8_3_icecandidateerror() -> None:
    """A wrong password is 401 with the local address; unreachable servers are 701, one event for each."""
    async with turn_server() as server:
        known = account(server)
        names = ["stun:no-such-host.invalid", "stun:no-such-other-host.invalid:3479"]
        configuration = RTCConfiguration(
            iceServers=[RTCIceServer(names), RTCIceServer(known.urls, known.username, "wrong")]
        )
        async with RTCPeerConnection(configuration) as peer:
            seen: list[RTCPeerConnectionIceErrorEvent] = []
            peer.addTransceiver("audio")
            peer.on("icecandidateerror", seen.append)
            await peer.setLocalDescription()
            await until(lambda: peer.iceGatheringState == "complete", "the end of gathering")
            await turns()
            by_url = {event.url: event for event in seen}
            assert sorted(event.url for event in seen) == sorted([*names, known.urls[0]])
            refused = by_url[known.urls[0]]
            assert (refused.errorCode, "401" in refused.errorText) == (401, True)
            assert refused.address is not None
            assert refused.port is not None
            for name in names:
                assert by_url[name].errorCode == 701
                assert by_url[name].errorText
            gathered = peer.localDescription
            assert gathered is not None
            assert "typ host" in gathered.sdp


@clause("4.8.3", "icecandidateerror: 701 is told when no host candidate reaches the server, and only once")
async def test_4_8_3_one_event_for_all_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two host addresses, neither of which gets an answer, there is one event, without an address."""
    monkeypatch.setattr(ice_generation, "host_addresses", lambda _: ["127.0.0.1", "127.0.0.2"])
    url = "stun:no-such-host.invalid"
    async with RTCPeerConnection(RTCConfiguration(iceServers=[RTCIceServer(url)])) as peer:
        seen: list[RTCPeerConnectionIceErrorEvent] = []
        peer.addTransceiver("audio")
        peer.on("icecandidateerror", seen.append)
        await peer.setLocalDescription()
        await until(lambda: peer.iceGatheringState == "complete", "the end of gathering")
        assert [(event.url, event.errorCode) for event in seen] == [(url, 701)]
        assert (seen[0].address, seen[0].port) == (None, None)
