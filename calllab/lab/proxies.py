"""Proxies in the path of somebody else's call: faults for peers that know nothing of them.

A client that speaks to the service, a browser for one, uses the address of the signaling proxy instead.  Its
messages pass there, and so do the addresses in them, which are replaced by those of the UDP proxy: from then
on its media passes too.  Neither the client, nor its peer, nor the service is changed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any, Self

from calllab.errors import InvalidSetting
from calllab.network.udp_proxy_process import UdpProxyProcess
from calllab.signaling import PlannedFault, SignalingEvent, SignalingFault, SignalingFaults
from calllab.signaling.channel import Message
from calllab.signaling.ws_proxy import ProxyEvent, SignalingProxy

__all__ = ["CallProxy", "MediaFault", "senders_of"]

_DIRECTION = re.compile(r"\s*([a-z0-9._-]+|\*)\s*(<?->)\s*([a-z0-9._-]+|\*)\s*")


class MediaFault:
    """A fault that was put into one or both directions; :meth:`end` takes it out again."""

    def __init__(self, direction: str, media: UdpProxyProcess, numbers: list[int]) -> None:
        self.direction = direction
        self._media = media
        self._numbers = numbers

    async def end(self) -> None:
        """End the fault now, or take it off the plan; ending twice does nothing."""
        numbers, self._numbers = self._numbers, []
        for number in numbers:
            await self._media.cancel(number)


class CallProxy:
    """A signaling proxy and a UDP proxy in front of a service, for as long as the context lasts.

    Args:
        relay_url: where the service is, as ``http://127.0.0.1:8080``.
        host: where to listen for clients.
        port: 0: a free one.
        media: whether the media passes too; without it the candidates stay as they are.
        media_host: the address of the UDP proxy for peers of other machines and for hidden addresses.
        allowed: networks beside this machine's own addresses that media may be forwarded to.
        seed: every random choice follows from it.

    """

    def __init__(
        self,
        relay_url: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        media: bool = True,
        media_host: str | None = None,
        allowed: Iterable[str] = (),
        seed: int = 0,
    ) -> None:
        epoch = asyncio.get_running_loop().time()
        self.faults = SignalingFaults(seed=seed, epoch=epoch)
        self.media = (
            UdpProxyProcess(host=media_host, seed=seed, epoch=epoch, allowed=allowed) if media else None
        )
        self.signaling = SignalingProxy(
            relay_url, host=host, port=port, faults=self.faults, rewrite=self._rewrite if media else None
        )
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """What clients use instead of the service's address."""
        return self.signaling.url

    async def __aenter__(self) -> Self:
        """Start both; raises :exc:`~calllab.errors.LabError` with the reason if one does not start."""
        try:
            if self.media is not None:
                await self._stack.enter_async_context(self.media)
            await self._stack.enter_async_context(self.signaling)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop both."""
        await self._stack.aclose()

    async def fault(
        self, direction: str, *, at_s: float | None = None, for_s: float | None = None, **settings: Any
    ) -> MediaFault:
        """Impair the media from one user to another, as ``"alice->bob"`` or ``"alice<->bob"``.

        ``alice->bob`` is all that Alice sends through the proxy, to whomever, and ``*->*`` is what all users
        send.  Times and settings are as of :meth:`calllab.Lab.fault`.  Raises
        :exc:`~calllab.errors.InvalidSetting` if something makes no sense.
        """
        senders = senders_of(direction)
        if self.media is None:
            raise InvalidSetting("this proxy leaves media alone: make it with media=True")
        numbers = [await self.media.fault(sender, at_s=at_s, for_s=for_s, **settings) for sender in senders]
        return MediaFault(direction, self.media, numbers)

    def signaling_fault(self, fault: SignalingFault) -> PlannedFault:
        """Plan a fault of signaling; ``self.faults.cancel`` ends it."""
        return self.faults.plan(fault)

    def on_event(
        self, listener: Callable[[ProxyEvent | SignalingEvent | dict[str, Any]], None]
    ) -> Callable[[], None]:
        """Call ``listener`` with what happens at either proxy; returns how to stop this."""
        stops = [self.signaling.on_event(listener), self.faults.on_event(listener)]
        if self.media is not None:
            stops.append(self.media.on_event(listener))

        def stop() -> None:
            for each in stops:
                each()

        return stop

    async def _rewrite(self, user: str, message: Message) -> Message | None:
        """Put the UDP proxy's addresses into a message; what is malformed is the relay's to refuse."""
        assert self.media is not None
        call_id, kind = message.get("callId"), message["type"]
        if not isinstance(call_id, str):
            return message
        match kind:
            case "call-offer" | "call-answer":
                if not isinstance(message.get("sdp"), str):
                    return message
                sdp = await self.media.description(call_id, user, message["sdp"])
                return {**message, "sdp": sdp}
            case "call-ice-candidate":
                init = message.get("candidate")
                if not isinstance(init, dict) or not isinstance(init.get("candidate"), str):
                    return message
                candidate = await self.media.candidate(call_id, user, init["candidate"])
                if candidate is None:
                    return None
                return {**message, "candidate": {**init, "candidate": candidate}}
            case "call-hangup" | "call-reject":
                await self.media.end_call(call_id)
        return message


def senders_of(direction: str) -> tuple[str, ...]:
    """Return whose links a direction is about; raises InvalidSetting if it is no direction of links."""
    match = _DIRECTION.fullmatch(direction)
    if match is None:
        raise InvalidSetting(f"direction={direction!r}: write 'alice->bob', or 'alice<->bob' for both")
    sender, arrow, receiver = match.groups()
    if sender == receiver and sender != "*":
        raise InvalidSetting(f"direction={direction!r}: give two different users")
    if arrow == "->":
        if sender == "*" and receiver != "*":
            raise InvalidSetting(
                f"direction={direction!r}: a link is its sender's, so name the sender, or all with '*->*'"
            )
        return (sender,)
    if (sender == "*") != (receiver == "*"):
        raise InvalidSetting(f"direction={direction!r}: write '*->*' for all, or name both users")
    return (sender,) if sender == receiver else (sender, receiver)
