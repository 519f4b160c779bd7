"""The configuration of a peer connection (webrtc-pc sections 4.2 and 4.4.1.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

from calllab._aiortc import UnsupportedIceUrl, parse_ice_url
from calllab.rtc.certificate import RTCCertificate
from calllab.rtc.errors import (
    InvalidAccessError,
    InvalidModificationError,
    NotSupportedError,
    SyntaxError_,
)

__all__ = ["RTCConfiguration", "RTCIceServer"]

_MAX_USERNAME_BYTES: Final = 509
"""What fits into a STUN message (RFC 8489 section 14.3)."""


@dataclass(frozen=True)
class RTCIceServer:
    """A STUN or TURN server: one URL or several, with the credentials of all of them."""

    urls: str | Sequence[str]
    username: str | None = None
    credential: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "urls", _kept(self.urls))


@dataclass(frozen=True)
class RTCConfiguration:
    """How to make a peer connection; the default has no ICE servers at all, never a public one.

    ICE servers may be mappings with the members of RTCIceServer.
    """

    iceServers: Sequence[RTCIceServer] = ()
    iceTransportPolicy: Literal["all", "relay"] = "all"
    bundlePolicy: Literal["max-bundle"] = "max-bundle"
    """Everything shares one transport here; other policies are refused."""
    rtcpMuxPolicy: Literal["require"] = "require"
    iceCandidatePoolSize: int = 0
    certificates: Sequence[RTCCertificate] = ()
    """Made with :meth:`RTCPeerConnection.generateCertificate`; the first is used.  Without one, each
    connection makes its own.
    """

    def __post_init__(self) -> None:
        servers: Any = _kept(self.iceServers)
        if isinstance(servers, tuple):
            servers = tuple(_server(each) if isinstance(each, Mapping) else each for each in servers)
        object.__setattr__(self, "iceServers", servers)
        object.__setattr__(self, "certificates", _kept(self.certificates))

    @classmethod
    def of(cls, configuration: RTCConfiguration | Mapping[str, Any] | None) -> RTCConfiguration:
        """Return ``configuration`` itself, or the one that a mapping means; raises TypeError.

        Members of a mapping that nobody knows are ignored, as in a browser.
        """
        if configuration is None:
            return cls()
        if isinstance(configuration, RTCConfiguration):
            return configuration
        if not isinstance(configuration, Mapping):
            raise TypeError(f"an RTCConfiguration is needed, not {type(configuration).__name__}")
        return cls(**_known_members(cls, configuration))

    def validate(self) -> None:
        """Raise what a browser's constructor would raise (webrtc-pc 4.4.1.1, 4.4.1.6).

        TypeError for what is not a value of its type, NotSupportedError for values that exist and cannot be
        had, SyntaxError_ for URLs, InvalidAccessError for an expired certificate or missing credentials.
        """
        self._check_types()
        if self.bundlePolicy != "max-bundle":
            raise NotSupportedError(f'bundlePolicy {self.bundlePolicy!r}: only "max-bundle" is supported')
        if self.rtcpMuxPolicy != "require":
            raise NotSupportedError(f'rtcpMuxPolicy {self.rtcpMuxPolicy!r}: only "require" is supported')
        if self.iceCandidatePoolSize != 0:
            raise NotSupportedError(
                f"iceCandidatePoolSize {self.iceCandidatePoolSize}: there is no pool, leave it at 0"
            )
        for certificate in self.certificates:
            if certificate.has_expired:
                raise InvalidAccessError("a certificate has expired: generate another one")
        for server in self.iceServers:
            _validate_server(server)

    def changed_to(self, configuration: RTCConfiguration) -> RTCConfiguration:
        """Return the configuration that setConfiguration() brings about.

        Raises InvalidModificationError where a connection keeps what it was made with; certificates may also
        be left away.
        """
        configuration._check_types()
        kept = tuple(self.certificates)
        given = tuple(configuration.certificates)
        if given and (len(given) != len(kept) or any(a is not b for a, b in zip(given, kept, strict=True))):
            raise InvalidModificationError("the certificates of a connection cannot be changed")
        for name in ("bundlePolicy", "rtcpMuxPolicy"):
            before, after = getattr(self, name), getattr(configuration, name)
            if before != after:
                raise InvalidModificationError(f"{name} cannot be changed from {before!r} to {after!r}")
        replace(configuration, certificates=()).validate()
        return replace(configuration, certificates=kept)

    def gathers_like(self, other: RTCConfiguration) -> bool:
        """Say whether candidates gathered with one of the two configurations are right for the other."""
        same_policy = self.iceTransportPolicy == other.iceTransportPolicy
        return same_policy and list(self.iceServers) == list(other.iceServers)

    def _check_types(self) -> None:
        _one_of("iceTransportPolicy", self.iceTransportPolicy, ("all", "relay"))
        _one_of("bundlePolicy", self.bundlePolicy, ("balanced", "max-compat", "max-bundle"))
        _one_of("rtcpMuxPolicy", self.rtcpMuxPolicy, ("negotiate", "require"))
        size = self.iceCandidatePoolSize
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= 255:
            raise TypeError(f"iceCandidatePoolSize is a number from 0 to 255, not {size!r}")
        for certificate in _sequence("certificates", self.certificates):
            if not isinstance(certificate, RTCCertificate):
                raise TypeError(f"certificates holds RTCCertificate, not {type(certificate).__name__}")
        for server in _sequence("iceServers", self.iceServers):
            if not isinstance(server, RTCIceServer):
                raise TypeError(f"iceServers holds RTCIceServer, not {type(server).__name__}")
            for name, value in (("username", server.username), ("credential", server.credential)):
                if value is not None and not isinstance(value, str):
                    raise TypeError(f"the {name} of an ICE server is a string, not {type(value).__name__}")
            for url in _urls(server):
                if not isinstance(url, str):
                    raise TypeError(f"a URL of an ICE server is a string, not {type(url).__name__}")


def _server(init: Mapping[str, Any]) -> RTCIceServer:
    if "urls" not in init:
        raise TypeError("an RTCIceServer needs urls")
    return RTCIceServer(**_known_members(RTCIceServer, init))


def _known_members(kind: Any, init: Mapping[str, Any]) -> dict[str, Any]:
    return {member.name: init[member.name] for member in fields(kind) if member.name in init}


def _kept(value: Any) -> Any:
    """Return a sequence as a tuple, so that nobody else can change it; what is none as it is."""
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return tuple(value) if is_sequence else value


def _one_of(name: str, value: object, values: tuple[str, ...]) -> None:
    if value not in values:
        raise TypeError(f"{name} is {' or '.join(map(repr, values))}, not {value!r}")


def _sequence(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        raise TypeError(f"{name} is a sequence, not {type(value).__name__}")
    return value


def _urls(server: RTCIceServer) -> Sequence[str]:
    return (server.urls,) if isinstance(server.urls, str) else _sequence("urls", server.urls)


def _validate_server(server: RTCIceServer) -> None:
    urls = _urls(server)
    if not urls:
        raise SyntaxError_("an RTCIceServer needs at least one URL")
    for url in urls:
        try:
            parsed = parse_ice_url(url)
        except UnsupportedIceUrl as exc:
            raise NotSupportedError(str(exc)) from exc
        except ValueError as exc:
            raise SyntaxError_(str(exc)) from exc
        if parsed.scheme == "stun":
            continue
        if server.username is None or server.credential is None:
            raise InvalidAccessError(f"{url}: a TURN server needs username and credential")
        if len(server.username.encode()) > _MAX_USERNAME_BYTES:
            raise InvalidAccessError(f"{url}: the username has more than {_MAX_USERNAME_BYTES} bytes")
