"""Traces that a scenario names by file, put into it as text before it is checked.

A scenario may come from a stranger, so it can have nothing read but regular files of its own folder and of
those below, however a path or a symbolic link is written; and all that it has read together is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from calllab.errors import InvalidSetting, ScenarioError
from calllab.network import read_trace

__all__ = ["put_in_traces"]

MAX_TEXT_BYTES: Final = 8 * 1024 * 1024
"""The most that the traces of one scenario have together, each counted as often as it is named."""


def put_in_traces(data: Any, folder: Path) -> None:
    """Put ``trace`` in place of each ``trace_file`` in a scenario's plain data, which is changed.

    Raises :exc:`~calllab.errors.ScenarioError` with path, value and reason for a file that cannot be taken.

    :param folder: that of the scenario; the paths are relative to it.
    """
    known: dict[str, str] = {}
    room = MAX_TEXT_BYTES
    for path, link in _links(data, "$"):
        name = link["trace_file"]
        if not isinstance(name, str):
            continue  # refused later, as any value of a wrong type
        path += ".trace_file"
        if link.get("trace") is not None:
            raise ScenarioError(f"{path}: {name!r:.100} with a trace: give one of the two")
        if name not in known:
            known[name] = _read(path, name, folder)
        room -= len(known[name])
        if room < 0:
            raise ScenarioError(
                f"{path}: expected at most {MAX_TEXT_BYTES // 2**20} MiB of traces in one scenario, together"
            )
        del link["trace_file"]
        link["trace"] = known[name]


def _links(data: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each mapping that names a file, with its path."""
    if isinstance(data, dict):
        if "trace_file" in data:
            yield path, data
        for name, value in data.items():
            yield from _links(value, f"{path}.{name}")
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _links(value, f"{path}[{index}]")


def _read(path: str, name: str, folder: Path) -> str:
    try:
        file = (folder / name).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise ScenarioError(
                f"{path}: {name!r:.100} leaves the folder of the scenario: put the file there, or below"
            )
        if file.exists() and not file.is_file():
            raise ScenarioError(f"{path}: {name!r:.100} is no regular file")
        return read_trace(file)
    except InvalidSetting as exc:
        raise ScenarioError(f"{path}: {exc}") from exc
    except (OSError, ValueError, RuntimeError) as exc:  # what is no path at all, links that go round
        raise ScenarioError(f"{path}: {name!r:.100} is no path of a file: {exc}") from exc
