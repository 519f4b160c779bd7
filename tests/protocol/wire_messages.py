"""Messages of the wire for tests: one of each type, and a strategy for all of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from msgspec import UNSET

from calllab.protocol import wire

# One of each type, as a browser would write it.
EXAMPLES: dict[str, dict[str, Any]] = {
    "message": {"type": "message", "recipientId": "bob", "encryptedContent": "x3Jk=="},
    "typing": {"type": "typing", "recipientId": "bob"},
    "read": {"type": "read", "recipientId": "bob", "messageId": "m-1"},
    "call-offer": {"type": "call-offer", "recipientId": "bob", "callId": "c-1", "sdp": "v=0\r\n"},
    "call-answer": {"type": "call-answer", "recipientId": "bob", "callId": "c-1", "sdp": "v=0\r\n"},
    "call-ice-candidate": {
        "type": "call-ice-candidate",
        "recipientId": "bob",
        "callId": "c-1",
        "candidate": {
            "candidate": "candidate:1 1 udp 2130706431 192.0.2.1 50000 typ host",
            "sdpMid": "0",
            "sdpMLineIndex": 0,
            "usernameFragment": None,
        },
    },
    "call-accept": {"type": "call-accept", "recipientId": "bob", "callId": "c-1"},
    "call-reject": {"type": "call-reject", "recipientId": "bob", "callId": "c-1", "reason": "busy"},
    "call-hangup": {"type": "call-hangup", "recipientId": "bob", "callId": "c-1"},
}

_text = st.text(max_size=40)
_ids = st.text(min_size=1, max_size=wire.MAX_ID_CHARS)
_addressed = {
    "recipient_id": _ids,
    "id": st.just(UNSET) | _ids,
    "recipient_device": st.just(UNSET) | st.text(min_size=1, max_size=wire.MAX_DEVICE_CHARS),
}
_call = {**_addressed, "call_id": _ids}
_reason = st.just(UNSET) | st.text(max_size=wire.MAX_REASON_CHARS)
_maybe_text = st.sampled_from([UNSET, None]) | _text

candidates = st.none() | st.builds(
    wire.IceCandidateInit,
    candidate=st.just(UNSET) | _text,
    sdp_mid=_maybe_text,
    sdp_m_line_index=st.sampled_from([UNSET, None]) | st.integers(0, 0xFFFF),
    username_fragment=_maybe_text,
)

client_messages: st.SearchStrategy[wire.ClientMessage] = st.one_of(
    st.builds(wire.ChatMessage, **_addressed, encrypted_content=_text),
    st.builds(wire.Typing, **_addressed),
    st.builds(wire.Read, **_addressed, message_id=_ids),
    st.builds(wire.CallOffer, **_call, sdp=_text),
    st.builds(wire.CallAnswer, **_call, sdp=_text),
    st.builds(wire.CallIceCandidate, **_call, candidate=candidates),
    st.builds(wire.CallAccept, **_call),
    st.builds(wire.CallReject, **_call, reason=_reason),
    st.builds(wire.CallHangup, **_call, reason=_reason),
)
"""Every message that a client may send."""
