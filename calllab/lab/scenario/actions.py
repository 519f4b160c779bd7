"""What the users of a scenario do, and when."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from calllab.lab.scenario.times import AtSeconds, ForSeconds

__all__ = [
    "Action",
    "AddAudio",
    "AddVideo",
    "CallPeer",
    "ChangeNetwork",
    "ForgetNat",
    "Glare",
    "HangUp",
    "Mute",
    "OpenDataChannel",
    "RemoveVideo",
    "RestartIce",
    "Unmute",
]

MediaKind: TypeAlias = Literal["audio", "video"]


class _Action(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="do",
):
    """Something that happens at a time."""

    at_s: AtSeconds = 0.0
    """When, in seconds from the start."""


class CallPeer(_Action, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="call"):
    """Call another peer; the callee is the polite one.  Two that call each other are call glare."""

    by: str
    """Who calls."""
    to: str
    """Who is called."""
    policy: Literal["all", "relay"] = "all"
    """W3C RTCIceTransportPolicy of both sides."""


class HangUp(_Action, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="hang-up"):
    """End the call."""

    by: str
    """Who hangs up."""


class Glare(_Action, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="glare"):
    """Let both sides of the call offer at once: both add a picture, and the offers cross."""

    by: str
    """One of the two."""


class AddVideo(_Action, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="add-video"):
    """Add another moving test picture; negotiation follows."""

    by: str
    """Who sends it."""


class AddAudio(_Action, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="add-audio"):
    """Add another voice; negotiation follows."""

    by: str
    """Who sends it."""


class RemoveVideo(_Action, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="remove-video"):
    """Take the picture that was added last out of the call; negotiation follows."""

    by: str
    """Who sent it."""


class Mute(_Action, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="mute"):
    """Send nothing any more of a kind: the source is gone, without negotiation."""

    by: str
    """Whose source it is."""
    kind: MediaKind = "audio"


class Unmute(_Action, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="unmute"):
    """Bring back what was muted."""

    by: str
    """Whose source it is."""
    kind: MediaKind = "audio"


class RestartIce(_Action, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="restart-ice"):
    """Ask for new ICE credentials and candidates."""

    by: str
    """Who asks."""


class ChangeNetwork(_Action, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="change-network"):
    """Move to another network: the sockets so far are dead, as when Wi-Fi becomes cellular."""

    by: str
    """Who moves."""


class ForgetNat(_Action, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="forget-nat"):
    """Reboot the NAT in front of a peer: its mappings are gone.  Needs the virtual network."""

    by: str
    """Whose NAT it is."""


class OpenDataChannel(_Action, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="data-channel"):
    """Open a data channel and send messages on it, which the other side counts."""

    by: str
    """Who opens it."""
    label: Annotated[str, msgspec.Meta(max_length=64)] = "data"
    messages: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 10
    every_s: ForSeconds = 0.1
    """The time between two messages."""
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 100


Action: TypeAlias = (
    CallPeer
    | HangUp
    | Glare
    | AddVideo
    | AddAudio
    | RemoveVideo
    | Mute
    | Unmute
    | RestartIce
    | ChangeNetwork
    | ForgetNat
    | OpenDataChannel
)
