from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from calllab.errors import InvalidSetting, LabError
from calllab.network import LinkSettings, causes_of, gilbert, gilbert_elliott
from calllab.network.settings import fault_members


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", -0.1),
        ("loss", 8),
        ("loss", math.nan),
        ("loss", True),
        ("loss", "0.1"),
        ("loss", None),
        ("delay_ms", -1),
        ("delay_ms", math.inf),
        ("jitter_correlation", 1.0),
        ("rate_kbps", 0),
        ("queue_bytes", 1000.5),
        ("queue_packets", 0),
        ("loss_block", 1),
        ("loss_block", 10.0),
        ("codel_target_ms", 0),
        ("codel_interval_ms", None),
        ("queue_discipline", "red"),
        ("blackout", 1),
        ("jitter_distribution", "gaussian"),
    ],
)
def test_bad_values_are_refused_by_name(name: str, value: Any) -> None:
    """A value out of range is refused with a sentence that names the setting and the value."""
    with pytest.raises(InvalidSetting, match=f"{name}={value!r}: give "):
        LinkSettings(**{name: value})


def test_unknown_setting_is_refused_with_the_known_ones() -> None:
    """A misspelt setting is refused, and the message lists what there is."""
    with pytest.raises(InvalidSetting, match=r"no such link setting: delay; there are .*delay_ms"):
        LinkSettings().replace(delay=100)


def test_errors_are_of_the_laboratory_and_value_errors() -> None:
    """What a notebook catches as LabError, and what Python calls ValueError, is the same."""
    with pytest.raises(LabError):
        LinkSettings(loss=2)
    with pytest.raises(ValueError, match="loss=2"):
        LinkSettings(loss=2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loss": 0.9, "loss_burst": 3}, "at least 9 datagrams"),
        ({"loss": 0.5, "loss_burst": 9, "loss_bad": 0.4}, r"below loss_bad=0\.4"),
        ({"loss": 1.0, "loss_burst": 3}, "below loss_bad=1"),
        ({"loss_bad": 0.5, "loss": 0.1}, "give loss_burst too"),
        ({"loss": 0.1, "loss_burst": 3, "loss_block": 20}, "loss_block with loss_burst"),
        ({"loss": 0.01, "loss_block": 20}, r"loss=0\.01 of loss_block=20 datagrams rounds to none"),
    ],
)
def test_impossible_bursts_are_refused(changes: dict[str, Any], sentence: str) -> None:
    """A mean loss that no chain of the given bursts can have is refused, with what would do."""
    with pytest.raises(InvalidSetting, match=sentence):
        LinkSettings(**changes)


def test_gilbert_elliott_is_the_same_model_from_its_transitions() -> None:
    """The transition probabilities come back from mean loss and burst."""
    p, r = 0.02, 0.25
    settings = gilbert_elliott(p, r, loss_good=0.001, loss_bad=0.8)
    assert settings.loss_burst == pytest.approx(1 / r)
    assert settings.bad_share == pytest.approx(p / (p + r))
    assert settings.loss == pytest.approx((0.001 * r + 0.8 * p) / (p + r))
    with pytest.raises(InvalidSetting, match="p=0: give a probability"):
        gilbert_elliott(0, 0.5)


def test_every_transition_pair_makes_valid_settings() -> None:
    """Rounding never turns a valid chain into refused settings."""
    for p in (1e-6, 0.1, 0.5, 0.999, 1.0):
        for r in (1e-5, 0.3, 0.7, 1.0):
            assert gilbert_elliott(p, r).bad_share == pytest.approx(p / (p + r))


def test_settings_survive_json() -> None:
    """Settings pass through JSON unchanged, and a bad member in it is refused."""
    settings = gilbert(0.05, 4).replace(delay_ms=20, rate_kbps=500.0)
    assert msgspec.json.decode(msgspec.json.encode(settings), type=LinkSettings) == settings
    with pytest.raises(msgspec.ValidationError, match="loss=3"):
        msgspec.json.decode(b'{"loss": 3}', type=LinkSettings)


def test_changes_name_what_differs_from_a_clean_link() -> None:
    """Changes are what was set, and make the same settings again."""
    settings = LinkSettings(loss=0.02, delay_ms=40)
    assert settings.changes() == {"loss": 0.02, "delay_ms": 40}
    assert LinkSettings(**settings.changes()) == settings
    assert LinkSettings().is_clean
    assert not settings.is_clean


def test_causes_are_in_the_words_of_a_diagnosis() -> None:
    """Each impairment has its name, and details alone have none."""
    assert causes_of({"loss": 0.1}) == ("loss-uniform",)
    assert causes_of({"loss": 0.1, "loss_burst": 3}) == ("loss-burst",)
    assert causes_of({"blackout": True, "delay_ms": 5, "rate_kbps": 100}) == (
        "blackout",
        "delay",
        "bandwidth-cap",
    )
    assert causes_of({"jitter_ms": 5, "reorder": 0.1, "duplicate": 0.1}) == (
        "jitter",
        "reordering",
        "duplication",
    )
    assert causes_of({"queue_bytes": 5000, "loss": 0.0}) == ()


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, math.inf),
        ({"rate_kbps": 8000}, 300_000),
        ({"rate_kbps": 8}, 15_000),
        ({"rate_kbps": 8000, "queue_packets": 50}, math.inf),
        ({"rate_kbps": 8000, "queue_packets": 50, "queue_bytes": 9000}, 9000),
    ],
)
def test_a_queue_has_a_limit_of_bytes_unless_its_packets_are_counted(
    changes: dict[str, Any], limit: float
) -> None:
    """The default is a time at the rate, and gives way to either limit that is named."""
    assert LinkSettings(**changes).queue_limit_bytes == pytest.approx(limit)


def test_a_fault_of_a_rate_takes_the_place_of_a_trace() -> None:
    """Rate and trace are governed together, so that faults of both kinds may overlap."""
    members = fault_members({"rate_kbps": 300, "queue_discipline": "codel"})
    base = LinkSettings(trace="5", queue_packets=7)
    over = base.replace(**members)
    assert (over.rate_kbps, over.trace, over.queue_packets) == (300, None, None)
    back = over.replace(**fault_members({"trace": "8"}))
    assert (back.rate_kbps, back.trace, back.queue_discipline) == (None, "8", "drop-tail")
    with pytest.raises(InvalidSetting, match="names queue_packets must name rate_kbps or trace too"):
        fault_members({"queue_packets": 7})
