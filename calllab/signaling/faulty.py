"""A channel with faults: messages are held, released, lost, late, out of order, or doubled, on purpose."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any, Final, Generic, Self, TypeVar

from calllab.errors import ChannelClosed, SignalingError
from calllab.signaling._base import BaseChannel
from calllab.signaling.channel import Channel, ChannelState, Message, StateChange, encode_message
from calllab.signaling.fault_plan import SignalingFaults
from calllab.signaling.faults import (
    Delay,
    Direction,
    Drop,
    Duplicate,
    Fault,
    HoldBack,
    MessageTypes,
    Reorder,
)
from calllab.signaling.lane import Lane
from calllab.signaling.pump import Pump

__all__ = ["FaultHandle", "FaultyChannel", "Hold"]

_log = logging.getLogger(__name__)

_UNRECEIVED_MESSAGES: Final = 64

_FaultT = TypeVar("_FaultT", bound=Fault)


class FaultHandle(Generic[_FaultT]):
    """A fault that is in effect until it is removed, at the latest at the end of its ``with`` block."""

    def __init__(self, channel: FaultyChannel, pump: Pump[Message], fault: _FaultT) -> None:
        self._channel = channel
        self._pump = pump
        self._fault = fault
        pump.lane.faults.append(fault)

    @property
    def count(self) -> int:
        """How many messages it has happened to."""
        return self._fault.count

    @property
    def is_active(self) -> bool:
        """Whether it has not been removed yet."""
        return self._fault in self._pump.lane.faults

    def remove(self) -> None:
        """End the fault; may be called again.  What it has delayed already stays delayed."""
        if self.is_active:
            self._pump.lane.faults.remove(self._fault)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.remove()


class Hold(FaultHandle[HoldBack]):
    """Messages that are held until :meth:`release`."""

    def __init__(self, channel: FaultyChannel, pump: Pump[Message], fault: HoldBack) -> None:
        super().__init__(channel, pump, fault)
        self._changed = asyncio.Event()

    @property
    def messages(self) -> tuple[Message, ...]:
        """What is held now, the oldest first."""
        return tuple(self._fault.messages)

    async def arrived(self, count: int = 1) -> tuple[Message, ...]:
        """Wait until so many messages have come to be held, and return what is held then.

        Raises:
            ChannelClosed: the channel was closed before that many came.
            SignalingError: the hold was released before that many came.

        """
        while self.count < count:
            so_far = f"when {self.count} of {count} messages had come to be held"
            if self._channel.state is ChannelState.CLOSED:
                raise ChannelClosed(f"the channel of {self._channel.user_id} was closed {so_far}")
            if not self.is_active:
                raise SignalingError(f"the hold was released {so_far}: await them before the release")
            self._changed.clear()
            await self._changed.wait()
        return self.messages

    def release(self) -> None:
        """Let the held messages go, in the order in which they came, and hold no more."""
        self.remove()

    def remove(self) -> None:
        """End the hold: the same as :meth:`release`."""
        super().remove()
        self._changed.set()
        self._pump.lane.release(self._fault)
        self._pump.wake()

    def _look(self) -> None:
        self._changed.set()


class FaultyChannel(BaseChannel):
    """Another channel, with faults; it owns that channel and closes it.

    Each fault is one call, for one direction and for all message types or some.  It returns a handle that
    counts what it did and ends it.  Without faults messages pass unchanged.  A message that a fault makes
    late and that cannot be sent then is lost, and logged.

    Args:
        channel: the channel to wrap; nobody else may receive from it.
        entropy: decides what is left to chance; by default seeded with 0.
        faults: planned faults, which happen to this channel too from now until it is closed.

    """

    def __init__(
        self,
        channel: Channel,
        *,
        entropy: random.Random | None = None,
        faults: SignalingFaults | None = None,
    ) -> None:
        super().__init__(channel.user_id, channel.device_id, channel.state)
        entropy = entropy or random.Random(0)
        attached = () if faults is None else faults.users
        self._channel = channel
        self._out: Pump[Message] = Pump(
            Lane("out", entropy, user_id=self.user_id, attached=attached), self._forward_out
        )
        self._in: Pump[Message] = Pump(
            Lane("in", entropy, user_id=self.user_id, attached=attached), self._forward_in
        )
        self._faults = faults
        self._holds: list[Hold] = []
        self._received = asyncio.Event()
        self._stop_listening = channel.on_state(self._change_state)
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(work, name=f"signaling faults of {self.user_id}")
            for work in (self._out.run(), self._in.run(), self._read())
        ]
        if faults is not None:
            faults.attach(self)

    @property
    def lanes(self) -> tuple[Lane[Message], Lane[Message]]:
        """What goes out and what comes in, for the planned faults."""
        return self._out.lane, self._in.lane

    def wake(self) -> None:
        """Look again at what may go on; planned faults call it."""
        self._out.wake()
        self._in.wake()
        self._tell_holds()

    def interrupt(self, reason: str = "interrupted") -> None:
        """Cut the connection, and keep it away until :meth:`resume`; what is on its way here stays."""
        self._channel.interrupt(reason)

    def resume(self) -> None:
        """Let the connection come back."""
        self._channel.resume()

    def hold(
        self, types: MessageTypes = None, direction: Direction = "out", *, in_order: bool = True
    ) -> Hold:
        """Keep messages back until they are released.

        With ``in_order`` later messages to (or from) the same user wait behind a held one, whatever their
        type, so that the release restores what would have happened later; without it they pass.
        """
        hold = Hold(self, self._pump(direction), HoldBack(types, in_order=in_order))
        self._holds.append(hold)
        return hold

    def drop(
        self,
        types: MessageTypes = None,
        direction: Direction = "out",
        *,
        probability: float = 1.0,
        count: int | None = None,
    ) -> FaultHandle[Drop]:
        """Lose messages: each with a probability, at most ``count`` of them."""
        return FaultHandle(self, self._pump(direction), Drop(types, probability=probability, limit=count))

    def delay(
        self,
        delay_s: float,
        types: MessageTypes = None,
        direction: Direction = "out",
        *,
        jitter_s: float = 0.0,
        in_order: bool = True,
        probability: float = 1.0,
        count: int | None = None,
    ) -> FaultHandle[Delay]:
        """Make messages late by ``delay_s`` and up to ``jitter_s`` more.

        Without ``in_order`` later messages pass those that are late.
        """
        fault = Delay(
            types,
            delay_s=delay_s,
            jitter_s=jitter_s,
            in_order=in_order,
            probability=probability,
            limit=count,
        )
        return FaultHandle(self, self._pump(direction), fault)

    def duplicate(
        self,
        types: MessageTypes = None,
        direction: Direction = "out",
        *,
        copies: int = 1,
        probability: float = 1.0,
        count: int | None = None,
    ) -> FaultHandle[Duplicate]:
        """Let messages come ``1 + copies`` times."""
        fault = Duplicate(types, copies=copies, probability=probability, limit=count)
        return FaultHandle(self, self._pump(direction), fault)

    def reorder(
        self,
        types: MessageTypes = None,
        direction: Direction = "out",
        *,
        behind: int = 1,
        wait_s: float = 1.0,
        probability: float = 1.0,
        count: int | None = None,
    ) -> FaultHandle[Reorder]:
        """Let each message go on after ``behind`` later ones to the same user, or ``wait_s`` without them."""
        fault = Reorder(types, behind=behind, wait_s=wait_s, probability=probability, limit=count)
        return FaultHandle(self, self._pump(direction), fault)

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one message through the faults; returns at once if it is held or late."""
        self._refuse_if_closed()
        numbered = self._numbered(message)
        if not self._out.lane.faults and self._out.is_idle:
            await self._channel.send(numbered)
            return
        encode_message(numbered)
        self._out.put(numbered, numbered)
        self._tell_holds()

    async def receive(self) -> Message:
        """Wait for the next message; raises :exc:`ChannelClosed` after the last."""
        message = await super().receive()
        self._received.set()
        return message

    async def close(self) -> None:
        """Close this channel and the one that it wraps; may be called again."""
        if self.state is not ChannelState.CLOSED:
            self._closed_by_owner = True
        if self._faults is not None:
            self._faults.detach(self)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._inbox.end(f"the channel of {self.user_id} was closed here", discard=self._closed_by_owner)
        await self._channel.close()
        self._stop_listening()

    def _pump(self, direction: Direction) -> Pump[Message]:
        if direction not in ("out", "in"):
            raise ValueError(f"the direction is {direction!r}: it must be 'out' or 'in'")
        return self._out if direction == "out" else self._in

    async def _read(self) -> None:
        try:
            while True:
                # What is not received stays in the other channel, whose limits then apply.
                while len(self._inbox) >= _UNRECEIVED_MESSAGES:
                    self._received.clear()
                    await self._received.wait()
                message = await self._channel.receive()
                self._in.put(message, message)
                self._tell_holds()
        except ChannelClosed as error:
            self._inbox.end(str(error), error.code)

    async def _forward_out(self, message: Message) -> None:
        try:
            await self._channel.send(message)
        except SignalingError as error:
            _log.warning("%s: a late %s was not sent: %s", self.user_id, message["type"], error)

    async def _forward_in(self, message: Message) -> None:
        self._inbox.put(message)

    def _tell_holds(self) -> None:
        self._holds = [hold for hold in self._holds if hold.is_active]
        for hold in self._holds:
            hold._look()

    def _change_state(self, change: StateChange) -> None:
        super()._change_state(change)
        self._tell_holds()
