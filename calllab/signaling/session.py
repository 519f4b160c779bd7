"""The service's REST interface: accounts, tokens, and requests that need them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import msgspec

from calllab.errors import AuthenticationError, ServiceUnavailable, SignalingError
from calllab.protocol.wire import MAX_FRAME_BYTES, SUBPROTOCOL

__all__ = ["ApiResponse", "ServiceSession", "WebSocket"]

WebSocket: TypeAlias = aiohttp.ClientWebSocketResponse

_MAX_BODY_BYTES: Final = 1024 * 1024
_CLOSE_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True)
class ApiResponse:
    """The service's answer to a request."""

    status: int
    body: bytes
    retry_after_s: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the body read as JSON; raises :exc:`ServiceUnavailable` if it is none."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ServiceUnavailable(
                f"the answer with status {self.status} is not JSON: is this the address of a calllab service?"
            ) from error

    def explanation(self) -> str:
        """Return what the service says is wrong: ``code: message``, or the status alone."""
        try:
            content = self.json()
            return f"{content['code']}: {content['message']}"
        except (ServiceUnavailable, KeyError, TypeError):
            return f"status {self.status}"


class _Tokens(msgspec.Struct, frozen=True, rename="camel"):
    access_token: str
    refresh_token: str
    expires_in: int


