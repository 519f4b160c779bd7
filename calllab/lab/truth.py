"""What the laboratory did, in the words of a recording's ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from calllab.call import Call
from calllab.media import PlayoutSummary
from calllab.network import NetworkEvent
from calllab.signaling import SignalingEvent

__all__ = ["fault_truths", "playout_members", "signaling_truths"]


def fault_truths(
    event: NetworkEvent, direction: str
) -> Iterator[tuple[Literal["planned", "realised"], Mapping[str, Any]]]:
    """Yield (``planned`` or ``realised``, fault) for what happened to a network interface."""
    if event.event == "network-changed":
        yield (
            "planned",
            {
                "cause": "blackout",
                "direction": "both",
                "at_s": event.at_s,
                "for_s": None,
                "settings": {"networkChanged": direction.split("->")[0]},
            },
        )
    if event.fault is None or event.event not in ("planned", "ended"):
        return
    fault = event.fault
    for cause in fault.causes:
        truth: dict[str, Any] = {
            "id": fault.id,
            "cause": cause,
            "direction": direction,
            "at_s": fault.at_s,
            "for_s": fault.for_s,
            "settings": dict(fault.changes),
        }
        if event.event == "planned":
            yield "planned", truth
        else:
            counted = event.realised
            truth["for_s"] = event.at_s - fault.at_s
            if counted is not None:
                truth["offered"], truth["delivered"] = counted.offered, counted.delivered
                truth["lossShare"] = counted.loss_share
            yield "realised", truth


def signaling_truths(
    event: SignalingEvent,
) -> Iterator[tuple[Literal["planned", "realised"], Mapping[str, Any]]]:
    """Yield (``planned`` or ``realised``, fault) for what happened to signaling."""
    if event.event not in ("planned", "ended"):
        return
    fault = event.planned.fault
    truth: dict[str, Any] = {
        "id": event.planned.id,
        "cause": fault.cause,
        "direction": "signaling",
        "at_s": event.planned.at_s,
        "for_s": fault.for_s,
        "settings": fault.settings(),
    }
    if event.event == "planned":
        yield "planned", truth
    else:
        yield "realised", truth | {"for_s": event.at_s - event.planned.at_s, "count": event.count}


def playout_members(call: Call, track_id: str, played: PlayoutSummary) -> dict[str, Any]:
    """Return the members of a ``playout`` event: what a person heard or saw in one interval."""
    members: dict[str, Any] = {
        "callId": call.id,
        "kind": played.kind,
        "trackId": track_id,
        "frames": played.frames,
        "maxGap_s": played.max_gap_s,
        "frozen_s": played.frozen_s,
        "freezes": played.freezes,
        "outOfOrder": played.out_of_order,
        "missing": played.missing,
        "duplicates": played.duplicates,
    }
    if played.latency_s is not None:
        members["latency_s"] = played.latency_s
    return members
