"""Whether what the application wants differs from what is negotiated (webrtc-pc section 4.7.3)."""

from __future__ import annotations

from calllab.rtc.jsep_state import Applied, JsepState, Line, TransceiverState
from calllab.rtc.parameters import intersect, reverse, sends

__all__ = ["negotiation_needed"]


def negotiation_needed(state: JsepState) -> bool:
    """Return whether an offer would change anything; asked while the signaling state is stable."""
    if state.ice_to_replace:
        return True
    if state.wants_data and not state.has_data:
        return True
    if any(_is_orphaned(state, line) for line in state.session.lines):
        return True
    return any(_needs(state, transceiver) for transceiver in state.transceivers)


def _is_orphaned(state: JsepState, line: Line) -> bool:
    """Whether the transceiver of an m-line went between the creation of its offer and the setting."""
    return isinstance(line.owner, int) and not line.rejected and state.transceiver(line.owner) is None


def _needs(state: JsepState, transceiver: TransceiverState) -> bool:
    local, remote = state.current_local, state.current_remote
    section = local.session.section(transceiver.mid) if local is not None else None
    answer = remote.session.section(transceiver.mid) if remote is not None else None
    if transceiver.stopped:
        # A rejected section in either description says it to both.
        return section is not None and not section.rejected and (answer is None or not answer.rejected)
    if transceiver.stopping:
        return True
    if local is None or section is None:
        return True
    if sends(transceiver.direction) and _announced(local, transceiver) != frozenset(transceiver.stream_ids):
        return True
    theirs = reverse(answer.direction) if answer is not None else None
    if local.type == "offer":
        return transceiver.direction not in (section.direction, theirs)
    return section.direction != (
        intersect(transceiver.direction, theirs) if theirs is not None else transceiver.direction
    )


def _announced(local: Applied, transceiver: TransceiverState) -> frozenset[str] | None:
    """Return the streams that our section names; None if it does not announce a sender at all.

    They are a set: to name them in another order changes nothing.
    """
    section = local.session.section(transceiver.mid)
    return frozenset(section.stream_ids) if section is not None and section.msids else None
