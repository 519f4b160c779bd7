from __future__ import annotations

import hashlib
import hmac
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from calllab.protocol import stun
from calllab.protocol.stun import Integrity, MessageClass, Method, StunError, StunMessage
from calllab.protocol.stun_attributes import (
    Address,
    Attribute,
    Family,
    decode_error_code,
    decode_text,
    decode_uint32,
    decode_unknown_attributes,
    decode_xor_address,
    encode_error_code,
    encode_unknown_attributes,
    encode_xor_address,
    family_of,
)

SHORT_TERM_KEY = b"VOkJxbRl1RmTxUk/WvJxBt"

# RFC 5769 section 2.1 to 2.4, byte for byte.
REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e2074657374"
    "20636c69656e74002400046e0001ff80290008932ff9b151263b36000600096576"
    "746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571"
    "a280280004e57a3bcf"
)
RESPONSE_IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f"
    "7220002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53"
    "f06be7d780280004c07d4c96"
)
RESPONSE_IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f"
    "7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e"
    "4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)
LONG_TERM_REQUEST = bytes.fromhex(
    "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae3"
    "8383e382afe382b900000015001c662f2f3439396b39353464364f4c33346f4c3946"
    "53547679363473410014000b6578616d706c652e6f72670000080014f67024656dd6"
    "4a3e02b8e0712e85c9a28ca89666"
)

hosts = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
ports = st.integers(0, 65535)
transaction_ids = st.binary(min_size=12, max_size=12)
plain_attributes = st.tuples(
    st.integers(0, 0xFFFF).filter(
        lambda kind: (
            kind
            not in (Attribute.MESSAGE_INTEGRITY, Attribute.MESSAGE_INTEGRITY_SHA256, Attribute.FINGERPRINT)
        )
    ),
    st.binary(max_size=60),
)
messages = st.builds(
    StunMessage,
    method=st.integers(0, 0xFFF),
    message_class=st.sampled_from(MessageClass),
    transaction_id=transaction_ids,
    attributes=st.lists(plain_attributes, max_size=8).map(tuple),
)


def test_rfc5769_request() -> None:
    """The sample request of RFC 5769 decodes, fingerprint included, and its integrity holds."""
    message = stun.decode(REQUEST)
    assert (message.method, message.message_class) == (Method.BINDING, MessageClass.REQUEST)
    assert message.transaction_id.hex() == "b7e7a701bc34d686fa87dfae"
    assert message.get(Attribute.SOFTWARE) == b"STUN test client"
    assert message.get(Attribute.PRIORITY) == bytes.fromhex("6e0001ff")
    assert message.get(Attribute.ICE_CONTROLLED) == bytes.fromhex("932ff9b151263b36")
    assert message.get(Attribute.USERNAME) == b"evtj:h6vY"
    assert message.unknown_required() == ()
    assert stun.check_integrity(REQUEST, SHORT_TERM_KEY)
    assert not stun.check_integrity(REQUEST, SHORT_TERM_KEY + b"!")


