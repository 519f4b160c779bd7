"""A scenario as data: who calls whom over which network, what goes wrong when, and what is expected."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from calllab.lab.causes import Cause
from calllab.lab.kinds import STUN_HOSTS
from calllab.lab.scenario.actions import Action
from calllab.lab.scenario.expect import Expectations
from calllab.lab.scenario.links import LinkChanges, LinkFault, Route
from calllab.lab.scenario.times import MAX_DURATION_S, AtSeconds, ForSeconds
from calllab.network import HostCosts, NatSettings
from calllab.signaling import SignalingFault

__all__ = [
    "NetworkSpec",
    "PeerSpec",
    "Scenario",
    "SdpFault",
    "Servers",
    "TruthSpec",
    "TurnFault",
    "TurnServerSpec",
    "VideoSpec",
]

MAX_ENTRIES = 500
MAX_SEED = 2**63 - 1


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of a scenario."""


class VideoSpec(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The moving test picture that a peer sends."""

    width: Annotated[int, msgspec.Meta(ge=160, le=4096, multiple_of=2)] = 320
    height: Annotated[int, msgspec.Meta(ge=120, le=4096, multiple_of=2)] = 240
    fps: Annotated[float, msgspec.Meta(gt=0.0, le=120.0)] = 15.0


class PeerSpec(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One user."""

    audio: bool = True
    video: VideoSpec | bool = False
    profile: str | None = None
    """A named network profile, like ``lte-good``: its upstream is this peer's link, in place of the network's
    ``link``, its downstream a route from each other host.  Needs the virtual network."""
    link: LinkChanges | None = None
    """What this peer's link does to all it sends, beside the faults."""
    nat: str | NatSettings | None = None
    """The NAT in front of it: a kind, like ``symmetric``, the name of one of ``network.nats``, or settings of
    its own; None: a public address."""
    costs: HostCosts | None = None
    """What encoding, decoding and sending costs its machine in virtual time; None: a slow laptop's."""
    answers: Literal["accept", "reject", "ignore"] = "accept"
    """What it does with calls that come in."""
    turn_credentials: Literal["right", "wrong", "expired"] = "right"
    """What its TURN credentials are worth."""
    turn_ttl_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] | None = None
    """How long they are good for, from when the peer gets them at the beginning of a call; None: an hour.
    What was allocated in time can be used for as long as the call lasts, but no more can be had."""


class NetworkSpec(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all peers have in common."""

    profile: str | None = None
    """The network profile of peers that name none of their own."""
    link: LinkChanges | None = None
    """What each peer's link does to all it sends; a peer's own ``link`` goes on top of it."""
    nats: Annotated[dict[str, str | NatSettings], msgspec.Meta(max_length=8)] = {}
    """NATs that several peers can stand behind, by name."""
    routes: Annotated[list[Route], msgspec.Meta(max_length=64)] = []
    """What ways between hosts do beside that."""
    signaling_delay_ms: Annotated[float, msgspec.Meta(ge=0.0, le=60_000.0)] = 20.0
    """How long each signaling message takes."""


class TurnFault(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the TURN server does wrong, for a while; needs the virtual network."""

    at_s: AtSeconds = 0.0
    for_s: ForSeconds | None = None
    """How long; without it, to the end."""
    reject: Literal[401, 438, 486] | None = None
    """Answer every request with this STUN error code."""
    silent: bool = False
    """Answer nothing and relay nothing, but forget nothing either."""
    dead: bool = False
    """Answer nothing, relay nothing, forget all allocations."""


class TurnServerSpec(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The TURN server."""

    faults: Annotated[list[TurnFault], msgspec.Meta(max_length=64)] = []


class Servers(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What servers the peers are told of."""

    stun: Annotated[int, msgspec.Meta(ge=1, le=2)] | bool = False
    """A STUN server, for server-reflexive candidates; 2: another one at another address beside it, by which a
    peer sees two mappings of a NAT that gives each destination one.  Two need the virtual network."""
    turn: TurnServerSpec | bool = False
    """A TURN server, with credentials of its own for each peer."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of their hosts."""
        return (*STUN_HOSTS[: int(self.stun)], *(("turn",) if self.turn else ()))


class SdpFault(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a middlebox does to the descriptions on their way from one peer to another."""

    direction: str
    """``alice->bob``: descriptions that Alice sends to Bob."""
    alter: Literal["fingerprint", "codecs", "m-lines"]
    """``fingerprint``: another certificate than the sender's; ``codecs``: only codecs that nobody knows;
    ``m-lines``: media sections in the wrong order."""
    kind: Literal["audio", "video"] | None = None
    """Alter media sections of this kind only."""
    at_s: AtSeconds = 0.0
    for_s: ForSeconds | None = None


class TruthSpec(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the scenario does on purpose, in the words of diagnoses; the faults of links say so themselves."""

    cause: Cause
    direction: str | None = None
    at_s: AtSeconds = 0.0
    for_s: ForSeconds | None = None


class Scenario(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A call, or several, with all that is done to them and all that is expected.

    Times are seconds from the start.  The same scenario runs in virtual time, on a virtual network in real
    time, and on real sockets; what needs the virtual network says so.
    """

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    """What it is about, in a few words."""
    description: str = ""
    seed: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEED)] = 1
    """Every random choice follows from it."""
    duration_s: Annotated[float, msgspec.Meta(gt=0.0, le=MAX_DURATION_S)]
    """When the run ends; a call that is up then is hung up."""
    sample_every_s: Annotated[float, msgspec.Meta(ge=0.01, le=60.0)] = 1.0
    """How often getStats is recorded."""
    codecs: Literal["real", "packets", "stand-in"] = "real"
    """``packets``: what was encoded once before the call is sent over and over, and decoded; ``stand-in``:
    packets of the right size and rate without encoding and decoding, in virtual time.  Both for speed."""
    peers: Annotated[dict[str, PeerSpec], msgspec.Meta(min_length=2, max_length=8)]
    network: NetworkSpec = NetworkSpec()
    servers: Servers = Servers()
    timeline: Annotated[list[Action], msgspec.Meta(max_length=MAX_ENTRIES)]
    """What the peers do."""
    faults: Annotated[list[LinkFault], msgspec.Meta(max_length=MAX_ENTRIES)] = []
    """What the links do, and when."""
    signaling_faults: Annotated[list[SignalingFault], msgspec.Meta(max_length=MAX_ENTRIES)] = []
    """What happens to signaling messages on their way, and to the connections that carry them."""
    sdp_faults: Annotated[list[SdpFault], msgspec.Meta(max_length=MAX_ENTRIES)] = []
    """What happens to session descriptions on their way."""
    truth: Annotated[list[TruthSpec], msgspec.Meta(max_length=MAX_ENTRIES)] = []
    """Causes that a diagnosis should find, beside those of ``faults``."""
    expect: Expectations = Expectations()
    """What must come of it."""
