"""Runs a script of calls on two peer connections of ours and notes, in order, what each of them tells.

``page/script_runner.js`` does the same with the browser's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from calllab.rtc import AudioStreamTrack, MediaStream, RTCDataChannel, RTCIceCandidate, RTCPeerConnection
from tests.browser.event_order import Call, Log, Script
from tests.negotiation.linked_peers import SmallVideo

__all__ = ["run_script"]

_STATES = (
    ("signalingstatechange", "signalingState"),
    ("icegatheringstatechange", "iceGatheringState"),
    ("iceconnectionstatechange", "iceConnectionState"),
    ("connectionstatechange", "connectionState"),
)


class _ScriptedPeer:
    def __init__(self, name: str, log: Log) -> None:
        self._name = name
        self._log = log
        self.sent: dict[str, str] | None = None
        self.other: _ScriptedPeer
        self._is_holding = True
        self._is_first_candidate = True
        self._held: list[RTCIceCandidate] = []
        self._adding: set[asyncio.Task[None]] = set()
        self._channel: RTCDataChannel | None = None
        self.pc = RTCPeerConnection()
        for event, member in _STATES:
            self.pc.on(
                event,
                lambda event=event, member=member: self._note(f"{event} {getattr(self.pc, member)}"),
            )
        self.pc.on("negotiationneeded", lambda: self._note("negotiationneeded"))
        self.pc.on("track", lambda track, *_: self._note(f"track {track.kind}"))
        self.pc.on("datachannel", self._take_channel)
        self.pc.on("icecandidate", self._take_candidate)

    def _note(self, what: str) -> None:
        self._log.append((self._name, what))

    def _take_candidate(self, candidate: RTCIceCandidate | None) -> None:
        if candidate is None or self._is_first_candidate:
            self._note(f"icecandidate {'first' if candidate else 'null'}")
        self._is_first_candidate = candidate is None
        if candidate is not None and candidate.candidate:
            self._held.append(candidate)
            self._flush()

    def _flush(self) -> None:
        if self._is_holding:
            return
        for candidate in self._held:
            self._adding.add(asyncio.ensure_future(self._give(candidate)))
        self._held.clear()

    async def _give(self, candidate: RTCIceCandidate) -> None:
        try:
            await self.other.pc.addIceCandidate(candidate)
        except Exception as error:
            self._note(f"addIceCandidate rejected {_name(error)}")

    def _take_channel(self, channel: RTCDataChannel) -> None:
        self._note("datachannel")
        self._watch_channel(channel)

    def _watch_channel(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.on("open", lambda: self._note("channel open"))
        channel.on("close", lambda: self._note("channel close"))

    async def call(self, name: str, argument: Any = None) -> None:
        """Make one call of the script."""
        pc = self.pc
        match name:
            case "addTrack":
                pc.addTrack(AudioStreamTrack() if argument == "audio" else SmallVideo(), MediaStream())
            case "addTransceiver":
                pc.addTransceiver(argument)
            case "removeTrack":
                pc.removeTrack([sender for sender in pc.getSenders() if sender.track is not None][-1])
            case "stop":
                pc.getTransceivers()[-1].stop()
            case "createDataChannel":
                self._watch_channel(pc.createDataChannel(argument))
            case "restartIce":
                pc.restartIce()
            case "hold":
                self._is_holding = True
            case "deliver":
                self._is_holding = False
                self._flush()
            case "setLocalDescription":
                await self._settle(
                    name, pc.setLocalDescription({"type": argument} if argument is not None else None)
                )
                self.sent = pc.localDescription.toJSON() if pc.localDescription is not None else None
            case "setRemoteDescription":
                given = {"type": argument} if argument is not None else self.other.sent
                assert given is not None
                await self._settle(name, pc.setRemoteDescription(given))
            case _:
                raise ValueError(f"a script has no {name}")

    async def _settle(self, name: str, operation: Awaitable[None]) -> None:
        try:
            await operation
        except Exception as error:
            self._note(f"{name} rejected {_name(error)}")
        else:
            self._note(f"{name} resolved in {self.pc.signalingState}")

    def is_(self, condition: str) -> bool:
        """Say whether a condition of the script holds."""
        pc, channel = self.pc, self._channel
        match condition:
            case "connected":
                is_open = channel is not None and channel.readyState == "open"
                return pc.connectionState == "connected" and pc.iceGatheringState == "complete" and is_open
            case "gathered":
                return pc.iceGatheringState == "complete"
            case _:
                raise ValueError(f"a script knows no condition {condition}")

    async def close(self) -> None:
        """Close the peer connection."""
        await asyncio.gather(*self._adding)
        await self.pc.close()


def _name(error: Exception) -> str:
    return str(getattr(error, "name", type(error).__name__))


async def run_script(script: Script) -> Log:
    """Carry a script out; return who told what."""
    log: Log = []
    peers = {name: _ScriptedPeer(name, log) for name in ("a", "b")}
    peers["a"].other, peers["b"].other = peers["b"], peers["a"]

    async def make(call: Call) -> None:
        name, what, *rest = call
        if what == "until":
            while not peers[name].is_(rest[0]):
                await asyncio.sleep(0.005)
        elif what == "until-told":
            while log.count((name, rest[0])) < rest[1]:
                await asyncio.sleep(0.005)
        else:
            await peers[name].call(what, *rest)

    try:
        async with asyncio.timeout(20):
            for step in script:
                await asyncio.gather(*(make(call) for call in step))
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)
        told = list(log)
    finally:
        for peer in peers.values():
            await peer.close()
    return told
