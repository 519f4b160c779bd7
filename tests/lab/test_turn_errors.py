"""A relay-only call with credentials that the TURN server refuses fails within seconds and says why."""

from __future__ import annotations

import asyncio
import time

import pytest

from calllab import Lab
from calllab.errors import CallFailed, TurnUnauthorized
from calllab.protocol.turn_credentials import TurnCredentials, make_credentials


class Lender:
    """A TURN credential service whose credentials are worthless."""

    def __init__(self, lab: Lab, *, secret: str, age_s: float) -> None:
        self._lab = lab
        self._secret = secret
        self._age_s = age_s

    async def get_credentials(self) -> TurnCredentials:
        """Return credentials that were made ``age_s`` ago for a minute."""
        now = time.time() - self._age_s
        uris = [self._lab.service.turn_uri]
        return make_credentials(self._secret, "alice", now=now, ttl=60, uris=uris)


@pytest.mark.parametrize(
    ("wrong_secret", "age_s", "complaint"),
    [
        (True, 0.0, r"answered 401 \(.*Unauthorized"),
        (False, 72.0, r"answered 401 \(.*expired .*20\d\d-\d\d-\d\d.*"),
    ],
    ids=["wrong", "expired"],
)
async def test_refused_credentials_are_told_with_their_reason(
    wrong_secret: bool, age_s: float, complaint: str
) -> None:
    """CallFailed carries TurnUnauthorized: 401, the server's address, and what expired when."""
    async with Lab() as lab:
        secret = "not the service's secret" if wrong_secret else lab.service.turn_secret
        lender = Lender(lab, secret=secret, age_s=age_s)
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
        assert refused.url.startswith("turn:127.0.0.1:")
        assert bob.current is not None
        assert await bob.current.wait_ended(5) in ("failed", "cancelled")
        told = lab.recording.events().query("event == 'icecandidateerror'")
        assert set(told["errorCode"]) == {401}


async def test_refused_credentials_do_no_harm_where_no_relay_is_needed() -> None:
    """With the policy all the call is connected over host candidates; the refusal is only recorded."""
    async with Lab() as lab:
        lender = Lender(lab, secret="not the service's secret", age_s=0.0)
        alice = await lab.peer("alice", video=False, turn_api=lender)
        await lab.peer("bob", video=False)
        call = await alice.call("bob")
        assert call.state == "connected"
