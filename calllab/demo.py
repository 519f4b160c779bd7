"""The demonstration: one real call, broken on purpose in four ways, recorded and explained.

Every phase does something to a call between two aiortc peers through the real service, and fails the
demonstration with a sentence unless what it is about was seen to happen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from calllab.diagnosis import Diagnosis, diagnose
from calllab.errors import ExpectationFailed
from calllab.lab import Lab, LabCall, LabPeer, Recording
from calllab.lab.observe import media_identity, packets_received, selected_pair
from calllab.report import write_report

__all__ = ["Demonstration", "PhaseListener", "demonstrate"]

LOSS = 0.08
DELAY_MS = 120.0
START_TIMEOUT_S = 10.0
RECOVERY_TIMEOUT_S = 25.0
POLL_S = 0.1


class PhaseListener(Protocol):
    """Is told what the demonstration does."""

    def started(self, title: str) -> None:
        """Note that a phase begins."""

    def ended(self, title: str, took_s: float, said: str) -> None:
        """Note that a phase did what it should, and what was seen."""

    def failed(self, title: str, took_s: float, error: BaseException) -> None:
        """Note that a phase failed."""


@dataclass(frozen=True)
class Demonstration:
    """What a demonstration leaves."""

    recording: Recording
    diagnosis: Diagnosis
    recording_path: Path
    report_path: Path


async def demonstrate(out: Path, listener: PhaseListener, *, seed: int = 7) -> Demonstration:
    """Run the demonstration and leave recording and report in the folder ``out``.

    Raises :exc:`~calllab.errors.CalllabError` with a sentence that says what did not happen; the recording is
    kept then, too.
    """
    recording_path, report_path = out / "recording", out / "report.html"
    lab = Lab(seed=seed, out=recording_path)
    story = _Story(lab, listener)
    try:
        await story.tell()
    finally:
        await lab.close()
    async with story.phase("explain what happened") as said:
        recording = lab.recording
        diagnosis = await asyncio.to_thread(diagnose, recording)
        _expect_findings(diagnosis)
        await asyncio.to_thread(write_report, recording, report_path)
        said(f"{len(diagnosis.findings)} findings")
    return Demonstration(recording, diagnosis, recording_path, report_path)


class _Story:
    """The phases, in order."""

    def __init__(self, lab: Lab, listener: PhaseListener) -> None:
        self._lab = lab
        self._listener = listener

    async def tell(self) -> None:
        lab = self._lab
        async with self.phase("start the service") as said:
            await lab.open()
            said(f"{lab.service.http_url}, {lab.service.turn_uri}")
        async with self.phase("register and log in") as said:
            alice, bob = await lab.peer("alice"), await lab.peer("bob")
            said("alice and bob are reachable")
        async with self.phase("call, ring, accept, connect") as said:
            call = await alice.call("bob")
            await self._media_flows(call)
            said("Opus and VP8 in both directions")
        async with self.phase("talk undisturbed") as said:
            await lab.run_for(8)
            said(f"connected, {await selected_pair(call.outgoing)}")
        async with self.phase("glare: both offer at once") as said:
            before = await media_identity(call.outgoing)
            outcome = await lab.glare(call)
            before.expect_in(await media_identity(call.outgoing))
            said(
                f"{outcome.ignored_by} ignored, {outcome.rolled_back_by} rolled back, settled in "
                f"{outcome.took_s * 1000:.0f} ms, longest silence "
                f"{max(outcome.audio_gap_s.values(), default=0.0) * 1000:.0f} ms"
            )
        await lab.run_for(5)
        async with self.phase(f"lose {LOSS:.0%} from alice to bob") as said:
            lab.fault("alice->bob", loss=LOSS, for_s=10)
            await lab.run_for(10)
            said(f"{LOSS:.0%} for 10 s")
        await lab.run_for(4)
        async with self.phase(f"delay alice to bob by {DELAY_MS:g} ms") as said:
            lab.fault("alice->bob", delay_ms=DELAY_MS, for_s=8)
            await lab.run_for(8)
            said(f"{DELAY_MS:g} ms for 8 s")
        await lab.run_for(3)
        async with self.phase("change alice's network") as said:
            said(await self._change_network(call, alice))
        await lab.run_for(3)
        async with self.phase("hang up") as said:
            await call.hang_up()
            said(f"both sides ended: {call.outgoing.end_reason}, {call.side(bob).end_reason}")
        async with self.phase("call again, relay only") as said:
            said(await self._relay_call(alice))

    @asynccontextmanager
    async def phase(self, title: str) -> AsyncIterator[Callable[[str], None]]:
        """Time a phase, tell the listener, and pass on what it has to say."""
        words: list[str] = []
        begun = time.monotonic()
        self._listener.started(title)
        try:
            yield words.append
        except BaseException as exc:
            self._listener.failed(title, time.monotonic() - begun, exc)
            raise
        self._listener.ended(title, time.monotonic() - begun, "; ".join(words))

    async def _media_flows(self, call: LabCall) -> None:
        """Wait until both sides play sound and picture."""

        def played() -> dict[str, set[str]]:
            return {
                peer.name: {sink.total.kind for sink in peer.sinks.values() if sink.total.frames}
                for peer in call.peers
            }

        async with _deadline(START_TIMEOUT_S, lambda: f"connected, but this is all that plays: {played()}"):
            while any(kinds != {"audio", "video"} for kinds in played().values()):  # noqa: ASYNC110 (no event)
                await asyncio.sleep(POLL_S)

    async def _change_network(self, call: LabCall, peer: LabPeer) -> str:
        """Kill the peer's sockets; an ICE restart must bring media back on the same DTLS session."""
        sides = [call.side(each) for each in call.peers]
        before = [await media_identity(side) for side in sides]
        old_pair = await selected_pair(call.side(peer))
        begun_s = self._lab.now_s
        self._lab.change_network(peer.name)
        await self._lab.run_for(1.0)
        dead = [await packets_received(side) for side in sides]
        await self._lab.run_for(2.0)
        if [await packets_received(side) for side in sides] != dead:
            raise ExpectationFailed("media went on after the network change: the old path was not dead")
        async with _deadline(
            RECOVERY_TIMEOUT_S,
            lambda: f"media did not come back after the network change; the call is {call.state}",
        ):
            while True:
                now = [await packets_received(side) for side in sides]
                if call.state == "connected" and all(n > d for n, d in zip(now, dead, strict=True)):
                    break
                await asyncio.sleep(POLL_S)
        took_s = self._lab.now_s - begun_s
        if (await selected_pair(call.side(peer))).id == old_pair.id:
            raise ExpectationFailed("media came back on the candidate pair that had died")
        for then, side in zip(before, sides, strict=True):
            then.expect_in(await media_identity(side))
        return f"dead for {took_s:.1f} s, back by ICE restart on the same DTLS session"

    async def _relay_call(self, alice: LabPeer) -> str:
        """Connect with TURN alone; the relay must have carried the packets."""
        lab = self._lab
        relayed_before = await lab.service.relayed_packets()
        call = await alice.call("bob", ice_transport_policy="relay")
        await self._media_flows(call)
        await lab.run_for(5)
        pair = await selected_pair(call.outgoing)
        if (pair.local_type, pair.remote_type) != ("relay", "relay"):
            raise ExpectationFailed(f"the relay-only call goes {pair}: both ends should be relay")
        received = await packets_received(call.outgoing)
        await call.hang_up()
        relayed = await lab.service.relayed_packets() - relayed_before
        if relayed < received:
            raise ExpectationFailed(
                f"alice received {received} packets, but the TURN server relayed only {relayed}"
            )
        return f"{pair}; the TURN server relayed {relayed} packets"


@asynccontextmanager
async def _deadline(timeout_s: float, complaint: Callable[[], str]) -> AsyncIterator[None]:
    """Turn a timeout into the sentence that says what did not happen."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise ExpectationFailed(f"{complaint()} (after {timeout_s:g} s)") from None


def _expect_findings(diagnosis: Diagnosis) -> None:
    found = {finding.cause for finding in diagnosis.findings}
    wanted = {"glare-resolved", "loss-uniform", "delay", "blackout"}
    if missing := wanted - found:
        raise ExpectationFailed(
            f"the diagnosis did not find {', '.join(sorted(missing))} in the recording (it found "
            f"{', '.join(sorted(found)) or 'nothing'})"
        )
