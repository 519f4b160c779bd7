"""A slider that works while a cell runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import anywidget
import traitlets

__all__ = ["LiveSlider"]

_HERE = Path(__file__).parent


class LiveSlider(anywidget.AnyWidget):
    """A number between ``min`` and ``max``; observe ``value``.

    Its movements arrive as messages of their own: the front end holds back the state of ordinary widgets
    until the kernel is idle, which it is not while a cell awaits something.
    """

    _esm = _HERE / "slider.js"
    _css = _HERE / "slider.css"

    label = traitlets.Unicode().tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    min = traitlets.Float(0.0).tag(sync=True)
    max = traitlets.Float(100.0).tag(sync=True)
    step = traitlets.Float(1.0).tag(sync=True)
    value = traitlets.Float(0.0).tag(sync=True)

    def __init__(self, label: str, unit: str, *, max: float, step: float) -> None:
        super().__init__(label=label, unit=unit, max=max, step=step)
        self.on_msg(self._moved)

    def _moved(self, _: Any, content: Any, buffers: Any) -> None:
        value = content.get("value") if isinstance(content, dict) else None
        if isinstance(value, int | float) and math.isfinite(value):
            self.value = min(self.max, max(self.min, float(value)))
