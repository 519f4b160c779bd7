"""The ladder of a trace that an exploration has found: its steps in order, one row each."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.figure import Figure

from calllab.lab.explorer import PEERS, Step, Trace
from calllab.report.ladder import draw_ladder
from calllab.report.ladder_model import Arrow, Ladder, Mark, crossed
from calllab.report.ladder_text import step_words

__all__ = ["ladder_of_trace", "plot_trace"]


def plot_trace(trace: Trace) -> Figure:
    """Draw a trace as a ladder, offers that crossed in red; the numbers are those of its steps."""
    return draw_ladder(ladder_of_trace(trace), in_steps=True, caption=trace.sentence)


def ladder_of_trace(trace: Trace) -> Ladder:
    """Return the ladder of a trace, without its set-up; its moments are the numbers of the steps."""
    steps = trace.steps[trace.setup :]
    end = len(steps) + 1.0
    marks = [
        Mark(step.peer, float(number), words, glare=_is_glare(step), state="failed" if _fails(step) else "")
        for number, step in enumerate(steps, start=1)
        if (words := step_words(step))
    ]
    marks += [
        Mark(name, end, f"stays in {peer.signaling}", state="failed")
        for name, peer in trace.end.items()
        if trace.kind == "deadlock" and peer.signaling != "stable"
    ]
    return Ladder(None, PEERS, tuple(_arrows(steps, end)), tuple(marks))


def _is_glare(step: Step) -> bool:
    return step.note != "" and step.action != "resolve"


def _fails(step: Step) -> bool:
    return step.action == "resolve" and ": " in step.what and not step.note


def _arrows(steps: tuple[Step, ...], end: float) -> list[Arrow]:
    arrows: list[Arrow] = []
    sent: dict[int, tuple[str, str, float]] = {}
    ended: set[int] = set()
    for number, step in enumerate(steps, start=1):
        for message in step.sent:
            sent[message.number] = (message.kind, step.peer, float(number))
        if step.message is None or step.message not in sent:
            continue
        kind, sender, sent_s = sent[step.message]
        received_s = None if step.action == "drop" else float(number)
        outcome = "again" if step.message in ended else ""
        arrows.append(Arrow(_type(kind), sender, step.peer, sent_s, received_s, outcome=outcome))
        ended.add(step.message)
        if step.action == "duplicate":  # the copy leaves the network, not its sender
            sent[step.message] = (kind, sender, float(number))
    arrows += [
        Arrow(_type(kind), sender, _other(sender), sent_s, end, outcome="on its way")
        for number, (kind, sender, sent_s) in sent.items()
        if number not in ended
    ]
    offers = [arrow for arrow in arrows if arrow.kind == "call-offer"]
    return sorted(
        (
            replace(arrow, glare=arrow in offers and any(crossed(arrow, other) for other in offers))
            for arrow in arrows
        ),
        key=lambda arrow: arrow.sent_s,
    )


def _type(kind: str) -> str:
    return "call-ice-candidate" if kind == "candidate" else f"call-{kind}"


def _other(name: str) -> str:
    return PEERS[1] if name == PEERS[0] else PEERS[0]
