"""A scenario put to the test: run, diagnosed, and judged by what it expects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calllab.lab import Recording
from calllab.lab.kinds import ClockKind, NetworkKind
from calllab.lab.scenario import Judgement, ProgressListener, Scenario, judge, run

if TYPE_CHECKING:
    from calllab.diagnosis import Diagnosis

__all__ = ["Trial", "try_scenario"]


@dataclass(frozen=True)
class Trial:
    """What came of a scenario."""

    scenario: Scenario
    recording: Recording
    diagnosis: Diagnosis
    judgements: Sequence[Judgement]

    @property
    def holds(self) -> bool:
        """Whether everything is as the scenario expects."""
        return all(judgement.holds for judgement in self.judgements)

    def to_plain(self) -> dict[str, Any]:
        """Return the outcome as plain data, as ``calllab run --json`` prints it."""
        settings = self.recording.meta["settings"]
        return {
            "title": self.scenario.title,
            **{name: settings[name] for name in ("time", "network", "seed")},
            "digest": self.recording.digest(),
            "holds": self.holds,
            "verdict": self.diagnosis.verdict,
            "expectations": [
                {"what": each.what, "wanted": each.wanted, "got": each.got, "holds": each.holds}
                for each in self.judgements
            ],
        }


async def try_scenario(
    scenario: Scenario,
    *,
    time: ClockKind = "virtual",
    network: NetworkKind | None = None,
    seed: int | None = None,
    out: Path | None = None,
    progress: ProgressListener | None = None,
) -> Trial:
    """Run ``scenario`` in a child process (see :func:`calllab.run`), diagnose its recording, and judge it."""
    recording = await run(scenario, time=time, network=network, seed=seed, out=out, progress=progress)
    diagnosis = await asyncio.to_thread(_diagnose, recording, str(out or ""))
    return Trial(scenario, recording, diagnosis, judge(scenario.expect, recording, diagnosis))


def _diagnose(recording: Recording, source: str) -> Diagnosis:
    # Its libraries take longer to load than a short run: not before there is something to diagnose.
    from calllab.diagnosis import diagnose

    return diagnose(recording, source=source)
