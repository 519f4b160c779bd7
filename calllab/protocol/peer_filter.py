"""Which peers a TURN server may send to.

A relay stands inside of somebody's network.  Without a filter, every user of it can reach what only that
network should: services on loopback, private hosts, the metadata service of a cloud.  So all addresses are
refused that are not of the public internet, and all IPv6 forms that smuggle an IPv4 address in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

__all__ = ["PeerFilter"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What a laboratory on one machine, or in one house, needs.
_PRIVATE: Final[tuple[_Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
    )
)

# Nobody's peer, anywhere.
_NEVER: Final[tuple[_Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "169.254.0.0/16",  # link-local; the metadata services of clouds live here
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",  # unspecified, and IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64 for local use
        "100::/64",
        "2001::/23",  # Teredo and other protocols' assignments
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
        "5f00::/16",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)


class PeerFilter:
    """Decides by address whether a peer may be sent to; ports are not its business."""

    def __init__(self, *, allow_private: bool = False, own_hosts: Iterable[str] = ()) -> None:
        """Allow private and loopback peers if told so; ``own_hosts`` are the relay's own addresses.

        The own addresses are always allowed: two clients of one relay meet at them.
        """
        self._allow_private = allow_private
        self._own = frozenset(str(ipaddress.ip_address(host)) for host in own_hosts)

    def allows(self, host: str) -> bool:
        """Say whether a numeric host may be a peer."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if host in self._own:
            return True
        if self._allow_private and _in_any(address, _PRIVATE):
            return True
        return not _in_any(address, _NEVER) and not _in_any(address, _PRIVATE)

    def is_relays_only(self, host: str) -> bool:
        """Say whether a host is our own, so that only our relays may be reached there.

        Whatever else listens on this machine trusts packets that come from it, and a client must not borrow
        that trust.
        """
        return not self._allow_private and host in self._own


def _in_any(address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: tuple[_Network, ...]) -> bool:
    return any(address in network for network in networks)
