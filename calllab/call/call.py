"""A call as its user sees it: a state, a way to end it, and its peer connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from calllab.call.core import CallState, EndReason
from calllab.errors import CallFailed, InvalidCallState
from calllab.negotiation import PeerConnectionManager
from calllab.rtc import MediaStream, RTCPeerConnection

if TYPE_CHECKING:
    from calllab.call.phone import Phone

__all__ = ["Call"]

logger = logging.getLogger(__name__)


class Call:
    """One call between this user and ``remote_user_id``.

    It is made by :meth:`Phone.call <calllab.call.Phone.call>`, or comes to the phone's ``on_incoming``.  Its
    ``id`` changes once if it loses call glare.
    """

    def __init__(self, phone: Phone, call_id: str, remote_user_id: str, *, outgoing: bool) -> None:
        self.id = call_id
        self.remote_user_id = remote_user_id
        self.is_polite = not outgoing
        self.state: CallState = "idle"
        self.end_reason: EndReason | None = None
        self.end_detail: str | None = None
        self.error: Exception | None = None
        self.local_stream: MediaStream | None = None
        self.remote_streams: list[MediaStream] = []
        self.manager: PeerConnectionManager | None = None
        self._phone = phone
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[Call], None]] = []

    @property
    def pc(self) -> RTCPeerConnection:
        """The peer connection.  Raises InvalidCallState before the call is accepted."""
        if self.manager is None:
            raise InvalidCallState(f"call {self.id} has no peer connection while it is {self.state}")
        return self.manager.pc

    async def accept(self) -> None:
        """Take an incoming call that rings."""
        self._phone.accept(self)

    async def reject(self, reason: str | None = None) -> None:
        """Decline an incoming call that rings."""
        self._phone.reject(self, reason)

    async def hang_up(self) -> None:
        """End the call, whatever its state, and wait until its peer connection is closed."""
        await self._phone.hang_up(self)

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until the call is connected.

        Raises :exc:`~calllab.errors.CallFailed` with the reason if it ends before, TimeoutError after
        ``timeout`` seconds.
        """
        async with asyncio.timeout(timeout):
            while self.state not in ("connected", "ended"):
                await self._next_change()
        if self.state == "ended":
            raise CallFailed(self._why_ended(), reason=self.end_reason or "failed") from self.error

    async def wait_ended(self, timeout: float | None = None) -> EndReason:
        """Wait until the call has ended and return why."""
        async with asyncio.timeout(timeout):
            while self.end_reason is None:
                await self._next_change()
        return self.end_reason

    async def wait_closed(self) -> None:
        """Wait until the call has ended and its peer connection and local media are closed."""
        await self.wait_ended()
        await self._phone.wait_closed(self)

    def on_state(self, listener: Callable[[Call], None]) -> None:
        """Call ``listener`` with this call after each change of its state."""
        self._listeners.append(listener)

    def enter(self, state: CallState, reason: EndReason | None = None, detail: str | None = None) -> None:
        """Take a new state (the phone's business)."""
        self.state, self.end_reason, self.end_detail = state, reason, detail
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in list(self._listeners):
            try:
                listener(self)
            except Exception:
                logger.exception("a listener of %r failed", self)

    async def _next_change(self) -> None:
        await self._changed.wait()

    def _why_ended(self) -> str:
        detail = f": {self.error or self.end_detail}" if self.error or self.end_detail else ""
        return (
            f"the call with {self.remote_user_id} ended before it was connected ({self.end_reason}{detail})"
        )

    def __repr__(self) -> str:
        """Say who, in which state, and why it ended."""
        end = f", {self.end_reason}" if self.end_reason else ""
        return f"<Call {self.id[:8]} with {self.remote_user_id}: {self.state}{end}>"
