"""The configuration of a connection (webrtc-pc sections 4.2, 4.4.1)."""

from __future__ import annotations

from typing import Any

import pytest

from calllab.rtc import (
    InvalidAccessError,
    InvalidModificationError,
    InvalidStateError,
    NotSupportedError,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
    SyntaxError_,
)
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import Log, lines, negotiate, offer, peers

TURN = "turn:turn.example.org"


async def configured(how: str, configuration: Any) -> RTCConfiguration:
    """Configure a connection, by its constructor or by setConfiguration(), and return what it has."""
    peer = RTCPeerConnection(configuration if how == "constructor" else None)
    try:
        if how != "constructor":
            peer.setConfiguration(configuration)
        return peer.getConfiguration()
    finally:
        await peer.close()


both = pytest.mark.parametrize("how", ["constructor", "setConfiguration"])


@clause("4.2.1", "the defaults of RTCConfiguration, with one bundle policy of our own")
async def test_4_2_1_defaults() -> None:
    """No servers, policy all, rtcp-mux required, no pool; everything is bundled."""
    async with RTCPeerConnection() as peer:
        found = peer.getConfiguration()
        assert (list(found.iceServers), found.iceTransportPolicy, found.rtcpMuxPolicy) == (
            [],
            "all",
            "require",
        )
        assert (found.iceCandidatePoolSize, list(found.certificates)) == (0, [])
        assert found.bundlePolicy == "max-bundle"


@clause("4.2.4", "server URLs in all their forms (RFC 7064, RFC 7065)")
@both
@pytest.mark.parametrize(
    "urls",
    [
        "stun:stun.example.net",
        ["stun:stun1.example.net", "stun:stun2.example.net:3479"],
        "STUN:stun.example.net",
        "stun:example.net:",
        "stun:example.net:65535",
        "stun:192.0.2.1",
        "stun:[2001:db8::1]",
        "stun:[2001:db8::1]:3478",
        TURN,
        "turn:192.0.2.1:3478?transport=udp",
        "turn:turn.example.org?transport=tcp",
        "turns:turn.example.org",
        "turns:turn.example.org:443?transport=tcp",
        [TURN, "stun:stun.example.net"],
    ],
)
async def test_4_2_4_urls_that_are_taken(how: str, urls: str | list[str]) -> None:
    """STUN and TURN URLs with names, addresses, ports and transports are taken, one or several a server."""
    server = RTCIceServer(urls, "user", "secret")
    found = await configured(how, RTCConfiguration(iceServers=[server]))
    assert list(found.iceServers) == [server]


@clause("4.4.1.6", "set a configuration: a URL that cannot be parsed, or no URL, is a SyntaxError")
@both
@pytest.mark.parametrize(
    "urls",
    [
        [],
        "",
        ["stun:stun.example.net", ""],
        "relative-url",
        "http://example.com",
        "turn://example.org/foo?x=y",
        "stun://example.org/foo?x=y",
        "stun:example.net?transport=udp",
        "stun:example.net:65536",
        "stun:example.net:0",
        "stun:example.net:b",
        "stun:example.net: 21 ",
        "stun:example.net#foo",
        "stun:[61:24:74]:98",
        "stun:[::1.2.3.4x]",
        "turn:a b",
        "turn:example.org?transport=",
        "stun:" + "x" * 2000,
    ],
)
async def test_4_4_1_6_urls_that_are_syntax_errors(how: str, urls: str | list[str]) -> None:
    """What is no STUN or TURN URL is a SyntaxError, whichever way it is given."""
    with pytest.raises(SyntaxError_) as caught:
        await configured(how, RTCConfiguration(iceServers=[RTCIceServer(urls, "u", "p")]))
    assert caught.value.name == "SyntaxError"


@clause("4.4.1.6", "set a configuration: a URL of a scheme or transport that does not exist here")
@both
@pytest.mark.parametrize(
    "url", ["stuns:stun.example.net", "turns:turn.example.net?transport=udp", f"{TURN}?transport=sctp"]
)
async def test_4_4_1_6_urls_that_are_not_supported(how: str, url: str) -> None:
    """STUN over TLS, TURN over DTLS or another transport: NotSupportedError, not silence."""
    with pytest.raises(NotSupportedError):
        await configured(how, RTCConfiguration(iceServers=[RTCIceServer(url, "u", "p")]))


