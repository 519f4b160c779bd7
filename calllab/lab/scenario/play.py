"""Playing a scenario in a laboratory: its peers, its timeline, its faults."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from calllab.call import Call
from calllab.errors import CallFailed, ExpectationFailed
from calllab.lab.kinds import ClockKind, NetworkKind
from calllab.lab.lab import Lab
from calllab.lab.lab_call import LabCall
from calllab.lab.middlebox import SdpAlteration, SdpMiddlebox
from calllab.lab.peer import LabPeer
from calllab.lab.recording import Recording
from calllab.lab.scenario import actions
from calllab.lab.scenario.check import directions, link_of, nat_settings, profile_name
from calllab.lab.scenario.model import Scenario, TurnServerSpec, VideoSpec
from calllab.lab.scenario.progress import Progress, ProgressListener
from calllab.lab.scenario.turn_credentials import PeerCredentials
from calllab.lab.scenario.turn_faults import TurnFaults
from calllab.lab.virtual_world import VirtualWorld
from calllab.lab.world import SocketsWorld, World
from calllab.network import LinkSettings, NetworkEvent, VirtualNetwork, VirtualTurnServer, profile
from calllab.rtc import RTCDataChannel
from calllab.signaling import Channel, SignalingEvent

__all__ = ["play"]

CALL_TIMEOUT_S = 60.0
HANG_UP_S = 3.0
"""How long the end of a run waits for both sides to have hung up: less than a path needs to be given up."""


async def play(
    scenario: Scenario,
    *,
    time: ClockKind,
    network: NetworkKind,
    out: Path | None = None,
    progress: ProgressListener | None = None,
) -> Recording:
    """Play ``scenario`` on the clock of the running loop, and return the recording.

    What an action of the scenario could not do is written to ``problems`` in the recording's ``meta.json``.

    :param time: what the running loop's clock is, for the record.
    """
    settings = {
        "time": time,
        "codecs": "real" if time == "real" and scenario.codecs == "stand-in" else scenario.codecs,
        "scenario": msgspec.to_builtins(scenario),
    }
    lab = Lab(
        seed=scenario.seed,
        out=out,
        sample_every_s=scenario.sample_every_s,
        network=_world(scenario, network),
        settings=settings,
    )
    stage = _Stage(scenario, lab, progress or _ignore)
    async with lab:
        await stage.set_up()
        await stage.play()
        lab.note("problems", stage.problems)
    return lab.recording


def _world(scenario: Scenario, network: NetworkKind) -> World:
    servers = scenario.servers
    stun, turn = int(servers.stun), bool(servers.turn)
    if network == "sockets":
        return SocketsWorld(stun=bool(stun), turn=turn, users=tuple(scenario.peers))
    hosts = VirtualNetwork(seed=scenario.seed)
    shared = scenario.network.nats
    for name, settings in shared.items():
        hosts.add_nat(name, nat_settings(settings))
    for name, peer in scenario.peers.items():
        nat = peer.nat
        if isinstance(nat, str) and nat not in shared:
            nat = nat_settings(nat)
        hosts.add_host(name, nat=nat, costs=peer.costs)
    return VirtualWorld(hosts, seed=scenario.seed, stun=stun, turn=turn)


@dataclass(frozen=True)
class _Step:
    """Something that happens at a time; what ends then ends before anything begins."""

    at_s: float
    begins: bool
    words: str
    work: Callable[[], Coroutine[Any, Any, None]]
    action: actions.Action | None
    """None: a server does it."""


class _Stage:
    """One run of one scenario."""

    def __init__(self, scenario: Scenario, lab: Lab, progress: ProgressListener) -> None:
        self.problems: list[str] = []
        self._scenario = scenario
        self._lab = lab
        self._progress = progress
        self._calls: list[LabCall] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._is_over = False

    async def set_up(self) -> None:
        """Make peers and servers as the scenario wants them, and plan the faults."""
        scenario, lab = self._scenario, self._lab
        lab.on_sample(lambda t_s, peer, report: self._tell(""))
        for name in scenario.peers:
            await self._add_peer(name)
            lab.peers[name].interface.on_event(partial(self._tell_fault, name))
        lab.signaling_faults.on_event(self._tell_signaling_fault)
        if isinstance(lab.world, VirtualWorld):
            self._set_routes(lab.world.virtual_network)
        for truth in scenario.truth:
            lab.record_truth(
                "planned", msgspec.to_builtins(truth) | {"at_s": truth.at_s, "for_s": truth.for_s}
            )
        for fault in scenario.faults:
            lab.fault(fault.direction, at_s=fault.at_s, for_s=fault.for_s, **fault.changes)
        for planned in scenario.signaling_faults:
            lab.signaling_faults.plan(planned)

    async def play(self) -> None:
        """Let happen what the timeline says until the end."""
        async with AsyncExitStack() as stack:
            tasks: set[asyncio.Task[None]] = set()
            stack.push_async_callback(_cancel_all, tasks)
            stack.push_async_callback(_cancel_all, self._sending)
            for step in sorted(self._plan(), key=lambda step: (step.at_s, step.begins)):
                await self._wait_until(step.at_s)
                self._tell(step.words)
                tasks.add(asyncio.get_running_loop().create_task(self._attempt(step)))
            await self._wait_until(self._scenario.duration_s)
            self._is_over = True
        await self._end_calls()
        self._tell("end")

    async def _end_calls(self) -> None:
        """Hang up what is up; a signaling fault that is still on may keep the other side from hearing it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANG_UP_S):
                for call in self._calls:
                    if call.state != "ended":
                        await call.hang_up()

    # Setting up

    def _set_routes(self, network: VirtualNetwork) -> None:
        scenario = self._scenario
        for name, peer in self._lab.peers.items():
            if (named := profile_name(scenario, name)) is None:
                continue
            of = profile(named)
            links = [peer.interface]
            for other in (*scenario.peers, *scenario.servers.hosts):
                if other != name:
                    links.append(network.set_route(other, name, of.down))
            for at_s, for_s, changes in of.faults(scenario.duration_s):
                for link in links:
                    link.fault(at_s=at_s, for_s=for_s, **changes)
        for route in scenario.network.routes:
            network.set_route(route.source, route.to, LinkSettings(**route.changes))

    async def _add_peer(self, name: str) -> None:
        scenario, lab = self._scenario, self._lab
        spec = scenario.peers[name]
        video = spec.video if isinstance(spec.video, VideoSpec) else VideoSpec()
        alterations = self._alterations(name)
        credentials = None
        if spec.turn_credentials != "right" or spec.turn_ttl_s is not None:
            credentials = PeerCredentials(lab.world, name, spec.turn_credentials, spec.turn_ttl_s)
        peer = await lab.peer(
            name,
            audio=spec.audio,
            video=bool(spec.video),
            width=video.width,
            height=video.height,
            fps=video.fps,
            encoded=scenario.codecs == "packets",
            turn_api=credentials,
            link=link_of(scenario, name),
            middlebox=(lambda channel: _middlebox(channel, alterations)) if alterations else None,
        )
        if spec.answers != "accept":
            peer.phone.on_incoming = _reject if spec.answers == "reject" else _ignore_call
        if scenario.network.signaling_delay_ms:
            peer.channel.delay(scenario.network.signaling_delay_ms / 1000)

    def _alterations(self, name: str) -> list[SdpAlteration]:
        epoch = self._lab.epoch
        return [
            SdpAlteration(
                recipient,
                fault.alter,
                fault.kind,
                epoch + fault.at_s,
                math.inf if fault.for_s is None else epoch + fault.at_s + fault.for_s,
            )
            for fault in self._scenario.sdp_faults
            for sender, recipient in directions(fault.direction)
            if sender == name
        ]

    # The timeline

    def _plan(self) -> Iterator[_Step]:
        for action in self._scenario.timeline:
            yield _Step(action.at_s, True, _words(action), partial(self._act, action), action)
        turn = self._scenario.servers.turn
        if isinstance(turn, TurnServerSpec):
            for at_s, begins, words, change in TurnFaults(turn.faults).steps():
                yield _Step(at_s, begins, words, partial(self._change_turn, change), None)

    async def _attempt(self, step: _Step) -> None:
        try:
            await step.work()
        except asyncio.CancelledError:
            if self._is_over and not self._may_go_on(step.action):
                self._problem(step, "was not finished when the run ended")
            raise
        except Exception as exc:
            if not self._is_expected(exc, step.action):
                self._problem(step, str(exc) or type(exc).__name__)
                self._tell(f"{step.words} failed: {exc}")

    def _problem(self, step: _Step, what: str) -> None:
        self.problems.append(f"{self._lab.now_s:.3f} s, {step.words}: {what}")

    def _is_expected(self, error: Exception, action: actions.Action | None) -> bool:
        """Whether the scenario is about this: what it expects is judged by the recording, then."""
        if isinstance(error, CallFailed):
            return self._expects_no_call_of(action)
        return isinstance(error, ExpectationFailed) and self._expects_unresolved_glare()

    def _may_go_on(self, action: actions.Action | None) -> bool:
        """Whether the scenario expects that this action never comes to its end."""
        match action:
            case actions.CallPeer():
                return self._expects_no_call_of(action)
            case actions.Glare():
                return self._expects_unresolved_glare()
        return self._scenario.expect.connection in ("never", "lost")

    def _expects_no_call_of(self, action: actions.Action | None) -> bool:
        expect = self._scenario.expect
        return expect.connection == "never" or (action is not None and action.by in expect.end_reason)

    def _expects_unresolved_glare(self) -> bool:
        expect = self._scenario.expect
        return expect.glare is not None and not expect.glare.resolved

    async def _act(self, action: actions.Action) -> None:
        peer = self._lab.peers[action.by]
        match action:
            case actions.CallPeer(to=to, policy=policy):
                call = await peer.call(to, ice_transport_policy=policy, timeout=CALL_TIMEOUT_S)
                self._calls.append(call)
            case actions.HangUp():
                await self._hang_up(peer)
            case actions.Glare():
                await self._lab.glare(self._call_of(peer))
            case actions.AddVideo():
                peer.add_video()
            case actions.AddAudio():
                peer.add_audio()
            case actions.RemoveVideo():
                peer.remove_video()
            case actions.Mute(kind=kind):
                await peer.mute(kind)
            case actions.Unmute(kind=kind):
                await peer.unmute(kind)
            case actions.RestartIce():
                peer.restart_ice()
            case actions.ChangeNetwork():
                self._lab.change_network(peer.name)
            case actions.ForgetNat():
                assert isinstance(self._lab.world, VirtualWorld)
                nat = self._lab.world.virtual_network.nat_of(peer.name)
                assert nat is not None
                nat.forget()
            case actions.OpenDataChannel():
                data = await peer.open_data_channel(action.label)
                self._sending.add(asyncio.get_running_loop().create_task(self._send_data(data, action)))

    async def _hang_up(self, peer: LabPeer) -> None:
        call = self._call_of(peer)
        if call is not None and call.caller is peer:
            await call.hang_up()
        elif peer.current is not None:
            await peer.current.hang_up()
            await peer.end_of_call()

    async def _send_data(self, data: RTCDataChannel, action: actions.OpenDataChannel) -> None:
        """Send messages until the run, or the channel, ends."""
        for number in range(action.messages):
            if data.readyState != "open":
                return
            data.send(f"{number} ".ljust(action.size_bytes, ".")[: action.size_bytes])
            await asyncio.sleep(action.every_s)

    def _call_of(self, peer: LabPeer) -> LabCall | None:
        mine = [call for call in self._calls if peer in call.peers]
        return mine[-1] if mine else None

    async def _change_turn(self, change: Callable[[VirtualTurnServer], None]) -> None:
        world = self._lab.world
        assert isinstance(world, VirtualWorld) and world.turn_server is not None
        change(world.turn_server)

    # Time and words

    async def _wait_until(self, at_s: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._lab.epoch + at_s - loop.time()))

    def _tell_fault(self, name: str, event: NetworkEvent) -> None:
        if event.fault is not None and event.event in ("started", "ended"):
            what = ", ".join(f"{key}={value!s:.40}" for key, value in event.fault.changes.items())
            self._tell(f"{name}'s link: {what} {event.event}")

    def _tell_signaling_fault(self, event: SignalingEvent) -> None:
        if event.event in ("started", "ended"):
            self._tell(f"signaling: {event.planned.fault.kind} {event.event}")

    def _tell(self, did: str) -> None:
        self._progress(Progress(self._lab.now_s, self._scenario.duration_s, did))


def _words(action: actions.Action) -> str:
    """Say in a few words what an action is."""
    tag = action.__struct_config__.tag
    return f"{action.by} calls {action.to}" if isinstance(action, actions.CallPeer) else f"{action.by}: {tag}"


def _middlebox(channel: Channel, alterations: list[SdpAlteration]) -> Channel:
    return SdpMiddlebox(channel, alterations)


async def _reject(call: Call) -> None:
    await call.reject("declined")


def _ignore_call(_: Call) -> None:
    """Let it ring."""


def _ignore(_: Progress) -> None:
    """Tell nobody."""


async def _cancel_all(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
