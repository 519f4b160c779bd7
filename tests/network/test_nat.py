from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from calllab.errors import InvalidSetting
from calllab.network import NAT_KINDS, Nat, NatBehaviour, NatSettings, nat_kind
from tests.network.helpers import STEADY

PUBLIC = "198.18.0.1"
INSIDE = ("10.0.0.2", 5000)
NEIGHBOUR = ("10.0.0.3", 5000)

ONE = ("203.0.113.1", 3478)
ONE_OTHER_PORT = ("203.0.113.1", 3479)
TWO = ("203.0.113.2", 3478)

BEHAVIOURS: tuple[NatBehaviour, ...] = (
    "endpoint-independent",
    "address-dependent",
    "address-and-port-dependent",
)


def make(kind: str = "full-cone", **changes: Any) -> Nat:
    return Nat(nat_kind(kind, **changes), PUBLIC)


def out(nat: Nat, now: float, destination: tuple[str, int], source: tuple[str, int] = INSIDE) -> int:
    """Send a datagram out that must pass, and return the external port."""
    external = nat.outbound(now, source, destination)
    assert external is not None
    assert external[0] == PUBLIC
    return external[1]


# RFC 4787, requirement by requirement


@pytest.mark.parametrize(
    ("mapping", "ports"),
    [("endpoint-independent", 1), ("address-dependent", 2), ("address-and-port-dependent", 3)],
)
def test_req_1_a_mapping_is_reused_for_as_many_destinations_as_its_behaviour_says(
    mapping: NatBehaviour, ports: int
) -> None:
    """REQ-1, section 4.1: the three mapping behaviours, over another port and another address."""
    nat = make(mapping=mapping)
    seen = [out(nat, 0.0, to) for to in (ONE, ONE_OTHER_PORT, TWO, ONE)]
    assert len(set(seen)) == ports
    assert seen[0] == seen[3], "the same destination keeps the same port"
    assert (seen[0] == seen[1]) == (mapping != "address-and-port-dependent")


def test_req_2_all_mappings_of_a_host_have_one_external_address() -> None:
    """REQ-2: pooling is paired, as there is one address."""
    nat = make("symmetric")
    assert {nat.outbound(0.0, ("10.0.0.2", port), ONE)[0] for port in range(50)} == {PUBLIC}  # type: ignore[index]


@pytest.mark.parametrize("assignment", ["preserve", "sequential", "random"])
def test_req_3_no_two_mappings_share_a_port(assignment: str) -> None:
    """REQ-3: ports are never overloaded, however few there are."""
    nat = make(port_assignment=assignment, first_port=2000, last_port=2019)
    hosts = [(f"10.0.0.{number}", 2005) for number in range(2, 22)]
    ports = [out(nat, 0.0, ONE, host) for host in hosts]
    assert sorted(ports) == list(range(2000, 2020))
    assert nat.outbound(0.0, ("10.0.0.99", 2005), ONE) is None, "no port is left"
    assert nat.counters.full_dropped == 1
    assert [out(nat, 1.0, ONE, host) for host in hosts] == ports, "those in use are untouched"


def test_req_3a_a_preserving_nat_keeps_well_known_ports_among_themselves() -> None:
    """REQ-3a: ports below 1024 become ports below 1024, and the others never do."""
    nat = make(first_port=1024, last_port=1026)
    low = {out(nat, 0.0, ONE, (f"10.0.0.{number}", 1023)) for number in (2, 3, 4)}
    assert 1023 in low
    assert max(low) < 1024
    high = {out(nat, 0.0, ONE, (f"10.0.0.{number}", 1026)) for number in (2, 3, 4)}
    assert high == {1024, 1025, 1026}