@pytest.mark.parametrize(
    ("data", "address"),
    [
        (RESPONSE_IPV4, ("192.0.2.1", 32853)),
        (RESPONSE_IPV6, ("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
)
def test_rfc5769_responses(data: bytes, address: Address) -> None:
    """The sample responses of RFC 5769 give the address they should, for both IP versions."""
    message = stun.decode(data)
    assert (message.method, message.message_class) == (Method.BINDING, MessageClass.SUCCESS)
    value = message.get(Attribute.XOR_MAPPED_ADDRESS)
    assert value is not None
    assert decode_xor_address(value, message.transaction_id) == address
    assert encode_xor_address(address, message.transaction_id) == value
    assert stun.check_integrity(data, SHORT_TERM_KEY)


def test_rfc5769_long_term_credentials() -> None:
    """The long-term sample of RFC 5769 checks, and our encoder writes the very same bytes."""
    message = stun.decode(LONG_TERM_REQUEST)
    key = stun.long_term_key("マトリックス", "example.org", "TheMatrIX")
    assert stun.check_integrity(LONG_TERM_REQUEST, key)
    unsigned = tuple(pair for pair in message.attributes if pair[0] != Attribute.MESSAGE_INTEGRITY)
    again = StunMessage(message.method, message.message_class, message.transaction_id, unsigned)
    assert again.encode(key) == LONG_TERM_REQUEST


def test_long_term_key_is_md5_of_three_parts() -> None:
    """The key is what RFC 8489 section 9.2.2 says."""
    assert stun.long_term_key("user", "realm", "pass") == hashlib.md5(b"user:realm:pass").digest()


@pytest.mark.parametrize(
    ("method", "message_class", "kind"),
    [
        (Method.BINDING, MessageClass.REQUEST, 0x0001),
        (Method.BINDING, MessageClass.SUCCESS, 0x0101),
        (Method.BINDING, MessageClass.ERROR, 0x0111),
        (Method.ALLOCATE, MessageClass.REQUEST, 0x0003),
        (Method.ALLOCATE, MessageClass.ERROR, 0x0113),
        (Method.SEND, MessageClass.INDICATION, 0x0016),
        (Method.DATA, MessageClass.INDICATION, 0x0017),
        (Method.CHANNEL_BIND, MessageClass.SUCCESS, 0x0109),
        (0xFFF, MessageClass.ERROR, 0x3FFF),
        (0x0AB, MessageClass.REQUEST, 0x024B),
    ],
)
def test_type_numbers(method: int, message_class: MessageClass, kind: int) -> None:
    """Method and class are woven into the type as RFC 8489 section 5 draws it."""
    data = StunMessage(method, message_class, bytes(12)).encode()
    assert int.from_bytes(data[:2], "big") == kind


@given(messages, st.one_of(st.none(), st.binary(min_size=1)), st.sampled_from(Integrity), st.booleans())
def test_messages_survive_the_wire(
    message: StunMessage, key: bytes | None, integrity: Integrity, fingerprint: bool
) -> None:
    """What was encoded is decoded as it was, order and repetitions included, and its integrity holds."""
    data = message.encode(key, integrity=integrity, fingerprint=fingerprint)
    decoded = stun.decode(data)
    added = (Attribute.MESSAGE_INTEGRITY, Attribute.MESSAGE_INTEGRITY_SHA256, Attribute.FINGERPRINT)
    assert tuple(pair for pair in decoded.attributes if pair[0] not in added) == message.attributes
    assert (decoded.method, decoded.message_class) == (message.method, message.message_class)
    assert decoded.transaction_id == message.transaction_id
    assert decoded.integrity == (integrity if key else None)
    assert (decoded.get(Attribute.FINGERPRINT) is not None) == fingerprint
    assert stun.is_stun(data)
    assert not stun.is_channel_data(data)
    if key is not None:
        assert stun.check_integrity(data, key)
        assert not stun.check_integrity(data, key + b"x")
    else:
        assert not stun.check_integrity(data, b"key")


@given(messages, st.sampled_from(Integrity), st.booleans(), st.data())
def test_a_changed_bit_breaks_the_integrity(
    message: StunMessage, integrity: Integrity, fingerprint: bool, data: st.DataObject
) -> None:
    """No bit of what a signed message says can be changed unnoticed.

    What comes after the integrity says nothing: a FINGERPRINT whose type was changed is ignored.
    """
    signed = message.encode(b"key", integrity=integrity)
    good = message.encode(b"key", integrity=integrity, fingerprint=fingerprint)
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    try:
        changed = stun.decode(bytes(bad))
    except StunError:
        return
    if bit // 8 < len(signed):
        assert not stun.check_integrity(bytes(bad), b"key")
    else:
        assert changed == stun.decode(signed)


def test_sha256_may_be_truncated_to_sixteen_bytes() -> None:
    """A SHA-256 that is cut short counts down to 16 bytes in steps of four; a SHA-1 that is cut does not."""
    header = StunMessage(Method.BINDING, MessageClass.REQUEST, bytes(12)).encode()

    def shortened(integrity: Integrity, size: int) -> bytes:
        """Sign like somebody who cuts the digest, or goes on after it."""
        head = bytearray(header)
        head[2:4] = (4 + size).to_bytes(2, "big")
        digest = hmac.digest(b"key", head, integrity.hash_name)[:size].ljust(size, b"\0")
        value = digest + bytes(-size % 4)
        head[2:4] = (4 + len(value)).to_bytes(2, "big")
        return bytes(head) + struct.pack("!HH", integrity.value, size) + value

    def accepted(integrity: Integrity) -> list[int]:
        sizes = [size for size in range(40) if stun.check_integrity(shortened(integrity, size), b"key")]
        assert all(stun.decode(shortened(integrity, size)).integrity is integrity for size in sizes)
        return sizes

    assert accepted(Integrity.SHA256) == [16, 20, 24, 28, 32]
    assert accepted(Integrity.SHA1) == [20]


def test_what_follows_the_integrity_is_ignored() -> None:
    """An attribute that somebody appended behind the signature is not seen."""
    signed = StunMessage(Method.REFRESH, MessageClass.REQUEST, bytes(12)).encode(b"key")
    appended = bytearray(signed + bytes.fromhex("000d0004") + b"\0\0\0\0")
    appended[2:4] = (len(appended) - 20).to_bytes(2, "big")
    message = stun.decode(bytes(appended))
    assert message.get(Attribute.LIFETIME) is None
    assert stun.check_integrity(bytes(appended), b"key")


def test_sha256_counts_where_there_are_both() -> None:
    """A right SHA-1 does not help if the SHA-256 behind it is wrong."""
    signed = StunMessage(Method.REFRESH, MessageClass.REQUEST, bytes(12)).encode(b"key")
    appended = bytearray(signed + bytes.fromhex("001c0020") + bytes(32))
    appended[2:4] = (len(appended) - 20).to_bytes(2, "big")
    assert stun.decode(bytes(appended)).integrity is Integrity.SHA256
    assert not stun.check_integrity(bytes(appended), b"key")


GOOD = StunMessage(Method.BINDING, MessageClass.REQUEST, bytes(12), ((0x8022, b"abcde"),)).encode()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "at least 20 bytes"),
        (GOOD[:19], "at least 20 bytes"),
        (b"\x80" + GOOD[1:], "two zero bits"),
        (GOOD[:4] + b"\0\0\0\0" + GOOD[8:], "magic cookie"),
        (GOOD + b"\0\0\0\0", "length"),
        (GOOD[:-4], "length"),
        (GOOD[:3] + b"\x0d" + GOOD[4:], "length"),
        (GOOD[:2] + b"\0\x04" + GOOD[4:20] + b"\x80\x22\0\x05", "cut short"),
        (GOOD[:2] + b"\0\x0c" + GOOD[4:20] + bytes.fromhex("802800040000000080010000"), "FINGERPRINT"),
        (GOOD[:2] + b"\0\x08" + GOOD[4:20] + bytes.fromhex("8028000400000000"), "FINGERPRINT"),
    ],
)
def test_malformed_messages_are_refused(data: bytes, sentence: str) -> None:
    """Whatever is not one whole message is a StunError that says what is wrong."""
    with pytest.raises(StunError, match=sentence):
        stun.decode(data)


