"""A peer without IO: the real negotiator over the real JSEP core, one visible step at a time.

Where a peer connection has an event loop, this has steps: the negotiationneeded event fires, the operation at
the head of the chain takes effect, its promise resolves, a gathered candidate is told, a message arrives.
Whoever drives it chooses the order; anything that an event loop can do is one of these orders.

Between the effect of an operation and the resolution of its promise a message may arrive.  In a browser
nothing comes between the two, over asyncio something can; what holds for both orders holds for either.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from calllab.lab.explorer.message import Candidate, Message
from calllab.negotiation.negotiator import (
    AddIceCandidate,
    Command,
    Description,
    Notice,
    Operation,
    PerfectNegotiator,
    SendDescription,
    SetLocalDescription,
    SetRemoteDescription,
    Surface,
)
from calllab.rtc.actions import Action, DiscardIce, PrepareIce
from calllab.rtc.errors import RtcError
from calllab.rtc.jsep_state import Applied, JsepState
from calllab.rtc.parameters import SdpType, SignalingState

__all__ = ["Core", "PeerState", "ScriptedPeer", "SurfacedError", "local_description", "operation_name"]


class Core(Protocol):
    """What a scripted peer needs of a JSEP core."""

    @property
    def state(self) -> JsepState:
        """All that the agent knows."""

    @property
    def signaling_state(self) -> SignalingState:
        """The W3C signaling state."""

    def negotiation_needed(self) -> bool:
        """Return whether an offer is needed."""

    def set_local(self, type_: SdpType) -> tuple[Action, ...]:
        """Make and set a description."""

    def set_remote(self, type_: SdpType, text: str) -> tuple[Action, ...]:
        """Set a description of the other peer."""

    def text(self, applied: Applied) -> str:
        """Return a set description as SDP."""

    def add_local_candidate(self, ufrag: str, candidate: str | None) -> tuple[str, int] | None:
        """Note a gathered candidate; return the place of its section."""

    def add_remote_candidate(self, init: dict[str, Any]) -> tuple[Action, ...]:
        """Add a candidate of the other peer."""


@dataclass(frozen=True, slots=True)
class SurfacedError:
    """An operation failed, and the application was told."""

    operation: str
    """As in ``setRemoteDescription(answer)``."""
    name: str
    """The DOMException name."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class PeerState:
    """Everything of a scripted peer but its core and its negotiator."""

    chain: tuple[Operation, ...] = ()
    outcome: RtcError | bool = False
    """Of the chain's head: False before it has taken effect, True or what it was refused with after."""
    announced: bool = False
    """W3C [[NegotiationNeeded]]: the event has fired, and no description has made the state stable since."""
    gathered: tuple[tuple[str, int], ...] = ()
    """Candidates (ufrag, number) of a description that has not been sent yet: they must not overtake it."""
    late: tuple[tuple[str, int], ...] = ()
    """Candidates that may be told now, in order."""
    errors: tuple[SurfacedError, ...] = ()


C = TypeVar("C", bound=Core)


