"""Which datagram a UDP proxy forwards, from where, to whom: without sockets and clock.

Theory of operation.  The proxy stands in a call by its candidates: each candidate of each side is signaled to
the other side with the address of a :class:`Leg`, a socket of the proxy that stands for it.  What comes in on
a leg is for the leg's owner, and goes out from the leg of the *sender*, so that the owner sees it come from
the address that was signaled to it as the sender's.

Who the sender is follows from the source address.  It is known from signaling, or, for a name that only the
sender's machine can resolve (mDNS) and for addresses that were never signaled, from the first connectivity
check that comes from it: that names both sides and is signed with the owner's password (RFC 8445 section
7.2.2), which only the two sides and the signaling path know.

So that nobody uses the proxy to reach others, it forwards no more than a browser would send:

* Addresses have to be of this machine, or allowed; others get no leg, and their candidates are left out.
* To an address that has proved nothing yet, only signed connectivity checks are forwarded.
* From an address that has proved nothing yet, nothing else is forwarded either.  An address proves to be a
  peer's by a check or an answer that is signed with the password that belongs to it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from calllab.network.candidate_substitution import (
    Address,
    IceCandidateLine,
    IceCredentials,
    credentials_in,
    substitute_candidate,
    substitute_description,
)
from calllab.protocol.stun import MessageClass, Method, StunError, check_integrity, decode, is_stun
from calllab.protocol.stun_attributes import Attribute

__all__ = ["AddressPolicy", "Forward", "Leg", "ProxyTable", "Refusal"]

MAX_CALLS: Final = 64
MAX_LEGS: Final = 64
"""The most candidates of one call, both sides together."""
MAX_CREDENTIALS: Final = 8
"""An ICE restart brings new ones; so many of one side are kept."""
IDLE_S: Final = 30.0
"""A call that was silent so long makes room for another if there are too many."""
MIN_PORT: Final = 1024
"""Lower ports are never a peer's, but may be a service's."""


class Refusal(StrEnum):
    """Why a datagram is not forwarded."""

    UNKNOWN_SOURCE = "unknown-source"
    """Its source is no peer's, and it proves nothing."""
    UNPROVEN = "unproven"
    """It is no signed check, and sender or receiver have proved nothing yet."""
    NO_ADDRESS = "no-address"
    """The receiver's address is hidden (mDNS), and has not shown itself yet."""
    FORBIDDEN = "forbidden"
    """Its source proves to be a peer, at an address that is not allowed."""
    TOO_MANY = "too-many"
    """There are too many addresses in this call already."""


class AddressPolicy:
    """Says which addresses may be forwarded to.

    Args:
        is_own: says whether an address is of this machine.
        allowed: networks beside them, as ``10.0.0.0/8``; raises :exc:`ValueError` if one is none.

    """

    def __init__(self, is_own: Callable[[str], bool], allowed: Iterable[str] = ()) -> None:
        self._is_own = is_own
        self._networks = tuple(ipaddress.ip_network(network) for network in allowed)

    def permits(self, address: Address) -> bool:
        """Say whether datagrams may go to ``address``."""
        try:
            host = ipaddress.ip_address(address[0])
        except ValueError:
            return False
        if not MIN_PORT <= address[1] <= 0xFFFF or host.is_multicast or host.is_unspecified:
            return False
        if any(host in network for network in self._networks if network.version == host.version):
            return True
        return self.is_own(address[0])

    def is_own(self, host: str) -> bool:
        """Say whether ``host`` is an address of this machine."""
        return ipaddress.ip_address(host).is_loopback or self._is_own(host)


@dataclass(eq=False)
class Leg:
    """One socket of the proxy, which stands for one address of its owner."""

    call_id: str
    owner: str
    real: Address | None
    """Where the owner is; None: hidden, and not seen yet."""
    local: Address = ("", 0)
    """The proxy's own address, which the other side has been told."""
    hidden_port: int | None = None
    """The port of a hidden address, by which it is recognised."""
    is_proven: bool = False
    """Whether something signed has come from the real address."""
    is_learned: bool = False
    """Whether the real address was never signaled."""


OpenLeg: TypeAlias = Callable[[Leg, "str | None"], "Address | None"]
"""Opens a leg's socket on a host (None: the proxy's own); returns its address, or None if that fails."""


