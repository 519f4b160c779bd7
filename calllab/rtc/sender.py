"""Senders (webrtc-pc section 5.2)."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from calllab._aiortc import EncodingLimits, MediaStreamTrack, RtpSender
from calllab.rtc.capabilities import RTCRtpCapabilities, RTCRtpCodec, capabilities
from calllab.rtc.dtmf import RTCDTMFSender
from calllab.rtc.encodings import changed_encodings, initial_encodings
from calllab.rtc.errors import InvalidModificationError, InvalidStateError
from calllab.rtc.jsep_state import TransceiverState
from calllab.rtc.mediastream import MediaStream, ids_of
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
        self._track: MediaStreamTrack | None = None
        self._dtmf = RTCDTMFSender() if state.kind == "audio" else None
        self._encodings = initial_encodings(state.kind, ())
        self._last_returned: dict[str, Any] | None = None
        self._transactions = itertools.count(1)
        self.media = RtpSender(session.dtls, state.kind, ssrc=state.ssrc, rtx_ssrc=state.rtx_ssrc)

    @property
    def track(self) -> MediaStreamTrack | None:
        """The track that is sent, None: nothing; it remains when the transceiver is stopped."""
        return self._track

    @property
    def transport(self) -> RTCDtlsTransport | None:
        """The transport over which media goes, None before a description of ours has it."""
        return self._session.transport_of(self._transceiver)

    @property
    def dtmf(self) -> RTCDTMFSender | None:
        """What sends tones; None for video."""
        return self._dtmf

    def replaceTrack(self, track: MediaStreamTrack | None) -> Coroutine[Any, Any, None]:
        """Send another track of the same kind, or nothing, without negotiating.

        Raises TypeError for the wrong kind, InvalidStateError once stopped or closed.
        """
        if track is not None and not isinstance(track, MediaStreamTrack):
            raise TypeError(f"a MediaStreamTrack or None is needed, not {type(track).__name__}")
        if track is not None and track.kind != self._transceiver.kind:
            raise TypeError(f"this sender sends {self._transceiver.kind}, the track is {track.kind}")

        async def replace() -> None:
            if self._transceiver.direction == "stopped":
                raise InvalidStateError("the transceiver was stopped: add another one")
            self.use(track)
            self._session.core.set_has_track(self._session.id_of(self._transceiver), track is not None)

        return self._session.chain.run("replaceTrack", replace)

    def setStreams(self, *streams: MediaStream) -> None:
        """Tell the peer that the track belongs to these streams; raises InvalidStateError on a closed
        connection.
        """
        ids = ids_of(streams)
        self._session.refuse_if_closed("setStreams()")
        if self._transceiver.direction != "stopped":
            self._session.core.set_streams(self._session.id_of(self._transceiver), ids)
            self._session.update_negotiation_needed()

    def getParameters(self) -> dict[str, Any]:
        """Return the RTCRtpSendParameters in force; no codecs before they are negotiated.

        They may be changed and given to :meth:`setParameters` before the next turn of the event loop; until
        then they stay what they are.
        """
        if self._last_returned is None:
            self._last_returned = self._parameters()
            asyncio.get_running_loop().call_soon(self._forget_parameters)
        return copy.deepcopy(self._last_returned)

    def setParameters(self, parameters: Mapping[str, Any]) -> Coroutine[Any, Any, None]:
        """Change how the track is encoded, without negotiating: what :meth:`getParameters` returned, with
        other members in its one encoding (``active``, ``maxBitrate``; of video also ``maxFramerate``,
        ``scaleResolutionDownBy``).

        Raises InvalidStateError on a stopped transceiver or without a getParameters() in the same turn,
        InvalidModificationError if anything else was changed, ValueError for numbers out of range.
        """
        if not isinstance(parameters, Mapping):
            raise TypeError(f"RTCRtpSendParameters are needed, not {type(parameters).__name__}")
        last = self._last_returned
        if self._transceiver.direction == "stopped":
            raise InvalidStateError("the transceiver was stopped: add another one")
        if last is None:
            raise InvalidStateError(
                "call getParameters() first, and setParameters() before anything is awaited"
            )
        encodings = parameters.get("encodings")
        if not isinstance(encodings, Sequence):
            raise TypeError("the parameters have a list of encodings")
        for name in ("transactionId", "headerExtensions", "rtcp", "codecs"):
            if name not in parameters:
                raise TypeError(f"the parameters lack {name}: change what getParameters() returned")
            if parameters[name] != last[name]:
                raise InvalidModificationError(f"{name} cannot be changed by setParameters()")
        return self._set_encodings(changed_encodings(self._transceiver.kind, encodings, self._encodings))

    async def _set_encodings(self, encodings: list[dict[str, Any]]) -> None:
        self._last_returned = None
        self.encode(encodings)

    def encode(self, encodings: list[dict[str, Any]]) -> None:
        """Use checked encodings from now on (for calllab's own use)."""
        self._encodings = encodings
        first = encodings[0]
        self.media.set_limits(
            EncodingLimits(
                active=first["active"],
                max_bitrate=first.get("maxBitrate"),
                max_framerate=first.get("maxFramerate"),
                scale_down_by=first.get("scaleResolutionDownBy", 1.0),
            )
        )

    def _forget_parameters(self) -> None:
        self._last_returned = None

    def _parameters(self) -> dict[str, Any]:
        negotiated = self._session.in_force(self._transceiver)
        codecs = negotiated.codecs if negotiated is not None else ()
        extensions = negotiated.header_extensions if negotiated is not None else ()
        return {
            "transactionId": str(next(self._transactions)),
            "encodings": self._encodings,
            "headerExtensions": [{"uri": extension.uri, "id": extension.id} for extension in extensions],
            "rtcp": {
                "cname": self._session.cname,
                "reducedSize": self._session.reduced_size(self._transceiver),
            },
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
        self._track = track
        self.media.replace_track(track)
