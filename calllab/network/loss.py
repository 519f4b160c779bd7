"""The loss stage: independent losses, exact shares of blocks, or bursts by the Gilbert-Elliott model."""

from __future__ import annotations

from calllab.network.settings import LinkSettings

__all__ = ["LossModel"]


class LossModel:
    """Decides which datagrams are lost.

    The Gilbert-Elliott chain has two states.  For each datagram it first moves (Good to Bad with probability
    p, Bad to Good with r), then loses the datagram with the share of the state it is in.  A chain that is
    switched on starts from its stationary distribution, so that a short fault has the right mean too.

    Where each block loses an exact number, a datagram is lost with the probability of losses still due over
    datagrams still to come, which makes every choice of places in the block equally likely.

    Each datagram brings its own two uniform numbers, whether or not they are needed: that ties the pattern to
    the index of the datagram, whatever else the link does.
    """

    __slots__ = (
        "_bad",
        "_block",
        "_block_due",
        "_block_left",
        "_block_losses",
        "_enter",
        "_fresh",
        "_leave",
        "_loss_bad",
        "_loss_good",
        "_loss_uniform",
        "_stationary",
    )

    def __init__(self, settings: LinkSettings) -> None:
        self._bad = False
        self._fresh = True
        self._block = self._block_losses = 0
        self._block_left = self._block_due = 0
        self.set(settings)

    def set(self, settings: LinkSettings) -> None:
        """Follow ``settings`` from the next datagram on; a running chain keeps its state.

        So does a running block, unless its length or number of losses is new: then another one begins.
        """
        block, losses = settings.loss_block or 0, settings.losses_per_block
        if (block, losses) != (self._block, self._block_losses):
            self._block, self._block_losses = block, losses
            self._block_left = self._block_due = 0
        self._loss_uniform = settings.loss if settings.loss_burst is None and not block else None
        if settings.loss_burst is None:
            self._fresh = True
            return
        share = settings.bad_share
        self._stationary = share
        self._leave = 1.0 / settings.loss_burst
        self._enter = share * self._leave / (1.0 - share)
        self._loss_good, self._loss_bad = settings.loss_good, settings.loss_bad

    def loses(self, move: float, fall: float) -> bool:
        """Whether the next datagram is lost; ``move`` and ``fall`` are uniform in [0, 1)."""
        if self._loss_uniform is not None:
            return fall < self._loss_uniform
        if self._block:
            return self._loses_of_block(fall)
        if self._fresh:
            self._fresh = False
            self._bad = move < self._stationary
        elif self._bad:
            self._bad = move >= self._leave
        else:
            self._bad = move < self._enter
        return fall < (self._loss_bad if self._bad else self._loss_good)

    def _loses_of_block(self, fall: float) -> bool:
        if not self._block_left:
            self._block_left, self._block_due = self._block, self._block_losses
        lost = fall * self._block_left < self._block_due
        self._block_left -= 1
        self._block_due -= lost
        return lost