class ServiceSession:
    """One user of the service: registers, logs in, and keeps the tokens fresh.

    Args:
        base_url: where the service is, as ``http://127.0.0.1:8080``.
        timeout_s: how long any one request may take.

    Everything that cannot reach the service, or gets a server error from it, raises
    :exc:`ServiceUnavailable`.

    """

    def __init__(self, base_url: str, *, timeout_s: float = 10.0) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{base_url!r} is not the address of a service: use http://HOST:PORT")
        self.base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._client: aiohttp.ClientSession | None = None
        self._user_id: str | None = None
        self._tokens: _Tokens | None = None
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def user_id(self) -> str:
        """The user that is logged in; raises :exc:`AuthenticationError` if none is."""
        if self._user_id is None:
            raise AuthenticationError("nobody is logged in: call login(username, password) first")
        return self._user_id

    @property
    def access_token(self) -> str:
        """The latest access token; raises :exc:`AuthenticationError` if nobody is logged in."""
        if self._tokens is None:
            raise AuthenticationError("nobody is logged in: call login(username, password) first")
        return self._tokens.access_token

    async def register(self, username: str, password: str, invite: str | None = None) -> None:
        """Make an account; ``invite`` is what a service off loopback asks for.

        Raises:
            AuthenticationError: the service wants an invite, or another one.
            SignalingError: the name is taken, or name or password are not allowed.

        """
        content = {"username": username, "password": password}
        if invite is not None:
            content["invite"] = invite
        response = await self._request("POST", "/api/auth/register", json=content)
        if not response.ok:
            raise _refused(response, f"the service does not register {username!r}")

    async def login(self, username: str, password: str) -> None:
        """Log in; whoever was logged in before is forgotten here, but not logged out.

        Raises:
            AuthenticationError: the service does not know this user with this password.

        """
        response = await self._request(
            "POST", "/api/auth/login", json={"username": username, "password": password}
        )
        if not response.ok:
            raise _refused(response, f"the service does not log in {username!r}")
        self._tokens = _read_tokens(response)
        self._user_id = username

    async def logout(self) -> None:
        """End the session; its channels are closed with 4401.  Nothing happens if nobody is logged in."""
        tokens, self._tokens, self._user_id = self._tokens, None, None
        if tokens is None:
            return
        # By the refresh token alone: the access token may have expired.
        response = await self._request(
            "POST", "/api/auth/logout", json={"refreshToken": tokens.refresh_token}
        )
        if not response.ok and response.status != 401:
            raise _refused(response, "the service does not log out")

    async def refresh(self) -> None:
        """Get new tokens now; callers at the same time share one request.

        Raises:
            AuthenticationError: the session has ended; log in again.

        """
        await self._renew(self.access_token)

    async def fetch_with_auth(
        self, method: str, path: str, *, json: Mapping[str, Any] | None = None
    ) -> ApiResponse:
        """Make a request as the user; ``path`` starts with a slash.

        If the access token is refused, it is refreshed once (callers at the same time share one refresh) and
        the request made once more.  Other refusals are the caller's to read from the response.

        Raises:
            AuthenticationError: nobody is logged in, or the session has ended; log in again.

        """
        token = self.access_token
        response = await self._request(method, path, json=json, token=token)
        if response.status != 401:
            return response
        await self._renew(token)
        response = await self._request(method, path, json=json, token=self.access_token)
        if response.status == 401:
            raise AuthenticationError(
                f"{method} {path} was refused with a fresh token ({response.explanation()}): log in again"
            )
        return response

    async def open_socket(self, device_id: str, *, heartbeat_s: float) -> WebSocket:
        """Open the signaling WebSocket of one device.

        Raises:
            AuthenticationError: nobody is logged in, or the session has ended; log in again.
            SignalingError: the service refuses this connection for good.

        """
        token = self.access_token
        try:
            return await self._open_socket(device_id, heartbeat_s, token)
        except AuthenticationError:
            await self._renew(token)
        return await self._open_socket(device_id, heartbeat_s, self.access_token)

    async def close(self) -> None:
        """Close all connections; may be called again.  The session on the service lives on."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _renew(self, stale: str) -> None:
        """Get new tokens unless somebody has done so since ``stale`` was read."""
        if self.access_token != stale:
            return
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())
            self._refreshing.add_done_callback(self._refreshed)
        # One caller that is cancelled must not spoil it for the others.
        await asyncio.shield(self._refreshing)

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # each waiter has been given it; without one it is nobody's concern

    async def _refresh(self) -> None:
        tokens = self._tokens
        if tokens is None:
            raise AuthenticationError("nobody is logged in: call login(username, password) first")
        response = await self._request(
            "POST", "/api/auth/refresh", json={"refreshToken": tokens.refresh_token}
        )
        # A login or logout in the meantime counts for more than the session that is being refreshed.
        is_current = self._tokens is tokens
        if response.ok:
            if is_current:
                self._tokens = _read_tokens(response)
        elif response.status == 429:
            raise _refused(response, "the session cannot be refreshed now")
        elif is_current:
            user_id, self._tokens, self._user_id = self._user_id, None, None
            raise AuthenticationError(
                f"the session of {user_id} has ended ({response.explanation()}): log in again"
            )

    async def _request(
        self, method: str, path: str, *, json: Mapping[str, Any] | None = None, token: str | None = None
    ) -> ApiResponse:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = self._url(path)
        try:
            # A redirect would take the token to wherever it points.
            async with self._http().request(
                method, url, json=json, headers=headers, allow_redirects=False
            ) as answer:
                body = await answer.content.read(_MAX_BODY_BYTES + 1)
                while len(body) <= _MAX_BODY_BYTES and (more := await answer.content.read(_MAX_BODY_BYTES)):
                    body += more
                retry_after_s = _retry_after_s(answer.headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(f"{method} {url}", error) from error
        if len(body) > _MAX_BODY_BYTES:
            raise ServiceUnavailable(f"{method} {url} was answered with more than {_MAX_BODY_BYTES} bytes")
        response = ApiResponse(answer.status, body, retry_after_s)
        if response.status >= 500:
            raise ServiceUnavailable(
                f"{method} {url} failed on the service ({response.explanation()}): try again later",
                retry_after_s=retry_after_s,
            )
        return response

    async def _open_socket(self, device_id: str, heartbeat_s: float, token: str) -> WebSocket:
        url = self._url("/ws")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._http().ws_connect(
                    url,
                    params={"device": device_id},
                    headers={"Authorization": f"Bearer {token}"},
                    protocols=(SUBPROTOCOL,),
                    heartbeat=heartbeat_s,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT_S),
                    # What the relay adds to a message does not count against the sender's limit.
                    max_msg_size=2 * MAX_FRAME_BYTES,
                )
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 401:
                raise AuthenticationError(
                    f"{url} refuses a fresh token of {self._user_id}: log in again"
                ) from error
            if error.status == 429 or error.status >= 500:
                raise ServiceUnavailable(
                    f"{url} answered with status {error.status}: try again later",
                    retry_after_s=_retry_after_s(error.headers or {}),
                ) from error
            raise SignalingError(
                f"{url} refuses the connection with status {error.status} for device {device_id!r}: "
                "is this the address of a calllab service, and the device id one that it allows?"
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(url, error) from error

    def _url(self, path: str) -> str:
        if not path.startswith("/") or path.startswith("//"):
            raise ValueError(f"{path!r} is not a path on the service: start it with one slash")
        return self.base_url + path

    def _http(self) -> aiohttp.ClientSession:
        if self._client is None:
            self._client = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s), cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._client

    def _unreachable(self, what: str, error: Exception) -> ServiceUnavailable:
        if isinstance(error, TimeoutError):
            return ServiceUnavailable(
                f"{what} was not answered within {self._timeout_s:g} s: try again later"
            )
        return ServiceUnavailable(f"{what} failed ({error}): is the service running there?")


def _read_tokens(response: ApiResponse) -> _Tokens:
    try:
        return msgspec.json.decode(response.body, type=_Tokens)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ServiceUnavailable(
            "the answer to a login has no tokens: is this the address of a calllab service?"
        ) from error


def _refused(response: ApiResponse, what: str) -> SignalingError:
    text = f"{what}: {response.explanation()}"
    if response.status in (401, 403):
        return AuthenticationError(text)
    if response.status == 429:
        return ServiceUnavailable(text, retry_after_s=response.retry_after_s)
    return SignalingError(text)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None
