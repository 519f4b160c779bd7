"""A live line chart for notebooks, drawn by the browser."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anywidget
import traitlets

__all__ = ["LiveChart", "Series"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Series:
    """One line of a chart; ``color`` is a CSS colour."""

    name: str
    color: str
    dashed: bool = False


class LiveChart(anywidget.AnyWidget):
    """Lines over the last ``window_s`` seconds.

    Python sends numbers, the browser draws: matplotlib on the event loop of a call would add tens of
    milliseconds of jitter to the very thing that is being watched.
    """

    _esm = _HERE / "chart.js"
    _css = _HERE / "chart.css"

    title = traitlets.Unicode().tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    window_s = traitlets.Float(60.0).tag(sync=True)
    series: Any = traitlets.List().tag(sync=True)
    points = traitlets.Dict().tag(sync=True)

    def __init__(self, title: str, unit: str, series: Sequence[Series], *, window_s: float = 60.0) -> None:
        # One point a second is usual; a faster caller gets a shorter window, never an endless one.
        self._points: dict[str, deque[tuple[float, float | None]]] = {
            line.name: deque(maxlen=int(2 * window_s)) for line in series
        }
        super().__init__(
            title=title, unit=unit, window_s=window_s, series=[asdict(line) for line in series], points={}
        )

    def add(self, t_s: float, values: Mapping[str, float | None]) -> None:
        """Add a point at ``t_s`` to each named line; None leaves a hole.  Unknown names raise KeyError."""
        for name, value in values.items():
            self._points[name].append((t_s, value))
        self._show()

    def clear(self) -> None:
        """Take all points away."""
        for points in self._points.values():
            points.clear()
        self._show()

    def _show(self) -> None:
        shown: dict[str, Any] = {
            name: [list(point) for point in points] for name, points in self._points.items()
        }
        self.points = shown
