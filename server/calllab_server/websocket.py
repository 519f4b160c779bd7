"""One WebSocket of the relay: a queue with one writer, and an end whose close code reaches the peer.

Theory of operation.  The handler of the request reads.  Whoever sends to this socket only appends to its
queue, and how long that may grow is the relay core's to decide.  As long as the peer keeps up, what was
queued in one turn of the event loop goes out as one write at its end; once the transport has to buffer, a
writer task takes over and waits for the peer, which stalls this writer and nobody else.

The end is the delicate part.  A TCP socket that is closed while bytes from the peer are unread, or still
arriving, is reset, and a reset destroys the close frame on its way.  So after the close frame the socket goes
on reading, and throws away what it reads, until the peer has closed too or a deadline passes (RFC 6455
section 7.1.1).  A peer that does not even take the close frame is cut off at the same deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.http_websocket import WebSocketError

from calllab.protocol import MAX_FRAME_BYTES, SUBPROTOCOL, CloseCode

__all__ = ["FrameHandler", "RelaySocket"]

_FRAMES_PER_TURN: Final = 32
_READ_BYTES: Final = 16 * 1024
_DISCARD_BYTES: Final = 64 * 1024
_MAX_DISCARDED_BYTES: Final = 16 * 1024 * 1024
_MAX_REASON_BYTES: Final = 123
_BUFFERED_BYTES: Final = 64 * 1024
_TEXT_FRAME: Final = 0x80 | WSMsgType.TEXT


class FrameHandler(Protocol):
    """What a socket tells of what comes in; called from its reader, in order."""

    def on_text(self, frame: bytes) -> None:
        """Take a text frame's payload, undecoded."""

    def on_binary(self) -> None:
        """Take note of a binary frame."""

    def on_too_big(self) -> None:
        """Take note of a frame that was too long, upon which the socket has closed itself with 1009."""


