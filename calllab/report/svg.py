"""Figures as SVG elements inside a page, in the colours of the page."""

from __future__ import annotations

import io
import re
from typing import Final

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

from calllab.report.palette import THEMED

__all__ = ["inline_svg"]

_PROLOGUE: Final = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_NOTES: Final = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
_IDS: Final = re.compile(r'(?<= id=")[^"]+|(?<=href="#)[^"]+|(?<=url\(#)[^)]+')


def inline_svg(figure: Figure, name: str, title: str) -> Markup:
    """Return a figure as an SVG element that takes the width of its parent and the colours of the theme.

    Text is drawn as paths, so that nothing of a recording is left in it as markup.

    :param name: what its ids begin with; it must be the only one of that name on the page.
    """
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "calllab", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = _NOTES.sub("", _PROLOGUE.sub("", buffer.getvalue(), count=1))
    head, rest = text.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    text = f'{head} role="img" aria-label="{escape(title)}">{rest}'
    # The ids of matplotlib are hashes of all the digits of a layout, and its solver is not sure of the last.
    numbers: dict[str, int] = {}
    text = _IDS.sub(lambda found: f"{name}-{numbers.setdefault(found[0], len(numbers))}", text)
    for color, variable in THEMED.items():
        text = text.replace(f": {color}", f": var({variable})")
    return Markup(text)
