"""Requests to the TURN server core: each error code, and what a success changes."""

from __future__ import annotations

import random

import pytest

from calllab.protocol import stun
from calllab.protocol.stun import Integrity, MessageClass, Method, StunMessage
from calllab.protocol.stun_attributes import Address, Attribute, Family, encode_xor_address
from calllab.protocol.turn_actions import (
    CloseRelay,
    OpenRelay,
    ReleaseReservation,
    SendToClient,
    TurnLimits,
    TurnSettings,
)
from calllab.protocol.turn_server import TurnServerCore
from tests.protocol.turn_desk import (
    RELAY_HOST,
    SECRET,
    UDP,
    UNIX_S,
    Answer,
    Desk,
    received,
    sent,
    uint32,
)

PEER = ("9.9.9.9", 5000)
OTHER_PEER = ("9.9.9.10", 5000)
IPV6_PEER = ("2606:4700::1111", 5000)


@pytest.fixture
def desk() -> Desk:
    return Desk()


# Binding.


def test_binding_tells_the_address(desk: Desk) -> None:
    """A Binding request is answered to anyone, with the address it came from."""
    client = desk.client()
    answer = client.send(StunMessage(Method.BINDING, MessageClass.REQUEST, client.new_id()).encode())
    assert answer is not None
    assert answer.message.message_class is MessageClass.SUCCESS
    assert answer.address(Attribute.XOR_MAPPED_ADDRESS) == client.address


def test_binding_over_ipv6(desk: Desk) -> None:
    """An IPv6 client sees its IPv6 address."""
    request = StunMessage(Method.BINDING, MessageClass.REQUEST, bytes(12)).encode()
    (output,) = desk.from_client(request, IPV6_PEER)
    assert isinstance(output, SendToClient)
    assert Answer(stun.decode(output.data), output.data).address(Attribute.XOR_MAPPED_ADDRESS) == IPV6_PEER


def test_fingerprints_are_answered_in_kind(desk: Desk) -> None:
    """A request with FINGERPRINT gets one back, and only such a request."""
    client = desk.client()
    request = StunMessage(Method.BINDING, MessageClass.REQUEST, client.new_id())
    for fingerprint in (False, True):
        answer = client.send(request.encode(fingerprint=fingerprint))
        assert answer is not None
        assert (answer.message.get(Attribute.FINGERPRINT) is not None) == fingerprint


def test_unknown_required_attributes_get_420(desk: Desk) -> None:
    """CHANGE-REQUEST (0x0003) and its like are named in the answer; optional ones do not matter."""
    client = desk.client()
    attributes = ((0x0003, uint32(6)), (0x8777, b""), (0x7001, b"x"))
    answer = client.send(
        StunMessage(Method.BINDING, MessageClass.REQUEST, client.new_id(), attributes).encode()
    )
    assert answer is not None
    assert answer.code == 420
    assert answer.message.get(Attribute.UNKNOWN_ATTRIBUTES) == bytes.fromhex("00037001")


def test_unknown_required_attributes_are_looked_for_after_authentication(desk: Desk) -> None:
    """A TURN request is first asked who it is; its 420 is signed."""
    client = desk.client()
    client.challenge()
    answer = client.allocate((0x7001, b""))
    assert answer.code == 420
    assert stun.check_integrity(answer.data, client.key)
    request = StunMessage(Method.ALLOCATE, MessageClass.REQUEST, client.new_id(), ((0x7001, b""),))
    unsigned = client.send(request.encode())
    assert unsigned is not None
    assert unsigned.code == 401


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\x40",
        b"\x80" * 40,
        b"\xff" * 40,
        bytes(20),
        bytes.fromhex("000100082112a442") + bytes(12),
        StunMessage(0x7FF, MessageClass.REQUEST, bytes(12)).encode(),
        StunMessage(Method.ALLOCATE, MessageClass.SUCCESS, bytes(12)).encode(),
        StunMessage(Method.ALLOCATE, MessageClass.ERROR, bytes(12)).encode(),
        StunMessage(Method.BINDING, MessageClass.INDICATION, bytes(12)).encode(),
        StunMessage(Method.DATA, MessageClass.INDICATION, bytes(12)).encode(),
        StunMessage(Method.SEND, MessageClass.REQUEST, bytes(12)).encode(),
        StunMessage(Method.SEND, MessageClass.INDICATION, bytes(12)).encode(),
    ],
)
def test_noise_is_not_answered(desk: Desk, data: bytes) -> None:
    """What is no request of ours gets no answer, so that nobody can make us talk to others."""
    assert desk.from_client(data, ("5.6.7.8", 1)) == []
    assert desk.core.counters().packets_dropped == 1


