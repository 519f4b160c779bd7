from __future__ import annotations

import json
from pathlib import Path

import pytest

from calllab.errors import InvalidSetting
from calllab.network import LinkSettings, profile, profiles
from calllab.network.link import Link

ROOT = Path(__file__).resolve().parents[2]


def test_a_profile_has_a_link_each_way() -> None:
    """A profile is looked up by name, and its two directions differ where the network's do."""
    lte = profile("lte-good")
    assert lte.up.rate_kbps == 10_000
    assert lte.down.rate_kbps == 30_000
    assert profile("clean").up == profile("clean").down == LinkSettings()


@pytest.mark.parametrize("name", profiles())
def test_every_profile_carries_datagrams_and_says_where_it_is_from(name: str) -> None:
    """Each one works as a link, and either names a source or admits that it has none."""
    each = profile(name)
    assert each.description.endswith(".")
    if each.source is None:
        assert name == "clean" or each.confidence in ("unverified", "synthetic")
    else:
        assert each.confidence in ("exact", "secondary", "derived")
    for settings in (each.up, each.down):
        link = Link(settings, seed=1)
        arrivals = [link.offer(index * 1.0, 500) for index in range(200)]
        assert sum(map(bool, arrivals)) >= 150


def test_an_unknown_name_is_refused_with_those_like_it() -> None:
    """A part of a name and a misspelt one both lead to names that there are."""
    with pytest.raises(InvalidSetting, match=r"no network profile 'lte': did you mean .*lte-good"):
        profile("lte")
    with pytest.raises(InvalidSetting, match="did you mean starlink"):
        profile("starlnik")
    with pytest.raises(InvalidSetting, match="no network profile 'qqq': there are apple-3g, "):
        profile("qqq")


def test_events_become_faults() -> None:
    """What happens once, and what happens again and again, is spelt out up to the end of a run."""
    assert list(profile("rmcat-variable").faults(50.0)) == [(40.0, 20.0, {"rate_kbps": 2500})]
    tunnels = list(profile("train-lte").faults(300.0))
    assert tunnels == [(120.0, 4.0, {"blackout": True}), (240.0, 4.0, {"blackout": True})]
    assert not list(profile("train-lte").faults(120.0))


def test_jitter_of_g1050_has_the_range_of_the_recommendation() -> None:
    """A uniform delay from 0 to 16 ms on top of 16 ms, by its mean and deviation."""
    core = profile("g1050-core-c").up
    assert core.delay_ms == 24.0
    assert core.jitter_ms * 12**0.5 == pytest.approx(16.0, rel=1e-3)
    link = Link(core.replace(loss=0.0), seed=2)
    delays_ms = [(link.offer(index * 1.0, 100)[0] - index) * 1000 for index in range(5000)]
    assert min(delays_ms) == pytest.approx(16.0, abs=0.1)
    assert max(delays_ms) == pytest.approx(32.0, abs=0.1)


def test_the_provenance_names_every_file_and_every_profile_without_a_source() -> None:
    """The README of the profiles is complete."""
    folder = ROOT / "data" / "profiles"
    readme = (folder / "README.md").read_text()
    for path in folder.glob("*.json"):
        assert f"`{path.name}`" in readme
        for each in json.loads(path.read_text()):
            if each["source"] is None:
                assert f"`{each['name']}`" in readme
