"""Diagnosis: from a recording to findings with cause, direction, onset, end, severity and evidence."""

from __future__ import annotations

from calllab.diagnosis.diagnose import DETECTORS, diagnose
from calllab.diagnosis.model import Alternative, Cause, Diagnosis, Evidence, Finding, Severity, Verdict

__all__ = [
    "DETECTORS",
    "Alternative",
    "Cause",
    "Diagnosis",
    "Evidence",
    "Finding",
    "Severity",
    "Verdict",
    "diagnose",
]
