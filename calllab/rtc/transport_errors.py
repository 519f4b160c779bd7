"""What the ``error`` events of transports and data channels carry (webrtc-pc section 11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from calllab.rtc.errors import OperationError

__all__ = ["RTCError", "RTCErrorDetailType", "RTCErrorEvent"]

RTCErrorDetailType = Literal["data-channel-failure", "dtls-failure", "fingerprint-failure", "sctp-failure"]


class RTCError(OperationError):
    """Why a transport or a data channel failed.

    ``sctpCauseCode`` is the cause that the peer gave with its ABORT (RFC 9260 section 3.3.10), if it gave
    one.  DTLS alerts are not known here: ``receivedAlert`` and ``sentAlert`` are None.
    """

    def __init__(
        self, message: str, errorDetail: RTCErrorDetailType, *, sctpCauseCode: int | None = None
    ) -> None:
        super().__init__(message)
        self.errorDetail: RTCErrorDetailType = errorDetail
        self.sctpCauseCode = sctpCauseCode
        self.receivedAlert: int | None = None
        self.sentAlert: int | None = None


@dataclass(frozen=True, slots=True)
class RTCErrorEvent:
    """The payload of an ``error`` event."""

    error: RTCError | OperationError
