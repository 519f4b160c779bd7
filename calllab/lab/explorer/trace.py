"""A sequence of events between two peers as data: found by an exploration, written to a file, replayed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from calllab.errors import LabError
from calllab.lab.explorer.agreement import PeerEnd
from calllab.lab.explorer.message import MessageKind
from calllab.lab.explorer.moves import LocalAction, PeerName, Wishes
from calllab.lab.explorer.mutant import Mutant, find_mutant

__all__ = ["PEERS", "Action", "ChannelAction", "PeerName", "Sent", "Step", "Trace"]

PEERS: Final[tuple[PeerName, PeerName]] = get_args(PeerName)
ChannelAction: TypeAlias = Literal["deliver", "drop", "duplicate"]
Action: TypeAlias = LocalAction | ChannelAction

VERSION: Final = 1


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a step sent."""

    number: int
    """Which one of the trace's messages."""
    kind: MessageKind


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event.

    ``add`` and ``restart`` are wishes of the application; ``fire``: negotiationneeded is handled; ``effect``:
    the operation at the head of the chain takes effect; ``resolve``: its promise resolves or rejects;
    ``trickle``: a gathered candidate is told; ``deliver``: a message of the other peer arrives; ``drop``: it
    gets lost; ``duplicate``: it arrives, and will again.
    """

    peer: PeerName
    """Who does it; of a message, who is to get it."""
    action: Action
    what: str
    """The operation, with the error that it ends with, or the kind of the message."""
    note: Literal["", "ignored", "rolls back"] = ""
    """What a peer does about glare: it ignores an offer, or an error that follows from that, or takes its own
    offer back.
    """
    message: int | None = None
    """Which one of the trace's messages arrives or gets lost."""
    sent: tuple[Sent, ...] = ()


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Events in order, what they lead to, and all that is needed to replay them."""

    version: int = VERSION
    mutant: str = "none"
    alice: Wishes
    bob: Wishes
    established: int = 0
    """How many m-lines were negotiated before the exploration began."""
    candidates: int = 1
    """How many candidates each ICE generation has."""
    setup: int = 0
    """How many of the steps come before the exploration's beginning."""
    steps: tuple[Step, ...]
    kind: str = "end"
    """What breaks; ``end`` if nothing does."""
    sentence: str = ""
    """What broke, in words."""
    end: Mapping[PeerName, PeerEnd]
    """How both peers are after the last step."""

    @property
    def length(self) -> int:
        """How many steps follow the set-up."""
        return len(self.steps) - self.setup

    @property
    def mutation(self) -> Mutant:
        """What was wrong with the peers and the signaling; raises LabError if it is not known here."""
        return find_mutant(self.mutant)

    def to_plain(self) -> dict[str, Any]:
        """Return the trace as JSON-like objects."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def to_json(self) -> str:
        """Return the trace as JSON text."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode() + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Trace:
        """Return the trace that :meth:`to_json` wrote; raises LabError if it is not one."""
        try:
            trace = msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as exc:
            raise LabError(f"this is no trace of an exploration: {exc}") from exc
        if trace.version != VERSION:
            raise LabError(f"the trace has version {trace.version}, known is {VERSION}: explore again")
        return trace

    @classmethod
    def load(cls, path: Path) -> Trace:
        """Return the trace in a file; raises LabError if there is none."""
        if path.exists() and not path.is_file():
            raise LabError(f"{path} is no regular file: give a trace that an exploration wrote")
        try:
            text = path.read_bytes()
        except OSError as exc:
            raise LabError(f"{path} cannot be read: {exc.strerror}") from exc
        try:
            return cls.from_json(text)
        except LabError as exc:
            raise LabError(f"{path}: {exc}") from exc.__cause__
