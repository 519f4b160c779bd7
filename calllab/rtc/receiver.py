"""Receivers (webrtc-pc section 5.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calllab._aiortc import HeardSource, RemoteTrack, RtpReceiver
from calllab.rtc.capabilities import RTCRtpCapabilities, RTCRtpCodec, capabilities
from calllab.rtc.jsep_state import TransceiverState
from calllab.rtc.statistics import RTCStatsReport
from calllab.rtc.transports import RTCDtlsTransport

if TYPE_CHECKING:
    from calllab.rtc.session import PeerSession
    from calllab.rtc.transceiver import RTCRtpTransceiver

__all__ = ["RTCRtpReceiver"]


class RTCRtpReceiver:
    """What receives the media of one transceiver; its track exists from the beginning."""

    def __init__(self, session: PeerSession, transceiver: RTCRtpTransceiver, state: TransceiverState) -> None:
        self._session = session
        self._transceiver = transceiver
        self.media = RtpReceiver(session.dtls, state.kind, rtcp_ssrc=state.ssrc)

    @property
    def track(self) -> RemoteTrack:
        """The track; muted while nothing arrives."""
        return self.media.track

    @property
    def transport(self) -> RTCDtlsTransport | None:
        """The transport over which media comes, None before a description of ours has it."""
        return self._session.transport_of(self._transceiver)

    def getParameters(self) -> dict[str, Any]:
        """Return the RTCRtpReceiveParameters: what a description that is set, even a pending one, has for
        receiving.
        """
        negotiated = self._session.receivable(self._transceiver)
        codecs = negotiated.codecs if negotiated is not None else ()
        extensions = negotiated.header_extensions if negotiated is not None else ()
        return {
            "headerExtensions": [{"uri": extension.uri, "id": extension.id} for extension in extensions],
            "rtcp": {"reducedSize": self._session.reduced_size(self._transceiver)},
            "codecs": [RTCRtpCodec.of(codec, with_number=True) for codec in codecs],
        }

    def getSynchronizationSources(self) -> list[dict[str, float]]:
        """Return the SSRCs heard in the last ten seconds, the latest first: ``source``, ``timestamp`` (epoch
        ms), ``rtpTimestamp`` and, where the peer tells it, ``audioLevel`` (0..1).
        """
        return [_source(source) for source in self.media.synchronization_sources()]

    def getContributingSources(self) -> list[dict[str, float]]:
        """Return the same of the CSRCs that a mixer named in the packets."""
        return [_source(source) for source in self.media.contributing_sources()]

    async def getStats(self) -> RTCStatsReport:
        """Return the statistics of what this receiver receives, and of all they refer to."""
        return self._session.statistics(receiver=self)

    @staticmethod
    def getCapabilities(kind: str) -> RTCRtpCapabilities | None:
        """Return what can be received of a kind; None for a kind that does not exist."""
        return capabilities(kind)


def _source(source: HeardSource) -> dict[str, float]:
    found: dict[str, float] = {
        "source": source.source,
        "timestamp": source.heard_at_s * 1000,
        "rtpTimestamp": source.rtp_timestamp,
    }
    if source.audio_level is not None:
        found["audioLevel"] = source.audio_level
    return found