@given(st.binary(max_size=200))
@example(REQUEST[:20])
def test_decoders_raise_nothing_else(data: bytes) -> None:
    """Any bytes decode or raise StunError, in every decoder."""
    for decoder in (
        stun.decode,
        stun.decode_channel_data,
        decode_error_code,
        decode_text,
        decode_uint32,
        decode_unknown_attributes,
        lambda value: decode_xor_address(value, bytes(12)),
        lambda value: decode_xor_address(b"\0\1" + value, value),
    ):
        try:
            decoder(data)
        except StunError:
            continue


@given(st.data())
def test_damaged_messages_raise_nothing_else(data: st.DataObject) -> None:
    """A real message with bytes overwritten, cut out or put in decodes or raises StunError."""
    damaged = bytearray(data.draw(st.sampled_from([REQUEST, RESPONSE_IPV6, LONG_TERM_REQUEST])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        message = stun.decode(bytes(damaged))
        stun.check_integrity(bytes(damaged), b"key")
        assert stun.decode(message.encode()).method == message.method
    except StunError:
        return


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (StunMessage(Method.BINDING, MessageClass.REQUEST, bytes(11)), "transaction id"),
        (StunMessage(0x1000, MessageClass.REQUEST, bytes(12)), "method"),
        (StunMessage(1, MessageClass.REQUEST, bytes(12), ((6, bytes(65536)),)), "65535"),
        (StunMessage(1, MessageClass.REQUEST, bytes(12), ((6, bytes(60000)),) * 2), "65535"),
    ],
)
def test_what_does_not_fit_is_not_encoded(message: StunMessage, sentence: str) -> None:
    """A message that has no form on the wire is refused."""
    with pytest.raises(StunError, match=sentence):
        message.encode()