@dataclass(frozen=True)
class Forward:
    """Send the datagram from this leg to that address."""

    leg: Leg
    destination: Address


@dataclass
class _Call:
    last_s: float
    legs: list[Leg] = field(default_factory=list)
    by_real: dict[tuple[str, Address], Leg] = field(default_factory=dict)
    by_name: dict[tuple[str, Address], Leg] = field(default_factory=dict)
    credentials: dict[str, list[IceCredentials]] = field(default_factory=dict)


class ProxyTable:
    """The legs of all calls, and the routes between them; ``now`` is seconds of any clock.

    Args:
        policy: which addresses may be forwarded to.
        open_leg: opens the socket of a leg.
        close_leg: closes it.

    """

    def __init__(self, policy: AddressPolicy, *, open_leg: OpenLeg, close_leg: Callable[[Leg], None]) -> None:
        self.left_out = 0
        """How many candidates were left out, because they cannot be replaced."""
        self._policy = policy
        self._open_leg = open_leg
        self._close_leg = close_leg
        self._calls: dict[str, _Call] = {}
        self._own: set[Address] = set()

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The legs of all calls."""
        return tuple(leg for call in self._calls.values() for leg in call.legs)

    # Signaling

    def description(self, call_id: str, owner: str, sdp: str, now: float) -> str:
        """Return the description that ``owner`` sends, with legs in place of its candidates."""
        call = self._call(call_id, now)
        if call is None:
            return substitute_description(sdp, self._leave_out)
        known = call.credentials.setdefault(owner, [])
        known.extend(new for new in credentials_in(sdp) if new not in known)
        del known[:-MAX_CREDENTIALS]
        return substitute_description(sdp, lambda candidate: self._place(call, call_id, owner, candidate))

    def candidate(self, call_id: str, owner: str, text: str, now: float) -> str | None:
        """Return the candidate that ``owner`` trickles with a leg in its place; None: leave it out."""
        call = self._call(call_id, now)
        if call is None:
            return None
        return substitute_candidate(text, lambda candidate: self._place(call, call_id, owner, candidate))

    def last_s(self, call_id: str) -> float | None:
        """Return when something of a call passed last, signaled or forwarded; None: there is no such call."""
        call = self._calls.get(call_id)
        return None if call is None else call.last_s

    def end_call(self, call_id: str) -> None:
        """Close the legs of a call; nothing happens if there is none."""
        call = self._calls.pop(call_id, None)
        for leg in [] if call is None else call.legs:
            self._own.discard(leg.local)
            self._close_leg(leg)

    def close(self) -> None:
        """Close all legs."""
        for call_id in list(self._calls):
            self.end_call(call_id)

    def _call(self, call_id: str, now: float) -> _Call | None:
        """Return a call, new or known; None if there are too many."""
        call = self._calls.get(call_id)
        if call is None:
            if len(self._calls) >= MAX_CALLS:
                longest, idle = min(self._calls.items(), key=lambda item: item[1].last_s)
                if now - idle.last_s < IDLE_S:
                    return None
                self.end_call(longest)
            call = self._calls[call_id] = _Call(now)
        call.last_s = now
        return call

    def _leave_out(self, _: IceCandidateLine) -> None:
        self.left_out += 1

    def _place(
        self, call: _Call, call_id: str, owner: str, candidate: IceCandidateLine
    ) -> tuple[Address, Address | None] | None:
        if candidate.address in self._own:
            # Replaced before: the message passes here a second time, on its way to the other side.
            return candidate.address, candidate.related
        leg = self._leg_for(call, call_id, owner, candidate)
        if leg is None:
            self.left_out += 1
            return None
        if candidate.related is None:
            return leg.local, None
        base = call.by_real.get((owner, candidate.related))
        # A base that was never signaled stays unknown (RFC 8839 section 5.1: any address will do).
        unknown = ("::" if ":" in leg.local[0] else "0.0.0.0", 9)
        return leg.local, base.local if base is not None else unknown

    def _leg_for(self, call: _Call, call_id: str, owner: str, candidate: IceCandidateLine) -> Leg | None:
        address = candidate.address
        if not candidate.is_udp:
            return None
        if candidate.is_hidden:
            known = call.by_name.get((owner, address))
            if known is None:
                known = self._open(call, Leg(call_id, owner, None, hidden_port=address[1]))
                if known is not None:
                    call.by_name[owner, address] = known
            return known
        address = _normal(address)
        if not self._policy.permits(address):
            return None
        return call.by_real.get((owner, address)) or self._open(call, Leg(call_id, owner, address))

    def _open(self, call: _Call, leg: Leg) -> Leg | None:
        if len(call.legs) >= MAX_LEGS:
            return None
        # On the peer's own address the leg can be reached by whoever can reach the peer.
        host = leg.real[0] if leg.real is not None and self._policy.is_own(leg.real[0]) else None
        local = self._open_leg(leg, host)
        if local is None:
            return None
        leg.local = local
        self._own.add(local)
        call.legs.append(leg)
        if leg.real is not None:
            call.by_real[leg.owner, leg.real] = leg
        return leg

    # Datagrams

    def route(self, leg: Leg, data: bytes, source: Address, now: float) -> Forward | Refusal:
        """Say where to forward a datagram that came in on ``leg``, or why not."""
        call = self._calls.get(leg.call_id)
        if call is None:
            return Refusal.UNKNOWN_SOURCE
        sender = self._sender(call, leg.owner, source)
        signed_by = self._signer(call, leg, sender, data) if is_stun(data) else None
        if sender is None:
            if signed_by is None:
                return Refusal.UNKNOWN_SOURCE
            if not self._policy.permits(source):
                return Refusal.FORBIDDEN
            sender = _latched(call, signed_by, source)
            if sender is None:
                sender = self._open(call, Leg(leg.call_id, signed_by, source, is_learned=True))
            if sender is None:
                return Refusal.TOO_MANY
        if signed_by is not None:
            sender.is_proven = True
        elif not (sender.is_proven and leg.is_proven):
            return Refusal.UNPROVEN
        call.last_s = now
        if leg.real is None:
            return Refusal.NO_ADDRESS
        return Forward(sender, leg.real)

    def _sender(self, call: _Call, receiver: str, source: Address) -> Leg | None:
        for owner in call.credentials:
            if owner != receiver and (leg := call.by_real.get((owner, source))) is not None:
                return leg
        return None

    def _signer(self, call: _Call, leg: Leg, sender: Leg | None, data: bytes) -> str | None:
        """Return whose signed check or answer a datagram is; None: nobody's.

        A request is signed with the receiver's password and names both sides, an answer with the password
        of the one that answers (RFC 8445 section 7.1.2, RFC 8489 section 9.1).
        """
        try:
            message = decode(data)
        except StunError:
            return None
        if message.method != Method.BINDING:
            return None
        if message.message_class is MessageClass.REQUEST:
            named = message.get(Attribute.USERNAME) or b""
            receiver_ufrag, _, sender_ufrag = named.decode(errors="replace").partition(":")
            for credentials in call.credentials.get(leg.owner, ()):
                if credentials.ufrag == receiver_ufrag and check_integrity(data, credentials.pwd.encode()):
                    return _owner_of(call, sender_ufrag, leg.owner)
            return None
        if sender is None or message.message_class is MessageClass.INDICATION:
            return None
        for credentials in call.credentials.get(sender.owner, ()):
            if check_integrity(data, credentials.pwd.encode()):
                return sender.owner
        return None


def _latched(call: _Call, owner: str, source: Address) -> Leg | None:
    """Return the leg of the hidden address that has shown itself to be ``source``; None: it is another's."""
    for leg in call.legs:
        if leg.owner == owner and leg.real is None and leg.hidden_port == source[1]:
            leg.real = source
            call.by_real[owner, source] = leg
            return leg
    return None


def _owner_of(call: _Call, ufrag: str, not_this: str) -> str | None:
    for owner, known in call.credentials.items():
        if owner != not_this and any(credentials.ufrag == ufrag for credentials in known):
            return owner
    return None


def _normal(address: Address) -> Address:
    """Return an address as the operating system writes it in the source of a datagram."""
    try:
        return str(ipaddress.ip_address(address[0])), address[1]
    except ValueError:
        return address
