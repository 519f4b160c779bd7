"""STUN messages (RFC 8489) and the ChannelData frames of TURN (RFC 8656 section 12), as values and as bytes.

A message keeps its attributes as an ordered list of ``(type, value)``, with the values as they are on the
wire, because order matters (what follows an integrity attribute is ignored) and because some may come several
times (XOR-PEER-ADDRESS in CreatePermission).  :mod:`calllab.protocol.stun_attributes` turns values
into Python objects and back.

Integrity and fingerprint belong to the bytes, not to the message: :meth:`StunMessage.encode` adds them and
:func:`check_integrity` checks them.  Whatever is wrong with bytes from the network is a :exc:`StunError`.
"""

from __future__ import annotations

import binascii
import enum
import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Final

from calllab.protocol.stun_attributes import Attribute, StunError

__all__ = [
    "HEADER_BYTES",
    "MAGIC_COOKIE",
    "MAX_CHANNEL",
    "MAX_RFC5766_CHANNEL",
    "MIN_CHANNEL",
    "TRANSACTION_ID_BYTES",
    "Integrity",
    "MessageClass",
    "Method",
    "StunError",
    "StunMessage",
    "check_integrity",
    "decode",
    "decode_channel_data",
    "encode_channel_data",
    "is_channel_data",
    "is_stun",
    "long_term_key",
]

MAGIC_COOKIE: Final = 0x2112A442
HEADER_BYTES: Final = 20
TRANSACTION_ID_BYTES: Final = 12

MIN_CHANNEL: Final = 0x4000
MAX_CHANNEL: Final = 0x4FFF
MAX_RFC5766_CHANNEL: Final = 0x7FFF

_HEADER: Final = struct.Struct("!HHI12s")
_TYPE_AND_LENGTH: Final = struct.Struct("!HH")
_FINGERPRINT_XOR: Final = 0x5354554E
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")