# Authentication.


def test_a_request_without_credentials_is_challenged(desk: Desk) -> None:
    """The first 401 brings realm and nonce, and no signature."""
    answer = desk.client().challenge()
    assert answer.code == 401
    assert answer.message.get(Attribute.REALM) == b"calllab"
    assert answer.message.get(Attribute.NONCE)
    assert answer.message.integrity is None


@pytest.mark.parametrize("integrity", Integrity)
def test_answers_are_signed_as_they_were_asked(desk: Desk, integrity: Integrity) -> None:
    """A success carries the integrity of the same kind, under the same key."""
    client = desk.client()
    client.integrity = integrity
    answer = client.allocate()
    assert answer.code == 0
    assert answer.message.integrity is integrity
    assert stun.check_integrity(answer.data, client.key)


def test_a_wrong_password_gets_401(desk: Desk) -> None:
    """A wrong password is challenged anew, and the reason does not speak of expiry."""
    client = desk.client()
    client.password = "wrong"
    answer = client.allocate()
    assert (answer.code, answer.reason) == (401, "Unauthorized")
    assert answer.message.get(Attribute.NONCE)


def test_expired_credentials_get_401_with_the_time(desk: Desk) -> None:
    """Who holds credentials that have expired is told when that was."""
    client = desk.client(ttl=60)
    desk.now += 60
    answer = client.allocate()
    assert answer.code == 401
    assert answer.reason == "Unauthorized: the credentials expired at 2027-01-15T08:01:00Z"
    # RFC 8489 section 9.2.4: a challenge is not signed.
    assert answer.message.get(Attribute.NONCE)
    assert answer.message.integrity is None
    assert int(UNIX_S) + 60 == 1_800_000_060


def test_an_expiry_beyond_all_calendars_is_an_expiry(desk: Desk) -> None:
    """Twelve digits of expiry work; a username without any does not."""
    client = desk.client()
    client.use("999999999999:alice")
    assert client.allocate().code == 0
    other = desk.client(port=40_001)
    other.use("alice")
    answer = other.allocate()
    assert (answer.code, answer.reason) == (401, "Unauthorized: the username carries no expiry")


def test_expiry_beyond_the_calendar_is_told_in_seconds() -> None:
    """An expiry that no calendar holds is named as a number."""
    desk = Desk()
    desk.unix_offset_s = 999_999_999_999.0
    client = desk.client()
    client.use("999999999999:alice")
    assert client.allocate().reason == "Unauthorized: the credentials expired at Unix time 999999999999"


def test_a_call_outlives_its_credentials(desk: Desk) -> None:
    """Credentials are looked at when an allocation is made, and never again."""
    client = desk.client(ttl=600)
    assert client.allocate((Attribute.LIFETIME, uint32(3600))).code == 0
    desk.now += 590
    client.nonce = None
    assert client.refresh(3600).code == 0
    desk.now += 3000
    client.nonce = None
    assert client.refresh(3600).code == 0
    assert client.permit(PEER).code == 0
    assert client.bind(0x4000, PEER).code == 0
    assert sent(client.channel(0x4000, b"still here")) == (PEER, b"still here")
    assert desk.client(port=40_001, ttl=-1 + 10).allocate().code == 0


