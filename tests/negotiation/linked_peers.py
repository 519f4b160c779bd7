"""Two peer connection managers linked by signaling that is ordered and late."""

from __future__ import annotations

import asyncio
import fractions
import random
from collections.abc import Mapping
from typing import Any

from av import VideoFrame

from calllab.negotiation import PeerConnectionConfig, PeerConnectionManager
from calllab.network import NetworkInterface, VirtualNetwork
from calllab.rtc import MediaStream, MediaStreamError, MediaStreamTrack


class SmallVideo(MediaStreamTrack):
    """Ten small frames a second, each in another grey."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._began_s = 0.0

    async def recv(self) -> VideoFrame:
        """Return the next frame when it is due."""
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        if self._count == 0:
            self._began_s = loop.time()
        await asyncio.sleep(max(0.0, self._began_s + self._count / 10 - loop.time()))
        frame = VideoFrame(64, 48, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes([self._count * 7 % 256]) * plane.buffer_size)
        frame.pts, frame.time_base = self._count * 9000, fractions.Fraction(1, 90000)
        self._count += 1
        return frame


class LateSignaling:
    """Carries what one manager sends to the other, in order, each message after a random delay."""

    def __init__(self, entropy: random.Random, longest_delay_s: float) -> None:
        self.to: PeerConnectionManager | None = None
        self.delivered = 0
        self._entropy = entropy
        self._longest_delay_s = longest_delay_s
        self._queue: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._handling: set[asyncio.Future[None]] = set()
        self._pump = asyncio.get_running_loop().create_task(self._deliver())

    async def send(self, message: Mapping[str, Any]) -> None:
        """Put a message on its way."""
        self._queue.put_nowait(message)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way or being handled."""
        return self._queue.empty() and all(handling.done() for handling in self._handling)

    async def _deliver(self) -> None:
        while True:
            message = await self._queue.get()
            await asyncio.sleep(self._entropy.uniform(0, self._longest_delay_s))
            assert self.to is not None
            self.delivered += 1
            match message["type"]:
                case "call-offer":
                    begun = self.to.handle_remote_description({"type": "offer", "sdp": message["sdp"]})
                case "call-answer":
                    begun = self.to.handle_remote_description({"type": "answer", "sdp": message["sdp"]})
                case "call-ice-candidate":
                    begun = self.to.handle_ice_candidate(message["candidate"])
                case other:
                    raise AssertionError(f"unexpected message {other}")
            self._handling.add(asyncio.ensure_future(begun))

    async def close(self) -> None:
        """Stop carrying."""
        self._pump.cancel()
        await asyncio.gather(self._pump, *self._handling, return_exceptions=True)


class LinkedPeers:
    """An impolite and a polite manager in one call, on hosts of ``network`` if there is one."""

    def __init__(self, seed: int, network: VirtualNetwork | None = None) -> None:
        entropy = random.Random(seed)
        self._seed = seed
        self._interfaces = [
            None if network is None else NetworkInterface(seed=seed, name=name, host=network.add_host(name))
            for name in ("impolite", "polite")
        ]
        longest_delay_s = entropy.choice([0.005, 0.03, 0.08])
        self.signaling = [LateSignaling(random.Random(entropy.random()), longest_delay_s) for _ in range(2)]
        self.events: list[tuple[int, str, Mapping[str, Any]]] = []
        self.managers = [self._make(side, f"call-{seed}") for side in (0, 1)]
        for side in (0, 1):
            self.signaling[side].to = self.managers[1 - side]
            self.managers[side].initialize()

    def _make(self, side: int, call_id: str) -> PeerConnectionManager:
        def note(event: str, members: Mapping[str, Any]) -> None:
            self.events.append((side, event, members))

        def on_track(stream: MediaStream) -> None:
            assert stream.getTracks()

        return PeerConnectionManager(
            PeerConnectionConfig(
                is_polite=side == 1,
                on_track=on_track,
                on_ice_connection_state_change=lambda state: None,
                signaling=self.signaling[side],
                call_id=call_id,
                remote_user_id=f"peer-{1 - side}",
                on_event=note,
                interface=self._interfaces[side],
                entropy=None if self._interfaces[side] is None else random.Random(f"{self._seed}/{side}"),
            )
        )

    async def close(self) -> None:
        """Close both managers and their signaling."""
        for signaling in self.signaling:
            await signaling.close()
        for manager in self.managers:
            await manager.close()
        for interface in self._interfaces:
            if interface is not None:
                interface.close()
