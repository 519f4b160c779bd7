"""Figures that show themselves in a notebook, and text that is safe to draw."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from calllab.report.palette import PAPER

__all__ = ["ReportFigure", "plain"]

DPI: Final = 110
# Screens have more pixels than they say: pictures are drawn finer than they are shown.
_OVERSAMPLING: Final = 2


class ReportFigure(Figure):
    """A figure without pyplot: nothing is registered anywhere, nothing has to be closed.

    As the last expression of a cell it shows once, with or without ``%matplotlib inline``: pyplot does not
    know it and cannot show it again, and the formatter of that magic takes the place of this class's own.
    """

    def __init__(self, width_in: float, height_in: float, *, layout: Any = None) -> None:
        super().__init__(figsize=(width_in, height_in), dpi=DPI, layout=layout, facecolor=PAPER)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI * _OVERSAMPLING)
        width_in, height_in = self.get_size_inches()
        return buffer.getvalue(), {"width": round(width_in * DPI), "height": round(height_in * DPI)}


def plain(value: object, limit: int = 40) -> str:
    """Return ``value`` as text that is drawn as it is: on one line, not as a formula, with glyphs that exist.

    What is longer than ``limit`` characters is cut off with an ellipsis.
    """
    text = str(value)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    known = _glyphs()
    shown = (character if ord(character) in known and character.isprintable() else "□" for character in text)
    return "".join(shown).replace("$", r"\$")


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())