@pytest.mark.parametrize("missing", [Attribute.USERNAME, Attribute.REALM, Attribute.NONCE])
def test_incomplete_credentials_get_400(desk: Desk, missing: Attribute) -> None:
    """A signed request names user, realm and nonce (RFC 8489 section 9.2.4)."""
    client = desk.client()
    client.challenge()
    message = stun.decode(client.signed(Method.ALLOCATE, (Attribute.REQUESTED_TRANSPORT, UDP)))
    kept = tuple(pair for pair in message.attributes if pair[0] not in (missing, Attribute.MESSAGE_INTEGRITY))
    request = StunMessage(Method.ALLOCATE, MessageClass.REQUEST, client.new_id(), kept)
    answer = client.send(request.encode(client.key))
    assert answer is not None
    assert answer.code == 400
    assert answer.message.get(Attribute.NONCE) is None


@pytest.mark.parametrize("username", [b"\xff\xfe", b"x" * 509])
def test_impossible_usernames_get_400(desk: Desk, username: bytes) -> None:
    """A username that is no text, or too long, is a bad request."""
    client = desk.client()
    client.challenge()
    assert client.nonce is not None
    attributes = (
        (Attribute.USERNAME, username),
        (Attribute.REALM, b"calllab"),
        (Attribute.NONCE, client.nonce),
    )
    request = StunMessage(Method.ALLOCATE, MessageClass.REQUEST, client.new_id(), attributes)
    answer = client.send(request.encode(b"any key"))
    assert answer is not None
    assert answer.code == 400


def test_a_stale_nonce_gets_438_and_a_new_one(desk: Desk) -> None:
    """An old nonce is replaced once it is too old, and the new one works at once."""
    client = desk.client()
    assert client.allocate().code == 0
    desk.now += 599
    assert client.refresh(600).code == 0
    desk.now += 1
    answer = client.refresh(600)
    assert answer.code == 438
    assert answer.message.integrity is None
    new = answer.message.get(Attribute.NONCE)
    assert new is not None
    assert new != client.nonce
    client.nonce = new
    assert client.refresh(600).code == 0


def test_a_wrong_password_with_a_stale_nonce_gets_401(desk: Desk) -> None:
    """Only who knows the password hears about the nonce (RFC 8489 section 9.2.4)."""
    client = desk.client()
    client.challenge()
    desk.now += 3600
    client.password = "wrong"
    assert client.allocate().code == 401


def test_nonces_belong_to_their_client(desk: Desk) -> None:
    """A nonce of another address, of another server or of nobody is stale."""
    client, other, elsewhere = desk.client(), desk.client(port=40_001), Desk(seed=2).client()
    other.challenge()
    elsewhere.challenge()
    forged = b"%x-%032x" % (int((desk.now + 600) * 2), 1)
    for nonce in (other.nonce, elsewhere.nonce, b"", b"-", forged, b"f" * 16 + b"-" + b"0" * 32):
        client.nonce = nonce
        assert client.allocate().code == 438
    client.challenge()
    assert client.nonce is not None
    for damaged in (client.nonce[:-1], client.nonce + b"0", b"f" + client.nonce):
        client.nonce = damaged
        assert client.allocate().code == 438


def test_challenges_are_limited_by_source() -> None:
    """A source that only collects 401s gets no more of them for a while; others do not notice."""
    desk = Desk(limits=TurnLimits(challenges_per_s=2, challenge_burst=5))
    client, other = desk.client(), Desk.client(desk, "bob", port=40_001)
    request = StunMessage(Method.ALLOCATE, MessageClass.REQUEST, bytes(12)).encode()
    answered = [bool(desk.from_client(request, client.address)) for _ in range(8)]
    assert answered == [True] * 5 + [False] * 3
    assert desk.from_client(request, ("5.6.7.9", 1)) != []
    # Ports do not make another source.
    assert desk.from_client(request, other.address) == []
    desk.now += 1
    assert [bool(desk.from_client(request, client.address)) for _ in range(3)] == [True, True, False]
    # Neither are requests answered that only pretend to be signed.
    signed = StunMessage(Method.ALLOCATE, MessageClass.REQUEST, bytes(12)).encode(b"some key")
    assert desk.from_client(signed, client.address) == []
    desk.now += 1
    assert desk.from_client(signed, client.address) != []


def test_many_sources_do_not_fill_the_memory(desk: Desk) -> None:
    """Forged sources push each other out of the table."""
    request = StunMessage(Method.ALLOCATE, MessageClass.REQUEST, bytes(12)).encode()
    for number in range(10_500):
        host = f"7.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        assert len(desk.from_client(request, (host, 1))) == 1
    assert len(desk.core._authenticator._challenges) == 10_000


