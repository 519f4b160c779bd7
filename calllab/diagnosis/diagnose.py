"""From a recording to its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from calllab.diagnosis.blackout import find_blackouts
from calllab.diagnosis.delay import find_delay
from calllab.diagnosis.glare import find_glare
from calllab.diagnosis.loss import find_loss
from calllab.diagnosis.model import FORMAT_VERSION, Diagnosis, Finding, Verdict
from calllab.diagnosis.series import CallSeries, calls_of
from calllab.lab import Recording

__all__ = ["DETECTORS", "diagnose"]

DETECTORS: Sequence[Callable[[CallSeries], Iterator[Finding]]] = (
    find_glare,
    find_blackouts,
    find_loss,
    find_delay,
)
"""What is looked for: each detector takes one call and yields what it finds."""

MIN_SAMPLES = 3

# Findings that were dealt with as they should be: nobody heard or saw anything of them.
_HARMLESS = frozenset({"glare-resolved"})
_FATAL = frozenset({"glare-unresolved"})


def diagnose(recording: Recording, *, source: str = "") -> Diagnosis:
    """Say what was wrong with the calls of a recording.

    Reads events and statistics alone, never the truth that was recorded beside them.

    :param source: where the recording came from, for the reader.
    """
    calls = calls_of(recording)
    findings = sorted(
        (finding for call in calls for detect in DETECTORS for finding in detect(call)),
        key=lambda finding: (finding.onset_s, finding.cause),
    )
    return Diagnosis(
        version=FORMAT_VERSION,
        source=source,
        duration_s=recording.duration_s,
        peers=recording.peers,
        verdict=_verdict(calls, findings),
        findings=tuple(findings),
    )


def _verdict(calls: Sequence[CallSeries], findings: Sequence[Finding]) -> Verdict:
    causes = {finding.cause for finding in findings}
    if causes & _FATAL or any(_failed(call) for call in calls):
        return "failed"
    if causes - _HARMLESS:
        return "impaired"
    enough = any(len(peer.rtp) >= MIN_SAMPLES for call in calls for peer in call.peers.values())
    return "clean" if enough else "unknown"


def _failed(call: CallSeries) -> bool:
    """Whether the call ended because it could not be connected, or not be kept."""
    return any(event.name == "call-end" and event.members.get("reason") == "failed" for event in call.events)
