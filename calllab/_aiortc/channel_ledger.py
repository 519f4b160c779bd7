"""The data channels that a peer connection has and had, over all its associations."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from calllab._aiortc.data_channel import DataChannel, DataChannelSnapshot

__all__ = ["ChannelLedger", "ChannelsSnapshot"]

# Closed channels of which the counters are kept.
_MAX_CLOSED: Final = 64


@dataclass(frozen=True, slots=True)
class ChannelsSnapshot:
    """The channels in the order in which they were made, how many ever opened, and of these are not open any
    more.
    """

    channels: tuple[DataChannelSnapshot, ...] = ()
    opened: int = 0
    closed: int = 0


class ChannelLedger:
    """Numbers and counts data channels.

    It outlives an SCTP association: when data is rejected and negotiated again, keys and counters go on.
    """

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0
        self._keys = 0
        self._channels: dict[int, DataChannel] = {}
        self._closed: deque[DataChannel] = deque(maxlen=_MAX_CLOSED)

    def new_key(self) -> int:
        """Return a number that no channel has had."""
        self._keys += 1
        return self._keys

    def enter(self, channel: DataChannel) -> None:
        """Take a channel in."""
        self._channels[channel.key] = channel

    def strike(self, channel: DataChannel) -> None:
        """Forget a channel that never came to be."""
        self._channels.pop(channel.key, None)

    def close(self, channel: DataChannel) -> None:
        """Keep a channel that has told of its end among the latest closed ones."""
        if self._channels.pop(channel.key, None) is not None:
            self._closed.append(channel)

    def statistics(self) -> ChannelsSnapshot:
        """Return the counters as they stand; of closed channels only the latest are kept."""
        channels = sorted([*self._closed, *self._channels.values()], key=lambda channel: channel.key)
        return ChannelsSnapshot(tuple(channel.statistics() for channel in channels), self.opened, self.closed)
