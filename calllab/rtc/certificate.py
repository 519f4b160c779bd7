"""Certificates that an application makes itself (webrtc-pc section 4.9)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from calllab._aiortc import Certificate, wall_time
from calllab._aiortc.certificates import DEFAULT_LIFETIME_S, KeyKind
from calllab.rtc.errors import NotSupportedError

__all__ = ["RTCCertificate", "RTCDtlsFingerprint"]

_MAX_LIFETIME_S: Final = 365 * 86400.0


@dataclass(frozen=True, slots=True)
class RTCDtlsFingerprint:
    """The hash of a certificate: the name of the hash function, and the value in lower case."""

    algorithm: str
    value: str


class RTCCertificate:
    """A certificate with its key, made by :meth:`RTCPeerConnection.generateCertificate`.

    It can serve several connections, one after the other or at once.
    """

    def __init__(self, inner: Certificate) -> None:
        self.inner = inner

    @property
    def expires(self) -> float:
        """When it expires, in milliseconds since 1970; no connection takes it after that."""
        return self.inner.expires_at_s * 1000

    @property
    def has_expired(self) -> bool:
        """Whether its time is over (ours)."""
        return self.inner.expires_at_s < wall_time()

    def getFingerprints(self) -> list[RTCDtlsFingerprint]:
        """Return what the peer will be told to expect."""
        return [RTCDtlsFingerprint(f.algorithm, f.value.lower()) for f in self.inner.fingerprints]

    @classmethod
    def generate(cls, keygenAlgorithm: str | Mapping[str, Any]) -> RTCCertificate:
        """Make a certificate; raises TypeError or NotSupportedError for the algorithm.

        ``{"name": "ECDSA", "namedCurve": "P-256"}`` and ``{"name": "RSASSA-PKCS1-v1_5", "modulusLength":
        2048, "publicExponent": 65537, "hash": "SHA-256"}`` are supported, with ``expires`` in milliseconds
        from now (default: 30 days, at most a year).
        """
        return cls(Certificate.generate(_kind_of(keygenAlgorithm), lifetime_s=_lifetime_s(keygenAlgorithm)))


def _kind_of(algorithm: str | Mapping[str, Any]) -> KeyKind:
    members: dict[str, Any] = {"name": algorithm} if isinstance(algorithm, str) else dict(algorithm)
    name = members.get("name")
    if not isinstance(name, str):
        raise TypeError(f"a key algorithm has a name, which is a string, not {name!r}")
    if name.upper() == "ECDSA":
        _only(members, "namedCurve", "P-256")
        return "ECDSA"
    if name.upper() == "RSASSA-PKCS1-V1_5":
        _only(members, "modulusLength", 2048)
        hash_ = members.get("hash")
        members["hash"] = hash_.get("name") if isinstance(hash_, Mapping) else hash_
        _only(members, "hash", "SHA-256")
        exponent = members.get("publicExponent")
        if isinstance(exponent, bytes | bytearray):  # as in Web Crypto: a big-endian number
            members["publicExponent"] = int.from_bytes(exponent)
        _only(members, "publicExponent", 65537)
        return "RSASSA-PKCS1-v1_5"
    raise NotSupportedError(f"keys of the algorithm {name!r} are not supported: take ECDSA with P-256")


def _only(members: Mapping[str, Any], name: str, supported: object) -> None:
    value = members.get(name)
    if value is None:
        raise TypeError(f"the key algorithm {members['name']} needs {name}")
    if value != supported:
        raise NotSupportedError(f"{members['name']} with {name} {value!r}: only {supported!r} is supported")


def _lifetime_s(algorithm: str | Mapping[str, Any]) -> float:
    expires = None if isinstance(algorithm, str) else algorithm.get("expires")
    if expires is None:
        return DEFAULT_LIFETIME_S
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise TypeError(f"expires is a number of milliseconds, not {expires!r}")
    if not math.isfinite(expires) or expires < 0:
        raise TypeError(f"expires is a number of milliseconds from now, not {expires!r}")
    return min(expires / 1000, _MAX_LIFETIME_S)
