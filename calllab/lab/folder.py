"""The folders that results are written into."""

from __future__ import annotations

from pathlib import Path

from calllab.errors import RecordingError

__all__ = ["make_folder", "make_own_folder"]


def make_folder(path: Path) -> None:
    """Make a folder unless there is one; raises RecordingError if there cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise RecordingError(f"{path} cannot be a folder: there is a file in the way") from exc
    except OSError as exc:
        raise RecordingError(f"{path} cannot be written: {exc.strerror}") from exc


def make_own_folder(path: Path, what: str) -> None:
    """Make a folder for ``what`` alone; raises RecordingError if it cannot be, or has something in it."""
    make_folder(path)
    if any(path.iterdir()):
        raise RecordingError(f"{path} is not empty: give the {what} a folder of its own")
