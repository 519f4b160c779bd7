"""A network address translator for UDP, by RFC 4787, without clock or sockets.

It has one external address.  An internal endpoint that sends gets a *mapping*: an external port that is its
own, for all destinations or for some, as the mapping behaviour says.  Each remote endpoint (or address) that
was sent to has a *permit* on the mapping, and the filtering behaviour says which datagrams need one::

                                  mapping: a new port for        filtering: back in may come
    endpoint-independent          each internal endpoint         anybody
    address-dependent             ... and each remote address    whoever has an address that was sent to
    address-and-port-dependent    ... and each remote endpoint   only the very endpoints that were sent to

Permits belong to a mapping, as in translators that track flows: where each destination has a mapping of its
own, only that destination comes in through it.

Not modelled, since nothing above this layer would notice: preservation of port parity, fragments, ICMP.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import OrderedDict
from dataclasses import dataclass, field, fields, replace
from typing import Final, Self, TypeAlias

from calllab.network.nat_settings import NAT_KINDS, NatBehaviour, NatSettings, nat_kind

__all__ = ["NAT_KINDS", "Nat", "NatBehaviour", "NatCounters", "NatMapping", "NatSettings", "nat_kind"]

Address: TypeAlias = tuple[str, int]

Remote: TypeAlias = str | Address | None
"""What a behaviour looks at: an address, an endpoint, or nothing at all."""

_FIRST_UNPRIVILEGED_PORT: Final = 1024


@dataclass(slots=True)
class NatCounters:
    """What a NAT did so far, in datagrams if not said otherwise."""

    outbound: int = 0
    """Translated on their way out."""
    inbound: int = 0
    """Translated on their way in, hairpinned ones included."""
    created: int = 0
    """Mappings made."""
    expired: int = 0
    """Mappings that ended because nobody used them."""
    full_dropped: int = 0
    """From inside, in need of a new mapping when no more of them, or no port, was to be had."""
    unmapped_dropped: int = 0
    """From outside, to a port that nobody has."""
    filtered_dropped: int = 0
    """From outside, refused by the filter."""
    hairpin_dropped: int = 0
    """From inside to the external address, where the NAT does not hairpin."""

    def copy(self) -> Self:
        """Return the counters as they stand now."""
        return replace(self)

    def __sub__(self, earlier: NatCounters) -> NatCounters:
        return NatCounters(*(getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class NatMapping:
    """A mapping that is in use, as somebody who can look into the NAT sees it."""

    internal: Address
    external: Address
    remote: Remote
    """Whom it is for: an address, an endpoint, or None for anybody, as the mapping behaviour says."""
    expires_s: float
    """When it ends if it is not used any more, on the clock that ``now`` comes from."""


@dataclass(eq=False, slots=True)
class _Mapping:
    key: tuple[Address, Remote]
    external: Address
    used_at: float
    # When each was last in use, in that order.
    permits: OrderedDict[Remote, float] = field(default_factory=OrderedDict)


def _part(behaviour: NatBehaviour, remote: Address) -> Remote:
    """Return as much of a remote endpoint as a behaviour looks at."""
    if behaviour == "endpoint-independent":
        return None
    return remote[0] if behaviour == "address-dependent" else remote


class Nat:
    """Translates between the endpoints behind it and the ports of its external address.

    The same settings, seed, name and datagrams yield the same translations.  Time that goes backwards counts
    as standing still.

    :param address: the external IP address.
    :param seed: the seed of the run, for ports drawn at random.
    :param name: tells the NATs of one run apart.
    """

    def __init__(self, settings: NatSettings, address: str, *, seed: int = 0, name: str = "nat") -> None:
        self.address = address
        self.name = name
        self.counters = NatCounters()
        """What happened so far; live, so copy() it to keep it."""
        self._settings = settings
        digest = hashlib.blake2b(f"{seed}/{name}/ports".encode(), digest_size=16).digest()
        self._random = random.Random(int.from_bytes(digest, "big"))
        # In the order of their last use and so, since all live equally long, of their end.
        self._mappings: OrderedDict[tuple[Address, Remote], _Mapping] = OrderedDict()
        self._by_port: dict[int, _Mapping] = {}
        self._next_port = settings.first_port
        self._now = -math.inf

    @property
    def settings(self) -> NatSettings:
        """How it behaves, at all times alike (RFC 4787 REQ-11)."""
        return self._settings

    @property
    def hairpins(self) -> bool:
        """Whether hosts behind it reach each other over its external address (RFC 4787 section 6)."""
        return self._settings.hairpinning

    def outbound(self, now: float, source: Address, destination: Address) -> Address | None:
        """Translate a datagram on its way out, and return the external endpoint it seems to come from.

        None: it needs a mapping and there is no room, so it is dropped.  To hairpin, hand the result and the
        destination to :meth:`inbound`: the receiver sees the external endpoint of the sender (REQ-9a).
        """
        now = self._advance(now)
        settings = self._settings
        key = (source, _part(settings.mapping, destination))
        mapping = self._mappings.get(key)
        if mapping is None:
            port = self._free_port(source[1]) if len(self._mappings) < settings.max_mappings else None
            if port is None:
                self.counters.full_dropped += 1
                return None
            mapping = self._by_port[port] = _Mapping(key, (self.address, port), now)
            self.counters.created += 1
        self._use(mapping, now)
        if settings.filtering != "endpoint-independent":
            self._permit(mapping, _part(settings.filtering, destination), now)
        self.counters.outbound += 1
        return mapping.external

    def inbound(self, now: float, source: Address, destination: Address) -> Address | None:
        """Translate a datagram that came in to ``destination``, and return the internal endpoint it is for.

        None: it is dropped, because nobody has that port, or the filter does not let ``source`` in.
        """
        now = self._advance(now)
        settings, counters = self._settings, self.counters
        if source[0] == self.address and not settings.hairpinning:
            counters.hairpin_dropped += 1
            return None
        mapping = self._by_port.get(destination[1]) if destination[0] == self.address else None
        if mapping is None:
            counters.unmapped_dropped += 1
            return None
        if settings.filtering != "endpoint-independent":
            part = _part(settings.filtering, source)
            self._end_permits(mapping, now)
            if part not in mapping.permits:
                counters.filtered_dropped += 1
                return None
            if settings.inbound_refresh:
                self._permit(mapping, part, now)
        if settings.inbound_refresh:
            self._use(mapping, now)
        counters.inbound += 1
        return mapping.key[0]

    def internal(self, external: Address) -> Address | None:
        """Return whose port that is, if anybody's, as somebody who can look into the NAT sees it."""
        mapping = self._by_port.get(external[1]) if external[0] == self.address else None
        return None if mapping is None else mapping.key[0]

    def mappings(self, now: float) -> tuple[NatMapping, ...]:
        """Return the mappings in use, the one that has been idle longest first."""
        self._advance(now)
        timeout_s = self._settings.mapping_timeout_s
        return tuple(
            NatMapping(mapping.key[0], mapping.external, mapping.key[1], mapping.used_at + timeout_s)
            for mapping in self._mappings.values()
        )

    def forget(self) -> None:
        """Lose all mappings, as a NAT that is switched off and on does; they do not count as expired."""
        self._mappings.clear()
        self._by_port.clear()
        self._next_port = self._settings.first_port

    def _advance(self, now: float) -> float:
        """End what nobody has used for too long, and return the time that counts."""
        if now > self._now:
            self._now = now
        now = self._now
        timeout_s = self._settings.mapping_timeout_s
        while self._mappings:
            oldest = next(iter(self._mappings.values()))
            if now - oldest.used_at < timeout_s:
                break
            del self._mappings[oldest.key], self._by_port[oldest.external[1]]
            self.counters.expired += 1
        return now

    def _use(self, mapping: _Mapping, now: float) -> None:
        mapping.used_at = now
        self._mappings[mapping.key] = mapping
        self._mappings.move_to_end(mapping.key)

    def _permit(self, mapping: _Mapping, part: Remote, now: float) -> None:
        self._end_permits(mapping, now)
        mapping.permits[part] = now
        mapping.permits.move_to_end(part)

    def _end_permits(self, mapping: _Mapping, now: float) -> None:
        """Forget the permits that nobody has used for too long."""
        permits = mapping.permits
        while permits and now - next(iter(permits.values())) >= self._settings.mapping_timeout_s:
            permits.popitem(last=False)

    def _free_port(self, internal_port: int) -> int | None:
        """Return a port for a new mapping, or None; no two mappings share one (REQ-3)."""
        settings = self._settings
        first, last = settings.first_port, settings.last_port
        if settings.port_assignment == "random":
            wish = self._random.randint(first, last)
        elif settings.port_assignment == "sequential":
            wish = self._next_port
        else:
            wish = internal_port
            if internal_port < _FIRST_UNPRIVILEGED_PORT:
                first, last = 1, _FIRST_UNPRIVILEGED_PORT - 1
        port = self._next_free(wish if first <= wish <= last else first, first, last)
        if port is not None and settings.port_assignment == "sequential":
            self._next_port = port + 1
        return port

    def _next_free(self, wish: int, first: int, last: int) -> int | None:
        count = last - first + 1
        # Among one port more than are taken, one is free, if there are so many.
        for step in range(min(count, len(self._by_port) + 1)):
            port = first + (wish - first + step) % count
            if port not in self._by_port:
                return port
        return None
