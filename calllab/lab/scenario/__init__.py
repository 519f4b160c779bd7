"""Scenarios: calls as data, checked before anything starts, and run on any clock and network."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calllab.lab.scenario.judgement import Judgement, judge
    from calllab.lab.scenario.library import builtin_scenarios, load_scenario, scenario_from
    from calllab.lab.scenario.model import Scenario
    from calllab.lab.scenario.process import run
    from calllab.lab.scenario.progress import Progress, ProgressListener
    from calllab.lab.scenario.runner import run_scenario
    from calllab.lab.scenario.schema import json_schema

__all__ = [
    "Judgement",
    "Progress",
    "ProgressListener",
    "Scenario",
    "builtin_scenarios",
    "json_schema",
    "judge",
    "load_scenario",
    "run",
    "run_scenario",
    "scenario_from",
]

# Scenarios are read and checked without aiortc: each name loads only what it needs.
_HOMES = {
    "Judgement": "judgement",
    "Progress": "progress",
    "ProgressListener": "progress",
    "Scenario": "model",
    "builtin_scenarios": "library",
    "json_schema": "schema",
    "judge": "judgement",
    "load_scenario": "library",
    "run": "process",
    "run_scenario": "runner",
    "scenario_from": "library",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'calllab.lab.scenario' has no attribute {name!r}")
    return getattr(import_module(f"calllab.lab.scenario.{_HOMES[name]}"), name)
