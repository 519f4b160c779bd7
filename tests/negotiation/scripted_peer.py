"""A peer without IO: the real negotiator over the real JSEP core, one visible step at a time.

Where a peer connection has an event loop, this has steps: the negotiationneeded event fires, the operation at
the head of the chain takes effect, its promise resolves, a message arrives.  A test chooses the order.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeAlias

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
from calllab.rtc.actions import PrepareIce
from calllab.rtc.errors import RtcError
from tests.rtc.helpers import make_core

Message: TypeAlias = tuple[str, Any]

CANDIDATES_PER_GENERATION = 2


class ScriptedPeer:
    """One end; ``outbox`` holds what it has sent and the other end has not got yet."""

    def __init__(self, seed: int, polite: bool) -> None:
        self.core = make_core(seed)
        self.negotiator = PerfectNegotiator(polite)
        self.outbox: deque[Message] = deque()
        self.errors: list[BaseException] = []
        self.notices: list[str] = []
        self.tracks = 0
        self._chain: deque[Operation] = deque()
        self._applied: BaseException | bool = False
        self._announced = False
        # Candidates follow their description, as in a browser: gathered, then (once it is out) waiting.
        self._gathered: list[Message] = []
        self._late: deque[Message] = deque()

    # What can happen, if it can

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
        """Whether a gathered candidate waits to be sent."""
        return bool(self._late)

    def fire(self) -> None:
        """Fire negotiationneeded."""
        self._announced = True
        self._carry_out(self.negotiator.negotiation_needed())

    def step(self) -> None:
        """Let the head of the chain take effect, or, if it has, resolve its promise."""
        operation = self._chain[0]
        if self._applied is False:
            try:
                self._apply(operation)
                self._applied = True
            except RtcError as exc:
                self._applied = exc
            return
        outcome, self._applied = self._applied, False
        self._chain.popleft()
        if isinstance(outcome, BaseException):
            self._carry_out(self.negotiator.failed(operation, outcome))
        else:
            self._carry_out(self.negotiator.succeeded(operation, self._local_description()))

    def trickle(self) -> None:
        """Send the next gathered candidate, unless its generation was rolled back meanwhile."""
        kind, init = self._late.popleft()
        state = self.core.state
        alive = {
            applied.ufrag for applied in (state.pending_local, state.current_local) if applied is not None
        }
        if init["usernameFragment"] in alive:
            self.outbox.append((kind, init))

    def receive(self, message: Message) -> None:
        """Take a message of the other peer."""
        kind, content = message
        if kind == "description":
            self._carry_out(self.negotiator.remote_description(content, self.core.signaling_state))
        else:
            self._carry_out(self.negotiator.remote_candidate(content))

    # Inside

    def _carry_out(self, commands: tuple[Command, ...]) -> None:
        for command in commands:
            match command:
                case SendDescription(description):
                    self.outbox.append(("description", description))
                    self._late.extend(self._gathered)
                    self._gathered.clear()
                case Notice(event):
                    self.notices.append(event)
                case Surface(_, error):
                    self.errors.append(error)
                case SetLocalDescription() | SetRemoteDescription() | AddIceCandidate():
                    self._chain.append(command)

    def _apply(self, operation: Operation) -> None:
        core = self.core
        match operation:
            case SetLocalDescription():
                answering = core.signaling_state == "have-remote-offer"
                self._gather(core.set_local("answer" if answering else "offer"))
            case SetRemoteDescription(description):
                if description.type == "offer" and core.signaling_state == "have-local-offer":
                    core.rollback("local")
                core.set_remote(description.type, description.sdp)
            case AddIceCandidate(candidate):
                assert candidate is not None
                core.add_remote_candidate(candidate)
        if core.signaling_state == "stable":
            self._announced = False

    def _gather(self, actions: tuple[Any, ...]) -> None:
        for action in actions:
            if isinstance(action, PrepareIce):
                for number in range(CANDIDATES_PER_GENERATION):
                    self._gather_one(action.credentials.ufrag, number)

    def _gather_one(self, ufrag: str, number: int) -> None:
        line = f"candidate:1 1 udp 2130706431 192.0.2.{number + 1} 9 typ host ufrag {ufrag}"
        if (place := self.core.add_local_candidate(ufrag, line)) is not None:
            mid, index = place
            init = {"candidate": line, "sdpMid": mid, "sdpMLineIndex": index, "usernameFragment": ufrag}
            self._gathered.append(("candidate", init))

    def _local_description(self) -> Description | None:
        state = self.core.state
        applied = state.pending_local or state.current_local
        return None if applied is None else Description(applied.type, self.core.text(applied))
