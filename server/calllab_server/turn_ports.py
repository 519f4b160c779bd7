"""UDP sockets for the TURN server: the one for its clients, and the relayed ports."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import sys
from collections.abc import Iterator
from typing import Final

from calllab.protocol.stun_attributes import Address, Family, family_of
from calllab.protocol.turn_actions import Ports

__all__ = ["RelayPorts", "can_forbid_fragments", "open_socket", "send_unfragmented"]

_RELAY_SOCKET_BYTES: Final = 1 << 20
# A range may be large and full: give up before a client's patience ends.
_MAX_TRIES: Final = 256
# The port is taken, or is not for us: the next one may do.
_TAKEN: Final = (errno.EADDRINUSE, errno.EACCES)

# Linux numbers that the socket module does not name.
_IP_MTU_DISCOVER: Final = 10
_IP_PMTUDISC_DONT: Final = 0
_IP_PMTUDISC_DO: Final = 2


def open_socket(host: str, port: int, receive_bytes: int) -> socket.socket:
    """Return a UDP socket bound to a numeric host; raises :exc:`OSError` as the system says."""
    family = socket.AF_INET6 if family_of(host) is Family.IPV6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        # The system may grant less; bursts are then lost earlier.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if can_forbid_fragments(family_of(host)):
            # RFC 8656 section 14: without DONT-FRAGMENT the DF bit is 0; Linux would set it.
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def can_forbid_fragments(family: Family) -> bool:
    """Say whether :func:`send_unfragmented` works here."""
    return sys.platform == "linux" and family is Family.IPV4


def send_unfragmented(sock: socket.socket, data: bytes, address: Address) -> None:
    """Send one datagram with the DF bit set; raises :exc:`OSError` as the system says."""
    sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
    try:
        sock.sendto(data, address)
    finally:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)


class RelayPorts:
    """Opens relay sockets on one host, from a range of ports or wherever the system likes."""

    def __init__(self, host: str, ports: tuple[int, int] | None, *, entropy: random.Random) -> None:
        self._host = host
        self._range = ports
        self._entropy = entropy
        self._reserved: dict[bytes, socket.socket] = {}

    def open(self, ports: Ports, token: bytes | None) -> socket.socket:
        """Return a bound socket; a pair's second one is held back under the token.

        Raises :exc:`OSError` when there is no such port to be had, or no socket.
        """
        if ports is Ports.RESERVED:
            sock = self._reserved.pop(token or b"", None)
            if sock is None:
                raise OSError(errno.EADDRNOTAVAIL, "no port is reserved under this token")
            return sock
        for port in self._candidates(even=ports is not Ports.ANY):
            sock = self._try(port)
            if sock is None:
                continue
            if ports is Ports.ANY:
                return sock
            number = sock.getsockname()[1]
            if number % 2 == 0 and (ports is Ports.EVEN or self._hold(number + 1, token)):
                return sock
            sock.close()
        raise OSError(errno.EADDRINUSE, f"{self._host} has no free port for this among those that were tried")

    def release(self, token: bytes) -> None:
        """Let go of what is held back under a token."""
        sock = self._reserved.pop(token, None)
        if sock is not None:
            sock.close()

    def close(self) -> None:
        """Let go of all that is held back."""
        for token in list(self._reserved):
            self.release(token)

    def _candidates(self, *, even: bool) -> Iterator[int]:
        if self._range is None:
            # Zero lets the system choose; half of what it gives is even.
            yield from [0] * (64 if even else 1)
            return
        low, high = self._range
        step = 2 if even else 1
        first = low + (low % 2 if even else 0)
        count = max(0, (high - first) // step + 1)
        if count:
            # From a random place on: RFC 8656 section 7.2 wants ports that cannot be foretold.
            start = self._entropy.randrange(count)
            for offset in range(min(count, _MAX_TRIES)):
                yield first + (start + offset) % count * step

    def _hold(self, port: int, token: bytes | None) -> bool:
        if token is None or port > (self._range[1] if self._range else 65535):
            return False
        sock = self._try(port)
        if sock is None:
            return False
        self._reserved[token] = sock
        return True

    def _try(self, port: int) -> socket.socket | None:
        try:
            return open_socket(self._host, port, _RELAY_SOCKET_BYTES)
        except OSError as exc:
            if exc.errno in _TAKEN:
                return None
            raise