@clause("4.4.1.6", "set a configuration: TURN needs a username and a credential")
@both
@pytest.mark.parametrize("scheme", ["turn", "turns"])
@pytest.mark.parametrize("given", [{}, {"username": "u"}, {"credential": "c"}, {"username": "x" * 510}])
async def test_4_4_1_6_missing_credentials(how: str, scheme: str, given: dict[str, str]) -> None:
    """Either missing, or a username of more than 509 bytes, is an InvalidAccessError; empty ones are fine."""
    if len(given.get("username", "")) > 509:
        given = {**given, "credential": "c"}
    with pytest.raises(InvalidAccessError):
        await configured(
            how, RTCConfiguration(iceServers=[RTCIceServer(f"{scheme}:turn.example.net", **given)])
        )
    empty = RTCIceServer(f"{scheme}:turn.example.net", "", "")
    assert list((await configured(how, RTCConfiguration(iceServers=[empty]))).iceServers) == [empty]


@clause("4.2.1", "members of a wrong type are TypeErrors (Web IDL)")
@both
@pytest.mark.parametrize(
    "members",
    [
        {"iceServers": None},
        {"iceServers": "stun:stun.example.net"},
        {"iceServers": [None]},
        {"iceServers": [{}]},
        {"iceServers": [{"username": "u"}]},
        {"iceServers": [{"urls": 5}]},
        {"iceServers": [RTCIceServer(None)]},  # type: ignore[arg-type]
        {"iceServers": [RTCIceServer([None])]},  # type: ignore[list-item]
        {"iceServers": [RTCIceServer("stun:x", username=5)]},  # type: ignore[arg-type]
        {"iceTransportPolicy": "some"},
        {"iceTransportPolicy": None},
        {"bundlePolicy": "some"},
        {"rtcpMuxPolicy": "some"},
        {"iceCandidatePoolSize": -1},
        {"iceCandidatePoolSize": 256},
        {"iceCandidatePoolSize": "1"},
        {"certificates": None},
        {"certificates": ["certificate"]},
    ],
)
async def test_4_2_1_wrong_types(how: str, members: dict[str, Any]) -> None:
    """Unknown enumeration values, numbers out of range, and other types raise TypeError."""
    with pytest.raises(TypeError):
        await configured(how, RTCConfiguration(**members))
    with pytest.raises(TypeError):
        await configured(how, members)


@clause("4.2.1", "RTCConfiguration and RTCIceServer are dictionaries")
@both
@pytest.mark.parametrize("urls", ["stun:stun.example.net", ["stun:stun.example.net", TURN]])
async def test_4_2_1_dictionaries(how: str, urls: str | list[str]) -> None:
    """Mappings are taken in their place, and members that nobody knows are ignored; other things are not."""
    server = {"urls": urls, "username": "u", "credential": "c", "credentialType": "password"}
    found = await configured(
        how, {"iceServers": [server], "iceTransportPolicy": "relay", "sdpSemantics": "x"}
    )
    assert list(found.iceServers) == [RTCIceServer(urls, "u", "c")]
    assert found.iceTransportPolicy == "relay"
    assert await configured(how, {}) == RTCConfiguration()
    for bad in ("stun:stun.example.net", [server], 5):
        with pytest.raises(TypeError, match="RTCConfiguration"):
            await configured(how, bad)


@clause("4.4.2", "setConfiguration: the argument may be left away")
async def test_4_4_2_set_configuration_without_an_argument() -> None:
    """It is the default configuration then."""
    async with RTCPeerConnection({"iceServers": [{"urls": "stun:stun.example.net"}]}) as peer:
        peer.setConfiguration()
        assert peer.getConfiguration() == RTCConfiguration()


@clause("4.4.2", "getConfiguration: what the connection has, whatever becomes of what it was given")
@both
async def test_4_4_2_the_configuration_is_a_copy(how: str) -> None:
    """Lists that the application changes afterwards change nothing."""
    urls = ["stun:stun.example.net"]
    servers = [RTCIceServer(urls)]
    configuration = RTCConfiguration(iceServers=servers)
    found = await configured(how, configuration)
    urls.clear()
    servers.clear()
    assert list(found.iceServers) == [RTCIceServer(["stun:stun.example.net"])]


