"""The ladder of a trace shows each of its steps once, in words and as a picture."""

from __future__ import annotations

import io

import pytest

from calllab.lab.explorer import MUTANTS, Trace, Wishes, explore
from calllab.report.ladder_explore import ladder_of_trace, plot_trace
from calllab.report.ladder_text import text_ladder


def shortest(mutant: str) -> Trace:
    return explore(Wishes(adds=1), Wishes(adds=1), mutant=mutant, until_broken=True).breaks[0].trace


@pytest.mark.parametrize("mutant", MUTANTS)
def test_every_message_is_one_arrow_or_two(mutant: str) -> None:
    """One for each that was sent, another one for each copy."""
    trace = shortest(mutant)
    steps = trace.steps[trace.setup :]
    sent = sum(len(step.sent) for step in steps)
    copies = sum(step.action == "duplicate" for step in steps)
    arrows = ladder_of_trace(trace).arrows
    arrived_copies = sum(arrow.outcome == "again" for arrow in arrows)
    assert len(arrows) == sent + arrived_copies
    assert arrived_copies <= copies


def test_a_lost_message_is_shown_as_lost() -> None:
    """In the picture's model and in the text."""
    trace = shortest("dropped")
    assert [arrow.lost for arrow in ladder_of_trace(trace).arrows] == [True, False]
    assert "✗ lost" in text_ladder(trace)


def test_offers_that_crossed_are_glare() -> None:
    """And what the peers did about them is said."""
    trace = shortest("both-impolite")
    ladder = ladder_of_trace(trace)
    assert [arrow.glare for arrow in ladder.arrows if arrow.kind == "call-offer"] == [True, True]
    said = [mark.text for mark in ladder.marks]
    assert said.count("ignores the offer") == 2
    assert said.count("stays in have-local-offer") == 2


def test_the_text_is_what_happened() -> None:
    """Alice's doings are on the left, Bob's on the right, messages between them, each with its step."""
    assert text_ladder(shortest("without-rollback")).splitlines()[1:] == [
        "   1            addTransceiver │                                │",
        "   2         negotiationneeded │                                │",
        "   3           local offer set │                                │",
        "   4                           │── offer 1 ─▸                   │",
        "   5                           │                                │ addTransceiver",
        "   6                           │                                │ negotiationneeded",
        "   7                           │                                │ local offer set",
        "   8                           │                   ◂─ offer 2 ──│",
        "   9                           │                   ┄┄ offer 1 ─▸│",
        "  10                           │                                │ remote offer refused",
        "  11                           │                                │ InvalidStateError",
    ]


def test_the_set_up_is_not_shown() -> None:
    """Only what was explored, from step 1."""
    found = explore(Wishes(restarts=1), Wishes(), established=1)
    assert found.sample is not None
    lines = text_ladder(found.sample).splitlines()
    assert lines[1].split()[:2] == ["1", "restartIce"]
    assert min(arrow.sent_s for arrow in ladder_of_trace(found.sample).arrows) > 0


def test_the_picture_has_the_sentence() -> None:
    """The caption says what broke, as in the trace."""
    trace = shortest("duplicated")
    figure = plot_trace(trace)
    written = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert trace.sentence in written
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
