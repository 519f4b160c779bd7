"""One user of a laboratory: an account, a signaling channel, a network interface, a phone and its media."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from calllab.call import Call, Phone
from calllab.errors import LabError
from calllab.media import MediaSink, PlayoutSummary, SpeechTrack, TestPatternTrack
from calllab.network import NetworkInterface
from calllab.rtc import MediaStream, MediaStreamTrack
from calllab.signaling import FaultyChannel, RelayChannel, ServiceSession, TurnApi

if TYPE_CHECKING:
    from calllab.lab.lab import Lab
    from calllab.lab.lab_call import LabCall

__all__ = ["LabPeer", "PeerMedia"]

logger = logging.getLogger(__name__)

# Accounts live in a database that is thrown away with the laboratory, on loopback.
_PASSWORD = "a password of the laboratory"


@dataclass(frozen=True, kw_only=True)
class PeerMedia:
    """What a peer sends in each call."""

    audio: bool = True
    video: bool = True
    width: int = 320
    height: int = 240
    fps: float = 15.0


class LabPeer:
    """A user who is registered, logged in and reachable; incoming calls are accepted.

    ``interface`` is the peer's network: what leaves it passes one impaired link (see
    :class:`calllab.network.NetworkInterface`).  ``channel`` is its signaling, where messages can be held,
    delayed, dropped and duplicated (see :class:`calllab.signaling.FaultyChannel`).
    """

    def __init__(
        self,
        lab: Lab,
        name: str,
        media: PeerMedia,
        *,
        stream: Callable[[], MediaStream] | None = None,
        turn_api: Any = None,
    ) -> None:
        self.name = name
        self.media = media
        self.sinks: dict[str, MediaSink] = {}
        self._lab = lab
        self._stream = stream
        self._turn_api = turn_api
        self._seed = random.Random(f"{lab.seed}/{name}")
        self._stack = AsyncExitStack()
        self._extra_tracks: list[MediaStreamTrack] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._frame_listeners: list[Callable[[str, float], None]] = []
        self._pattern_count = 0

    async def __aenter__(self) -> Self:
        """Register, log in, open signaling, pick up the phone."""
        name, lab, stack = self.name, self._lab, self._stack
        try:
            session = await stack.enter_async_context(ServiceSession(lab.service.http_url))
            await session.register(name, _PASSWORD)
            await session.login(name, _PASSWORD)
            channel = await RelayChannel.open(session, entropy=self._entropy("signaling"))
            self.channel = FaultyChannel(channel, entropy=self._entropy("signaling faults"))
            await stack.enter_async_context(self.channel)
            self.interface = NetworkInterface(seed=self._seed.getrandbits(64), name=name, epoch=lab.epoch)
            stack.callback(self.interface.close)
            stack.push_async_callback(self._stop_media)
            self.phone = await stack.enter_async_context(
                Phone(
                    self.channel,
                    local_stream=self._stream or self._make_stream,
                    turn_api=self._turn_api or TurnApi(session),
                    interface=self.interface,
                    entropy=self._entropy("phone"),
                    on_track=self._on_track,
                    on_event=self._on_event,
                )
            )
        except BaseException:
            await stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Hang up, close everything in the opposite order."""
        await self._stack.aclose()

    @property
    def current(self) -> Call | None:
        """The call this peer is in, or was in last."""
        return self.phone.current

    async def call(
        self, callee: str, *, ice_transport_policy: Literal["all", "relay"] = "all", timeout: float = 30.0
    ) -> LabCall:
        """Call another peer of the laboratory and return the call once both sides are connected.

        Raises :exc:`~calllab.errors.CallFailed` with the reason if it ends before, and
        :exc:`~calllab.errors.LabError` if there is no such peer.
        """
        return await self._lab.connect(self, callee, ice_transport_policy, timeout)

    def add_video(self) -> MediaStreamTrack:
        """Add another moving test picture to the current call; negotiation follows by itself."""
        call = self.current
        if call is None or call.state == "ended" or call.local_stream is None:
            raise LabError(f"{self.name} is in no call: await {self.name}.call(...) first")
        track = self._pattern()
        self._extra_tracks.append(track)
        call.pc.addTrack(track, call.local_stream)
        return track

    def on_audio_frame(self, listener: Callable[[str, float], None]) -> Callable[[], None]:
        """Call ``listener`` with track id and loop time of each decoded audio frame; returns how to stop."""
        self._frame_listeners.append(listener)
        return lambda: self._frame_listeners.remove(listener)

    def take_playout(self) -> dict[str, PlayoutSummary]:
        """Return what was played since the last time, per track id."""
        summaries = {track_id: sink.take() for track_id, sink in self.sinks.items()}
        self.sinks = {track_id: sink for track_id, sink in self.sinks.items() if not sink.ended}
        return summaries

    # Media

    def _make_stream(self) -> MediaStream:
        tracks: list[MediaStreamTrack] = []
        if self.media.audio:
            tracks.append(SpeechTrack(seed=self._seed.getrandbits(32)))
        if self.media.video:
            tracks.append(self._pattern())
        return MediaStream(tracks)

    def _pattern(self) -> TestPatternTrack:
        self._pattern_count += 1
        media = self.media
        return TestPatternTrack(
            media.width,
            media.height,
            media.fps,
            seed=self._seed.getrandbits(32),
            label=f"{self.name} {self._pattern_count}",
        )

    def _on_track(self, call: Call, stream: MediaStream) -> None:
        for track in stream.getTracks():
            known = self.sinks.get(track.id)
            if known is not None and not known.ended:
                continue
            heard = self._audio_listener(track.id) if track.kind == "audio" else None
            sink = self.sinks[track.id] = MediaSink(track, on_frame=heard)
            sink.start()

    def _audio_listener(self, track_id: str) -> Callable[[Any], None]:
        clock = asyncio.get_running_loop().time

        def heard(_: Any) -> None:
            for listener in self._frame_listeners:
                listener(track_id, clock())

        return heard

    async def _stop_media(self) -> None:
        for track in self._extra_tracks:
            track.stop()
        await asyncio.gather(*(sink.stop() for sink in self.sinks.values()))

    async def end_of_call(self) -> None:
        """Stop what belonged to the call that has ended."""
        await self._stop_media()
        self._extra_tracks.clear()
        self.sinks.clear()

    # Observation

    def _on_event(self, event: str, members: Mapping[str, Any]) -> None:
        self._lab.record_event(self.name, event, members)

    def _entropy(self, purpose: str) -> random.Random:
        return random.Random(f"{self._lab.seed}/{self.name}/{purpose}")

    def __repr__(self) -> str:
        """Say who, and in which call."""
        return f"<LabPeer {self.name}: {self.current!r}>"
