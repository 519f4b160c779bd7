"""What encoding, decoding and getting to run at all costs a simulated machine."""

from __future__ import annotations

import random
from typing import Final, Literal

import msgspec

from calllab.errors import InvalidSetting

__all__ = ["NO_COSTS", "HostCosts"]

_REFERENCE_PIXELS: Final = 320 * 240
_LONGEST_MS: Final = 10_000.0


class HostCosts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a machine takes for things, in milliseconds of virtual time.

    Each time is drawn evenly between the two bounds.  Those for video are for a picture of 320 x 240, and
    grow with its area.  The defaults are a slow laptop's: without any such noise, frames leave at unnaturally
    exact times, which misleads bandwidth estimators.  Raises
    :exc:`~calllab.errors.InvalidSetting` for bounds that are negative or the wrong way round.
    """

    encode_audio_ms: tuple[float, float] = (0.2, 1.0)
    decode_audio_ms: tuple[float, float] = (0.1, 0.5)
    encode_video_ms: tuple[float, float] = (1.0, 6.0)
    decode_video_ms: tuple[float, float] = (0.3, 2.0)
    send_ms: tuple[float, float] = (0.0, 2.5)
    """How late what is to be sent leaves, because a process does not run the moment it could.  What follows
    meanwhile leaves with it, so the order is kept."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            low, high = getattr(self, name)
            if not 0.0 <= low <= high <= _LONGEST_MS:
                raise InvalidSetting(
                    f"{name}=({low:g}, {high:g}): give the shortest and the longest time, from 0 to "
                    f"{_LONGEST_MS:g} ms"
                )

    def draw_s(
        self,
        operation: Literal["encode", "decode"],
        kind: Literal["audio", "video"],
        pixels: int,
        entropy: random.Random,
    ) -> float:
        """Return the time one frame takes, in seconds; each takes one draw, whatever the bounds."""
        area = pixels / _REFERENCE_PIXELS if kind == "video" and pixels else 1.0
        return _draw_s(getattr(self, f"{operation}_{kind}_ms"), entropy) * area

    def draw_late_s(self, entropy: random.Random) -> float:
        """Return how late the next datagram leaves, in seconds."""
        return _draw_s(self.send_ms, entropy)


def _draw_s(bounds_ms: tuple[float, float], entropy: random.Random) -> float:
    low, high = bounds_ms
    return (low + (high - low) * entropy.random()) / 1000.0


NO_COSTS: Final = HostCosts(
    encode_audio_ms=(0.0, 0.0),
    decode_audio_ms=(0.0, 0.0),
    encode_video_ms=(0.0, 0.0),
    decode_video_ms=(0.0, 0.0),
    send_ms=(0.0, 0.0),
)
"""A machine that is infinitely fast."""
