"""The calllab service as a child process of a laboratory."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections import deque
from pathlib import Path
from typing import Self

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from calllab.errors import ServiceStartError, ServiceUnavailable

__all__ = ["ServiceProcess"]

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
_KEPT_LOG_LINES = 200
_RELAYED_PACKETS = "calllab_turn_packets_total"


class _Ready(msgspec.Struct):
    """The one line that the service prints when it is ready."""

    http: str
    turn: str


class ServiceProcess:
    """Runs ``python -m calllab_server`` on free loopback ports for as long as the context lasts.

    The service ends when its standard input does, so that it cannot outlive a laboratory that dies.

    :param turn_secret: the shared secret of the TURN REST credentials; None: a random one.
    """

    def __init__(self, *, host: str = "127.0.0.1", turn_secret: str | None = None) -> None:
        self.host = host
        self.turn_secret = turn_secret or secrets.token_urlsafe(32)
        self.http_url = ""
        self.turn_uri = ""
        self._log: deque[str] = deque(maxlen=_KEPT_LOG_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[None] | None = None

    @property
    def log(self) -> str:
        """The last lines that the service wrote to its standard error."""
        return "\n".join(self._log)

    async def __aenter__(self) -> Self:
        """Start the service and wait until it is ready.

        Raises :exc:`~calllab.errors.ServiceStartError` with what the service printed.
        """
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "calllab_server",
            "--host",
            self.host,
            "--port",
            "0",
            "--turn-port",
            "0",
            "--ready-json",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment(),
        )
        assert process.stderr is not None
        self._drain = asyncio.get_running_loop().create_task(self._read_log(process.stderr))
        try:
            ready = await self._wait_ready(process)
        except BaseException:
            await self.close()
            raise
        self.http_url, self.turn_uri = ready.http, ready.turn
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop the service."""
        await self.close()

    async def close(self) -> None:
        """Stop the service and wait for its end; closing twice does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._drain is not None:
            await self._drain
        # Without this the pipe's transport is closed by the garbage collector, which warns.
        process._transport.close()  # type: ignore[attr-defined]

    async def relayed_packets(self) -> int:
        """Return how many packets the TURN server has relayed so far, in both directions.

        Raises :exc:`~calllab.errors.ServiceUnavailable` if the service does not answer.
        """
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{self.http_url}/metrics") as response,
            ):
                response.raise_for_status()
                text = await response.text()
        except aiohttp.ClientError as exc:
            raise ServiceUnavailable(f"{self.http_url}/metrics does not answer: {exc}") from exc
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(int(sample.value) for sample in samples if sample.name == _RELAYED_PACKETS)

    def _environment(self) -> dict[str, str]:
        own = {"CALLLAB_JWT_SECRET": secrets.token_urlsafe(32), "CALLLAB_TURN_SECRET": self.turn_secret}
        return {**os.environ, **own}

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> _Ready:
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S)
        except TimeoutError:
            raise ServiceStartError(
                f"the service was not ready after {START_TIMEOUT_S:g} s; it printed:\n{self.log}"
            ) from None
        try:
            return msgspec.json.decode(line, type=_Ready)
        except msgspec.DecodeError as exc:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            assert self._drain is not None
            await self._drain
            raise ServiceStartError(
                f"the service ended with exit code {process.returncode} before it was ready "
                f"(started by {Path(sys.executable).name} -m calllab_server); it printed:\n{self.log}"
            ) from exc

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self._log.append(line.decode(errors="replace").rstrip())
