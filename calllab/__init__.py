"""calllab: a laboratory for WebRTC calls.

Make a call, break it on purpose, see why, keep the evidence.  The names below load on first use, so that
importing the package (as the service does, for :mod:`calllab.protocol`) costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calllab.lab import Lab, Recording
    from calllab.lab.scenario import load_scenario, run

# Of the layers above report, which asks for the version here, nothing is imported, even for type checkers.

__all__ = ["Lab", "Recording", "Trial", "__version__", "load_scenario", "run", "try_scenario"]

__version__ = "0.1.0"

_HOMES = {
    "Lab": "calllab.lab",
    "Recording": "calllab.lab",
    "Trial": "calllab.trial",
    "load_scenario": "calllab.lab.scenario",
    "run": "calllab.lab.scenario",
    "try_scenario": "calllab.trial",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'calllab' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
