"""TURN credentials that a server refuses: signed with a wrong secret, or good once."""

from __future__ import annotations

from typing import Literal

from calllab.lab.world import World
from calllab.protocol.turn_credentials import TurnCredentials, expiry_of, password_for

__all__ = ["WorthlessCredentials"]

EXPIRED_AGO_S = 3600


class WorthlessCredentials:
    """What a peer gets in place of the credentials that the laboratory offers.

    :param why: ``wrong``: the password does not belong to the username; ``expired``: it does, but the time in
        the username was over an hour ago.
    """

    def __init__(self, world: World, user_id: str, why: Literal["wrong", "expired"]) -> None:
        self._world = world
        self._user_id = user_id
        self._why = why

    async def get_credentials(self) -> TurnCredentials:
        """Return credentials with the addresses of the real ones."""
        made = self._world.credentials(self._user_id)
        if self._why == "wrong":
            password = password_for("another secret than the server's", made.username)
            return TurnCredentials(made.username, password, made.ttl, made.uris)
        expiry = expiry_of(made.username)
        assert expiry is not None
        username = f"{int(expiry) - made.ttl - EXPIRED_AGO_S}:{self._user_id}"
        return TurnCredentials(username, self._world.sign(username), made.ttl, made.uris)
