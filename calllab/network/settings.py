"""What one direction of a link does to the datagrams that pass: a frozen, checked value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, Self, get_args

import msgspec

from calllab.errors import InvalidSetting
from calllab.network.trace import DeliveryTrace

__all__ = [
    "JitterDistribution",
    "LinkSettings",
    "QueueDiscipline",
    "causes_of",
    "fault_members",
    "gilbert",
    "gilbert_elliott",
]

JitterDistribution = Literal["normal", "uniform", "exponential", "pareto"]
"""The shapes of jitter; each has the same standard deviation, ``jitter_ms``."""

QueueDiscipline = Literal["drop-tail", "codel"]
"""What a queue does about its length: nothing until it is full, or what RFC 8289 says."""

DEFAULT_QUEUE_S: Final = 0.3
MIN_DEFAULT_QUEUE_BYTES: Final = 15_000

_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "loss": (0.0, 1.0),
    "loss_burst": (1.0, 1e6),
    "loss_good": (0.0, 1.0),
    "loss_bad": (0.0, 1.0),
    "loss_block": (2, 1_000_000),
    "delay_ms": (0.0, 60_000.0),
    "jitter_ms": (0.0, 60_000.0),
    "jitter_correlation": (0.0, 0.999),
    "reorder": (0.0, 1.0),
    "reorder_hold_ms": (0.0, 60_000.0),
    "duplicate": (0.0, 1.0),
    "rate_kbps": (0.1, 1e8),
    "queue_bytes": (0, 1e9),
    "queue_packets": (1, 1e6),
    "codel_target_ms": (0.01, 60_000.0),
    "codel_interval_ms": (0.1, 60_000.0),
    "burst_bytes": (0, 1e9),
    "overhead_bytes": (0, 1000),
}
_OPTIONAL: Final = frozenset({"loss_burst", "loss_block", "rate_kbps", "queue_bytes", "queue_packets"})
_WHOLE: Final = frozenset({"loss_block", "queue_bytes", "queue_packets", "burst_bytes", "overhead_bytes"})
_FLAGS: Final = frozenset({"loss_before_queue", "allow_reordering", "blackout"})

# The members that mean something only together, as (leaders, details).  A fault that names a detail names a
# leader too, and what it leaves out of the group is at its default, not at the base's value.  So any overlap
# of valid faults is valid.
_GROUPS: Final[tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = (
    (("loss",), ("loss_burst", "loss_good", "loss_bad", "loss_block")),
    (("jitter_ms",), ("jitter_distribution", "jitter_correlation")),
    (("reorder",), ("reorder_hold_ms",)),
    (
        ("rate_kbps", "trace"),
        (
            "queue_bytes",
            "queue_packets",
            "queue_discipline",
            "codel_target_ms",
            "codel_interval_ms",
            "burst_bytes",
        ),
    ),
)


class LinkSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one direction of a link does to datagrams.

    Shares and probabilities are 0..1, delays in milliseconds, sizes in bytes of UDP payload unless said
    otherwise.  Raises :exc:`~calllab.errors.InvalidSetting` if a member is out of its range.
    """

    loss: float = 0.0
    """Mean share of datagrams lost."""
    loss_burst: float | None = None
    """Mean stay in the Bad state of the Gilbert-Elliott model, in datagrams; None: independent losses."""
    loss_good: float = 0.0
    """Share lost in the Good state (needs ``loss_burst``)."""
    loss_bad: float = 1.0
    """Share lost in the Bad state (needs ``loss_burst``); at 1, ``loss_burst`` is the mean run of losses."""
    loss_block: int | None = None
    """Lose exactly the rounded share of each block of so many datagrams, at random places in it; for short
    experiments, where chance would blur a comparison."""
    loss_before_queue: bool = False
    """Lose datagrams before the queue, on the access, instead of after it, on the air, where they have
    already used capacity."""
    delay_ms: float = 0.0
    """Constant one-way delay."""
    jitter_ms: float = 0.0
    """Standard deviation of the delay, whatever the distribution; its mean stays ``delay_ms``.  That holds as
    long as the delay is long enough for it (a delay never gets below zero), and no datagram waits for one
    before it: unless ``allow_reordering`` is on, a stream that is denser than the jitter is wide gets a
    longer and steadier delay.  With ``delay_ms`` 100 and ``jitter_ms`` 10, datagrams 20 ms apart take 100.5
    ms with a deviation of 9.5, and those 1 ms apart take 112 with 5.7."""
    jitter_distribution: JitterDistribution = "normal"
    jitter_correlation: float = 0.0
    """Correlation of the jitter of consecutive datagrams (first-order autoregression)."""
    allow_reordering: bool = False
    """Let a datagram with a short delay overtake one with a long delay; else it waits its turn."""
    reorder: float = 0.0
    """Share of datagrams held back by ``reorder_hold_ms``, so that those behind overtake them."""
    reorder_hold_ms: float = 30.0
    duplicate: float = 0.0
    """Share of datagrams that are delivered twice."""
    rate_kbps: float | None = None
    """Capacity, in kbit/s, of payload and ``overhead_bytes``; None: infinite."""
    trace: str | None = None
    """Capacity over time instead, as the text of a delivery trace (:mod:`calllab.network.trace`; get it from
    :func:`~calllab.network.read_trace`).  It begins with the first datagram that meets it, and loops; its
    time goes on while another capacity covers it."""
    queue_bytes: int | None = None
    """Room in front of the bottleneck, in bytes with overhead; None: no limit of its own if ``queue_packets``
    is given, else 300 ms at the (mean) rate, at least 15 000.  A datagram that does not fit is dropped; an
    empty queue takes any datagram."""
    queue_packets: int | None = None
    """Room in datagrams, the one being sent included; None: as many as the bytes allow."""
    queue_discipline: QueueDiscipline = "drop-tail"
    """What drops datagrams besides the limits: nothing, or CoDel (RFC 8289)."""
    codel_target_ms: float = 5.0
    """The time in the queue that CoDel tolerates as a standing one."""
    codel_interval_ms: float = 100.0
    """How long CoDel watches before it drops; of the order of the largest usual round-trip time."""
    burst_bytes: int = 0
    """Depth of the token bucket; 0: each datagram takes its time on the wire."""
    overhead_bytes: int = 28
    """What a datagram costs beside its payload: IPv4 and UDP headers."""
    blackout: bool = False
    """Drop everything that is offered (what is already under way still arrives)."""

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            # NaN is in no range, so the comparison refuses it too.
            good = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
            if not good or (name in _WHOLE and not isinstance(value, int)):
                what = "a whole number" if name in _WHOLE else "a number"
                orelse = " or None" if name in _OPTIONAL else ""
                raise InvalidSetting(f"{name}={value!r}: give {what} from {low:g} to {high:g}{orelse}")
        for name in _FLAGS:
            if not isinstance(value := getattr(self, name), bool):
                raise InvalidSetting(f"{name}={value!r}: give True or False")
        if self.jitter_distribution not in get_args(JitterDistribution):
            known = ", ".join(get_args(JitterDistribution))
            raise InvalidSetting(f"jitter_distribution={self.jitter_distribution!r}: give one of {known}")
        if self.queue_discipline not in get_args(QueueDiscipline):
            known = ", ".join(get_args(QueueDiscipline))
            raise InvalidSetting(f"queue_discipline={self.queue_discipline!r}: give one of {known}")
        self._check_loss()
        if self.trace is not None:
            self._check_trace()

    def _check_trace(self) -> None:
        if not isinstance(self.trace, str):
            raise InvalidSetting(
                f"trace is a {type(self.trace).__name__}: give the text of one, as read_trace() returns it"
            )
        try:
            DeliveryTrace.parse(self.trace)
        except InvalidSetting as exc:
            raise InvalidSetting(f"trace: {exc}") from exc
        if self.rate_kbps is not None:
            raise InvalidSetting(f"rate_kbps={self.rate_kbps:g} with a trace: give one of the two")
        if self.burst_bytes:
            raise InvalidSetting(
                f"burst_bytes={self.burst_bytes} with a trace: a token bucket needs rate_kbps instead"
            )

    def _check_loss(self) -> None:
        if self.loss_block is not None:
            if self.loss_burst is not None:
                raise InvalidSetting("loss_block with loss_burst: give one of the two")
            if self.loss and not self.losses_per_block:
                raise InvalidSetting(
                    f"loss={self.loss:g} of loss_block={self.loss_block} datagrams rounds to none: "
                    "give a larger block"
                )
        if self.loss_burst is None:
            if (self.loss_good, self.loss_bad) != (0.0, 1.0):
                raise InvalidSetting(
                    f"loss_good={self.loss_good:g} and loss_bad={self.loss_bad:g} describe losses in bursts: "
                    "give loss_burst too"
                )
            return
        if self.loss == self.loss_good:
            return  # the Bad state is never entered
        if not self.loss_good < self.loss < self.loss_bad:
            raise InvalidSetting(
                f"loss={self.loss:g} with loss_burst: give a mean loss from loss_good={self.loss_good:g} to "
                f"below loss_bad={self.loss_bad:g}, or leave out loss_burst"
            )
        shortest = self.bad_share / (1.0 - self.bad_share)
        # gilbert_elliott() arrives here from the other side of the formula: allow for rounding.
        if self.loss_burst < shortest * (1.0 - 1e-9):
            raise InvalidSetting(
                f"loss_burst={self.loss_burst:g} is too short for loss={self.loss:g}: so many losses need "
                f"bursts of at least {math.ceil(round(shortest * 100, 6)) / 100:g} datagrams"
            )

    @property
    def bad_share(self) -> float:
        """The share of datagrams that meet the Gilbert-Elliott Bad state; 0 if losses are independent."""
        if self.loss_burst is None or self.loss == self.loss_good:
            return 0.0
        return (self.loss - self.loss_good) / (self.loss_bad - self.loss_good)

    @property
    def losses_per_block(self) -> int:
        """How many datagrams of each ``loss_block`` are lost."""
        return 0 if self.loss_block is None else round(self.loss_block * self.loss)

    @property
    def mean_rate_kbps(self) -> float | None:
        """The capacity, that of a trace averaged over its loop; None: infinite."""
        return self.rate_kbps if self.trace is None else DeliveryTrace.parse(self.trace).mean_kbps

    @property
    def queue_limit_bytes(self) -> float:
        """The room of the queue, with the default worked out; infinite without a rate."""
        if (rate_kbps := self.mean_rate_kbps) is None:
            return math.inf
        if self.queue_bytes is not None:
            return self.queue_bytes
        if self.queue_packets is not None:
            return math.inf
        return max(MIN_DEFAULT_QUEUE_BYTES, rate_kbps * 125.0 * DEFAULT_QUEUE_S)

    def replace(self, **changes: Any) -> Self:
        """Return these settings with ``changes``; raises InvalidSetting for unknown names and bad values."""
        check_names(changes)
        return type(self)(**{**msgspec.structs.asdict(self), **changes})

    def changes(self) -> dict[str, Any]:
        """Return the members that differ from a clean link, by name."""
        return {
            name: value
            for name, value in msgspec.structs.asdict(self).items()
            if value != getattr(CLEAN, name)
        }

    @property
    def is_clean(self) -> bool:
        """Whether a datagram passes untouched, at once."""
        return not causes_of(self.changes())


