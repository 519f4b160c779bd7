"""The laboratory through its public interface: real peers, faults, and what is recorded.

Where the service or real sockets make no difference, the network is a virtual one, in real time.
"""

from __future__ import annotations

import asyncio
import math
import struct
import wave
from pathlib import Path

import pytest

from calllab import Lab, Recording
from calllab.errors import CallFailed, ExpectationFailed, LabError, RecordingError, ServiceStartError
from calllab.lab import service
from calllab.lab.observe import media_identity, selected_pair
from calllab.media import MediaPlayer
from calllab.rtc import MediaStream


async def test_a_call_is_made_broken_and_recorded(tmp_path: Path) -> None:
    """Events, statistics and truth of a call are all in the recording, which is loaded back equal."""
    async with Lab(seed=3, out=tmp_path / "run") as lab:
        alice = await lab.peer("alice", video=False)
        await lab.peer("bob", video=False)
        call = await alice.call("bob")
        lab.fault("alice->bob", loss=0.5, for_s=1.5)
        await lab.run_for(3)
        await call.hang_up()
    recording = lab.recording
    assert Recording.load(tmp_path / "run") == recording
    events = recording.events()
    assert set(events["peer"]) == {"alice", "bob"}
    assert {"signal-sent", "signal-received", "setLocalDescription", "call-state", "playout"} <= set(
        events["event"]
    )
    stats = recording.stats()
    arrived = stats[(stats["type"] == "inbound-rtp") & (stats["peer"] == "bob")]
    assert arrived["packetsLost"].max() > 0
    untouched = stats[(stats["type"] == "inbound-rtp") & (stats["peer"] == "alice")]
    assert untouched["packetsLost"].max() == 0
    realised = recording.truth().query("kind == 'realised'")
    assert list(realised["direction"]) == ["alice->bob"]
    assert 0.3 < realised["lossShare"].iloc[0] < 0.7
    assert "password" not in str(recording.event_rows)


async def test_glare_is_resolved_and_media_goes_on() -> None:
    """One peer ignores, the other rolls back, and session, SSRCs and connection state stay as they were."""
    async with Lab(seed=4) as lab:
        alice = await lab.peer("alice", width=160, height=120, fps=10)
        await lab.peer("bob", width=160, height=120, fps=10)
        call = await alice.call("bob")
        await lab.run_for(1)
        before = [await media_identity(call.side(peer)) for peer in call.peers]
        states: list[str] = []
        call.on_state(lambda end: states.append(end.state))
        outcome = await lab.glare(call)
        assert (outcome.ignored_by, outcome.rolled_back_by) == ("alice", "bob")
        for then, peer in zip(before, call.peers, strict=True):
            then.expect_in(await media_identity(call.side(peer)))
        assert set(outcome.audio_gap_s) == {"alice->bob", "bob->alice"}
        assert states == []
        glared = lab.recording.events()["event"].value_counts()
        assert glared["offer-ignored"] == glared["rollback"] == 1


async def test_a_relay_only_call_goes_through_turn() -> None:
    """With the policy relay both ends are relay candidates, and the TURN server counts the packets."""
    async with Lab(seed=5) as lab:
        alice = await lab.peer("alice", video=False)
        await lab.peer("bob", video=False)
        call = await alice.call("bob", ice_transport_policy="relay")
        pair = await selected_pair(call.outgoing)
        assert (pair.local_type, pair.remote_type) == ("relay", "relay")
        await lab.run_for(1)
        assert await lab.service.relayed_packets() > 50


