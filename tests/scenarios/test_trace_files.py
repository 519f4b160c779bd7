"""Traces that scenarios name by file: read from beside the scenario, and from nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from calllab.errors import ScenarioError
from calllab.lab.scenario import load_scenario, run_scenario, scenario_from
from tests.scenarios.helpers import plain

STEADY = "".join(f"{at}\n" for at in range(120, 12_001, 120))  # 100 kbit/s


def written(folder: Path, **changes: object) -> Path:
    """Write a scenario and a trace into a folder."""
    folder.mkdir()
    (folder / "steady.trace").write_text(STEADY)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(plain(**changes)))
    return path


def fault(name: object, **more: object) -> list[dict[str, object]]:
    return [{"direction": "alice->bob", "trace_file": name, **more}]


def test_a_scenario_finds_its_trace_beside_itself(tmp_path: Path) -> None:
    """Wherever a link is described; the run is limited by it, with CoDel, and the truth says so."""
    path = written(
        tmp_path / "s",
        duration_s=4,
        peers={"alice": {"link": {"trace_file": "steady.trace"}}, "bob": {}},
        faults=fault("./steady.trace", queue_discipline="codel", queue_packets=5, at_s=1),
        network={"routes": [{"from": "bob", "to": "alice", "trace_file": "steady.trace"}]},
        codecs="stand-in",
    )
    scenario = load_scenario(path)
    text = scenario.faults[0].changes["trace"]
    assert text.startswith("120 240 360")
    assert scenario.network.routes[0].changes == {"trace": text}
    assert load_scenario(path, overrides=["network.link.trace_file=steady.trace"]).network.link is not None
    truth = run_scenario(scenario).truth()
    assert "bandwidth-cap" in str(truth)
    with pytest.raises(ScenarioError, match=r"faults\[0\].trace_file: a scenario that is no file"):
        scenario_from(plain(faults=fault("steady.trace")))


def test_what_lies_elsewhere_is_not_read(tmp_path: Path) -> None:
    """Absolute paths, ways up, links out of the folder, folders, and what is no trace are refused."""
    path = written(tmp_path / "s")
    (tmp_path / "outside.trace").write_text("5\n")
    (tmp_path / "s" / "link").symlink_to(tmp_path / "outside.trace")
    for name, sentence in {
        "../outside.trace": "leaves the folder",
        str(tmp_path / "outside.trace"): "leaves the folder",
        "link": "leaves the folder",
        ".": "no regular file",
        "missing": "cannot be read: No such file",
        "mine.yaml": "is no time|other things",
        "nul\0": "is no path",
        7: "expected text",
    }.items():
        path.write_text(yaml.safe_dump(plain(faults=fault(name))))
        with pytest.raises(ScenarioError, match=sentence):
            load_scenario(path)
    path.write_text(yaml.safe_dump(plain(faults=fault("steady.trace", trace="5"))))
    with pytest.raises(ScenarioError, match="give one of the two"):
        load_scenario(path)


def test_traces_of_one_scenario_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each counts as often as it is named."""
    monkeypatch.setattr("calllab.lab.scenario.trace_files.MAX_TEXT_BYTES", int(2.5 * len(STEADY)))
    thrice = [entry for _ in range(3) for entry in fault("steady.trace")]
    path = written(tmp_path / "s", faults=thrice)
    with pytest.raises(ScenarioError, match=r"faults\[2\].trace_file: expected at most"):
        load_scenario(path)
