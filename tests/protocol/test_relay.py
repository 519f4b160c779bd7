"""What the relay promises to senders and recipients."""

from __future__ import annotations

import json
import random

import pytest

from calllab.protocol import CloseCode, RelayCore, RelayLimits
from calllab.protocol.wire import MAX_FRAME_BYTES
from tests.protocol.relay_desk import Desk
from tests.protocol.wire_messages import EXAMPLES


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_message_is_forwarded_as_it_is_with_its_sender_added(kind: str) -> None:
    """The recipient gets the same fields plus senderId and senderDevice; the sender gets nothing."""
    desk = Desk()
    alice, bob = desk.connect("alice", "laptop"), desk.connect("bob")
    message = {**EXAMPLES[kind], "id": "a.1"}
    desk.send_frame(alice, json.dumps(message).encode())
    assert desk.read(bob) == [{**message, "senderId": "alice", "senderDevice": "laptop"}]
    assert desk.read(alice) == []


def test_a_forged_sender_reaches_nobody() -> None:
    """A frame that names its sender is refused, also when the key is hidden behind an escape or doubled."""
    desk = Desk()
    alice, bob = desk.connect("alice"), desk.connect("bob")
    for key in ("senderId", "sender\\u0049d", "senderDevice"):
        desk.send_frame(alice, f'{{"type":"typing","{key}":"carol","recipientId":"bob"}}'.encode())
    assert [answer["code"] for answer in desk.read(alice)] == ["sender-forbidden"] * 3
    assert desk.read(bob) == []


def test_order_is_kept_per_sender_and_recipient() -> None:
    """Messages arrive in the order in which they were sent, each once."""
    desk = Desk()
    alice, carol, bob = desk.connect("alice"), desk.connect("carol"), desk.connect("bob")
    for n in range(100):
        desk.send(alice, "typing", id=f"a{n}")
        desk.send(carol, "typing", id=f"c{n}")
    got = [message["id"] for message in desk.read(bob)]
    assert [i for i in got if i[0] == "a"] == [f"a{n}" for n in range(100)]
    assert [i for i in got if i[0] == "c"] == [f"c{n}" for n in range(100)]


def test_unknown_and_offline_recipients_are_told_apart() -> None:
    """recipient-unknown is for names nobody has; both answers carry the recipient, the call and the id."""
    desk = Desk("bob")
    alice = desk.connect("alice")
    desk.send(alice, "call-accept", "bob", callId="c-1", id="a.1")
    desk.send(alice, "typing", "nobody", id="a.2")
    offline, unknown = desk.read(alice)
    assert offline == {
        "type": "error",
        "code": "recipient-offline",
        "message": "bob is not connected: try again later",
        "recipientId": "bob",
        "callId": "c-1",
        "inReplyTo": "a.1",
    }
    assert unknown["code"] == "recipient-unknown"
    assert unknown["recipientId"] == "nobody"
    assert unknown["inReplyTo"] == "a.2"
    assert "callId" not in unknown


def test_nothing_is_stored_for_later() -> None:
    """A message to somebody who is away is gone, even if they come a moment later."""
    desk = Desk("bob")
    alice = desk.connect("alice")
    desk.send(alice, "typing")
    assert desk.read(desk.connect("bob")) == []


def test_all_devices_get_a_message_unless_one_is_named() -> None:
    """RecipientDevice picks one device; without it each gets the message."""
    desk = Desk()
    alice = desk.connect("alice")
    phone, laptop = desk.connect("bob", "phone"), desk.connect("bob", "laptop")
    desk.send(alice, "typing", id="all")
    desk.send(alice, "typing", id="one", recipientDevice="laptop")
    desk.send(alice, "typing", id="none", recipientDevice="watch")
    assert [message["id"] for message in desk.read(phone)] == ["all"]
    assert [message["id"] for message in desk.read(laptop)] == ["all", "one"]
    (answer,) = desk.read(alice)
    assert answer["code"] == "recipient-offline"
    assert "watch" in answer["message"]


def test_a_message_to_oneself_goes_to_ones_other_devices() -> None:
    """The sending device does not hear itself, unless it names itself."""
    desk = Desk("alice")
    phone = desk.connect("alice", "phone")
    desk.send(phone, "typing", "alice")
    assert [message["code"] for message in desk.read(phone)] == ["recipient-offline"]
    laptop = desk.connect("alice", "laptop")
    desk.send(phone, "typing", "alice")
    assert [message["senderDevice"] for message in desk.read(laptop)] == ["phone"]
    assert desk.read(phone) == []
    desk.send(phone, "typing", "alice", recipientDevice="phone")
    assert [message["senderDevice"] for message in desk.read(phone)] == ["phone"]


