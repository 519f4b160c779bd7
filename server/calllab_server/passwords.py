"""Password hashes (argon2id), computed beside the event loop and a bounded number at a time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from calllab_server.config import PasswordCost
from calllab_server.errors import ApiError, ServiceError

__all__ = ["MAX_PASSWORD_CHARS", "MIN_PASSWORD_CHARS", "Passwords"]

MIN_PASSWORD_CHARS: Final = 8
MAX_PASSWORD_CHARS: Final = 256

# Each hash takes its memory for as long as it runs: a crowd must queue, and too long a queue must go away.
_THREADS: Final = 2
_MAX_WAITING: Final = 64

_T = TypeVar("_T")


class Passwords:
    """Hashes and verifies passwords in threads of its own; call :meth:`close` at the end."""

    def __init__(self, cost: PasswordCost) -> None:
        self._hasher = PasswordHasher(
            time_cost=cost.passes, memory_cost=cost.memory_kib, parallelism=cost.lanes
        )
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="calllab-passwords")
        self._waiting = 0
        # What an unknown user's password is compared with, so that the answer takes as long as a known one's.
        self._nobody = self._hasher.hash(secrets.token_urlsafe(16))

    async def hash(self, password: str) -> str:
        """Return the hash to be stored.  Raises :exc:`ApiError` 503 if too many wait."""
        return await self._in_thread(lambda: self._hasher.hash(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Say whether the password is the one that was hashed; ``stored`` None: there is no such user.

        Takes as long for None as for a wrong password.  Raises :exc:`ApiError` 503 if too many wait.
        """
        matches = await self._in_thread(lambda: self._matches(stored or self._nobody, password))
        return matches and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Say whether the hash was made at another cost than a new one would be."""
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        """Wait for the hashes being computed and end the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except VerifyMismatchError:
            return False
        except (InvalidHashError, VerificationError) as exc:
            raise ServiceError(f"a stored password hash cannot be read: {exc}") from exc

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        if self._waiting >= _MAX_WAITING:
            raise ApiError(
                503, "busy", "too many logins at once: try again in a few seconds", retry_after_s=5
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1
