"""What a ladder diagram shows of a call's signaling: messages, and what the peers did about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from calllab.lab import Recording
from calllab.report.traces import call_ids

__all__ = ["Arrow", "Ladder", "Mark", "crossed", "ladder_of"]

# Candidates of one sender that follow each other this closely are one arrow, if nothing of it comes between.
BUNDLE_S: Final = 0.15


@dataclass(frozen=True)
class Arrow:
    """A message, or several candidates in a row; ``received_s`` is None if it never arrived."""

    kind: str
    sender: str
    receiver: str
    sent_s: float
    received_s: float | None
    count: int = 1
    glare: bool = False
    outcome: str = ""
    # Whether the receiver was recorded, so that a message without arrival is known to be lost.
    watched: bool = True

    @property
    def label(self) -> str:
        """What is written at the arrow."""
        name = self.kind.removeprefix("call-").replace("ice-", "")
        if self.count > 1:
            name = f"{name}s ×{self.count}"
        return f"{name}, {self.outcome}" if self.outcome else name

    @property
    def lost(self) -> bool:
        """Whether the message was sent to somebody who was there and did not get it."""
        return self.received_s is None and self.watched


@dataclass(frozen=True)
class Mark:
    """Something that a peer did or became; ``state`` is the connection state, if it is one."""

    peer: str
    t_s: float
    text: str
    glare: bool = False
    state: str = ""


@dataclass(frozen=True)
class Ladder:
    """The peers of a call, its messages and marks, each in the order of time."""

    call_id: str | None
    peers: tuple[str, ...]
    arrows: tuple[Arrow, ...]
    marks: tuple[Mark, ...]


def ladder_of(recording: Recording, call_id: str | None = None) -> Ladder:
    """Return the ladder of a call; None: of the first one.

    Raises LookupError if there is no such call.
    """
    known = call_ids(recording)
    if call_id is not None and call_id not in known:
        raise LookupError(f"the recording has no call {call_id!r}: it has {', '.join(known) or 'none'}")
    chosen = call_id if call_id is not None else next(iter(known), None)
    rows = [row for row in recording.event_rows if chosen is not None and row.get("callId") == chosen]
    rows.sort(key=lambda row: float(row["t_s"]))
    named = (str(name) for row in rows for name in (row["peer"], row.get("to"), row.get("from")) if name)
    order = {name: number for number, name in enumerate(recording.peers)}
    peers = sorted(dict.fromkeys(named), key=lambda name: order.get(name, len(order)))
    return Ladder(chosen, tuple(peers), tuple(_arrows(rows)), tuple(_marks(rows)))


def _arrows(rows: Sequence[Mapping[str, Any]]) -> list[Arrow]:
    watched = {row["peer"] for row in rows}
    arrows = _told(_paired(rows, watched), rows)
    bundled: list[Arrow] = []
    latest: dict[str, int] = {}
    for arrow in arrows:
        number = latest.get(arrow.sender)
        if number is not None and _bundle(bundled[number], arrow):
            last = bundled[number]
            bundled[number] = replace(last, count=last.count + 1, received_s=arrow.received_s)
        else:
            latest[arrow.sender] = len(bundled)
            bundled.append(arrow)
    return bundled


def _paired(rows: Sequence[Mapping[str, Any]], watched: set[str]) -> list[Arrow]:
    """Join what was sent with what arrived, by the id that the sender gave it."""
    arrivals: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row["event"] == "signal-received":
            arrivals.setdefault(_key(row, row.get("from"), row["peer"]), []).append(float(row["t_s"]))
    arrows: list[Arrow] = []
    for row in rows:
        if row["event"] == "signal-sent" and row.get("to"):
            arrived = arrivals.get(key := _key(row, row["peer"], row["to"]))
            received_s = arrived.pop(0) if arrived else None
            sent_s = float(row["t_s"])
            arrows.append(Arrow(key[3], key[0], key[1], sent_s, received_s, watched=key[1] in watched))
    # What arrived and was not seen to be sent: its sender was not recorded, or it arrived twice.
    arrows += [
        Arrow(kind, sender, receiver, t_s, t_s, outcome="again" if sender in watched else "")
        for (sender, receiver, _, kind), moments in arrivals.items()
        for t_s in moments
        if sender not in ("None", receiver)
    ]
    return sorted(arrows, key=lambda arrow: arrow.sent_s)


def _key(row: Mapping[str, Any], sender: object, receiver: object) -> tuple[str, str, str, str]:
    return str(sender), str(receiver), str(row.get("id")), str(row.get("type"))


def _told(arrows: list[Arrow], rows: Sequence[Mapping[str, Any]]) -> list[Arrow]:
    """Say of the offers that crossed that they did, and which was ignored and which rolled back."""
    told = list(arrows)
    offers = [number for number, arrow in enumerate(told) if arrow.kind == "call-offer"]
    for number in offers:
        if any(crossed(arrows[number], arrows[other]) for other in offers):
            told[number] = replace(told[number], glare=True)
    for row in rows:
        t_s, peer = float(row["t_s"]), row["peer"]
        if row["event"] == "offer-ignored":
            ours = [
                number
                for number in offers
                if told[number].receiver == peer
                and (arrived_s := told[number].received_s) is not None
                and arrived_s <= t_s
            ]
            outcome = "ignored"
        elif row["event"] == "rollback":
            ours = [number for number in offers if told[number].sender == peer and told[number].sent_s <= t_s]
            outcome = "taken back"
        else:
            continue
        # In a crossing both happen to the same offer: that it was ignored is what the other side did.
        if ours and not told[ours[-1]].outcome:
            told[ours[-1]] = replace(told[ours[-1]], outcome=outcome)
    return told


def crossed(one: Arrow, other: Arrow) -> bool:
    """Whether each was sent before the other had arrived."""
    if one.sender == other.sender or one.received_s is None or other.received_s is None:
        return False
    return one.sent_s < other.received_s and other.sent_s < one.received_s


def _bundle(last: Arrow, arrow: Arrow) -> bool:
    return (
        last.kind == arrow.kind == "call-ice-candidate"
        and last.receiver == arrow.receiver
        and last.lost == arrow.lost
        and last.outcome == arrow.outcome
        and arrow.sent_s - (last.received_s or last.sent_s) < BUNDLE_S
    )


def _marks(rows: Iterable[Mapping[str, Any]]) -> list[Mark]:
    marks: list[Mark] = []
    for row in rows:
        peer, t_s = row["peer"], float(row["t_s"])
        match row["event"]:
            case "offer-ignored":
                marks.append(Mark(peer, t_s, "ignores the offer", glare=True))
            case "rollback":
                marks.append(Mark(peer, t_s, "rolls back", glare=True))
            case "restartIce":
                marks.append(Mark(peer, t_s, "restarts ICE"))
            case "connectionstatechange":
                state = str(row.get("state"))
                marks.append(Mark(peer, t_s, state, state=state))
            case "call-end":
                marks.append(Mark(peer, t_s, f"ended: {row.get('reason')}", state="closed"))
            case "setLocalDescription" | "setRemoteDescription" | "addIceCandidate" if "error" in row:
                marks.append(Mark(peer, t_s, f"{row['event']}: {row['error']}", state="failed"))
            case _:
                pass
    return marks
