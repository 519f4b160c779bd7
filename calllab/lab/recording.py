"""A recording: all that the peers of a laboratory did and measured, and beside it what was done to them.

A recording is a folder, or the same folder as a ``.zip``:

``meta.json``
    versions, peers and settings
``events.jsonl``
    ``{t_s, peer, event, ...}``: what happened, one line each
``stats.jsonl``
    ``{t_s, peer, callId, report}``: getStats of one peer, W3C members
``truth.jsonl``
    ``{t_s, kind, fault}``: planned and realised faults; diagnosis never reads them

Times are seconds from the start of the recording.  The digest covers events and stats alone.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import msgspec

from calllab.errors import RecordingError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Recording", "Row"]

Row: TypeAlias = Mapping[str, Any]

META: Final = "meta.json"
SERIES: Final = ("events.jsonl", "stats.jsonl", "truth.jsonl")

# An hour of two peers' statistics is about 60 MB; what is far above that is a mistake or an attack.
MAX_FILE_BYTES: Final = 512 * 1024 * 1024

_REQUIRED: Final[Mapping[str, Mapping[str, type | tuple[type, ...]]]] = {
    "events.jsonl": {"t_s": (int, float), "peer": str, "event": str},
    "stats.jsonl": {"t_s": (int, float), "peer": str, "report": dict},
    "truth.jsonl": {"t_s": (int, float), "kind": str, "fault": dict},
}

_encode = msgspec.json.Encoder(enc_hook=str).encode
_encode_canonical = msgspec.json.Encoder(enc_hook=str, order="deterministic").encode


@dataclass(frozen=True)
class Recording:
    """An immutable recording in memory; two recordings are equal if all their content is."""

    meta: Mapping[str, Any]
    event_rows: Sequence[Row] = field(repr=False)
    stats_rows: Sequence[Row] = field(repr=False)
    truth_rows: Sequence[Row] = field(repr=False)

    def __repr__(self) -> str:
        """Say who was recorded for how long, in one line."""
        who = " and ".join(self.peers) or "nobody"
        return (
            f"<Recording of {who}: {self.duration_s:.1f} s, {len(self.event_rows)} events, "
            f"{len(self.stats_rows)} statistics reports>"
        )

    @classmethod
    def build(
        cls,
        *,
        events: Iterable[Row] = (),
        stats: Iterable[Row] = (),
        truth: Iterable[Row] = (),
        meta: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make a recording from rows, which are checked as those of a file are."""
        rows = [
            tuple(_checked(name, number, row) for number, row in enumerate(series, 1))
            for name, series in zip(SERIES, (events, stats, truth), strict=True)
        ]
        return cls(normalised(meta or {}), *rows)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a recording from its folder or ``.zip``.

        A last line that was cut off by a crash is left out.  Raises :exc:`~calllab.errors.RecordingError`
        with file, line and reason for everything else that is not as it should be.
        """
        path = Path(path)
        files = _ZipFiles(path) if path.is_file() else _FolderFiles(path)
        meta = _decode(files.read(META), META, 1)
        if not isinstance(meta, dict):
            raise RecordingError(f"{path}/{META}: expected an object, got {type(meta).__name__}")
        return cls(meta, *(tuple(_rows(name, files.read(name))) for name in SERIES))

    def save(self, path: Path | str) -> Path:
        """Write the recording to a folder, or to one file if ``path`` ends in ``.zip``; returns the path.

        Raises :exc:`~calllab.errors.RecordingError` if something is there already.
        """
        path = Path(path)
        if path.exists() and (path.is_file() or any(path.iterdir())):
            raise RecordingError(f"{path} exists: choose another name, or remove it first")
        contents = {META: _encode(self.meta)}
        for name, rows in zip(SERIES, (self.event_rows, self.stats_rows, self.truth_rows), strict=True):
            contents[name] = b"".join(_encode(row) + b"\n" for row in rows)
        try:
            if path.suffix == ".zip":
                path.parent.mkdir(parents=True, exist_ok=True)
                with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                    for name, content in contents.items():
                        archive.writestr(name, content)
            else:
                path.mkdir(parents=True, exist_ok=True)
                for name, content in contents.items():
                    (path / name).write_bytes(content)
        except OSError as exc:
            raise RecordingError(f"{path} cannot be written: {exc.strerror}") from exc
        return path

    @property
    def peers(self) -> tuple[str, ...]:
        """The names of the peers, in the order in which they appeared."""
        declared = self.meta.get("peers")
        names = list(declared) if isinstance(declared, dict) else []
        seen = dict.fromkeys([*names, *(row["peer"] for row in (*self.event_rows, *self.stats_rows))])
        return tuple(str(name) for name in seen)

    @property
    def duration_s(self) -> float:
        """The time of the last thing that was recorded."""
        return max(
            (float(row["t_s"]) for rows in (self.event_rows, self.stats_rows) for row in rows), default=0.0
        )

    def events(self) -> pd.DataFrame:
        """Return the events: columns t_s, peer, event, then the events' own members."""
        return _frame(self.event_rows, ["t_s", "peer", "event"])

    def stats(self) -> pd.DataFrame:
        """Return the statistics, a row for each entry of each report.

        Columns are t_s, peer, id, type, callId, then the W3C members; a member that an entry does not have
        is NaN.
        """
        rows = (
            {"t_s": row["t_s"], "peer": row["peer"], "callId": row.get("callId"), **entry}
            for row in self.stats_rows
            for entry in row["report"].values()
        )
        return _frame(rows, ["t_s", "peer", "id", "type", "callId"])

    def truth(self) -> pd.DataFrame:
        """Return the ground truth: columns t_s, kind, then the members of the faults."""
        rows = (
            {"fault_id" if key == "id" else key: value for key, value in row["fault"].items()}
            | {"t_s": row["t_s"], "kind": row["kind"]}
            for row in self.truth_rows
        )
        return _frame(rows, ["t_s", "kind", "cause", "direction", "at_s", "for_s"])

    def digest(self) -> str:
        """Return a hexadecimal digest of events and stats; equal content has equal digests."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        sha = hashlib.sha256()
        for rows in (self.event_rows, self.stats_rows):
            for row in rows:
                sha.update(_encode_canonical(row) + b"\n")
            sha.update(b"\0")
        return sha.hexdigest()


def normalised(value: Any) -> Any:
    """Return ``value`` as it will be when it has been written and read: plain JSON types only."""
    return msgspec.json.decode(_encode(value))


class _FolderFiles:
    """The files of a recording in a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_dir():
            raise RecordingError(f"{path} does not exist: give the folder of a recording, or its .zip")

    def read(self, name: str) -> bytes:
        file = self._path / name
        try:
            if file.stat().st_size > MAX_FILE_BYTES:
                raise RecordingError(_too_big(str(file)))
            return file.read_bytes()
        except FileNotFoundError:
            raise RecordingError(
                f"{self._path} is no recording: it has no {name} (it takes {', '.join((META, *SERIES))})"
            ) from None
        except OSError as exc:
            raise RecordingError(f"{file} cannot be read: {exc.strerror}") from exc


