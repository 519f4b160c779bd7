"""In which order a peer connection tells its news: the scripts, the comparison, and where ours differs.

A *script* is a list of steps; a step is a list of calls ``(peer, method, argument...)`` that are made one
after the other without waiting in between, and the next step begins when all of them are through.  Besides
the methods of the peer connection there are ``hold`` and ``deliver`` (for the candidates of a peer),
``until`` (a condition) and ``until-told`` (an event, so many times).  ``setRemoteDescription`` without an
argument takes what the other peer's last ``setLocalDescription`` made.

The same script runs in Chromium several times.  What one peer told in the same order every time is the
browser's order, as far as anybody may rely on it; what swapped places is chance.  Between the two peers
there is no order to compare: who hears first is a matter of the network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias

__all__ = [
    "BROWSER_RUNS",
    "DEVIATIONS",
    "SCRIPTS",
    "Call",
    "Deviation",
    "Disagreement",
    "Log",
    "Script",
    "compare",
]

Call: TypeAlias = Sequence[Any]
Script: TypeAlias = Sequence[Sequence[Call]]
Log: TypeAlias = list[tuple[str, str]]

BROWSER_RUNS: Final = 5
"""How often Chromium runs each script."""

_MEET: Final[Script] = (
    (("a", "addTrack", "audio"), ("a", "createDataChannel", "chat"), ("b", "addTrack", "audio")),
    (("a", "until-told", "negotiationneeded", 1), ("b", "until-told", "negotiationneeded", 1)),
)
_DELIVER: Final[Script] = (
    (("a", "deliver"), ("b", "deliver")),
    (("a", "until", "connected"), ("b", "until", "connected")),
)


def _exchange(a_gathered: int | None = None, b_gathered: int | None = None) -> Script:
    """Return an exchange of a's offer and b's answer that waits until each has gathered so many times.

    How long gathering takes is no order, so the next call waits for its end.
    """
    return (
        (("a", "setLocalDescription"),),
        *_gathered("a", a_gathered),
        (("b", "setRemoteDescription"),),
        (("b", "setLocalDescription"),),
        *_gathered("b", b_gathered),
        (("a", "setRemoteDescription"),),
    )


def _gathered(peer: str, times: int | None) -> Script:
    return () if times is None else (((peer, "until-told", "icecandidate null", times),),)


_CONNECT: Final[Script] = (*_MEET, *_exchange(1, 1), *_DELIVER)

SCRIPTS: Final[dict[str, Script]] = {
    "connect": _CONNECT,
    "initial glare": (
        *_MEET,
        (("a", "setLocalDescription"), ("b", "setLocalDescription")),
        (("a", "until-told", "icecandidate null", 1), ("b", "until-told", "icecandidate null", 1)),
        # b is polite: its own offer is rolled back by the one that it takes.
        (("b", "setRemoteDescription"),),
        (("b", "setLocalDescription"),),
        *_gathered("b", 2),
        (("a", "setRemoteDescription"),),
        *_DELIVER,
    ),
    "glare in a call": (
        *_CONNECT,
        (("a", "addTrack", "video"), ("b", "addTrack", "video")),
        (("a", "until-told", "negotiationneeded", 2), ("b", "until-told", "negotiationneeded", 2)),
        (("a", "setLocalDescription"), ("b", "setLocalDescription")),
        (("b", "setRemoteDescription"),),
        (("b", "setLocalDescription"),),
        (("a", "setRemoteDescription"),),
    ),
    "a track removed, added again, stopped": (
        *_CONNECT,
        (("a", "addTrack", "video"),),
        (("a", "until-told", "negotiationneeded", 2),),
        *_exchange(),
        (("a", "removeTrack"),),
        (("a", "until-told", "negotiationneeded", 3),),
        *_exchange(),
        (("a", "addTrack", "video"),),
        (("a", "until-told", "negotiationneeded", 4),),
        *_exchange(),
        (("a", "stop"),),
        (("a", "until-told", "negotiationneeded", 5),),
        *_exchange(),
    ),
    "ICE restart": (
        *_CONNECT,
        (("a", "hold"), ("b", "hold")),
        (("a", "restartIce"),),
        (("a", "until-told", "negotiationneeded", 2),),
        *_exchange(2, 2),
        *_DELIVER,
    ),
    "rollback": (
        *_CONNECT,
        (("a", "addTransceiver", "video"),),
        (("a", "until-told", "negotiationneeded", 2),),
        (("a", "setLocalDescription"),),
        (("b", "setRemoteDescription"),),
        (("b", "setRemoteDescription", "rollback"),),
        (("a", "setLocalDescription", "rollback"),),
        (("a", "until-told", "negotiationneeded", 3),),
        (("a", "setLocalDescription", "answer"),),
    ),
}
"""The scripts, by what happens in them."""


@dataclass(frozen=True)
class Deviation:
    """Something that ours tells in another order than Chromium, and why that is right.

    ``earlier`` and ``later`` are patterns of what Chromium tells, in its order.  A deviation with ``later``
    None is about something that ours alone tells.
    """

    script: str
    earlier: str
    later: str | None
    reason: str


DEVIATIONS: Final[tuple[Deviation, ...]] = (
    Deviation(
        "*",
        "iceconnectionstatechange connected #1",
        "connectionstatechange connecting #1",
        "webrtc-pc 5.6 updates connectionState in the same steps as iceConnectionState, so that it is "
        "'connecting' as soon as a check is made.  Chromium derives it from DTLS and is late.",
    ),
    Deviation(
        "*",
        "channel open #1",
        "connectionstatechange connect* #1",
        "Chromium's data channel and DTLS state come from different threads: which is told first is chance, "
        "and five runs may agree by chance.  Ours is connected first, always.",
    ),
    Deviation(
        "*",
        "datachannel #1",
        "connectionstatechange connect* #1",
        "As for 'channel open'.",
    ),
    Deviation(
        "*",
        "iceconnectionstatechange completed #1",
        None,
        "webrtc-pc 5.6.3 has 'completed' once both have said that there are no more candidates, which later "
        "descriptions do.  Chromium stays 'connected'.",
    ),
    Deviation(
        "initial glare",
        "addIceCandidate rejected OperationError #*",
        None,
        "webrtc-pc 4.4.2 refuses a candidate of an offer that was rolled back, by its user name fragment.  "
        "Chromium does not look at the fragment.",
    ),
    Deviation(
        "rollback",
        "negotiationneeded #3",
        "*LocalDescription resolved in stable #1",
        "webrtc-pc 4.7.3 looks whether negotiation is needed when the operations chain is empty, which is "
        "after the rollback.  Chromium tells in the middle of it.",
    ),
    Deviation(
        "rollback",
        "negotiationneeded #3",
        "signalingstatechange stable #2",
        "As for the promise of the same rollback.",
    ),
)
"""Where ours differs from Chromium on purpose; everything else agrees."""


_OURS_ALONE: Final = "only ours tells it"


@dataclass(frozen=True)
class Disagreement:
    """One place where ours and all runs of Chromium do not agree."""

    script: str
    peer: str
    earlier: str
    later: str | None
    what: str

    @property
    def deviation(self) -> Deviation | None:
        """The entry of :data:`DEVIATIONS` that explains it, if any."""
        for deviation in DEVIATIONS:
            if not fnmatchcase(self.script, deviation.script) or not fnmatchcase(
                self.earlier, deviation.earlier
            ):
                continue
            if self.later is None or deviation.later is None:
                if self.later is deviation.later and self.what == _OURS_ALONE:
                    return deviation
            elif fnmatchcase(self.later, deviation.later):
                return deviation
        return None


def numbered(log: Log, peer: str) -> list[str]:
    """Return what one peer told, each as often as it did: ``negotiationneeded #2``."""
    seen: Counter[str] = Counter()
    told = []
    for who, what in log:
        if who == peer:
            seen[what] += 1
            told.append(f"{what} #{seen[what]}")
    return told


def shared_order(runs: Sequence[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yield the pairs that come in this order in every run."""
    places = [{what: place for place, what in enumerate(run)} for run in runs]
    everywhere = [what for what in runs[0] if all(what in run for run in places)]
    for index, earlier in enumerate(everywhere):
        for later in everywhere[index + 1 :]:
            if all(run[earlier] < run[later] for run in places):
                yield earlier, later


def compare(script: str, browser_runs: Sequence[Log], ours: Log) -> list[Disagreement]:
    """Return where ``ours`` differs from what all runs of the browser have in common."""
    found = []
    for peer in ("a", "b"):
        runs = [numbered(run, peer) for run in browser_runs]
        told = numbered(ours, peer)
        place = {what: index for index, what in enumerate(told)}
        for what in runs[0]:
            if what not in place and all(what in run for run in runs):
                found.append(Disagreement(script, peer, what, None, "only the browser tells it"))
        for what in told:
            if not any(what in run for run in runs):
                found.append(Disagreement(script, peer, what, None, _OURS_ALONE))
        for earlier, later in shared_order(runs):
            if earlier in place and later in place and place[earlier] > place[later]:
                found.append(
                    Disagreement(script, peer, earlier, later, "ours tells them the other way round")
                )
    return found
