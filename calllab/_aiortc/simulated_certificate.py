"""Certificates for calls in virtual time: repeatable, and of no worth as a secret.

An ECDSA signature is one to three bytes shorter or longer from one handshake to the next, and with it the
size of a DTLS flight; OpenSSL's servers refuse Ed25519 in DTLS 1.2.  So simulated peers sign with RSA, whose
signatures all have one size, and 1024 bits keep a flight below one datagram.  The key is computed from a
constant: everybody can know it, and nothing but a simulation may use it.
"""

from __future__ import annotations

import datetime
import functools
import math
import random
from typing import Any, Final, cast

from aiortc.rtcdtlstransport import RTCCertificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from calllab._aiortc.simulated import SimulatedLoop

__all__ = ["SimulatedCertificate", "simulated_certificate"]

_KEY_BITS: Final = 1024
_EXPONENT: Final = 65537
_LIFETIME: Final = datetime.timedelta(days=30)
_WITNESSES: Final = 24


def _is_prime(number: int, chance: random.Random) -> bool:
    """Miller-Rabin; wrong with a probability below 4**-24."""
    if any(number % small == 0 for small in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)):
        return False
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(_WITNESSES):
        power = pow(chance.randrange(2, number - 1), odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def _prime(bits: int, chance: random.Random) -> int:
    while True:
        # The two highest bits make the product of two primes as long as it shall be; odd, of course.
        number = chance.getrandbits(bits) | 3 << (bits - 2) | 1
        if math.gcd(number - 1, _EXPONENT) == 1 and _is_prime(number, chance):
            return number


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    chance = random.Random("calllab: a key for simulations, known to everybody")
    p, q = _prime(_KEY_BITS // 2, chance), _prime(_KEY_BITS // 2, chance)
    d = pow(_EXPONENT, -1, math.lcm(p - 1, q - 1))
    return rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(_EXPONENT, p * q),
    ).private_key()


class SimulatedCertificate(RTCCertificate):
    """A certificate whose handshakes have the same size every time."""

    def _create_ssl_context(self, srtp_profiles: list[Any]) -> SSL.Context:
        # As aiortc's own (rtcdtlstransport.py:192), but for the ciphers: they must come first, since OpenSSL
        # finds the key too short before it is told of the lower security level.
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_cipher_list(b"ECDHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0")
        context.set_options(SSL.OP_NO_TICKET)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.use_certificate(self._cert)
        context.use_privatekey(self._key)
        context.set_tlsext_use_srtp(b":".join(profile.openssl_profile for profile in srtp_profiles))
        return context


def simulated_certificate(loop: SimulatedLoop, lifetime: datetime.timedelta = _LIFETIME) -> RTCCertificate:
    """Make a certificate for a peer on ``loop``; it follows from the loop's entropy and clock."""
    key, chance = _key(), loop.entropy
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, chance.randbytes(16).hex())])
    now = datetime.datetime.fromtimestamp(int(loop.wall_time()), datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        # The highest bit but one is set, so that the number always takes 20 bytes.
        .serial_number(chance.getrandbits(158) | 1 << 158)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + lifetime)
        .sign(key, hashes.SHA256())
    )
    return SimulatedCertificate(key=cast(Any, key), cert=certificate)
