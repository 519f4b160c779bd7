"""The way of data through a TURN server: from clients to peers and back (RFC 8656 sections 11 and 12).

What has no permission or no channel, or makes no sense, is dropped and counted; nobody is told.
"""

from __future__ import annotations

import random

from calllab.protocol import stun
from calllab.protocol.peer_filter import PeerFilter
from calllab.protocol.stun import MessageClass, Method, StunMessage
from calllab.protocol.stun_attributes import (
    Address,
    Attribute,
    StunError,
    decode_xor_address,
    encode_xor_address,
)
from calllab.protocol.turn_actions import Output, SendToClient, SendToPeer
from calllab.protocol.turn_allocation import Allocation
from calllab.protocol.turn_table import AllocationTable

__all__ = ["Forwarder", "Traffic"]


class Traffic:
    """Running totals of relayed data; a driver with a fast path adds to them too."""

    __slots__ = ("bytes_to_clients", "bytes_to_peers", "dropped", "packets_to_clients", "packets_to_peers")

    def __init__(self) -> None:
        self.packets_to_peers = 0
        self.bytes_to_peers = 0
        self.packets_to_clients = 0
        self.bytes_to_clients = 0
        self.dropped = 0


class Forwarder:
    """Forwards data by the allocations of a table; requests are not its business."""

    def __init__(
        self,
        table: AllocationTable,
        peers: PeerFilter,
        *,
        can_forbid_fragments: bool,
        entropy: random.Random,
    ) -> None:
        self.traffic = Traffic()
        self._table = table
        self._filter = peers
        self._can_forbid_fragments = can_forbid_fragments
        self._entropy = entropy

    def channel_data(self, data: bytes, client: Address) -> list[Output]:
        """Take a ChannelData frame of a client (RFC 8656 section 12.6)."""
        allocation = self._table.by_client(client)
        if allocation is None:
            return self._drop()
        try:
            channel, payload = stun.decode_channel_data(data)
        except StunError:
            return self._drop()
        peer = allocation.peer_of(channel)
        return self._drop() if peer is None else self._send(allocation, payload, peer)

    def send_indication(self, message: StunMessage, client: Address) -> list[Output]:
        """Take a Send indication of a client (RFC 8656 section 11.2)."""
        allocation = self._table.by_client(client)
        value, data = message.get(Attribute.XOR_PEER_ADDRESS), message.get(Attribute.DATA)
        dont_fragment = message.get(Attribute.DONT_FRAGMENT) is not None
        if (
            allocation is None
            or value is None
            or data is None
            or message.unknown_required()
            or (dont_fragment and not self._can_forbid_fragments)
        ):
            return self._drop()
        try:
            peer = decode_xor_address(value, message.transaction_id)
        except StunError:
            return self._drop()
        return self._send(allocation, data, peer, dont_fragment)

    def _send(
        self, allocation: Allocation, data: bytes, peer: Address, dont_fragment: bool = False
    ) -> list[Output]:
        target = self._table.by_relayed(peer)
        if (
            allocation.relayed is None
            or not allocation.permits(peer[0])
            or (target is None and self._filter.is_relays_only(peer[0]))
        ):
            return self._drop()
        self.traffic.packets_to_peers += 1
        self.traffic.bytes_to_peers += len(data)
        if target is not None:
            return self.deliver(target, data, allocation.relayed)
        return [SendToPeer(allocation.id, data, peer, dont_fragment)]

    def deliver(self, allocation: Allocation, data: bytes, peer: Address) -> list[Output]:
        """Bring a permitted peer's datagram to the client (RFC 8656 sections 11.3 and 12.7)."""
        if not allocation.permits(peer[0]):
            return self._drop()
        self.traffic.packets_to_clients += 1
        self.traffic.bytes_to_clients += len(data)
        channel = allocation.channel_of(peer)
        if channel is not None:
            return [SendToClient(stun.encode_channel_data(channel, data), allocation.client)]
        transaction_id = self._entropy.randbytes(stun.TRANSACTION_ID_BYTES)
        indication = StunMessage(
            Method.DATA,
            MessageClass.INDICATION,
            transaction_id,
            (
                (Attribute.XOR_PEER_ADDRESS, encode_xor_address(peer, transaction_id)),
                (Attribute.DATA, data),
            ),
        )
        return [SendToClient(indication.encode(), allocation.client)]

    def _drop(self) -> list[Output]:
        self.traffic.dropped += 1
        return []
