"""What the JSEP core asks its driver to do, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from calllab.rtc.parameters import Fingerprint, IceCredentials

__all__ = [
    "Action",
    "AddRemoteCandidate",
    "AddRemoteTrack",
    "ConfigureMedia",
    "CreateTransceiver",
    "DiscardIce",
    "PrepareIce",
    "RemoveRemoteTrack",
    "SetRemoteStreams",
    "StartTransport",
    "StopTransceiver",
]


@dataclass(frozen=True, slots=True)
class PrepareIce:
    """Open a new ICE generation and gather; ``offerer`` says whose offer it belongs to."""

    credentials: IceCredentials
    offerer: bool


@dataclass(frozen=True, slots=True)
class DiscardIce:
    """Throw a prepared ICE generation away: its description was rolled back or replaced."""

    credentials: IceCredentials


@dataclass(frozen=True, slots=True)
class StartTransport:
    """Connect a prepared ICE generation, and DTLS above it if it is not up yet."""

    local: IceCredentials
    remote: IceCredentials
    remote_lite: bool
    candidates: tuple[str | None, ...]
    dtls_client: bool
    fingerprints: tuple[Fingerprint, ...]


@dataclass(frozen=True, slots=True)
class AddRemoteCandidate:
    """Give one more candidate (None: there are no more) to the generation that faces this remote ufrag."""

    ufrag: str
    candidate: str | None


@dataclass(frozen=True, slots=True)
class CreateTransceiver:
    """A remote offer made this transceiver; its track has this id, or one of ours if the peer names none."""

    transceiver: int
    track_id: str | None


@dataclass(frozen=True, slots=True)
class StopTransceiver:
    """Stop sending and receiving for good (W3C "stop the RTCRtpTransceiver")."""

    transceiver: int


@dataclass(frozen=True, slots=True)
class SetRemoteStreams:
    """The remote track belongs to exactly these MediaStreams from now on."""

    transceiver: int
    stream_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AddRemoteTrack:
    """The peer began to send: announce the track (W3C "process the addition of a remote track")."""

    transceiver: int


@dataclass(frozen=True, slots=True)
class RemoveRemoteTrack:
    """The peer stopped sending: mute the track (W3C "process the removal of a remote track")."""

    transceiver: int


@dataclass(frozen=True, slots=True)
class ConfigureMedia:
    """Make senders, receivers and data channels match what is negotiated now."""


Action: TypeAlias = (
    PrepareIce
    | DiscardIce
    | StartTransport
    | AddRemoteCandidate
    | CreateTransceiver
    | StopTransceiver
    | SetRemoteStreams
    | AddRemoteTrack
    | RemoveRemoteTrack
    | ConfigureMedia
)
