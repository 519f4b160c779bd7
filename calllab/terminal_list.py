"""Lists of names with what they are, for a person at a terminal and for the next program in a pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Final

import click

__all__ = ["WIDE", "print_list", "terminal_width"]

WIDE: Final = 100
"""From so many columns on there is room for long names and for details."""
_NARROW_NAMES: Final = 24
_UNLIMITED: Final = 10_000


def terminal_width() -> int | None:
    """Return the width of standard output; None if it is no terminal: nothing is wrapped then."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_list(rows: Sequence[tuple[str, str]], width: int | None) -> None:
    """Print names and what they are beside them; what is long goes on in the same column."""
    is_wide = width is None or width >= WIDE
    # It keeps two columns free at the right, which lists of options need and these do not.
    formatter = click.HelpFormatter(width=_UNLIMITED if width is None else width + 2)
    formatter.write_dl(
        [(click.style(name, bold=True), text) for name, text in rows],
        col_max=_UNLIMITED if is_wide else _NARROW_NAMES,
    )
    click.echo(formatter.getvalue(), nl=False)
