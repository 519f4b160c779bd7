"""The summary table says what the counters say."""

from __future__ import annotations

import pandas as pd
import pytest

from calllab.lab import Recording
from calllab.report import summarize
from calllab.report.summary import COLUMNS
from tests.report import helpers


def test_a_row_for_each_direction_and_track() -> None:
    """Each track that was received has one row, named by its sender and receiver."""
    table = summarize(helpers.example())
    assert list(zip(table["direction"], table["track"], strict=True)) == [
        ("alice → bob", "audio 0"),
        ("alice → bob", "video 1"),
        ("bob → alice", "audio 0"),
        ("bob → alice", "video 1"),
    ]
    assert list(table.columns) == list(COLUMNS)


def test_numbers_are_those_of_the_counters() -> None:
    """Loss, rates, gap and latency follow from the counters and the playout of the receiver."""
    table = summarize(helpers.example()).set_index(["direction", "track"])
    voice = table.loc[("alice → bob", "audio 0")]
    sent = helpers.PACKETS * helpers.SECONDS
    assert voice["packets"] == sent - 50
    assert voice["lost %"] == pytest.approx(100 * 50 / sent, abs=0.05)
    assert voice["kbit/s"] == helpers.BYTES * 8 / 1000
    assert voice["jitter ms"] == 4.0
    assert (voice["gap ms"], voice["latency ms"]) == (320, 100)
    face = table.loc[("bob → alice", "video 1")]
    assert (face["fps"], face["freezes"], face["lost %"]) == (15.0, 3.0, 0.0)


def test_round_trip_is_the_senders() -> None:
    """A direction has the round trip that its sender saw, as in the plot."""
    table = summarize(helpers.example()).set_index(["direction", "track"])
    assert table.loc[("alice → bob", "audio 0"), "RTT ms"] == helpers.RTT_S["alice"] * 1000
    assert table.loc[("bob → alice", "audio 0"), "RTT ms"] == helpers.RTT_S["bob"] * 1000


def test_round_trip_of_the_receiver_where_the_sender_was_not_recorded() -> None:
    """With one side alone, its own round trip stands for both."""
    rows = [row for row in helpers.stats_rows() if row["peer"] == "bob"]
    table = summarize(Recording.build(stats=rows, meta={"peers": {"alice": {}, "bob": {}}}))
    assert set(table["RTT ms"]) == {helpers.RTT_S["bob"] * 1000}


def test_what_does_not_apply_is_nan() -> None:
    """Audio has no frames and no freezes; what nobody played has no gap."""
    table = summarize(helpers.example()).set_index(["direction", "track"])
    voice = table.loc[("bob → alice", "audio 0")]
    for title in ("fps", "freezes", "gap ms", "latency ms"):
        assert pd.isna(voice[title]), title


def test_calls_are_told_apart() -> None:
    """A second call has its own rows, numbered in the order of time."""
    first = list(helpers.stats_rows())
    second = [{**row, "callId": "call-0", "t_s": row["t_s"] + 100} for row in first]
    table = summarize(Recording.build(stats=[*second, *first]))
    assert list(table["call"]) == [1] * 4 + [2] * 4


def test_an_empty_recording_has_an_empty_table_with_all_columns() -> None:
    """Nothing recorded is no error."""
    table = summarize(Recording.build())
    assert table.empty
    assert list(table.columns) == list(COLUMNS)
