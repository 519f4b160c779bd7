"""Receivers (webrtc-pc section 5.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calllab._aiortc import RemoteTrack, RtpReceiver
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
        """The transport over which media comes, None before it is negotiated."""
        return self._session.dtls_transport if self._transceiver.mid is not None else None

    def getParameters(self) -> dict[str, Any]:
        """Return the RTCRtpReceiveParameters in force; no codecs before they are negotiated."""
        negotiated = self._session.in_force(self._transceiver)
        codecs = negotiated.codecs if negotiated is not None else ()
        extensions = negotiated.header_extensions if negotiated is not None else ()
        return {
            "headerExtensions": [{"uri": extension.uri, "id": extension.id} for extension in extensions],
            "rtcp": {"reducedSize": True},
            "codecs": [RTCRtpCodec.of(codec, with_number=True) for codec in codecs],
        }

    def getSynchronizationSources(self) -> list[dict[str, float]]:
        """Return the SSRCs from which media came in the last ten seconds, with the time of the latest
        (epoch ms).
        """
        return [
            {"source": ssrc, "timestamp": timestamp_s * 1000}
            for ssrc, timestamp_s in self.media.synchronization_sources()
        ]

    async def getStats(self) -> RTCStatsReport:
        """Return the statistics of what this receiver receives, and of all they refer to."""
        return self._session.statistics(receiver=self)

    @staticmethod
    def getCapabilities(kind: str) -> RTCRtpCapabilities | None:
        """Return what can be received of a kind; None for a kind that does not exist."""
        return capabilities(kind)
