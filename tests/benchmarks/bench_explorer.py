"""How long it takes to explore every order of events in which two peers negotiate.

``python -m tests.benchmarks.bench_explorer [--json]``.  It is single-threaded: processor time is what counts.
"""

from __future__ import annotations

import time

from calllab.lab.explorer import Wishes, explore
from tests.benchmarks.table import Table, benchmark

CASES = {
    "1 + 1 additions": (Wishes(adds=1), Wishes(adds=1), 0),
    "2 + 1 additions": (Wishes(adds=2), Wishes(adds=1), 0),
    "2 + 2 additions": (Wishes(adds=2), Wishes(adds=2), 0),
    "1 + 1 restarts of a call": (Wishes(restarts=1), Wishes(restarts=1), 1),
    "1 + 1 additions and restarts": (Wishes(adds=1, restarts=1), Wishes(adds=1, restarts=1), 0),
}


@benchmark
def main() -> list[Table]:
    """Measure all cases."""
    table = Table(
        "Exhaustive exploration, with one candidate in each ICE generation",
        "computed: operations of the JSEP core that were carried out, the others were known",
    )
    for name, (alice, bob, established) in CASES.items():
        begun_s = time.process_time()
        found = explore(alice, bob, established=established)
        cpu_s = time.process_time() - begun_s
        table.row(
            case=name,
            states=found.states,
            transitions=found.transitions,
            ends=found.finals,
            depth=found.depth,
            computed=found.operations,
            holds=found.holds,
            cpu_s=round(cpu_s, 1),
        )
    return [table]


if __name__ == "__main__":
    main()