class ScriptedPeer(Generic[C]):
    """One end; ``outbox`` holds what it has sent and nobody has taken yet."""

    def __init__(self, core: C, negotiator: PerfectNegotiator, *, candidates: int = 1) -> None:
        self.core = core
        self.negotiator = negotiator
        self.outbox: deque[Message] = deque()
        self.notices: list[str] = []
        self._candidates = candidates
        self._chain: tuple[Operation, ...] = ()
        self._outcome: RtcError | bool = False
        self._announced = False
        self._gathered: tuple[tuple[str, int], ...] = ()
        self._late: tuple[tuple[str, int], ...] = ()
        self._errors: tuple[SurfacedError, ...] = ()

    # What can happen, if it can

    @property
    def errors(self) -> tuple[SurfacedError, ...]:
        """What has come to the surface, in order."""
        return self._errors

    @property
    def head(self) -> Operation | None:
        """The operation at the head of the chain."""
        return self._chain[0] if self._chain else None

    @property
    def has_effect(self) -> bool:
        """Whether the head of the chain has taken effect, so that its promise resolves next."""
        return self._outcome is not False

    @property
    def can_fire(self) -> bool:
        """Whether the negotiationneeded event would fire (webrtc-pc section 4.7.3)."""
        return (
            not self._chain
            and not self._announced
            and self.core.signaling_state == "stable"
            and self.core.negotiation_needed()
        )

    @property
    def can_step(self) -> bool:
        """Whether an operation is under way."""
        return bool(self._chain)

    @property
    def can_trickle(self) -> bool:
        """Whether a gathered candidate waits to be told."""
        return bool(self._late)

    def fire(self) -> None:
        """Fire negotiationneeded."""
        self._announced = True
        self._carry_out(self.negotiator.negotiation_needed())

    def step(self) -> None:
        """Let the head of the chain take effect, or, if it has, resolve its promise."""
        if self._outcome is False:
            try:
                self._apply(self._chain[0])
            except RtcError as exc:
                self._outcome = exc
            else:
                self._outcome = True
            return
        operation, outcome = self._chain[0], self._outcome
        self._chain, self._outcome = self._chain[1:], False
        if isinstance(outcome, RtcError):
            self._carry_out(self.negotiator.failed(operation, outcome))
        else:
            self._carry_out(self.negotiator.succeeded(operation, local_description(self.core)))

    def trickle(self) -> None:
        """Tell the next gathered candidate, unless it belongs to nothing that is set."""
        (ufrag, number), self._late = self._late[0], self._late[1:]
        line = f"candidate:1 1 udp 2130706431 192.0.2.{number + 1} 9 typ host ufrag {ufrag}"
        if (place := self.core.add_local_candidate(ufrag, line)) is not None:
            self.outbox.append(Candidate(line, *place, ufrag))

    def receive(self, message: Message) -> None:
        """Take a message of the other peer."""
        if isinstance(message, Candidate):
            self._carry_out(self.negotiator.remote_candidate(message.init()))
        else:
            self._carry_out(self.negotiator.remote_description(message, self.core.signaling_state))

    def snapshot(self) -> PeerState:
        """Return all but the core's and the negotiator's own state."""
        return PeerState(
            self._chain, self._outcome, self._announced, self._gathered, self._late, self._errors
        )

    def restore(self, state: PeerState) -> None:
        """Become again what :meth:`snapshot` saw; restore core and negotiator as well."""
        self._chain, self._outcome, self._announced = state.chain, state.outcome, state.announced
        self._gathered, self._late, self._errors = state.gathered, state.late, state.errors
        self.outbox.clear()

    # Inside

    def _carry_out(self, commands: tuple[Command, ...]) -> None:
        for command in commands:
            match command:
                case SendDescription(description):
                    self.outbox.append(description)
                    self._late += self._gathered
                    self._gathered = ()
                case Notice(event):
                    self.notices.append(event)
                case Surface(operation, error):
                    name = getattr(error, "name", type(error).__name__)
                    self._errors += (SurfacedError(operation_name(operation), name, str(error)),)
                case SetLocalDescription() | SetRemoteDescription() | AddIceCandidate():
                    self._chain += (command,)

    def _apply(self, operation: Operation) -> None:
        core = self.core
        match operation:
            case SetLocalDescription():
                answering = core.signaling_state == "have-remote-offer"
                self._gather(core.set_local("answer" if answering else "offer"))
            case SetRemoteDescription(description):
                self._gather(core.set_remote(description.type, description.sdp))
            case AddIceCandidate(candidate):
                core.add_remote_candidate(dict(candidate or {}))
        # As after each description: "clear the negotiation-needed flag and update it" (webrtc-pc 4.4.1.5).
        if not isinstance(operation, AddIceCandidate) and core.signaling_state == "stable":
            self._announced = False

    def _gather(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case PrepareIce(credentials):
                    ufrag = credentials.ufrag
                    self._gathered += tuple((ufrag, number) for number in range(self._candidates))
                case DiscardIce(credentials):
                    gone = credentials.ufrag
                    self._gathered = tuple(waits for waits in self._gathered if waits[0] != gone)
                    self._late = tuple(waits for waits in self._late if waits[0] != gone)
                case _:
                    pass  # transports and media: nothing that is said to the other peer


def local_description(core: Core) -> Description | None:
    """Return W3C localDescription: the pending description of ours, else the current one."""
    applied = core.state.pending_local or core.state.current_local
    return None if applied is None else Description(applied.type, core.text(applied))


def operation_name(operation: Operation) -> str:
    """Return an operation as it is called, with the type of its description."""
    match operation:
        case SetLocalDescription(purpose):
            return f"setLocalDescription({purpose})"
        case SetRemoteDescription(description):
            return f"setRemoteDescription({description.type})"
        case AddIceCandidate():
            return "addIceCandidate"
