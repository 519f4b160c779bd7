"""What all routes share: JSON bodies in and out, errors as JSON, the caller's address and access token."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import hdrs, web

from calllab_server.errors import ApiError, ServiceError
from calllab_server.metrics import HttpMetrics

__all__ = ["MAX_BODY_BYTES", "address_key", "bearer_token", "error_middleware", "json_response", "read_json"]

MAX_BODY_BYTES: Final = 16 * 1024
"""The longest body of a request to the API."""
BODY_TIMEOUT_S: Final = 10.0
"""How long a body may take to arrive."""

_CODES: Final = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    417: "bad-request",
}

_T = TypeVar("_T")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = logging.getLogger(__name__)


def json_response(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return an answer that is JSON and must not be kept by caches."""
    return web.Response(
        body=msgspec.json.encode(content),
        status=status,
        content_type="application/json",
        headers={hdrs.CACHE_CONTROL: "no-store", **(headers or {})},
    )


async def read_json(request: web.Request, content_type: type[_T]) -> _T:
    """Return the request's JSON body.

    Raises :exc:`ApiError`: 400 bad-request if it is none or has other fields, 408 if it does not arrive.
    aiohttp raises 413 for one that is too long.
    """
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await request.read()
    except TimeoutError as exc:
        raise ApiError(408, "too-slow", f"the body took more than {BODY_TIMEOUT_S:g} s to arrive") from exc
    try:
        return msgspec.json.decode(body, type=content_type)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ApiError(400, "bad-request", f"the body is not what is expected here: {exc}") from exc
    except RecursionError as exc:
        raise ApiError(400, "bad-request", "the body is nested too deeply") from exc


def bearer_token(request: web.Request) -> str | None:
    """Return the token of the Authorization header, None without one (RFC 6750 section 2.1).

    Raises :exc:`ApiError` 401 token-invalid if the header is of another scheme.
    """
    header = request.headers.get(hdrs.AUTHORIZATION)
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise ApiError(401, "token-invalid", "the Authorization header is not of the form: Bearer <token>")
    return token.strip()


def address_key(request: web.Request) -> str:
    """Return what a caller's address is limited by: the address, of IPv6 the /64 network."""
    try:
        address = ipaddress.ip_address((request.remote or "").partition("%")[0])
    except ValueError:
        return request.remote or "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def error_middleware(metrics: HttpMetrics) -> Any:
    """Return the middleware that answers every error as JSON ``{code, message}`` and counts all answers."""

    @web.middleware
    async def answer_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
        started_s = time.perf_counter()
        try:
            response = await handler(request)
        except ApiError as error:
            response = _error_response(error.status, error.code, error.message, error.headers)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            allowed = {"Allow": error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else {}
            code = _CODES.get(error.status, "bad-request" if error.status < 500 else "internal-error")
            response = _error_response(error.status, code, _explanation(error, request), allowed)
        except ServiceError as error:
            _log.error("%s %s: %s", request.method, request.path, error)
            response = _error_response(503, "unavailable", "the service cannot answer now: try again", {})
        except ConnectionError:
            # The caller left; there is nobody to answer.
            raise
        except Exception:
            _log.exception("%s %s failed", request.method, request.path)
            response = _error_response(500, "internal-error", "the service failed to answer; see its log", {})
        metrics.answered(request, response.status, time.perf_counter() - started_s)
        return response

    return answer_errors


def _error_response(status: int, code: str, message: str, headers: dict[str, str]) -> web.Response:
    return json_response({"code": code, "message": message}, status=status, headers=headers)


def _explanation(error: web.HTTPException, request: web.Request) -> str:
    if error.status == 404:
        return f"there is nothing at {request.path[:200]}"
    if error.status == 405:
        return f"{request.path} does not take {request.method}: use {error.headers.get(hdrs.ALLOW, '')}"
    if error.status == 413:
        return f"the body has more than {MAX_BODY_BYTES} bytes"
    return error.reason
