"""getStats(): the counters of a peer connection as W3C statistics (webrtc-stats).

The counters are those of :mod:`calllab._aiortc`; here they get their W3C names, units and links.  What cannot
be known honestly is absent, never zero.  Identifiers are stable for the life of the object they stand for.
Reading changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from calllab._aiortc import ChannelLedger, DtlsTransport, IceTransport, RtpReceiver, RtpSender, wall_time
from calllab._aiortc.channel_ledger import ChannelsSnapshot
from calllab.rtc.statistics_rtp import MediaStats, add_media
from calllab.rtc.statistics_transport import CERTIFICATES, add_data, add_transport

__all__ = ["MediaStats", "RTCStatsReport", "build_report", "report_for"]

_LINKS: Final = (
    "codecId",
    "transportId",
    "remoteId",
    "localId",
    "mediaSourceId",
    "selectedCandidatePairId",
    "localCandidateId",
    "remoteCandidateId",
    "localCertificateId",
    "remoteCertificateId",
)
"""The members through which one statistics object refers to another."""


class RTCStatsReport(dict[str, dict[str, Any]]):
    """Statistics objects by their identifier; each has ``id``, ``type`` and ``timestamp`` (epoch, ms)."""

    def of_type(self, type_: str) -> list[dict[str, Any]]:
        """Return the objects of one type, such as ``inbound-rtp``."""
        return [entry for entry in self.values() if entry["type"] == type_]


@dataclass(slots=True)
class _Builder:
    """Collects statistics objects; members that are None are left out."""

    report: RTCStatsReport
    timestamp_ms: float

    def add(
        self, type_: str, id_: str, members: Mapping[str, Any], *, timestamp_ms: float | None = None
    ) -> str:
        self.report[id_] = {
            "id": id_,
            "type": type_,
            "timestamp": self.timestamp_ms if timestamp_ms is None else timestamp_ms,
            **{name: value for name, value in members.items() if value is not None},
        }
        return id_


def build_report(
    *,
    ice: IceTransport,
    dtls: DtlsTransport,
    media: Sequence[MediaStats],
    channels: ChannelLedger | None = None,
    timestamp_ms: float | None = None,
) -> RTCStatsReport:
    """Return the statistics of a whole connection.

    ``timestamp_ms`` is Unix time in milliseconds (default: now); objects about what a peer reported carry the
    time at which the report arrived.
    """
    builder = _Builder(RTCStatsReport(), wall_time() * 1000 if timestamp_ms is None else timestamp_ms)
    dtls_snapshot = dtls.statistics()
    transport_id = add_transport(builder.add, ice.statistics(), dtls_snapshot)
    for entry in media:
        add_media(builder.add, entry, transport_id)
    add_data(builder.add, channels.statistics() if channels is not None else ChannelsSnapshot())
    return builder.report


def report_for(
    report: RTCStatsReport, *, sender: RtpSender | None = None, receiver: RtpReceiver | None = None
) -> RTCStatsReport:
    """Return what W3C's stats selection algorithm selects: the streams of a sender or receiver, and all that
    these refer to, directly or not (webrtc-pc section 8.5).
    """
    wanted: list[str] = []
    if sender is not None:
        wanted += [e["id"] for e in report.of_type("outbound-rtp") if e["ssrc"] == sender.ssrc]
    if receiver is not None:
        ssrcs = {stream.ssrc for stream in receiver.statistics().streams}
        wanted += [e["id"] for e in report.of_type("inbound-rtp") if e["ssrc"] in ssrcs]
    selected = RTCStatsReport()
    while wanted:
        id_ = wanted.pop()
        entry = report.get(id_)
        if entry is None or id_ in selected:
            continue
        selected[id_] = entry
        wanted += [entry[link] for link in (*_LINKS, *CERTIFICATES) if link in entry]
    # In the order of the whole report, so that equal calls give equal results.
    return RTCStatsReport({id_: entry for id_, entry in report.items() if id_ in selected})