@given(hosts, ports, transaction_ids)
def test_addresses_survive_the_wire(host: str, port: int, transaction_id: bytes) -> None:
    """Every address comes back in a form that means the same."""
    value = encode_xor_address((host, port), transaction_id)
    decoded = decode_xor_address(value, transaction_id)
    assert encode_xor_address(decoded, transaction_id) == value
    assert decoded[1] == port
    assert family_of(decoded[0]) is family_of(host)


def test_addresses_lose_their_interface() -> None:
    """The interface of a link-local address stays at home."""
    value = encode_xor_address(("fe80::1%eth0", 1), bytes(12))
    assert decode_xor_address(value, bytes(12)) == ("fe80::1", 1)


@pytest.mark.parametrize(
    "address", [("example.org", 1), ("1.2.3", 1), ("1.2.3.4", 65536), ("1.2.3.4", -1), ("1.2.3.4\0", 1)]
)
def test_addresses_must_be_numeric(address: Address) -> None:
    """Names and impossible ports have no form on the wire."""
    with pytest.raises(StunError):
        encode_xor_address(address, bytes(12))


def test_families() -> None:
    """The family follows from the host."""
    assert family_of("1.2.3.4") is Family.IPV4
    assert family_of("::1") is Family.IPV6


@given(st.integers(300, 699), st.text(min_size=1, max_size=100))
def test_error_codes_survive_the_wire(code: int, reason: str) -> None:
    """Code and reason come back."""
    assert decode_error_code(encode_error_code(code, reason)) == (code, reason)


def test_error_codes_have_limits() -> None:
    """Codes outside of 300 to 699 and endless reasons are refused; known codes have their own phrase."""
    assert decode_error_code(encode_error_code(438)) == (438, "Stale Nonce")
    for code in (299, 700):
        with pytest.raises(StunError):
            encode_error_code(code)
    with pytest.raises(StunError):
        encode_error_code(400, "x" * 510)


@given(st.lists(st.integers(0, 0xFFFF)))
def test_unknown_attributes_survive_the_wire(kinds: list[int]) -> None:
    """The list of types comes back."""
    assert list(decode_unknown_attributes(encode_unknown_attributes(kinds))) == kinds


def test_only_required_attributes_count_as_unknown() -> None:
    """Types from 0x8000 on may be ignored; the others are reported once each, in order."""
    kinds = (0x0003, 0x8001, 0x7777, 0x0003, Attribute.USERNAME)
    message = StunMessage(1, MessageClass.REQUEST, bytes(12), tuple((kind, b"") for kind in kinds))
    assert message.unknown_required() == (0x0003, 0x7777)


def test_repeated_attributes() -> None:
    """The first of several counts, unless all are wanted."""
    message = StunMessage(1, MessageClass.REQUEST, bytes(12), ((0x12, b"a"), (0x12, b"b")))
    assert message.get(0x12) == b"a"
    assert message.get_all(0x12) == [b"a", b"b"]
    assert message.get(0x13) is None


@given(st.integers(0x4000, 0x7FFF), st.binary(max_size=100), st.binary(max_size=3))
def test_channel_data_survives_the_wire(channel: int, data: bytes, padding: bytes) -> None:
    """Channel and data come back, whatever padding follows."""
    frame = stun.encode_channel_data(channel, data)
    assert stun.is_channel_data(frame)
    assert not stun.is_stun(frame)
    assert stun.decode_channel_data(frame + padding) == (channel, data)


@pytest.mark.parametrize(
    "frame", [b"\x40\0\0", b"\x40\0\0\x01", b"\x40\0\xff\xff" + bytes(100), b"\x80\0\0\0", b"\x3f\xff\0\0"]
)
def test_malformed_channel_data_is_refused(frame: bytes) -> None:
    """A frame that is cut short or has no channel number is a StunError."""
    with pytest.raises(StunError):
        stun.decode_channel_data(frame)
