"""The scenarios that come with calllab, how they are found, and how they are changed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from calllab.errors import ScenarioError
from calllab.lab.causes import Cause
from calllab.lab.scenario import Scenario, builtin_scenarios, json_schema, load_scenario, scenario_from
from calllab.lab.scenario.check import check_setting, link_of
from calllab.lab.scenario.override import overridden
from calllab.network import LinkSettings, profile
from calllab.network.settings import causes_of
from tests.scenarios.helpers import plain

BUILTIN = builtin_scenarios()


@pytest.mark.parametrize("name", BUILTIN)
def test_every_scenario_loads_and_survives_the_way_to_a_child_process(name: str) -> None:
    """It is checked, short, says what it expects, and is the same after JSON."""
    scenario = load_scenario(name)
    assert scenario.duration_s <= 90
    assert scenario.expect != Scenario.__struct_defaults__
    assert scenario.expect.connection is not None
    assert msgspec.json.decode(msgspec.json.encode(scenario), type=Scenario) == scenario
    assert scenario_from(msgspec.to_builtins(scenario)) == scenario


def planned_causes(scenario: Scenario) -> set[str]:
    """Return the causes that a scenario brings about."""
    caused = {truth.cause for truth in scenario.truth}
    for fault in scenario.faults:
        caused.update(causes_of(fault.changes))  # type: ignore[arg-type]
    caused.update(fault.cause for fault in scenario.signaling_faults)  # type: ignore[misc]
    return set(caused)


def test_there_is_a_scenario_for_every_cause() -> None:
    """Each cause that a diagnosis can name is brought about by some scenario, and some have none."""
    assert len(BUILTIN) >= 30
    planned = {name: planned_causes(load_scenario(name)) for name in BUILTIN}
    assert set(get_args(Cause)) <= set().union(*planned.values())
    assert sum(not causes for causes in planned.values()) >= 6


def test_seeds_differ() -> None:
    """No two scenarios draw the same numbers."""
    seeds = [load_scenario(name).seed for name in BUILTIN]
    assert len(set(seeds)) == len(seeds)


def test_what_cannot_be_found_is_told_with_near_names(tmp_path: Path) -> None:
    """An unknown name and an unreadable text each get a sentence."""
    with pytest.raises(ScenarioError, match=r"no scenario 'loss-unifrom'.*did you mean loss-uniform"):
        load_scenario("loss-unifrom")
    with pytest.raises(ScenarioError, match="neither as a file nor as a name"):
        load_scenario("x" * 5000)
    file = tmp_path / "mine.yaml"
    file.write_text("title: [")
    with pytest.raises(ScenarioError, match=r"mine\.yaml is not YAML: line 2"):
        load_scenario(file)
    file.write_text("title: x")
    with pytest.raises(ScenarioError, match=r"mine\.yaml: \$: 'duration_s' is missing"):
        load_scenario(file)


def test_what_is_no_regular_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, a pipe and a device are called what they are, and nobody waits for them."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ScenarioError, match=f"^{path} is no regular file"):
            load_scenario(path)
    (tmp_path / "blackout").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_scenario("blackout").title


def test_a_profile_takes_the_place_of_the_common_link() -> None:
    """Its upstream is the peer's link, with the peer's own settings on top."""
    scenario = scenario_from(
        plain(
            peers={"alice": {"link": {"loss": 0.2}}, "bob": {"profile": "clean"}},
            network={"profile": "apple-dsl", "link": {"delay_ms": 77}},
        )
    )
    assert link_of(scenario, "alice") == profile("apple-dsl").up.replace(loss=0.2)
    assert link_of(scenario, "bob") == profile("clean").up
    with pytest.raises(ScenarioError, match=r"\$\.network\.profile: a profile"):
        check_setting(scenario, time="real", network="sockets")


def test_settings_of_a_link_are_laid_over_each_other() -> None:
    """What all peers have in common is under what a peer has of its own."""
    data = plain(
        peers={"alice": {"link": {"loss": 0.1, "delay_ms": 5}}, "bob": {}}, network={"link": {"delay_ms": 30}}
    )
    scenario = scenario_from(data)
    assert link_of(scenario, "alice") == LinkSettings(loss=0.1, delay_ms=5)
    assert link_of(scenario, "bob") == LinkSettings(delay_ms=30)


@pytest.mark.parametrize(
    ("assignment", "changed"),
    [
        ("seed=9", plain(seed=9)),
        ("$.title='seed=1'", plain(title="seed=1")),
        ("peers.alice.video.fps=5", plain(peers={"alice": {"video": {"fps": 5}}, "bob": {}})),
        ("timeline[0].policy=relay", plain(timeline=[{**plain()["timeline"][0], "policy": "relay"}])),
        (
            "faults[0]={direction: alice->bob, loss: 0.1}",
            plain(faults=[{"direction": "alice->bob", "loss": 0.1}]),
        ),
        ("faults[0].loss=0.1", plain(faults=[{"loss": 0.1}])),
        ("servers.turn=true", plain(servers={"turn": True})),
        ("peers.carol={}", plain(peers={"alice": {}, "bob": {}, "carol": {}})),
    ],
)
def test_one_value_can_be_changed(assignment: str, changed: Any) -> None:
    """A path and a value as in the file replace, or add, one value; the original stays as it was."""
    data = plain()
    assert overridden(data, [assignment]) == changed
    assert data == plain()


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("seed", "write path=value"),
        ("=3", "write path=value"),
        ("a b=3", "write path=value"),
        ("peers[0].video=true", r"\$\.peers is no list"),
        ("timeline.by=bob", r"\$\.timeline is no mapping"),
        ("timeline[5].by=bob", r"\$\.timeline has 1 elements: the next one would be \[1\]"),
        ("title.x=3", r"\$\.title is no mapping"),
        ("seed=[1", "--set seed is not YAML"),
        ("seed=&x 1", "anchors"),
    ],
)
def test_what_cannot_be_changed_says_why(assignment: str, said: str) -> None:
    """A path that leads nowhere and a value that is none are errors."""
    with pytest.raises(ScenarioError, match=said):
        overridden(plain(), [assignment])


def test_a_changed_scenario_is_checked_as_any() -> None:
    """A value that cannot be is refused with its path."""
    with pytest.raises(ScenarioError, match=r"\$\.faults\[0\]\.loss: expected a number from 0 to 1, got 8"):
        load_scenario("loss-uniform", overrides=["faults[0].loss=8"])


def test_what_needs_the_virtual_network_says_so() -> None:
    """Costs, routes and TURN faults cannot be had on real sockets; virtual time cannot run on them at all."""
    scenario = scenario_from(
        plain(
            peers={"alice": {"costs": {}}, "bob": {}},
            network={"routes": [{"from": "alice", "to": "bob", "delay_ms": 5}]},
            servers={"turn": {"faults": [{"silent": True}]}},
        )
    )
    with pytest.raises(ScenarioError) as caught:
        check_setting(scenario, time="real", network="sockets")
    assert len(caught.value.problems) == 3
    assert check_setting(scenario, time="real", network=None) == "virtual"
    ordinary = scenario_from(plain())
    assert check_setting(ordinary, time="real", network=None) == "sockets"
    assert check_setting(ordinary, time="virtual", network=None) == "virtual"
    with pytest.raises(ScenarioError, match="virtual time cannot run on real sockets"):
        check_setting(ordinary, time="virtual", network="sockets")


def test_the_schema_names_and_explains_every_member() -> None:
    """What the model takes is in the JSON Schema, ranges and words included."""
    schema = json_schema()
    definitions = schema["$defs"]
    assert set(definitions["Scenario"]["properties"]) == {
        field.encode_name for field in msgspec.structs.fields(Scenario)
    }
    loss = definitions["LinkFault"]["properties"]["loss"]
    assert "share" in loss["description"].lower()
    assert definitions["Scenario"]["properties"]["duration_s"]["exclusiveMinimum"] == 0
    assert set(LinkSettings.__struct_fields__) < set(definitions["LinkFault"]["properties"])
    assert not definitions["Scenario"]["additionalProperties"]


def test_the_scenarios_are_in_the_wheel(tmp_path: Path) -> None:
    """Whoever installs the package has all of them."""
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=root,
        check=True,
        capture_output=True,
        timeout=60,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {
            Path(name).stem for name in archive.namelist() if name.startswith("calllab/data/scenarios/")
        }
    assert set(BUILTIN) <= shipped
