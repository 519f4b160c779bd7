"""Writes a recording while it happens."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from io import BufferedWriter
from pathlib import Path
from typing import Any, Self

import msgspec

from calllab.errors import RecordingError
from calllab.lab.folder import make_own_folder
from calllab.lab.recording import META, SERIES, Recording, Row, normalised

__all__ = ["Recorder"]

FORMAT_VERSION = 1
_VERSIONS_OF = ("calllab", "aiortc", "aioice", "av", "aiohttp")


class Recorder:
    """Collects events, statistics and truth; with a folder, every row is on disk as soon as it is recorded.

    A recorder that dies leaves a folder that :meth:`Recording.load <calllab.lab.Recording.load>` reads up
    to the last whole row.

    :param path: the folder to write, which must be empty or not exist; None: memory alone.
    """

    def __init__(self, path: Path | None = None, *, settings: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._rows: dict[str, list[Row]] = {name: [] for name in SERIES}
        self._files: dict[str, BufferedWriter] = {}
        self._peers: dict[str, Any] = {}
        self._meta: dict[str, Any] = {
            "version": FORMAT_VERSION,
            "startedAt": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in _VERSIONS_OF},
            },
            "settings": normalised(settings or {}),
            "peers": self._peers,
        }

    def __enter__(self) -> Self:
        """Open the files.  Raises RecordingError if the folder is not empty or cannot be written."""
        if self._path is None:
            return self
        try:
            make_own_folder(self._path, "recording")
            for name in SERIES:
                self._files[name] = (self._path / name).open("wb")
        except OSError as exc:
            self.close()
            raise RecordingError(f"{self._path} cannot be written: {exc.strerror}") from exc
        self._write_meta()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the files."""
        self.close()

    def close(self) -> None:
        """Close the files; what was recorded stays in memory, too."""
        while self._files:
            self._files.popitem()[1].close()

    def add_peer(self, name: str, settings: Mapping[str, Any]) -> None:
        """Note a peer and its settings."""
        self._peers[name] = normalised(settings)
        if self._files:
            self._write_meta()

    def note(self, name: str, value: Any) -> None:
        """Write something else that is worth knowing into ``meta.json``."""
        self._meta[name] = normalised(value)
        if self._files:
            self._write_meta()

    def event(self, t_s: float, peer: str, event: str, members: Mapping[str, Any]) -> None:
        """Record that something happened."""
        self._append("events.jsonl", {"t_s": t_s, "peer": peer, "event": event, **members})

    def stats(self, t_s: float, peer: str, call_id: str, report: Mapping[str, Mapping[str, Any]]) -> None:
        """Record a getStats report."""
        self._append("stats.jsonl", {"t_s": t_s, "peer": peer, "callId": call_id, "report": report})

    def truth(self, t_s: float, kind: str, fault: Mapping[str, Any]) -> None:
        """Record what was done on purpose (``planned``) or came of it (``realised``)."""
        self._append("truth.jsonl", {"t_s": t_s, "kind": kind, "fault": fault})

    def recording(self) -> Recording:
        """Return what has been recorded so far."""
        events, stats, truth = (tuple(self._rows[name]) for name in SERIES)
        return Recording(normalised(self._meta), events, stats, truth)

    def _append(self, name: str, row: Row) -> None:
        encoded = msgspec.json.encode(row, enc_hook=str)
        self._rows[name].append(msgspec.json.decode(encoded))
        if (file := self._files.get(name)) is not None:
            file.write(encoded + b"\n")
            file.flush()

    def _write_meta(self) -> None:
        assert self._path is not None
        # Never half a file: readers see the old one or the new one.
        draft = self._path / f"{META}.new"
        draft.write_bytes(msgspec.json.encode(self._meta))
        draft.replace(self._path / META)
