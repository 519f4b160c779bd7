"""The laboratory: a service, peers, calls, faults on purpose, and a recording of it all."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from calllab.errors import CallFailed, ExpectationFailed, LabError
from calllab.lab.glare import GlareOutcome, GlareWatch
from calllab.lab.kinds import NetworkKind
from calllab.lab.lab_call import LabCall
from calllab.lab.peer import LabPeer, PeerMedia
from calllab.lab.recorder import Recorder
from calllab.lab.recording import Recording
from calllab.lab.service import ServiceProcess
from calllab.lab.truth import fault_truths, playout_members, signaling_truths
from calllab.lab.world import SocketsWorld, World, make_world
from calllab.network import Fault, LinkSettings, NetworkEvent
from calllab.rtc import MediaStream
from calllab.signaling import (
    Channel,
    FaultKind,
    PlannedFault,
    SignalingEvent,
    SignalingFault,
    SignalingFaults,
)

__all__ = ["Lab", "LabFault"]

logger = logging.getLogger(__name__)

GLARE_TIMEOUT_S = 10.0

SampleListener: TypeAlias = Callable[[float, str, Mapping[str, Any]], None]
EventListener: TypeAlias = Callable[[float, str, str, Mapping[str, Any]], None]

_DIRECTION = re.compile(r"\s*([a-z0-9._-]+)\s*(<?->)\s*([a-z0-9._-]+)\s*")


class LabFault:
    """A fault that was put into one or both directions; :meth:`end` takes it out again."""

    def __init__(self, direction: str, parts: list[tuple[LabPeer, Fault]]) -> None:
        self.direction = direction
        self._parts = parts

    def end(self) -> None:
        """End the fault now, or take it off the plan; ending twice does nothing."""
        for peer, fault in self._parts:
            peer.interface.cancel(fault)
        self._parts = []


class Lab:
    """A laboratory for calls, on the clock of the running event loop.

    Use it as ``async with calllab.Lab(seed=1) as lab:``, or cell by cell: ``lab = await Lab(seed=1).open()``
    and ``await lab.close()``.  It records what its peers do and measure.

    :param seed: every random choice of the peers, their media and their networks follows from it.
    :param out: the folder of the recording; None: it is kept in memory only.
    :param sample_every_s: how often getStats of each peer is recorded.
    :param network: ``sockets``: the calllab service as a child process, and real UDP on loopback;
        ``virtual``: a network inside this process, with hosts, NATs and a TURN server of its own; or a world
        that was made before.
    :param settings: what else ``meta.json`` should say about the run.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        out: Path | str | None = None,
        sample_every_s: float = 1.0,
        network: NetworkKind | World = "sockets",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if not sample_every_s > 0:
            raise LabError(
                f"sample_every_s is {sample_every_s}: give the seconds between two samples, above 0"
            )
        self.seed = seed
        self.peers: dict[str, LabPeer] = {}
        self.call: LabCall | None = None
        self.world = make_world(network, seed) if isinstance(network, str) else network
        self.epoch = 0.0
        self._out = None if out is None else Path(out)
        self._sample_every_s = sample_every_s
        self._settings = {"seed": seed, "time": "real", "network": self.world.network, **(settings or {})}
        self._recorder: Recorder | None = None
        self._recording: Recording | None = None
        self._stack = AsyncExitStack()
        self._signaling_faults: SignalingFaults | None = None
        self._sample_listeners: list[SampleListener] = []
        self._event_listeners: list[EventListener] = []

    # Life

    async def open(self) -> Self:
        """Bring up what the laboratory stands on, and start the recording.

        Raises :exc:`~calllab.errors.ServiceStartError` with what the service printed if it does not start.
        """
        if self._recorder is not None:
            raise LabError("this laboratory was opened before: make a new one")
        loop = asyncio.get_running_loop()
        stack = self._stack
        try:
            self._recorder = stack.enter_context(Recorder(self._out, settings=self._settings))
            await stack.enter_async_context(self.world)
            self.epoch = loop.time()
            self._signaling_faults = SignalingFaults(seed=self.seed, epoch=self.epoch)
            self._signaling_faults.on_event(self._record_signaling_fault)
            stack.callback(self._signaling_faults.close)
            sampler = loop.create_task(self._sample())
            stack.push_async_callback(_cancel, sampler)
        except BaseException:
            await stack.aclose()
            raise
        return self

    async def close(self) -> None:
        """Hang up, close all peers, end what it stands on, finish the recording; closing twice does
        nothing.
        """
        if self._recorder is not None and self._recording is None:
            await self._stack.aclose()
            self._recording = self._recorder.recording()

    async def __aenter__(self) -> Self:
        """Open the laboratory."""
        return await self.open()

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the laboratory."""
        await self.close()

    @property
    def service(self) -> ServiceProcess:
        """The service process, in a laboratory on real sockets; raises LabError on a virtual network."""
        if not isinstance(self.world, SocketsWorld):
            raise LabError("this laboratory is on a virtual network: there is no service process")
        return self.world.service

    @property
    def now_s(self) -> float:
        """Seconds since the start of the recording."""
        return asyncio.get_running_loop().time() - self.epoch

    @property
    def recording(self) -> Recording:
        """All that has been recorded so far; it stays when the laboratory is closed."""
        if self._recording is not None:
            return self._recording
        return self._open_recorder.recording()

    @property
    def _open_recorder(self) -> Recorder:
        if self._recorder is None:
            raise LabError("the laboratory is not open: use `async with Lab() as lab`, or `await lab.open()`")
        return self._recorder

    # Peers and calls

    async def peer(
        self,
        name: str,
        *,
        audio: bool = True,
        video: bool = True,
        width: int = 320,
        height: int = 240,
        fps: float = 15.0,
        encoded: bool = False,
        stream: Callable[[], MediaStream] | None = None,
        turn_api: Any = None,
        link: LinkSettings | None = None,
        middlebox: Callable[[Channel], Channel] | None = None,
    ) -> LabPeer:
        """Add a user who is reachable and accepts calls.

        What it sends is generated: speech and a moving test picture of the given size and rate.

        :param encoded: send what was encoded once, before the call, over and over: little work, but no time
            codes that would tell latency, and a bitrate that follows nobody.
        :param stream: makes what it sends instead in each call: from a file or device by
            :class:`calllab.media.MediaPlayer`, or from tracks of your own; stopped when the call ends.
        :param turn_api: where this peer gets TURN credentials from; None: what the laboratory offers.
        :param link: what this peer's link does to all it sends as long as no fault is on.
        :param middlebox: wraps the peer's signaling channel, see :class:`calllab.lab.middlebox.SdpMiddlebox`.
        """
        recorder = self._open_recorder
        if name in self.peers:
            raise LabError(f"there is a peer {name!r} already: choose another name")
        media = PeerMedia(audio=audio, video=video, width=width, height=height, fps=fps, encoded=encoded)
        peer = await self._stack.enter_async_context(
            LabPeer(self, name, media, stream=stream, turn_api=turn_api, link=link, middlebox=middlebox)
        )
        recorder.add_peer(
            name, {"audio": audio, "video": video, "width": width, "height": height, "fps": fps}
        )
        peer.interface.on_event(lambda event: self._record_fault(peer, event))
        self.peers[name] = peer
        return peer

    async def connect(
        self, caller: LabPeer, callee: str, ice_transport_policy: Literal["all", "relay"], timeout: float
    ) -> LabCall:
        """Let ``caller`` call ``callee`` (see :meth:`LabPeer.call`)."""
        other = self._peer(callee)
        for peer in (caller, other):
            peer.phone.ice_transport_policy = ice_transport_policy
        call = LabCall(caller, other, await caller.phone.call(callee))
        try:
            await call.wait_connected(timeout)
        except TimeoutError:
            await call.hang_up()
            raise CallFailed(
                f"{caller.name} and {callee} were not connected after {timeout:g} s", reason="failed"
            ) from None
        except BaseException:
            await call.hang_up()
            raise
        self.call = call
        return call

    # Breaking on purpose

    async def glare(self, call: LabCall | None = None) -> GlareOutcome:
        """Let both sides offer at once: both add a video track, both offers are held until both exist.

        Raises :exc:`~calllab.errors.ExpectationFailed` unless exactly one peer ignored the other's offer and
        the other one rolled back its own.
        """
        call = call or self._connected_call()
        watch, gaps = GlareWatch(), _GapMeter(self, call)
        unsubscribe = self.on_event(watch)
        self.record_truth(
            "planned", {"cause": "glare", "direction": "signaling", "at_s": self.now_s, "for_s": 0.0}
        )
        try:
            with gaps:
                async with asyncio.timeout(GLARE_TIMEOUT_S):
                    released_s = await self._cross_offers(call)
                    while not (watch.ignored and watch.rolled_back and self._settled(call)):
                        watch.changed.clear()
                        await watch.changed.wait()
                took_s = self.now_s - released_s
                await asyncio.sleep(0.5)  # what the switch does to the sound shows a moment later
        except TimeoutError:
            raise ExpectationFailed(
                f"the glare was not resolved within {GLARE_TIMEOUT_S:g} s: "
                f"signaling states {[call.side(p).pc.signalingState for p in call.peers]}"
            ) from None
        finally:
            unsubscribe()
        return watch.judge(took_s, gaps.longest_s)

    async def _cross_offers(self, call: LabCall) -> float:
        first, second = call.peers
        with first.channel.hold("call-offer") as one, second.channel.hold("call-offer") as other:
            for peer in call.peers:
                peer.add_video()
            await asyncio.gather(one.arrived(1), other.arrived(1))
        return self.now_s

    def _settled(self, call: LabCall) -> bool:
        managers = [call.side(peer).manager for peer in call.peers]
        return all(manager is not None and manager.is_settled for manager in managers)

    def fault(
        self, direction: str, *, at_s: float | None = None, for_s: float | None = None, **settings: Any
    ) -> LabFault:
        """Impair what goes from one peer to another, as ``"alice->bob"`` or ``"alice<->bob"``.

        :param at_s: when it begins, in seconds of the recording; None: now.
        :param for_s: how long it lasts; None: until :meth:`LabFault.end`.
        :param settings: what is impaired and how much, see :class:`calllab.network.LinkSettings`:
            ``loss=0.08``, ``delay_ms=120``, ``jitter_ms=20``, ``rate_kbps=300``, ``blackout=True``...

        ``alice->bob`` is all that Alice sends, her packets to the TURN server too.
        """
        match = _DIRECTION.fullmatch(direction)
        if match is None or match[1] == match[3]:
            raise LabError(f"{direction!r} is no direction: write 'alice->bob', or 'alice<->bob' for both")
        senders = [self._peer(match[1])]
        other = self._peer(match[3])
        if match[2] == "<->":
            senders.append(other)
        if not settings:
            raise LabError(f"nothing to impair from {direction}: name a setting, as in loss=0.08")
        parts = [(peer, peer.interface.fault(at_s=at_s, for_s=for_s, **settings)) for peer in senders]
        return LabFault(direction, parts)

    def signaling_fault(
        self,
        kind: FaultKind,
        direction: str = "*->*",
        *,
        at_s: float | None = None,
        for_s: float | None = None,
        **settings: Any,
    ) -> PlannedFault:
        """Let something happen to signaling, as in ``lab.signaling_fault("drop", "alice->bob", count=1)``.

        :param at_s: when it begins, in seconds of the recording; None: now.
        :param for_s: how long it lasts; None: until ``lab.signaling_faults.cancel(...)`` of what is returned.
        :param settings: see :class:`calllab.signaling.SignalingFault`: ``types=("call-offer",)``,
            ``delay_ms=500``, ``probability=0.5``...; ``disconnect`` takes ``peer="alice"`` and no direction.
        """
        begins_s = self.now_s if at_s is None else at_s
        fault = SignalingFault(kind=kind, direction=direction, at_s=begins_s, for_s=for_s, **settings)
        for name in fault.users:
            self._peer(name)
        return self.signaling_faults.plan(fault)

    @property
    def signaling_faults(self) -> SignalingFaults:
        """What is planned to happen to signaling messages; plan more with its ``plan``."""
        if self._signaling_faults is None:
            raise LabError("the laboratory is not open: use `async with Lab() as lab`, or `await lab.open()`")
        return self._signaling_faults

    def change_network(self, name: str) -> None:
        """Move a peer to another network: its present sockets are dead for good, new ones work.

        Media does not come back without an ICE restart, which the peer connection manager does by itself.
        """
        self._peer(name).interface.change_network()

    async def run_for(self, seconds: float) -> None:
        """Let the call go on for so many seconds."""
        await asyncio.sleep(seconds)

    def panel(self) -> Any:
        """Return a live panel for JupyterLab: call, hang up, glare, faults per direction, charts."""
        # The layer above, by name: the laboratory works without ipywidgets until a person wants to see it.
        return import_module("calllab.widgets").Panel(self)

    # Recording

    def on_sample(self, listener: SampleListener) -> Callable[[], None]:
        """Call ``listener`` with time, peer and getStats report after each sample; returns how to stop."""
        self._sample_listeners.append(listener)
        return lambda: self._sample_listeners.remove(listener)

    def on_event(self, listener: EventListener) -> Callable[[], None]:
        """Call ``listener`` with time, peer, name and members of each event; returns how to stop."""
        self._event_listeners.append(listener)
        return lambda: self._event_listeners.remove(listener)

    def record_event(self, peer: str, event: str, members: Mapping[str, Any]) -> None:
        """Record an event of a peer, at this moment."""
        t_s = self.now_s
        self._open_recorder.event(t_s, peer, event, members)
        for listener in list(self._event_listeners):
            listener(t_s, peer, event, members)

    def note(self, name: str, value: Any) -> None:
        """Write something else that is worth knowing into the recording's ``meta.json``."""
        self._open_recorder.note(name, value)

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        due = self.epoch
        while True:
            due += self._sample_every_s
            # A sample that took longer than its turn is not made up for: the next one keeps the rhythm.
            due = max(due, loop.time())
            await asyncio.sleep(due - loop.time())
            for peer in list(self.peers.values()):
                try:
                    await self._sample_peer(peer)
                except Exception:
                    logger.exception("a sample of %s failed", peer.name)

    async def _sample_peer(self, peer: LabPeer) -> None:
        call = peer.current
        if call is None or call.state == "ended" or call.manager is None:
            return
        for track_id, played in peer.take_playout().items():
            self.record_event(peer.name, "playout", playout_members(call, track_id, played))
        report = await call.manager.get_stats()
        t_s = self.now_s
        self._open_recorder.stats(t_s, peer.name, call.id, report)
        for listener in list(self._sample_listeners):
            listener(t_s, peer.name, report)

    def _record_fault(self, peer: LabPeer, event: NetworkEvent) -> None:
        others = [name for name in self.peers if name != peer.name]
        direction = f"{peer.name}->{others[0]}" if len(others) == 1 else f"{peer.name}->*"
        for kind, fault in fault_truths(event, direction):
            self.record_truth(kind, fault)

    def _record_signaling_fault(self, event: SignalingEvent) -> None:
        for kind, fault in signaling_truths(event):
            self.record_truth(kind, fault)

    def record_truth(self, kind: Literal["planned", "realised"], fault: Mapping[str, Any]) -> None:
        """Write down what was done on purpose; diagnosis never reads it."""
        self._open_recorder.truth(self.now_s, kind, fault)

    # Lookups

    def _peer(self, name: str) -> LabPeer:
        if name not in self.peers:
            known = ", ".join(self.peers) or "nobody yet"
            raise LabError(
                f"there is no peer {name!r} in this laboratory ({known}): await lab.peer({name!r}) first"
            )
        return self.peers[name]

    def _connected_call(self) -> LabCall:
        if self.call is None or self.call.state != "connected":
            raise LabError("there is no connected call: call = await alice.call('bob') first")
        return self.call


class _GapMeter:
    """Measures the longest silence between decoded audio frames of a call, per direction."""

    def __init__(self, lab: Lab, call: LabCall) -> None:
        self.longest_s: dict[str, float] = {}
        self._call = call
        self._stack: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        caller, callee = self._call.peers
        for listener, speaker in ((caller, callee), (callee, caller)):
            direction = f"{speaker.name}->{listener.name}"
            self._stack.append(listener.on_audio_frame(self._meter(direction)))
        return self

    def __exit__(self, *exc_info: object) -> None:
        for stop in self._stack:
            stop()

    def _meter(self, direction: str) -> Callable[[str, float], None]:
        last: dict[str, float] = {}

        def heard(track_id: str, at: float) -> None:
            if track_id in last:
                self.longest_s[direction] = max(self.longest_s.get(direction, 0.0), at - last[track_id])
            last[track_id] = at

        return heard


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
