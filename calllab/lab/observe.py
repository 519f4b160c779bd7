"""Reads from live calls what a laboratory wants to be sure of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from calllab.call import Call
from calllab.errors import ExpectationFailed

__all__ = ["MediaIdentity", "SelectedPair", "media_identity", "packets_received", "selected_pair"]


@dataclass(frozen=True)
class SelectedPair:
    """The candidate pair that carries the media of one side."""

    id: str
    local_type: str
    remote_type: str
    protocol: str

    def __str__(self) -> str:
        """Name the kinds of both ends, as in ``host-host over udp``."""
        return f"{self.local_type}-{self.remote_type} over {self.protocol}"


@dataclass(frozen=True)
class MediaIdentity:
    """What must stay the same while a call goes on: its DTLS session and the SSRCs it sends."""

    dtls: object
    ssrcs: frozenset[int]

    def expect_in(self, later: MediaIdentity) -> None:
        """Raise :exc:`~calllab.errors.ExpectationFailed` if ``later`` is not the same session, going on."""
        if self.dtls is not later.dtls:
            raise ExpectationFailed("the DTLS transport was replaced: the call did not keep its session")
        if lost := self.ssrcs - later.ssrcs:
            raise ExpectationFailed(f"the SSRCs {sorted(lost)} are not sent any more: media was interrupted")


async def media_identity(call: Call) -> MediaIdentity:
    """Return the identity of what ``call`` sends at this moment."""
    report = await _report(call)
    sent = (entry["ssrc"] for entry in report.values() if entry["type"] == "outbound-rtp")
    return MediaIdentity(call.pc.getSenders()[0].transport, frozenset(sent))


async def selected_pair(call: Call) -> SelectedPair:
    """Return the pair that carries the media of this side.

    Raises :exc:`~calllab.errors.ExpectationFailed` if there is none.
    """
    report = await _report(call)
    for entry in report.values():
        if entry["type"] == "transport" and (pair_id := entry.get("selectedCandidatePairId")) is not None:
            pair = report[pair_id]
            local, remote = report[pair["localCandidateId"]], report[pair["remoteCandidateId"]]
            return SelectedPair(
                pair_id, local["candidateType"], remote["candidateType"], local.get("protocol", "udp")
            )
    raise ExpectationFailed(f"call {call.id} has no selected candidate pair")


async def packets_received(call: Call) -> int:
    """Return how many RTP packets of all streams have arrived at this side."""
    report = await _report(call)
    return sum(entry["packetsReceived"] for entry in report.values() if entry["type"] == "inbound-rtp")


async def _report(call: Call) -> Mapping[str, Mapping[str, Any]]:
    if call.manager is None:
        raise ExpectationFailed(f"call {call.id} has no peer connection: it is {call.state}")
    return await call.manager.get_stats()