# Allocate.


def test_allocate_gives_a_relayed_address(desk: Desk) -> None:
    """The answer names the relayed address, the client's own, and a lifetime of ten minutes."""
    client = desk.client()
    answer = client.allocate()
    assert answer.code == 0
    assert answer.address(Attribute.XOR_RELAYED_ADDRESS) == (RELAY_HOST, 50_000)
    assert answer.address(Attribute.XOR_MAPPED_ADDRESS) == client.address
    assert answer.lifetime_s == 600
    assert desk.ports == {1: 50_000}
    assert desk.core.counters().allocations == 1


@pytest.mark.parametrize(
    ("wanted_s", "granted_s"), [(None, 600), (0, 600), (1, 600), (601, 601), (3600, 3600), (2**32 - 1, 3600)]
)
def test_lifetimes_are_clamped(desk: Desk, wanted_s: int | None, granted_s: int) -> None:
    """No allocation is shorter than ten minutes or longer than an hour at once, in Allocate and Refresh."""
    client = desk.client()
    attributes = () if wanted_s is None else ((Attribute.LIFETIME, uint32(wanted_s)),)
    assert client.allocate(*attributes).lifetime_s == granted_s
    if wanted_s != 0:
        assert client.refresh(wanted_s).lifetime_s == granted_s


BAD_ALLOCATES = [
    ([], 400),
    ([(Attribute.REQUESTED_TRANSPORT, b"")], 400),
    ([(Attribute.REQUESTED_TRANSPORT, bytes((6, 0, 0, 0)))], 442),
    ([(Attribute.REQUESTED_TRANSPORT, UDP), (Attribute.DONT_FRAGMENT, b"")], 420),
    ([(Attribute.REQUESTED_TRANSPORT, UDP), (Attribute.REQUESTED_ADDRESS_FAMILY, b"\2\0\0\0")], 440),
    ([(Attribute.REQUESTED_TRANSPORT, UDP), (Attribute.REQUESTED_ADDRESS_FAMILY, b"\3\0\0\0")], 440),
    ([(Attribute.REQUESTED_TRANSPORT, UDP), (Attribute.REQUESTED_ADDRESS_FAMILY, b"\1")], 400),
    ([(Attribute.REQUESTED_TRANSPORT, UDP), (Attribute.EVEN_PORT, b"")], 400),
    ([(Attribute.REQUESTED_TRANSPORT, UDP), (Attribute.LIFETIME, b"\0")], 400),
    ([(Attribute.REQUESTED_TRANSPORT, UDP), (Attribute.RESERVATION_TOKEN, bytes(8))], 508),
    ([(Attribute.REQUESTED_TRANSPORT, UDP), (Attribute.RESERVATION_TOKEN, bytes(7))], 400),
    (
        [
            (Attribute.REQUESTED_TRANSPORT, UDP),
            (Attribute.RESERVATION_TOKEN, bytes(8)),
            (Attribute.EVEN_PORT, b"\0"),
        ],
        400,
    ),
    (
        [
            (Attribute.REQUESTED_TRANSPORT, UDP),
            (Attribute.RESERVATION_TOKEN, bytes(8)),
            (Attribute.REQUESTED_ADDRESS_FAMILY, b"\1\0\0\0"),
        ],
        400,
    ),
]


@pytest.mark.parametrize(("attributes", "code"), BAD_ALLOCATES)
def test_impossible_allocates(desk: Desk, attributes: list[tuple[int, bytes]], code: int) -> None:
    """Each rule of RFC 8656 section 7.2 has its code, signed, and leaves nothing behind."""
    client = desk.client()
    answer = client.request(Method.ALLOCATE, *attributes)
    assert answer.code == code
    assert stun.check_integrity(answer.data, client.key)
    assert answer.message.get(Attribute.NONCE) is None
    assert desk.ports == {}
    assert desk.core.allocation_of(client.address) is None
    assert desk.core.counters().refusals == {401: 1, code: 1}


