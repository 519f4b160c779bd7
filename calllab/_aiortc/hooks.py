"""Puts clock and chance of simulated loops into aiortc, aioice and OpenSSL, and takes them out again.

No source is edited: module globals are replaced by shims, each of which delegates to the real thing unless
the running loop is a simulated one.  So ordinary loops of the same process notice nothing.  Which calls the
hooks cover, and which need none, is listed in :data:`CALL_SITES`; :func:`drift` compares that with the
installed libraries, for an upgrade may add a call that no hook covers.
"""

from __future__ import annotations

import ast
import contextlib
import datetime
import importlib
import multiprocessing
import os
import random
import secrets
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aioice
import aiortc
import av
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtcrtpsender import RTCRtpSender

from calllab._aiortc.dtls_clock import install_dtls_clock
from calllab._aiortc.levels import level_dbov
from calllab._aiortc.simulated import new_uuid, simulated_loop, wall_time
from calllab._aiortc.stand_in import decoder_for
from calllab._aiortc.worker import DecoderThreads

__all__ = ["CALL_SITES", "drift", "library_hooks"]

Undo = Callable[[], None]


class _Shim:
    """A module, some of whose functions are others."""

    def __init__(self, real: Any, **others: Any) -> None:
        self.__dict__.update(others)
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _chance(real: Any) -> Any:
    loop = simulated_loop()
    return real if loop is None else loop.entropy


def _urandom(size: int) -> bytes:
    loop = simulated_loop()
    return os.urandom(size) if loop is None else loop.entropy.randbytes(size)


def _randbits(bits: int) -> int:
    loop = simulated_loop()
    return secrets.randbits(bits) if loop is None else loop.entropy.getrandbits(bits)


def _choice(sequence: Sequence[Any]) -> Any:
    return _chance(secrets).choice(sequence)


def _random() -> float:
    value: float = _chance(random).random()
    return value


def _randint(low: int, high: int) -> int:
    value: int = _chance(random).randint(low, high)
    return value


def _cpu_count() -> int:
    # The thread count of a VP8 encoder follows from it, and with that its bit stream.
    return multiprocessing.cpu_count() if simulated_loop() is None else 1


class _CodecContext:
    """Makes codecs; x264 splits a picture among as many threads as there are processors, and it shows."""

    @staticmethod
    def create(*args: Any, **kwargs: Any) -> Any:
        codec = av.CodecContext.create(*args, **kwargs)
        if simulated_loop() is not None:
            codec.thread_count = 1
        return codec


def _now() -> datetime.datetime:
    return datetime.datetime.fromtimestamp(wall_time(), datetime.UTC)


_TIME = _Shim(time, time=wall_time)
_OS = _Shim(os, urandom=_urandom)
_SECRETS = _Shim(secrets, choice=_choice, randbits=_randbits)
_RANDOM = _Shim(random, random=_random, randint=_randint)
_UUID = _Shim(uuid, uuid4=lambda: uuid.UUID(new_uuid()))

_MODULES: Final[tuple[tuple[str, str, Any], ...]] = (
    ("aiortc.mediastreams", "time", _TIME),
    ("aiortc.rtcrtpsender", "time", _TIME),
    ("aiortc.rtcrtpreceiver", "time", _TIME),
    ("aiortc.rtcsctptransport", "time", _TIME),
    ("aioice.turn", "time", _TIME),
    ("aiortc.clock", "current_datetime", _now),
    ("aiortc.utils", "os", _OS),
    ("aiortc.rtp", "os", _OS),
    ("aiortc.rtcsctptransport", "os", _OS),
    ("aioice.utils", "os", _OS),
    ("aioice.utils", "secrets", _SECRETS),
    ("aioice.ice", "secrets", _SECRETS),
    ("aioice.ice", "random", _RANDOM),
    ("aiortc.rtcrtpsender", "random", _RANDOM),
    ("aiortc.rtcrtpreceiver", "random", _RANDOM),
    ("aiortc.codecs.vpx", "random", _RANDOM),
    ("aiortc.codecs.vpx", "multiprocessing", _Shim(multiprocessing, cpu_count=_cpu_count)),
    ("aiortc.codecs.h264", "av", _Shim(av, CodecContext=_CodecContext)),
    ("aiortc.mediastreams", "uuid", _UUID),
    ("aiortc.rtcrtpsender", "uuid", _UUID),
    ("aiortc.rtcrtpreceiver", "threading", DecoderThreads()),
    ("aiortc.rtp", "compute_audio_level_dbov", level_dbov),
    ("aiortc.rtcrtpreceiver", "get_decoder", decoder_for),
)

# aiortc keeps these in sets (rtcdtlstransport.py:264): by default the order follows memory addresses.
_ORDERED: Final = (RTCDtlsTransport, RTCRtpSender, RTCRtpReceiver)


def _number(self: Any) -> int:
    members = self.__dict__
    value: int | None = members.get("_simulated_hash")
    if value is None:
        loop = simulated_loop()
        if loop is None:
            return object.__hash__(self)
        # Of the loop, not of the process: the order must not follow from what was simulated before.
        value = members["_simulated_hash"] = next(loop.object_numbers)
    return value


_users = 0
_lock = threading.Lock()  # simulations may run in several threads
_undo: list[Undo] = []


@contextlib.contextmanager
def library_hooks() -> Iterator[None]:
    """Let the libraries follow simulated loops as long as anybody is in this context."""
    global _users
    with _lock:
        if _users == 0:
            try:
                for undo in _install():
                    _undo.append(undo)
            except BaseException:
                _take_out()
                raise
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _take_out()


def _take_out() -> None:
    while _undo:
        _undo.pop()()


