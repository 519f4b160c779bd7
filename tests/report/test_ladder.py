"""The ladder shows each message once, says what became of it, and shows glare as glare."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from calllab.lab import Recording
from calllab.report import plot_ladder
from calllab.report.ladder import MAX_STEPS
from calllab.report.ladder_model import Ladder, ladder_of
from tests.report import helpers
from tests.report.helpers import CALL, Row, event, message


def ladder(rows: Iterable[Row]) -> Ladder:
    return ladder_of(Recording.build(events=rows))


def texts(recording: Recording, call_id: str | None = None) -> list[str]:
    drawn = (text.get_text() for text in plot_ladder(recording, call_id).findobj(Text))
    return [text for text in drawn if text]


def test_crossing_offers_are_glare_and_others_are_not() -> None:
    """Offers of which each was sent before the other arrived are glare; the first offer is none."""
    offers = [arrow for arrow in ladder(helpers.glare_events()).arrows if arrow.kind == "call-offer"]
    assert [(offer.sender, offer.glare) for offer in offers] == [
        ("alice", False),
        ("alice", True),
        ("bob", True),
    ]


def test_offers_after_each_other_are_no_glare() -> None:
    """An offer that is sent after the other side's had arrived crosses nothing, in either order of peers."""
    for first, second in (("alice", "bob"), ("bob", "alice")):
        rows = [
            *message("call-offer", first, second, 1.0, 1.1, "1"),
            *message("call-offer", second, first, 1.2, 1.3, "1"),
        ]
        assert not any(arrow.glare for arrow in ladder(rows).arrows)


def test_the_ignored_offer_says_so() -> None:
    """In a crossing, the offer of the polite peer was ignored, the other one stands."""
    labels = [arrow.label for arrow in ladder(helpers.glare_events()).arrows if arrow.glare]
    assert labels == ["offer", "offer, ignored"]


def test_an_offer_taken_back_without_being_ignored_says_so() -> None:
    """A rollback of an offer that nobody ignored is told at that offer."""
    arrows = ladder(
        [*message("call-offer", "bob", "alice", 1.0, None, "b1"), event(1.1, "bob", "rollback")]
    ).arrows
    assert arrows[0].label == "offer, taken back"


def test_candidates_in_a_row_are_one_arrow() -> None:
    """Candidates of one sender are bundled until something else of it comes between, or time passes."""
    rows = [
        *message("call-ice-candidate", "alice", "bob", 1.00, 1.01, "1"),
        *message("call-ice-candidate", "bob", "alice", 1.01, 1.02, "2"),
        *message("call-ice-candidate", "alice", "bob", 1.02, 1.03, "3"),
        *message("call-answer", "alice", "bob", 1.04, 1.05, "4"),
        *message("call-ice-candidate", "alice", "bob", 1.06, 1.07, "5"),
        *message("call-ice-candidate", "alice", "bob", 9.00, 9.01, "6"),
    ]
    alices = [arrow.label for arrow in ladder(rows).arrows if arrow.sender == "alice"]
    assert alices == ["candidates ×2", "answer", "candidate", "candidate"]


def test_a_message_that_never_arrives_is_lost() -> None:
    """A message to somebody who was recorded and did not get it is drawn as lost."""
    rows = [
        event(0.5, "bob", "connectionstatechange", state="new"),
        *message("call-offer", "alice", "bob", 1.0, None, "1"),
    ]
    assert ladder(rows).arrows[0].lost
    assert "offer, lost" in texts(Recording.build(events=rows))


def test_nothing_is_lost_to_somebody_who_was_not_recorded() -> None:
    """A recording of one side shows both lifelines, and calls no message lost that it cannot know of."""
    rows = [row for row in helpers.glare_events() if row["peer"] == "alice"]
    seen = ladder(rows)
    assert set(seen.peers) == {"alice", "bob"}
    assert not any(arrow.lost for arrow in seen.arrows)
    assert {arrow.sender for arrow in seen.arrows} == {"alice", "bob"}


