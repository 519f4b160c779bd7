"""Every notebook runs headless from top to bottom, as `jupyter nbconvert --execute` runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    """The parametrised test below is not empty."""
    assert NOTEBOOKS


@pytest.mark.timeout(300)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    """nbconvert executes the notebook without an error and writes HTML with its pictures."""
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--execute", "--to", "html"]
    done = subprocess.run(
        [*command, "--output-dir", str(tmp_path), str(notebook)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / f"{notebook.stem}.html").read_text()
    assert page.count("data:image/png;base64,") >= 2
