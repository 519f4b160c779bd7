"""Scenarios as plain data, small and valid, to be changed in one place."""

from __future__ import annotations

from typing import Any


def plain(**changes: Any) -> dict[str, Any]:
    """Return a valid scenario as plain data, with some members replaced."""
    made: dict[str, Any] = {
        "title": "a test",
        "duration_s": 10,
        "peers": {"alice": {}, "bob": {}},
        "timeline": [{"do": "call", "by": "alice", "to": "bob"}],
    }
    return made | changes


def call_and(*actions: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a timeline of a call and then these actions."""
    return [{"do": "call", "by": "alice", "to": "bob"}, *actions]
