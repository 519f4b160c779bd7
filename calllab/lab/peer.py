"""One user of a laboratory: an account, a signaling channel, a network interface, a phone and its media."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from calllab.call import Call, Phone
from calllab.errors import LabError
from calllab.media import (
    EncodedSpeechTrack,
    EncodedVideoTrack,
    MediaSink,
    PlayoutSummary,
    SpeechTrack,
    TestPatternTrack,
)
from calllab.network import LinkSettings
from calllab.rtc import MediaStream, MediaStreamTrack, RTCDataChannel, RTCRtpSender
from calllab.signaling import Channel, FaultyChannel

if TYPE_CHECKING:
    from calllab.lab.lab import Lab
    from calllab.lab.lab_call import LabCall

__all__ = ["LabPeer", "PeerMedia"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PeerMedia:
    """What a peer sends in each call."""

    audio: bool = True
    video: bool = True
    width: int = 320
    height: int = 240
    fps: float = 15.0
    encoded: bool = False
    """Whether it was encoded before the call, and is repeated."""


class LabPeer:
    """A user who has an account and is reachable; incoming calls are accepted.

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
        link: LinkSettings | None = None,
        middlebox: Callable[[Channel], Channel] | None = None,
    ) -> None:
        self.name = name
        self.media = media
        self.sinks: dict[str, MediaSink] = {}
        self._lab = lab
        self._stream = stream
        self._turn_api = turn_api
        self._link = link
        self._middlebox = middlebox
        self._seed = random.Random(f"{lab.seed}/{name}")
        self._stack = AsyncExitStack()
        self._extra_tracks: list[MediaStreamTrack] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._muted: dict[str, list[tuple[RTCRtpSender, MediaStreamTrack]]] = {}
        self._frame_listeners: list[Callable[[str, float], None]] = []
        self._pattern_count = 0

    async def __aenter__(self) -> Self:
        """Become reachable: an account, signaling, a network interface, a phone that is picked up."""
        name, lab, stack = self.name, self._lab, self._stack
        try:
            access = await lab.world.join(name, self._entropy, stack)
            channel = access.channel if self._middlebox is None else self._middlebox(access.channel)
            self.channel = FaultyChannel(
                channel, entropy=self._entropy("signaling faults"), faults=lab.signaling_faults
            )
            await stack.enter_async_context(self.channel)
            self.interface = lab.world.interface(
                name, self._link, seed=self._seed.getrandbits(64), epoch=lab.epoch
            )
            stack.callback(self.interface.close)
            stack.push_async_callback(self._stop_media)
            self.phone = await stack.enter_async_context(
                Phone(
                    self.channel,
                    local_stream=self._stream or self._make_stream,
                    turn_api=self._turn_api or access.turn_api,
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
        return self._add(self._pattern())

    def add_audio(self) -> MediaStreamTrack:
        """Add another voice to the current call; negotiation follows by itself."""
        return self._add(self._voice())

    def remove_video(self) -> None:
        """Take the picture that came last out of the current call; negotiation follows by itself."""
        pc = self._call_now().pc
        sending = [sender for sender in pc.getSenders() if sender.track and sender.track.kind == "video"]
        if not sending:
            raise LabError(f"{self.name} sends no picture: {self.name}.add_video() first")
        track = sending[-1].track
        pc.removeTrack(sending[-1])
        assert track is not None
        track.stop()

    async def mute(self, kind: Literal["audio", "video"]) -> None:
        """Take away the sources of a kind, so that nothing of it is sent; nothing is negotiated."""
        muted = self._muted.setdefault(kind, [])
        for sender in self._call_now().pc.getSenders():
            if (track := sender.track) is not None and track.kind == kind:
                await sender.replaceTrack(None)
                muted.append((sender, track))

    async def unmute(self, kind: Literal["audio", "video"]) -> None:
        """Bring back the sources that :meth:`mute` took away."""
        for sender, track in self._muted.pop(kind, []):
            await sender.replaceTrack(track)

    def restart_ice(self) -> None:
        """Ask for new ICE credentials and candidates in the current call; negotiation follows by itself."""
        manager = self._call_now().manager
        if manager is None:
            raise LabError(f"{self.name} has no peer connection yet: wait until the call is accepted")
        manager.restart_ice()

    async def open_data_channel(self, label: str) -> RTCDataChannel:
        """Open a data channel in the current call, and return it when it is open."""
        data = self._call_now().pc.createDataChannel(label)
        opened = asyncio.Event()
        for state in ("open", "close"):
            data.on(state, partial(self._on_event, "datachannel", {"label": label, "state": state}))
            data.on(state, opened.set)
        if data.readyState == "connecting":
            await opened.wait()
        return data

    def _add(self, track: MediaStreamTrack) -> MediaStreamTrack:
        call = self._call_now()
        assert call.local_stream is not None
        self._extra_tracks.append(track)
        call.pc.addTrack(track, call.local_stream)
        return track

    def _call_now(self) -> Call:
        call = self.current
        if call is None or call.state == "ended" or call.local_stream is None:
            raise LabError(f"{self.name} is in no call: await {self.name}.call(...) first")
        return call

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
            tracks.append(self._voice())
        if self.media.video:
            tracks.append(self._pattern())
        return MediaStream(tracks, id=f"{self._seed.getrandbits(128):032x}")

    def _voice(self) -> MediaStreamTrack:
        seed = self._seed.getrandbits(32)
        return EncodedSpeechTrack(seed=seed) if self.media.encoded else SpeechTrack(seed=seed)

    def _pattern(self) -> MediaStreamTrack:
        self._pattern_count += 1
        media = self.media
        if media.encoded:
            return EncodedVideoTrack(media.width, media.height, media.fps, seed=self._seed.getrandbits(32))
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
        muted = [track for pairs in self._muted.values() for _, track in pairs]
        for track in (*self._extra_tracks, *muted):
            track.stop()
        await asyncio.gather(*(sink.stop() for sink in self.sinks.values()))

    async def end_of_call(self) -> None:
        """Stop what belonged to the call that has ended."""
        await self._stop_media()
        self._extra_tracks.clear()
        self._muted.clear()
        self.sinks.clear()

    # Observation

    def _on_event(self, event: str, members: Mapping[str, Any]) -> None:
        self._lab.record_event(self.name, event, members)

    def _entropy(self, purpose: str) -> random.Random:
        return random.Random(f"{self._lab.seed}/{self.name}/{purpose}")

    def __repr__(self) -> str:
        """Say who, and in which call."""
        return f"<LabPeer {self.name}: {self.current!r}>"