def test_dont_fragment_where_the_driver_can() -> None:
    """DONT-FRAGMENT is taken where packets can be sent so."""
    desk = Desk(can_forbid_fragments=True)
    client = desk.client()
    assert client.allocate((Attribute.DONT_FRAGMENT, b"")).code == 0
    assert client.permit(PEER).code == 0
    (output,) = client.indicate(b"x", PEER, (Attribute.DONT_FRAGMENT, b""))
    assert output.dont_fragment  # type: ignore[union-attr]
    (output,) = client.indicate(b"x", PEER)
    assert not output.dont_fragment  # type: ignore[union-attr]


def test_ipv6_relays() -> None:
    """A server with IPv6 relays gives them on request, and IPv4 ones to who does not ask."""
    desk = Desk(families=frozenset({Family.IPV6}), own_hosts=("2a00::1",))
    client = desk.client()
    assert client.allocate().code == 440
    assert client.allocate((Attribute.REQUESTED_ADDRESS_FAMILY, b"\2\0\0\0")).code == 0
    assert client.permit(PEER).code == 443
    assert client.permit(IPV6_PEER).code == 0
    assert client.bind(0x4000, PEER).code == 443
    assert client.bind(0x4000, IPV6_PEER).code == 0
    assert sent(client.channel(0x4000, b"x")) == (IPV6_PEER, b"x")


def test_a_retransmitted_allocate_gets_the_same_answer(desk: Desk) -> None:
    """A lost answer is repeated byte for byte, and no second port is opened."""
    client = desk.client()
    client.challenge()
    data = client.signed(Method.ALLOCATE, (Attribute.REQUESTED_TRANSPORT, UDP))
    first, second = client.send(data), client.send(data)
    assert first is not None
    assert second is not None
    assert first.data == second.data
    assert len(desk.ports) == 1


def test_a_second_allocate_gets_437(desk: Desk) -> None:
    """One 5-tuple has one allocation."""
    client = desk.client()
    assert client.allocate().code == 0
    assert client.allocate().code == 437
    client.use(client.username.replace("alice", "mallory"))
    assert client.allocate().code == 437


def test_a_slow_driver_answers_once() -> None:
    """While the port is being opened retransmissions wait, and other requests find no allocation."""
    core = TurnServerCore(TurnSettings(secret=SECRET), entropy=random.Random(1), clock=lambda: UNIX_S)
    desk = Desk()
    desk.core = core
    client = desk.client()
    client.challenge()
    data = client.signed(Method.ALLOCATE, (Attribute.REQUESTED_TRANSPORT, UDP))
    (order,) = core.receive_from_client(data, client.address, desk.now)
    assert isinstance(order, OpenRelay)
    assert core.receive_from_client(data, client.address, desk.now) == []
    assert client.refresh().code == 437
    (output,) = core.relay_opened(order.allocation, (RELAY_HOST, 1234), desk.now)
    assert isinstance(output, SendToClient)
    assert client.refresh().code == 0


def test_a_port_that_comes_too_late_is_closed() -> None:
    """If the allocation expired while its ports were opened, they are given back."""
    core = TurnServerCore(TurnSettings(secret=SECRET), entropy=random.Random(1), clock=lambda: UNIX_S)
    desk = Desk()
    desk.core = core
    client = desk.client()
    client.challenge()
    data = client.signed(
        Method.ALLOCATE, (Attribute.REQUESTED_TRANSPORT, UDP), (Attribute.EVEN_PORT, b"\x80")
    )
    (order,) = core.receive_from_client(data, client.address, desk.now)
    assert isinstance(order, OpenRelay)
    assert order.reservation is not None
    assert core.timeouts(desk.now + 601) == []
    assert core.relay_opened(order.allocation, (RELAY_HOST, 1234), desk.now + 601) == [
        CloseRelay(order.allocation),
        ReleaseReservation(order.reservation),
    ]
    assert core.relay_failed(order.allocation, desk.now + 601) == []


def test_no_port_gets_508(desk: Desk) -> None:
    """When the system has no socket left, the client hears so and can try again later."""
    client = desk.client()
    desk.full = True
    answer = client.allocate()
    assert answer.code == 508
    assert stun.check_integrity(answer.data, client.key)
    desk.full = False
    assert client.allocate().code == 0


