"""A relay-only call with credentials that the TURN server refuses fails within seconds and says why."""

from __future__ import annotations

import asyncio
import time

import pytest

from calllab import Lab
from calllab.errors import CallFailed, TurnUnauthorized
from calllab.lab.kinds import NetworkKind
from calllab.protocol.turn_credentials import TurnCredentials


class Lender:
    """A TURN credential service whose credentials are worthless."""

    def __init__(self, lab: Lab, *, wrong: bool, age_s: float) -> None:
        self._lab = lab
        self._wrong = wrong
        self._age_s = age_s

    async def get_credentials(self) -> TurnCredentials:
        """Return credentials that were made ``age_s`` ago for a minute."""
        world = self._lab.world
        username = f"{int(time.time() - self._age_s) + 60}:alice"
        password = "not what belongs to it" if self._wrong else world.sign(username)
        return TurnCredentials(username, password, 60, world.credentials("alice").uris)


@pytest.mark.parametrize(
    ("network", "wrong", "age_s", "complaint"),
    [
        ("sockets", True, 0.0, r"answered 401 \(.*Unauthorized"),
        ("virtual", False, 72.0, r"answered 401 \(.*expired .*20\d\d-\d\d-\d\d.*"),
    ],
    ids=["wrong", "expired"],
)
async def test_refused_credentials_are_told_with_their_reason(
    network: NetworkKind, wrong: bool, age_s: float, complaint: str
) -> None:
    """CallFailed carries TurnUnauthorized: 401, the server's address, and what expired when."""
    async with Lab(network=network) as lab:
        lender = Lender(lab, wrong=wrong, age_s=age_s)
        alice = await lab.peer("alice", video=False, turn_api=lender)
        bob = await lab.peer("bob", video=False)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(CallFailed, match=complaint) as caught:
            await alice.call("bob", ice_transport_policy="relay")
        assert asyncio.get_running_loop().time() - begun < 5
        refused = caught.value.__cause__
        assert isinstance(refused, TurnUnauthorized)
        assert refused.code == 401
        assert refused.url is not None
        assert refused.url.startswith("turn:127.0.0.1:" if network == "sockets" else "turn:turn:3478")
        assert bob.current is not None
        assert await bob.current.wait_ended(5) in ("failed", "cancelled")
        told = lab.recording.events().query("event == 'icecandidateerror'")
        assert set(told["errorCode"]) == {401}


async def test_refused_credentials_do_no_harm_where_no_relay_is_needed() -> None:
    """With the policy all the call is connected over host candidates; the refusal is only recorded."""
    async with Lab(network="virtual") as lab:
        lender = Lender(lab, wrong=True, age_s=0.0)
        alice = await lab.peer("alice", video=False, turn_api=lender)
        await lab.peer("bob", video=False)
        call = await alice.call("bob")
        assert call.state == "connected"
