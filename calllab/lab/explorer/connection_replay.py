"""Replaying a trace on real peer connections, over the real relay, in the order of the trace.

Nothing of the peers is replaced: the managers, connections and channels are those of any call.  They are
held at five gates, which the steps of a trace open one by one: the negotiationneeded event is kept until it
may be handled, each operation waits at the head of its connection's chain until it may take effect, then its
promise until it may resolve, each candidate until it may be told, and each message waits where it arrived.
It runs on any event loop.

A real ICE generation has as many candidates as there are addresses: the first ones stand for those of the
trace, the others, and the end of candidates, are kept until all is let go (:meth:`ConnectionDriver.settle`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from calllab.errors import ChannelClosed, LabError
from calllab.lab.explorer.agreement import PeerEnd, end_of
from calllab.lab.explorer.mutant import CoreWithoutRollback, Mutant, make_negotiator
from calllab.lab.explorer.peer import operation_name
from calllab.lab.explorer.trace import PEERS, PeerName, Sent, Step, Trace
from calllab.negotiation import PeerConnectionConfig, PeerConnectionManager
from calllab.negotiation.negotiator import Operation
from calllab.rtc import DatagramInterface, RTCIceServer, RTCSessionDescription
from calllab.signaling import MemoryHub

__all__ = ["ConnectionDriver"]

_POLL_S: Final = 0.002
_TYPES: Final = {"offer": "call-offer", "answer": "call-answer", "candidate": "call-ice-candidate"}
_MOST_SETTLING_TURNS: Final = 5000


class ConnectionDriver:
    """Two real peer connections behind gates; use it as an async context manager.

    :param mutant: what is wrong with them; None: what the trace says.
    :param interfaces: network interfaces by peer, None: the host's sockets.
    :param patience_s: how long to wait for an event before it counts as impossible.
    """

    def __init__(
        self,
        trace: Trace,
        mutant: Mutant | None = None,
        *,
        interfaces: Mapping[PeerName, DatagramInterface] | None = None,
        patience_s: float = 1.0,
    ) -> None:
        self._mutant = mutant or trace.mutation
        self._interfaces = interfaces or {}
        self._patience_s = patience_s
        self._hub = MemoryHub()
        self._ends: dict[PeerName, _End] = {}
        self._bound: dict[int, Mapping[str, Any]] = {}

    async def __aenter__(self) -> Self:
        for name, other in zip(PEERS, reversed(PEERS), strict=True):
            self._ends[name] = _End(self._mutant, name, other, self._hub, self._interfaces.get(name))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for end in self._ends.values():
            await end.close()
        await self._hub.close()

    async def perform(self, step: Step) -> bool:
        """Let one event happen; return False if it cannot."""
        if step.message is not None:
            return await self._carry(step)
        end = self._ends[step.peer]
        match step.action:
            case "add":
                end.add()
            case "restart":
                end.manager.restart_ice()
            case "fire":
                return await self._until(lambda: end.manager.event_waits) and end.manager.fire()
            case "effect":
                return await self._until(lambda: end.manager.effect_waits) and await end.manager.effect()
            case "resolve":
                if not await self._until(lambda: end.manager.resolution_waits):
                    return False
                await end.manager.resolve()
            case "trickle":
                if step.sent and not (
                    await self._until(lambda: end.manager.candidate_waits) and end.manager.tell_candidate()
                ):
                    return False
            case _:
                raise AssertionError(f"{step.action} concerns a message")
        for sent in step.sent:
            if not await self._bind(step.peer, sent):
                return False
        return True

    async def settle(self) -> None:
        """Let all happen that still can, messages in the order in which they arrived."""
        quiet = 0
        for _ in range(_MOST_SETTLING_TURNS):
            moved = [await end.advance() for end in self._ends.values()]
            if any(moved) or not self._is_settled():
                quiet = 0
            elif (quiet := quiet + 1) > 25:
                return
            await asyncio.sleep(_POLL_S)
        raise LabError("the peer connections do not come to rest")

    async def end(self) -> Mapping[PeerName, PeerEnd]:
        """Return how both peers are now."""
        return {name: end.describe() for name, end in self._ends.items()}

    # Inside

    def _is_settled(self) -> bool:
        return all(end.manager.is_settled and not end.inbox for end in self._ends.values())

    async def _carry(self, step: Step) -> bool:
        end, message = self._ends[step.peer], self._bound.get(-1 if step.message is None else step.message)
        if message is None or not any(message is waiting for waiting in end.inbox):
            return False
        if step.action == "drop" and not self._mutant.drops:
            return False
        if self._mutant.ordered and self._is_overtaking(end.inbox, message):
            return False
        if step.action != "duplicate" or not self._mutant.duplicates:
            end.take(message)
        if step.action != "drop":
            end.receive(message)
        return True

    def _is_overtaking(self, inbox: list[Mapping[str, Any]], message: Mapping[str, Any]) -> bool:
        return next(waiting for waiting in inbox if self._is_bound(waiting)) is not message

    async def _bind(self, sender: PeerName, sent: Sent) -> bool:
        """Find the message that stands for one of the trace's; return False if it does not come."""
        end = self._ends[_other(sender)]

        def unbound() -> Mapping[str, Any] | None:
            for message in end.inbox:
                if message["type"] == _TYPES[sent.kind] and not self._is_bound(message):
                    return message
            return None

        if not await self._until(lambda: unbound() is not None):
            return False
        self._bound[sent.number] = unbound() or {}
        return True

    def _is_bound(self, message: Mapping[str, Any]) -> bool:
        return any(message is bound for bound in self._bound.values())

    async def _until(self, holds: Callable[[], bool]) -> bool:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._patience_s
        while not holds():
            if loop.time() >= deadline_s:
                return False
            await asyncio.sleep(_POLL_S)
        return True


