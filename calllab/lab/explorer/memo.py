"""A JSEP core that remembers what it did: an operation in a known state is not computed again.

Each state has a number; two states have the same one exactly if their canonical keys are equal
(:meth:`~calllab.rtc.jsep.JsepCore.key`: agents with equal keys act alike).  All that matters of random tokens
is which are equal, but which they are would depend on the path to a state.  So the source of randomness is
seeded anew for each operation: one that makes a description of ours draws nothing but ICE credentials, which
follow from how many generations this peer has ever opened; any other one draws nothing but the SSRCs and ids
of transceivers, which follow from how many there have ever been.  What is drawn for the same purpose in the
same situation is the same, and what the other peer was ever shown is never drawn again, not even after a
rollback.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, TypeAlias, cast

from calllab.rtc.actions import Action, PrepareIce
from calllab.rtc.errors import RtcError
from calllab.rtc.jsep import JsepCore
from calllab.rtc.jsep_state import Applied, JsepState
from calllab.rtc.parameters import Direction, Fingerprint, Kind, SdpType, SignalingState

__all__ = ["MemoCore"]

Actions: TypeAlias = tuple[Action, ...]


class MemoCore:
    """The operations of a JSEP core over numbered states.

    :param name: of the peer; its tokens follow from it.
    :param names: tokens by order of appearance, shared by both peers.
    """

    def __init__(self, name: str, names: dict[object, int], kind: type[JsepCore] = JsepCore) -> None:
        self._name = name
        self._names = names
        self._entropy = random.Random(name)
        digest = ":".join(f"{self._entropy.getrandbits(8):02X}" for _ in range(32))
        self._core = kind(self._entropy, (Fingerprint("sha-256", digest),), f"cname-{name}")
        self._states: list[tuple[JsepState, int]] = []
        self._numbers: dict[Hashable, int] = {}
        self._results: dict[Hashable, tuple[int, Any]] = {}
        self._needed: dict[int, bool] = {}
        self._texts: dict[tuple[int, bool], str] = {}
        self._errors: dict[tuple[type[RtcError], str], RtcError] = {}
        self._parts: dict[int, tuple[int, Applied]] = {}
        self._part_numbers: dict[Hashable, int] = {}
        self._at = self._number(0)

    @property
    def size(self) -> int:
        """How many states are known."""
        return len(self._states)

    @property
    def computed(self) -> int:
        """How many operations were really carried out."""
        return len(self._results)

    @property
    def at(self) -> int:
        """The number of the present state."""
        return self._at

    @at.setter
    def at(self, number: int) -> None:
        self._at = number

    @property
    def state(self) -> JsepState:
        """All that the agent knows."""
        return self._states[self._at][0]

    @property
    def signaling_state(self) -> SignalingState:
        """The W3C signaling state."""
        return self.state.signaling

    def negotiation_needed(self) -> bool:
        """Return whether an offer is needed."""
        if self._at not in self._needed:
            self._core.restore(self.state)
            self._needed[self._at] = self._core.negotiation_needed()
        return self._needed[self._at]

    def text(self, applied: Applied) -> str:
        """Return a set description of ours as SDP."""
        key = (self._at, applied is self.state.pending_local)
        if key not in self._texts:
            self._core.restore(self.state)
            self._texts[key] = self._core.text(applied)
        return self._texts[key]

    def add_transceiver(self, kind: Kind, direction: Direction = "sendrecv") -> int:
        """Add a transceiver and return its id."""
        what = ("add_transceiver", kind, direction)
        return cast("int", self._do(what, lambda: self._core.add_transceiver(kind, direction)))

    def restart_ice(self) -> None:
        """Want new ICE credentials."""
        self._do(("restart_ice",), self._core.restart_ice)

    def set_local(self, type_: SdpType) -> Actions:
        """Make and set a description."""
        what = ("set_local", type_)
        return cast("Actions", self._do(what, lambda: self._core.set_local(type_)))

    def set_remote(self, type_: SdpType, text: str) -> Actions:
        """Set a description of the other peer."""
        what = ("set_remote", type_, text)
        return cast("Actions", self._do(what, lambda: self._core.set_remote(type_, text)))

    def add_local_candidate(self, ufrag: str, candidate: str | None) -> tuple[str, int] | None:
        """Note a gathered candidate; return the place of its section."""
        what = ("add_local_candidate", ufrag, candidate)
        place = self._do(what, lambda: self._core.add_local_candidate(ufrag, candidate))
        return cast("tuple[str, int] | None", place)

    def add_remote_candidate(self, init: dict[str, Any]) -> Actions:
        """Add a candidate of the other peer."""
        what = ("add_remote_candidate", *init.values())
        return cast("Actions", self._do(what, lambda: self._core.add_remote_candidate(init)))

    def _do(self, what: tuple[Hashable, ...], operation: Callable[[], Any]) -> Any:
        key = (self._at, what)
        if (known := self._results.get(key)) is None:
            known = self._results[key] = self._compute(operation, draws_ice=what[0] == "set_local")
        self._at, result = known
        if isinstance(result, RtcError):
            raise result
        return result

    def _compute(self, operation: Callable[[], Any], *, draws_ice: bool) -> tuple[int, Any]:
        state, generations = self._states[self._at]
        self._core.restore(state)
        if draws_ice:
            self._entropy.seed(f"{self._name}, generation {generations}")
        else:
            self._entropy.seed(f"{self._name}, transceivers")
            for _ in range(state.next_id):  # what those before have drawn: two SSRCs and a track id
                for bits in (32, 32, 128):
                    self._entropy.getrandbits(bits)
        result: Any
        try:
            result = operation()
        except RtcError as exc:
            # One object for equal errors, so that what they are kept in compares equal.
            result = self._errors.setdefault((type(exc), str(exc)), exc)
        else:
            if isinstance(result, tuple):
                generations += sum(isinstance(action, PrepareIce) for action in result)
        return self._number(generations), result

    def _number(self, generations: int) -> int:
        """Return the number of the state in which the core is now.

        Descriptions are most of a state, and most operations leave them alone: theirs is a part of the key
        of its own, computed once for each of them.
        """
        state = self._core.state
        described = (state.current_local, state.pending_local, state.current_remote, state.pending_remote)
        bare = replace(
            state, current_local=None, pending_local=None, current_remote=None, pending_remote=None
        )
        parts = tuple(self._part(applied) for applied in described)
        key = (self._key_of(bare), parts, state.next_id, generations)
        number = self._numbers.setdefault(key, len(self._states))
        if number == len(self._states):
            self._states.append((state, generations))
        return number

    def _part(self, applied: Applied | None) -> int:
        """Return a number for the key of a description."""
        if applied is None:
            return -1
        known = self._parts.get(id(applied))
        if known is None:
            key = self._key_of(JsepState(current_local=applied))
            # The object is kept, so that no other one can get its id.
            known = (self._part_numbers.setdefault(key, len(self._part_numbers)), applied)
            self._parts[id(applied)] = known
        return known[0]

    def _key_of(self, state: JsepState) -> Hashable:
        self._core.restore(state)
        return self._core.key(self._names)