CLEAN: Final = LinkSettings()
_MEMBERS: Final = LinkSettings.__struct_fields__


def check_names(changes: Mapping[str, Any]) -> None:
    """Raise InvalidSetting if ``changes`` names something that is no setting of a link."""
    if unknown := sorted(changes.keys() - set(_MEMBERS)):
        raise InvalidSetting(f"no such link setting: {', '.join(unknown)}; there are {', '.join(_MEMBERS)}")


def fault_members(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return all members that a fault with ``changes`` governs, with its values.

    Members that mean something only together (loss and its burst, jitter and its distribution, reorder and
    its hold, rate and its queue) are governed together.  Raises
    :exc:`~calllab.errors.InvalidSetting` if the fault is empty, names an unknown or bad setting, or names a
    detail without what it is a detail of.
    """
    if not changes:
        raise InvalidSetting("a fault without a setting changes nothing: name one, like loss=0.05")
    check_names(changes)
    alone = LinkSettings(**changes)
    governed = dict(changes)
    for leaders, details in _GROUPS:
        named = [name for name in details if name in changes]
        led = any(name in changes for name in leaders)
        if named and not led:
            raise InvalidSetting(f"a fault that names {named[0]} must name {' or '.join(leaders)} too")
        if led:
            governed.update({name: getattr(alone, name) for name in (*leaders, *details)})
    return governed


def gilbert(loss: float, mean_burst: float) -> LinkSettings:
    """Return settings that lose a share ``loss`` in runs of ``mean_burst`` datagrams on average."""
    return LinkSettings(loss=loss, loss_burst=mean_burst)


def gilbert_elliott(p: float, r: float, *, loss_good: float = 0.0, loss_bad: float = 1.0) -> LinkSettings:
    """Return settings from the transition probabilities of a Gilbert-Elliott model.

    ``p`` is the probability of Good to Bad and ``r`` of Bad to Good, per datagram.
    """
    for name, value in (("p", p), ("r", r)):
        if not 0.0 < value <= 1.0:
            raise InvalidSetting(f"{name}={value!r}: give a probability over 0, up to 1")
    bad_share = p / (p + r)
    return LinkSettings(
        loss=loss_good + bad_share * (loss_bad - loss_good),
        loss_burst=1.0 / r,
        loss_good=loss_good,
        loss_bad=loss_bad,
    )


def causes_of(changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names, in the vocabulary of diagnoses, of what ``changes`` does to a clean link."""
    causes = []
    if changes.get("blackout"):
        causes.append("blackout")
    if changes.get("loss"):
        causes.append("loss-uniform" if changes.get("loss_burst") is None else "loss-burst")
    if changes.get("delay_ms"):
        causes.append("delay")
    if changes.get("jitter_ms"):
        causes.append("jitter")
    if changes.get("reorder"):
        causes.append("reordering")
    if changes.get("duplicate"):
        causes.append("duplication")
    if changes.get("rate_kbps") is not None or changes.get("trace") is not None:
        causes.append("bandwidth-cap")
    return tuple(causes)