def test_port_assignments_do_as_they_say() -> None:
    """Section 4.2.1: the internal port if free, the next one, or any."""
    preserving = make()
    assert [out(preserving, 0.0, ONE), out(preserving, 0.0, ONE, NEIGHBOUR)] == [5000, 5001]
    outside_the_range = make(first_port=40_000, last_port=40_001)
    assert out(outside_the_range, 0.0, ONE) == 40_000
    counting = make(port_assignment="sequential")
    assert [out(counting, 0.0, ONE, ("10.0.0.2", port)) for port in (9, 8, 7)] == [1024, 1025, 1026]

    def drawn(seed: int) -> list[int]:
        nat = Nat(nat_kind("symmetric"), PUBLIC, seed=seed)
        return [out(nat, 0.0, (f"203.0.113.{number}", 1)) for number in range(20)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert min(drawn(1)) >= 1024


def test_req_5_a_mapping_ends_after_its_timeout_and_not_before() -> None:
    """REQ-5: at least two minutes and five by default; a new mapping is another one."""
    assert NatSettings().mapping_timeout_s == 300.0
    nat = make(port_assignment="sequential", mapping_timeout_s=120.0)
    port = out(nat, 0.0, ONE)
    assert nat.inbound(119.999, ONE, (PUBLIC, port)) == INSIDE
    assert nat.inbound(120.0, ONE, (PUBLIC, port)) is None
    assert nat.counters.expired == nat.counters.unmapped_dropped == 1
    assert out(nat, 120.0, ONE) != port


def test_req_6_outbound_traffic_keeps_a_mapping_alive() -> None:
    """REQ-6: what goes out refreshes it."""
    nat = make("port-restricted-cone", mapping_timeout_s=10.0)
    ports = {out(nat, now, ONE) for now in (0.0, 9.0, 18.0, 27.0)}
    assert ports == {5000}
    assert nat.counters.created == 1
    assert nat.inbound(36.0, ONE, (PUBLIC, 5000)) == INSIDE


@pytest.mark.parametrize("kind", ["full-cone", "port-restricted-cone"])
@pytest.mark.parametrize("refresh", [False, True])
def test_req_6a_inbound_traffic_keeps_it_alive_if_so_configured(kind: str, refresh: bool) -> None:
    """REQ-6a: what comes in may refresh it, mapping and permit alike."""
    nat = make(kind, mapping_timeout_s=10.0, inbound_refresh=refresh)
    port = out(nat, 0.0, ONE)
    got = [nat.inbound(now, ONE, (PUBLIC, port)) is not None for now in (6.0, 12.0, 18.0)]
    assert got == [True, refresh, refresh]


def test_permits_that_have_ended_take_no_room() -> None:
    """Of one endpoint that writes to ever others, only the permits that are alive are kept."""
    nat = make("port-restricted-cone", mapping_timeout_s=10.0)
    port = 0
    for number in range(20_000):
        port = out(nat, number / 100, ("203.0.113.1", number))
        assert nat.inbound(number / 100, ("203.0.113.1", max(0, number - 999)), (PUBLIC, port)) == INSIDE
    assert nat.inbound(199.99, ("203.0.113.1", 18_999), (PUBLIC, port)) is None
    (mapping,) = nat._mappings.values()
    assert len(mapping.permits) == 1000


def test_req_6_what_is_filtered_refreshes_nothing() -> None:
    """A stranger cannot keep a mapping open from outside."""
    nat = make("port-restricted-cone", mapping_timeout_s=10.0, inbound_refresh=True)
    port = out(nat, 0.0, ONE)
    assert nat.inbound(9.0, TWO, (PUBLIC, port)) is None
    assert nat.mappings(9.0)[0].expires_s == 10.0
    assert nat.mappings(10.0) == ()


@pytest.mark.parametrize(
    ("filtering", "passes"),
    [
        ("endpoint-independent", [True, True, True]),
        ("address-dependent", [True, True, False]),
        ("address-and-port-dependent", [True, False, False]),
    ],
)
def test_req_8_the_filter_lets_in_whom_its_behaviour_says(
    filtering: NatBehaviour, passes: list[bool]
) -> None:
    """REQ-8, section 5: the three filtering behaviours, for a mapping that has sent to one endpoint."""
    nat = make(filtering=filtering)
    port = out(nat, 0.0, ONE)
    got = [nat.inbound(1.0, remote, (PUBLIC, port)) is not None for remote in (ONE, ONE_OTHER_PORT, TWO)]
    assert got == passes
    assert nat.counters.filtered_dropped == passes.count(False)
    assert nat.counters.inbound == passes.count(True)


def test_a_permit_ends_although_its_mapping_lives_on() -> None:
    """Traffic to one endpoint does not keep the door open for another."""
    nat = make("port-restricted-cone", mapping_timeout_s=10.0)
    port = out(nat, 0.0, ONE)
    assert out(nat, 8.0, TWO) == port
    assert nat.inbound(9.0, ONE, (PUBLIC, port)) == INSIDE
    assert nat.inbound(10.0, ONE, (PUBLIC, port)) is None
    assert nat.inbound(10.0, TWO, (PUBLIC, port)) == INSIDE


def test_req_9_hosts_behind_one_nat_reach_each_other_over_it() -> None:
    """REQ-9 and 9a: a hairpinned datagram comes from the sender's external endpoint."""
    nat = make("port-restricted-cone")
    assert nat.hairpins
    mine, theirs = (PUBLIC, out(nat, 0.0, ONE)), (PUBLIC, out(nat, 0.0, ONE, NEIGHBOUR))
    assert nat.outbound(1.0, INSIDE, theirs) == mine
    assert nat.inbound(1.0, mine, theirs) is None, "filtered: the neighbour has not sent there yet"
    assert nat.outbound(2.0, NEIGHBOUR, mine) == theirs
    assert nat.inbound(2.0, theirs, mine) == INSIDE
    assert nat.inbound(2.0, mine, theirs) == NEIGHBOUR


def test_req_9_without_hairpinning_such_datagrams_are_dropped() -> None:
    """A NAT may fail REQ-9, and then it counts what it drops for that."""
    nat = make(hairpinning=False)
    theirs = (PUBLIC, out(nat, 0.0, ONE, NEIGHBOUR))
    mine = nat.outbound(0.0, INSIDE, theirs)
    assert mine is not None
    assert not nat.hairpins
    assert nat.inbound(0.0, mine, theirs) is None
    assert nat.counters.hairpin_dropped == 1


def test_req_11_behaviour_does_not_change_with_use() -> None:
    """REQ-11: the hundredth mapping, and one after a conflict of ports, is treated like the first."""
    nat = make("port-restricted-cone")
    for number in range(2, 102):
        source = (f"10.0.0.{number}", 5000)
        port = out(nat, 0.0, ONE, source)
        assert out(nat, 0.0, TWO, source) == port
        assert nat.inbound(0.0, ONE_OTHER_PORT, (PUBLIC, port)) is None
        assert nat.inbound(0.0, ONE, (PUBLIC, port)) == source


# Beyond the RFC


def test_a_full_table_refuses_newcomers_until_somebody_leaves() -> None:
    """Mappings in use are not taken away for new ones."""
    nat = make(max_mappings=2, mapping_timeout_s=10.0)
    out(nat, 0.0, ONE, ("10.0.0.2", 1111))
    out(nat, 5.0, ONE, ("10.0.0.2", 2222))
    assert nat.outbound(9.0, ("10.0.0.2", 3333), ONE) is None
    assert nat.counters.full_dropped == 1
    assert out(nat, 10.0, ONE, ("10.0.0.2", 3333)) == 3333


def test_a_reboot_forgets_mappings_and_permits() -> None:
    """After it, what comes in is unmapped, and what goes out makes a mapping anew."""
    nat = make("symmetric")
    port = out(nat, 0.0, ONE)
    nat.forget()
    assert nat.mappings(0.0) == ()
    assert nat.inbound(0.0, ONE, (PUBLIC, port)) is None
    assert out(nat, 0.0, ONE) != port
    assert nat.counters.created == 2
    assert nat.counters.expired == 0


def test_other_addresses_are_not_the_nats() -> None:
    """A datagram to the port of a mapping at another address finds nobody."""
    nat = make()
    port = out(nat, 0.0, ONE)
    assert nat.inbound(0.0, ONE, ("198.18.0.2", port)) is None


def test_mappings_tell_who_has_which_port_until_when() -> None:
    """The table can be read: idle ones first, with the remote part that they are for."""
    nat = make("address-dependent", mapping_timeout_s=60.0)
    first, second = out(nat, 0.0, ONE), out(nat, 1.0, TWO)
    out(nat, 2.0, ONE)
    assert [(m.internal, m.external[1], m.remote, m.expires_s) for m in nat.mappings(3.0)] == [
        (INSIDE, second, TWO[0], 61.0),
        (INSIDE, first, ONE[0], 62.0),
    ]


def test_time_that_runs_backwards_stands_still() -> None:
    """A clock that steps back neither ends nor prolongs a mapping."""
    nat = make(mapping_timeout_s=10.0)
    port = out(nat, 100.0, ONE)
    assert out(nat, 50.0, ONE) == port
    assert nat.mappings(0.0)[0].expires_s == 110.0


def reach(a: Nat, b: Nat) -> bool:
    """Whether two hosts behind NATs reach each other after both asked the same STUN server.

    They check as ICE does (RFC 8445): to the address that the server saw, and to the address that a check
    came from.
    """
    stun = ("203.0.113.9", 3478)
    seen = {nat: [nat.outbound(0.0, INSIDE, stun)] for nat in (a, b)}
    for _ in range(4):
        for nat, other in ((a, b), (b, a)):
            for target in list(seen[other]):
                assert target is not None
                source = nat.outbound(1.0, INSIDE, target)
                assert source is not None
                if other.inbound(1.0, source, target) is not None:
                    if source not in seen[nat]:
                        seen[nat].append(source)  # a peer-reflexive candidate
                    back = other.outbound(1.0, INSIDE, source)
                    if back == target and nat.inbound(1.0, back, source) is not None:
                        return True
    return False


CONES = {"full-cone", "restricted-cone", "port-restricted-cone"}


@pytest.mark.parametrize("b", NAT_KINDS)
@pytest.mark.parametrize("a", NAT_KINDS)
def test_which_kinds_reach_each_other_without_a_relay(a: str, b: str) -> None:
    """RFC 5128 section 3.3: hole punching fails where one side varies its port and the other minds ports."""
    varies = {a, b} - CONES
    expected = not varies or ({a, b} & {"full-cone", "restricted-cone"} != set())
    nats = Nat(NAT_KINDS[a], "198.18.0.1", name="a"), Nat(NAT_KINDS[b], "198.18.0.2", name="b")
    assert reach(*nats) == expected


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mapping": "cone"}, "mapping='cone': give one of endpoint-independent, "),
        ({"filtering": "open"}, "filtering='open': give one of endpoint-independent, "),
        ({"port_assignment": "parity"}, "port_assignment='parity': give one of preserve, "),
        ({"mapping_timeout_s": 0}, "mapping_timeout_s=0: give seconds, more than 0"),
        ({"mapping_timeout_s": float("nan")}, "mapping_timeout_s=nan: give seconds"),
        ({"inbound_refresh": 1}, "inbound_refresh=1: give True or False"),
        ({"max_mappings": 0}, "max_mappings=0: give a whole number from 1"),
        ({"first_port": True}, "first_port=True: give a whole number"),
        ({"first_port": 3000, "last_port": 2000}, "first_port=3000 is above last_port=2000"),
        ({"timeout": 5}, "no such setting of a NAT: timeout; there are mapping, "),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(changes: dict[str, Any], sentence: str) -> None:
    """The message names the setting, its value and what would do."""
    with pytest.raises(InvalidSetting, match=sentence):
        NatSettings().replace(**changes)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    """A misspelt kind is refused, with all that there are and the nearest."""
    with pytest.raises(InvalidSetting, match=r"there are full-cone, .*did you mean 'symmetric'\?"):
        nat_kind("symetric")


def test_the_kinds_show_every_behaviour_and_survive_json() -> None:
    """Each mapping and filtering behaviour of RFC 4787 is found in some kind."""
    assert len(NAT_KINDS) == 5
    assert {kind.mapping for kind in NAT_KINDS.values()} == set(BEHAVIOURS)
    assert {kind.filtering for kind in NAT_KINDS.values()} == set(BEHAVIOURS)
    for kind in NAT_KINDS.values():
        assert msgspec.json.decode(msgspec.json.encode(kind), type=NatSettings) == kind
        assert hash(kind) == hash(kind.replace())


# Against a model that keeps everything ever sent and thinks anew each time

SOURCES = st.sampled_from([("10.0.0.2", 2001), ("10.0.0.2", 2002), ("10.0.0.3", 2001), ("10.0.0.3", 80)])
REMOTES = st.sampled_from([(f"203.0.113.{host}", port) for host in (1, 2) for port in (2001, 2002)])


def same(behaviour: str, one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether a behaviour treats two remote endpoints alike."""
    return (
        behaviour == "endpoint-independent"
        or (behaviour == "address-dependent" and one[0] == other[0])
        or one == other
    )


class Entry(NamedTuple):
    """One datagram that was translated."""

    at: float
    inside: tuple[str, int]
    remote: tuple[str, int]
    port: int


class NatMachine(RuleBasedStateMachine):
    """Any traffic, with pauses and reboots, is translated as a log of all that went by says."""

    TIMEOUT_S = 10.0

    @initialize(
        mapping=st.sampled_from(BEHAVIOURS),
        filtering=st.sampled_from(BEHAVIOURS),
        inbound_refresh=st.booleans(),
        port_assignment=st.sampled_from(["preserve", "sequential", "random"]),
        max_mappings=st.integers(1, 8),
    )
    def begin(self, **settings: Any) -> None:
        self.settings = NatSettings(
            mapping_timeout_s=self.TIMEOUT_S, first_port=2000, last_port=2005, **settings
        )
        self.nat = Nat(self.settings, PUBLIC, seed=3)
        self.now = 0.0
        self.log: list[Entry] = []

    def history(self, port: int) -> list[Entry]:
        """Return all that kept the mapping that has a port now alive, from its beginning; empty: none has."""
        entries = [entry for entry in self.log if entry.port == port]
        if not entries or self.now - entries[-1].at >= self.TIMEOUT_S:
            return []
        begins = [0]
        begins += [
            index + 1
            for index, (one, next_one) in enumerate(itertools.pairwise(entries))
            if next_one.at - one.at >= self.TIMEOUT_S
        ]
        return entries[begins[-1] :]

    def port_of(self, source: tuple[str, int], remote: tuple[str, int]) -> int | None:
        for port in self.ports:
            first = self.history(port)[0]
            if first.inside == source and same(self.settings.mapping, first.remote, remote):
                return port
        return None

    @property
    def ports(self) -> set[int]:
        """The ports in use."""
        return {entry.port for entry in self.log if self.history(entry.port)}

    @rule(source=SOURCES, remote=REMOTES)
    def send(self, source: tuple[str, int], remote: tuple[str, int]) -> None:
        expected, used = self.port_of(source, remote), self.ports
        external = self.nat.outbound(self.now, source, remote)
        if external is None:
            assert expected is None, "a mapping in use is never refused"
            low = self.settings.port_assignment == "preserve" and source[1] < 1024
            taken = len({port for port in used if (port < 1024) == low})
            assert len(used) >= self.settings.max_mappings or taken == (1023 if low else 6)
            return
        assert external[0] == PUBLIC
        if expected is not None:
            assert external[1] == expected
        else:
            assert external[1] not in used, "a new mapping never takes a port in use"
            assert len(used) < self.settings.max_mappings
            if self.settings.port_assignment == "preserve" and source[1] not in used:
                assert external[1] == source[1]
        self.log.append(Entry(self.now, source, remote, external[1]))

    @rule(remote=REMOTES, data=st.data())
    def receive(self, remote: tuple[str, int], data: st.DataObject) -> None:
        port = data.draw(st.sampled_from(sorted(self.ports | {80, 2000})))
        history = self.history(port)
        permitted = self.settings.filtering == BEHAVIOURS[0] or any(
            self.now - entry.at < self.TIMEOUT_S and same(self.settings.filtering, entry.remote, remote)
            for entry in history
        )
        expected = history[0].inside if history and permitted else None
        assert self.nat.inbound(self.now, remote, (PUBLIC, port)) == expected
        if expected is not None and self.settings.inbound_refresh:
            self.log.append(Entry(self.now, expected, remote, port))

    @rule(wait_s=st.sampled_from([0.5, 4.0, 9.5, 10.0]))
    def wait(self, wait_s: float) -> None:
        self.now += wait_s

    @rule()
    def reboot(self) -> None:
        self.nat.forget()
        self.log.clear()

    @invariant()
    def the_table_is_as_the_log_says(self) -> None:
        assert {mapping.external[1] for mapping in self.nat.mappings(self.now)} == self.ports


NatMachine.TestCase.settings = hypothesis_settings(STEADY, max_examples=150, stateful_step_count=30)
TestNatAgainstAModel = NatMachine.TestCase
