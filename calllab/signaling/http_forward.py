"""Forwards plain HTTP requests to the service behind the signaling proxy, with host names replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

__all__ = ["forward_request", "relayed_headers", "unavailable"]

_HOP_BY_HOP: Final = frozenset(
    name.lower()
    for name in (
        hdrs.CONNECTION,
        hdrs.KEEP_ALIVE,
        hdrs.PROXY_AUTHENTICATE,
        hdrs.PROXY_AUTHORIZATION,
        hdrs.TE,
        hdrs.TRAILER,
        hdrs.TRANSFER_ENCODING,
        hdrs.UPGRADE,
        "Proxy-Connection",
    )
)
"""What concerns one connection alone (RFC 9110 section 7.6.1)."""

_CHUNK_BYTES: Final = 64 * 1024


def relayed_headers(request: web.Request, relay: URL) -> CIMultiDict[str]:
    """Return the headers of a request as the service should see them.

    A page that came from the proxy has the proxy's origin; to the service that is its own.  Other origins
    stay as they are, for the service to judge.
    """
    named = {name.strip().lower() for name in request.headers.get(hdrs.CONNECTION, "").split(",")}
    headers = CIMultiDict(
        (name, value)
        for name, value in request.headers.items()
        if name.lower() not in _HOP_BY_HOP | named | {"host", "content-length"}
    )
    if headers.get(hdrs.ORIGIN) == f"{request.scheme}://{request.host}":
        headers[hdrs.ORIGIN] = str(relay.origin())
    return headers


async def forward_request(
    request: web.Request, client: aiohttp.ClientSession, relay: URL
) -> web.StreamResponse:
    """Make the request of the service instead, and stream its answer back; 502 if it cannot be reached."""
    url = URL(f"{relay}{request.rel_url.raw_path_qs}", encoded=True)
    try:
        async with client.request(
            request.method,
            url,
            headers=relayed_headers(request, relay),
            data=request.content if request.body_exists else None,
            # A redirect is the client's to follow, through the proxy.
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            response.headers.extend(_answered_headers(answer.headers, request, relay))
            await response.prepare(request)
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                await response.write(chunk)
            await response.write_eof()
            return response
    except (aiohttp.ClientConnectionError, TimeoutError) as error:
        return unavailable(relay, error)


def unavailable(relay: URL, error: Exception) -> web.Response:
    """Return the answer to a request that could not be forwarded, in the form of the service's own errors."""
    return web.json_response(
        {"code": "relay-unreachable", "message": f"the proxy cannot reach {relay}: {error}"}, status=502
    )


def _answered_headers(headers: Mapping[str, str], request: web.Request, relay: URL) -> CIMultiDict[str]:
    passed = CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP)
    location = passed.get(hdrs.LOCATION, "")
    origin = str(relay.origin())
    if location.startswith(f"{origin}/"):
        passed[hdrs.LOCATION] = f"{request.scheme}://{request.host}{location.removeprefix(origin)}"
    return passed
