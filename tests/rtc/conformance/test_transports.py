"""The transport objects (webrtc-pc sections 5.5, 5.6, 6.1.1)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from calllab.rtc import AudioStreamTrack, RTCDtlsTransport, RTCError, RTCErrorEvent, RTCPeerConnection
from tests.rtc.conformance.channels import WiredPair, wired_pair
from tests.rtc.conformance.clauses import clause
from tests.rtc.peers import finish, turns, until


def transport_of(peer: RTCPeerConnection) -> RTCDtlsTransport:
    """Return the DTLS transport of a connection with data channels."""
    assert peer.sctp is not None
    return peer.sctp.transport


def record(pair: WiredPair) -> list[tuple[str, str]]:
    """Return a list that grows with the states of a's transports."""
    seen: list[tuple[str, str]] = []
    sender = pair.a.getSenders()[0]
    assert sender.transport is not None
    dtls, ice = sender.transport, sender.transport.iceTransport
    ice.on("statechange", lambda: seen.append(("ice", ice.state)))
    ice.on("gatheringstatechange", lambda: seen.append(("gathering", ice.gatheringState)))
    ice.on("selectedcandidatepairchange", lambda: seen.append(("pair", ice.state)))
    dtls.on("statechange", lambda: seen.append(("dtls", dtls.state)))
    return seen


@clause("5.5", "RTCDtlsTransport: state and statechange")
@clause("5.6", "RTCIceTransport: state, gatheringState, selected pair, and their events")
async def test_5_6_states_and_events() -> None:
    """Each state is told once, in order: gathering, checking, the pair, connected; then DTLS."""
    async with wired_pair() as pair:
        pair.a.addTrack(AudioStreamTrack())
        await pair.a.setLocalDescription()
        seen = record(pair)
        sender = pair.a.getSenders()[0]
        assert sender.transport is not None
        ice = sender.transport.iceTransport
        assert (ice.state, ice.component, sender.transport.state) == ("new", "rtp", "new")
        assert ice.getSelectedCandidatePair() is None
        await finish(pair.a, pair.b)
        for candidates in pair.candidates:
            candidates.open()
        await pair.connected()
        await until(lambda: ice.state == "completed", "the end of the checks")
        await turns()
        assert [state for what, state in seen if what == "gathering"] == ["gathering", "complete"]
        states = [state for what, state in seen if what == "ice"]
        assert states[0] == "checking"
        assert states[-1] == "completed"
        assert set(states) <= {"checking", "connected", "completed"}
        assert [state for what, state in seen if what == "dtls"] == ["connecting", "connected"]
        assert [what for what, _ in seen if what == "pair"]
        assert seen.index(("dtls", "connecting")) > seen.index(("ice", "checking"))


@clause("5.6", "getSelectedCandidatePair, getLocalCandidates, getRemoteCandidates and both getParameters")
async def test_5_6_candidates_pairs_and_parameters() -> None:
    """Both sides name the same candidates, credentials and pair, seen from either end; roles differ."""
    async with wired_pair() as pair:
        await pair.channel_pair()
        a, b = (transport_of(peer).iceTransport for peer in (pair.a, pair.b))
        await until(lambda: a.state == b.state == "completed", "all checks done")
        assert {a.role, b.role} == {"controlling", "controlled"}
        assert a.role == "controlling"
        for here, there in ((a, b), (b, a)):
            assert here.getLocalParameters() == there.getRemoteParameters()
            assert here.getLocalCandidates() == there.getRemoteCandidates()
            found = here.getSelectedCandidatePair()
            assert found is not None
            assert found is here.getSelectedCandidatePair()
            assert found.local.address in {c.address for c in here.getLocalCandidates()}
            local = here.getLocalParameters()
            assert local is not None
            assert {c.usernameFragment for c in here.getLocalCandidates()} == {local.usernameFragment}
            assert {c.sdpMid for c in here.getLocalCandidates()} == {"0"}
            assert len(local.password) >= 22
        ours, theirs = a.getSelectedCandidatePair(), b.getSelectedCandidatePair()
        assert ours is not None
        assert theirs is not None
        assert (ours.local.address, ours.local.port) == (theirs.remote.address, theirs.remote.port)
        assert (ours.remote.address, ours.remote.port) == (theirs.local.address, theirs.local.port)
        sent = [c for c in pair.candidates[0].sent if c is not None and c.candidate]
        assert a.getLocalCandidates() == sent


