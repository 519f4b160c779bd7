"""TURN credentials as a scenario wants them: signed with a wrong secret, good once, or good for a while."""

from __future__ import annotations

from typing import Literal

from calllab.lab.world import World
from calllab.protocol.turn_credentials import TurnCredentials, expiry_of, password_for

__all__ = ["PeerCredentials"]

EXPIRED_AGO_S = 3600


class PeerCredentials:
    """What a peer gets in place of the credentials that the laboratory offers.

    :param worth: ``wrong``: the password does not belong to the username; ``expired``: it does, but the time
        in the username was over an hour ago.
    :param ttl_s: how long they are good for, from when the peer gets them; None: as long as the laboratory's.
    """

    def __init__(
        self,
        world: World,
        user_id: str,
        worth: Literal["right", "wrong", "expired"],
        ttl_s: int | None = None,
    ) -> None:
        self._world = world
        self._user_id = user_id
        self._worth = worth
        self._ttl_s = ttl_s

    async def get_credentials(self) -> TurnCredentials:
        """Return credentials with the addresses of the real ones."""
        made = self._world.credentials(self._user_id)
        if self._worth == "wrong":
            password = password_for("another secret than the server's", made.username)
            return TurnCredentials(made.username, password, made.ttl, made.uris)
        expiry = expiry_of(made.username)
        assert expiry is not None
        now, ttl_s = int(expiry) - made.ttl, made.ttl if self._ttl_s is None else self._ttl_s
        until = now - EXPIRED_AGO_S if self._worth == "expired" else now + ttl_s
        username = f"{until}:{self._user_id}"
        return TurnCredentials(username, self._world.sign(username), ttl_s, made.uris)
