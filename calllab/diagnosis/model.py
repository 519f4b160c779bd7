"""What a diagnosis says: findings, each with its evidence."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from calllab.lab.causes import Cause

__all__ = ["Alternative", "Cause", "Diagnosis", "Evidence", "Finding", "Severity", "Verdict"]

FORMAT_VERSION = 1

Verdict: TypeAlias = Literal["clean", "impaired", "failed", "unknown"]


class Severity(msgspec.Struct, frozen=True):
    """How bad it was, with the interval that holds the true value in 95 of 100 cases."""

    value: float
    unit: str
    ci95: tuple[float, float]


class Evidence(msgspec.Struct, frozen=True):
    """One number of the recording that a finding rests on."""

    metric: str
    value: float
    unit: str
    t_s: float
    peer: str


class Alternative(msgspec.Struct, frozen=True):
    """What else it could have been, and why it was not."""

    cause: str
    why_not: str


class Finding(msgspec.Struct, frozen=True):
    """One thing that was wrong, or that had to be dealt with.

    ``direction`` is ``alice->bob``, ``both``, ``signaling``, ``in`` or ``out`` (when one side alone was
    recorded), or None where it cannot be told.  Times are seconds from the start of the recording.
    """

    cause: Cause
    direction: str | None
    onset_s: float
    end_s: float
    severity: Severity | None
    confidence: float
    evidence: tuple[Evidence, ...]
    alternatives: tuple[Alternative, ...]
    advice: str
    # Not part of the JSON contract: what a person reads.
    summary: str = ""

    @property
    def sentence(self) -> str:
        """The finding in one sentence for people."""
        return self.summary


class Diagnosis(msgspec.Struct, frozen=True):
    """What was wrong with a recorded call."""

    version: int
    source: str
    duration_s: float
    peers: tuple[str, ...]
    verdict: Verdict
    findings: tuple[Finding, ...]

    def to_json(self) -> str:
        """Return the diagnosis as JSON, in its fixed shape."""
        plain = msgspec.to_builtins(self)
        for finding in plain["findings"]:
            del finding["summary"]
        return msgspec.json.format(msgspec.json.encode(plain), indent=2).decode()
