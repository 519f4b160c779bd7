"""Which receiver an RTP packet goes to."""

from __future__ import annotations

from typing import Any

from aiortc.rtp import RtpPacket

from calllab._aiortc.dtls import _MidRouter

VP8 = 96


def packet(ssrc: int, mid: str | None) -> RtpPacket:
    """Return a packet as it comes from the network."""
    made = RtpPacket(payload_type=VP8, ssrc=ssrc)
    made.extensions.mid = mid
    return made


def router(*mids: str) -> tuple[_MidRouter, dict[str, Any]]:
    """Return a router with one receiver for each section."""
    made = _MidRouter()
    receivers: dict[str, Any] = {mid: f"receiver of {mid}" for mid in mids}
    for mid, receiver in receivers.items():
        made.register_receiver(receiver, ssrcs=[], payload_types=[VP8], mid=mid)
    return made, receivers


def test_a_packet_goes_where_its_mid_says() -> None:
    """With several sections of one payload type, the MID decides, and the SSRC is remembered."""
    made, receivers = router("1", "2")
    assert made.route_rtp(packet(7, "2")) == receivers["2"]
    assert made.route_rtp(packet(7, None)) == receivers["2"]


def test_a_packet_before_its_answer_goes_nowhere() -> None:
    """A MID that no section has yet is not taken for the one section with that payload type."""
    made, _ = router("4")
    assert made.route_rtp(packet(9, "1")) is None
    made.register_receiver("receiver of 1", ssrcs=[9], payload_types=[VP8], mid="1")  # type: ignore[arg-type]
    assert made.route_rtp(packet(9, "1")) == "receiver of 1"


def test_a_packet_without_mid_goes_to_the_only_section() -> None:
    """Without a MID, the one section with that payload type gets it."""
    made, receivers = router("0")
    assert made.route_rtp(packet(3, None)) == receivers["0"]