def test_quota_counts_users_over_all_their_credentials() -> None:
    """New credentials do not bring a new quota, and other users have their own."""
    desk = Desk(limits=TurnLimits(max_allocations_per_user=2))
    assert desk.client(port=1).allocate().code == 0
    desk.now += 1
    assert desk.client(port=2).allocate().code == 0
    desk.now += 1
    third = desk.client(port=3)
    assert third.allocate().code == 486
    assert desk.client("bob", port=4).allocate().code == 0
    desk.now += 598
    assert third.allocate().code == 0


def test_capacity_gets_508() -> None:
    """A full server says so."""
    desk = Desk(limits=TurnLimits(max_allocations=2))
    assert desk.client("alice", port=1).allocate().code == 0
    assert desk.client("bob", port=2).allocate((Attribute.EVEN_PORT, b"\x80")).code == 508
    assert desk.client("carol", port=3).allocate().code == 0
    assert desk.client("dave", port=4).allocate().code == 508


# EVEN-PORT and RESERVATION-TOKEN.


def test_a_reserved_port_waits_for_its_user(desk: Desk) -> None:
    """The token of a pair gives its owner the next port, once."""
    first, second, third = (desk.client(port=number) for number in (1, 2, 3))
    answer = first.allocate((Attribute.EVEN_PORT, b"\x80"))
    token = answer.message.get(Attribute.RESERVATION_TOKEN)
    assert token is not None
    stranger = desk.client("mallory", port=4)
    assert stranger.allocate((Attribute.RESERVATION_TOKEN, token)).code == 508
    answer = second.allocate((Attribute.RESERVATION_TOKEN, token))
    assert answer.address(Attribute.XOR_RELAYED_ADDRESS) == (RELAY_HOST, 50_001)
    assert third.allocate((Attribute.RESERVATION_TOKEN, token)).code == 508


def test_a_reserved_port_is_let_go(desk: Desk) -> None:
    """Nobody came for thirty seconds."""
    answer = desk.client(port=1).allocate((Attribute.EVEN_PORT, b"\x80"))
    token = answer.message.get(Attribute.RESERVATION_TOKEN)
    assert token is not None
    assert desk.held == {token: 50_001}
    assert desk.core.next_timeout() == desk.now + 30
    desk.now += 30
    assert desk.timeouts() == []
    assert desk.held == {}
    assert desk.client(port=2).allocate((Attribute.RESERVATION_TOKEN, token)).code == 508


def test_an_even_port_alone_reserves_nothing(desk: Desk) -> None:
    """Without the R bit there is no token."""
    answer = desk.client().allocate((Attribute.EVEN_PORT, b"\0"))
    assert answer.code == 0
    assert answer.message.get(Attribute.RESERVATION_TOKEN) is None


def test_reserved_ports_count_on_the_quota() -> None:
    """Nobody can hold more ports than the quota by reserving them."""
    desk = Desk(limits=TurnLimits(max_allocations_per_user=3))
    first = desk.client(port=1)
    assert first.allocate((Attribute.EVEN_PORT, b"\x80")).code == 0
    assert first.refresh(0).code == 0
    assert desk.client(port=2).allocate((Attribute.EVEN_PORT, b"\x80")).code == 0
    assert desk.client(port=3).allocate().code == 486


# Refresh.


def test_refresh_with_zero_deletes(desk: Desk) -> None:
    """The port is closed, the answer comes, and the 5-tuple is free again."""
    client = desk.client()
    client.allocate()
    answer = client.refresh(0)
    assert (answer.code, answer.lifetime_s) == (0, 0)
    assert desk.ports == {}
    assert client.refresh(0).code == 437
    assert client.allocate().code == 0


def test_an_allocation_expires(desk: Desk) -> None:
    """After its lifetime the allocation is gone, whether or not the timer came in time."""
    client = desk.client()
    client.allocate()
    desk.now += 599.9
    assert client.refresh(600).code == 0
    desk.now += 599
    client.nonce = None
    assert client.permit(PEER).code == 0
    desk.now += 1
    assert client.indicate(b"x", PEER) == []
    assert desk.ports == {}
    assert client.permit(PEER).code == 437
    assert desk.core.next_timeout() is None