def _install() -> Iterator[Undo]:
    for module_name, name, value in _MODULES:
        module = importlib.import_module(module_name)
        yield _put(module, name, value)
    for kind in _ORDERED:
        kind.__hash__ = _number  # type: ignore[method-assign]
        yield lambda kind=kind: delattr(kind, "__hash__")  # type: ignore[misc]
    yield install_dtls_clock()


def _put(module: Any, name: str, value: Any) -> Undo:
    before = getattr(module, name)
    setattr(module, name, value)
    return lambda: setattr(module, name, before)


# What the hooks know of the libraries: how often each file calls what depends on clock, chance or threads.

CALL_SITES: Final[Mapping[str, Mapping[str, int]]] = {
    "aioice/ice.py": {
        "create_datagram_endpoint": 1,  # not reached: we gather (gathering.py)
        "random.random": 1,
        "run_in_executor": 1,  # not reached: we gather
        "secrets.randbits": 1,
    },
    # Multicast DNS opens sockets of the machine: candidates ending in .local stay unresolved in virtual time.
    "aioice/mdns.py": {"create_datagram_endpoint": 1, "socket.socket": 1, "uuid.uuid4": 1},
    "aioice/turn.py": {"create_connection": 1, "create_datagram_endpoint": 1, "time.time": 1},
    "aioice/utils.py": {"os.urandom": 1, "secrets.choice": 1},
    "aiortc/clock.py": {"datetime.now": 1},
    # These run in one thread whatever the machine; so does VP8, which is told so (vpx.py:226).
    "aiortc/codecs/g711.py": {"CodecContext.create": 2},
    "aiortc/codecs/g722.py": {"CodecContext.create": 2},
    "aiortc/codecs/h264.py": {"CodecContext.create": 2},  # replaced
    "aiortc/codecs/opus.py": {"CodecContext.create": 2},
    "aiortc/codecs/vpx.py": {"CodecContext.create": 2, "multiprocessing.cpu_count": 1, "random.randint": 1},
    "aiortc/contrib/media.py": {  # MediaPlayer: a real thread that sleeps; not for virtual time
        "run_coroutine_threadsafe": 7,
        "threading.Thread": 1,
        "time.sleep": 4,
        "time.time": 6,
    },
    "aiortc/mediastreams.py": {"time.time": 4, "uuid.uuid4": 1},
    "aiortc/rtcdtlstransport.py": {
        "DTLSv1_get_timeout": 1,
        "DTLSv1_handle_timeout": 1,
        "datetime.now": 1,  # the three of generateCertificate: see simulated_certificate.py
        "ec.generate_private_key": 1,
        "os.urandom": 1,
        "x509.random_serial_number": 1,
    },
    "aiortc/rtcpeerconnection.py": {"uuid.uuid4": 2},  # not used: the peer connection is our own
    "aiortc/rtcrtpreceiver.py": {
        "queue.Queue": 1,  # replaced by our own queue (rtp_receiver.py)
        "random.random": 1,
        "run_coroutine_threadsafe": 2,
        "threading.Thread": 1,
        "time.time": 3,
    },
    "aiortc/rtcrtpsender.py": {
        "random.random": 1,
        "run_in_executor": 1,
        "time.time": 2,
        "uuid.uuid4": 2,
    },
    "aiortc/rtcsctptransport.py": {"os.urandom": 1, "time.time": 5},
    "aiortc/rtp.py": {"os.urandom": 1},
    "aiortc/utils.py": {"os.urandom": 2},
}
"""File of the library, then the call, then how many there are."""

_WATCHED: Final[Mapping[str, frozenset[str] | None]] = {
    "CodecContext": frozenset({"create"}),
    "datetime": frozenset({"now", "today", "utcnow"}),
    "ec": frozenset({"generate_private_key"}),
    "multiprocessing": None,
    "os": frozenset({"cpu_count", "getpid", "urandom"}),
    "queue": frozenset({"Queue"}),
    "random": None,
    "secrets": None,
    "socket": frozenset({"getaddrinfo", "gethostbyname", "socket"}),
    "threading": frozenset({"Thread", "Timer"}),
    "time": frozenset({"monotonic", "perf_counter", "sleep", "time"}),
    "uuid": frozenset({"uuid1", "uuid4"}),
    "x509": frozenset({"random_serial_number"}),
}
_WATCHED_METHODS: Final = frozenset(
    {
        "DTLSv1_get_timeout",
        "DTLSv1_handle_timeout",
        "create_connection",
        "create_datagram_endpoint",
        "run_coroutine_threadsafe",
        "run_in_executor",
        "to_thread",
    }
)


def drift() -> list[str]:
    """Return how the installed libraries differ from what the hooks cover, one sentence each."""
    found = {file: dict(calls) for file, calls in _call_sites().items()}
    complaints = []
    for file in sorted(found.keys() | CALL_SITES.keys()):
        known, now = CALL_SITES.get(file, {}), found.get(file, {})
        for call in sorted(known.keys() | now.keys()):
            if known.get(call, 0) != now.get(call, 0):
                complaints.append(
                    f"{file} calls {call} {now.get(call, 0)} times, the hooks know of {known.get(call, 0)}"
                )
    return complaints


def _call_sites() -> dict[str, Counter[str]]:
    sites: dict[str, Counter[str]] = {}
    for library in (aiortc, aioice):
        folder = Path(str(library.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            calls = Counter(_calls(ast.parse(path.read_text())))
            if calls:
                sites[path.relative_to(folder.parent).as_posix()] = calls
    return sites


def _calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, owner = node.func.attr, node.func.value
        if name in _WATCHED_METHODS:
            yield name
            continue
        module = str(getattr(owner, "id", "") or getattr(owner, "attr", ""))
        if module in _WATCHED and ((names := _WATCHED[module]) is None or name in names):
            yield f"{module}.{name}"
