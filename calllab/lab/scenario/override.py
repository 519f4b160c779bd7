"""Changing one value of a scenario before it is checked, as ``--set faults[0].loss=0.2`` does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from typing import Any, Final

from calllab.errors import ScenarioError
from calllab.lab.scenario.text import parse_text

__all__ = ["overridden"]

_PATH: Final = re.compile(r"[^.\[\]=\s]+(?:\[\d+\])*(?:\.[^.\[\]=\s]+(?:\[\d+\])*)*")
_STEP: Final = re.compile(r"[^.\[\]]+|\[\d+\]")


def overridden(data: Any, assignments: Iterable[str]) -> Any:
    """Return a copy of plain scenario data with ``path=value`` assignments applied in their order.

    A path names members and elements, as in ``peers.alice.video.width`` or ``faults[0].loss``; the value is
    written as in the file.  Mappings on the way are made where there are none, and an element right behind
    the end of a list is added.  Whether the result makes sense is checked afterwards, as for any scenario.

    Raises :exc:`~calllab.errors.ScenarioError` with the assignment and what is wrong with it.
    """
    changed = deepcopy(data)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        path = path.strip().removeprefix("$.")
        if not equals or not _PATH.fullmatch(path):
            raise ScenarioError(
                f"--set {assignment!r:.100}: write path=value, as in faults[0].loss=0.2 or seed=3"
            )
        value = parse_text(text, source=f"--set {path}")
        steps = [int(step[1:-1]) if step.startswith("[") else step for step in _STEP.findall(path)]
        _assign(changed, steps, value, path)
    return changed


def _assign(data: Any, steps: list[str | int], value: Any, path: str) -> None:
    place = data
    so_far = "$"
    for index, step in enumerate(steps):
        following: Any = value if index == len(steps) - 1 else ([] if _is_index(steps[index + 1]) else {})
        _check_fits(place, step, so_far, path)
        is_last = index == len(steps) - 1
        if isinstance(place, list):
            assert isinstance(step, int)
            if step == len(place):
                place.append(following)
            elif is_last:
                place[step] = following
        elif is_last or place.get(step) is None:
            place[step] = following
        place = place[step]
        so_far += f"[{step}]" if isinstance(step, int) else f".{step}"


def _check_fits(place: Any, step: str | int, so_far: str, path: str) -> None:
    if isinstance(step, int):
        if not isinstance(place, list):
            raise ScenarioError(f"--set {path}: {so_far} is no list")
        if step > len(place):
            raise ScenarioError(
                f"--set {path}: {so_far} has {len(place)} elements: the next one would be [{len(place)}]"
            )
    elif not isinstance(place, dict):
        raise ScenarioError(f"--set {path}: {so_far} is no mapping, so it has no {step!r}")


def _is_index(step: str | int) -> bool:
    return isinstance(step, int)