@pytest.mark.parametrize(
    ("kind", "reason"), [("call-accept", "answered-elsewhere"), ("call-reject", "declined-elsewhere")]
)
@pytest.mark.parametrize("caller_is_here", [True, False])
def test_the_first_device_to_decide_stops_the_ringing_on_the_others(
    kind: str, reason: str, caller_is_here: bool
) -> None:
    """The callee's other devices get a call-hangup from their own user, even if the caller has gone."""
    desk = Desk("alice")
    phone, laptop, watch = (desk.connect("bob", device) for device in ("phone", "laptop", "watch"))
    alice = desk.connect("alice") if caller_is_here else None
    desk.send(laptop, kind, "alice", callId="c-1")
    for device in (phone, watch):
        assert desk.read(device) == [
            {
                "type": "call-hangup",
                "recipientId": "bob",
                "recipientDevice": device.device_id,
                "callId": "c-1",
                "reason": reason,
                "senderId": "bob",
                "senderDevice": "laptop",
            }
        ]
    own = desk.read(laptop)
    if alice is None:
        assert [message["code"] for message in own] == ["recipient-offline"]
    else:
        assert own == []
        assert [message["type"] for message in desk.read(alice)] == [kind]


def test_a_call_among_ones_own_devices_rings_off_only_the_third() -> None:
    """A device that got the accept itself is not told that the call was answered elsewhere."""
    desk = Desk()
    phone, laptop, watch = (desk.connect("bob", device) for device in ("phone", "laptop", "watch"))
    desk.send(laptop, "call-accept", "bob", callId="c-1", recipientDevice="phone")
    assert [message["type"] for message in desk.read(phone)] == ["call-accept"]
    assert [message["type"] for message in desk.read(watch)] == ["call-hangup"]
    assert desk.read(laptop) == []


def test_a_newer_socket_of_a_device_replaces_the_older() -> None:
    """The old socket is closed with 4409 and hears nothing more; what it still sends is ignored."""
    desk = Desk()
    alice, bob = desk.connect("alice"), desk.connect("bob", "phone")
    newer = desk.connect("bob", "phone")
    assert desk.closed == {bob: CloseCode.REPLACED}
    desk.send(alice, "typing")
    desk.send(bob, "typing", "alice")
    desk.core.disconnect(bob)
    assert [len(desk.read(connection)) for connection in (newer, bob, alice)] == [1, 0, 0]
    assert desk.core.devices_of("bob") == ("phone",)


def test_devices_without_a_name_are_given_one_each() -> None:
    """Two nameless sockets are two devices, named by the seeded entropy."""
    desk, again = Desk(), Desk()
    first, second = desk.connect("bob"), desk.connect("bob")
    assert first.device_id != second.device_id
    assert again.connect("bob").device_id == first.device_id
    with pytest.raises(ValueError, match="not a device id"):
        desk.connect("bob", "a phone")


def test_a_user_has_a_bounded_number_of_devices() -> None:
    """One device too many is closed with 1008; the others stay, and replacing one of them is no problem."""
    desk = Desk(limits=RelayLimits(devices_per_user=2))
    alice = desk.connect("alice")
    phone, laptop, watch = (desk.connect("bob", device) for device in ("phone", "laptop", "watch"))
    assert desk.closed == {watch: CloseCode.ABUSE}
    newer = desk.connect("bob", "laptop")
    desk.send(alice, "typing")
    assert [len(desk.read(connection)) for connection in (phone, laptop, watch, newer)] == [1, 0, 0, 1]


def test_a_recipient_that_does_not_read_costs_its_senders_an_error_and_nobody_anything_else() -> None:
    """Over the limit of waiting bytes comes recipient-slow; when it reads again, messages flow again."""
    limit = 10_000
    desk = Desk(limits=RelayLimits(queued_bytes=limit))
    alice, bob, carol = desk.connect("alice"), desk.connect("bob"), desk.connect("carol")
    for n in range(20):
        desk.send(alice, "message", encryptedContent="x" * 1000, id=str(n))
        assert desk.unread_bytes(bob) == bob.queued_bytes <= limit
    answers = desk.read(alice)
    assert {answer["code"] for answer in answers} == {"recipient-slow"}
    desk.send(alice, "typing", "carol")
    assert len(desk.read(carol)) == 1
    got = [message["id"] for message in desk.read(bob)]
    assert got + [answer["inReplyTo"] for answer in answers] == [str(n) for n in range(20)]
    desk.send(alice, "typing")
    assert len(desk.read(bob)) == 1


