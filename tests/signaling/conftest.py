"""The real service, for the tests that need one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from calllab_server import Service, ServiceConfig


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service on loopback, with a temporary database."""
    async with Service(ServiceConfig.for_loopback(cheap_passwords=True)) as service:
        yield service
