"""Counting RTP packets, and reading what the peer reports about them (RFC 3550 section 6.4)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

__all__ = ["RemoteReport", "RtpCounters", "RtpHeader", "SenderReports"]

# Sender reports whose answer may still come: more than any round trip takes.
_REMEMBERED_REPORTS = 32


@dataclass(frozen=True, slots=True)
class RtpHeader:
    """What is needed of the header of an RTP packet (RFC 3550 section 5.1)."""

    ssrc: int
    sequence_number: int
    marker: bool
    header_bytes: int
    """Fixed header, contributing sources and extensions; and padding, which is no payload either."""
    payload_bytes: int

    @classmethod
    def of(cls, data: bytes) -> RtpHeader:
        """Read the header of a valid RTP packet."""
        header = 12 + 4 * (data[0] & 0x0F)
        if data[0] & 0x10:
            header += 4 + 4 * int.from_bytes(data[header + 2 : header + 4])
        padding = data[-1] if data[0] & 0x20 else 0
        return cls(
            ssrc=int.from_bytes(data[8:12]),
            sequence_number=int.from_bytes(data[2:4]),
            marker=bool(data[1] & 0x80),
            header_bytes=header + padding,
            payload_bytes=len(data) - header - padding,
        )


@dataclass(slots=True)
class RtpCounters:
    """Packets and bytes of one SSRC."""

    packets: int = 0
    payload_bytes: int = 0
    header_bytes: int = 0
    last_at: float | None = None
    """Loop time of the latest packet."""

    def add(self, header: RtpHeader, now: float) -> None:
        """Count a packet."""
        self.packets += 1
        self.payload_bytes += header.payload_bytes
        self.header_bytes += header.header_bytes
        self.last_at = now


@dataclass(frozen=True, slots=True)
class RemoteReport:
    """What the peer said last about a stream that we send."""

    received_at_s: float
    """Unix time at which it arrived."""
    packets_lost: int
    packets_received: int | None
    """Reckoned from the highest sequence number that the peer reports, which it does not always do well."""
    fraction_lost: float
    """0..1, since the report before."""
    jitter_s: float
    round_trip_s: float | None
    """Of this report; None if it answers none of ours."""
    total_round_trip_s: float
    round_trip_measurements: int


class SenderReports:
    """Matches receiver reports with the sender reports that they answer."""

    def __init__(self) -> None:
        self.latest: RemoteReport | None = None
        self._sent: OrderedDict[int, float] = OrderedDict()
        self._first_sequence: int | None = None
        self._packets = 0
        self._total_s = 0.0
        self._measurements = 0

    def packet_sent(self, sequence_number: int) -> None:
        """A media packet left."""
        if self._first_sequence is None:
            self._first_sequence = sequence_number
        self._packets += 1

    def report_sent(self, ntp_timestamp: int, now: float) -> None:
        """A sender report left; loop time."""
        key = (ntp_timestamp >> 16) & 0xFFFFFFFF
        self._sent.pop(key, None)
        self._sent[key] = now
        while len(self._sent) > _REMEMBERED_REPORTS:
            self._sent.popitem(last=False)

    def report_received(self, report: Any, clock_rate: int, now: float, wall_s: float) -> None:
        """A report block about this stream arrived (loop time and Unix time)."""
        round_trip_s: float | None = None
        sent_at = self._sent.get(report.lsr)
        if report.lsr and sent_at is not None:
            round_trip_s = now - sent_at - report.dlsr / 65536
            if round_trip_s < 0:
                round_trip_s = None  # a dlsr that cannot be: no measurement
        if round_trip_s is not None:
            self._total_s += round_trip_s
            self._measurements += 1
        self.latest = RemoteReport(
            received_at_s=wall_s,
            packets_lost=report.packets_lost,
            packets_received=self._received(report.highest_sequence, report.packets_lost),
            fraction_lost=report.fraction_lost / 256,
            jitter_s=report.jitter / clock_rate,
            round_trip_s=round_trip_s,
            total_round_trip_s=self._total_s,
            round_trip_measurements=self._measurements,
        )

    def _received(self, highest_sequence: int, packets_lost: int) -> int | None:
        if self._first_sequence is None:
            return None
        # Only the low 16 bits can be trusted: some receivers, aiortc among them, do not count cycles in
        # this field.  The rest follows from what was sent: at most one cycle can be under way.
        expected = ((highest_sequence - self._first_sequence) & 0xFFFF) + 1
        expected += max(0, (self._packets - expected) >> 16) << 16
        if expected > self._packets:
            return None
        return max(0, expected - packets_lost)
