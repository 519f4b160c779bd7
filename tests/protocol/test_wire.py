"""What may be said on the signaling wire, and what anything else is answered with."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calllab.errors import WireError
from calllab.protocol import wire
from calllab.protocol.wire import ErrorCode, decode_client, encode
from tests.protocol.wire_messages import EXAMPLES, client_messages


def frame_of(kind: str, **changes: Any) -> bytes:
    """Return the example of a type with fields set, or left out where the value is ``...``."""
    content = {**EXAMPLES[kind], **changes}
    return json.dumps({name: value for name, value in content.items() if value is not ...}).encode()


def refusal(frame: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        decode_client(frame)
    return caught.value


def attempt(frame: bytes) -> tuple[wire.ClientMessage | None, WireError | None]:
    """Return the message, or the one error that decode_client may raise."""
    try:
        return decode_client(frame), None
    except WireError as error:
        return None, error


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_type_is_read_and_written_back_with_the_same_content(kind: str) -> None:
    """A message comes out of encode with exactly the fields it came in with."""
    content = {**EXAMPLES[kind], "id": "7", "recipientDevice": "phone"}
    message = decode_client(json.dumps(content).encode())
    assert json.loads(encode(message)) == content


def test_end_of_candidates_is_a_null_candidate() -> None:
    """``candidate: null`` is a message; a message without ``candidate`` is not."""
    message = decode_client(frame_of("call-ice-candidate", candidate=None))
    assert isinstance(message, wire.CallIceCandidate)
    assert message.candidate is None
    assert json.loads(encode(message))["candidate"] is None
    assert refusal(frame_of("call-ice-candidate", candidate=...)).code == ErrorCode.BAD_MESSAGE


@given(client_messages)
def test_what_is_encoded_is_decoded_equal(message: wire.ClientMessage) -> None:
    """Every message survives the wire."""
    assert decode_client(encode(message)) == message


@pytest.mark.parametrize(
    "frame",
    [b"", b"hello", b"{", b'{"type":"typing"', b"\x00", b"NaN", b'{"a":1}x', b"\xef\xbb\xbf{}", b'"\\ud800"'],
)
def test_what_is_not_json_is_bad_json(frame: bytes) -> None:
    """Text that is not one JSON value gets bad-json."""
    assert refusal(frame).code == ErrorCode.BAD_JSON


@pytest.mark.parametrize("frame", [b"[" * 60_000, b'{"type":"typing","x":' + b'{"x":' * 10_000])
def test_deep_nesting_is_refused_and_nothing_worse(frame: bytes) -> None:
    """Nesting that would exhaust the stack is answered like any other nonsense."""
    assert refusal(frame).code == ErrorCode.BAD_JSON


@pytest.mark.parametrize("content", [None, 1, "typing", [], [EXAMPLES["typing"]], True])
def test_json_that_is_no_object_is_a_bad_message(content: object) -> None:
    """Only objects are messages."""
    assert refusal(json.dumps(content).encode()).code == ErrorCode.BAD_MESSAGE


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_unknown_missing_or_mistyped_field_is_a_bad_message(kind: str) -> None:
    """Each field of each type is required to be there, to be of its type, and to be alone."""
    for field in EXAMPLES[kind]:
        for wrong in (7, True, ["x"], {"x": 1}):
            error = refusal(frame_of(kind, **{field: wrong}))
            assert error.code == ErrorCode.BAD_MESSAGE, (field, wrong)
        if field != "reason":
            assert refusal(frame_of(kind, **{field: ...})).code == ErrorCode.BAD_MESSAGE, field
        if field != "candidate":
            assert refusal(frame_of(kind, **{field: None})).code == ErrorCode.BAD_MESSAGE, field
    assert refusal(frame_of(kind, colour="red")).code == ErrorCode.BAD_MESSAGE
    assert "colour" in str(refusal(frame_of(kind, colour="red")))


@pytest.mark.parametrize(
    "candidate",
    [
        {"sdpMLineIndex": -1},
        {"sdpMLineIndex": 65536},
        {"sdpMLineIndex": 1.5},
        {"sdpMLineIndex": 10**400},
        {"sdpMid": 0},
        {"candidate": None},
        {"foundation": "1"},
    ],
)
def test_a_candidate_is_an_rtcicecandidateinit_and_no_more(candidate: dict[str, Any]) -> None:
    """The members of RTCIceCandidateInit are checked by type and range; others are refused."""
    assert refusal(frame_of("call-ice-candidate", candidate=candidate)).code == ErrorCode.BAD_MESSAGE


@pytest.mark.parametrize(
    ("field", "kind"), [("id", "typing"), ("callId", "call-offer"), ("messageId", "read")]
)
def test_ids_are_bounded(field: str, kind: str) -> None:
    """An id has 1 to 128 characters."""
    decode_client(frame_of(kind, **{field: "é" * wire.MAX_ID_CHARS}))
    assert refusal(frame_of(kind, **{field: "x" * (wire.MAX_ID_CHARS + 1)})).code == ErrorCode.BAD_MESSAGE
    assert refusal(frame_of(kind, **{field: ""})).code == ErrorCode.BAD_MESSAGE


@pytest.mark.parametrize("field", ["senderId", "senderDevice"])
@pytest.mark.parametrize("value", ["alice", None, 7])
def test_naming_the_sender_is_forbidden_before_all_else(field: str, value: object) -> None:
    """A frame that names its sender gets sender-forbidden, whatever else is wrong with it."""
    for frame in (
        frame_of("typing", **{field: value}),
        frame_of("typing", type="nonsense", **{field: value}),
        frame_of("typing", recipientId=..., **{field: value}),
    ):
        assert refusal(frame).code == ErrorCode.SENDER_FORBIDDEN


def test_an_unknown_type_says_which_types_there_are() -> None:
    """unknown-type names the type and the known ones."""
    error = refusal(frame_of("typing", type="call-transfer"))
    assert error.code == ErrorCode.UNKNOWN_TYPE
    assert "call-transfer" in str(error)
    assert all(kind in str(error) for kind in EXAMPLES)


@pytest.mark.parametrize(
    "frame",
    [
        frame_of("typing", id="m-9", colour="red"),
        frame_of("typing", id="m-9", type="nonsense"),
        frame_of("typing", id="m-9", senderId="mallory"),
        frame_of("call-offer", id="m-9", sdp=7),
    ],
)
def test_a_refusal_names_the_message_that_it_answers(frame: bytes) -> None:
    """``in_reply_to`` is the client's id whenever the frame is an object with a proper one."""
    assert refusal(frame).in_reply_to == "m-9"


