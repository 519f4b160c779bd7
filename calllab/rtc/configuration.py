"""The configuration of a peer connection (webrtc-pc section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from calllab._aiortc import parse_ice_url
from calllab.rtc.errors import InvalidAccessError, NotSupportedError, SyntaxError_

__all__ = ["RTCConfiguration", "RTCIceServer"]


@dataclass(frozen=True)
class RTCIceServer:
    """A STUN or TURN server: one URL or several, with the credentials of all of them."""

    urls: str | Sequence[str]
    username: str | None = None
    credential: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RTCConfiguration:
    """How to make a peer connection; the default has no ICE servers at all, never a public one."""

    iceServers: Sequence[RTCIceServer] = ()
    iceTransportPolicy: Literal["all", "relay"] = "all"
    bundlePolicy: Literal["max-bundle"] = "max-bundle"
    """Everything shares one transport here; other policies are refused."""
    rtcpMuxPolicy: Literal["require"] = "require"
    iceCandidatePoolSize: int = 0

    def validate(self) -> None:
        """Raise what a browser's constructor would raise (webrtc-pc 4.4.1.1, 4.2.3)."""
        if self.iceTransportPolicy not in ("all", "relay"):
            raise TypeError(f'iceTransportPolicy is "all" or "relay", not {self.iceTransportPolicy!r}')
        if self.bundlePolicy != "max-bundle":
            raise NotSupportedError(f'bundlePolicy {self.bundlePolicy!r}: only "max-bundle" is supported')
        if self.rtcpMuxPolicy != "require":
            raise NotSupportedError(f'rtcpMuxPolicy {self.rtcpMuxPolicy!r}: only "require" is supported')
        if self.iceCandidatePoolSize != 0:
            raise NotSupportedError(
                f"iceCandidatePoolSize {self.iceCandidatePoolSize}: there is no pool, leave it at 0"
            )
        for server in self.iceServers:
            _validate_server(server)


def _validate_server(server: RTCIceServer) -> None:
    urls = [server.urls] if isinstance(server.urls, str) else list(server.urls)
    if not urls:
        raise SyntaxError_("an RTCIceServer needs at least one URL")
    for url in urls:
        try:
            parsed = parse_ice_url(url)
        except ValueError as exc:
            raise SyntaxError_(str(exc)) from exc
        if parsed.scheme in ("turn", "turns") and not (server.username and server.credential):
            raise InvalidAccessError(f"{url}: a TURN server needs username and credential")
