"""The guard that every test stands under notices what it is meant to notice."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tests import leaks
from tests.leaks import Census, assert_nothing_left, guard_tasks


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the grace short, since these tests leave things behind on purpose."""
    monkeypatch.setattr(leaks, "GRACE_S", 0.05)


@pytest.mark.usefixtures("impatient")
class TestWhatIsNoticed:
    def test_socket(self, tmp_path: Path) -> None:
        """An open socket is noticed."""
        before = Census.take(tmp_path)
        with socket.socket(), pytest.raises(AssertionError, match="socket"):
            assert_nothing_left(before, tmp_path)

    def test_thread(self, tmp_path: Path) -> None:
        """A running thread is noticed by its name."""
        before = Census.take(tmp_path)
        done = threading.Event()
        thread = threading.Thread(target=done.wait, name="decoder")
        thread.start()
        with pytest.raises(AssertionError, match="thread decoder"):
            assert_nothing_left(before, tmp_path)
        done.set()
        thread.join()

    def test_child(self, tmp_path: Path) -> None:
        """A child process is noticed."""
        before = Census.take(tmp_path)
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            with pytest.raises(AssertionError, match=f"child process {child.pid}"):
                assert_nothing_left(before, tmp_path)
            child.communicate(b"\n")

    def test_temporary_file(self) -> None:
        """A temporary file is noticed, and the guard's folder is where tempfile puts it."""
        folder = Path(tempfile.gettempdir())
        before = Census.take(folder)
        name = Path(tempfile.mkdtemp())
        with pytest.raises(AssertionError, match=name.name):
            assert_nothing_left(before, folder)
        name.rmdir()

    async def test_task(self) -> None:
        """A task that a test started and forgot is noticed."""
        forgotten: list[asyncio.Task[bool]] = []

        async def forgetful() -> None:
            forgotten.append(asyncio.create_task(asyncio.Event().wait()))

        with pytest.raises(AssertionError, match="wait"):
            await guard_tasks(forgetful)()
        forgotten[0].cancel()
