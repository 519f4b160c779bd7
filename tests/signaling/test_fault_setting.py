"""Faults of signaling as data: what is refused, and what the rest means."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from calllab.errors import InvalidSetting
from calllab.signaling import SignalingFault
from calllab.signaling.fault_setting import MESSAGE_TYPES, Route

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"kind": "nonsense"}, "nonsense"),
    ({"kind": "drop", "types": ["call-offer", "nonsense"]}, "nonsense"),
    ({"kind": "drop", "direction": "alice"}, "alice->bob"),
    ({"kind": "drop", "direction": "alice->alice"}, "itself"),
    ({"kind": "drop", "direction": "a->bob"}, "'a' cannot be the name"),
    ({"kind": "drop", "at_s": -1.0}, "at_s=-1"),
    ({"kind": "drop", "at_s": float("inf")}, "at_s=inf"),
    ({"kind": "drop", "for_s": 0.0}, "for_s=0"),
    ({"kind": "drop", "for_s": float("nan")}, "for_s=nan"),
    ({"kind": "drop", "probability": 1.5}, "probability=1.5"),
    ({"kind": "drop", "count": 0}, "count=0"),
    ({"kind": "drop", "count": True}, "count=True"),
    ({"kind": "drop", "copies": 2}, "copies=2 says nothing about kind='drop'"),
    ({"kind": "drop", "peer": "alice"}, "peer='alice' says nothing"),
    ({"kind": "delay"}, "delay nothing"),
    ({"kind": "delay", "delay_ms": -5.0}, "delay_ms=-5"),
    ({"kind": "duplicate", "copies": 0}, "copies=0"),
    ({"kind": "reorder", "behind": 0}, "behind=0"),
    ({"kind": "reorder", "wait_ms": -1.0}, "wait_ms=-1"),
    ({"kind": "disconnect"}, "whose connection"),
    ({"kind": "disconnect", "peer": "alice", "types": ["call-offer"]}, "types="),
    ({"kind": "disconnect", "peer": "alice", "probability": 0.5}, "probability=0.5 says nothing"),
]


@pytest.mark.parametrize(("members", "what"), REFUSED)
def test_what_makes_no_sense_is_refused_by_name(members: dict[str, Any], what: str) -> None:
    """Each bad member is named with its value."""
    with pytest.raises(InvalidSetting, match=what):
        SignalingFault(**members)


def test_in_a_file_the_place_is_named_too() -> None:
    """Decoding says where in the file the fault stands, and unknown members are refused."""
    with pytest.raises(msgspec.ValidationError, match=r"count=0.*\$\[1\]"):
        msgspec.json.decode(b'[{"kind":"drop"},{"kind":"drop","count":0}]', type=list[SignalingFault])
    with pytest.raises(msgspec.ValidationError, match="colour"):
        msgspec.json.decode(b'{"kind":"drop","colour":"red"}', type=SignalingFault)


def test_a_direction_is_one_or_two_ways() -> None:
    """``<->`` means both, ``*`` anyone; the users that are named are known."""
    assert SignalingFault(kind="drop").routes == (Route(None, None),)
    both = SignalingFault(kind="drop", direction=" alice <-> bob ")
    assert both.routes == (Route("alice", "bob"), Route("bob", "alice"))
    assert both.users == {"alice", "bob"}
    assert SignalingFault(kind="drop", direction="*->bob").users == {"bob"}
    assert SignalingFault(kind="disconnect", peer="alice").users == {"alice"}
    assert SignalingFault(kind="disconnect", peer="alice").routes == ()


def test_settings_are_what_was_asked_for() -> None:
    """The ground truth of a recording says no more than the fault, and JSON can hold it."""
    fault = SignalingFault(kind="delay", delay_ms=250, types=("call-answer",), at_s=3, for_s=2)
    assert fault.settings() == {"kind": "delay", "delay_ms": 250, "types": ["call-answer"]}
    assert (fault.cause, fault.end_s) == ("signaling-delay", 5)
    assert msgspec.json.decode(msgspec.json.encode(fault), type=SignalingFault) == fault


def test_every_message_of_the_wire_can_be_meant() -> None:
    """The types are the wire's nine and the relay's errors."""
    assert len(MESSAGE_TYPES) == 10
    SignalingFault(kind="drop", types=tuple(MESSAGE_TYPES))
