"""A scenario that cannot be run is refused before anything starts, with path, expectation and value."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calllab.errors import ScenarioError
from calllab.lab.scenario import Scenario, scenario_from
from tests.scenarios.helpers import call_and, plain

DIRECTION = {"direction": "alice->bob"}


def fault(**members: Any) -> dict[str, Any]:
    """Return a scenario with two faults, the second of which has these members."""
    return plain(faults=[{**DIRECTION, "loss": 0.1}, {**DIRECTION, **members}])


def metric(**members: Any) -> dict[str, Any]:
    """Return a scenario that measures something with these members."""
    whole = {"peer": "bob", "type": "inbound-rtp", "member": "jitter", "op": "<", "value": 1}
    return plain(expect={"metrics": [whole | members]})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        # Wrong types
        (plain(duration_s="long"), "$.duration_s: expected a number, got 'long'"),
        (plain(duration_s=True), "$.duration_s: expected a number, got true"),
        (plain(duration_s=None), "$.duration_s: expected a number, got nothing"),
        (plain(peers=["alice", "bob"]), "$.peers: expected a mapping, got ['alice', 'bob']"),
        (plain(peers={"alice": {}, "bob": 3}), "$.peers.bob: expected a mapping, got 3"),
        (plain(timeline={"do": "call"}), "$.timeline: expected a list, got {'do': 'call'}"),
        (plain(seed=1.5), "$.seed: expected a number, got 1.5"),
        (plain(servers={"turn": "yes"}), "$.servers.turn: expected true or false or a mapping, got 'yes'"),
        (fault(loss="8%"), "$.faults[1].loss: expected a number, got '8%'"),
        (fault(blackout=1), "$.faults[1].blackout: expected true or false, got 1"),
        ([plain()], "the scenario holds no mapping"),
        # Unknown and missing names
        (plain(fault=[]), "$: unknown member 'fault': did you mean faults"),
        (fault(los=0.1), "$.faults[1]: unknown member 'los': did you mean loss?"),
        (plain(peers={"alice": {"vidio": True}, "bob": {}}), "$.peers.alice: unknown member 'vidio'"),
        (plain(timeline=call_and({"do": "dance"})), "$.timeline[1].do: expected one of call, hang-up"),
        (plain(timeline=call_and({"at_s": 3})), "$.timeline[1]: 'do' is missing"),
        (plain(timeline=[{"do": "call", "by": "alice"}]), "$.timeline[0]: 'to' is missing"),
        (plain(codecs="best"), "$.codecs: expected one of packets, real, stand-in, got 'best'"),
        (
            plain(expect={"findings": [{"cause": "lag"}]}),
            "$.expect.findings[0].cause: expected one of bandwidth-cap, blackout",
        ),
        (metric(op="=>"), "$.expect.metrics[0].op: expected one of"),
        # Out of range
        (plain(duration_s=-1), "$.duration_s: expected a number over 0, got -1"),
        (plain(duration_s=1e9), "$.duration_s: expected a number of at most 3600, got 1000000000"),
        (plain(seed=-1), "$.seed: expected a number of at least 0, got -1"),
        (fault(loss=8), "$.faults[1].loss: expected a number from 0 to 1, got 8\n"),
        (fault(loss=1.5), "$.faults[1].loss: expected a number from 0 to 1, got 1.5\n"),
        (fault(delay_ms=-5), "$.faults[1].delay_ms: expected a number from 0 to 60000, got -5\n"),
        (
            fault(rate_kbps=0),
            "$.faults[1].rate_kbps: expected a number from 0.1 to 100000000 or null, got 0\n",
        ),
        (
            fault(rate_kbps=1e12),
            "$.faults[1].rate_kbps: expected a number from 0.1 to 100000000 or null, got 1000000000000\n",
        ),
        (fault(rate_kbps="8M"), "$.faults[1].rate_kbps: expected a number or null, got '8M'\n"),
        (
            plain(signaling_faults=[{"kind": "delay", "delay_ms": 5, "for_s": -2}]),
            "$.signaling_faults[0].for_s: expected a number from 0 to 86400 or null for no end, got -2\n",
        ),
        (
            plain(signaling_faults=[{"kind": "drop", "for_s": 0}]),
            "$.signaling_faults[0].for_s: 0: a drop that lasts no time does nothing: give more, or null\n",
        ),
        (
            fault(loss=0.1, loss_block=2),
            "$.faults[1].loss: 0.1 of loss_block=2 datagrams rounds to none: give a larger block\n",
        ),
        (
            plain(signaling_faults=[{"kind": "disconnect"}]),
            "$.signaling_faults[0].peer: null: say whose connection is cut",
        ),
        (fault(loss=0.1, at_s=-1), "$.faults[1].at_s: expected a number of at least 0, got -1"),
        (fault(loss=0.1, for_s=0), "$.faults[1].for_s: expected a number over 0, got 0"),
        (
            plain(peers={"alice": {"video": {"fps": 8000}}, "bob": {}}),
            "$.peers.alice.video.fps: expected a number of at most 120, got 8000",
        ),
        (plain(servers={"stun": 3}), "$.servers.stun: expected a number of at most 2, got 3"),
        (plain(peers={"alice": {}}), "$.peers: expected a mapping with a length of at least 2"),
        (
            plain(peers={"alice": {"costs": {"encode_audio_ms": [3, 1]}}, "bob": {}}),
            "$.peers.alice.costs.encode_audio_ms: expected the shortest and the longest time",
        ),
        (
            plain(signaling_faults=[{"kind": "drop", "probability": 2}]),
            "$.signaling_faults[0].probability: expected a number from 0 to 1, got 2",
        ),
        (
            plain(signaling_faults=[{"kind": "drop", "types": ["call-ofer"]}]),
            "$.signaling_faults[0].types: 'call-ofer'",
        ),
        # Impossible times
        (fault(loss=0.1, at_s=10), "$.faults[1].at_s: expected a time before the end at 10 s, got 10"),
        (fault(loss=0.1, at_s=8, for_s=5), "$.faults[1].for_s: it would end at 13 s"),
        (
            plain(timeline=call_and({"do": "hang-up", "by": "bob", "at_s": 11})),
            "$.timeline[1].at_s: expected a time before the end",
        ),
        (
            plain(
                timeline=[{"do": "call", "by": "alice", "to": "bob", "at_s": 5}, {"do": "mute", "by": "bob"}]
            ),
            "$.timeline[1].at_s: 'bob' is in no call at 0 s",
        ),
        (plain(timeline=[]), "$.timeline: expected at least one call"),
        (plain(signaling_faults=[{"kind": "hold", "at_s": 9, "for_s": 5}]), "$.signaling_faults[0].for_s"),
        (metric(from_s=10), "$.expect.metrics[0].from_s: 10 s is not before the end"),
        (metric(from_s=5, to_s=5), "$.expect.metrics[0].to_s: expected more than from_s"),
        (
            plain(expect={"findings": [{"cause": "delay", "onset_s": {"min": 5, "max": 4}}]}),
            "$.expect.findings[0].onset_s: expected min up to max, got 5 to 4",
        ),
        # Things that do not exist
        (fault(loss=0.1, direction="alice->carol"), "$.faults[1].direction: there is no peer 'carol'"),
        (fault(loss=0.1, direction="alice->bbo"), "there is no peer 'bbo': did you mean bob?"),
        (fault(loss=0.1, direction="alice to bob"), "$.faults[1].direction: expected 'alice->bob'"),
        (fault(loss=0.1, direction="bob->bob"), "$.faults[1].direction: expected 'alice->bob'"),
        (plain(faults=[DIRECTION]), "$.faults[0]: a fault without a setting"),
        (
            plain(timeline=[{"do": "call", "by": "alice", "to": "eve"}]),
            "$.timeline[0].to: there is no peer 'eve'",
        ),
        (
            plain(timeline=[{"do": "call", "by": "bob", "to": "bob"}]),
            "$.timeline[0].to: expected another peer",
        ),
        (
            plain(signaling_faults=[{"kind": "disconnect", "peer": "eve"}]),
            "$.signaling_faults[0].peer: there is no",
        ),
        (
            plain(sdp_faults=[{"direction": "alice->eve", "alter": "codecs"}]),
            "$.sdp_faults[0].direction: there is no peer 'eve'",
        ),
        (plain(peers={"alice": {"nat": "cubic"}, "bob": {}}), "$.peers.alice.nat: "),
        (
            plain(peers={"alice": {"profile": "lte-godo"}, "bob": {}}),
            "$.peers.alice.profile: there is no network profile 'lte-godo': did you mean lte-good",
        ),
        (plain(peers={"turn": {}, "bob": {}}), "$.peers.turn: expected 3 to 32"),
        (plain(peers={"Alice!": {}, "bob": {}}), "$.peers.Alice!: expected 3 to 32"),
        (
            plain(network={"routes": [{"from": "alice", "to": "stun", "delay_ms": 3}]}),
            "$.network.routes[0].to: there is no host 'stun'",
        ),
        (
            plain(timeline=[{"do": "call", "by": "alice", "to": "bob", "policy": "relay"}]),
            "$.timeline[0].policy: relay needs a TURN server",
        ),
        (
            plain(peers={"alice": {"turn_credentials": "wrong"}, "bob": {}}),
            "$.peers.alice.turn_credentials: there is no TURN server",
        ),
        (plain(timeline=call_and({"do": "forget-nat", "by": "bob"})), "$.timeline[1].by: 'bob' has no NAT"),
        (plain(servers={"turn": {"faults": [{}]}}), "$.servers.turn.faults[0]: expected one of reject"),
        (metric(peer="eve"), "$.expect.metrics[0].peer: there is no peer 'eve'"),
        (metric(event="playout"), "$.expect.metrics[0]: expected either type"),
        (metric(member=None), "$.expect.metrics[0].member: expected the name of a member"),
        (plain(expect={"end_reason": {"eve": "failed"}}), "$.expect.end_reason.eve: there is no peer"),
        (
            plain(expect={"findings": [{"cause": "delay"}], "not_findings": ["delay"]}),
            "$.expect.findings[0].cause: 'delay' is in not_findings, too",
        ),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_with_path_and_reason(data: Any, said: str) -> None:
    """Wrong types, names, ranges, times and references: each error has path, expectation and value."""
    with pytest.raises(ScenarioError) as caught:
        scenario_from(data)
    assert said in f"{caught.value}\n"


def test_all_that_does_not_fit_together_is_told_at_once() -> None:
    """References and times are all checked, so that one reading finds all of them."""
    data = plain(
        faults=[{"direction": "alice->eve", "loss": 0.1}, {**DIRECTION, "loss": 0.1, "at_s": 20}],
        expect={"end_reason": {"mallory": "failed"}},
    )
    with pytest.raises(ScenarioError) as caught:
        scenario_from(data)
    assert len(caught.value.problems) == 3
    assert str(caught.value).count("\n") == 2


def test_links_that_do_not_go_together_are_refused() -> None:
    """A peer's link over all links must be a link that can be, as a whole."""
    data = plain(
        peers={"alice": {"link": {"loss_burst": 1}}, "bob": {}},
        network={"link": {"loss": 0.9, "loss_burst": 20}},
    )
    with pytest.raises(ScenarioError, match=r"\$\.peers\.alice\.link"):
        scenario_from(data)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**60)
    | st.floats(allow_nan=False)
    | st.sampled_from(["alice", "alice->bob", "alice<->bob", "call", "drop", "symmetric", "", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["do", "by", "to", "at_s", "for_s", "loss", "direction", "kind", "alice", "peer", "turn"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    member=st.sampled_from(sorted(field.encode_name for field in msgspec.structs.fields(Scenario))),
    value=json_values,
)
def test_any_value_anywhere_is_a_scenario_or_an_error(member: str, value: Any) -> None:
    """Whatever stands in a member, the outcome is a scenario that can be checked, or a ScenarioError."""
    try:
        scenario = scenario_from(plain(**{member: value}))
    except ScenarioError as exc:
        said = str(exc)
    else:
        said = f"$ {type(scenario).__name__}"
    assert said.startswith("$")
