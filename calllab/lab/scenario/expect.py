"""What a scenario expects of its run."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from calllab.lab.causes import Cause
from calllab.lab.scenario.times import AtSeconds

__all__ = [
    "Connection",
    "Expectations",
    "FindingExpectation",
    "GlareExpectation",
    "Measure",
    "PairExpectation",
    "Range",
]

Connection: TypeAlias = Literal["connected", "lost", "never"]
"""``connected``: media could flow, and the call did not fail afterwards; ``lost``: it was connected and then
failed; ``never``: it never was."""

Scalar: TypeAlias = float | str | bool

CandidateType: TypeAlias = Literal["host", "srflx", "prflx", "relay"]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of the expectations."""


class Range(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Numbers from ``min`` to ``max``, both included."""

    min: float | None = None
    max: float | None = None

    def __contains__(self, value: float) -> bool:
        """Whether ``value`` is within."""
        return (self.min is None or self.min <= value) and (self.max is None or value <= self.max)

    def __str__(self) -> str:
        """Say the range in words."""
        if self.min is None or self.max is None:
            return (
                f"at least {self.min:g}"
                if self.min is not None
                else "any"
                if self.max is None
                else f"at most {self.max:g}"
            )
        return f"{self.min:g} to {self.max:g}"


class FindingExpectation(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A finding that the diagnosis must contain."""

    cause: Cause
    direction: str | None = None
    """As in the diagnosis: ``alice->bob``, ``both``, ``signaling``; None: any."""
    onset_s: Range | None = None
    end_s: Range | None = None
    severity: Range | None = None
    """In the unit of the finding."""


class GlareExpectation(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How collisions of offers must have gone."""

    resolved: bool = True
    """Whether exactly one side ignored, the other rolled back, and both were stable in the end."""
    ignored_by: str | None = None
    rolled_back_by: str | None = None


class PairExpectation(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The candidate pair that carried the media of one side at the end."""

    peer: str
    local: CandidateType | None = None
    remote: CandidateType | None = None


class Measure(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A number read from the recording, and what it must be.

    Either ``type`` (statistics) or ``event`` (events) says where it is read.  ``take`` makes one number of
    the values of each stream over time, ``across`` one of those of several streams.
    """

    peer: str
    """Whose recording is read."""
    type: str | None = None
    """A W3C RTCStatsType, like ``inbound-rtp``."""
    event: str | None = None
    """The name of an event, like ``playout`` or ``addIceCandidate``."""
    where: dict[str, Scalar] = {}
    """Members and the values that they must have for an entry to count, like ``{kind: audio}``."""
    member: str | None = None
    """The member that is read; ``take: count`` needs none."""
    take: Literal["last", "first", "max", "min", "mean", "change", "rate", "count"] = "last"
    """``change``: the last minus the first; ``rate``: the change per second; ``count``: how many entries."""
    across: Literal["sum", "max", "min", "mean"] = "sum"
    from_s: AtSeconds = 0.0
    to_s: AtSeconds | None = None
    op: Literal["<", "<=", ">", ">=", "==", "!="]
    value: float


class Expectations(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What must hold of the recording and its diagnosis."""

    connection: Connection | None = None
    end_reason: dict[str, str] = {}
    """Why the last call ended, per peer: ``hung-up``, ``remote-hung-up``, ``failed``, ``missed``..."""
    verdict: list[Literal["clean", "impaired", "failed", "unknown"]] = []
    """The verdicts of the diagnosis that are right; empty: any."""
    glare: GlareExpectation | None = None
    pairs: list[PairExpectation] = []
    findings: list[FindingExpectation] = []
    not_findings: list[Cause] = []
    """Causes that the diagnosis must not find."""
    no_other_findings: bool = False
    """Whether the diagnosis must find nothing beside ``findings``."""
    metrics: Annotated[list[Measure], msgspec.Meta(max_length=200)] = []
