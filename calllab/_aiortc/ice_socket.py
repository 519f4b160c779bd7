"""One local ICE socket (or TURN allocation) with counters for each remote address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aioice import ice, stun

from calllab._aiortc.datagrams import Address
from calllab._aiortc.simulated import wall_time

__all__ = ["ConsentCheck", "IceSocket", "PairTraffic"]

# A peer can spray from many ports; beyond this many no more are counted one by one.
_MAX_PEERS = 256


@dataclass(slots=True)
class PairTraffic:
    """What passed between one local socket and one remote address; bytes are UDP payload, checks apart."""

    packets_sent: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    bytes_received: int = 0
    requests_sent: int = 0
    """Each counts once, however often it was transmitted."""
    responses_received: int = 0
    requests_received: int = 0
    responses_sent: int = 0
    consent_requests_sent: int = 0
    transmissions: int = 0
    """Of requests, repeated ones too."""
    total_rtt_s: float = 0.0
    current_rtt_s: float | None = None
    last_sent_at_ms: float | None = None
    """Unix milliseconds."""
    last_received_at_ms: float | None = None
    """Unix milliseconds."""


class ConsentCheck:
    """A check of the selected pair that waits for its answer for as long as consent would last.

    Stock aioice gives a consent check 500 ms (ice.py:1262, stun.py:21), so that on a path with a longer
    round trip every one fails.  This one takes the place of a transaction in StunProtocol's table: it is sent
    once, so its round trip is never ambiguous.
    """

    def __init__(
        self,
        sent_at: float,
        address: Address,
        integrity_key: bytes,
        on_answer: Callable[[float], None],
        on_role_conflict: Callable[[], None],
    ) -> None:
        self.sent_at = sent_at
        self._address = address
        self._key = integrity_key
        self._on_answer = on_answer
        self._on_role_conflict = on_role_conflict

    def response_received(self, message: stun.Message, addr: Address) -> None:
        """Take what StunProtocol matched by its transaction id."""
        if addr != self._address or not message.check_message_integrity(self._key):
            return
        if message.message_class == stun.Class.RESPONSE:
            self._on_answer(self.sent_at)
        elif message.attributes.get("ERROR-CODE", (0, ""))[0] == 487:
            self._on_role_conflict()


class IceSocket(ice.StunProtocol):
    """An aioice socket that counts, and that tells when anything arrives."""

    def __init__(self, receiver: Any, on_received: Callable[[], None], url: str | None = None) -> None:
        super().__init__(receiver)
        self.url = url
        self.traffic: dict[Address, PairTraffic] = {}
        self._on_received = on_received
        self._is_former: Callable[[Address], bool] = receiver.is_former
        self._overflow = PairTraffic()
        self._loop = asyncio.get_running_loop()

    def with_peer(self, address: Address) -> PairTraffic:
        """Return the counters of one remote address."""
        traffic = self.traffic.get(address)
        if traffic is None:
            if len(self.traffic) >= _MAX_PEERS:
                return self._overflow
            traffic = self.traffic[address] = PairTraffic()
        return traffic

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        if not data or not hasattr(self, "local_candidate"):
            return  # an empty datagram is no packet of ours; a socket still being made has no candidate
        traffic = self.with_peer((addr[0], addr[1]))
        first = data[0] if isinstance(data, bytes) else 0
        if first > 3:  # RFC 7983: 0..3 is STUN, the rest is DTLS and SRTP
            if self._is_former((addr[0], addr[1])):
                return
            traffic.packets_received += 1
            traffic.bytes_received += len(data)
            traffic.last_received_at_ms = wall_time() * 1000
        self._on_received()
        super().datagram_received(data, addr)

    async def send_data(self, data: bytes, addr: Address) -> None:
        traffic = self.with_peer(addr)
        traffic.packets_sent += 1
        traffic.bytes_sent += len(data)
        traffic.last_sent_at_ms = wall_time() * 1000
        await super().send_data(data, addr)

    def send_stun(self, message: stun.Message, addr: Address) -> None:
        traffic = self.with_peer(addr)
        if message.message_class == stun.Class.REQUEST:
            traffic.transmissions += 1
        elif message.message_class == stun.Class.RESPONSE:
            traffic.requests_received += 1
            traffic.responses_sent += 1
        super().send_stun(message, addr)

    async def request(
        self,
        request: stun.Message,
        addr: Address,
        integrity_key: bytes | None = None,
        retransmissions: int | None = None,
    ) -> tuple[stun.Message, Address]:
        traffic = self.with_peer(addr)
        sent_at, transmissions = self._loop.time(), traffic.transmissions
        traffic.requests_sent += 1
        answer, source = await super().request(request, addr, integrity_key, retransmissions)
        rtt = self._loop.time() - sent_at
        traffic.responses_received += 1
        traffic.total_rtt_s += rtt
        if traffic.transmissions == transmissions + 1:
            # Only then it is sure which transmission was answered (Karn's rule).
            traffic.current_rtt_s = rtt
        return answer, source

    def note_consent(self, address: Address, sent_at: float) -> None:
        """Count an answered consent check."""
        traffic = self.with_peer(address)
        traffic.responses_received += 1
        traffic.current_rtt_s = self._loop.time() - sent_at
        traffic.total_rtt_s += traffic.current_rtt_s
