"""What an ICE generation is given, and whom it tells."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from calllab._aiortc.candidates import IceCandidateError
from calllab._aiortc.datagrams import DatagramInterface
from calllab._aiortc.gathering import IcePolicy, Server
from calllab._aiortc.liveness import IceTimers

if TYPE_CHECKING:
    from calllab._aiortc.ice_generation import IceGeneration

__all__ = ["Credentials", "GenerationOwner", "GenerationSettings", "GenerationState"]

GenerationState = Literal["new", "checking", "connected", "disconnected", "failed"]


class Credentials(Protocol):
    """A user name fragment and its password (RFC 8445 section 5.3)."""

    @property
    def ufrag(self) -> str:
        """The user name fragment."""

    @property
    def pwd(self) -> str:
        """The password."""


class GenerationOwner(Protocol):
    """Whom a generation tells what happens; called synchronously, with the state already changed."""

    def generation_received(self, data: bytes) -> None:
        """Take a packet that is not STUN."""

    def generation_candidate(self, generation: IceGeneration, line: str | None) -> None:
        """Take a new local candidate; None: there will be no more."""

    def generation_candidate_error(self, generation: IceGeneration, error: IceCandidateError) -> None:
        """Take the reason why a server gave no candidate."""

    def generation_state_changed(self, generation: IceGeneration) -> None:
        """Look at the state again."""

    def generation_pair_changed(self, generation: IceGeneration) -> None:
        """Look at the selected pair again."""

    def role_changed(self, controlling: bool) -> None:
        """A role conflict was lost: the whole agent changes its role."""


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """What all generations of a transport share."""

    servers: tuple[Server, ...]
    policy: IcePolicy
    interface: DatagramInterface | None
    timers: IceTimers
    entropy: random.Random
    tie_breaker: int