class _End:
    """One peer: its manager, its channel, and the messages that have arrived and wait."""

    def __init__(
        self,
        mutant: Mutant,
        name: PeerName,
        other: PeerName,
        hub: MemoryHub,
        interface: DatagramInterface | None,
    ) -> None:
        self.inbox: list[Mapping[str, Any]] = []
        self._added = 0
        hub.register(other)
        self._channel = hub.connect(name)
        self.manager = _HeldManager(
            PeerConnectionConfig(
                is_polite=mutant.polite[name],
                on_track=lambda stream: None,
                on_ice_connection_state_change=lambda state: None,
                signaling=self._channel,
                call_id="replay",
                remote_user_id=other,
                interface=interface,
            )
        )
        self.manager.negotiator = make_negotiator(mutant, name)
        self.manager.initialize()
        if mutant.without_rollback:
            # Nothing has happened yet, so this is the agent as it would have been made.
            self.manager.pc._session.core.__class__ = CoreWithoutRollback
        self._pump = asyncio.get_running_loop().create_task(self._collect(), name=f"inbox of {name}")

    def add(self) -> None:
        """Add a transceiver: audio, video, audio and so on."""
        self._added += 1
        self.manager.pc.addTransceiver("audio" if self._added % 2 else "video")

    def take(self, message: Mapping[str, Any]) -> None:
        """Take a message out of those that wait."""
        del self.inbox[next(at for at, waiting in enumerate(self.inbox) if waiting is message)]

    def receive(self, message: Mapping[str, Any]) -> None:
        """Give a message to the manager."""
        if message["type"] == _TYPES["candidate"]:
            self.manager.handle_ice_candidate(message["candidate"])
        else:
            type_ = message["type"].removeprefix("call-")
            self.manager.handle_remote_description({"type": type_, "sdp": message["sdp"]})

    async def advance(self) -> bool:
        """Let the next thing happen that can; return whether there was one."""
        manager = self.manager
        if manager.resolution_waits:
            await manager.resolve()
        elif manager.effect_waits:
            await manager.effect()
        elif self.inbox:
            self.receive(self.inbox.pop(0))
        elif manager.tell_news():
            pass
        elif manager.event_waits:
            manager.fire()
        else:
            return False
        return True

    def describe(self) -> PeerEnd:
        """Return how this peer is now."""
        pc = self.manager.pc
        return end_of(
            pc._session.core.state,
            needs_negotiation=pc.negotiationIsNeeded,
            errors=tuple(self.manager.surfaced),
        )

    async def close(self) -> None:
        """Open all gates and close everything."""
        self.manager.open_gates()
        await self.manager.close()
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)
        await self._channel.close()

    async def _collect(self) -> None:
        try:
            while True:
                message = await self._channel.receive()
                self.inbox.append(message)
        except ChannelClosed:
            return


