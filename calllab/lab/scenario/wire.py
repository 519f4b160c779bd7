"""What a run in a child process and its parent say to each other, a line of JSON each."""

from __future__ import annotations

import msgspec

from calllab.lab.kinds import ClockKind, NetworkKind
from calllab.lab.scenario.model import Scenario
from calllab.lab.scenario.progress import Progress

__all__ = ["Failed", "Order", "Report"]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is to do; the only line on its standard input."""

    scenario: Scenario
    time: ClockKind
    network: NetworkKind
    seed: int | None
    out: str


class Failed(msgspec.Struct, frozen=True):
    """Why a run failed."""

    kind: str
    """The name of the exception's class."""
    message: str


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the child's standard output."""

    progress: Progress | None = None
    failed: Failed | None = None
