"""Running a scenario in this process, on a clock and a network of one's choice."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from calllab.lab.kinds import ClockKind, NetworkKind
from calllab.lab.recording import Recording
from calllab.lab.scenario.check import check_setting
from calllab.lab.scenario.model import Scenario
from calllab.lab.scenario.play import play
from calllab.lab.scenario.progress import ProgressListener
from calllab.network import simulate

__all__ = ["run_scenario"]

OVERTIME_S = 600.0
"""How long after its duration a run in virtual time may take to come to its end."""


def run_scenario(
    scenario: Scenario,
    *,
    time: ClockKind = "virtual",
    network: NetworkKind | None = None,
    seed: int | None = None,
    out: Path | None = None,
    progress: ProgressListener | None = None,
) -> Recording:
    """Run ``scenario`` on an event loop of its own, and return the recording.

    In virtual time the same scenario and seed give the same events and statistics, byte for byte.

    :param time: ``virtual``: a clock that jumps; ``real``: the machine's.
    :param network: ``virtual``: in memory; ``sockets``: real UDP through the real service, in real time only;
        None: sockets in real time if the scenario can run there, else virtual.
    :param seed: another seed than the scenario's.
    :param out: the folder to record into; None: memory alone.
    :param progress: is told what happens.

    Raises :exc:`~calllab.errors.ScenarioError` if the scenario cannot run in this setting, and
    :exc:`~calllab.errors.LabError` if something fails that is no part of it, or the run does not end.
    """
    network = check_setting(scenario, time=time, network=network, seed=seed)
    if seed is not None:
        scenario = msgspec.structs.replace(scenario, seed=seed)
    main = partial(play, scenario, time=time, network=network, out=out, progress=progress)
    return simulate(
        main,
        seed=scenario.seed,
        clock=time,
        codecs="stand-in" if scenario.codecs == "stand-in" else "real",
        until_s=scenario.duration_s + OVERTIME_S,
    )
