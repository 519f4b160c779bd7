"""Perfect Negotiation as a state machine without IO.

Theory.  Two peers may offer at the same moment (*glare*).  The pattern of W3C webrtc-pc (section 10.7,
"Perfect negotiation example") breaks the tie by a role that both know beforehand: the **polite** peer takes
its own offer back (its ``setRemoteDescription`` rolls back implicitly), the **impolite** one ignores the
other's. Three flags carry the whole of it:

``making_offer``
    from *negotiationneeded* until our offer is set locally and handed to signaling.  The signaling state is
    still ``stable`` then, so the state alone cannot tell a collision.
``is_setting_remote_answer_pending``
    while an answer is being set.  The signaling state is still ``have-local-offer`` then, but will be
    ``stable`` before any operation that is queued behind it: an offer that arrives now is no collision.
``ignore_offer``
    the last description was ignored, so candidates that follow it cannot be added and their errors mean
    nothing.

The example in the specification reads ``ignoreOffer`` when ``addIceCandidate`` has failed.  An answer that
arrives in between has reset it by then, and a harmless error surfaces; exhaustive exploration finds that
interleaving.  Here the flag is read when the candidate *arrives*, which is what it is about.

The machine takes what happened and returns the commands to carry out, in order.  Commands that are operations
of the peer connection must be reported back by :meth:`PerfectNegotiator.succeeded` or
:meth:`PerfectNegotiator.failed` once each, and must be *started* in the order in which they were returned
(the peer connection's operations chain then keeps that order).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from calllab.rtc.parameters import SdpType, SignalingState

__all__ = [
    "AddIceCandidate",
    "Command",
    "Description",
    "Notice",
    "Operation",
    "PerfectNegotiator",
    "SendDescription",
    "SetLocalDescription",
    "SetRemoteDescription",
    "Surface",
]


@dataclass(frozen=True, slots=True)
class Description:
    """A session description on its way between two peers."""

    type: SdpType
    sdp: str = ""


@dataclass(frozen=True, slots=True)
class SetLocalDescription:
    """Call ``setLocalDescription()`` without an argument; ``purpose`` is what it will make."""

    purpose: Literal["offer", "answer"]


@dataclass(frozen=True, slots=True)
class SetRemoteDescription:
    """Call ``setRemoteDescription(description)``, which rolls back implicitly where it must."""

    description: Description


@dataclass(frozen=True, slots=True)
class AddIceCandidate:
    """Call ``addIceCandidate(candidate)``; with ``of_ignored_offer`` its failure means nothing.

    ``candidate`` is an RTCIceCandidateInit mapping, or None at the end of candidates.
    """

    candidate: Mapping[str, Any] | None = field(hash=False)
    of_ignored_offer: bool = False


@dataclass(frozen=True, slots=True)
class SendDescription:
    """Hand this description to signaling."""

    description: Description


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth recording: glare was seen, and what was done about it."""

    event: Literal["offer-collision", "offer-ignored"]


@dataclass(frozen=True, slots=True)
class Surface:
    """An operation failed and the application should know."""

    operation: Operation
    error: BaseException


Operation: TypeAlias = SetLocalDescription | SetRemoteDescription | AddIceCandidate
Command: TypeAlias = Operation | SendDescription | Notice | Surface


@dataclass(frozen=True, slots=True)
class _State:
    making_offer: bool = False
    ignore_offer: bool = False
    is_setting_remote_answer_pending: bool = False
    pending: tuple[Operation, ...] = ()


class PerfectNegotiator:
    """The negotiation of one peer, polite or impolite (W3C webrtc-pc section 10.7)."""

    def __init__(self, polite: bool) -> None:
        self.polite = polite
        self._state = _State()

    @property
    def making_offer(self) -> bool:
        """Whether an offer is being made: from negotiationneeded until it is set locally."""
        return self._state.making_offer

    @property
    def ignore_offer(self) -> bool:
        """Whether the latest remote description was an offer that is being ignored."""
        return self._state.ignore_offer

    @property
    def is_setting_remote_answer_pending(self) -> bool:
        """Whether an answer is being set, so that an offer arriving now does not collide."""
        return self._state.is_setting_remote_answer_pending

    @property
    def is_idle(self) -> bool:
        """Whether no operation that this machine asked for is under way."""
        return not self._state.pending

    def negotiation_needed(self) -> tuple[Command, ...]:
        """React to the peer connection's negotiationneeded event."""
        return self._begin(SetLocalDescription("offer"), making_offer=True)

    def remote_description(
        self, description: Description, signaling_state: SignalingState
    ) -> tuple[Command, ...]:
        """React to a description from the other peer, given the signaling state at this moment."""
        state = self._state
        ready_for_offer = not state.making_offer and (
            signaling_state == "stable" or state.is_setting_remote_answer_pending
        )
        collision = description.type == "offer" and not ready_for_offer
        ignore = not self.polite and collision
        self._state = replace(state, ignore_offer=ignore)
        notices: tuple[Command, ...] = (Notice("offer-collision"),) if collision else ()
        if ignore:
            return (*notices, Notice("offer-ignored"))
        return notices + self._begin(
            SetRemoteDescription(description), is_setting_remote_answer_pending=description.type == "answer"
        )

    def remote_candidate(self, candidate: Mapping[str, Any] | None) -> tuple[Command, ...]:
        """React to a candidate from the other peer (None: the end of candidates)."""
        return self._begin(AddIceCandidate(candidate, of_ignored_offer=self._state.ignore_offer))

    def succeeded(self, operation: Operation, local_description: Description | None) -> tuple[Command, ...]:
        """Report that an operation resolved; ``local_description`` is the peer connection's by now."""
        self._finish(operation)
        match operation:
            case SetLocalDescription(purpose):
                if purpose == "offer":
                    self._state = replace(self._state, making_offer=False)
                if local_description is None:
                    return ()
                return (SendDescription(local_description),)
            case SetRemoteDescription(description):
                self._state = replace(self._state, is_setting_remote_answer_pending=False)
                if description.type == "offer":
                    return self._begin(SetLocalDescription("answer"))
        return ()

    def failed(self, operation: Operation, error: BaseException) -> tuple[Command, ...]:
        """Report that an operation rejected; returns what the application should know of it.

        As in the specification's example, ``is_setting_remote_answer_pending`` survives a failed answer: the
        next offer then counts as no collision, and both peers get out of the deadlock that ignoring it
        would be.
        """
        self._finish(operation)
        match operation:
            case SetLocalDescription("offer"):
                self._state = replace(self._state, making_offer=False)
            case AddIceCandidate(of_ignored_offer=True):
                return ()
        return (Surface(operation, error),)

    def snapshot(self) -> Hashable:
        """Return the whole state, to be given back to :meth:`restore`."""
        return self._state

    def restore(self, snapshot: Hashable) -> None:
        """Become again what :meth:`snapshot` saw."""
        if not isinstance(snapshot, _State):
            raise TypeError(f"not a snapshot of a negotiator: {snapshot!r}")
        self._state = snapshot

    def key(self) -> Hashable:
        """Return the state in canonical form: two negotiators with equal keys will act alike."""
        return (self.polite, self._state)

    def _begin(self, operation: Operation, **flags: bool) -> tuple[Command, ...]:
        self._state = replace(self._state, pending=(*self._state.pending, operation), **flags)
        return (operation,)

    def _finish(self, operation: Operation) -> None:
        pending = list(self._state.pending)
        try:
            pending.remove(operation)
        except ValueError:
            raise ValueError(f"{operation!r} is not pending: report each operation once") from None
        self._state = replace(self._state, pending=tuple(pending))