class RelaySocket:
    """A WebSocket of the relay.  Call :meth:`accept`, then :meth:`run` until it returns.

    Args:
        heartbeat_s: after so long a silence the peer is pinged.
        close_timeout_s: how long the peer has to take what is queued for it and answer the close frame.
        on_flushed: called with the length of each frame that has left the queue.

    """

    def __init__(
        self, *, heartbeat_s: float, close_timeout_s: float, on_flushed: Callable[[int], None]
    ) -> None:
        # The limit of aiohttp is the first size that is too much.
        self.response: web.WebSocketResponse[bool] = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            compress=False,
            heartbeat=heartbeat_s,
            max_msg_size=MAX_FRAME_BYTES + 1,
            timeout=close_timeout_s,
            decode_text=False,
            # The writer task waits as soon as the transport says so, not every so many bytes.
            writer_limit=0,
        )
        self._close_timeout_s = close_timeout_s
        self._on_flushed = on_flushed
        self._queue: deque[bytes] = deque()
        self._is_flush_due = False
        self._is_congested = False
        self._wake = asyncio.Event()
        self._end: tuple[CloseCode, bytes] | None = None
        self._reading: asyncio.Timeout | None = None
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    async def accept(self, request: web.Request) -> None:
        """Answer the handshake.  Raises :exc:`ConnectionError` if the peer is gone."""
        await self.response.prepare(request)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the peer left during the handshake")
        self._transport = transport
        # asyncio makes room for 256 KiB before each read, which costs more than routing a message does.
        if hasattr(transport, "max_size"):
            transport.max_size = _READ_BYTES

    def put(self, frame: bytes) -> None:
        """Queue a text frame for the peer."""
        self._queue.append(frame)
        if not self._is_flush_due and not self._is_congested:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def close(self, code: CloseCode, reason: str) -> None:
        """Close with this code after what is queued; the first close counts."""
        if self._end is not None:
            return
        self._end = (code, _reason_bytes(reason))
        self._wake.set()
        self._deadline = asyncio.get_running_loop().call_later(self._close_timeout_s, self.abort)

    def abort(self) -> None:
        """Cut the connection without a word."""
        if self._transport is not None:
            self._transport.abort()

    async def run(self, handler: FrameHandler) -> None:
        """Read and write until the socket is closed, by either side."""
        writer = asyncio.get_running_loop().create_task(self._write(), name="relay-socket-writer")
        try:
            await self._read_until_end(handler)
            if self._end is not None and not self.response.closed:
                code, reason = self._end
                # Goes on reading until the peer has answered the close frame.
                await self.response.close(code=code, message=reason)
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            if self._deadline is not None:
                self._deadline.cancel()
            self._discard_queue()
            # What a peer has not taken by now would keep a closed transport open for good.
            self.abort()

    async def _read_until_end(self, handler: FrameHandler) -> None:
        """Read until the peer closes, or until the writer has flushed what comes before our close."""
        try:
            async with asyncio.timeout(None) as self._reading:
                await self._read(handler)
        except TimeoutError:
            pass
        finally:
            self._reading = None

    async def _read(self, handler: FrameHandler) -> None:
        count = 0
        while True:
            message = await self.response.receive()
            if message.type is WSMsgType.TEXT:
                handler.on_text(message.data)
            elif message.type is WSMsgType.BINARY:
                handler.on_binary()
            else:
                if message.type is WSMsgType.ERROR and isinstance(message.data, WebSocketError):
                    held = self._hold()
                    if message.data.code == WSCloseCode.MESSAGE_TOO_BIG:
                        handler.on_too_big()
                    if held is not None:
                        await _linger(held, self._close_timeout_s)
                return
            count += 1
            if count % _FRAMES_PER_TURN == 0:
                # Frames that have already arrived are read without a pause: let the others have theirs.
                await asyncio.sleep(0)

    def _flush(self) -> None:
        """Write what was queued in this turn, or leave it to the writer task."""
        self._is_flush_due = False
        transport = self._transport
        if self._is_congested or not self._queue or transport is None:
            return
        if self.response.closed or transport.is_closing():
            self._discard_queue()
            return
        chunks: list[bytes] = []
        size = transport.get_write_buffer_size()
        flushed = 0
        while self._queue and size + flushed < _BUFFERED_BYTES:
            frame = self._queue.popleft()
            chunks += (_text_header(len(frame)), frame)
            flushed += len(frame)
        if chunks:
            transport.write(b"".join(chunks))
            self._on_flushed(flushed)
        if self._queue:
            self._wake.set()

    async def _write(self) -> None:
        """Write at the peer's pace whenever it does not keep up, and what is left before a close."""
        with contextlib.suppress(ConnectionError):
            while self._end is None or self._queue:
                await self._wake.wait()
                self._wake.clear()
                self._is_congested = True
                while self._queue:
                    frame = self._queue.popleft()
                    try:
                        await self.response.send_frame(frame, WSMsgType.TEXT)
                    finally:
                        self._on_flushed(len(frame))
                self._is_congested = False
        if self._reading is not None:
            # Interrupts the reader, which then closes; a connection that is lost it notices itself.
            self._reading.reschedule(asyncio.get_running_loop().time())

    def _discard_queue(self) -> None:
        while self._queue:
            self._on_flushed(len(self._queue.popleft()))

    def _hold(self) -> socket.socket | None:
        """Keep the TCP connection that aiohttp is about to close after a violation of the protocol."""
        if self._transport is None or self._transport.get_write_buffer_size() > 0:
            return None
        try:
            held: socket.socket = self._transport.get_extra_info("socket").dup()
        except (OSError, AttributeError):
            return None
        return held


async def _linger(held: socket.socket, timeout_s: float) -> None:
    """End our direction, and read what still comes until the peer ends its own."""
    loop = asyncio.get_running_loop()
    left = _MAX_DISCARDED_BYTES
    with held, contextlib.suppress(OSError, TimeoutError):
        held.setblocking(False)
        held.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(timeout_s):
            while left > 0 and (data := await loop.sock_recv(held, _DISCARD_BYTES)):
                left -= len(data)


def _text_header(length: int) -> bytes:
    """Return the header of a whole, unmasked text frame (RFC 6455 section 5.2)."""
    if length < 126:
        return struct.pack("!BB", _TEXT_FRAME, length)
    if length < 1 << 16:
        return struct.pack("!BBH", _TEXT_FRAME, 126, length)
    return struct.pack("!BBQ", _TEXT_FRAME, 127, length)


def _reason_bytes(reason: str) -> bytes:
    """Return as much of the reason as a control frame holds, cut between characters."""
    return reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore").encode()
