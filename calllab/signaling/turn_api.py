"""Credentials for the service's TURN server."""

from __future__ import annotations

from typing import Any

import msgspec

from calllab.errors import ServiceUnavailable, SignalingError
from calllab.protocol.turn_credentials import TurnCredentials
from calllab.signaling.session import ServiceSession

__all__ = ["TurnApi", "ice_server"]


class TurnApi:
    """Fetches TURN credentials of the user that a session has logged in.

    Nothing is kept: a TURN server looks at the expiry when an allocation is made, so a connection that is
    made, or made anew, does best with credentials as fresh as can be, and a fetch costs one short request.
    """

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    async def get_credentials(self) -> TurnCredentials:
        """Return new credentials.

        Raises:
            AuthenticationError: nobody is logged in, or the session has ended; log in again.
            ServiceUnavailable: the service cannot be reached or answers nonsense.

        """
        response = await self._session.fetch_with_auth("GET", "/api/turn/credentials")
        if not response.ok:
            raise SignalingError(f"the service gives no TURN credentials: {response.explanation()}")
        try:
            return msgspec.json.decode(response.body, type=TurnCredentials)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ServiceUnavailable(
                f"what the service gives as TURN credentials is none: {error}"
            ) from error


def ice_server(credentials: TurnCredentials) -> dict[str, Any]:
    """Return the members of an RTCIceServer (W3C webrtc-pc section 4.2.2) with these credentials."""
    return {
        "urls": list(credentials.uris),
        "username": credentials.username,
        "credential": credentials.password,
    }