@dataclass(eq=False)
class _HeldOperation:
    operation: Operation
    may_begin: asyncio.Event = field(default_factory=asyncio.Event)
    has_effect: asyncio.Event = field(default_factory=asyncio.Event)
    may_resolve: asyncio.Event = field(default_factory=asyncio.Event)


class _HeldManager(PeerConnectionManager):
    """A manager whose event and operations wait for leave."""

    def __init__(self, config: PeerConnectionConfig) -> None:
        super().__init__(config)
        self.event_waits = False
        self.surfaced: list[str] = []
        self._held: deque[_HeldOperation] = deque()
        self._untold: deque[tuple[str, str | None]] = deque()
        self._has_resolved = asyncio.Event()
        self._are_open = False

    @property
    def effect_waits(self) -> bool:
        """Whether an operation waits for leave to take effect."""
        return bool(self._held) and not self._held[0].has_effect.is_set()

    @property
    def resolution_waits(self) -> bool:
        """Whether an operation has taken effect, and its promise waits for leave to resolve."""
        return bool(self._held) and self._held[0].has_effect.is_set()

    def initialize(self, ice_servers: Sequence[RTCIceServer] = ()) -> None:
        """Create the peer connection, and keep what its ICE transport gathers."""
        super().initialize(ice_servers)
        self.pc._session.ice.on_candidate = lambda ufrag, line: self._untold.append((ufrag, line))

    @property
    def candidate_waits(self) -> bool:
        """Whether a candidate of a description that is set waits for leave to be told."""
        self._forget_stale()
        return any(line is not None for _, line in self._untold)

    def tell_candidate(self) -> bool:
        """Tell the first candidate that waits."""
        told = next(news for news in self._untold if news[1] is not None)
        self._untold.remove(told)
        self.pc._session._on_candidate(*told)
        return True

    def tell_news(self) -> bool:
        """Tell whatever waits first, the end of candidates too; return False if nothing does."""
        self._forget_stale()
        if not self._untold:
            return False
        self.pc._session._on_candidate(*self._untold.popleft())
        return True

    def fire(self) -> bool:
        """Handle the negotiationneeded event that has fired."""
        self.event_waits = False
        super()._on_negotiation_needed()
        return True

    async def effect(self) -> bool:
        """Let the operation at the head of the chain take effect."""
        head = self._held[0]
        head.may_begin.set()
        await head.has_effect.wait()
        return True

    async def resolve(self) -> None:
        """Let the promise of the chain's head resolve, and what hangs on it happen."""
        head = self._held.popleft()
        self._has_resolved.clear()
        head.may_resolve.set()
        await self._has_resolved.wait()

    def open_gates(self) -> None:
        """Hold nothing any more."""
        self._are_open = True
        for held in self._held:
            held.may_begin.set()
            held.may_resolve.set()

    def _forget_stale(self) -> None:
        """Forget the candidates of generations that were taken back: they would have been told before."""
        state = self.pc._session.core.state
        alive = {one.ufrag for one in (state.pending_local, state.current_local) if one is not None}
        self._untold = deque(news for news in self._untold if news[0] in alive)

    def _on_negotiation_needed(self) -> None:
        self.event_waits = True

    def _invoke(self, operation: Operation) -> Awaitable[None]:
        held = _HeldOperation(operation)
        if self._are_open:
            held.may_begin.set()
            held.may_resolve.set()
        self._held.append(held)

        async def wait() -> None:
            await held.may_begin.wait()

        # The place before the operation's own: the chain is as full as it would be, and nothing happens yet.
        gate = self.pc._session.chain.run("gate", wait)
        return self._hold(held, gate, super()._invoke(operation))

    async def _hold(self, held: _HeldOperation, gate: Awaitable[None], result: Awaitable[None]) -> None:
        try:
            await gate
            await result
        finally:
            held.has_effect.set()
            await held.may_resolve.wait()

    def _observe_operation(
        self, operation: Operation, local: RTCSessionDescription | None, error: Exception | None
    ) -> None:
        super()._observe_operation(operation, local, error)
        # What follows from the outcome is begun before anybody who waits for this goes on.
        self._has_resolved.set()

    def _surface(self, operation: Operation, error: BaseException) -> None:
        # The errors of a trace are meant to happen: they are reported, and no warning is logged.
        name = getattr(error, "name", type(error).__name__)
        self.surfaced.append(f"{operation_name(operation)}: {name}")
        self.errors.append(error)


def _other(name: PeerName) -> PeerName:
    return PEERS[1 - PEERS.index(name)]
