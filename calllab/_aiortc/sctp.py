"""The SCTP association under data channels: aiortc's, with the parts that RFC 8831 and 8832 ask for.

aiortc trusts its peer (assertions end the task that reads for media too), takes a message for sent when it is
only queued, gives identifiers late, and does not tell which side closes a channel.
"""

from __future__ import annotations

import logging
from struct import pack, unpack_from
from typing import Any, Protocol

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import (
    DATA_CHANNEL_ACK,
    DATA_CHANNEL_OPEN,
    WEBRTC_BINARY,
    WEBRTC_BINARY_EMPTY,
    WEBRTC_DCEP,
    WEBRTC_STRING,
    WEBRTC_STRING_EMPTY,
    AbortChunk,
    Chunk,
    DataChunk,
    RTCSctpTransport,
)

from calllab._aiortc.dtls import DtlsTransport
from calllab._aiortc.simulated import wall_time

__all__ = ["MAX_ID", "Association", "AssociationOwner"]

logger = logging.getLogger(__name__)

MAX_ID = 65534
"""The highest identifier; 65535 is reserved (RFC 8832 section 5)."""

_CHANNEL_TYPES = (0x00, 0x01, 0x02, 0x80, 0x81, 0x82)
_TEXT = (WEBRTC_STRING, WEBRTC_STRING_EMPTY)
_EMPTY = (WEBRTC_STRING_EMPTY, WEBRTC_BINARY_EMPTY)
_MESSAGES = (WEBRTC_STRING, WEBRTC_STRING_EMPTY, WEBRTC_BINARY, WEBRTC_BINARY_EMPTY)


class AssociationOwner(Protocol):
    """Whom an association tells what happens, synchronously."""

    def association_changed(self) -> None:
        """Look at the state again."""

    def identifiers_due(self) -> None:
        """Give every channel that has none an identifier: something is going to be sent."""

    def channel_announced(self, inner: RTCDataChannel) -> None:
        """Take a channel that the peer opened."""

    def channel_closing(self, inner: RTCDataChannel) -> None:
        """A channel began to close, on whichever side."""

    def message_received(self, inner: RTCDataChannel, data: str | bytes) -> None:
        """Take a whole message."""

    def bytes_left(self, inner: RTCDataChannel, count: int) -> None:
        """So many bytes of messages wait no more: they were sent for the first time, or given up."""


class _Queued(tuple[RTCDataChannel, int, bytes]):
    """A message in aiortc's queue that knows how long it may wait."""

    expires_at: float | None = None
    """Unix time."""