class Method(enum.IntEnum):
    """The methods of STUN and TURN."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009


class MessageClass(enum.IntEnum):
    """The four classes of messages."""

    REQUEST = 0b00
    INDICATION = 0b01
    SUCCESS = 0b10
    ERROR = 0b11


class Integrity(enum.Enum):
    """The two ways in which a message proves that its sender knows the key."""

    SHA1 = Attribute.MESSAGE_INTEGRITY
    SHA256 = Attribute.MESSAGE_INTEGRITY_SHA256

    @property
    def digest_bytes(self) -> int:
        """The length of the whole digest."""
        return 20 if self is Integrity.SHA1 else 32

    @property
    def hash_name(self) -> str:
        """The name of the hash, as :mod:`hashlib` knows it."""
        return "sha1" if self is Integrity.SHA1 else "sha256"


@dataclass(frozen=True, slots=True)
class StunMessage:
    """One STUN message without its integrity and fingerprint."""

    method: int
    """A :class:`Method`, or the number of one that we do not know."""
    message_class: MessageClass
    transaction_id: bytes
    attributes: tuple[tuple[int, bytes], ...] = ()
    """Type and unpadded value of each attribute, in order.

    Of a decoded message, integrity and fingerprint attributes are among them; what came after an integrity
    attribute and must be ignored is not.
    """

    def get(self, attribute: int) -> bytes | None:
        """Return the value of the first such attribute; RFC 8489 section 14 ignores repetitions."""
        for kind, value in self.attributes:
            if kind == attribute:
                return value
        return None

    def get_all(self, attribute: int) -> list[bytes]:
        """Return the values of all such attributes, in order."""
        return [value for kind, value in self.attributes if kind == attribute]

    @property
    def integrity(self) -> Integrity | None:
        """The integrity to check: SHA-256 where there are both (RFC 8489 section 9.2.4)."""
        kinds = {kind for kind, _ in self.attributes}
        if Attribute.MESSAGE_INTEGRITY_SHA256 in kinds:
            return Integrity.SHA256
        return Integrity.SHA1 if Attribute.MESSAGE_INTEGRITY in kinds else None

    def unknown_required(self) -> tuple[int, ...]:
        """Return the types, each once, that must be understood (below 0x8000) and are not."""
        return tuple(
            dict.fromkeys(kind for kind, _ in self.attributes if kind < 0x8000 and kind not in _KNOWN)
        )

    def encode(
        self,
        key: bytes | None = None,
        *,
        integrity: Integrity = Integrity.SHA1,
        fingerprint: bool = False,
    ) -> bytes:
        """Return the bytes of this message, with integrity under ``key`` if there is one.

        Raises :exc:`StunError` if the transaction id or the attributes do not fit the format.
        """
        if len(self.transaction_id) != TRANSACTION_ID_BYTES:
            raise StunError(
                f"a transaction id has {TRANSACTION_ID_BYTES} bytes, not {len(self.transaction_id)}"
            )
        body = bytearray(HEADER_BYTES)
        for kind, value in self.attributes:
            if len(value) > 0xFFFF:
                raise StunError(f"attribute {kind:#06x} has {len(value)} bytes: 65535 is the most")
            body += _TYPE_AND_LENGTH.pack(kind, len(value)) + value + _PADDING[len(value) % 4]
        if key is not None:
            # The length that is signed counts the integrity attribute, but nothing after it.
            self._write_header(body, len(body) - HEADER_BYTES + 4 + integrity.digest_bytes)
            digest = hmac.digest(key, body, integrity.hash_name)
            body += _TYPE_AND_LENGTH.pack(integrity.value, len(digest)) + digest
        if fingerprint:
            self._write_header(body, len(body) - HEADER_BYTES + 8)
            crc = binascii.crc32(body) ^ _FINGERPRINT_XOR
            body += _TYPE_AND_LENGTH.pack(Attribute.FINGERPRINT, 4) + crc.to_bytes(4, "big")
        self._write_header(body, len(body) - HEADER_BYTES)
        return bytes(body)

    def _write_header(self, body: bytearray, length: int) -> None:
        if length > 0xFFFF:
            raise StunError(f"the attributes take {length} bytes: 65535 is the most")
        kind = _message_type(self.method, self.message_class)
        _HEADER.pack_into(body, 0, kind, length, MAGIC_COOKIE, self.transaction_id)


_KNOWN: Final = frozenset(int(attribute) for attribute in Attribute)


def is_stun(data: bytes) -> bool:
    """Say whether a datagram can be a STUN message, by its first two bits (RFC 8489 section 5)."""
    return len(data) >= HEADER_BYTES and data[0] < 0x40


def is_channel_data(data: bytes) -> bool:
    """Say whether a datagram can be ChannelData, by its first two bits.

    RFC 8656 section 12 allows only 0x40 to 0x4F in the first byte; the rest is what RFC 5766 allowed.
    """
    return len(data) >= 4 and 0x40 <= data[0] <= 0x7F


def decode(data: bytes) -> StunMessage:
    """Return the message in a datagram.

    A FINGERPRINT, if there is one, is checked; integrity is not (see :func:`check_integrity`).
    Raises :exc:`StunError` for anything that is not exactly one well-formed message.
    """
    if len(data) < HEADER_BYTES:
        raise StunError(f"a STUN message has at least {HEADER_BYTES} bytes, this has {len(data)}")
    kind, length, cookie, transaction_id = _HEADER.unpack_from(data)
    if kind & 0xC000:
        raise StunError(f"the type {kind:#06x} does not begin with two zero bits")
    if cookie != MAGIC_COOKIE:
        raise StunError(f"the magic cookie is {cookie:#010x}, not {MAGIC_COOKIE:#010x}")
    if length % 4 or length != len(data) - HEADER_BYTES:
        raise StunError(f"the length says {length} bytes, and {len(data) - HEADER_BYTES} follow the header")
    attributes: list[tuple[int, bytes]] = []
    signed_with: int | None = None
    for attribute, at, size in _walk(data):
        if attribute == Attribute.FINGERPRINT:
            if at + 4 + size != len(data):
                raise StunError("FINGERPRINT is not the last attribute")
            if data[at + 4 :] != (binascii.crc32(data[:at]) ^ _FINGERPRINT_XOR).to_bytes(4, "big"):
                raise StunError("FINGERPRINT does not match the message")
        elif _is_ignored(attribute, signed_with):
            continue
        if attribute in _INTEGRITY_TYPES:
            signed_with = attribute
        attributes.append((attribute, bytes(data[at + 4 : at + 4 + size])))
    method = (kind & 0x000F) | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2
    message_class = MessageClass((kind & 0x0010) >> 4 | (kind & 0x0100) >> 7)
    return StunMessage(method, message_class, transaction_id, tuple(attributes))


def check_integrity(data: bytes, key: bytes) -> bool:
    """Say whether the integrity attribute of a datagram that :func:`decode` accepted was made with ``key``.

    False if there is none.  With both kinds, SHA-256 is the one that counts.
    """
    places: dict[int, tuple[int, int]] = {}
    for attribute, at, size in _walk(data):
        if attribute in _INTEGRITY_TYPES and attribute not in places:
            places[attribute] = (at, size)
    for integrity in (Integrity.SHA256, Integrity.SHA1):
        if integrity.value not in places:
            continue
        at, size = places[integrity.value]
        # Only the SHA-256 may be truncated, to no less than 16 bytes (RFC 8489 section 14.6).
        shortest = 16 if integrity is Integrity.SHA256 else integrity.digest_bytes
        if size % 4 or not shortest <= size <= integrity.digest_bytes:
            return False
        signed = bytearray(data[:at])
        signed[2:4] = (at + 4 + size - HEADER_BYTES).to_bytes(2, "big")
        digest = hmac.digest(key, signed, integrity.hash_name)
        return hmac.compare_digest(digest[:size], bytes(data[at + 4 : at + 4 + size]))
    return False


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """Return the key of the long-term credential mechanism (RFC 8489 section 9.2.2, MD5)."""
    return hashlib.md5(f"{username}:{realm}:{password}".encode(), usedforsecurity=False).digest()


def encode_channel_data(channel: int, data: bytes) -> bytes:
    """Return a ChannelData frame for a datagram transport: without padding."""
    return _TYPE_AND_LENGTH.pack(channel, len(data)) + data


def decode_channel_data(data: bytes) -> tuple[int, bytes]:
    """Return the channel and the data of a ChannelData frame; padding after the data is dropped.

    Raises :exc:`StunError` if the frame is cut short or its channel is outside of 0x4000-0x7FFF, the range of
    RFC 5766; whether channels above 0x4FFF can be bound is the server's business.
    """
    if len(data) < 4:
        raise StunError(f"a ChannelData frame has at least 4 bytes, this has {len(data)}")
    channel, length = _TYPE_AND_LENGTH.unpack_from(data)
    if not MIN_CHANNEL <= channel <= MAX_RFC5766_CHANNEL:
        raise StunError(f"no channel has the number {channel:#06x}")
    if length > len(data) - 4:
        raise StunError(f"the ChannelData frame says {length} bytes and has {len(data) - 4}")
    return channel, bytes(data[4 : 4 + length])


_INTEGRITY_TYPES: Final = (Attribute.MESSAGE_INTEGRITY, Attribute.MESSAGE_INTEGRITY_SHA256)


def _is_ignored(attribute: int, signed_with: int | None) -> bool:
    # After MESSAGE-INTEGRITY only MESSAGE-INTEGRITY-SHA256 counts, and after that nothing (RFC 8489 section
    # 14.5 and 14.6): a man in the middle could have put it there.
    if signed_with is None:
        return False
    return not (
        signed_with == Attribute.MESSAGE_INTEGRITY and attribute == Attribute.MESSAGE_INTEGRITY_SHA256
    )


def _message_type(method: int, message_class: int) -> int:
    if not 0 <= method <= 0xFFF:
        raise StunError(f"the method {method:#x} has more than 12 bits")
    return (
        (method & 0x00F)
        | (method & 0x070) << 1
        | (method & 0xF80) << 2
        | (message_class & 1) << 4
        | (message_class & 2) << 7
    )


def _walk(data: bytes) -> list[tuple[int, int, int]]:
    """Return type, offset and size of each attribute."""
    found: list[tuple[int, int, int]] = []
    at, end = HEADER_BYTES, len(data)
    while at < end:
        if at + 4 > end:
            raise StunError("the last attribute is cut short")
        attribute, size = _TYPE_AND_LENGTH.unpack_from(data, at)
        following = at + 4 + size + (-size % 4)
        if following > end:
            raise StunError(f"attribute {attribute:#06x} says {size} bytes and is cut short")
        found.append((attribute, at, size))
        at = following
    return found
