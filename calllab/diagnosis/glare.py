"""Glare: two offers crossed, and whether both sides came out of it."""

from __future__ import annotations

from collections.abc import Iterator

from calllab.diagnosis.model import Alternative, Evidence, Finding, Severity
from calllab.diagnosis.series import CallSeries, Event

__all__ = ["find_glare"]

# Perfect Negotiation needs one round trip of signaling; after this long something is stuck.
RESOLVED_WITHIN_S = 5.0


def find_glare(call: CallSeries) -> Iterator[Finding]:
    """Find collisions of offers and tell whether both sides were stable soon after."""
    collisions = list(_collisions(call))
    while collisions:
        first = collisions[0]
        together = [event for event in collisions if event.t_s - first.t_s < RESOLVED_WITHIN_S]
        collisions = collisions[len(together) :]
        if (finding := _finding(call, together)) is not None:
            yield finding


def _collisions(call: CallSeries) -> Iterator[Event]:
    """Yield the moments at which a peer got an offer while its own was pending."""
    state: dict[str, str] = {}
    for event in call.events:
        if event.name == "signalingstatechange":
            state[event.peer] = str(event.members.get("state"))
        elif event.name == "offer-collision" or (
            # Peers that do not say so themselves: an imported dump, or another implementation.
            event.name == "setRemoteDescription"
            and event.members.get("type") == "offer"
            and "error" in event.members
            and state.get(event.peer) == "have-local-offer"
        ):
            yield event


def _finding(call: CallSeries, collisions: list[Event]) -> Finding | None:
    seen_s = collisions[0].t_s
    began_s = max(
        (
            event.t_s
            for event in call.events
            if event.name in ("negotiationneeded", "setLocalDescription")
            and event.t_s <= seen_s
            and event.peer == collisions[0].peer
        ),
        default=seen_s,
    )
    soon = [event for event in call.events if seen_s <= event.t_s <= seen_s + RESOLVED_WITHIN_S]
    ignored = [event.peer for event in soon if event.name == "offer-ignored"]
    rolled_back = [event.peer for event in soon if event.name == "rollback"]
    errors = [
        event
        for event in soon
        if event.name in ("setRemoteDescription", "setLocalDescription") and "error" in event.members
    ]
    stable_s = _both_stable(call, seen_s)
    if stable_s is None and not errors and call.end_s < seen_s + RESOLVED_WITHIN_S:
        return None  # the call was over before anybody could tell
    if stable_s is None or errors:
        return _unresolved(call, collisions, began_s, errors)
    took_s = stable_s - began_s
    who = (
        f"{ignored[0]} ignored the other offer and {rolled_back[0]} took its own back"
        if ignored and rolled_back
        else "one side gave way"
    )
    return Finding(
        cause="glare-resolved",
        direction="signaling",
        onset_s=began_s,
        end_s=stable_s,
        severity=Severity(took_s, "s", (took_s, took_s)),
        confidence=0.99 if ignored and rolled_back else 0.8,
        evidence=(
            *(Evidence("offer-collision", 1.0, "", event.t_s, event.peer) for event in collisions),
            *(Evidence("offer-ignored", 1.0, "", seen_s, peer) for peer in ignored),
            *(Evidence("rollback", 1.0, "", seen_s, peer) for peer in rolled_back),
        ),
        alternatives=(
            Alternative("glare-unresolved", f"both sides were stable {took_s * 1000:.0f} ms later"),
        ),
        advice="Nothing to do: Perfect Negotiation dealt with it.",
        summary=f"Two offers crossed at {began_s:.1f} s; {who}; settled in {took_s * 1000:.0f} ms.",
    )


def _both_stable(call: CallSeries, seen_s: float) -> float | None:
    """Return when all peers were stable after a collision; None if that took too long."""
    state: dict[str, str] = {}
    for event in call.events:
        if event.t_s > seen_s + RESOLVED_WITHIN_S:
            break
        if event.name != "signalingstatechange":
            continue
        state[event.peer] = str(event.members.get("state"))
        if event.t_s >= seen_s and all(value == "stable" for value in state.values()):
            return event.t_s
    return None


def _unresolved(call: CallSeries, collisions: list[Event], began_s: float, errors: list[Event]) -> Finding:
    end_s = min(call.end_s, max(event.t_s for event in call.events))
    said = "; ".join(
        f"{event.peer}: {event.name} failed with {event.members.get('error')}" for event in errors[:2]
    )
    return Finding(
        cause="glare-unresolved",
        direction="signaling",
        onset_s=began_s,
        end_s=end_s,
        severity=None,
        confidence=0.95 if errors else 0.85,
        evidence=(
            *(Evidence("offer-collision", 1.0, "", event.t_s, event.peer) for event in collisions),
            *(Evidence(f"{e.name}.{e.members.get('error')}", 1.0, "", e.t_s, e.peer) for e in errors),
        ),
        alternatives=(Alternative("signaling-loss", "both offers arrived: the collision was seen"),),
        advice=(
            "Use Perfect Negotiation on both sides: exactly one polite peer, implicit rollback, and all "
            "three flags of the W3C example."
        ),
        summary=(
            f"Two offers crossed at {began_s:.1f} s and negotiation did not recover"
            + (f" ({said})." if said else f" within {RESOLVED_WITHIN_S:g} s.")
        ),
    )
