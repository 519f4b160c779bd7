"""The data side of one peer connection: its SCTP transport and who may use it (webrtc-pc section 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from calllab._aiortc import ChannelLedger, DtlsTransport, SctpTransport
from calllab.rtc.datachannel import RTCDataChannel, check_data_channel
from calllab.rtc.errors import InvalidStateError, OperationError
from calllab.rtc.jsep_state import JsepState, SessionState
from calllab.rtc.transports import RTCDtlsTransport, RTCSctpTransport

__all__ = ["PeerData"]


class PeerData:
    """Makes the SCTP transport when it is needed, and keeps it in step with what is negotiated.

    ``state`` gives the state of the JSEP core; ``on_channel`` is called for each channel of the peer's.  Call
    :meth:`follow` after each description, :meth:`start` when DTLS is connected, and at the end :meth:`shut`,
    then :meth:`stop`.
    """

    def __init__(
        self,
        dtls: DtlsTransport,
        dtls_transport: RTCDtlsTransport,
        state: Callable[[], JsepState],
        on_channel: Callable[[RTCDataChannel], None],
    ) -> None:
        self._dtls = dtls
        self._dtls_transport = dtls_transport
        self._state = state
        self._on_channel = on_channel
        self.ledger = ChannelLedger()
        self.sctp: SctpTransport | None = None
        self._shown: RTCSctpTransport | None = None
        self._was_negotiated = False

    @property
    def transport(self) -> RTCSctpTransport | None:
        """The SCTP transport, None until data channels are negotiated, and when they are no longer."""
        return self._shown if self._was_negotiated else None

    @property
    def _agreed(self) -> SessionState:
        """What is in force: an offer that can be rolled back does not count."""
        state = self._state()
        pending = state.signaling in ("have-local-offer", "have-remote-offer")
        return state.stable.session if pending and state.stable is not None else state.session

    def create(
        self,
        label: str,
        *,
        ordered: bool,
        maxPacketLifeTime: int | None,
        maxRetransmits: int | None,
        protocol: str,
        negotiated: bool,
        id: int | None,
    ) -> RTCDataChannel:
        """Make a channel (webrtc-pc 6.1, createDataChannel from step 4 on).

        Raises TypeError for bad arguments, OperationError if the id is in use or too high, or none is left,
        InvalidStateError if the peer has ended the transport.
        """
        check_data_channel(label, protocol, maxPacketLifeTime, maxRetransmits, negotiated, id)
        try:
            channel = self._need().create_channel(
                label,
                ordered=ordered,
                max_packet_life_time=maxPacketLifeTime,
                max_retransmits=maxRetransmits,
                protocol=protocol,
                negotiated=negotiated,
                id=id if negotiated else None,
                role_is_known=self._was_negotiated,
            )
        except ValueError as exc:
            raise OperationError(str(exc)) from exc
        except ConnectionError as exc:
            raise InvalidStateError(str(exc)) from exc
        return RTCDataChannel(channel)

    def follow(self) -> Coroutine[Any, Any, None] | None:
        """Take what a description has changed; returns the work of closing an association, if that is due.

        With an answer that has data channels the SCTP transport is there, knows the size of the messages that
        the peer takes, and every channel has its identifier (webrtc-pc 4.4.1.5, 6.1.1).  If the peer refuses
        them, at first or later, every channel is closed.
        """
        agreed = self._agreed
        negotiated = agreed.sctp_port is not None and any(
            line.owner == "data" and not line.rejected for line in agreed.lines
        )
        was, self._was_negotiated = self._was_negotiated, negotiated
        if negotiated:
            if self._dtls.role is None:
                self._dtls.role = agreed.dtls_role
            self._need().assign_ids()
            self._need().limit_messages(agreed.remote_max_message_size or 0)
        elif self.sctp is not None and (was or not self._state().wants_data):
            rejected, self.sctp, self._shown = self.sctp, None, None
            return rejected.stop()
        return None

    async def start(self) -> None:
        """Set the association up if data channels are negotiated; DTLS is connected."""
        agreed = self._agreed
        if self._was_negotiated and agreed.sctp_port is not None:
            await self._need().start(agreed.sctp_port, agreed.remote_max_message_size or 0)

    def shut(self) -> None:
        """Close everything at once as far as the application sees; nothing is told."""
        if self._shown is not None:
            self._shown.shut()
        if self.sctp is not None:
            self.sctp.silence()

    async def stop(self) -> None:
        """Abort the association."""
        if self.sctp is not None:
            await self.sctp.stop()

    def _need(self) -> SctpTransport:
        if self.sctp is None:
            sctp = self.sctp = SctpTransport(self._dtls, ledger=self.ledger)
            shown = self._shown = RTCSctpTransport(sctp, self._dtls_transport)
            sctp.on_data_channel = lambda channel: self._on_channel(RTCDataChannel(channel))
            sctp.on_state_change = shown.tell_state
        return self.sctp
