"""Who may ask a TURN server for something: the long-term credential mechanism (RFC 8489 section 9.2).

Nothing is stored for a client that has not proven who it is.  The key follows from the username and the
server's secret.  A nonce carries its own expiry and a signature over that and the client's address, so that
it cannot be used from elsewhere.  The only memory is how many refusals a source has had lately, since a
refusal is larger than the request that causes it and could be aimed at somebody else with a forged source.
"""

from __future__ import annotations

import hmac
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from calllab.protocol.limits import TokenBucket
from calllab.protocol.stun import Integrity, StunMessage, check_integrity, long_term_key
from calllab.protocol.stun_attributes import REASONS, Address, Attribute, StunError, decode_text
from calllab.protocol.turn_actions import TurnSettings
from calllab.protocol.turn_credentials import expiry_of, password_for, user_of

__all__ = ["Authenticator", "Login", "Refused"]

_NONCE_MAC_CHARS: Final = 32
_MAX_USERNAME_BYTES: Final = 508
_MAX_SOURCES: Final = 10_000


class Refused(Exception):
    """A request gets an error response; internal to the TURN core."""

    def __init__(
        self, code: int, reason: str | None = None, *, unknown: tuple[int, ...] = (), challenge: bool = False
    ) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason or REASONS[code]
        self.unknown = unknown
        self.challenge = challenge


@dataclass(frozen=True, slots=True)
class Login:
    """A request that was made by someone who knows the password of ``username``."""

    username: str
    key: bytes
    integrity: Integrity

    @property
    def user(self) -> str:
        """The user behind the credentials, whenever they were made."""
        return user_of(self.username)


class Authenticator:
    """Checks requests, and makes the nonces and the limits that this needs."""

    def __init__(self, settings: TurnSettings, *, entropy: random.Random, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._clock = clock
        self._nonce_key = entropy.randbytes(32)
        self._challenges: OrderedDict[str, TokenBucket] = OrderedDict()

    def check(self, request: StunMessage, data: bytes, client: Address, now: float) -> Login:
        """Return who made the request; the order of the checks is that of RFC 8489 section 9.2.4.

        Raises :exc:`Refused` with 400, 401 or 438.
        """
        integrity = request.integrity
        if integrity is None:
            raise Refused(401, challenge=True)
        raw_username, nonce = request.get(Attribute.USERNAME), request.get(Attribute.NONCE)
        if raw_username is None or nonce is None or request.get(Attribute.REALM) is None:
            raise Refused(400, "Bad Request: USERNAME, REALM and NONCE belong to MESSAGE-INTEGRITY")
        if len(raw_username) > _MAX_USERNAME_BYTES:
            raise Refused(400, f"Bad Request: USERNAME has more than {_MAX_USERNAME_BYTES} bytes")
        try:
            username = decode_text(raw_username)
        except StunError as exc:
            raise Refused(400, "Bad Request: USERNAME is not UTF-8") from exc
        password = password_for(self._settings.secret, username)
        key = long_term_key(username, self._settings.realm, password)
        if not check_integrity(data, key):
            raise Refused(401, challenge=True)
        if not self._is_fresh(nonce, client, now):
            raise Refused(438, challenge=True)
        return Login(username, key, integrity)

    def check_expiry(self, login: Login) -> None:
        """Raise :exc:`Refused` with 401 if the credentials have expired; the reason says when.

        For Allocate only: what was allocated in time may be used and refreshed for as long as the call lasts.
        """
        expires_at = expiry_of(login.username)
        if expires_at is None:
            raise Refused(401, "Unauthorized: the username carries no expiry", challenge=True)
        if self._clock() >= expires_at:
            try:
                when = datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            except (OverflowError, ValueError, OSError):
                when = f"Unix time {expires_at:.0f}"
            raise Refused(401, f"Unauthorized: the credentials expired at {when}", challenge=True)

    def new_nonce(self, client: Address, now: float) -> bytes:
        """Return a nonce that this client can use from now on."""
        # Half seconds are enough, and hide how long the clock has been running to the microsecond.
        expiry = b"%x" % int((now + self._limits.nonce_lifetime_s) * 2)
        return expiry + b"-" + self._mac(expiry, client)

    def may_answer(self, client: Address, now: float) -> bool:
        """Count a refusal for want of credentials to the client's host; False if it has had too many."""
        bucket = self._challenges.get(client[0])
        if bucket is None:
            if len(self._challenges) >= _MAX_SOURCES:
                self._challenges.popitem(last=False)
            bucket = TokenBucket(self._limits.challenges_per_s, self._limits.challenge_burst, now)
            self._challenges[client[0]] = bucket
        else:
            self._challenges.move_to_end(client[0])
        return bucket.take(now)

    def _is_fresh(self, nonce: bytes, client: Address, now: float) -> bool:
        expiry, _, mac = nonce.partition(b"-")
        if len(expiry) > 16 or not hmac.compare_digest(mac, self._mac(expiry, client)):
            return False
        # The signature is ours, so this is a number that we wrote.
        return int(expiry, 16) > now * 2

    def _mac(self, expiry: bytes, client: Address) -> bytes:
        text = b"%s|%s|%d" % (expiry, client[0].encode(), client[1])
        return hmac.digest(self._nonce_key, text, "sha256").hex()[:_NONCE_MAC_CHARS].encode()