def test_refresh_with_another_family_gets_443(desk: Desk) -> None:
    """A refresh cannot change the address family."""
    client = desk.client()
    client.allocate()
    assert client.request(Method.REFRESH, (Attribute.REQUESTED_ADDRESS_FAMILY, b"\2\0\0\0")).code == 443
    assert client.request(Method.REFRESH, (Attribute.REQUESTED_ADDRESS_FAMILY, b"\1\0\0\0")).code == 0


@pytest.mark.parametrize("method", [Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND])
def test_requests_without_an_allocation_get_437(desk: Desk, method: Method) -> None:
    """RFC 8656 section 5: an existing allocation is needed for all but Allocate."""
    assert desk.client().request(method).code == 437


@pytest.mark.parametrize("method", [Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND])
def test_another_user_gets_441(desk: Desk, method: Method) -> None:
    """Right credentials of somebody else do not reach an allocation, nor do newer ones of the same user."""
    client = desk.client()
    client.allocate()
    for username in ("1900000000:mallory", "1900000000:alice"):
        client.use(username)
        answer = client.request(method)
        assert answer.code == 441
        assert stun.check_integrity(answer.data, client.key)


# CreatePermission.


def test_permissions_for_several_peers(desk: Desk) -> None:
    """One request permits all its peers, whatever their ports."""
    client = desk.client()
    client.allocate()
    assert client.permit(PEER, OTHER_PEER).code == 0
    assert sent(client.indicate(b"1", (PEER[0], 1))) == ((PEER[0], 1), b"1")
    assert sent(client.indicate(b"2", OTHER_PEER)) == (OTHER_PEER, b"2")
    assert client.indicate(b"3", ("9.9.9.11", 5000)) == []


def test_one_denied_peer_denies_the_request(desk: Desk) -> None:
    """Permissions are installed for all peers or for none."""
    client = desk.client()
    client.allocate()
    assert client.permit(PEER, ("10.0.0.1", 1)).code == 403
    assert client.indicate(b"x", PEER) == []
    assert client.permit(PEER, IPV6_PEER).code == 443
    assert client.indicate(b"x", PEER) == []


def test_malformed_permissions_get_400(desk: Desk) -> None:
    """A permission for nobody, or for no address, is a bad request."""
    client = desk.client()
    client.allocate()
    assert client.permit().code == 400
    assert client.request(Method.CREATE_PERMISSION, (Attribute.XOR_PEER_ADDRESS, b"\0\1")).code == 400


def test_permissions_are_limited() -> None:
    """One allocation cannot fill the memory with permissions or channels; refreshing needs no room."""
    desk = Desk(limits=TurnLimits(max_permissions=2))
    client = desk.client()
    client.allocate()
    assert client.permit(PEER, OTHER_PEER).code == 0
    assert client.permit(("9.9.9.11", 1)).code == 508
    assert client.permit(PEER).code == 0
    assert client.bind(0x4000, ("9.9.9.11", 1)).code == 508
    assert client.bind(0x4000, PEER).code == 0
    assert client.bind(0x4001, OTHER_PEER).code == 0
    assert client.bind(0x4002, (PEER[0], 1)).code == 508
    assert client.bind(0x4001, OTHER_PEER).code == 0


# ChannelBind.


@pytest.mark.parametrize(
    ("channel", "code"),
    [(0x0000, 400), (0x3FFF, 400), (0x4000, 0), (0x4FFF, 0), (0x5000, 400), (0x7FFF, 400), (0xFFFF, 400)],
)
def test_channel_numbers(desk: Desk, channel: int, code: int) -> None:
    """Channels are from 0x4000 to 0x4FFF (RFC 8656 section 12)."""
    client = desk.client()
    client.allocate()
    assert client.bind(channel, PEER).code == code