@clause("4.2.5", "bundlePolicy: only max-bundle")
@clause("4.2.6", "rtcpMuxPolicy: only require")
@clause("4.2.1", "iceCandidatePoolSize: only 0")
@pytest.mark.parametrize(
    "members",
    [
        {"bundlePolicy": "balanced"},
        {"bundlePolicy": "max-compat"},
        {"rtcpMuxPolicy": "negotiate"},
        {"iceCandidatePoolSize": 1},
    ],
)
async def test_4_2_5_what_cannot_be_had_is_refused(members: dict[str, Any]) -> None:
    """Values that exist and that this implementation cannot honour are refused, never ignored."""
    with pytest.raises(NotSupportedError):
        RTCPeerConnection(RTCConfiguration(**members))


@clause("4.4.1.6", "set a configuration: what cannot be changed any more is an InvalidModificationError")
async def test_4_4_1_6_what_is_fixed() -> None:
    """Bundle policy, mux policy and certificates stay what they were; a refused change changes nothing."""
    own, other = [await RTCPeerConnection.generateCertificate(ECDSA) for _ in range(2)]
    server = RTCIceServer("stun:stun.example.net")
    before = RTCConfiguration(certificates=[own], iceServers=[server])
    async with RTCPeerConnection(before) as peer:
        changes: list[dict[str, Any]] = [
            {"bundlePolicy": "balanced"},
            {"rtcpMuxPolicy": "negotiate"},
            {"certificates": [other]},
            {"certificates": [own, own]},
        ]
        for change in changes:
            with pytest.raises(InvalidModificationError):
                peer.setConfiguration(RTCConfiguration(**change))
            assert list(peer.getConfiguration().iceServers) == [server]
        peer.setConfiguration(RTCConfiguration(certificates=[own], iceTransportPolicy="relay"))
        assert peer.getConfiguration().iceTransportPolicy == "relay"
        # Members that are left away take their defaults, but for the certificates.
        peer.setConfiguration(RTCConfiguration())
        found = peer.getConfiguration()
        assert (list(found.iceServers), found.iceTransportPolicy) == ([], "all")
        assert list(found.certificates) == [own]


@clause("4.4.2", "setConfiguration: not on a closed connection; getConfiguration still answers")
async def test_4_4_2_a_closed_connection_keeps_its_configuration() -> None:
    """setConfiguration() after close() is an InvalidStateError, before its argument is looked at."""
    server = RTCIceServer("stun:stun.example.net")
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[server]))
    await peer.close()
    with pytest.raises(InvalidStateError):
        peer.setConfiguration(RTCConfiguration(iceServers=[RTCIceServer("nonsense")]))
    assert list(peer.getConfiguration().iceServers) == [server]


ECDSA = {"name": "ECDSA", "namedCurve": "P-256"}


@clause("4.1.18", "setConfiguration: with other servers the next offer restarts ICE", document="RFC 9429")
async def test_9429_4_1_18_the_next_offer_restarts_ice() -> None:
    """Nothing asks for that offer; what changes nothing restarts nothing; and one restart is enough."""
    async with peers() as (a, b):

        def ufrag(description: RTCSessionDescription | None) -> list[str]:
            return lines(description, "a=ice-ufrag")[:1]

        a.addTransceiver("audio")
        a.setConfiguration(RTCConfiguration(iceTransportPolicy="relay"))
        await negotiate(a, b)
        first = ufrag(a.localDescription)
        log = Log().watch(a, "negotiationneeded")
        a.setConfiguration(RTCConfiguration(iceTransportPolicy="relay"))
        assert ufrag(await a.createOffer()) == first
        a.setConfiguration(RTCConfiguration())
        assert await log.settled() == []
        assert ufrag(await a.createOffer()) != first
        await offer(a, b)
        await a.setLocalDescription({"type": "rollback"})
        await b.setRemoteDescription({"type": "rollback"})
        await negotiate(a, b)
        second = ufrag(a.localDescription)
        assert second != first
        assert ufrag(await a.createOffer()) == second
