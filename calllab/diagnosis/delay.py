"""Delay: the round trip takes a step up.

A round trip has no direction.  Where both peers were recorded on one clock with media that carries its
capture time, the latency of each direction shows which one it was; else the direction stays open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median

import numpy as np

from calllab.diagnosis.model import Alternative, Evidence, Finding, Severity
from calllab.diagnosis.series import CallSeries, PeerSeries, RoundTrip

__all__ = ["find_delay"]

MIN_STEP_S = 0.030
MIN_STEP_DEVIATIONS = 6.0
MIN_SAMPLES = 3
MIN_LENGTH_S = 2.0
# Connectivity checks come every few seconds; what is further apart is two episodes.
LONGEST_PAUSE_S = 8.0
# ITU-T G.114: above 150 ms one way a conversation suffers, whether or not it was ever better.
LONG_ROUND_TRIP_S = 0.300


def find_delay(call: CallSeries) -> Iterator[Finding]:
    """Find spans in which the round trip is longer than in the rest of the call."""
    trips = sorted(
        (trip for peer in call.peers.values() for trip in peer.round_trips if trip.t_s <= call.end_s),
        key=lambda trip: trip.t_s,
    )
    if len(trips) < 2 * MIN_SAMPLES:
        return
    low = float(np.quantile([trip.rtt_s for trip in trips], 0.25))
    deviations = [abs(trip.rtt_s - low) for trip in trips if trip.rtt_s <= low * 2 + MIN_STEP_S]
    limit = low + max(MIN_STEP_S, MIN_STEP_DEVIATIONS * median(deviations) if deviations else 0.0)
    runs = list(_runs(trips, limit))
    in_runs = {id(trip) for run in runs for trip in run}
    calm = [trip.rtt_s for trip in trips if id(trip) not in in_runs]
    if low >= LONG_ROUND_TRIP_S:
        yield _finding(call, trips, calm=[0.0], whole=True)
    for run in runs:
        yield _finding(call, run, calm=calm or [low], whole=False)


def _runs(trips: Sequence[RoundTrip], limit: float) -> Iterator[list[RoundTrip]]:
    """Yield the runs of long round trips; one short one in between does not end a run, two do."""
    run: list[RoundTrip] = []
    short = 0
    for trip in trips:
        if trip.rtt_s > limit:
            if run and trip.t_s - run[-1].t_s > LONGEST_PAUSE_S:
                yield from _kept(run)
                run = []
            run.append(trip)
            short = 0
        elif run:
            short += 1
            if short > 1:
                yield from _kept(run)
                run, short = [], 0
    yield from _kept(run)


def _kept(run: list[RoundTrip]) -> Iterator[list[RoundTrip]]:
    if len(run) >= MIN_SAMPLES and run[-1].t_s - run[0].t_s >= MIN_LENGTH_S:
        yield run


def _finding(call: CallSeries, run: Sequence[RoundTrip], *, calm: Sequence[float], whole: bool) -> Finding:
    step = median(trip.rtt_s for trip in run) - median(calm)
    onset_s, end_s = run[0].t_s, run[-1].t_s
    by_direction = {
        call.direction_to(peer.peer): rise
        for peer in call.peers.values()
        if not whole and (rise := _rise(peer, onset_s, end_s)) is not None
    }
    # Where both ways got longer each has its part of the step, down to a quarter of it.
    guilty = [direction for direction, rise in by_direction.items() if rise > step / 4]
    direction = None if not guilty else "both" if len(guilty) == 2 else guilty[0]
    if direction not in (None, "both"):
        receiver = next(p for p in call.peers.values() if call.direction_to(p.peer) == direction)
        onset_s, end_s = _edges(receiver, onset_s, end_s, step)
    inside, outside = _median_interval([trip.rtt_s for trip in run]), _median_interval(calm)
    low, high = inside[0] - outside[1], inside[1] - outside[0]
    where = {
        None: "on the round trip (which way cannot be told)",
        "both": "on the round trip, in both directions",
    }.get(direction, f"from {str(direction).replace('->', ' to ')}")
    return Finding(
        cause="delay",
        direction=direction,
        onset_s=onset_s,
        end_s=end_s,
        severity=Severity(step * 1000, "ms", (low * 1000, high * 1000)),
        confidence=0.95 if direction is not None else 0.8,
        evidence=(
            Evidence(run[0].metric, median(t.rtt_s for t in run) * 1000, "ms", onset_s, ""),
            *(
                Evidence(f"playout latency {name}", rise * 1000, "ms more", onset_s, name.split("->")[-1])
                for name, rise in by_direction.items()
            ),
        ),
        alternatives=(
            Alternative("bandwidth-cap", "the round trip rose in one step instead of with a filling queue"),
            Alternative("jitter", "the round trips in it agree with each other"),
        ),
        advice=(
            "The path got longer, not worse: look for another route, a VPN or a relay far away. Nothing that "
            "the peers send changes it."
        ),
        summary=(
            f"The round trip took {step * 1000:.0f} ms all the time."
            if whole
            else f"{step * 1000:.0f} ms of delay were added {where}, from {onset_s:.0f} s to {end_s:.0f} s."
        ),
    )


def _rise(peer: PeerSeries, onset_s: float, end_s: float) -> float | None:
    """Return how much later the peer played what it got, inside the span against just before it."""
    rises: list[float] = []
    for series in peer.latencies.values():
        inside = [latency for t_s, latency in series.items() if onset_s + 0.5 <= t_s <= end_s]
        before = [latency for t_s, latency in series.items() if onset_s - 12 <= t_s <= onset_s - 3]
        if inside and before:
            rises.append(median(inside) - median(before))
    return min(rises) if rises else None


def _edges(peer: PeerSeries, onset_s: float, end_s: float, step: float) -> tuple[float, float]:
    """Sharpen the edges by the latency of single seconds: round trips are measured more rarely."""
    series = sorted((peer.latencies.get("video") or peer.latencies.get("audio") or {}).items())
    before = [latency for t_s, latency in series if onset_s - 12 <= t_s <= onset_s - 4]
    if not before:
        return onset_s, end_s
    base = median(before)
    late = [
        (earlier, t_s, min(1.0, (latency - base) / step))
        for (earlier, _), (t_s, latency) in pairwise(series)
        if onset_s - 4 <= t_s <= end_s + 4 and latency - base > 0.5 * step
    ]
    if not late:
        return onset_s, end_s
    first, last = late[0], late[-1]
    # A second that was half in the episode shows half of the step.
    return first[1] - first[2] * (first[1] - first[0]), last[0] + last[2] * (last[1] - last[0])


def _median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the median, by order statistics."""
    ordered = sorted(values)
    reach = 0.98 * len(ordered) ** 0.5
    low = max(0, int(len(ordered) / 2 - reach))
    high = min(len(ordered) - 1, int(len(ordered) / 2 + reach))
    return ordered[low], ordered[high]
