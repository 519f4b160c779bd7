"""The files that describe the environment say the same thing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent

# conda-forge's own names for what PyPI calls otherwise.
CONDA_NAMES = {
    "matplotlib-base": "matplotlib",
    "playwright-python": "playwright",
    "prometheus_client": "prometheus-client",
}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The [project] table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def declared(project: dict[str, Any]) -> dict[str, Requirement]:
    """Return every requirement of pyproject.toml, the development ones too."""
    texts = project["dependencies"] + project["optional-dependencies"]["dev"]
    return {canonicalize_name(r.name): r for r in map(Requirement, texts)}


def locked() -> dict[str, str]:
    """Return names and versions of the lock file."""
    lines = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lines, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def test_environment_yml_equals_pyproject(project: dict[str, Any]) -> None:
    """environment.yml names the same packages with the same bounds as pyproject.toml."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    entries = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    conda: dict[str, str] = {}
    for entry in entries:
        match = re.fullmatch(r"([a-z0-9_-]+)(.*)", entry)
        assert match is not None, entry
        conda[canonicalize_name(CONDA_NAMES.get(match[1], match[1]))] = match[2]
    assert conda.pop("python") == project["requires-python"]
    conda.pop("pip")
    wanted = declared(project)
    assert conda.keys() == wanted.keys()
    for name, bounds in conda.items():
        assert Requirement(f"x{bounds}").specifier == wanted[name].specifier, name


def test_the_lock_satisfies_pyproject(project: dict[str, Any]) -> None:
    """Every requirement is locked at a version within its bounds."""
    pins = locked()
    for name, requirement in declared(project).items():
        assert requirement.specifier.contains(pins[name]), (name, pins[name])


def test_the_lock_has_hashes_and_names_no_host() -> None:
    """Each locked package has hashes, and no address of where to get it."""
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in block, block.splitlines()[0]
