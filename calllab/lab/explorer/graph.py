"""The graph of states that an exploration has found, and the cycles in it."""

from __future__ import annotations

from array import array
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["StateGraph"]

_ROOT: Final = -1

Numbers = npt.NDArray[np.int64]


class StateGraph:
    """States in the order in which breadth-first search found them, each with a shortest way to it.

    A state is given as a number of the caller's own (:meth:`add`) and known by its index from then on; states
    are expanded in the order of their indices, each once, by :meth:`begin` and then :meth:`edge` for each way
    out of it.
    """

    def __init__(self, start: int) -> None:
        self.states: list[int] = [start]
        self._indices: dict[int, int] = {start: 0}
        self._parents = array("q", [_ROOT])
        self._codes = array("q", [0])
        self._offsets = array("q")
        self._targets = array("q")

    def __len__(self) -> int:
        return len(self.states)

    @property
    def transitions(self) -> int:
        """How many ways from one state to another there are."""
        return len(self._targets)

    def begin(self) -> None:
        """Begin to add the ways out of the next state."""
        self._offsets.append(len(self._targets))

    def edge(self, parent: int, code: int, state: int) -> bool:
        """Add a way out; return whether it leads to a state that was not known."""
        index = self._indices.setdefault(state, len(self.states))
        self._targets.append(index)
        if index != len(self.states):
            return False
        self.states.append(state)
        self._parents.append(parent)
        self._codes.append(code)
        return True

    def path(self, index: int) -> list[int]:
        """Return the codes of a shortest way to a state."""
        codes: list[int] = []
        while self._parents[index] != _ROOT:
            codes.append(self._codes[index])
            index = self._parents[index]
        return codes[::-1]

    def depth(self) -> int:
        """Return how many steps the farthest state is away from the start."""
        depths = array("q", [0])
        for index in range(1, len(self._parents)):
            depths.append(depths[self._parents[index]] + 1)
        return max(depths)

    def cycle_entry(self) -> int | None:
        """Return the first state that was found on a cycle, None if there is no cycle.

        From such a state events can go on for ever without anything being achieved (a livelock).
        """
        remaining = self._on_or_between_cycles()
        for index in np.flatnonzero(remaining).tolist():
            if self._returns_to(index, remaining):
                return int(index)
        return None

    def _on_or_between_cycles(self) -> npt.NDArray[np.bool_]:
        """Peel off, again and again, the states that nothing leads to and those that lead nowhere."""
        count = len(self.states)
        offsets = np.full(count + 1, len(self._targets), dtype=np.int64)
        offsets[: len(self._offsets)] = np.frombuffer(self._offsets, dtype=np.int64)
        targets = np.frombuffer(self._targets, dtype=np.int64)
        sources = np.repeat(np.arange(count), np.diff(offsets))
        remaining = np.ones(count, dtype=np.bool_)
        _peel(remaining, sources, targets, offsets)
        order = np.argsort(targets, kind="stable")
        reverse_offsets = np.concatenate(([0], np.cumsum(np.bincount(targets, minlength=count))))
        _peel(remaining, targets[order], sources[order], reverse_offsets)
        return remaining

    def _returns_to(self, start: int, remaining: npt.NDArray[np.bool_]) -> bool:
        seen = {start}
        todo = [start]
        while todo:
            index = todo.pop()
            end = self._offsets[index + 1] if index + 1 < len(self._offsets) else len(self._targets)
            for target in self._targets[self._offsets[index] : end]:
                if target == start:
                    return True
                if remaining[target] and target not in seen:
                    seen.add(target)
                    todo.append(target)
        return False


def _peel(remaining: npt.NDArray[np.bool_], sources: Numbers, targets: Numbers, offsets: Numbers) -> None:
    """Take away the states that no remaining state leads to, until there are none."""
    alive = remaining[sources]
    degrees = np.bincount(targets[alive], minlength=len(remaining))
    frontier = np.flatnonzero(remaining & (degrees == 0))
    while frontier.size:
        remaining[frontier] = False
        counts = offsets[frontier + 1] - offsets[frontier]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        reached = targets[np.repeat(offsets[frontier], counts) + within]
        np.subtract.at(degrees, reached, 1)
        unique = np.unique(reached)
        frontier = unique[remaining[unique] & (degrees[unique] == 0)]
