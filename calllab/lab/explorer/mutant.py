"""Perfect Negotiation with one thing wrong: a mutant is a switch on a wrapper, the code itself is untouched.

A mutant that explores clean would mean that the part it lacks is not needed; each is shown to be broken by
the shortest sequence of events that breaks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from calllab.errors import LabError
from calllab.negotiation.negotiator import AddIceCandidate, Command, Description, Operation, PerfectNegotiator
from calllab.rtc.actions import Action
from calllab.rtc.errors import InvalidStateError
from calllab.rtc.jsep import JsepCore
from calllab.rtc.parameters import SignalingState

__all__ = [
    "MUTANTS",
    "UNCHANGED",
    "CoreWithoutRollback",
    "Mutant",
    "find_mutant",
    "make_negotiator",
]


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """What is wrong; without any argument, nothing is."""

    name: str
    about: str
    """What is missing or wrong, as one sentence."""
    polite: Mapping[str, bool] = field(default_factory=lambda: {"alice": False, "bob": True})
    """Who gives way; in calllab the callee."""
    forced: Mapping[str, bool] = field(default_factory=dict)
    """Flags of the negotiator that always have this value."""
    reads_ignore_offer_late: bool = False
    """Read ``ignoreOffer`` when addIceCandidate() has failed, as the example in webrtc-pc 10.7 does."""
    without_rollback: bool = False
    """``setRemoteDescription(offer)`` in have-local-offer fails instead of rolling back."""
    ordered: bool = True
    """Whether messages of one direction arrive in the order in which they were sent."""
    drops: int = 0
    """How many messages may get lost."""
    duplicates: int = 0
    """How many messages may arrive twice."""


UNCHANGED: Final = Mutant(name="none", about="Perfect Negotiation as it is")

MUTANTS: Final[Mapping[str, Mutant]] = {
    mutant.name: mutant
    for mutant in (
        Mutant(
            name="without-making-offer",
            about="no making_offer: until its own offer is set, a peer takes an offer for no collision",
            forced={"making_offer": False},
        ),
        Mutant(
            name="without-ignore-offer",
            about="no ignore_offer: what fails because it follows an ignored offer is reported",
            forced={"ignore_offer": False},
        ),
        Mutant(
            name="without-answer-pending",
            about="no is_setting_remote_answer_pending: an offer behind an answer counts as a collision",
            forced={"is_setting_remote_answer_pending": False},
        ),
        Mutant(
            name="ignore-offer-read-late",
            about="ignore_offer is read when a candidate has failed, as in the example of the specification",
            reads_ignore_offer_late=True,
        ),
        Mutant(
            name="without-rollback",
            about="no implicit rollback: an offer is refused while one's own is pending",
            without_rollback=True,
        ),
        Mutant(
            name="both-polite",
            about="both peers give way",
            polite={"alice": True, "bob": True},
        ),
        Mutant(
            name="both-impolite",
            about="neither peer gives way",
            polite={"alice": False, "bob": False},
        ),
        Mutant(
            name="unordered",
            about="signaling does not keep the order of messages",
            ordered=False,
        ),
        Mutant(
            name="dropped",
            about="signaling loses one message",
            drops=1,
        ),
        Mutant(
            name="duplicated",
            about="signaling delivers one message twice",
            duplicates=1,
        ),
    )
}
"""All mutants by name."""


def find_mutant(name: str) -> Mutant:
    """Return a mutant; raises LabError if there is none of this name."""
    if name == UNCHANGED.name:
        return UNCHANGED
    if name not in MUTANTS:
        raise LabError(f"there is no mutant {name!r}: choose one of {', '.join(MUTANTS)}")
    return MUTANTS[name]


def make_negotiator(mutant: Mutant, peer: str) -> PerfectNegotiator:
    """Return the negotiator of a peer, ``alice`` or ``bob``."""
    polite = mutant.polite[peer]
    if mutant.forced:
        return _WithForcedFlags(polite, mutant.forced)
    if mutant.reads_ignore_offer_late:
        return _ReadingIgnoreOfferLate(polite)
    return PerfectNegotiator(polite)


Commands: TypeAlias = tuple[Command, ...]


class _WithForcedFlags(PerfectNegotiator):
    """Sets some flags back whenever something has happened."""

    def __init__(self, polite: bool, forced: Mapping[str, bool]) -> None:
        super().__init__(polite)
        self._forced = dict(forced)

    def negotiation_needed(self) -> Commands:
        """As ever, then set the flags back."""
        return self._then(super().negotiation_needed())

    def remote_description(self, description: Description, signaling_state: SignalingState) -> Commands:
        """As ever, then set the flags back."""
        return self._then(super().remote_description(description, signaling_state))

    def succeeded(self, operation: Operation, local_description: Description | None) -> Commands:
        """As ever, then set the flags back."""
        return self._then(super().succeeded(operation, local_description))

    def _then(self, commands: Commands) -> Commands:
        self._state = replace(self._state, **self._forced)  # type: ignore[arg-type]
        return commands


class _ReadingIgnoreOfferLate(PerfectNegotiator):
    """Judges the failure of a candidate by what is ignored at that moment."""

    def remote_candidate(self, candidate: Mapping[str, Any] | None) -> Commands:
        """Add the candidate without asking what is being ignored."""
        return self._begin(AddIceCandidate(candidate))

    def failed(self, operation: Operation, error: BaseException) -> Commands:
        """As ever, but the failure of a candidate is kept quiet while an offer is being ignored."""
        commands = super().failed(operation, error)
        return () if isinstance(operation, AddIceCandidate) and self.ignore_offer else commands


class CoreWithoutRollback(JsepCore):
    """A JSEP agent from before rollback."""

    def rollback(self, side: Literal["local", "remote"]) -> tuple[Action, ...]:
        """Refuse, as a remote offer in have-local-offer is refused then."""
        raise InvalidStateError("a remote offer cannot be set in signaling state have-local-offer")
