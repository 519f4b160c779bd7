"""The attributes of STUN and TURN: their numbers, and their values as Python objects and as bytes."""

from __future__ import annotations

import enum
import socket
import struct
from collections.abc import Iterable
from typing import Final

__all__ = [
    "REASONS",
    "Address",
    "Attribute",
    "Family",
    "StunError",
    "decode_error_code",
    "decode_text",
    "decode_uint32",
    "decode_unknown_attributes",
    "decode_xor_address",
    "encode_error_code",
    "encode_unknown_attributes",
    "encode_xor_address",
    "family_of",
]

Address = tuple[str, int]
"""A transport address: a numeric IPv4 or IPv6 host in its usual short form, and a port."""


class StunError(ValueError):
    """Bytes are not the STUN or TURN that they should be, or values do not fit into it."""


class Attribute(enum.IntEnum):
    """The attributes that we understand; those below 0x8000 must not be ignored by who does not."""

    MAPPED_ADDRESS = 0x0001
    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    CHANNEL_NUMBER = 0x000C
    LIFETIME = 0x000D
    XOR_PEER_ADDRESS = 0x0012
    DATA = 0x0013
    REALM = 0x0014
    NONCE = 0x0015
    XOR_RELAYED_ADDRESS = 0x0016
    REQUESTED_ADDRESS_FAMILY = 0x0017
    EVEN_PORT = 0x0018
    REQUESTED_TRANSPORT = 0x0019
    DONT_FRAGMENT = 0x001A
    MESSAGE_INTEGRITY_SHA256 = 0x001C
    XOR_MAPPED_ADDRESS = 0x0020
    RESERVATION_TOKEN = 0x0022
    PRIORITY = 0x0024
    USE_CANDIDATE = 0x0025
    SOFTWARE = 0x8022
    ALTERNATE_SERVER = 0x8023
    FINGERPRINT = 0x8028
    ICE_CONTROLLED = 0x8029
    ICE_CONTROLLING = 0x802A


class Family(enum.IntEnum):
    """The address families, by their numbers in STUN."""

    IPV4 = 0x01
    IPV6 = 0x02


REASONS: Final[dict[int, str]] = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    420: "Unknown Attribute",
    437: "Allocation Mismatch",
    438: "Stale Nonce",
    440: "Address Family not Supported",
    441: "Wrong Credentials",
    442: "Unsupported Transport Protocol",
    443: "Peer Address Family Mismatch",
    486: "Allocation Quota Reached",
    500: "Server Error",
    508: "Insufficient Capacity",
}
"""The reason phrases of RFC 8489 section 14.8 and RFC 8656 section 19."""

_COOKIE: Final = bytes.fromhex("2112a442")
_COOKIE_HIGH: Final = 0x2112
_MAX_REASON_BYTES: Final = 509
_SOCKET_FAMILY: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


def family_of(host: str) -> Family:
    """Return the family of a numeric host."""
    return Family.IPV6 if ":" in host else Family.IPV4


def encode_xor_address(address: Address, transaction_id: bytes) -> bytes:
    """Return an XOR-MAPPED-, XOR-PEER- or XOR-RELAYED-ADDRESS (RFC 8489 section 14.2)."""
    host, port = address
    family = family_of(host)
    try:
        # A link-local host may carry its interface ("fe80::1%eth0"), which has no place on the wire.
        packed = socket.inet_pton(_SOCKET_FAMILY[family], host.partition("%")[0])
        return struct.pack("!BBH", 0, family, port ^ _COOKIE_HIGH) + _xor(packed, transaction_id)
    except (OSError, ValueError, struct.error) as exc:
        raise StunError(f"{address!r} is not a numeric host and a port") from exc


def decode_xor_address(value: bytes, transaction_id: bytes) -> Address:
    """Return the address in an XOR-...-ADDRESS attribute."""
    if len(value) not in (8, 20):
        raise StunError(f"an address has 8 or 20 bytes, not {len(value)}")
    _, family, port = struct.unpack_from("!BBH", value)
    if family != (Family.IPV4 if len(value) == 8 else Family.IPV6):
        raise StunError(f"an address of {len(value)} bytes does not have the family {family}")
    host = socket.inet_ntop(_SOCKET_FAMILY[Family(family)], _xor(value[4:], transaction_id))
    return host, port ^ _COOKIE_HIGH


def encode_error_code(code: int, reason: str | None = None) -> bytes:
    """Return an ERROR-CODE (RFC 8489 section 14.8); the default reason is that of the RFCs."""
    if not 300 <= code <= 699:
        raise StunError(f"{code} is not an error code: those are from 300 to 699")
    phrase = (reason or REASONS.get(code, "")).encode()
    if len(phrase) > _MAX_REASON_BYTES:
        raise StunError(
            f"a reason phrase of {len(phrase)} bytes is too long: {_MAX_REASON_BYTES} is the most"
        )
    return struct.pack("!HBB", 0, code // 100, code % 100) + phrase


def decode_error_code(value: bytes) -> tuple[int, str]:
    """Return the code and the reason phrase of an ERROR-CODE."""
    if len(value) < 4:
        raise StunError(f"an ERROR-CODE has at least 4 bytes, not {len(value)}")
    hundreds, rest = value[2] & 0x07, value[3]
    if not 3 <= hundreds <= 6 or rest > 99:
        raise StunError(f"an error code cannot be {hundreds} * 100 + {rest}")
    return hundreds * 100 + rest, decode_text(value[4:])


def encode_unknown_attributes(kinds: Iterable[int]) -> bytes:
    """Return an UNKNOWN-ATTRIBUTES (RFC 8489 section 14.9)."""
    return b"".join(struct.pack("!H", kind) for kind in kinds)


def decode_unknown_attributes(value: bytes) -> tuple[int, ...]:
    """Return the attribute types in an UNKNOWN-ATTRIBUTES."""
    if len(value) % 2:
        raise StunError(f"UNKNOWN-ATTRIBUTES has an even number of bytes, not {len(value)}")
    return tuple(kind for (kind,) in struct.iter_unpack("!H", value))


def decode_uint32(value: bytes) -> int:
    """Return the number in an attribute of four bytes."""
    if len(value) != 4:
        raise StunError(f"a number has 4 bytes here, not {len(value)}")
    return int.from_bytes(value, "big")


def decode_text(value: bytes) -> str:
    """Return the text in an attribute such as USERNAME or REALM."""
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise StunError("a text attribute is not UTF-8") from exc


def _xor(packed: bytes, transaction_id: bytes) -> bytes:
    mask = (_COOKIE + transaction_id)[: len(packed)]
    if len(mask) != len(packed):
        raise StunError(f"a transaction id has 12 bytes, not {len(transaction_id)}")
    size = len(packed)
    return (int.from_bytes(packed, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")
