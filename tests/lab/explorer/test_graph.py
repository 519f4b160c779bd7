"""The graph knows shortest ways and cycles, and channels keep what is on its way."""

from __future__ import annotations

import pytest

from calllab.errors import LabError
from calllab.lab.explorer import Wishes
from calllab.lab.explorer.channels import Channels
from calllab.lab.explorer.graph import StateGraph


def graph_of(edges: dict[str, str]) -> StateGraph:
    """Explore a graph whose states are letters, from ``a``; the code of an edge is its target."""
    graph = StateGraph(ord("a"))
    index = 0
    while index < len(graph):
        graph.begin()
        for target in edges.get(chr(graph.states[index]), ""):
            graph.edge(index, ord(target), ord(target))
        index += 1
    return graph


def index_of(graph: StateGraph, letter: str) -> int:
    return graph.states.index(ord(letter))


def test_a_path_is_a_shortest_one() -> None:
    """Of two ways to a state the one with fewer steps is told."""
    graph = graph_of({"a": "bc", "b": "d", "d": "e", "c": "e", "e": "f"})
    assert "".join(map(chr, graph.path(index_of(graph, "f")))) == "cef"
    assert graph.path(0) == []
    assert graph.depth() == 3
    assert graph.transitions == 6


def test_a_graph_without_cycles_has_none() -> None:
    """That several ways lead to one state is no cycle."""
    assert graph_of({"a": "bcd", "b": "d", "c": "d", "d": "e"}).cycle_entry() is None


@pytest.mark.parametrize(
    ("edges", "entry"),
    [
        ({"a": "a"}, "a"),
        ({"a": "b", "b": "cz", "c": "b"}, "b"),
        ({"a": "bx", "x": "y", "y": "c", "b": "z", "c": "d", "d": "c"}, "c"),
        ({"a": "b", "b": "bc", "c": "d", "d": "e", "e": "d"}, "b"),
    ],
)
def test_the_first_state_on_a_cycle_is_found(edges: dict[str, str], entry: str) -> None:
    """Not one that only leads to a cycle, or away from it, or lies between two."""
    graph = graph_of(edges)
    found = graph.cycle_entry()
    assert found is not None
    assert chr(graph.states[found]) == entry


def test_an_ordered_channel_gives_its_oldest_message() -> None:
    """What was sent first is the only one that may be taken."""
    channels = Channels(ordered=True)
    channel = channels.push(channels.push(0, (7,)), (8, 9))
    ((position, message, rest),) = channels.waiting(channel)
    assert (position, message, channels.content(rest)) == (0, 7, (8, 9))
    assert channels.waiting(0) == ()


def test_an_unordered_channel_gives_any_message_once() -> None:
    """Equal messages are one choice."""
    channels = Channels(ordered=False)
    channel = channels.push(0, (7, 8, 7))
    assert [(one.message, channels.content(one.rest)) for one in channels.waiting(channel)] == [
        (7, (8, 7)),
        (8, (7, 7)),
    ]


def test_wishes_are_written_as_text() -> None:
    """What is not named is not wished."""
    assert Wishes.parse("adds=2, restarts=1") == Wishes(adds=2, restarts=1)
    assert Wishes.parse("restarts=3") == Wishes(restarts=3)
    assert Wishes.parse("") == Wishes()


@pytest.mark.parametrize("text", ["adds", "adds=x", "stops=1", "adds=-1", "adds=10"])
def test_what_is_no_wish_is_refused(text: str) -> None:
    """With a sentence that names it."""
    with pytest.raises(LabError, match=text.split("=")[0]):
        Wishes.parse(text)
