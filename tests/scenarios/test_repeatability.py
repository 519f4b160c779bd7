"""Every scenario that comes with calllab, twice: what it expects holds, and both runs are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from calllab.lab.scenario import builtin_scenarios


def outcome(name: str, hash_seed: str, folder: Path) -> dict[str, Any]:
    """Return what the command says of a run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "calllab.cli", "run", name, "--json", "--out", str(folder / hash_seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.soak
@pytest.mark.parametrize("name", builtin_scenarios())
def test_every_scenario_holds_and_repeats_to_the_byte(name: str, tmp_path: Path) -> None:
    """Two processes that hash differently, and keep the machine busy for each other, give one digest."""
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(lambda hash_seed: outcome(name, hash_seed, tmp_path), ("1", "2"))
    assert first["holds"], [each for each in first["expectations"] if not each["holds"]]
    assert first == second
