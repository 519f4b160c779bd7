"""The clock of OpenSSL's DTLS retransmission timer, for handshakes in virtual time.

OpenSSL asks ``gettimeofday`` when a flight is to be sent again.  In virtual time one lost flight would make
the loop ask again and again while its clock runs away.  There are two ways out:

- On Linux the entry for ``gettimeofday`` in the global offset table of cryptography's library is pointed at a
  function of ours, which follows the running loop: exact, and free.
- Elsewhere the nominal schedule (1, 2, 4 ... 60 s, RFC 6347 section 4.2.4.1) is kept on the virtual clock,
  and when it is due OpenSSL's own timer is slept out: a second of real time for the first lost flight.

Each is repeatable; times of the two differ by up to 15 ms after a lost flight.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.bindings import _rust
from OpenSSL import SSL

from calllab._aiortc.simulated import simulated_loop, wall_time

__all__ = ["install_dtls_clock", "pace_retransmissions", "patch_gettimeofday"]

Undo = Callable[[], None]

# ELF (System V ABI): tags of the dynamic section, and the relocations that fill an entry of the table with
# the address of a symbol, on x86-64 and AArch64.
_DT_SYMTAB, _DT_STRTAB, _DT_RELA, _DT_RELASZ, _DT_JMPREL, _DT_PLTRELSZ = 6, 5, 7, 8, 23, 2
_PT_LOAD, _PT_DYNAMIC = 1, 2
_RELOCATIONS: Final = frozenset({6, 7, 1025, 1026})
_PROT_READ, _PROT_WRITE = 1, 2

_FIRST_TIMEOUT_S: Final = 1.0
_LONGEST_TIMEOUT_S: Final = 60.0


def install_dtls_clock() -> Undo:
    """Let OpenSSL's DTLS timer follow simulated loops; return what undoes it."""
    try:
        return patch_gettimeofday()
    except (OSError, LookupError, ValueError):
        return pace_retransmissions()


class _TimeVal(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("microseconds", ctypes.c_long)]


def patch_gettimeofday() -> Undo:
    """Point cryptography's entry for ``gettimeofday`` at the clock of the running loop.

    Raises LookupError, ValueError or OSError where that is not possible.
    """
    if sys.platform != "linux" or struct.calcsize("P") != 8:
        raise LookupError("known for 64-bit Linux alone")
    path = Path(_rust.__file__).resolve()
    base = _load_address(path)
    slots = [base + offset for offset in _slots(path.read_bytes(), b"gettimeofday")]
    if not slots:
        raise LookupError(f"{path.name} does not import gettimeofday")

    before = [ctypes.c_uint64.from_address(slot).value for slot in slots]
    address = ctypes.cast(_GETTIMEOFDAY, ctypes.c_void_p).value
    assert address is not None

    def undo() -> None:
        for slot, value in zip(slots, before, strict=True):
            _poke(slot, value)

    try:
        for slot in slots:
            _poke(slot, address)
    except OSError:
        undo()
        raise
    return undo


def _gettimeofday(result: Any, _: Any) -> int:
    seconds, microseconds = divmod(round(wall_time() * 1e6), 1_000_000)
    result.contents.seconds, result.contents.microseconds = seconds, microseconds
    return 0


# Never freed: another thread may be inside of it when the table is put back.
_GETTIMEOFDAY: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_TimeVal), ctypes.c_void_p)(
    _gettimeofday
)


def _load_address(path: Path) -> int:
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and os.path.realpath(fields[5]) == str(path):
            return int(fields[0].split("-")[0], 16) - int(fields[2], 16)
    raise LookupError(f"{path.name} is not mapped into this process")


