"""Blackout: nothing at all arrives, not even the connectivity checks.

A muted or broken sender is not this: its transport still carries checks and reports.  A hang-up is not this
either: silence counts only while the call lasts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from calllab.diagnosis.model import Alternative, Evidence, Finding, Severity
from calllab.diagnosis.series import CallSeries, Interval, PeerSeries

__all__ = ["Silence", "find_blackouts", "silences"]

# So much must be missing that it cannot be an early poll or a pause of the sender.
MIN_SILENT_S = 0.8
MIN_MISSING_PACKETS = 20


@dataclass(frozen=True)
class Silence:
    """A span in which nothing arrived at ``peer``."""

    peer: str
    from_s: float
    to_s: float
    ended: bool

    def overlaps(self, from_s: float, to_s: float) -> bool:
        """Whether the span has a moment in common with this one."""
        return self.from_s < to_s and from_s < self.to_s


def silences(call: CallSeries, peer: PeerSeries) -> list[Silence]:
    """Return the spans in which nothing arrived at ``peer`` although something had before."""
    intervals = [interval for interval in (peer.transport or peer.rtp) if interval.to_s <= call.end_s]
    found: list[Silence] = []
    run: list[Interval] = []
    heard: list[Interval] = []
    for interval in intervals:
        if not interval.received and heard:
            run.append(interval)
            continue
        if _is_silence(run, heard):
            found.append(Silence(peer.peer, _onset(peer, run[0]), _end(heard, interval), ended=True))
        run = []
        if interval.received:
            heard.append(interval)
    if _is_silence(run, heard):
        found.append(Silence(peer.peer, _onset(peer, run[0]), run[-1].to_s, ended=False))
    return found


def find_blackouts(call: CallSeries) -> Iterator[Finding]:
    """Find spans without any traffic; both ways at once is one finding."""
    by_peer = {name: silences(call, peer) for name, peer in call.peers.items()}
    paired: set[Silence] = set()
    if len(call.peers) == 2:
        one, other = by_peer.values()
        for silence in one:
            partner = next(
                (s for s in other if s not in paired and s.overlaps(silence.from_s, silence.to_s)), None
            )
            if partner is not None:
                paired |= {silence, partner}
                yield _finding(call, "both", [silence, partner])
    for spans in by_peer.values():
        for silence in spans:
            if silence not in paired:
                yield _finding(call, call.direction_to(silence.peer), [silence])


def _onset(peer: PeerSeries, first: Interval) -> float:
    last = peer.last_packet_s.get(first.to_s, first.from_s)
    return last if first.from_s - 1.5 <= last <= first.to_s else first.from_s


def _is_silence(run: list[Interval], heard: list[Interval]) -> bool:
    if not run:
        return False
    length_s = run[-1].to_s - run[0].from_s
    return length_s >= MIN_SILENT_S and length_s * _usual_rate(heard) >= MIN_MISSING_PACKETS


def _usual_rate(heard: list[Interval]) -> float:
    """Return the packets per second that arrived lately."""
    return median(interval.received / (interval.to_s - interval.from_s) for interval in heard[-10:])


def _end(heard: list[Interval], first_heard: Interval) -> float:
    """Tell from how much arrived in the first sample after the silence when in that sample it ended."""
    rate = _usual_rate(heard)
    since = first_heard.received / rate if rate else 0.0
    return max(first_heard.from_s, first_heard.to_s - since)


def _finding(call: CallSeries, direction: str, spans: list[Silence]) -> Finding:
    onset_s, end_s = min(span.from_s for span in spans), max(span.to_s for span in spans)
    took_s = end_s - onset_s
    alone = len(spans) == 1
    states = {
        event.members.get("state")
        for event in call.events
        if event.name in ("iceconnectionstatechange", "connectionstatechange")
        and onset_s <= event.t_s <= end_s + 1
    }
    restarted = any(event.name == "restartIce" and onset_s <= event.t_s <= end_s + 1 for event in call.events)
    where = "in both directions" if direction == "both" else f"from {direction.replace('->', ' to ')}"
    came_back = (
        ("it came back after an ICE restart" if restarted else "it came back by itself")
        if all(span.ended for span in spans)
        else "it did not come back before the recording of the call ended"
    )
    return Finding(
        cause="blackout",
        direction=direction,
        onset_s=onset_s,
        end_s=end_s,
        severity=Severity(took_s, "s", (max(0.0, took_s - 1.0), took_s + 1.0)),
        confidence=0.95 if {"disconnected", "failed"} & states else 0.8,
        evidence=tuple(
            Evidence("transport.packetsReceived", 0.0, "packets", span.to_s, span.peer) for span in spans
        ),
        alternatives=(
            Alternative("no-source", "a sender without media would still have sent checks and reports"),
            Alternative("one-way-media", "nothing arrived at all, not media alone")
            if alone
            else Alternative("one-way-media", "both directions were silent at the same time"),
        ),
        advice=(
            "The path itself was gone: look for a network change, a sleeping interface or a NAT that forgot "
            "the binding."
            + (
                " The ICE restart was what helped; make sure that it starts early enough."
                if restarted
                else ""
            )
        ),
        summary=f"Nothing arrived {where} for {took_s:.1f} s, from {onset_s:.1f} s on; {came_back}.",
    )
