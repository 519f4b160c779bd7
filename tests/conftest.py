"""Fixtures for every test: nothing may be left behind."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.leaks import Census, assert_nothing_left, guard_tasks

# A deadline for each example measures the machine, not the code; the suite has its own timeout.
settings.register_profile("calllab", deadline=None)
settings.load_profile("calllab")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let every coroutine test check its own tasks."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = guard_tasks(item.obj)


@pytest.fixture(autouse=True)
def nothing_left_behind(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """No socket, thread, child process or temporary file outlives a test."""
    temporary = tmp_path_factory.mktemp("tempdir")
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = Census.take(temporary)
    yield
    assert_nothing_left(before, temporary)