class _ZipFiles:
    """The files of a recording in a zip; nothing is unpacked to disk, so names in it cannot escape."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as exc:
            raise RecordingError(f"{path} is not a .zip of a recording: {exc}") from exc

    def read(self, name: str) -> bytes:
        # The folder itself may have been zipped: then all names begin with it.
        members = [info for info in self._archive.infolist() if Path(info.filename).name == name]
        if len(members) != 1:
            raise RecordingError(
                f"{self._path} is no recording: it has {len(members)} files named {name}, expected one"
            )
        try:
            with self._archive.open(members[0]) as file:
                # The size that the zip claims may be a lie: count while reading.
                content = file.read(MAX_FILE_BYTES + 1)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError) as exc:
            raise RecordingError(f"{self._path}: {name} cannot be unpacked: {exc}") from exc
        if len(content) > MAX_FILE_BYTES:
            raise RecordingError(_too_big(f"{self._path}: {name}"))
        return content


def _too_big(what: str) -> str:
    return f"{what} holds more than {MAX_FILE_BYTES // 2**20} MiB: that is no recording of a call"


def _rows(name: str, content: bytes) -> Iterable[Row]:
    *whole, rest = content.split(b"\n")
    for number, line in enumerate(whole, 1):
        yield _checked(name, number, _decode(line, name, number), copy=False)
    if rest:
        try:
            last = msgspec.json.decode(rest)
        except (msgspec.DecodeError, RecursionError):
            return  # the writer died in the middle of this line
        yield _checked(name, len(whole) + 1, last, copy=False)


def _decode(line: bytes, name: str, number: int) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise RecordingError(f"{name}, line {number}: not JSON: {exc}") from exc


def _checked(name: str, number: int, row: Any, *, copy: bool = True) -> Row:
    if not isinstance(row, Mapping):
        raise RecordingError(f"{name}, line {number}: expected an object, got {type(row).__name__}")
    for member, kind in _REQUIRED[name].items():
        value = row.get(member)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise RecordingError(f"{name}, line {number}: {member} is {value!r:.80}, expected {_kind(kind)}")
    if not math.isfinite(row["t_s"]):
        raise RecordingError(f"{name}, line {number}: t_s is {row['t_s']}, expected seconds")
    if name == "stats.jsonl":
        for key, entry in row["report"].items():
            if not isinstance(entry, Mapping):
                raise RecordingError(f"{name}, line {number}: report[{key!r:.80}] is no object")
    checked: Row = normalised(row) if copy else row
    return checked


def _kind(kind: type | tuple[type, ...]) -> str:
    return "a number" if isinstance(kind, tuple) else "a string" if kind is str else "an object"


def _frame(rows: Iterable[Row], first: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame.from_records(list(rows))
    others = [column for column in frame.columns if column not in first]
    return frame.reindex(columns=[*first, *others])
