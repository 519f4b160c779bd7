"""Sessions: families of refresh tokens, each good for one use (RFC 9700 section 4.14.2).

A login opens a session and gives out its first refresh token.  Each use of a refresh token yields the next
one and spends the old.  A spent token that turns up again was copied by somebody, and which of the two
bearers is the thief cannot be known: the whole session is revoked, and both have to log in.  Tokens are
random and stored only as hashes, so that a stolen database opens no session.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable
from typing import Final

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from calllab_server.database import Database, RefreshToken, Session
from calllab_server.errors import ApiError

__all__ = ["MAX_SESSIONS_PER_USER", "SessionGrant", "Sessions"]

MAX_SESSIONS_PER_USER: Final = 50
"""A user's older sessions are revoked beyond this number."""

_log = logging.getLogger(__name__)


class SessionGrant(msgspec.Struct, frozen=True):
    """A session with the refresh token that continues it."""

    user_id: str
    session_id: str
    refresh_token: str


class Sessions:
    """Opens, continues and revokes sessions.

    Args:
        database: where they are stored.
        ttl_s: how long a session lasts without being continued.
        clock: seconds since the epoch.
        on_revoked: called with the session's id after each revocation is stored.

    """

    def __init__(
        self,
        database: Database,
        *,
        ttl_s: float,
        clock: Callable[[], float],
        on_revoked: Callable[[str], None],
    ) -> None:
        self._database = database
        self._ttl_s = ttl_s
        self._clock = clock
        self._on_revoked = on_revoked

    async def open(self, user_id: str) -> SessionGrant:
        """Open a session of a user whose password has been verified."""
        now = self._clock()
        grant = SessionGrant(user_id, secrets.token_urlsafe(16), _new_token())
        async with self._database.session() as session, session.begin():
            await self._forget_expired(session, user_id, now)
            surplus = await self._revoke_surplus(session, user_id, now)
            session.add(
                Session(
                    session_id=grant.session_id,
                    user_id=user_id,
                    created_at_s=now,
                    expires_at_s=now + self._ttl_s,
                    revoked_at_s=None,
                )
            )
            await session.flush()
            session.add(self._stored(grant, now))
        for session_id in surplus:
            self._on_revoked(session_id)
        return grant

    async def refresh(self, refresh_token: str) -> SessionGrant:
        """Spend a refresh token for the next one of its session.

        Raises :exc:`ApiError` 401: refresh-invalid, refresh-expired, session-revoked, or refresh-reused,
        which has revoked the session.
        """
        now = self._clock()
        token_hash = _hash(refresh_token)
        async with self._database.session() as session, session.begin():
            row = (
                await session.execute(
                    select(
                        RefreshToken.expires_at_s, Session.session_id, Session.user_id, Session.revoked_at_s
                    )
                    .join(Session, Session.session_id == RefreshToken.session_id)
                    .where(RefreshToken.token_hash == token_hash)
                )
            ).one_or_none()
            if row is None:
                raise ApiError(401, "refresh-invalid", "there is no such refresh token: log in again")
            if row.revoked_at_s is not None:
                raise ApiError(401, "session-revoked", "this session has ended: log in again")
            # Spending and seeing whether it was unspent are one statement: of two bearers at once, one wins.
            spent = await session.scalar(
                update(RefreshToken)
                .where(RefreshToken.token_hash == token_hash, RefreshToken.used_at_s.is_(None))
                .values(used_at_s=now)
                .returning(RefreshToken.token_hash)
            )
            if spent is None:
                grant = None
                await _mark_revoked(session, row.session_id, now)
            elif row.expires_at_s <= now:
                raise ApiError(
                    401,
                    "refresh-expired",
                    f"the refresh token expired {now - row.expires_at_s:.0f} s ago: log in again",
                )
            else:
                grant = SessionGrant(row.user_id, row.session_id, _new_token())
                await self._continue(session, grant, now)
        if grant is None:
            _log.warning("a spent refresh token of %s was used again: session revoked", row.user_id)
            self._on_revoked(row.session_id)
            raise ApiError(
                401,
                "refresh-reused",
                "this refresh token has been used before, so its session is revoked: log in again",
            )
        return grant

    async def revoke(self, session_id: str) -> None:
        """End a session; one that has ended or never was is left as it is."""
        async with self._database.session() as session, session.begin():
            await _mark_revoked(session, session_id, self._clock())
        self._on_revoked(session_id)

    async def find(self, refresh_token: str) -> str | None:
        """Return the id of the session that this refresh token belongs or belonged to."""
        async with self._database.session() as session:
            return await session.scalar(
                select(RefreshToken.session_id).where(RefreshToken.token_hash == _hash(refresh_token))
            )

    async def is_live(self, session_id: str) -> bool:
        """Say whether the session exists and has not been revoked."""
        async with self._database.session() as session:
            found = await session.scalar(
                select(Session.session_id).where(
                    Session.session_id == session_id, Session.revoked_at_s.is_(None)
                )
            )
        return found is not None

    def _stored(self, grant: SessionGrant, now: float) -> RefreshToken:
        return RefreshToken(
            token_hash=_hash(grant.refresh_token),
            session_id=grant.session_id,
            expires_at_s=now + self._ttl_s,
            used_at_s=None,
        )

    async def _continue(self, session: AsyncSession, grant: SessionGrant, now: float) -> None:
        session.add(self._stored(grant, now))
        await session.execute(
            update(Session)
            .where(Session.session_id == grant.session_id)
            .values(expires_at_s=now + self._ttl_s)
        )
        await session.execute(
            delete(RefreshToken).where(
                RefreshToken.session_id == grant.session_id, RefreshToken.expires_at_s <= now
            )
        )

    async def _forget_expired(self, session: AsyncSession, user_id: str, now: float) -> None:
        await session.execute(delete(Session).where(Session.user_id == user_id, Session.expires_at_s <= now))

    async def _revoke_surplus(self, session: AsyncSession, user_id: str, now: float) -> list[str]:
        surplus = list(
            await session.scalars(
                select(Session.session_id)
                .where(Session.user_id == user_id, Session.revoked_at_s.is_(None))
                .order_by(Session.created_at_s.desc())
                .offset(MAX_SESSIONS_PER_USER - 1)
            )
        )
        for session_id in surplus:
            await _mark_revoked(session, session_id, now)
        return surplus


async def _mark_revoked(session: AsyncSession, session_id: str, now: float) -> None:
    await session.execute(
        update(Session)
        .where(Session.session_id == session_id, Session.revoked_at_s.is_(None))
        .values(revoked_at_s=now)
    )


def _new_token() -> str:
    return secrets.token_urlsafe(32)


def _hash(token: str) -> bytes:
    # The token is random and long, so that a plain hash cannot be searched back; no salt, no stretching.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
