"""Senders (webrtc-pc section 5.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calllab._aiortc import MediaStreamTrack, RtpSender
from calllab.rtc.capabilities import RTCRtpCapabilities, RTCRtpCodec, capabilities
from calllab.rtc.errors import InvalidStateError
from calllab.rtc.jsep_state import TransceiverState
from calllab.rtc.mediastream import MediaStream
from calllab.rtc.statistics import RTCStatsReport
from calllab.rtc.transports import RTCDtlsTransport

if TYPE_CHECKING:
    from calllab.rtc.session import PeerSession
    from calllab.rtc.transceiver import RTCRtpTransceiver

__all__ = ["RTCRtpSender"]


class RTCRtpSender:
    """What sends the media of one transceiver; its track may change at any time."""

    def __init__(self, session: PeerSession, transceiver: RTCRtpTransceiver, state: TransceiverState) -> None:
        self._session = session
        self._transceiver = transceiver
        self.media = RtpSender(session.dtls, state.kind, ssrc=state.ssrc, rtx_ssrc=state.rtx_ssrc)

    @property
    def track(self) -> MediaStreamTrack | None:
        """The track that is sent, None: nothing."""
        return self.media.track

    @property
    def transport(self) -> RTCDtlsTransport | None:
        """The transport over which media goes, None before it is negotiated."""
        return self._session.dtls_transport if self._transceiver.mid is not None else None

    async def replaceTrack(self, track: MediaStreamTrack | None) -> None:
        """Send another track of the same kind, or nothing, without negotiating.

        Raises TypeError for the wrong kind, InvalidStateError once stopped or closed.
        """
        if track is not None and track.kind != self._transceiver.kind:
            raise TypeError(f"this sender sends {self._transceiver.kind}, the track is {track.kind}")

        async def replace() -> None:
            if self._transceiver.direction == "stopped":
                raise InvalidStateError("the transceiver was stopped: add another one")
            self.use(track)
            self._session.core.set_has_track(self._session.id_of(self._transceiver), track is not None)

        await self._session.chain.run("replaceTrack", replace)

    def setStreams(self, *streams: MediaStream) -> None:
        """Tell the peer that the track belongs to these streams; raises InvalidStateError on a closed
        connection.
        """
        self._session.refuse_if_closed("setStreams")
        if self._transceiver.direction != "stopped":
            self._session.core.set_streams(
                self._session.id_of(self._transceiver), [stream.id for stream in streams]
            )
            self._session.update_negotiation_needed()

    def getParameters(self) -> dict[str, Any]:
        """Return the RTCRtpSendParameters in force; no codecs before they are negotiated."""
        negotiated = self._session.in_force(self._transceiver)
        codecs = negotiated.codecs if negotiated is not None else ()
        extensions = negotiated.header_extensions if negotiated is not None else ()
        return {
            "encodings": [{"active": True}],
            "headerExtensions": [{"uri": extension.uri, "id": extension.id} for extension in extensions],
            "rtcp": {"cname": self._session.cname, "reducedSize": True},
            "codecs": [RTCRtpCodec.of(codec, with_number=True) for codec in codecs],
        }

    async def getStats(self) -> RTCStatsReport:
        """Return the statistics of what this sender sends, and of all they refer to."""
        return self._session.statistics(sender=self)

    @staticmethod
    def getCapabilities(kind: str) -> RTCRtpCapabilities | None:
        """Return what can be sent of a kind; None for a kind that does not exist."""
        return capabilities(kind)

    @property
    def transceiver(self) -> RTCRtpTransceiver:
        """The transceiver whose sender this is (not in W3C)."""
        return self._transceiver

    def belongs_to(self, session: PeerSession) -> bool:
        """Whether this is a sender of that connection."""
        return self._session is session

    def use(self, track: MediaStreamTrack | None) -> None:
        """Send ``track`` from now on (for calllab's own use: nothing else is told)."""
        self.media.replace_track(track)
