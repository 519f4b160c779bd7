"""The messages of the signaling wire: JSON text frames, camelCase, nothing beyond what is listed here.

A client sends one of nine message types to a recipient; the relay forwards it with the sender's name and
device added.  :func:`decode_client` is the only way in, and it raises one error type for anything hostile:

* Unknown fields are refused, so whatever is accepted has been looked at in full.  In particular every string
  of an accepted frame has been decoded, which makes an accepted frame valid UTF-8 all over.
* What is forwarded is the decoded message written anew (:func:`encode`), never the sender's own bytes: JSON
  with a key given twice is read differently by different parsers, so bytes that one parser has validated
  may mean something else to the next one.
"""

from __future__ import annotations

import re
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from calllab.errors import WireError

__all__ = [
    "BEARER_PREFIX",
    "MAX_DEVICE_CHARS",
    "MAX_FRAME_BYTES",
    "MAX_ID_CHARS",
    "MAX_REASON_CHARS",
    "SUBPROTOCOL",
    "CallAccept",
    "CallAnswer",
    "CallHangup",
    "CallIceCandidate",
    "CallMessage",
    "CallOffer",
    "CallReject",
    "ChatMessage",
    "ClientMessage",
    "CloseCode",
    "ErrorCode",
    "ErrorMessage",
    "IceCandidateInit",
    "Read",
    "Typing",
    "decode_client",
    "encode",
    "is_device_id",
    "is_user_id",
]

MAX_FRAME_BYTES: Final = 64 * 1024
"""The longest text frame, in bytes of UTF-8; a longer one closes the socket with 1009."""
MAX_ID_CHARS: Final = 128
"""The longest ``id``, ``callId``, ``messageId`` or ``recipientId``."""
MAX_DEVICE_CHARS: Final = 64
"""The longest device id."""
MAX_REASON_CHARS: Final = 256
"""The longest ``reason`` of a call-reject or call-hangup."""
SUBPROTOCOL: Final = "calllab.v1"
"""The WebSocket subprotocol; the only one that the service ever echoes."""
BEARER_PREFIX: Final = "bearer."
"""A browser, which cannot set headers, offers its access token as a subprotocol with this prefix."""


class CloseCode(IntEnum):
    """Why the relay closes a WebSocket (RFC 6455 section 7.4.1; 4000-4999 are the application's own)."""

    GOING_AWAY = 1001
    """The service is shutting down."""
    BINARY_FRAME = 1003
    """The client sent a binary frame; the wire is JSON text."""
    INVALID_UTF8 = 1007
    """A text frame was not UTF-8."""
    ABUSE = 1008
    """The client kept breaking the rules, or has too many devices."""
    TOO_BIG = 1009
    """A frame was longer than :data:`MAX_FRAME_BYTES`."""
    UNAUTHORIZED = 4401
    """The user logged out, or the session was revoked."""
    REPLACED = 4409
    """A newer socket of the same device took over."""


class ErrorCode(StrEnum):
    """Why the relay did not forward a message."""

    BAD_JSON = "bad-json"
    """The frame is not JSON."""
    BAD_MESSAGE = "bad-message"
    """A field is missing, unknown, or of the wrong type or size."""
    UNKNOWN_TYPE = "unknown-type"
    """There is no message of this type."""
    SENDER_FORBIDDEN = "sender-forbidden"
    """The client named the sender; that is the relay's to say."""
    RECIPIENT_UNKNOWN = "recipient-unknown"
    """There is no such user."""
    RECIPIENT_OFFLINE = "recipient-offline"
    """The user, or the device named, is not connected."""
    RECIPIENT_SLOW = "recipient-slow"
    """The recipient does not read fast enough; its queue is full."""
    RATE_LIMITED = "rate-limited"
    """The sender sends too much."""


_Id: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]
_Device: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_DEVICE_CHARS)]
_Reason: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)]
_LineIndex: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]