@pytest.mark.parametrize("bad_id", [7, "", "x" * 129, None, ["m-9"]])
def test_a_refusal_never_echoes_what_is_no_id(bad_id: object) -> None:
    """An id that is none is not given back."""
    assert refusal(frame_of("typing", id=bad_id)).in_reply_to is None


def test_a_key_given_twice_means_one_thing_to_everyone() -> None:
    """What is passed on has each key once, with the value that was validated."""
    twice = b'{"type":"typing","recipientId":"bob","recipientId":"carol"}'
    message = decode_client(twice)
    assert encode(message) == b'{"type":"typing","recipientId":"carol"}'
    assert message.recipient_id == "carol"
    other_type = b'{"type":"typing","recipientId":"bob","type":"call-accept"}'
    assert refusal(other_type).code in (ErrorCode.BAD_MESSAGE, ErrorCode.UNKNOWN_TYPE)


def test_refusals_stay_short() -> None:
    """However long the nonsense, the answer is not."""
    for frame in (frame_of("typing", type="x" * 60_000), frame_of("typing", **{"x" * 60_000: 1})):
        assert len(str(refusal(frame))) < 600


def test_a_frame_over_64_kib_is_refused_unread() -> None:
    """The limit is 65536 bytes of UTF-8, counted before anything is read."""
    room = wire.MAX_FRAME_BYTES - len(frame_of("message", encryptedContent=""))
    decode_client(frame_of("message", encryptedContent="x" * room))
    assert "65537" in str(refusal(frame_of("message", encryptedContent="x" * (room + 1))))


def _mutations() -> st.SearchStrategy[bytes]:
    """Valid frames with some bytes replaced, removed or put in."""

    def mutate(frame: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
        for at, removed, put in edits:
            start = at % (len(frame) + 1)
            frame = frame[:start] + put + frame[start + removed :]
        return frame

    edit = st.tuples(
        st.integers(0, 500),
        st.integers(0, 3),
        st.binary(max_size=3)
        | st.sampled_from(
            [b'"', b"{", b"}", b"null", b"1e999", b"\\u0000", b"\\ud800", b"\xed\xa0\x80", b","]
        ),
    )
    return st.builds(mutate, client_messages.map(encode), st.lists(edit, max_size=4))


_json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=20,
)
_FIELDS = ("id", "recipientId", "recipientDevice", "callId", "sdp", "candidate", "senderId", "reason")
_nearly = st.fixed_dictionaries(
    {"type": st.sampled_from([*EXAMPLES, "nonsense"])},
    optional=dict.fromkeys(_FIELDS, _json_values),
).map(lambda content: json.dumps(content).encode())


@given(st.binary(max_size=300) | _mutations() | _nearly)
def test_any_bytes_are_a_message_or_one_kind_of_error(frame: bytes) -> None:
    """Whatever comes in, decode_client returns a message that re-encodes equal, or raises WireError."""
    message, error = attempt(frame)
    if error is not None:
        assert error.code in set(ErrorCode)
        assert str(error)
    if message is not None:
        frame.decode()  # an accepted frame is valid UTF-8
        written = encode(message)
        assert decode_client(written) == message
        assert len(written) <= len(frame)
        assert not {"senderId", "senderDevice"} & msgspec.json.decode(written).keys()


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("bob", True),
        ("a.b_c-9", True),
        ("x" * 32, True),
        ("ab", False),
        ("x" * 33, False),
        ("Bob", False),
        ("bob\n", False),
        ("böb", False),
        ("b b", False),
    ],
)
def test_user_ids_are_short_lower_case_names(text: str, valid: bool) -> None:
    """The rule for names is ``[a-z0-9._-]{3,32}``, on the whole text."""
    assert wire.is_user_id(text) is valid


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("a", True),
        ("A.b_c~9-", True),
        ("x" * 64, True),
        ("", False),
        ("x" * 65, False),
        ("a b", False),
        ("a\n", False),
    ],
)
def test_device_ids_need_no_escaping(text: str, valid: bool) -> None:
    """A device id has 1 to 64 unreserved characters."""
    assert wire.is_device_id(text) is valid
