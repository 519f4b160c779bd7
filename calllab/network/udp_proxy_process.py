"""The UDP proxy in a process of its own, so that nothing else keeps it from being on time."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

import msgspec

from calllab.errors import InvalidSetting, LabError
from calllab.network.udp_proxy_main import MAX_LINE_BYTES

__all__ = ["UdpProxyProcess"]

_START_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 5.0
_KEPT_LOG_LINES: Final = 50

EventListener = Callable[[dict[str, Any]], None]


class UdpProxyProcess:
    """Runs a :class:`~calllab.network.udp_proxy.UdpProxy` as a child, for as long as the context lasts.

    The methods are those of the proxy, as coroutines.  The child ends when its standard input does, so that
    it cannot outlive a parent that dies.

    Args:
        host: the address of legs that stand for an address of another machine, or a hidden one.
        seed: the seed of the run.
        epoch: the loop time at which the timelines are at 0 s; None: now.
        allowed: networks beside this machine's own addresses that it may forward to.

    """

    def __init__(
        self,
        *,
        host: str | None = None,
        seed: int = 0,
        epoch: float | None = None,
        allowed: Iterable[str] = (),
    ) -> None:
        self.host = host or ""
        self._seed = seed
        self._epoch = epoch
        self._allowed = tuple(allowed)
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._count = 0
        self._listeners: list[EventListener] = []
        self._log: deque[str] = deque(maxlen=_KEPT_LOG_LINES)

    async def __aenter__(self) -> Self:
        """Start the child and wait until it is ready.

        Raises :exc:`~calllab.errors.InvalidSetting` for an address or network that is none, and
        :exc:`~calllab.errors.LabError` with what the child printed if it does not start.
        """
        loop = asyncio.get_running_loop()
        # Parent and child read the same monotonic clock.
        epoch = loop.time() if self._epoch is None else self._epoch
        arguments = ["--seed", str(self._seed), "--started-s", repr(epoch)]
        if self.host:
            arguments += ["--host", self.host]
        for network in self._allowed:
            arguments += ["--allow", network]
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "calllab.network.udp_proxy_main",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
        )
        assert process.stdout is not None and process.stderr is not None
        self._tasks.append(loop.create_task(self._read_log(process.stderr), name="log of the UDP proxy"))
        try:
            self.host = (await self._ready(process.stdout))["host"]
        except BaseException:
            await self.close()
            raise
        self._tasks.append(loop.create_task(self._read(process.stdout), name="answers of the UDP proxy"))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop the child."""
        await self.close()

    async def close(self) -> None:
        """Stop the child and wait for its end; closing twice does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await asyncio.gather(*self._tasks)
        # Without this the pipe's transport is closed by the garbage collector, which warns.
        process._transport.close()  # type: ignore[attr-defined]

    def on_event(self, listener: EventListener) -> Callable[[], None]:
        """Call ``listener`` with the members of each change of a link; returns how to stop this."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def description(self, call_id: str, user: str, sdp: str) -> str:
        """Return the session description that ``user`` sends, with legs in place of its candidates."""
        replaced: str = await self._ask("description", call_id=call_id, user=user, sdp=sdp)
        return replaced

    async def candidate(self, call_id: str, user: str, candidate: str) -> str | None:
        """Return the candidate that ``user`` trickles with a leg in its place; None: do not pass it on."""
        replaced: str | None = await self._ask("candidate", call_id=call_id, user=user, candidate=candidate)
        return replaced

    async def end_call(self, call_id: str) -> None:
        """Close the legs of a call as soon as it is silent."""
        await self._ask("end_call", call_id=call_id)

    async def set(self, user: str, **changes: Any) -> None:
        """Change what a user's link does as long as no fault is on; ``*``: all links'."""
        await self._ask("set", user=user, **changes)

    async def fault(
        self, user: str, *, at_s: float | None = None, for_s: float | None = None, **changes: Any
    ) -> int:
        """Plan a fault of a user's link, or of all (``*``); returns its number."""
        number: int = await self._ask("fault", user=user, at_s=at_s, for_s=for_s, **changes)
        return number

    async def cancel(self, number: int) -> None:
        """End a fault that is on, or strike one that is planned; nothing happens if it is over."""
        await self._ask("cancel", number=number)

    async def counters(self) -> dict[str, Any]:
        """Return what has happened so far."""
        counted: dict[str, Any] = await self._ask("counters")
        return counted

    async def _ask(self, do: str, **args: Any) -> Any:
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            raise LabError("the UDP proxy is not running: use `async with UdpProxyProcess() as proxy`")
        self._count += 1
        number = self._count
        line = msgspec.json.encode({"id": number, "do": do, "args": args}) + b"\n"
        if len(line) > MAX_LINE_BYTES // 3:
            raise InvalidSetting(f"{do}: {len(line)} bytes are too many for the UDP proxy: cut it down")
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            process.stdin.write(line)
            await process.stdin.drain()
            return await answer
        except ConnectionError as error:
            raise self._ended() from error
        finally:
            del self._waiting[number]

    async def _ready(self, stream: asyncio.StreamReader) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                line = await stream.readline()
        except TimeoutError:
            raise LabError(
                f"the UDP proxy was not ready after {_START_TIMEOUT_S:g} s: {self._said()}"
            ) from None
        try:
            content: dict[str, Any] = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            await self.close()
            raise self._ended() from error
        if "error" in content:
            raise InvalidSetting(content["error"])
        ready: dict[str, Any] = content["ready"]
        return ready

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            content = msgspec.json.decode(line)
            if "event" in content:
                for listener in tuple(self._listeners):
                    listener(content["event"])
                continue
            answer = self._waiting.get(content["id"])
            if answer is None or answer.done():
                continue
            if "error" in content:
                answer.set_exception(InvalidSetting(content["error"]))
            else:
                answer.set_result(content["result"])
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(self._ended())

    def _ended(self) -> LabError:
        return LabError(f"the UDP proxy has ended before it was told to: {self._said()}")

    def _said(self) -> str:
        return "\n".join(self._log) or "it printed nothing"

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self._log.append(line.decode(errors="replace").rstrip())