class _Addressed(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What every message from a client has."""

    recipient_id: _Id
    id: _Id | UnsetType = UNSET
    """The client's own id of this message; errors echo it as ``inReplyTo``."""
    recipient_device: _Device | UnsetType = UNSET
    """One device of the recipient; absent: all of them."""


class ChatMessage(_Addressed, frozen=True, kw_only=True, tag="message"):
    """A chat message; the relay cannot read it."""

    encrypted_content: str


class Typing(_Addressed, frozen=True, kw_only=True, tag="typing"):
    """The sender is typing."""


class Read(_Addressed, frozen=True, kw_only=True, tag="read"):
    """The sender has read a message."""

    message_id: _Id


class CallMessage(_Addressed, frozen=True, kw_only=True):
    """What every message of a call has."""

    call_id: _Id


class CallOffer(CallMessage, frozen=True, kw_only=True, tag="call-offer"):
    """An SDP offer: rings if the call is new, else renegotiates it."""

    sdp: str


class CallAnswer(CallMessage, frozen=True, kw_only=True, tag="call-answer"):
    """An SDP answer."""

    sdp: str


class IceCandidateInit(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The dictionary RTCIceCandidateInit of W3C webrtc-pc section 4.8.1."""

    candidate: str | UnsetType = UNSET
    sdp_mid: str | UnsetType | None = UNSET
    sdp_m_line_index: _LineIndex | UnsetType | None = msgspec.field(default=UNSET, name="sdpMLineIndex")
    username_fragment: str | UnsetType | None = UNSET


class CallIceCandidate(CallMessage, frozen=True, kw_only=True, tag="call-ice-candidate"):
    """One trickled ICE candidate, or None at the end of candidates."""

    candidate: IceCandidateInit | None


class CallAccept(CallMessage, frozen=True, kw_only=True, tag="call-accept"):
    """The callee takes the call on this device."""


class CallReject(CallMessage, frozen=True, kw_only=True, tag="call-reject"):
    """The callee does not take the call."""

    reason: _Reason | UnsetType = UNSET


class CallHangup(CallMessage, frozen=True, kw_only=True, tag="call-hangup"):
    """The call is over."""

    reason: _Reason | UnsetType = UNSET


class ErrorMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag="error"):
    """What the relay answers when it does not forward a message."""

    code: ErrorCode
    message: str
    recipient_id: str | UnsetType = UNSET
    call_id: str | UnsetType = UNSET
    in_reply_to: str | UnsetType = UNSET


ClientMessage: TypeAlias = (
    ChatMessage
    | Typing
    | Read
    | CallOffer
    | CallAnswer
    | CallIceCandidate
    | CallAccept
    | CallReject
    | CallHangup
)
"""Everything that a client may send."""

_TYPES: Final = frozenset(
    {
        "message",
        "typing",
        "read",
        "call-offer",
        "call-answer",
        "call-ice-candidate",
        "call-accept",
        "call-reject",
        "call-hangup",
    }
)
_SENDER_FIELDS: Final = ("senderId", "senderDevice")
_client_decoder: Final[msgspec.json.Decoder[ClientMessage]] = msgspec.json.Decoder(ClientMessage)
_encoder: Final = msgspec.json.Encoder()
_user_id: Final = re.compile(r"[a-z0-9._-]{3,32}", re.ASCII)
_device_id: Final = re.compile(rf"[A-Za-z0-9._~-]{{1,{MAX_DEVICE_CHARS}}}", re.ASCII)


def is_user_id(text: str) -> bool:
    """Say whether ``text`` can be a user's name."""
    return _user_id.fullmatch(text) is not None


def is_device_id(text: str) -> bool:
    """Say whether ``text`` can be a device id: 1 to 64 characters that need no escape in a URL's query."""
    return _device_id.fullmatch(text) is not None


def encode(message: ClientMessage | ErrorMessage) -> bytes:
    """Return the message as the payload of one text frame: compact JSON, each key once."""
    return _encoder.encode(message)


def decode_client(frame: bytes) -> ClientMessage:
    """Read the payload of one text frame from a client.

    Raises:
        WireError: whatever else the frame is.  Its code is ``bad-json``, ``sender-forbidden``,
            ``unknown-type`` or ``bad-message``, and its ``in_reply_to`` the message's own id where that could
            be read.

    """
    if len(frame) > MAX_FRAME_BYTES:
        raise WireError(
            ErrorCode.BAD_MESSAGE,
            f"the frame has {len(frame)} bytes; at most {MAX_FRAME_BYTES} are allowed: send less at once",
        )
    try:
        return _client_decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _explain(frame, error) from error


def _explain(frame: bytes, error: Exception) -> WireError:
    """Find out what is wrong with a frame that is not a client's message."""
    try:
        content: Any = msgspec.json.decode(frame)
    except RecursionError:
        return WireError(ErrorCode.BAD_JSON, "the frame is nested too deeply: messages are flat objects")
    except UnicodeDecodeError:
        return WireError(ErrorCode.BAD_JSON, "the frame is not UTF-8: send UTF-8 text")
    except msgspec.ValidationError:
        # JSON by its grammar, with a number that fits no type of this machine.
        return WireError(ErrorCode.BAD_MESSAGE, "a number is out of range")
    except msgspec.DecodeError as reason:
        return WireError(ErrorCode.BAD_JSON, f"the frame is not JSON: {reason}")
    if not isinstance(content, dict):
        return WireError(ErrorCode.BAD_MESSAGE, "the frame is not a JSON object: send one object a frame")
    in_reply_to = content.get("id")
    if not isinstance(in_reply_to, str) or not 1 <= len(in_reply_to) <= MAX_ID_CHARS:
        in_reply_to = None
    for field in _SENDER_FIELDS:
        if field in content:
            return WireError(
                ErrorCode.SENDER_FORBIDDEN,
                f"{field} is set by the relay, from the connection: leave it out",
                in_reply_to=in_reply_to,
            )
    kind = content.get("type")
    if isinstance(kind, str) and kind not in _TYPES:
        return WireError(
            ErrorCode.UNKNOWN_TYPE,
            f"there is no message type {kind[:MAX_ID_CHARS]!r}; there are {', '.join(sorted(_TYPES))}",
            in_reply_to=in_reply_to,
        )
    return WireError(ErrorCode.BAD_MESSAGE, _first_line(error), in_reply_to=in_reply_to)


def _first_line(error: Exception) -> str:
    # Names of unknown fields come from the sender and may be as long as the frame.
    text = str(error)
    return text if len(text) <= MAX_REASON_CHARS else text[:MAX_REASON_CHARS] + "..."
