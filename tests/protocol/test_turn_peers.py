from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calllab.protocol.peer_filter import PeerFilter

PRIVATE = [
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "::1",
    "fd00::1",
]
NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "example.org",
    "",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2a00::1"]


@pytest.mark.parametrize("host", PRIVATE)
def test_private_peers_are_for_laboratories(host: str) -> None:
    """Private and loopback addresses are refused unless they are allowed on purpose."""
    assert not PeerFilter().allows(host)
    assert PeerFilter(allow_private=True).allows(host)


@pytest.mark.parametrize("host", NEVER)
def test_some_addresses_are_nobody(host: str) -> None:
    """Metadata services, multicast and IPv4 in disguise are refused in any case."""
    assert not PeerFilter().allows(host)
    assert not PeerFilter(allow_private=True).allows(host)


@pytest.mark.parametrize("host", PUBLIC)
def test_public_peers_are_allowed(host: str) -> None:
    """The internet may be reached."""
    assert PeerFilter().allows(host)
    assert PeerFilter(allow_private=True).allows(host)


@pytest.mark.parametrize("own", ["203.0.113.7", "10.0.0.5", "127.0.0.1", "2001:db8::7"])
def test_own_addresses_are_allowed(own: str) -> None:
    """Two clients of one relay meet at its own address, and reach nothing but relays there."""
    peers = PeerFilter(own_hosts=(own,))
    assert peers.allows(own)
    assert peers.is_relays_only(own)
    assert not peers.is_relays_only("8.8.8.8")
    assert not PeerFilter(own_hosts=(own,), allow_private=True).is_relays_only(own)


@given(st.ip_addresses(v=4), st.booleans())
def test_an_ipv4_address_in_disguise_is_refused(address: object, allow_private: bool) -> None:
    """No IPv6 form of an IPv4 address gets around the filter."""
    peers = PeerFilter(allow_private=allow_private)
    for prefix in ("::", "::ffff:", "64:ff9b::"):
        assert not peers.allows(f"{prefix}{address}")


@given(st.text())
def test_anything_can_be_asked(host: str) -> None:
    """What is no address is refused, never an error."""
    PeerFilter(own_hosts=("1.2.3.4",)).allows(host)