@clause("5.6", "getLocalParameters and getRemoteParameters: what the newest descriptions say")
async def test_5_6_parameters_follow_the_descriptions() -> None:
    """None before a description, then those of the newest one, pending or not; a rollback brings the old."""
    async with wired_pair() as pair:
        pair.a.addTrack(AudioStreamTrack())
        await pair.a.setLocalDescription()
        sender = pair.a.getSenders()[0]
        assert sender.transport is not None
        ice = sender.transport.iceTransport
        first = ice.getLocalParameters()
        assert first is not None
        assert (ice.getRemoteParameters(), ice.getRemoteCandidates()) == (None, [])
        await finish(pair.a, pair.b)
        assert ice.getRemoteParameters() is not None
        for candidates in pair.candidates:
            candidates.open()
        await pair.connected()
        selected = ice.getSelectedCandidatePair()
        await pair.a.setLocalDescription(await pair.a.createOffer(iceRestart=True))
        second = ice.getLocalParameters()
        assert second not in (None, first)
        assert ice.getSelectedCandidatePair() == selected
        assert pair.a.localDescription is not None
        await pair.b.setRemoteDescription(pair.a.localDescription)
        for peer, side in ((pair.a, "Local"), (pair.b, "Remote")):
            await getattr(peer, f"set{side}Description")({"type": "rollback"})
        assert ice.getLocalParameters() == first


@clause("5.6", "an ICE restart selects a pair of the new generation, and tells")
async def test_5_6_a_restart_changes_the_pair() -> None:
    """After a restart another pair is selected; the transports are the same objects, DTLS told nothing."""
    async with wired_pair() as pair:
        await pair.channel_pair()
        dtls = transport_of(pair.a)
        ice = dtls.iceTransport
        before = ice.getSelectedCandidatePair()
        told: list[str] = []
        ice.on("selectedcandidatepairchange", lambda: told.append("pair"))
        dtls.on("statechange", lambda: told.append(dtls.state))
        pair.a.restartIce()
        await pair.exchange()
        await until(lambda: "pair" in told, "the new pair")
        await until(lambda: ice.state == "completed", "the end of the checks")
        after = ice.getSelectedCandidatePair()
        assert after is not None
        assert after != before
        assert set(told) == {"pair"}
        assert transport_of(pair.a) is dtls
        assert dtls.iceTransport is ice


@clause("5.6", "getSelectedCandidatePair: the credentials under which its candidates were signalled")
async def test_5_6_the_pair_has_its_own_credentials() -> None:
    """A pending restart does not change the pair that is in use, whenever it is read, nor does a rollback."""
    async with wired_pair() as pair:
        await pair.channel_pair()
        pairs = [transport_of(peer).iceTransport for peer in (pair.a, pair.b)]
        parameters = [(ice.getLocalParameters(), ice.getRemoteParameters()) for ice in pairs]
        await pair.a.setLocalDescription(await pair.a.createOffer(iceRestart=True))
        assert pair.a.localDescription is not None
        await pair.b.setRemoteDescription(pair.a.localDescription)
        for is_restarting in (True, False):
            for ice, (local, remote) in zip(pairs, parameters, strict=True):
                found = ice.getSelectedCandidatePair()
                assert found is not None
                assert local is not None
                assert remote is not None
                assert found.local.usernameFragment == local.usernameFragment
                assert found.remote.usernameFragment == remote.usernameFragment
                assert (found.local.sdpMid, found.remote.sdpMid) == ("0", "0")
            if is_restarting:
                await pair.a.setLocalDescription({"type": "rollback"})
                await pair.b.setRemoteDescription({"type": "rollback"})


@clause("5.5", "getRemoteCertificates: the peer's certificate once it is known")
async def test_5_5_remote_certificates() -> None:
    """Empty before the handshake, then what the fingerprint in the peer's description promises."""
    async with wired_pair() as pair:
        pair.a.addTrack(AudioStreamTrack())
        await pair.a.setLocalDescription()
        transport = pair.a.getSenders()[0].transport
        assert transport is not None
        assert transport.getRemoteCertificates() == []
        await finish(pair.a, pair.b)
        for candidates in pair.candidates:
            candidates.open()
        await pair.connected()
        (certificate,) = transport.getRemoteCertificates()
        assert pair.a.remoteDescription is not None
        digest = hashlib.sha256(certificate).digest().hex(":").upper()
        assert f"a=fingerprint:sha-256 {digest}" in pair.a.remoteDescription.sdp


