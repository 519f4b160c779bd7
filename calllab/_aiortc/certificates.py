"""Certificates for DTLS: how they are made, how long they hold, what is told of them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from aiortc.rtcdtlstransport import RTCCertificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from calllab._aiortc.simulated import simulated_loop, wall_time
from calllab._aiortc.simulated_certificate import simulated_certificate

__all__ = ["DEFAULT_LIFETIME_S", "Certificate", "DtlsFingerprint", "KeyKind"]

KeyKind = Literal["ECDSA", "RSASSA-PKCS1-v1_5"]

DEFAULT_LIFETIME_S: Final = 30 * 86400.0
_CIPHERS: Final = tuple(
    f"ECDHE-{signature}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "CHACHA20-POLY1305", "AES128-SHA", "AES256-SHA")
    for signature in ("ECDSA", "RSA")
)
_RSA_BITS: Final = 2048
_RSA_EXPONENT: Final = 65537


@dataclass(frozen=True, slots=True)
class DtlsFingerprint:
    """The hash of a certificate (RFC 8122)."""

    algorithm: str
    value: str


class _Certificate(RTCCertificate):
    """aiortc's certificate, for handshakes in which either peer may sign with RSA.

    aiortc offers and accepts ECDSA alone (rtcdtlstransport.py:204).
    """

    def _create_ssl_context(self, srtp_profiles: list[Any]) -> Any:
        context = super()._create_ssl_context(srtp_profiles)
        context.set_cipher_list(":".join(_CIPHERS).encode())
        return context


class Certificate:
    """A self-signed certificate with its key."""

    def __init__(self, inner: RTCCertificate) -> None:
        self.inner = inner

    @classmethod
    def generate(cls, kind: KeyKind = "ECDSA", *, lifetime_s: float = DEFAULT_LIFETIME_S) -> Certificate:
        """Make a new key (P-256, or RSA with 2048 bits) and its certificate.

        A simulated peer gets a certificate of the simulation, whatever its kind (see
        simulated_certificate.py).
        """
        loop = simulated_loop()
        if loop is not None:
            return cls(simulated_certificate(loop, datetime.timedelta(seconds=lifetime_s)))
        key: Any
        if kind == "ECDSA":
            key = ec.generate_private_key(ec.SECP256R1())
        else:
            key = rsa.generate_private_key(_RSA_EXPONENT, _RSA_BITS)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "WebRTC")])
        now = datetime.datetime.fromtimestamp(wall_time(), datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # Clocks differ: a peer whose clock is slow must not find it in the future.
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(seconds=lifetime_s))
            .sign(key, hashes.SHA256())
        )
        return cls(_Certificate(key=cast(Any, key), cert=certificate))

    @property
    def expires_at_s(self) -> float:
        """Unix time after which it must not be used any more."""
        return self.inner.expires.timestamp()

    @property
    def fingerprints(self) -> tuple[DtlsFingerprint, ...]:
        """Its SHA-256 fingerprint, as every WebRTC peer understands it."""
        return tuple(
            DtlsFingerprint(f.algorithm, f.value)
            for f in self.inner.getFingerprints()
            if f.algorithm == "sha-256"
        )
