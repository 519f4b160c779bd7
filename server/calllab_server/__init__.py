"""The calllab service: accounts, WebSocket relay, TURN credentials and an embedded STUN/TURN server.

``python -m calllab_server`` runs it; :func:`create_app` gives the same service as an aiohttp application.
The public names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calllab_server.app import create_app
    from calllab_server.config import ServiceConfig
    from calllab_server.errors import ConfigurationError, ServiceError
    from calllab_server.service import Service

__all__ = ["ConfigurationError", "Service", "ServiceConfig", "ServiceError", "create_app"]

_HOMES = {
    "ConfigurationError": "errors",
    "Service": "service",
    "ServiceConfig": "config",
    "ServiceError": "errors",
    "create_app": "app",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module it lives in (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names too."""
    return sorted({*globals(), *__all__})