@clause("5.5", "a DTLS failure: state failed, then error, then statechange")
@clause("11.2", "RTCErrorDetailType: fingerprint-failure and dtls-failure")
@pytest.mark.parametrize("who", ["a", "b"])
async def test_5_5_a_wrong_fingerprint_fails(who: str) -> None:
    """Who finds another certificate than was signalled has an error event of fingerprint-failure."""
    async with wired_pair() as pair:
        pair.a.addTrack(AudioStreamTrack())
        seen: dict[str, list[Any]] = {"a": [], "b": []}
        await pair.a.setLocalDescription()
        offer = pair.a.localDescription
        assert offer is not None
        await pair.b.setRemoteDescription(
            {"type": "offer", "sdp": _other_fingerprint(offer.sdp) if who == "b" else offer.sdp}
        )
        await pair.b.setLocalDescription()
        answer = pair.b.localDescription
        assert answer is not None
        for name, peer in (("a", pair.a), ("b", pair.b)):
            transport = peer.getTransceivers()[0].sender.transport
            assert transport is not None
            transport.on("error", lambda event, t=transport, name=name: seen[name].append((event, t.state)))
            transport.on("statechange", lambda t=transport, name=name: seen[name].append(t.state))
        await pair.a.setRemoteDescription(
            {"type": "answer", "sdp": _other_fingerprint(answer.sdp) if who == "a" else answer.sdp}
        )
        for candidates in pair.candidates:
            candidates.open()
        await until(lambda: "failed" in seen[who], "the failure")
        (event, state) = next(entry for entry in seen[who] if isinstance(entry, tuple))
        assert isinstance(event, RTCErrorEvent)
        assert isinstance(event.error, RTCError)
        assert (event.error.errorDetail, event.error.name) == ("fingerprint-failure", "OperationError")
        assert state == "failed"
        assert seen[who][-2:] == [(event, "failed"), "failed"]
        peer = pair.a if who == "a" else pair.b
        await until(lambda: peer.connectionState == "failed", "the connection failed")


def _other_fingerprint(sdp: str) -> str:
    lines = []
    for line in sdp.split("\r\n"):
        if line.startswith("a=fingerprint:"):
            line = line[:-2] + ("00" if line[-2:] != "00" else "11")
        lines.append(line)
    return "\r\n".join(lines)


@clause("6.1.1", "RTCSctpTransport: made by the answer with the peer's message size, then connected")
async def test_6_1_1_the_sctp_transport() -> None:
    """None until the answer, then connecting, then connected; identity lasts, media shares its DTLS."""
    async with wired_pair() as pair:
        pair.a.createDataChannel("x")
        assert pair.a.sctp is None
        await pair.a.setLocalDescription()
        assert pair.a.sctp is None
        await finish(pair.a, pair.b)
        sctp = pair.a.sctp
        assert sctp is not None
        assert (sctp.state, sctp.maxChannels, sctp.maxMessageSize) == ("connecting", None, 262144)
        states: list[str] = []
        sctp.on("statechange", lambda: states.append(sctp.state))
        for candidates in pair.candidates:
            candidates.open()
        await until(lambda: states == ["connected"], "the association")
        assert sctp.maxChannels == 65535
        assert pair.b.sctp is not None
        assert pair.a.sctp is sctp
        pair.a.addTrack(AudioStreamTrack())
        await pair.exchange()
        assert pair.a.getSenders()[0].transport is sctp.transport
        assert pair.a.sctp is sctp


@clause("4.4.2", "close: the states of all transports are closed at once, and no event tells so")
async def test_4_4_2_close_closes_all_transports() -> None:
    """Before anything is awaited ICE, DTLS and SCTP are closed; the peer's DTLS and SCTP follow."""
    async with wired_pair() as pair:
        await pair.channel_pair()
        assert pair.a.sctp is not None
        assert pair.b.sctp is not None
        sctp, dtls = pair.a.sctp, pair.a.sctp.transport
        events: list[str] = []
        for thing in (sctp, dtls, dtls.iceTransport):
            thing.on("statechange", lambda: events.append("statechange"))
        theirs = pair.b.sctp
        told: list[tuple[str, str]] = []
        theirs.on("statechange", lambda: told.append(("sctp", theirs.state)))
        theirs.transport.on("statechange", lambda: told.append(("dtls", theirs.transport.state)))
        closing = pair.a.close()
        assert (sctp.state, dtls.state, dtls.iceTransport.state) == ("closed", "closed", "closed")
        assert dtls.iceTransport.getSelectedCandidatePair() is None
        await closing
        await until(lambda: ("dtls", "closed") in told, "the end of the peer's DTLS")
        assert ("sctp", "closed") in told
        assert events == []
        with pytest.raises(Exception, match="closed"):
            pair.b.createDataChannel("late")
