"""The laboratory on a virtual network: the same interface, without service and sockets."""

from __future__ import annotations

import asyncio

import pytest

from calllab import Lab, Recording
from calllab.errors import CallFailed, LabError
from calllab.lab import VirtualWorld
from calllab.lab.observe import packets_received, selected_pair
from calllab.network import VirtualNetwork, nat_kind, simulate


def in_virtual_time(seed: int = 0, **lab_options: object) -> object:
    """Decorate a coroutine function of a laboratory: it runs in virtual time."""

    def decorate(story: object) -> object:
        def test() -> None:
            async def main() -> None:
                async with Lab(seed=seed, network="virtual", **lab_options) as lab:  # type: ignore[arg-type]
                    await story(lab)  # type: ignore[operator]

            simulate(main, seed=seed)

        test.__name__ = story.__name__  # type: ignore[attr-defined]
        test.__doc__ = story.__doc__
        return test

    return decorate


async def test_a_virtual_laboratory_runs_beside_anything_else() -> None:
    """On an ordinary event loop it works in real time, as in a notebook; there is no service in it."""
    async with Lab(seed=1, network="virtual") as lab:
        alice = await lab.peer("alice", video=False)
        bob = await lab.peer("bob", video=False)
        call = await alice.call("bob")
        lab.fault("alice->bob", blackout=True)
        heard = await packets_received(call.side(bob))
        await asyncio.sleep(0.5)
        assert await packets_received(call.side(alice)) > 10
        assert await packets_received(call.side(bob)) - heard <= 2
        with pytest.raises(LabError, match="no service process"):
            _ = lab.service
    assert lab.recording.meta["settings"] == {"seed": 1, "time": "real", "network": "virtual"}


def test_a_world_that_is_none_is_refused() -> None:
    """The names of the networks are in the error."""
    with pytest.raises(LabError, match="give 'sockets' or 'virtual'"):
        Lab(network="imaginary")  # type: ignore[arg-type]


@in_virtual_time(seed=2)
async def test_glare_is_resolved_in_virtual_time(lab: Lab) -> None:
    """One peer ignores and the other rolls back, without a gap in the sound."""
    alice = await lab.peer("alice", video=False)
    await lab.peer("bob", video=False)
    call = await alice.call("bob")
    await lab.run_for(1)
    outcome = await lab.glare(call)
    assert (outcome.ignored_by, outcome.rolled_back_by) == ("alice", "bob")
    assert max(outcome.audio_gap_s.values()) < 0.1


@in_virtual_time(seed=3)
async def test_the_turn_server_of_the_network_relays(lab: Lab) -> None:
    """A relay-only call goes through the network's own server, whose credentials the peers got."""
    alice = await lab.peer("alice", video=False)
    await lab.peer("bob", video=False)
    call = await alice.call("bob", ice_transport_policy="relay")
    await lab.run_for(2)
    pair = await selected_pair(call.outgoing)
    assert (pair.local_type, pair.remote_type) == ("relay", "relay")
    assert await lab.world.relayed_packets() > 150
    (username,) = {
        row["username"] for row in lab.recording.event_rows if row.get("username") and row["peer"] == "alice"
    }
    assert username.endswith(":alice")


@in_virtual_time(seed=4)
async def test_a_network_change_brings_new_addresses(lab: Lab) -> None:
    """The host has another address afterwards, and the call comes back over it."""
    alice = await lab.peer("alice", video=False)
    await lab.peer("bob", video=False)
    call = await alice.call("bob")
    assert isinstance(lab.world, VirtualWorld)
    host = lab.world.virtual_network.host("alice")
    before = host.address
    lab.change_network("alice")
    assert host.address != before
    await lab.run_for(14)
    heard = await packets_received(call.outgoing)
    await lab.run_for(1)
    assert await packets_received(call.outgoing) > heard + 40


@in_virtual_time(seed=5)
async def test_sources_can_be_muted_and_tracks_added_and_removed(lab: Lab) -> None:
    """What a peer does to its tracks shows at the other side; what it has not got is refused."""
    alice = await lab.peer("alice", video=False)
    bob = await lab.peer("bob", video=False)
    with pytest.raises(LabError, match="in no call"):
        await alice.mute("audio")
    call = await alice.call("bob")
    with pytest.raises(LabError, match="sends no picture"):
        alice.remove_video()
    await lab.run_for(1)
    await alice.mute("audio")
    await lab.run_for(0.5)
    heard = await packets_received(call.side(bob))
    await lab.run_for(2)
    assert await packets_received(call.side(bob)) == heard
    await alice.unmute("audio")
    alice.add_audio()
    alice.add_video()
    await lab.run_for(3)
    report = await call.side(bob).pc.getStats()
    received = [entry for entry in report.values() if entry["type"] == "inbound-rtp"]
    assert sorted(entry["kind"] for entry in received) == ["audio", "audio", "video"]
    assert all(entry["packetsReceived"] > 5 for entry in received)
    alice.remove_video()
    await lab.run_for(1)
    directions = [each.currentDirection for each in call.side(bob).pc.getTransceivers()]
    assert "inactive" in directions
    await alice.mute("audio")


@in_virtual_time(seed=6)
async def test_data_channels_carry_messages(lab: Lab) -> None:
    """A channel is open when it is returned, and that is in the recording."""
    alice = await lab.peer("alice", video=False)
    bob = await lab.peer("bob", video=False)
    call = await alice.call("bob")
    channel = await alice.open_data_channel("chat")
    assert channel.readyState == "open"
    channel.send("hello")
    await lab.run_for(1)
    report = await call.side(bob).pc.getStats()
    (seen,) = [entry for entry in report.values() if entry["type"] == "data-channel"]
    assert (seen["label"], seen["messagesReceived"]) == ("chat", 1)
    await call.hang_up()
    states = [row["state"] for row in lab.recording.event_rows if row["event"] == "datachannel"]
    assert states == ["open"]  # closing the connection closes its channels without a word (webrtc-pc 4.4.2)


@in_virtual_time(seed=7)
async def test_planned_signaling_faults_happen_to_all_peers(lab: Lab) -> None:
    """Messages of the whole laboratory meet them, and they are in the truth."""
    alice = await lab.peer("alice", video=False)
    await lab.peer("bob", video=False)
    with pytest.raises(LabError, match="no peer 'eve'"):
        lab.signaling_fault("drop", "alice->eve")
    with pytest.raises(LabError, match="probability"):
        lab.signaling_fault("drop", probability=2)
    lab.signaling_fault("drop", "alice->bob", types=("call-offer",))
    call = asyncio.get_running_loop().create_task(alice.call("bob", timeout=20))
    await lab.run_for(25)
    with pytest.raises(CallFailed):
        await call
    truth = [row["fault"] for row in lab.recording.truth_rows]
    assert truth[0]["cause"] == "signaling-loss"
    assert truth[0]["settings"]["types"] == ["call-offer"]


@in_virtual_time(seed=8)
async def test_a_call_can_be_made_through_nats_of_ones_own(lab: Lab) -> None:
    """A laboratory stands on any virtual network that was built before."""
    network = VirtualNetwork(seed=8)
    network.add_host("alice", nat=nat_kind("symmetric"))
    async with Lab(seed=8, network=VirtualWorld(network, seed=8, stun=True)) as inner:
        alice = await inner.peer("alice", video=False)
        await inner.peer("bob", video=False)
        call = await alice.call("bob")
        await inner.run_for(2)
        assert await packets_received(call.outgoing) > 80
    assert isinstance(inner.recording, Recording)
    assert not lab.recording.stats_rows
