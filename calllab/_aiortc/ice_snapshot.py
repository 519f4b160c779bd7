"""A frozen picture of an ICE agent's candidates, pairs and counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aioice import Candidate, ice

from calllab._aiortc.candidates import IceCandidate, from_aioice, to_line
from calllab._aiortc.ice_generation import IceGeneration
from calllab._aiortc.ice_socket import PairTraffic

__all__ = ["CandidateSnapshot", "IceSnapshot", "PairSnapshot", "PairState", "snapshot_of"]

PairState = Literal["frozen", "waiting", "in-progress", "failed", "succeeded"]


@dataclass(frozen=True, slots=True)
class CandidateSnapshot:
    """One candidate; ``key`` is the same in every picture."""

    key: str
    remote: bool
    ufrag: str
    candidate: IceCandidate


@dataclass(frozen=True, slots=True)
class PairSnapshot:
    """One candidate pair with its counters (see PairTraffic); ``traffic`` is a copy."""

    key: str
    local_key: str
    remote_key: str
    state: PairState
    nominated: bool
    priority: int
    traffic: PairTraffic


@dataclass(frozen=True, slots=True)
class IceSnapshot:
    """The whole agent."""

    state: str
    role: str
    local_ufrag: str | None
    candidates: tuple[CandidateSnapshot, ...]
    pairs: tuple[PairSnapshot, ...]
    selected_pair_key: str | None
    selected_pair_changes: int
    packets_dropped: int
    """Datagrams that found no path."""


def snapshot_of(
    generations: Sequence[IceGeneration],
    *,
    active: IceGeneration | None,
    state: str,
    role: str,
    pair_changes: int,
    packets_dropped: int,
) -> IceSnapshot:
    """Return the picture of these generations."""
    candidates: list[CandidateSnapshot] = []
    pairs: list[PairSnapshot] = []
    selected_key: str | None = None
    for generation in generations:
        for candidate in generation.local_candidates:
            value = from_aioice(candidate, generation.servers_asked.get(to_line(candidate)))
            candidates.append(
                CandidateSnapshot(
                    _key("local", generation, candidate), False, generation.local_username, value
                )
            )
        for candidate in generation.remote_candidates:
            candidates.append(
                CandidateSnapshot(
                    _key("remote", generation, candidate),
                    True,
                    generation.remote_username or "",
                    from_aioice(candidate),
                )
            )
        for pair in generation.pairs:
            taken = _pair(generation, pair)
            pairs.append(taken)
            if generation is active and pair is generation.selected_pair:
                selected_key = taken.key
    return IceSnapshot(
        state=state,
        role=role,
        local_ufrag=generations[0].local_username if generations else None,
        candidates=tuple(candidates),
        pairs=tuple(pairs),
        selected_pair_key=selected_key,
        selected_pair_changes=pair_changes,
        packets_dropped=packets_dropped,
    )


def _key(side: str, generation: IceGeneration, candidate: Candidate) -> str:
    """Name a candidate after its generation and transport address, which nothing else shares.

    Its type may change: what was seen in a check (prflx) may yet be signalled.
    """
    return f"{side}-{generation.local_username}-{candidate._network_host}-{candidate.port}"


def _pair(generation: IceGeneration, pair: Any) -> PairSnapshot:
    states: dict[Any, PairState] = {
        ice.CandidatePair.State.FROZEN: "frozen",
        ice.CandidatePair.State.WAITING: "waiting",
        ice.CandidatePair.State.IN_PROGRESS: "in-progress",
        ice.CandidatePair.State.SUCCEEDED: "succeeded",
        ice.CandidatePair.State.FAILED: "failed",
    }
    local, remote = pair.local_candidate, pair.remote_candidate
    local_key, remote_key = _key("local", generation, local), _key("remote", generation, remote)
    traffic = pair.protocol.traffic.get(pair.remote_addr, PairTraffic())
    copy = PairTraffic(*(getattr(traffic, name) for name in PairTraffic.__slots__))
    return PairSnapshot(
        key=f"{local_key}-{remote_key}",
        local_key=local_key,
        remote_key=remote_key,
        # One that was given up when another was nominated (ice.py:885) keeps the state that it had.
        state=states[pair.state],
        nominated=bool(pair.nominated),
        priority=ice.candidate_pair_priority(local, remote, generation.ice_controlling),
        traffic=copy,
    )
