"""Something in the signaling path that alters session descriptions, as gateways and proxies do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, TypeAlias

from calllab.signaling import Channel, ChannelState, Message, StateListener

__all__ = ["Alteration", "SdpAlteration", "SdpMiddlebox", "altered"]

Alteration: TypeAlias = Literal["fingerprint", "codecs", "m-lines"]

_FINGERPRINT: Final = re.compile(r"(a=fingerprint:\S+ )([0-9A-Fa-f:]+)")
_RTPMAP: Final = re.compile(r"(a=rtpmap:\d+ )[^/\s]+")
_SECTION: Final = re.compile(r"(?m)^(?=m=)")


@dataclass(frozen=True)
class SdpAlteration:
    """What is done to the descriptions that go to ``recipient``, from ``at`` until ``end`` (loop time)."""

    recipient: str
    what: Alteration
    kind: Literal["audio", "video"] | None
    at: float
    end: float


class SdpMiddlebox:
    """A user's channel with alterations of what it sends; everything else passes untouched."""

    def __init__(self, channel: Channel, alterations: Sequence[SdpAlteration]) -> None:
        self._channel = channel
        self._alterations = alterations
        self.altered = 0
        """How many descriptions were altered so far."""

    @property
    def user_id(self) -> str:
        """The user's name."""
        return self._channel.user_id

    @property
    def device_id(self) -> str:
        """The device's id."""
        return self._channel.device_id

    @property
    def state(self) -> ChannelState:
        """The state now."""
        return self._channel.state

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one message, altered if it carries a description and its time has come."""
        now = asyncio.get_running_loop().time()
        if message.get("type") in ("call-offer", "call-answer"):
            for alteration in self._alterations:
                if alteration.recipient == message.get("recipientId") and (
                    alteration.at <= now < alteration.end
                ):
                    sdp = altered(str(message["sdp"]), alteration.what, alteration.kind)
                    message = {**message, "sdp": sdp}
                    self.altered += 1
        await self._channel.send(message)

    async def receive(self) -> Message:
        """Wait for the next message; raises ChannelClosed after the last."""
        return await self._channel.receive()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._channel.__aiter__()

    def on_state(self, listener: StateListener) -> Callable[[], None]:
        """Call ``listener`` at each change of state from now on; returns a function that stops this."""
        return self._channel.on_state(listener)

    def interrupt(self, reason: str = "interrupted") -> None:
        """Cut the connection, and keep it away until :meth:`resume`."""
        self._channel.interrupt(reason)

    def resume(self) -> None:
        """Let the connection come back."""
        self._channel.resume()

    async def close(self) -> None:
        """Close the channel for good; may be called again."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


def altered(sdp: str, what: Alteration, kind: str | None = None) -> str:
    """Return a session description with one thing in it made wrong.

    ``fingerprint`` names a certificate that nobody has, ``codecs`` leaves no codec that anybody knows,
    ``m-lines`` puts the media sections into the opposite order, or gives a single one another kind.

    :param kind: alter media sections of this kind only.
    """
    head, *sections = _SECTION.split(sdp)
    if what == "m-lines":
        if len(sections) > 1:
            sections.reverse()
        else:
            sections = [_other_kind(section) for section in sections]
        return "".join((head, *sections))
    edit = _wrong_fingerprint if what == "fingerprint" else _unknown_codecs
    if what == "fingerprint":
        head = edit(head)
    return "".join((head, *(edit(s) if kind is None or s.startswith(f"m={kind} ") else s for s in sections)))


def _wrong_fingerprint(text: str) -> str:
    def invert(match: re.Match[str]) -> str:
        return match[1] + ":".join(f"{int(octet, 16) ^ 0xFF:02X}" for octet in match[2].split(":"))

    return _FINGERPRINT.sub(invert, text)


def _unknown_codecs(section: str) -> str:
    return _RTPMAP.sub(r"\1x-unknown", section)


def _other_kind(section: str) -> str:
    return re.sub(r"^m=(audio|video)", lambda m: "m=video" if m[1] == "audio" else "m=audio", section)