def _slots(elf: bytes, symbol: bytes) -> list[int]:
    """Return the offsets of the table entries for ``symbol`` in a 64-bit little-endian ELF file."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise LookupError("no 64-bit little-endian ELF file")
    header_at, entry_size, entries = *struct.unpack_from("<Q", elf, 32), *struct.unpack_from("<HH", elf, 54)
    loads: list[tuple[int, int, int]] = []
    dynamic: tuple[int, int] | None = None
    for index in range(entries):
        kind, _, offset, address, _, size, _, _ = struct.unpack_from(
            "<IIQQQQQQ", elf, header_at + index * entry_size
        )
        if kind == _PT_LOAD:
            loads.append((address, offset, size))
        elif kind == _PT_DYNAMIC:
            dynamic = (offset, size)
    if dynamic is None:
        raise LookupError("no dynamic section")

    def position(address: int) -> int:
        for start, offset, size in loads:
            if start <= address < start + size:
                return address - start + offset
        raise LookupError("an address outside of the file")

    tags = dict(struct.iter_unpack("<QQ", elf[dynamic[0] : sum(dynamic)]))
    symbols, strings = position(tags[_DT_SYMTAB]), position(tags[_DT_STRTAB])
    found = []
    for table, length in ((_DT_JMPREL, _DT_PLTRELSZ), (_DT_RELA, _DT_RELASZ)):
        if table not in tags:
            continue
        start = position(tags[table])
        for where, info, _ in struct.iter_unpack("<QQq", elf[start : start + tags[length]]):
            if not info >> 32 or info & 0xFFFFFFFF not in _RELOCATIONS:
                continue
            (name,) = struct.unpack_from("<I", elf, symbols + (info >> 32) * 24)
            if elf.startswith(symbol + b"\0", strings + name):
                found.append(where)
    return found


def _poke(address: int, value: int) -> None:
    """Write into the table, which the loader has made read-only."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page = address & ~(mmap.PAGESIZE - 1)
    if libc.mprotect(page, mmap.PAGESIZE, _PROT_READ | _PROT_WRITE):
        raise OSError(ctypes.get_errno(), "the table of imported functions cannot be made writable")
    ctypes.c_uint64.from_address(address).value = value
    libc.mprotect(page, mmap.PAGESIZE, _PROT_READ)


class _Schedule:
    """When one connection sends its flight again, on the virtual clock."""

    __slots__ = ("due", "fires", "timeout")

    def __init__(self, now: float) -> None:
        self.timeout = _FIRST_TIMEOUT_S
        self.due = now + self.timeout
        self.fires = False


def pace_retransmissions() -> Undo:
    """Keep the schedule in Python, and wait for OpenSSL's own timer when it is due."""
    connection = SSL.Connection
    timeout_left, handle_timeout, bio_read = (
        connection.DTLSv1_get_timeout,
        connection.DTLSv1_handle_timeout,
        connection.bio_read,
    )
    schedules: weakref.WeakKeyDictionary[SSL.Connection, _Schedule] = weakref.WeakKeyDictionary()

    def paced_read(self: SSL.Connection, size: int) -> bytes:
        data = bio_read(self, size)
        loop = simulated_loop()
        if loop is not None and data:
            schedule = schedules.get(self)
            if schedule is not None and schedule.fires:
                schedule.fires = False  # that was the flight sent again
            else:
                schedules[self] = _Schedule(loop.time())
        return data

    def paced_timeout(self: SSL.Connection) -> float | None:
        left: float | None = timeout_left(self)
        loop = simulated_loop()
        if loop is None or left is None:
            return left
        schedule = schedules.setdefault(self, _Schedule(loop.time()))
        return max(0.0, schedule.due - loop.time())

    def paced_handling(self: SSL.Connection) -> bool:
        loop = simulated_loop()
        if loop is not None:
            time.sleep((timeout_left(self) or 0.0) + 0.001)
            schedule = schedules.setdefault(self, _Schedule(loop.time()))
            schedule.timeout = min(_LONGEST_TIMEOUT_S, schedule.timeout * 2)
            schedule.due = loop.time() + schedule.timeout
            schedule.fires = True
        return handle_timeout(self)

    def put(read: Any, timeout: Any, handling: Any) -> None:
        connection.bio_read = read  # type: ignore[method-assign]
        connection.DTLSv1_get_timeout = timeout  # type: ignore[method-assign]
        connection.DTLSv1_handle_timeout = handling  # type: ignore[method-assign]

    put(paced_read, paced_timeout, paced_handling)
    return lambda: put(bio_read, timeout_left, handle_timeout)
