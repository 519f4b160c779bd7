"""Certificates (webrtc-pc section 4.9)."""

from __future__ import annotations

import hashlib
import re
import time
from typing import Any

import pytest

from calllab.rtc import (
    InvalidAccessError,
    NotSupportedError,
    RTCCertificate,
    RTCConfiguration,
    RTCPeerConnection,
)
from tests.rtc.conformance.channels import pair_with
from tests.rtc.conformance.clauses import clause
from tests.rtc.peers import until

ECDSA = {"name": "ECDSA", "namedCurve": "P-256"}
RSA = {
    "name": "RSASSA-PKCS1-v1_5",
    "modulusLength": 2048,
    "publicExponent": bytes([1, 0, 1]),
    "hash": "SHA-256",
}


@clause("4.9.1", "generateCertificate: ECDSA with P-256 and RSASSA-PKCS1-v1_5 are there")
@clause("4.9.2", "RTCCertificate: expires and getFingerprints")
@pytest.mark.parametrize("algorithm", [ECDSA, RSA], ids=["ECDSA", "RSA"])
async def test_4_9_1_a_call_with_a_certificate_of_ones_own(algorithm: dict[str, Any]) -> None:
    """The fingerprint is in the offer, the peer sees that very certificate, and it holds for 30 days."""
    certificate = await RTCPeerConnection.generateCertificate(algorithm)
    assert isinstance(certificate, RTCCertificate)
    assert certificate.expires / 1000 - time.time() == pytest.approx(30 * 86400, abs=60)
    (fingerprint,) = certificate.getFingerprints()
    assert fingerprint.algorithm == "sha-256"
    assert re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){31}", fingerprint.value)
    async with (
        RTCPeerConnection(RTCConfiguration(certificates=[certificate])) as peer,
        pair_with(peer) as pair,
    ):
        pair.a.createDataChannel("x")
        await pair.exchange()
        await pair.connected()
        assert pair.a.localDescription is not None
        assert f"a=fingerprint:sha-256 {fingerprint.value.upper()}" in pair.a.localDescription.sdp
        assert pair.b.sctp is not None
        (seen,) = pair.b.sctp.transport.getRemoteCertificates()
        assert hashlib.sha256(seen).digest().hex(":") == fingerprint.value
        assert list(peer.getConfiguration().certificates) == [certificate]


@clause("4.9.1", "generateCertificate: what is not supported, and what is no algorithm")
@pytest.mark.parametrize(
    ("algorithm", "error"),
    [
        ("invalid-algorithm", NotSupportedError),
        ({"name": "AES-CBC"}, NotSupportedError),
        ({"name": "ECDSA", "namedCurve": "P-521"}, NotSupportedError),
        ({**RSA, "modulusLength": 512}, NotSupportedError),
        ({**RSA, "hash": "SHA-1"}, NotSupportedError),
        ({**RSA, "publicExponent": bytes([3])}, NotSupportedError),
        ({"name": "ECDSA"}, TypeError),
        ({}, TypeError),
        ({**ECDSA, "expires": -1}, TypeError),
        ({**ECDSA, "expires": float("nan")}, TypeError),
        ({**ECDSA, "expires": "tomorrow"}, TypeError),
    ],
)
async def test_4_9_1_algorithms_that_are_refused(algorithm: Any, error: type[Exception]) -> None:
    """Other algorithms, curves, sizes, exponents and hashes are not supported; missing members TypeErrors."""
    with pytest.raises(error):
        await RTCPeerConnection.generateCertificate(algorithm)


@clause("4.9.1", "generateCertificate: expires counts from now, and is at most a year")
async def test_4_9_1_expires() -> None:
    """A shorter life is kept, a longer one cut to 365 days."""
    short = await RTCPeerConnection.generateCertificate({**ECDSA, "expires": 3_600_000})
    long = await RTCPeerConnection.generateCertificate({**ECDSA, "expires": 1e15})
    assert short.expires / 1000 - time.time() == pytest.approx(3600, abs=60)
    assert long.expires / 1000 - time.time() == pytest.approx(365 * 86400, abs=60)


@clause("4.4.1.1", "constructor: an expired certificate is an InvalidAccessError")
async def test_4_4_1_1_an_expired_certificate_is_refused() -> None:
    """Once its time is over, no connection takes it."""
    certificate = await RTCPeerConnection.generateCertificate({**ECDSA, "expires": 0})
    await until(lambda: certificate.expires / 1000 < time.time(), "the end of its life")
    with pytest.raises(InvalidAccessError, match="expired"):
        RTCPeerConnection(RTCConfiguration(certificates=[certificate]))
