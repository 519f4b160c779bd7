"""The Perfect Negotiation machine, step by step as the W3C example has it."""

from __future__ import annotations

import pytest

from calllab.negotiation.negotiator import (
    AddIceCandidate,
    Description,
    Notice,
    PerfectNegotiator,
    SendDescription,
    SetLocalDescription,
    SetRemoteDescription,
    Surface,
)

OFFER = Description("offer", "theirs")
ANSWER = Description("answer", "theirs")
OUR_OFFER = Description("offer", "ours")
OUR_ANSWER = Description("answer", "ours")
CANDIDATE = {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0"}


def offering(polite: bool) -> tuple[PerfectNegotiator, SetLocalDescription]:
    """Return a negotiator that is making an offer, and the operation that makes it."""
    negotiator = PerfectNegotiator(polite)
    (operation,) = negotiator.negotiation_needed()
    assert isinstance(operation, SetLocalDescription)
    return negotiator, operation


def test_negotiation_needed_makes_and_sends_an_offer() -> None:
    """negotiationneeded sets the local description, then sends what was set; making_offer spans both."""
    negotiator, operation = offering(polite=True)
    assert operation.purpose == "offer"
    assert negotiator.making_offer
    assert negotiator.succeeded(operation, OUR_OFFER) == (SendDescription(OUR_OFFER),)
    assert not negotiator.making_offer


def test_an_offer_in_stable_is_answered() -> None:
    """An offer without collision is set, then answered."""
    negotiator = PerfectNegotiator(polite=False)
    (set_remote,) = negotiator.remote_description(OFFER, "stable")
    assert set_remote == SetRemoteDescription(OFFER)
    (set_local,) = negotiator.succeeded(set_remote, None)
    assert set_local == SetLocalDescription("answer")
    assert negotiator.succeeded(set_local, OUR_ANSWER) == (SendDescription(OUR_ANSWER),)


@pytest.mark.parametrize("polite", [True, False])
@pytest.mark.parametrize("signaling_state", ["stable", "have-local-offer", "have-remote-offer"])
@pytest.mark.parametrize("making", [True, False])
@pytest.mark.parametrize("answer_pending", [True, False])
def test_an_offer_collides_exactly_when_the_example_says_so(
    polite: bool, signaling_state: str, making: bool, answer_pending: bool
) -> None:
    """The polite peer sets a colliding offer, the impolite one ignores it, and no other offer collides."""
    negotiator = PerfectNegotiator(polite)
    if answer_pending:
        negotiator.remote_description(ANSWER, "have-local-offer")
    if making:
        negotiator.negotiation_needed()
    commands = negotiator.remote_description(OFFER, signaling_state)  # type: ignore[arg-type]
    collides = making or not (signaling_state == "stable" or answer_pending)
    expected = [Notice("offer-collision")] if collides else []
    if collides and not polite:
        expected.append(Notice("offer-ignored"))
        assert list(commands) == expected
        assert negotiator.ignore_offer
    else:
        assert list(commands) == [*expected, SetRemoteDescription(OFFER)]
        assert not negotiator.ignore_offer


def test_an_answer_is_pending_until_it_is_set() -> None:
    """is_setting_remote_answer_pending spans setRemoteDescription(answer)."""
    negotiator, operation = offering(polite=False)
    negotiator.succeeded(operation, OUR_OFFER)
    (set_remote,) = negotiator.remote_description(ANSWER, "have-local-offer")
    assert negotiator.is_setting_remote_answer_pending
    assert negotiator.succeeded(set_remote, OUR_OFFER) == ()
    assert not negotiator.is_setting_remote_answer_pending


def test_a_candidate_of_an_ignored_offer_may_fail_even_after_the_answer() -> None:
    """Whether a candidate belongs to an ignored offer is decided when it arrives, not when it fails."""
    negotiator, operation = offering(polite=False)
    negotiator.succeeded(operation, OUR_OFFER)
    negotiator.remote_description(OFFER, "have-local-offer")
    (add,) = negotiator.remote_candidate(CANDIDATE)
    (set_remote,) = negotiator.remote_description(ANSWER, "have-local-offer")
    negotiator.succeeded(set_remote, OUR_OFFER)
    assert not negotiator.ignore_offer
    assert isinstance(add, AddIceCandidate)
    assert negotiator.failed(add, ValueError("unknown ufrag")) == ()


def test_the_error_of_a_wanted_candidate_surfaces() -> None:
    """A candidate that should have been added and was not is told to the application."""
    negotiator = PerfectNegotiator(polite=True)
    (add,) = negotiator.remote_candidate(None)
    error = ValueError("bad candidate")
    assert isinstance(add, AddIceCandidate)
    assert negotiator.failed(add, error) == (Surface(add, error),)


def test_a_failed_offer_surfaces_and_is_over() -> None:
    """A failed setLocalDescription is told, and the next offer of the other peer does not collide."""
    negotiator, operation = offering(polite=False)
    error = RuntimeError("no codec")
    assert negotiator.failed(operation, error) == (Surface(operation, error),)
    assert negotiator.remote_description(OFFER, "stable") == (SetRemoteDescription(OFFER),)


def test_after_a_failed_answer_the_next_offer_is_taken() -> None:
    """An answer that cannot be set leaves a way out: the other peer's next offer counts as no collision."""
    negotiator, operation = offering(polite=False)
    negotiator.succeeded(operation, OUR_OFFER)
    (set_remote,) = negotiator.remote_description(ANSWER, "have-local-offer")
    assert isinstance(set_remote, SetRemoteDescription)
    negotiator.failed(set_remote, ValueError("m-lines differ"))
    assert SetRemoteDescription(OFFER) in negotiator.remote_description(OFFER, "have-local-offer")


def test_an_operation_is_reported_once() -> None:
    """Reporting an operation that is not pending is the caller's bug and is refused."""
    negotiator, operation = offering(polite=True)
    negotiator.succeeded(operation, OUR_OFFER)
    with pytest.raises(ValueError, match="not pending"):
        negotiator.succeeded(operation, OUR_OFFER)


def test_snapshot_restores_everything_that_key_sees() -> None:
    """A restored negotiator has the key it had, and acts as it would have."""
    negotiator, operation = offering(polite=False)
    snapshot, key = negotiator.snapshot(), negotiator.key()
    negotiator.succeeded(operation, OUR_OFFER)
    negotiator.remote_description(OFFER, "have-local-offer")
    assert negotiator.key() != key
    negotiator.restore(snapshot)
    assert negotiator.key() == key
    assert negotiator.succeeded(operation, OUR_OFFER) == (SendDescription(OUR_OFFER),)


def test_restore_refuses_what_is_not_a_snapshot() -> None:
    """Anything but a snapshot is refused with what it was."""
    with pytest.raises(TypeError, match="not a snapshot"):
        PerfectNegotiator(polite=True).restore("stable")
