"""Telephone tones (webrtc-pc section 7)."""

from __future__ import annotations

from calllab.emitter import Emitter, EventHandler
from calllab.rtc.errors import InvalidStateError

__all__ = ["RTCDTMFSender"]


class RTCDTMFSender(Emitter):
    """What would send tones over an audio sender: here it never can, and says so.

    Tones travel as RTP payload format telephone-event (RFC 4733).  aiortc has no such format, so it is never
    offered nor accepted, and W3C's answer to that is a false ``canInsertDTMF``.
    """

    ontonechange = EventHandler()

    @property
    def canInsertDTMF(self) -> bool:
        """Whether tones can be sent: never, as telephone-event is never negotiated."""
        return False

    @property
    def toneBuffer(self) -> str:
        """The tones that are still to be sent."""
        return ""

    def insertDTMF(self, tones: str, duration: int = 100, interToneGap: int = 70) -> None:
        """Raise InvalidStateError, as while tones cannot be sent."""
        raise InvalidStateError("tones cannot be sent: telephone-event was not negotiated")