class Association(RTCSctpTransport):
    """aiortc's SCTP transport, which a peer cannot break."""

    def __init__(self, dtls: DtlsTransport, port: int, owner: AssociationOwner) -> None:
        self._owner = owner
        self.failure: str | None = None
        """Why the association ended, None if it did not or was shut down in order."""
        self.cause_code: int | None = None
        """The cause that the peer gave with its ABORT (RFC 9260 section 3.3.10)."""
        super().__init__(dtls.inner, port=port)

    @property
    def established(self) -> bool:
        """Whether data can be sent."""
        return bool(self._association_state == self.State.ESTABLISHED)

    # Identifiers

    def give_id(self, channel: RTCDataChannel, *, role: str) -> bool:
        """Give a channel the lowest free identifier of our parity; False if there is none left.

        The DTLS client has the even ones, the server the odd ones (RFC 8832 section 6).
        """
        limit = min(self.maxChannels or MAX_ID + 1, MAX_ID + 1)
        for stream_id in range(0 if role == "client" else 1, limit, 2):
            if stream_id not in self._data_channels:
                self._data_channels[stream_id] = channel
                channel._setId(stream_id)
                return True
        return False

    # State

    def _set_state(self, state: Any) -> None:
        if state == self.State.ESTABLISHED:
            self._owner.identifiers_due()
        super()._set_state(state)
        self._owner.association_changed()

    def break_off(self, reason: str) -> None:
        """Take the association for lost: what is below it has ended, or the peer broke the protocol."""
        self.failure = reason
        self._set_state(self.State.CLOSED)

    def _t1_expired(self) -> None:
        self._unless_closed(super()._t1_expired, "the peer does not answer")

    def _t2_expired(self) -> None:
        self._unless_closed(super()._t2_expired, "the peer does not answer")

    def _unless_closed(self, step: Any, reason: str) -> None:
        before, self.failure = self.failure, reason
        step()
        if self._association_state != self.State.CLOSED:
            self.failure = before

    async def _handle_data(self, data: bytes) -> None:
        """Take what the peer sent.

        aiortc checks the peer's conduct by assertion (rtcsctptransport.py:939, 1990), and an exception here
        ends the task that reads for media too (rtcdtlstransport.py:527).
        """
        try:
            await super()._handle_data(data)
        except ConnectionError:
            raise
        except Exception as error:
            logger.warning("the SCTP association is aborted: the peer broke the protocol (%r)", error)
            await self._abort()
            self.break_off(f"the peer broke the protocol: {error!r}")

    async def _receive_chunk(self, chunk: Chunk) -> None:
        if isinstance(chunk, AbortChunk):
            self.failure = "the peer aborted the association"
            self.cause_code = chunk.params[0][0] if chunk.params else None
        await super()._receive_chunk(chunk)

    # Sending

    def _data_channel_send(self, channel: RTCDataChannel, data: str | bytes) -> None:
        super()._data_channel_send(channel, data)
        lifetime_ms = channel.maxPacketLifeTime
        queued = _Queued(self._data_channel_queue.pop())
        queued.expires_at = None if lifetime_ms is None else wall_time() + lifetime_ms / 1000
        self._data_channel_queue.append(queued)

    async def _data_channel_flush(self) -> None:
        """Leave out what has grown too old while it waited (RFC 3758 section 4.1), then send."""
        if self.established:
            self._owner.identifiers_due()
            self._drop_expired()
        await super()._data_channel_flush()

    def _drop_expired(self) -> None:
        queue = self._data_channel_queue
        while queue and (expires_at := getattr(queue[0], "expires_at", None)) is not None:
            # One that may live for no time at all is still sent once.
            if wall_time() <= expires_at or queue[0][0].maxPacketLifeTime == 0:
                return
            channel, kind, data = queue.popleft()
            channel._addBufferedAmount(-len(data))
            self._owner.bytes_left(channel, _size(kind, data))

    async def _send(
        self,
        stream_id: int,
        pp_id: int,
        user_data: bytes,
        expiry: float | None = None,
        max_retransmits: int | None = None,
        ordered: bool = True,
    ) -> None:
        channel = self._data_channels.get(stream_id)
        if expiry is None and channel is not None and channel.maxPacketLifeTime == 0 and pp_id in _MESSAGES:
            expiry = wall_time()  # aiortc takes 0 for no limit (rtcsctptransport.py:1922)
        await super()._send(stream_id, pp_id, user_data, expiry, max_retransmits, ordered)

    async def _send_chunk(self, chunk: Chunk) -> None:
        if isinstance(chunk, DataChunk) and chunk._sent_count == 1:
            self._left(chunk)
        await super()._send_chunk(chunk)

    def _update_advanced_peer_ack_point(self) -> None:
        for chunk in self._outbound_queue:
            if not chunk._abandoned:
                break
            self._left(chunk)
        super()._update_advanced_peer_ack_point()

    def _left(self, chunk: DataChunk) -> None:
        channel = self._data_channels.get(chunk.stream_id)
        if channel is not None and chunk.protocol in _MESSAGES:
            self._owner.bytes_left(channel, _size(chunk.protocol, chunk.user_data))

    # Channels

    def _data_channel_open(self, channel: RTCDataChannel) -> None:
        """Announce a channel, with the lengths of its names in bytes (RFC 8832 section 5.1).

        aiortc writes their lengths in characters (rtcsctptransport.py:1973), so that a name outside ASCII is
        cut, and the rest taken for the protocol.
        """
        waiting = len(self._data_channel_queue)
        super()._data_channel_open(channel)
        label, protocol = channel.label.encode(), channel.protocol.encode()
        _, pp_id, message = self._data_channel_queue[waiting]
        fixed = message[:8] + pack("!HH", len(label), len(protocol))
        self._data_channel_queue[waiting] = (channel, pp_id, fixed + label + protocol)
        assert message[0] == DATA_CHANNEL_OPEN and pp_id == WEBRTC_DCEP

    def _data_channel_close(self, channel: RTCDataChannel) -> None:
        """Begin to close: we asked for it, or the peer did by resetting its stream."""
        before = channel.readyState
        if before in ("connecting", "open"):
            self._owner.channel_closing(channel)
        super()._data_channel_close(channel)

    async def _data_channel_receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        channel = self._data_channels.get(stream_id)
        if pp_id == WEBRTC_DCEP:
            await self._take_control(stream_id, channel, data)
        elif channel is not None and pp_id in _MESSAGES:
            if channel.readyState == "connecting" and not channel.negotiated:
                channel._setReadyState("open")  # any message tells as much as the ACK (RFC 8832 section 6)
            text = pp_id in _TEXT
            content = b"" if pp_id in _EMPTY else data
            # As in a browser, bytes that are no UTF-8 become U+FFFD.
            self._owner.message_received(channel, content.decode("utf8", "replace") if text else content)

    async def _take_control(self, stream_id: int, channel: RTCDataChannel | None, data: bytes) -> None:
        kind = data[0] if data else None
        if kind == DATA_CHANNEL_ACK:
            if channel is not None and channel.readyState == "connecting":
                channel._setReadyState("open")
        elif kind == DATA_CHANNEL_OPEN:
            parameters = _parse_open(stream_id, data)
            if parameters is None or channel is not None:
                # RFC 8832 section 6: an announcement that cannot be is answered by closing the channel.
                logger.warning("the peer announced a data channel badly; stream %d is closed", stream_id)
                await self._refuse(stream_id, channel)
                return
            opened = RTCDataChannel(self, parameters, False)
            opened._setReadyState("open")
            self._data_channels[stream_id] = opened
            self._data_channel_queue.append((opened, WEBRTC_DCEP, pack("!B", DATA_CHANNEL_ACK)))
            await self._data_channel_flush()
            self._owner.channel_announced(opened)

    async def _refuse(self, stream_id: int, channel: RTCDataChannel | None) -> None:
        if channel is not None:
            self._data_channel_close(channel)
        else:
            # A channel that nobody sees stands for the stream until it is reset.
            hidden = RTCDataChannel(self, RTCDataChannelParameters(id=stream_id), False)
            hidden._setReadyState("open")
            self._data_channels[stream_id] = hidden
            self._data_channel_close(hidden)


def _size(kind: int, data: bytes) -> int:
    """Return the bytes of a message; an empty one travels as one byte (RFC 8831 section 6.6)."""
    return 0 if kind in _EMPTY else len(data)


def _parse_open(stream_id: int, data: bytes) -> RTCDataChannelParameters | None:
    """Return what a DATA_CHANNEL_OPEN message announces (RFC 8832 section 5.1); None if it is malformed."""
    if len(data) < 12 or stream_id > MAX_ID:
        return None
    _, channel_type, _, reliability, label_length, protocol_length = unpack_from("!BBHLHH", data)
    if channel_type not in _CHANNEL_TYPES or len(data) != 12 + label_length + protocol_length:
        return None
    try:
        label = data[12 : 12 + label_length].decode()
        protocol = data[12 + label_length :].decode()
    except UnicodeDecodeError:
        return None
    # webrtc-pc has 16 bits for these.
    limit = min(reliability, 0xFFFF)
    return RTCDataChannelParameters(
        label=label,
        ordered=not channel_type & 0x80,
        maxRetransmits=limit if channel_type & 0x03 == 1 else None,
        maxPacketLifeTime=limit if channel_type & 0x03 == 2 else None,
        protocol=protocol,
        id=stream_id,
    )
