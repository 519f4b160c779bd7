"""Loss: spans in which clearly more packets are missing than a good path loses."""

from __future__ import annotations

from collections.abc import Iterator

from calllab.diagnosis.binomial import Episode, clopper_pearson, dispersion_p, scan
from calllab.diagnosis.blackout import silences
from calllab.diagnosis.model import Alternative, Evidence, Finding, Severity
from calllab.diagnosis.series import CallSeries, Interval, PeerSeries

__all__ = ["find_loss"]

# What a good path may lose (ITU-T Y.1541 class 0 allows 1e-3), and how clearly an episode must stand out:
# at twice that background about one clean call of a minute in fifty raises a false alarm.
BACKGROUND = 0.002
MIN_LOG_LIKELIHOOD_RATIO = 7.0
MIN_LOST = 4
MIN_INNER_SAMPLES = 3
LONGEST_EPISODE = 600

# What was sent into a dead path is counted as lost by the first packets that arrive again.
AFTERMATH_S = 3.0

# Losses that are independent of each other scatter as chance has it; one in a thousand is no chance.
BURSTY_P = 0.001


def find_loss(call: CallSeries) -> Iterator[Finding]:
    """Find episodes of packet loss for each direction that was recorded at its receiving end."""
    for peer in call.peers.values():
        intervals = _usable(call, peer)
        lost = [interval.lost for interval in intervals]
        expected = [interval.lost + interval.received for interval in intervals]
        episodes = scan(
            lost,
            expected,
            background=BACKGROUND,
            threshold=MIN_LOG_LIKELIHOOD_RATIO,
            longest=LONGEST_EPISODE,
        )
        for episode in sorted(episodes, key=lambda found: found.first):
            if episode.hits >= MIN_LOST:
                yield _finding(call, peer, intervals[episode.first : episode.last + 1], episode)


def _usable(call: CallSeries, peer: PeerSeries) -> list[Interval]:
    """Leave out what a blackout explains: the packets that fell into it are counted when it is over."""
    gone = silences(call, peer)
    return [
        interval
        for interval in peer.rtp
        if interval.to_s <= call.end_s
        and not any(span.overlaps(interval.from_s - AFTERMATH_S, interval.to_s + 1.0) for span in gone)
    ]


def _finding(call: CallSeries, peer: PeerSeries, span: list[Interval], episode: Episode) -> Finding:
    direction = call.direction_to(peer.peer)
    # The first and the last sample are only partly in the episode: they would dilute it and look like bursts.
    inner = span[1:-1]
    measured = inner if len(inner) >= MIN_INNER_SAMPLES else span
    hits = sum(interval.lost for interval in measured)
    trials = hits + sum(interval.received for interval in measured)
    share = hits / trials
    low, high = clopper_pearson(hits, trials)
    p = dispersion_p([i.lost for i in inner], [i.lost + i.received for i in inner])
    bursty = p < BURSTY_P
    onset_s, end_s = span[0].from_s, span[-1].to_s
    sentence = (
        f"{share:.1%} of the packets {_from(direction)} were lost between {onset_s:.0f} s and {end_s:.0f} s "
        f"({hits} of {trials}; 95 % sure of {low:.1%} to {high:.1%})"
    )
    return Finding(
        cause="loss-burst" if bursty else "loss-uniform",
        direction=direction,
        onset_s=onset_s,
        end_s=end_s,
        severity=Severity(share, "fraction", (low, high)),
        confidence=min(0.99, 1 - 0.5 / (1 + episode.log_likelihood_ratio)),
        evidence=(
            Evidence("inbound-rtp.packetsLost", float(episode.hits), "packets", end_s, peer.peer),
            Evidence(
                "inbound-rtp.packetsReceived",
                float(episode.trials - episode.hits),
                "packets",
                end_s,
                peer.peer,
            ),
            Evidence("log-likelihood ratio", episode.log_likelihood_ratio, "", end_s, peer.peer),
        ),
        alternatives=(
            Alternative("loss-uniform", f"the losses come in bursts (chance explains them with p={p:.1g})")
            if bursty
            else Alternative("loss-burst", f"the losses scatter as independent ones do (p={p:.2g})"),
            Alternative("blackout", "packets went on arriving all the time"),
        ),
        advice=(
            "Packets are lost without regard to what is sent: a bad radio link or a faulty port more than a "
            "full queue. Forward error correction or redundant audio helps; sending less does not."
            if not bursty
            else "Whole runs of packets are lost: interleaving or retransmission helps more than error "
            "correction."
        ),
        summary=f"{sentence}{', in bursts' if bursty else ''}.",
    )


def _from(direction: str) -> str:
    return "that came in" if direction == "in" else "from " + direction.replace("->", " to ")
