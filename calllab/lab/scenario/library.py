"""The scenarios that come with calllab, and how a name or a path becomes a scenario."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from calllab.errors import ScenarioError
from calllab.lab.scenario.check import check
from calllab.lab.scenario.model import Scenario
from calllab.lab.scenario.override import overridden
from calllab.lab.scenario.shape import shaped
from calllab.lab.scenario.text import MAX_BYTES, parse_text
from calllab.lab.scenario.trace_files import put_in_traces

__all__ = ["builtin_scenarios", "load_scenario", "scenario_from"]

_PACKAGE = Path(__file__).resolve().parents[2]
# Installed from a wheel the data lies inside the package, in a checkout beside it.
_FOLDERS = (_PACKAGE / "data" / "scenarios", _PACKAGE.parent / "data" / "scenarios")


def builtin_scenarios() -> dict[str, Path]:
    """Return the scenarios that come with calllab, by name."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_scenario(source: str | Path, *, overrides: Iterable[str] = ()) -> Scenario:
    """Return the scenario in a file, or the one of this name that comes with calllab, fully checked.

    :param overrides: assignments ``path=value`` that change it first, see
        :func:`~calllab.lab.scenario.override.overridden`.

    Raises :exc:`~calllab.errors.ScenarioError` with path, value and reason for everything that cannot be.
    """
    path = _find(source)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ScenarioError(f"{path} cannot be read: {exc.strerror}") from exc
    data = parse_text(text, source=str(path))
    return scenario_from(data, overrides=overrides, source=str(path), folder=path.parent)


def scenario_from(
    data: Any, *, overrides: Iterable[str] = (), source: str = "", folder: Path | None = None
) -> Scenario:
    """Return plain data as a scenario, fully checked; raises ScenarioError as :func:`load_scenario` does.

    :param folder: where files that it names are; None: it can name none.
    """
    if not isinstance(data, Mapping):
        raise ScenarioError(
            f"{source or 'the scenario'} holds no mapping: it takes title, peers, timeline..."
        )
    try:
        changed = overridden(dict(data), overrides)
        if folder is not None:
            put_in_traces(changed, folder)
        return check(shaped(changed))
    except ScenarioError as exc:
        if not source:
            raise
        raise ScenarioError(f"{source}: {exc}", problems=exc.problems) from exc.__cause__


def _find(source: str | Path) -> Path:
    if os.path.isfile(source):  # unlike Path.is_file, it takes whatever is no path, too
        return Path(source)
    known = builtin_scenarios()
    if str(source) in known:
        return known[str(source)]
    if os.path.exists(source):
        raise ScenarioError(f"{source} is no regular file: give a file with a scenario, or a name")
    near = difflib.get_close_matches(str(source), known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`calllab run --list` names those that there are"
    raise ScenarioError(f"there is no scenario {str(source)!r:.100}, neither as a file nor as a name: {hint}")