@pytest.mark.parametrize(("channel", "code"), [(0x3FFF, 400), (0x5000, 0), (0x7FFF, 0), (0x8000, 400)])
def test_channel_numbers_of_older_clients(channel: int, code: int) -> None:
    """Where it is allowed, channels go up to 0x7FFF (RFC 5766 section 11), and carry data."""
    desk = Desk(rfc5766_channels=True)
    client = desk.client()
    client.allocate()
    assert client.bind(channel, PEER).code == code
    if code == 0:
        assert sent(client.channel(channel, b"x")) == (PEER, b"x")


def test_channel_conflicts_get_400(desk: Desk) -> None:
    """A channel has one peer and a peer one channel; the same pair again is a refresh."""
    client = desk.client()
    client.allocate()
    assert client.bind(0x4000, PEER).code == 0
    assert client.bind(0x4000, OTHER_PEER).code == 400
    assert client.bind(0x4001, PEER).code == 400
    assert client.bind(0x4000, PEER).code == 0
    assert client.bind(0x4001, (PEER[0], 5001)).code == 0


def test_incomplete_channel_binds_get_400(desk: Desk) -> None:
    """Both attributes are needed."""
    client = desk.client()
    client.allocate()
    transaction_id = client.new_id()
    peer = (Attribute.XOR_PEER_ADDRESS, encode_xor_address(PEER, transaction_id))
    number = (Attribute.CHANNEL_NUMBER, b"\x40\0\0\0")
    for attributes in ([peer], [number], [peer, (Attribute.CHANNEL_NUMBER, b"\x40\0")]):
        answer = client.request(Method.CHANNEL_BIND, *attributes, transaction_id=transaction_id)
        assert answer.code == 400


DENIED: list[Address] = [("127.0.0.1", 53), ("169.254.169.254", 80), ("224.0.0.1", 1), ("192.168.1.1", 1)]


@pytest.mark.parametrize("peer", DENIED)
def test_denied_peers_get_403(desk: Desk, peer: Address) -> None:
    """Neither permission nor channel leads inside, and a Send indication without them goes nowhere."""
    client = desk.client()
    client.allocate()
    assert client.permit(peer).code == 403
    assert client.bind(0x4000, peer).code == 403
    assert client.indicate(b"x", peer) == []
    assert client.channel(0x4000, b"x") == []


def test_counters_tell_refusals(desk: Desk) -> None:
    """Each refusal is counted under its code."""
    client = desk.client()
    client.allocate()
    client.allocate()
    client.permit(("10.0.0.1", 1))
    counters = desk.core.counters()
    assert counters.refusals == {401: 1, 437: 1, 403: 1}
    assert (counters.allocations, counters.allocations_total) == (1, 1)


def test_closed_allocations_leave_no_memory(desk: Desk) -> None:
    """Whoever allocates and deletes in a loop leaves nothing that grows."""
    client = desk.client()
    for _ in range(500):
        assert client.allocate().code == 0
        assert client.refresh(0).code == 0
    assert len(desk.core._table._wakes) <= 66
    assert desk.core._table.held_by("alice") == 0
    assert desk.core._opening == {}


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"secret": ""}, "secret"),
        ({"realm": ""}, "realm"),
        ({"realm": "x" * 800}, "realm"),
        ({"families": frozenset()}, "families"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], word: str) -> None:
    """Settings that cannot work are refused with their name."""
    with pytest.raises(ValueError, match=word):
        TurnSettings(**{"secret": SECRET, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"max_allocations": 0}, {"challenges_per_s": -1.0}, {"max_lifetime_s": 599}]
)
def test_impossible_limits_are_refused(wrong: dict[str, int]) -> None:
    """Limits that cannot work are refused with their name."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TurnLimits(**wrong)


def test_data_reaches_the_client_by_channel_or_indication(desk: Desk) -> None:
    """A permitted peer's data comes as a Data indication until a channel is bound, then as ChannelData."""
    client = desk.client()
    client.allocate()
    assert client.hear(b"no", PEER) == []
    client.permit(PEER)
    assert received(client.hear(b"yes", PEER)) == ("data", PEER, b"yes")
    client.bind(0x4321, PEER)
    assert received(client.hear(b"short", PEER)) == ("channel", 0x4321, b"short")
    other_port = (PEER[0], 1)
    assert received(client.hear(b"long", other_port)) == ("data", other_port, b"long")
