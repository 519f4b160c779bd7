"""Answers of several endpoints to one offer, and calls that move to another (RFC 9429 3.8, RFC 8842)."""

from __future__ import annotations

import pytest

from calllab.rtc import AudioStreamTrack, InvalidAccessError, RTCConfiguration, RTCPeerConnection
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import answer, lines, local, negotiate, offer, peers, without_candidates
from tests.rtc.peers import until


async def gathered(peer: RTCPeerConnection) -> None:
    """Set a local description, and wait until all candidates are in it."""
    await peer.setLocalDescription()
    await until(lambda: peer.iceGatheringState == "complete", "the end of gathering")


@clause("5.10", "another answer than the provisional one, with other ICE credentials", document="RFC 9429")
@pytest.mark.parametrize("heard", [True, False])
async def test_9429_5_10_sequential_forking(heard: bool) -> None:
    """ICE turns to the fork that answers, if it has the certificate of the first, and the call connects."""
    certificate = await RTCPeerConnection.generateCertificate({"name": "ECDSA", "namedCurve": "P-256"})
    same = RTCConfiguration(certificates=[certificate])
    async with RTCPeerConnection() as a, RTCPeerConnection(same) as b, RTCPeerConnection(same) as c:
        a.addTrack(AudioStreamTrack())
        await gathered(a)
        for fork in (b, c):
            await fork.setRemoteDescription(local(a))
            await gathered(fork)
        early = local(b) if heard else without_candidates(local(b))
        assert early is not None
        await a.setRemoteDescription({"type": "pranswer", "sdp": early.sdp})
        before = lines(local(a), "a=candidate", "a=ice-ufrag")
        await a.setRemoteDescription(local(c))
        assert lines(local(a), "a=candidate", "a=ice-ufrag") == before
        await until(lambda: a.connectionState == c.connectionState == "connected", "a call with the fork")
        (ufrag,) = lines(local(c), "a=ice-ufrag:")
        transport = a.getSenders()[0].transport
        assert transport is not None
        facing = transport.iceTransport.getRemoteParameters()
        assert facing is not None
        assert ufrag == f"a=ice-ufrag:{facing.usernameFragment}"


@clause("5.10", "a fork with another certificate: a DTLS association of its own", document="RFC 9429")
@clause("3.1", "a changed fingerprint begins another DTLS association", document="RFC 8842")
async def test_8842_3_1_changed_fingerprints() -> None:
    """Refused with advice, also together with an ICE restart; the call goes on as it was."""
    async with peers(3) as (a, b, c):
        a.addTransceiver("audio")
        await offer(a, b)
        await c.setRemoteDescription(local(a))
        await b.setLocalDescription({"type": "pranswer"})
        await a.setRemoteDescription(local(b))
        await c.setLocalDescription()
        with pytest.raises(InvalidAccessError, match="new RTCPeerConnection"):
            await a.setRemoteDescription(local(c))
        await answer(a, b)
        moved = await b.createOffer(iceRestart=True)
        (fingerprint,) = lines(local(c), "a=fingerprint")
        text = moved.sdp.replace(lines(moved, "a=fingerprint")[0], fingerprint)
        with pytest.raises(InvalidAccessError, match="new RTCPeerConnection"):
            await a.setRemoteDescription({"type": "offer", "sdp": text})
        assert a.signalingState == "stable"
        await negotiate(b, a)
