"""Tables of measurements: for people, or as JSON lines."""

from __future__ import annotations

import functools
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Table", "benchmark"]


@dataclass
class Table:
    """Rows of named values; machines differ, so what counts are the ratios within one table."""

    title: str
    note: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def row(self, **values: Any) -> None:
        """Add a row, and tell on standard error that it is there."""
        self.rows.append(values)
        print(f"  {next(iter(values.values()))} ...", file=sys.stderr, flush=True)

    def text(self) -> str:
        """Return the table with aligned columns."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        cells = [names] + [["" if row.get(n) is None else str(row[n]) for n in names] for row in self.rows]
        widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
        lines = []
        for line in cells:
            first, rest = line[0].ljust(widths[0]), line[1:]
            lines.append("  ".join([first, *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]))
        note = [self.note] if self.note else []
        return "\n".join([self.title, *note, "", *lines, ""])


def benchmark(measure: Callable[[], list[Table]]) -> Callable[[], None]:
    """Make the main function of a benchmark: it measures, then prints tables, or JSON with ``--json``."""

    @functools.wraps(measure)
    def main() -> None:
        tables = measure()
        if "--json" in sys.argv[1:]:
            machine = {"python": platform.python_version(), "cpus": os.cpu_count()}
            for table in tables:
                print(json.dumps({"title": table.title, "machine": machine, "rows": table.rows}))
        else:
            for table in tables:
                print(table.text())

    return main
