"""Whether a call is the same call in all three settings: virtual time, real clock, real sockets.

``python -m tests.benchmarks.bench_settings [--json]`` (about five minutes).  The same seeds over the same
link: 50 ms one way, 5 % loss, sound and a picture of 320 x 240 at 15/s, for 15 s.  What chance decides on the
link follows from the seed and the number of a datagram, so the settings differ by timing alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import mean, stdev
from typing import Any

from calllab.network import LinkSettings, simulate
from tests.benchmarks.table import Table, benchmark
from tests.network.virtual_call import call

SEEDS = range(20)
LONG_S = 15.0
LINK = LinkSettings(delay_ms=50, loss=0.05)
SETTINGS = ("virtual time", "virtual network, real clock", "real sockets")
AT_A_TIME = 2

MEASURES = {
    "audio sent": ("outbound-rtp", "audio", "packetsSent"),
    "audio received": ("inbound-rtp", "audio", "packetsReceived"),
    "audio lost": ("inbound-rtp", "audio", "packetsLost"),
    "video sent": ("outbound-rtp", "video", "packetsSent"),
    "video received": ("inbound-rtp", "video", "packetsReceived"),
    "video lost": ("inbound-rtp", "video", "packetsLost"),
    "retransmitted": ("outbound-rtp", "video", "retransmittedPacketsSent"),
    "round trip (ms)": ("remote-inbound-rtp", "audio", "roundTripTime"),
    "audio jitter (ms)": ("inbound-rtp", "audio", "jitter"),
    "frames decoded": ("inbound-rtp", "video", "framesDecoded"),
}


def one(setting: str, seed: int) -> dict[str, float]:
    """Make one call and return what was measured, the mean of both ends."""
    result = simulate(
        lambda: call(seed, LINK, LONG_S, sockets=setting == "real sockets", picture=(320, 240, 15.0)),
        clock="virtual" if setting == "virtual time" else "real",
        seed=seed,
    )
    values = {}
    for name, (type_, kind, member) in MEASURES.items():
        found = [
            entry[member] * (1000 if "(ms)" in name else 1)
            for report in result["statistics"]
            for entry in report.values()
            if entry["type"] == type_ and entry["kind"] == kind and member in entry
        ]
        values[name] = mean(found) if found else float("nan")
    return values


def in_processes(setting: str) -> Iterator[dict[str, Any]]:
    """Make the calls of all seeds, a few at a time, each in a process of its own."""
    waiting = list(SEEDS)
    while waiting:
        batch, waiting = waiting[:AT_A_TIME], waiting[AT_A_TIME:]
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.bench_settings", "--one", setting, str(seed)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for seed in batch
        ]
        for process in running:
            printed, _ = process.communicate(timeout=LONG_S + 60)
            if process.returncode:
                raise RuntimeError(f"a call in the setting {setting!r} failed")
            yield json.loads(printed)


@benchmark
def main() -> list[Table]:
    """Measure all settings."""
    table = Table(
        f"The same {len(SEEDS)} calls in three settings",
        "mean ± standard deviation over the seeds, per end of a call",
    )
    measured = {setting: list(in_processes(setting)) for setting in SETTINGS}
    for name in MEASURES:
        row: dict[str, Any] = {"measure": name}
        for setting in SETTINGS:
            values = [result[name] for result in measured[setting]]
            row[setting] = f"{mean(values):.1f} ± {stdev(values):.1f}"
        table.row(**row)
    return [table]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
