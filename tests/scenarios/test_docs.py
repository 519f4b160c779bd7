"""What is written about scenarios is what they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec

from calllab.lab.scenario import Scenario, builtin_scenarios, scenario_from
from calllab.lab.scenario.actions import Action
from calllab.lab.scenario.expect import Expectations
from calllab.lab.scenario.text import parse_text

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scenarios.md").read_text()
TABLE = (ROOT / "data" / "scenarios" / "README.md").read_text()


def test_the_example_is_a_scenario() -> None:
    """The page begins with a file that can be run as it stands."""
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert scenario_from(parse_text(example)).faults[0].changes == {"loss": 0.08}


def test_every_member_and_action_is_on_the_page() -> None:
    """Nothing that a scenario can say is left out."""
    members = [
        field.encode_name for kind in (Scenario, Expectations) for field in msgspec.structs.fields(kind)
    ]
    actions = [kind.__struct_config__.tag for kind in get_args(Action)]
    missing = [name for name in (*members, *actions) if f"`{name}" not in PAGE]
    assert missing == []


def test_the_table_of_twins_names_scenarios_that_there_are() -> None:
    """Every scenario is in the folder's README, and every name there is a scenario."""
    names = set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", TABLE.partition("## What to tell apart")[2]))
    assert names == set(builtin_scenarios())