async def test_what_cannot_be_is_refused_with_the_next_step() -> None:
    """Unknown peers, malformed directions, empty faults and missing calls each say what to do."""
    async with Lab(network="virtual") as lab:
        alice = await lab.peer("alice")
        with pytest.raises(LabError, match=r"no peer 'bob' .*await lab.peer\('bob'\)"):
            await alice.call("bob")
        await lab.peer("bob")
        with pytest.raises(LabError, match="already"):
            await lab.peer("alice")
        with pytest.raises(LabError, match="no direction"):
            lab.fault("alice to bob", loss=0.1)
        with pytest.raises(LabError, match="nothing to impair"):
            lab.fault("alice->bob")
        with pytest.raises(LabError, match="loss"):
            lab.fault("alice->bob", loss=8)
        with pytest.raises(LabError, match="no connected call"):
            await lab.glare()
        with pytest.raises(LabError, match="in no call"):
            alice.add_video()
    with pytest.raises(LabError, match="opened before"):
        await lab.open()
    with pytest.raises(LabError, match="not open"):
        _ = Lab().recording
    with pytest.raises(LabError, match="sample_every_s"):
        Lab(sample_every_s=0)


async def test_a_peer_sends_what_its_user_gives_it(tmp_path: Path) -> None:
    """A file played by MediaPlayer is what the other side hears."""
    sound = tmp_path / "tone.wav"
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        tone = (int(20_000 * math.sin(2 * math.pi * 440 * n / 48_000)) for n in range(48_000 * 4))
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in tone))

    def play() -> MediaStream:
        return MediaStream([MediaPlayer(str(sound)).audio])

    async with Lab(network="virtual") as lab:
        alice = await lab.peer("alice", stream=play)
        await lab.peer("bob", video=False)
        call = await alice.call("bob")
        await lab.run_for(2)
        report = await call.side(lab.peers["bob"]).pc.getStats()
        (heard,) = [entry for entry in report.values() if entry["type"] == "inbound-rtp"]
        assert heard["audioLevel"] > 0.2
        await call.hang_up()


async def test_a_cancelled_cell_leaves_a_working_laboratory() -> None:
    """Interrupting a call that is being made hangs it up; the next call works."""
    async with Lab(network="virtual") as lab:
        alice = await lab.peer("alice", video=False)
        bob = await lab.peer("bob", video=False)
        cell = asyncio.create_task(alice.call("bob"))
        while bob.current is None:
            await asyncio.sleep(0)
        cell.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cell
        assert alice.current is not None
        assert alice.current.state == "ended"
        while bob.current.state != "ended":
            await asyncio.sleep(0)
        call = await alice.call("bob")
        assert call.state == "connected"


async def test_a_call_that_fails_says_why() -> None:
    """A callee who rejects makes the call raise CallFailed; the laboratory goes on."""
    async with Lab(network="virtual") as lab:
        alice = await lab.peer("alice", video=False)
        bob = await lab.peer("bob", video=False)
        bob.phone.on_incoming = lambda call: call.reject("not now")
        with pytest.raises(CallFailed, match="not now"):
            await alice.call("bob")
        bob.phone.on_incoming = None
        await alice.call("bob")


async def test_a_glare_that_does_not_happen_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """When one side's offer never comes, glare() fails with what it saw instead of claiming success."""
    monkeypatch.setattr("calllab.lab.lab.GLARE_TIMEOUT_S", 0.5)
    async with Lab(network="virtual") as lab:
        alice = await lab.peer("alice", video=False)
        bob = await lab.peer("bob", video=False)
        call = await alice.call("bob")
        monkeypatch.setattr(bob, "add_video", lambda: None)
        with pytest.raises(ExpectationFailed, match="not resolved"):
            await lab.glare(call)


async def test_a_service_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error carries what the service printed."""
    monkeypatch.setenv("CALLLAB_TURN_RELAY_PORTS", "nonsense")
    with pytest.raises(ServiceStartError, match=r"RELAY_PORTS|relay-ports"):
        await Lab().open()


async def test_a_service_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that never gets ready is ended, and the error says after how long."""
    monkeypatch.setattr(service, "START_TIMEOUT_S", 0.01)
    with pytest.raises(ServiceStartError, match=r"not ready after 0\.01 s"):
        await Lab().open()


async def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    """A folder that holds something is refused before anything is started."""
    (tmp_path / "precious").touch()
    with pytest.raises(RecordingError, match="not empty"):
        await Lab(out=tmp_path).open()
