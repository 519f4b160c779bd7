"""Fixtures of the service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.server.helpers import Bench, running


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Run a service with its default settings on loopback."""
    async with running() as running_bench:
        yield running_bench
