"""What holds for all statistics reports of one connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from calllab.rtc import RTCStatsReport

GAUGES: Final = {
    "timestamp", "jitter", "audioLevel", "framesPerSecond", "fractionLost", "roundTripTime",
    "frameWidth", "currentRoundTripTime", "frameHeight", "width", "height", "targetBitrate", "ssrc",
    "rtxSsrc", "payloadType", "clockRate", "channels", "port", "priority", "relatedPort",
    "dataChannelIdentifier", "nominated", "active", "packetsLost",
}  # fmt: skip
"""Numbers that may fall; all others are counters.  What was lost may yet come (RFC 3550 section 6.4.1)."""


def check_counters(reports: Iterable[RTCStatsReport]) -> None:
    """No counter falls from one report to a later one, even if its object was gone in between."""
    highest: dict[tuple[str, str], float] = {}
    for report in reports:
        for id_, entry in report.items():
            for name, value in entry.items():
                if isinstance(value, int | float) and name not in GAUGES:
                    before = highest.get((id_, name), value)
                    assert value >= before, f"{id_}.{name} fell from {before} to {value}"
                    highest[id_, name] = value


def check_references(report: RTCStatsReport) -> None:
    """Each reference leads to an object of the right type, and back where there is a way back."""
    targets = {
        "codecId": "codec", "transportId": "transport", "mediaSourceId": "media-source",
        "selectedCandidatePairId": "candidate-pair", "localCandidateId": "local-candidate",
        "remoteCandidateId": "remote-candidate", "localCertificateId": "certificate",
        "remoteCertificateId": "certificate",
    }  # fmt: skip
    for id_, entry in report.items():
        assert entry["id"] == id_
        for name, type_ in targets.items():
            if name in entry:
                assert report[entry[name]]["type"] == type_
        if "remoteId" in entry:
            assert report[entry["remoteId"]]["localId"] == id_
            assert report[entry["remoteId"]]["ssrc"] == entry["ssrc"]
