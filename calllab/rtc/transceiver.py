"""Transceivers: a sender and a receiver that share an m-line (webrtc-pc section 5.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from calllab.rtc.capabilities import RTCRtpCodec, preference_keys
from calllab.rtc.errors import InvalidStateError
from calllab.rtc.parameters import Direction, Kind
from calllab.rtc.receiver import RTCRtpReceiver
from calllab.rtc.sender import RTCRtpSender

if TYPE_CHECKING:
    from calllab.rtc.session import PeerSession

__all__ = ["RTCRtpTransceiver"]


class RTCRtpTransceiver:
    """One transceiver; it is the same object for as long as it exists."""

    def __init__(self, session: PeerSession, id_: int) -> None:
        state = session.core.transceiver(id_)
        self._session = session
        self._id = id_
        self._kind: Kind = state.kind
        self._sender = RTCRtpSender(session, self, state)
        self._receiver = RTCRtpReceiver(session, self, state)

    @property
    def kind(self) -> Kind:
        """``audio`` or ``video``."""
        return self._kind

    @property
    def mid(self) -> str | None:
        """The media id, None before it is negotiated, after a rollback of that, and after the end."""
        state = self._session.core.state.transceiver(self._id)
        return None if state is None else state.mid

    @property
    def sender(self) -> RTCRtpSender:
        """What sends."""
        return self._sender

    @property
    def receiver(self) -> RTCRtpReceiver:
        """What receives."""
        return self._receiver

    @property
    def direction(self) -> Direction | Literal["stopped"]:
        """What the application wants; the next negotiation brings it about.

        Setting raises TypeError for no direction, InvalidStateError once stopped or closed.
        """
        state = self._session.core.state.transceiver(self._id)
        if self._session.closed or state is None or state.stopping:
            return "stopped"
        return state.direction

    @direction.setter
    def direction(self, value: Direction) -> None:
        if self.direction == "stopped":
            raise InvalidStateError("the transceiver was stopped: add another one")
        if value not in get_args(Direction):
            raise TypeError(f"a direction is one of {', '.join(get_args(Direction))}, not {value!r}")
        if value != self.direction:
            self._session.core.set_direction(self._id, value)
            self._session.update_negotiation_needed()

    @property
    def currentDirection(self) -> Direction | Literal["stopped"] | None:
        """What is negotiated, None before that."""
        state = self._session.core.state.transceiver(self._id)
        if self._session.closed or state is None or state.stopped:
            return "stopped"
        return state.negotiated.current_direction

    def stop(self) -> None:
        """Stop sending and receiving for good; raises InvalidStateError on a closed connection."""
        self._session.refuse_if_closed("stop")
        self._session.stop_transceiver(self)

    def setCodecPreferences(self, codecs: Sequence[RTCRtpCodec | Mapping[str, Any]]) -> None:
        """Set which codecs the next negotiation offers or accepts, the best first; none: the default.

        Raises TypeError for what is no codec, InvalidModificationError for codecs that are not in
        ``getCapabilities(kind)``.  Nothing is negotiated by it: the next description has them.
        """
        keys = preference_keys(self._kind, codecs)
        if self._session.core.state.transceiver(self._id) is not None:
            self._session.core.set_codec_preferences(self._id, keys)

    def __repr__(self) -> str:
        return f"<RTCRtpTransceiver {self.kind} mid={self.mid} {self.direction}/{self.currentDirection}>"
