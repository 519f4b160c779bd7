"""Figures show in a notebook, once, and draw any text as it is."""

from __future__ import annotations

import struct
import warnings

import matplotlib as mpl
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib._pylab_helpers import Gcf
from matplotlib.figure import Figure

from calllab.report import plot_ladder, plot_quality
from calllab.report.figure import ReportFigure, plain
from tests.report import helpers


@pytest.mark.parametrize("plot", [plot_quality, plot_ladder])
def test_a_figure_is_an_image_for_ipython(plot: object) -> None:
    """The last expression of a cell becomes one PNG, without any magic before."""
    assert callable(plot)
    data, metadata = DisplayFormatter().format(plot(helpers.example()))
    assert set(data) == {"text/plain", "image/png"}
    width, height = struct.unpack(">II", data["image/png"][16:24])
    assert (width, height) == (
        pytest.approx(2 * metadata["image/png"]["width"], abs=2),
        pytest.approx(2 * metadata["image/png"]["height"], abs=2),
    )


def test_pyplot_knows_nothing_of_a_figure() -> None:
    """No figure is registered: nothing shows twice and nothing has to be closed."""
    figure = plot_ladder(helpers.example())
    assert isinstance(figure, Figure)
    assert not Gcf.figs


def test_the_inline_magic_shows_a_figure_once() -> None:
    """With the formatter of ``%matplotlib inline`` there is one PNG, too."""
    from IPython.core.pylabtools import print_figure

    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(Figure, lambda figure: print_figure(figure, base64=True))
    data, _ = formatter.format(plot_ladder(helpers.example()))
    assert set(data) == {"text/plain", "image/png"}


@pytest.mark.parametrize(
    "text", ["$\\frac$", "a$b$c$", "\\$", "🐈 名", "line\nbreak", "\x00\x07", "{}%s", "_^&", ""]
)
def test_any_text_is_drawn_as_it_is(text: str) -> None:
    """Neither formulas nor missing glyphs nor control characters raise or warn."""
    figure = ReportFigure(2, 1)
    drawn = figure.text(0.1, 0.5, plain(text))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    assert "\n" not in drawn.get_text()


def test_long_text_is_cut() -> None:
    """A name of a megabyte has the width of any other."""
    assert plain("x" * 1_000_000, 10) == "x" * 9 + "…"


def test_drawing_leaves_the_settings_of_matplotlib_alone() -> None:
    """A report changes no global setting."""
    before = dict(mpl.rcParams)
    plot_quality(helpers.example())
    assert dict(mpl.rcParams) == before
