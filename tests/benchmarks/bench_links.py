"""How many datagrams a second one core takes through a link, stage by stage.

``python -m tests.benchmarks.bench_links [--json]``.  Each link is offered the same datagrams, in turns with
the clean one, and the best of several rounds counts; the ratios are to the clean link of the same run.
"""

from __future__ import annotations

import gc
import time
from typing import Final

from calllab.network import Link, LinkSettings
from tests.benchmarks.table import Table, benchmark

DATAGRAMS: Final = 40_000
ROUNDS: Final = 7
SIZE: Final = 1000
SPACING_S: Final = 0.004
"""2.06 Mbit/s with headers: a little over what the limited links carry, so that queues fill."""

RATE: Final = LinkSettings(rate_kbps=2000)
ALL: Final = LinkSettings(
    loss=0.02,
    loss_burst=3,
    delay_ms=40,
    jitter_ms=5,
    reorder=0.01,
    duplicate=0.01,
    rate_kbps=2000,
    queue_packets=200,
)
TRACE: Final = " ".join(str(at) for at in range(6, 6000, 6))

LINKS: Final[dict[str, LinkSettings]] = {
    "clean": LinkSettings(),
    "delay": LinkSettings(delay_ms=40),
    "jitter": LinkSettings(delay_ms=40, jitter_ms=5),
    "jitter, correlated": LinkSettings(delay_ms=40, jitter_ms=5, jitter_correlation=0.7),
    "loss": LinkSettings(loss=0.02),
    "loss in bursts": LinkSettings(loss=0.02, loss_burst=3),
    "loss by blocks": LinkSettings(loss=0.02, loss_block=100),
    "reorder": LinkSettings(delay_ms=40, reorder=0.01),
    "duplicate": LinkSettings(duplicate=0.01),
    "rate": RATE,
    "rate, token bucket": RATE.replace(burst_bytes=5000),
    "rate, CoDel": RATE.replace(queue_discipline="codel"),
    "trace": LinkSettings(trace=TRACE),
    "trace, CoDel": LinkSettings(trace=TRACE, queue_discipline="codel"),
    "everything but CoDel": ALL,
    "everything": ALL.replace(queue_discipline="codel", jitter_correlation=0.7),
}
GOALS: Final = {"everything but CoDel": 0.5, "everything": 0.35}


def seconds(settings: LinkSettings) -> float:
    """Return the processor time that a link takes for all datagrams."""
    offer = Link(settings, seed=1).offer
    times = [index * SPACING_S for index in range(DATAGRAMS)]
    gc.collect()
    begin = time.process_time()
    for at in times:
        offer(at, SIZE)
    return time.process_time() - begin


def measure() -> list[Table]:
    """Measure all links."""
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, settings in LINKS.items():
            best[name] = min(seconds(settings), best.get(name, 1e9))
    table = Table("Links, one core", f"{DATAGRAMS} datagrams of {SIZE} bytes, best of {ROUNDS} rounds")
    for name, took in best.items():
        table.row(
            link=name,
            datagrams_per_s=round(DATAGRAMS / took),
            ratio=round(best["clean"] / took, 3),
            goal=GOALS.get(name),
        )
    return [table]


main = benchmark(measure)

if __name__ == "__main__":
    main()
