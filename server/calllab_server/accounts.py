"""Accounts: who has registered, and whether a password is theirs."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from calllab.protocol import is_user_id
from calllab_server.database import Database, User
from calllab_server.errors import ApiError
from calllab_server.passwords import MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS, Passwords

__all__ = ["Accounts"]


class Accounts:
    """The users in the database; call :meth:`load` before anything else.

    The names are kept in memory too, since the relay asks for them while it routes a message.

    Args:
        database: where the users are stored.
        passwords: hashes and verifies.
        clock: seconds since the epoch.

    """

    def __init__(self, database: Database, passwords: Passwords, clock: Callable[[], float]) -> None:
        self._database = database
        self._passwords = passwords
        self._clock = clock
        self._names: set[str] = set()

    def __len__(self) -> int:
        return len(self._names)

    async def load(self) -> None:
        """Read the names of all users."""
        async with self._database.session() as session:
            self._names = set(await session.scalars(select(User.user_id)))

    def knows(self, user_id: str) -> bool:
        """Say whether somebody has registered under this name."""
        return user_id in self._names

    async def register(self, user_id: str, password: str) -> None:
        """Add a user.

        Raises :exc:`ApiError`: 400 bad-request for a name or password that cannot be one, 409 username-taken.
        """
        if not is_user_id(user_id):
            raise ApiError(
                400,
                "bad-request",
                "this cannot be a username: use 3 to 32 of the characters a-z, 0-9, dot, underscore, hyphen",
            )
        if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
            raise ApiError(
                400,
                "bad-request",
                f"the password has {len(password)} characters: "
                f"use {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS}",
            )
        taken = ApiError(409, "username-taken", f"the username {user_id!r} is taken: choose another")
        if self.knows(user_id):
            raise taken
        user = User(
            user_id=user_id,
            password_hash=await self._passwords.hash(password),
            created_at_s=self._clock(),
        )
        try:
            async with self._database.session() as session, session.begin():
                session.add(user)
        except IntegrityError as exc:
            raise taken from exc
        self._names.add(user_id)

    async def verify(self, user_id: str, password: str) -> bool:
        """Say whether the password is this user's; takes as long for a user who does not exist."""
        stored = None
        if is_user_id(user_id):
            async with self._database.session() as session:
                stored = await session.scalar(select(User.password_hash).where(User.user_id == user_id))
        if not await self._passwords.verify(stored, password):
            return False
        if stored is not None and self._passwords.is_outdated(stored):
            await self._store(user_id, await self._passwords.hash(password))
        return True

    async def _store(self, user_id: str, password_hash: str) -> None:
        async with self._database.session() as session, session.begin():
            await session.execute(
                update(User).where(User.user_id == user_id).values(password_hash=password_hash)
            )
