"""The ladder of a trace as text, for a terminal: what each peer does on its side, messages between them."""

from __future__ import annotations

from typing import Final

from calllab.lab.explorer import PEERS, Step, Trace

__all__ = ["step_words", "text_ladder"]

_SIDE: Final = 25
_MIDDLE: Final = 32


def text_ladder(trace: Trace) -> str:
    """Return a trace as lines of text, without its set-up; the numbers are those of its steps.

    A message is a whole arrow if it arrives in the very next step, else there is half an arrow where it is
    sent and another one where it arrives, both with the message's number.
    """
    steps = trace.steps[trace.setup :]
    lines = [f"{'':4} {PEERS[0]:>{_SIDE}} {'':{_MIDDLE + 2}} {PEERS[1]}"]
    number = 0
    while number < len(steps):
        step, following = steps[number], steps[number + 1] if number + 1 < len(steps) else None
        at_once = (
            following is not None
            and [message.number for message in step.sent] == [following.message]
            and following.action in ("deliver", "drop")
        )
        if at_once and following is not None:
            number += 1
            lines.append(_line(number + 1, following.peer, _whole(following), step_words(following)))
        else:
            lines += _lines(number + 1, step)
        number += 1
    lines += [
        _line(len(steps), name, "", f"stays in {end.signaling}")
        for name, end in trace.end.items()
        if end.signaling != "stable" and trace.kind == "deadlock"
    ]
    return "\n".join(line.rstrip() for line in lines)


def step_words(step: Step) -> str:
    """Return what a peer does in a step as a few words; nothing if an arrow says it."""
    name, _, error = step.what.partition(": ")
    called, _, type_ = name.partition("(")
    side = "local" if called == "setLocalDescription" else "remote"
    described = f"{side} {type_.removesuffix(')')}" if type_ else "candidate"
    match step.action:
        case "effect" if error:
            return f"{described} refused"
        case "effect" if step.note:
            return "rolls back its own offer"
        case "effect":
            return f"{described} set" if type_ else "candidate added"
        case "resolve":
            return "" if step.note else error
        case "deliver" | "duplicate":
            return "ignores the offer" if step.note else ""
        case "trickle" | "drop":
            return ""
        case _:
            return step.what


def _lines(number: int, step: Step) -> list[str]:
    lines: list[str] = []
    if step.message is not None:
        lines.append(_line(number, step.peer, _half_in(step), step_words(step)))
    elif words := step_words(step):
        lines.append(_line(number, step.peer, "", words))
    for message in step.sent:
        label = f" {message.kind} {message.number + 1} "
        middle = f"──{label}─▸" if step.peer == PEERS[0] else f"◂─{label}──".rjust(_MIDDLE)
        lines.append(_line(number, step.peer, middle, ""))
    return lines


def _line(number: int, peer: str, middle: str, words: str) -> str:
    left, right = (words, "") if peer == PEERS[0] else ("", words)
    return f"{number:>4} {left:>{_SIDE}} │{middle:{_MIDDLE}}│ {right}"


def _whole(step: Step) -> str:
    """Return the arrow of a message that arrives, or gets lost, at once."""
    label = f" {step.what} {(step.message or 0) + 1} "
    if step.action == "drop":
        half = f"──{label}─✗ lost" if step.peer == PEERS[1] else f"lost ✗─{label}──"
        return half if step.peer == PEERS[1] else half.rjust(_MIDDLE)
    if step.peer == PEERS[1]:
        return f"──{label}".ljust(_MIDDLE - 1, "─") + "▸"
    return "◂" + f"{label}──".rjust(_MIDDLE - 1, "─")


def _half_in(step: Step) -> str:
    """Return the half arrow of a message that arrives, or gets lost, some steps after it was sent."""
    label = f" {step.what} {(step.message or 0) + 1} "
    if step.action == "drop":
        label += "✗ lost "
    if step.peer == PEERS[1]:
        return (f"┄┄{label}" + ("" if step.action == "drop" else "─▸")).rjust(_MIDDLE)
    return ("" if step.action == "drop" else "◂─") + f"{label}┄┄"
