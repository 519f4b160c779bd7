"""Whether two peers that have nothing more to do have come to agree."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import msgspec

from calllab.lab.explorer.moves import PeerName, PeerView
from calllab.rtc.jsep_state import JsepState
from calllab.rtc.parameters import reverse

__all__ = ["Disagreement", "PeerEnd", "disagreements", "end_of"]


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong at the end."""

    kind: str
    """``deadlock``, ``lost-negotiation``, ``m-lines``, ``directions``, ``codecs``, ``ice`` or
    ``candidates``.
    """
    sentence: str


class PeerEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How one peer ended; what an exploration and a replay have in common."""

    signaling: str
    lines: tuple[str, ...]
    """The m-lines of the session in order, as in ``audio:0``."""
    needs_negotiation: bool
    """In the stable state: whether an offer would change something."""
    remote_candidates: int = 0
    """How many candidates it knows of the other peer's ICE generation in force."""
    errors: tuple[str, ...] = ()
    """What has come to the surface, as in ``setRemoteDescription(answer): InvalidStateError``."""


def end_of(state: JsepState, *, needs_negotiation: bool, errors: tuple[str, ...]) -> PeerEnd:
    """Return how a peer ended, from the state of its JSEP agent."""
    lines = tuple(f"{line.kind}:{line.mid}{' rejected' * line.rejected}" for line in state.session.lines)
    remote = state.session.remote_ice
    known = [entry.candidates for entry in state.remote_candidates if remote and entry.ufrag == remote.ufrag]
    return PeerEnd(
        signaling=state.signaling,
        lines=lines,
        needs_negotiation=state.signaling == "stable" and needs_negotiation,
        remote_candidates=sum(map(len, known)),
        errors=errors,
    )


def disagreements(peers: Mapping[PeerName, PeerView], added: int) -> tuple[Disagreement, ...]:
    """Return all that is wrong between two peers when nothing more can happen.

    :param added: how many transceivers both have added together: each has an m-line of its own.
    """
    unstable = {name: view.jsep.signaling for name, view in peers.items() if view.jsep.signaling != "stable"}
    if unstable:
        where = " and ".join(f"{name} stays in {state}" for name, state in unstable.items())
        return (Disagreement(kind="deadlock", sentence=f"nothing more can happen, but {where}"),)
    found = [
        Disagreement(
            kind="lost-negotiation",
            sentence=f"{name} still needs to negotiate, but nothing will ever start it",
        )
        for name, view in peers.items()
        if view.needs_negotiation
    ]
    (one, one_view), (other, other_view) = peers.items()
    for check in (_lines, _directions, _ice, _candidates):
        found += check(one, one_view, other, other_view)
    count = len(one_view.jsep.session.lines)
    if not found and count != added:
        sentence = f"{added} transceivers were added, but the session has {count} m-lines"
        found.append(Disagreement(kind="lost-negotiation", sentence=sentence))
    return tuple(found)


def _lines(one: str, view: PeerView, other: str, other_view: PeerView) -> list[Disagreement]:
    described = [
        [(line.kind, line.mid, line.rejected) for line in side.jsep.session.lines]
        for side in (view, other_view)
    ]
    if described[0] == described[1]:
        return []
    said = [" ".join(f"{kind}:{mid}" for kind, mid, _ in lines) or "none" for lines in described]
    return [
        Disagreement(
            kind="m-lines", sentence=f"the m-lines of {one} are {said[0]}, those of {other} {said[1]}"
        )
    ]


def _directions(one: str, view: PeerView, other: str, other_view: PeerView) -> list[Disagreement]:
    theirs = {transceiver.mid: transceiver.negotiated for transceiver in other_view.jsep.transceivers}
    found: list[Disagreement] = []
    for transceiver in view.jsep.transceivers:
        ours, their = transceiver.negotiated, theirs.get(transceiver.mid)
        if their is None or ours.current_direction is None or their.current_direction is None:
            sentence = f"a transceiver of {one} with mid {transceiver.mid} has no counterpart at {other}"
            found.append(Disagreement(kind="directions", sentence=sentence))
        elif ours.current_direction != reverse(their.current_direction):
            sentence = (
                f"mid {transceiver.mid} is {ours.current_direction} at {one} "
                f"and {their.current_direction} at {other}"
            )
            found.append(Disagreement(kind="directions", sentence=sentence))
        elif [(codec.payload_type, codec.mime_type) for codec in ours.codecs] != [
            (codec.payload_type, codec.mime_type) for codec in their.codecs
        ]:
            sentence = f"{one} and {other} have different codecs for mid {transceiver.mid}"
            found.append(Disagreement(kind="codecs", sentence=sentence))
    return found


_ICE: Final = "ice"


def _ice(one: str, view: PeerView, other: str, other_view: PeerView) -> list[Disagreement]:
    found: list[Disagreement] = []
    named = ((one, view), (other, other_view), (one, view))
    for (name, side), (peer, peer_side) in pairwise(named):
        ours, known = side.jsep.session.local_ice, peer_side.jsep.session.remote_ice
        if ours != known:
            sentence = f"{peer} does not face the ICE credentials that {name} uses"
            found.append(Disagreement(kind=_ICE, sentence=sentence))
        if ours is not None and ours.ufrag in side.replaced:
            sentence = f"{name} restarted ICE, but still uses the credentials from before"
            found.append(Disagreement(kind="lost-negotiation", sentence=sentence))
    roles = {view.jsep.session.dtls_role, other_view.jsep.session.dtls_role}
    if roles not in ({"client", "server"}, {None}):
        found.append(Disagreement(kind=_ICE, sentence=f"{one} and {other} have the same DTLS role"))
    return found


def _candidates(one: str, view: PeerView, other: str, other_view: PeerView) -> list[Disagreement]:
    found: list[Disagreement] = []
    for (name, side), (peer, peer_side) in pairwise(((one, view), (other, other_view), (one, view))):
        if (ice := side.jsep.session.local_ice) is None:
            continue
        ours = {
            c for entry in side.jsep.local_candidates if entry.ufrag == ice.ufrag for c in entry.candidates
        }
        known = {
            c
            for entry in peer_side.jsep.remote_candidates
            if entry.ufrag == ice.ufrag
            for c in entry.candidates
        }
        if missing := len(ours - known):
            sentence = f"{peer} never got {missing} of the candidates of {name}'s ICE generation in force"
            found.append(Disagreement(kind="candidates", sentence=sentence))
    return found
