"""The SQLite database of the service: its tables, opened through SQLAlchemy's asyncio face.

One connection serves all: SQLite has one writer at a time in any case, every transaction here is a handful of
indexed statements, and with a single connection none can find the database locked by another.  The connection
keeps the file to itself, since a second service on it would not hear of the users and logouts of the first.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import ForeignKey, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from calllab_server.errors import ServiceError

__all__ = ["Database", "RefreshToken", "Session", "User"]

SCHEMA_VERSION: Final = 1
"""Kept in SQLite's ``user_version``; a database of another version is left alone."""

_log = logging.getLogger(__name__)


class _Base(DeclarativeBase):
    """Collects the tables."""


class User(_Base):
    """Somebody who has registered."""

    __tablename__ = "users"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    password_hash: Mapped[str]
    created_at_s: Mapped[float]


class Session(_Base):
    """One login: the family of refresh tokens that replaced each other since."""

    __tablename__ = "sessions"

    session_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"), index=True)
    created_at_s: Mapped[float]
    expires_at_s: Mapped[float] = mapped_column(index=True)
    """When its newest refresh token expires."""
    revoked_at_s: Mapped[float | None]


class RefreshToken(_Base):
    """A refresh token, by its hash; used ones are kept so that their reuse is noticed."""

    __tablename__ = "refresh_tokens"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.session_id", ondelete="CASCADE"), index=True)
    expires_at_s: Mapped[float]
    used_at_s: Mapped[float | None]


class Database:
    """An open database; an asynchronous context manager.

    Args:
        path: the file, made if it is not there; None: a temporary one that is removed at the end.

    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._temporary: Path | None = None
        self._engine: AsyncEngine | None = None
        self._sessions: async_sessionmaker[AsyncSession] | None = None

    async def __aenter__(self) -> Self:
        """Open the file and make what is missing in it.

        Raises :exc:`ServiceError` if it cannot be opened, is no database, or has another schema.
        """
        if self._path is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="calllab-"))
            path = self._temporary / "calllab.sqlite"
            _log.info("accounts live in a temporary database, removed at the end: %s", path)
        else:
            path = self._path
        try:
            self._engine = _engine(path)
            self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
            await self._prepare(path)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the database."""
        await self.close()

    async def close(self) -> None:
        """Close the connection and remove the file if it was a temporary one; may be called again."""
        engine, self._engine, self._sessions = self._engine, None, None
        if engine is not None:
            await engine.dispose()
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)

    def session(self) -> AsyncSession:
        """Return a new unit of work; use it as ``async with database.session() as s, s.begin():``."""
        if self._sessions is None:
            raise ServiceError("the database is closed: the service is shutting down")
        return self._sessions()

    async def ping(self) -> None:
        """Ask the database for an answer.  Raises :exc:`ServiceError` if there is none."""
        try:
            async with self.session() as session:
                await session.execute(text("SELECT 1"))
        except SQLAlchemyError as exc:
            raise ServiceError(f"the database does not answer: {exc}") from exc

    async def _prepare(self, path: Path) -> None:
        assert self._engine is not None
        try:
            async with self._engine.begin() as connection:
                version = (await connection.execute(text("PRAGMA user_version"))).scalar_one()
                tables = (await connection.execute(text("SELECT count(*) FROM sqlite_master"))).scalar_one()
                if tables and version != SCHEMA_VERSION:
                    raise ServiceError(
                        f"{path} is a database of another kind (schema {version}, not {SCHEMA_VERSION}): "
                        "give another --database, or move the file away"
                    )
                await connection.run_sync(_Base.metadata.create_all)
                await connection.execute(text(f"PRAGMA user_version = {SCHEMA_VERSION}"))
        except (SQLAlchemyError, sqlite3.Error) as exc:
            reason = getattr(exc, "orig", None) or exc
            raise ServiceError(
                f"the database {path} cannot be opened ({reason}): "
                "give a --database that no other service has open"
            ) from exc


def _engine(path: Path) -> AsyncEngine:
    try:
        # It holds password hashes: SQLite would make it readable for everybody.
        path.touch(mode=0o600)
    except OSError as exc:
        raise ServiceError(
            f"the database {path} cannot be opened ({exc.strerror}): "
            "give a --database in a folder that exists and can be written to"
        ) from exc
    url = URL.create("sqlite+aiosqlite", database=str(path))
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=10)

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute("PRAGMA busy_timeout = 500")
            cursor.execute("PRAGMA locking_mode = EXCLUSIVE")
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.execute("PRAGMA foreign_keys = ON")
        finally:
            cursor.close()

    return engine