def test_what_arrives_twice_is_drawn_twice() -> None:
    """A duplicate on the wire is not hidden."""
    rows = message("call-offer", "alice", "bob", 1.0, 1.1, "1")
    labels = [arrow.label for arrow in ladder([*rows, {**rows[1], "t_s": 1.2}]).arrows]
    assert labels == ["offer", "offer, again"]


def test_idle_time_is_cut_and_said() -> None:
    """Where nothing happens, the seconds that are left out are written into the gap."""
    assert any("4.3 s" in text for text in texts(helpers.example()))


def test_an_hour_of_silence_costs_no_height() -> None:
    """A pause of an hour makes the picture no higher than a pause of a minute."""

    def height(pause_s: float) -> float:
        rows = [
            *message("call-offer", "alice", "bob", 0.0, 0.1, "1"),
            *message("call-hangup", "alice", "bob", pause_s, pause_s + 0.1, "2"),
        ]
        return float(plot_ladder(Recording.build(events=rows)).get_size_inches()[1])

    assert height(60.0) == height(3600.0)


def test_too_many_steps_are_counted_and_not_drawn() -> None:
    """A storm of messages has a picture of bounded height that says how much it leaves out."""
    rows = [
        row
        for n in range(MAX_STEPS + 50)
        for row in message("call-offer", "alice", "bob", n, n + 0.1, str(n))
    ]
    assert "50 later steps are not drawn" in texts(Recording.build(events=rows))


def test_the_first_call_unless_another_is_asked_for() -> None:
    """Without an id it is the first call; with one, that call alone."""
    later = [{**row, "callId": "call-2", "t_s": row["t_s"] + 60} for row in helpers.glare_events()]
    recording = Recording.build(events=[*later, *helpers.glare_events()])
    assert ladder_of(recording).call_id == CALL
    assert all(arrow.sent_s >= 60 for arrow in ladder_of(recording, "call-2").arrows)


def test_an_unknown_call_is_refused_with_the_known_ones() -> None:
    """The error names what was asked for and what there is."""
    with pytest.raises(LookupError, match=r"'nobody'.*call-1"):
        plot_ladder(helpers.example(), "nobody")


def test_a_recording_without_signaling_says_so() -> None:
    """No call: a picture with a sentence."""
    assert texts(Recording.build()) == ["no signaling of a call was recorded"]


NAMES = st.sampled_from(["alice", "bob", "carol"])
KINDS = st.sampled_from(["call-offer", "call-answer", "call-ice-candidate", "call-hangup"])
TIMES = st.integers(0, 3000).map(lambda ms: ms / 1000)


@given(st.lists(st.tuples(KINDS, NAMES, NAMES, TIMES, st.none() | TIMES), max_size=30))
def test_no_message_is_lost_from_the_picture(
    sent: list[tuple[str, str, str, float, float | None]],
) -> None:
    """Whatever is sent, in whatever order: each message is in exactly one arrow."""
    real = [one for one in sent if one[1] != one[2]]
    rows = [
        row
        for number, (kind, sender, receiver, sent_s, took_s) in enumerate(real)
        for row in message(
            kind, sender, receiver, sent_s, None if took_s is None else sent_s + took_s, str(number)
        )
    ]
    arrows = ladder(rows).arrows
    assert sum(arrow.count for arrow in arrows) == len(real)
    assert [arrow.sent_s for arrow in arrows] == sorted(arrow.sent_s for arrow in arrows)


def test_messages_side_by_side_are_one_arrow() -> None:
    """What leaves and arrives at the same moments is drawn once, with the words of all."""
    rows = [
        *message("call-offer", "alice", "bob", 0.0, 0.02, "a1"),
        *message("call-ice-candidate", "alice", "bob", 0.0, 0.02, "a2"),
    ]
    rows.sort(key=lambda row: float(row["t_s"]))
    words = [text.get_text() for text in plot_ladder(Recording.build(events=rows)).findobj(Text)]
    assert "offer + candidate" in words
    assert "offer" not in words