def test_one_slow_device_does_not_cost_the_others_their_messages() -> None:
    """With one of two devices stalled there is no error: a message sent again would come twice."""
    desk = Desk(limits=RelayLimits(queued_bytes=500))
    alice, stalled, phone = (
        desk.connect("alice"),
        desk.connect("bob", "stalled"),
        desk.connect("bob", "phone"),
    )
    for _ in range(20):
        desk.send(alice, "typing")
        assert len(desk.read(phone)) == 1
    assert desk.read(alice) == []
    desk.send(alice, "typing", recipientDevice="stalled")
    assert [answer["code"] for answer in desk.read(alice)] == ["recipient-slow"]
    assert stalled.queued_bytes <= 500


def test_a_burst_of_ten_thousand_is_answered_and_harms_nobody() -> None:
    """What is over the allowance gets rate-limited, each message by its id; another pair notices nothing."""
    desk = Desk(limits=RelayLimits(messages_per_s=100, burst=300))
    alice, bob, carol, dave = (desk.connect(user) for user in ("alice", "bob", "carol", "dave"))
    delivered: list[str] = []
    refused: list[str] = []
    for n in range(10_000):
        desk.send(alice, "typing", id=str(n))
        delivered += [message["id"] for message in desk.read(bob)]
        refused += [m["inReplyTo"] for m in desk.read(alice) if m["code"] == "rate-limited"]
        if n % 100 == 0:
            desk.send(carol, "typing", "dave")
            assert len(desk.read(dave)) == 1
            assert desk.read(carol) == []
    assert delivered == [str(n) for n in range(300)]
    assert refused == [str(n) for n in range(300, 10_000)]
    assert desk.closed == {}
    desk.now += 1.0
    desk.send(alice, "typing", id="later")
    assert [message["id"] for message in desk.read(bob)] == ["later"]


def test_a_sender_that_reads_no_answers_does_not_fill_the_relay() -> None:
    """Answers wait for their sender within the same limit as messages."""
    desk = Desk(limits=RelayLimits(queued_bytes=10_000))
    alice = desk.connect("alice")
    for _ in range(2000):
        desk.send_frame(alice, b"nonsense")
    assert alice.queued_bytes <= 10_000


def test_the_allowance_is_the_users_not_the_sockets() -> None:
    """Neither a second device nor a new connection gives a user more."""
    desk = Desk(limits=RelayLimits(messages_per_s=1, burst=10))
    bob = desk.connect("bob")
    phone, laptop = desk.connect("alice", "phone"), desk.connect("alice", "laptop")
    for sender in (phone, laptop) * 10:
        desk.send(sender, "typing")
    assert len(desk.read(bob)) == 10
    for connection in (phone, laptop):
        desk.core.disconnect(connection)
    again = desk.connect("alice")
    desk.send(again, "typing")
    assert desk.read(bob) == []
    desk.now += 3.0
    for _ in range(5):
        desk.send(again, "typing")
    assert len(desk.read(bob)) == 3


@pytest.mark.parametrize("frame", [b"nonsense", b'{"type":"typing","recipientId":"bob"}'])
def test_a_client_that_never_stops_breaking_the_rules_is_closed(frame: bytes) -> None:
    """Refusals without a pause for more than ten seconds end in 1008."""
    desk = Desk()
    alice, _bob = desk.connect("alice"), desk.connect("bob")
    while alice not in desk.closed:
        desk.send_frame(alice, frame)
        desk.now += 0.005
        if alice not in desk.closed:
            desk.core.flushed(alice, alice.queued_bytes)
        assert desk.now < 20.0
    assert desk.closed == {alice: CloseCode.ABUSE}
    assert desk.now > 10.0


def test_mistakes_with_pauses_are_never_abuse() -> None:
    """A client that errs every two seconds may do so for ever."""
    desk = Desk()
    alice = desk.connect("alice")
    for _ in range(1000):
        desk.send_frame(alice, b"nonsense")
        assert len(desk.read(alice)) == 1
        desk.now += 2.0
    assert desk.closed == {}


