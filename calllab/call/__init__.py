"""Calls: ring, accept, reject, hang up, busy, missed, call glare."""

from __future__ import annotations

from calllab.call.call import Call
from calllab.call.core import CallCore, CallState, EndReason
from calllab.call.phone import Phone

__all__ = ["Call", "CallCore", "CallState", "EndReason", "Phone"]
