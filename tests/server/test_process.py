"""The service as a child process: how it starts, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aioice.stun import TransactionFailed

from tests.server.helpers import turn_client

_PATIENCE_S = 20.0
_CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("CALLLAB_")}


@asynccontextmanager
async def child(
    *arguments: str, stdin: int = asyncio.subprocess.PIPE, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run ``python -m calllab_server``; kill it if it is still there at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "calllab_server",
        *arguments,
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**_CLEAN, "TMPDIR": tempfile.gettempdir(), **environment},
        preexec_fn=_listen_to_signals,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        # Without this the pipes' transports are closed by the garbage collector, which warns.
        process._transport.close()  # type: ignore[attr-defined]


def _listen_to_signals() -> None:
    """Undo what the suite itself may have been started with: a shell's background job ignores SIGINT."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def temporary_files() -> list[Path]:
    """Return what the service has in its folder for temporary files."""
    return list(Path(tempfile.gettempdir()).iterdir())


async def ready(process: asyncio.subprocess.Process) -> dict[str, str]:
    """Return the line that says where the service listens."""
    assert process.stdout is not None
    async with asyncio.timeout(_PATIENCE_S):
        line = await process.stdout.readline()
    content: dict[str, str] = msgspec.json.decode(line)
    return content


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Wait for the end; return exit code and standard error."""
    async with asyncio.timeout(_PATIENCE_S):
        _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


async def test_ready_line_and_end_of_stdin() -> None:
    """The first line names both addresses; both answer; the end of stdin ends the service, its files too."""
    async with child("--port", "0", "--turn-port", "0", "--ready-json") as process:
        addresses = await ready(process)
        assert set(addresses) == {"http", "turn"}
        async with aiohttp.ClientSession() as http, http.get(addresses["http"] + "/readyz") as response:
            assert response.status == 200
        host, port = addresses["turn"].removeprefix("turn:").removesuffix("?transport=udp").split(":")
        assert await asyncio.to_thread(_answers_binding, host, int(port))
        assert temporary_files()
        assert process.stdin is not None
        process.stdin.close()
        code, errors = await ended(process)
        assert code == 0, errors
        assert "CALLLAB_JWT_SECRET and CALLLAB_TURN_SECRET not set" in errors
        assert "Traceback" not in errors
    assert not temporary_files()


def _answers_binding(host: str, port: int) -> bool:
    transaction = os.urandom(12)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(_PATIENCE_S)
        client.sendto(b"\x00\x01\x00\x00\x21\x12\xa4\x42" + transaction, (host, port))
        answer = client.recv(1500)
    return answer[:2] == b"\x01\x01" and answer[8:20] == transaction


async def test_other_signals() -> None:
    """Ctrl-C and a closed terminal end the service as cleanly."""
    async with child("--ready-json") as one, child("--ready-json") as other:
        for process, number in ((one, signal.SIGINT), (other, signal.SIGHUP)):
            await ready(process)
            process.send_signal(number)
        for code, errors in (await ended(one), await ended(other)):
            assert code == 0, errors
            assert "Traceback" not in errors


async def test_sigterm() -> None:
    """SIGTERM ends the service cleanly: an open socket gets 1001, exit code 0."""
    async with child("--ready-json") as process:
        url = (await ready(process))["http"]
        async with aiohttp.ClientSession(url) as http:
            body = {"username": "alice", "password": "correct horse battery"}
            async with http.post("/api/auth/register", json=body) as response:
                assert response.status == 201
            async with http.post("/api/auth/login", json=body) as response:
                token = (await response.json())["accessToken"]
            async with http.ws_connect("/ws", headers={"Authorization": f"Bearer {token}"}) as websocket:
                process.terminate()
                async with asyncio.timeout(_PATIENCE_S):
                    await websocket.receive()
                assert websocket.close_code == 1001
        code, errors = await ended(process)
        assert code == 0, errors
        assert "Traceback" not in errors


async def test_null_stdin_is_no_lifeline() -> None:
    """A service whose stdin is /dev/null stays until it is told to stop."""
    async with child("--ready-json", stdin=asyncio.subprocess.DEVNULL) as process:
        url = (await ready(process))["http"]
        async with aiohttp.ClientSession() as http, http.get(url + "/healthz") as response:
            assert response.status == 200
        process.terminate()
        assert (await ended(process))[0] == 0


async def test_without_ready_json_stdin_is_not_read() -> None:
    """Started by hand, the service says where it is and does not end with its stdin."""
    async with child() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        line = (await process.stdout.readline()).decode()
        url = line.split()[-1]
        async with aiohttp.ClientSession() as http, http.get(url + "/healthz") as response:
            assert response.status == 200
        process.terminate()
        assert (await ended(process))[0] == 0


async def test_refuses_a_public_address_without_secrets() -> None:
    """Off loopback the service says in a sentence what to set, and does not start."""
    async with child("--host", "0.0.0.0") as process:
        code, errors = await ended(process)
    assert code == 2
    (sentence,) = errors.splitlines()
    assert "CALLLAB_JWT_SECRET, CALLLAB_TURN_SECRET and CALLLAB_INVITE are not set" in sentence


async def test_public_service_protects_itself() -> None:
    """Off loopback registration needs the invite, /metrics is closed, and TURN relays to no private peer."""
    secrets = {
        "CALLLAB_JWT_SECRET": "j" * 32,
        "CALLLAB_TURN_SECRET": "t" * 32,
        "CALLLAB_INVITE": "friends only",
    }
    public = ("--host", "0.0.0.0", "--turn-external-ip", "192.0.2.7", "--ready-json")
    body = {"username": "alice", "password": "correct horse battery"}
    async with child(*public, **secrets) as process:
        addresses = await ready(process)
        async with aiohttp.ClientSession(addresses["http"]) as http:
            async with http.get("/metrics") as response:
                assert response.status == 403
            async with http.post("/api/auth/register", json=body) as response:
                assert (response.status, (await response.json())["code"]) == (403, "invite-required")
            async with http.post("/api/auth/register", json={**body, "invite": "friends only"}) as response:
                assert response.status == 201
            async with http.post("/api/auth/login", json=body) as response:
                token = (await response.json())["accessToken"]
            headers = {"Authorization": f"Bearer {token}"}
            async with http.get("/api/turn/credentials", headers=headers) as response:
                credentials = await response.json()
        (uri,) = credentials["uris"]
        assert uri == addresses["turn"]
        assert uri.startswith("turn:192.0.2.7:")
        server = ("127.0.0.1", int(uri.split(":")[2].split("?")[0]))
        async with turn_client(server, credentials) as transport:
            relay = transport._TurnTransport__inner_protocol
            with pytest.raises(TransactionFailed) as refusal:
                await relay.channel_bind(0x4000, ("127.0.0.1", 9))
            assert refusal.value.response.attributes["ERROR-CODE"][0] == 403
        process.terminate()
        assert (await ended(process))[0] == 0


async def test_secrets_come_from_the_environment() -> None:
    """With both secrets set nothing is drawn; a short one is refused without being shown."""
    async with child(CALLLAB_JWT_SECRET="tooshort", CALLLAB_TURN_SECRET="t" * 32) as process:
        code, errors = await ended(process)
    assert code == 2
    assert "CALLLAB_JWT_SECRET has 8 characters" in errors
    assert "tooshort" not in errors


@pytest.mark.parametrize("kind", ["--port", "--turn-port"])
async def test_taken_port(kind: str) -> None:
    """A port that is taken is named, with exit code 1 and nothing left behind."""
    with socket.socket(
        socket.AF_INET, socket.SOCK_STREAM if kind == "--port" else socket.SOCK_DGRAM
    ) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == "--port":
            taken.listen()
        port = taken.getsockname()[1]
        async with child(kind, str(port)) as process:
            code, errors = await ended(process)
    assert code == 1
    assert str(port) in errors
    assert kind in errors
    assert "Traceback" not in errors
    assert not temporary_files()


async def test_help_teaches() -> None:
    """--help names the variables, the ways to end, and the exit codes."""
    async with child("--help") as process:
        output, _ = await process.communicate()
    for word in (b"CALLLAB_JWT_SECRET", b"CALLLAB_INVITE", b"SIGTERM", b"--ready-json", b"Exit codes"):
        assert word in output


async def test_a_service_that_dies_with_its_reader_gone() -> None:
    """A parent that has closed both pipes before the service is ready takes it along."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "calllab_server",
        "--ready-json",
        stdin=asyncio.subprocess.PIPE,
        stdout=write_end,
        stderr=asyncio.subprocess.DEVNULL,
        env={**_CLEAN, "TMPDIR": tempfile.gettempdir()},
    )
    os.close(write_end)
    async with asyncio.timeout(_PATIENCE_S):
        assert await process.wait() == 0
    process._transport.close()  # type: ignore[attr-defined]


async def test_importing_the_service_loads_no_media() -> None:
    """The service stays small: importing all of it loads no part of the laboratory."""
    program = textwrap.dedent(
        """
        import sys
        import calllab_server
        for name in calllab_server.__all__:
            getattr(calllab_server, name)
        import calllab_server.cli
        heavy = {"aiortc", "aioice", "av", "numpy", "pandas", "matplotlib", "IPython", "ipywidgets"}
        print(sorted(heavy & set(sys.modules)))
        own = [name for name in sys.modules if name.startswith("calllab.")]
        print(sorted(name for name in own if not name.startswith(("calllab.protocol", "calllab.errors"))))
        """
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    process._transport.close()  # type: ignore[attr-defined]
    assert process.returncode == 0
    assert output.decode().splitlines() == ["[]", "[]"]
