"""Two JSEP cores, or two peer connections, linked to each other."""

from __future__ import annotations

import random

from calllab.rtc.actions import Action
from calllab.rtc.jsep import JsepCore
from calllab.rtc.parameters import Fingerprint, SdpType


def make_core(seed: int) -> JsepCore:
    """Return a JSEP core with a fingerprint and a random source of its own."""
    entropy = random.Random(seed)
    digest = ":".join(f"{entropy.getrandbits(8):02X}" for _ in range(32))
    return JsepCore(entropy, (Fingerprint("sha-256", digest),), cname=f"cname-{seed}")


def local_text(core: JsepCore) -> tuple[SdpType, str]:
    """Return type and text of what the core would send now."""
    applied = core.state.pending_local or core.state.current_local
    assert applied is not None
    return applied.type, core.text(applied)


def negotiate(offerer: JsepCore, answerer: JsepCore) -> tuple[list[Action], list[Action]]:
    """Carry one offer and its answer over; return the actions of both."""
    offering = list(offerer.set_local("offer"))
    answering = list(answerer.set_remote(*local_text(offerer)))
    answering += answerer.set_local("answer")
    offering += offerer.set_remote(*local_text(answerer))
    return offering, answering


def settle(one: JsepCore, other: JsepCore, rounds: int = 6) -> None:
    """Negotiate until neither core needs it; fails if that does not end."""
    for _ in range(rounds):
        if one.negotiation_needed():
            negotiate(one, other)
        elif other.negotiation_needed():
            negotiate(other, one)
        else:
            return
    raise AssertionError(
        f"negotiation does not end: {one.negotiation_needed()}, {other.negotiation_needed()}"
    )


def assert_agree(one: JsepCore, other: JsepCore) -> None:
    """Both cores are stable, have the same m-lines, opposite directions, and face each other's ICE
    credentials.
    """
    from calllab.rtc.parameters import reverse

    assert one.signaling_state == other.signaling_state == "stable"
    lines = [
        [(line.kind, line.mid, line.rejected) for line in core.state.session.lines] for core in (one, other)
    ]
    assert lines[0] == lines[1]
    theirs = {transceiver.mid: transceiver for transceiver in other.transceivers}
    assert {transceiver.mid for transceiver in one.transceivers} == set(theirs)
    for transceiver in one.transceivers:
        ours, peer = (
            transceiver.negotiated.current_direction,
            theirs[transceiver.mid].negotiated.current_direction,
        )
        assert ours is not None
        assert peer is not None
        assert ours == reverse(peer)
        numbers = [
            [(codec.payload_type, codec.mime_type) for codec in side.negotiated.codecs]
            for side in (transceiver, theirs[transceiver.mid])
        ]
        assert numbers[0] == numbers[1]
    assert one.state.session.local_ice == other.state.session.remote_ice
    assert one.state.session.remote_ice == other.state.session.local_ice
    if one.state.session.dtls_role is not None:
        assert {one.state.session.dtls_role, other.state.session.dtls_role} == {"client", "server"}