def test_an_endless_flood_is_closed_by_count_as_well() -> None:
    """A flood too fast for the clock to show ends after twenty thousand refusals."""
    desk = Desk()
    alice = desk.connect("alice")
    sent = 0
    while alice not in desk.closed:
        desk.send_frame(alice, b"nonsense")
        sent += 1
    assert sent == 20_001


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"x" * (MAX_FRAME_BYTES + 1), CloseCode.TOO_BIG),
        (b"\xff" * (1 << 20), CloseCode.TOO_BIG),
        (b'{"type":"typing","recipientId":"b\xffb"}', CloseCode.INVALID_UTF8),
        (b'{"type":"message","recipientId":"bob","encryptedContent":"\xed\xa0\x80"}', CloseCode.INVALID_UTF8),
        (b'{"\xc0\xaf":1}', CloseCode.INVALID_UTF8),
    ],
)
def test_frames_that_no_client_may_send_close_its_socket(frame: bytes, code: CloseCode) -> None:
    """1009 over 64 KiB, 1007 for what is not UTF-8; nobody else hears of it."""
    desk = Desk()
    alice, bob = desk.connect("alice"), desk.connect("bob")
    desk.send_frame(alice, frame)
    assert desk.closed == {alice: code}
    assert desk.read(bob) == []
    desk.send(bob, "typing", "alice")
    assert [answer["code"] for answer in desk.read(bob)] == ["recipient-unknown"]


def test_what_the_driver_notices_first_has_the_same_outcome() -> None:
    """Binary, oversized and invalid frames that a WebSocket library refuses itself are closed alike, once."""
    desk = Desk()
    for notice, code in (
        (desk.core.receive_binary, CloseCode.BINARY_FRAME),
        (desk.core.receive_too_big, CloseCode.TOO_BIG),
        (desk.core.receive_invalid_utf8, CloseCode.INVALID_UTF8),
    ):
        connection = desk.connect("alice")
        desk.do(notice(connection))
        assert desk.closed[connection] == code
        assert notice(connection) == ()
    assert desk.core.connections == 0


def test_logout_closes_the_sockets_of_the_session_or_of_the_user() -> None:
    """drop_session takes one session's sockets, drop_user all of a user's; both say 4401."""
    desk = Desk()
    phone = desk.connect("alice", "phone", session="s1")
    laptop = desk.connect("alice", "laptop", session="s2")
    bob = desk.connect("bob")
    desk.do(desk.core.drop_session("s1"))
    assert desk.closed == {phone: CloseCode.UNAUTHORIZED}
    desk.do(desk.core.drop_session("s1"))
    desk.do(desk.core.drop_session(None))
    desk.do(desk.core.drop_user("alice"))
    assert desk.closed == {phone: CloseCode.UNAUTHORIZED, laptop: CloseCode.UNAUTHORIZED}
    assert bob.is_open


def test_shutdown_says_going_away_to_everyone() -> None:
    """All sockets get 1001, and the core is empty."""
    desk = Desk()
    sockets = [desk.connect(user) for user in ("alice", "bob", "bob")]
    desk.do(desk.core.shutdown())
    assert desk.closed == dict.fromkeys(sockets, CloseCode.GOING_AWAY)
    assert desk.core.connections == 0


def test_counters_tell_what_was_done() -> None:
    """Received, delivered, refused and closed are counted by what they are."""
    desk = Desk()
    alice, _bob = desk.connect("alice"), desk.connect("bob")
    desk.send(alice, "typing")
    desk.send(alice, "typing", "nobody")
    desk.send_frame(alice, b"nonsense")
    desk.do(desk.core.receive_binary(alice))
    counters = desk.core.counters
    assert (counters.received, counters.delivered) == (3, 1)
    assert counters.refused == {"recipient-unknown": 1, "bad-json": 1}
    assert counters.closed == {CloseCode.BINARY_FRAME: 1}


def test_a_driver_cannot_flush_what_was_never_queued() -> None:
    """A driver's miscount is an error at once, not a queue that is never full."""
    desk = Desk()
    alice = desk.connect("alice")
    for miscount in (1, -1):
        with pytest.raises(ValueError, match="cannot have left"):
            desk.core.flushed(alice, miscount)


def test_users_who_left_long_ago_are_forgotten() -> None:
    """The memory of allowances does not grow with every user who was ever here."""
    core = RelayCore(knows_user=lambda user: False, entropy=random.Random(1))
    for n in range(10_000):
        connection, _ = core.connect(f"user-{n}", None, float(n))
        core.receive(connection, b"nonsense", float(n))
        core.disconnect(connection)
    assert len(core._buckets) < 2000


@pytest.mark.parametrize("name", ["messages_per_s", "burst", "queued_bytes", "devices_per_user", "calm_s"])
def test_limits_must_leave_something_to_do(name: str) -> None:
    """A limit of zero is refused by name."""
    with pytest.raises(ValueError, match=name):
        RelayLimits(**{name: 0})
