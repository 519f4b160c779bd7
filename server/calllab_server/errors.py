"""The exceptions of the service.

* :exc:`~calllab.errors.CalllabError`

  * :exc:`ServiceError` -- the service cannot start or go on

    * :exc:`ConfigurationError` -- the settings are incomplete, contradict each other or are unsafe

  * :exc:`ApiError` -- an HTTP request is answered with an error; the middleware turns it into JSON
"""

from __future__ import annotations

import math

from calllab.errors import CalllabError

__all__ = ["ApiError", "ConfigurationError", "ServiceError"]


class ServiceError(CalllabError):
    """The service cannot start or go on."""


class ConfigurationError(ServiceError):
    """The settings are incomplete, contradict each other or are unsafe; the message says which to change."""


class ApiError(CalllabError):
    """An HTTP request is answered with ``status`` and the JSON body ``{code, message}``."""

    def __init__(self, status: int, code: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """The headers that belong to the answer: Retry-After, WWW-Authenticate (RFC 9110, RFC 6750)."""
        if self.retry_after_s is not None:
            return {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {}
