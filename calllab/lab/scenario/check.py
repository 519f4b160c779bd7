"""What no type can say about a scenario: that names exist, that times fit, that servers are there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from msgspec import UNSET

from calllab.errors import InvalidSetting, ScenarioError
from calllab.lab.kinds import STUN_HOSTS, ClockKind, NetworkKind
from calllab.lab.scenario.actions import CallPeer, ForgetNat
from calllab.lab.scenario.expect import Measure, Range
from calllab.lab.scenario.links import LinkMembers
from calllab.lab.scenario.model import MAX_SEED, Scenario, TurnServerSpec, VideoSpec
from calllab.lab.scenario.shape import setting_words
from calllab.network import NAT_KINDS, LinkSettings, NatSettings, nat_kind, profile
from calllab.network.settings import fault_members

__all__ = ["check", "check_clock", "check_setting", "directions", "link_of", "needs_virtual_network"]

PEER_NAME: Final = re.compile(r"[a-z0-9._-]{3,32}")
SERVERS: Final = (*STUN_HOSTS, "turn")
DIRECTION: Final = re.compile(r"\s*([a-z0-9._-]+)\s*(<?->)\s*([a-z0-9._-]+)\s*")


def check(scenario: Scenario) -> Scenario:
    """Return ``scenario`` if it can be run as it is written.

    Raises :exc:`~calllab.errors.ScenarioError` with a line for each problem: its path, what was expected, and
    what there is.
    """
    checks: tuple[Callable[[Scenario], Iterator[str]], ...] = (
        _peers,
        _network,
        _actions,
        _faults,
        _servers,
        _truth,
        _expectations,
    )
    problems = tuple(problem for each in checks for problem in each(scenario))
    if problems:
        raise ScenarioError("\n".join(problems), problems=problems)
    return scenario


def needs_virtual_network(scenario: Scenario) -> tuple[str, ...]:
    """Return a sentence for each part that real sockets cannot do; empty if they can do all of it."""
    reasons = [f"$.peers.{name}.nat: a NAT" for name, peer in scenario.peers.items() if peer.nat is not None]
    if scenario.network.profile is not None:
        reasons.append("$.network.profile: a profile")
    reasons += [f"$.peers.{name}.profile: a profile" for name, peer in scenario.peers.items() if peer.profile]
    reasons += [f"$.network.nats.{name}: a NAT" for name in scenario.network.nats]
    reasons += [
        f"$.peers.{name}.costs: costs of a machine" for name, peer in scenario.peers.items() if peer.costs
    ]
    reasons += [f"$.network.routes[{index}]: a route" for index in range(len(scenario.network.routes))]
    if int(scenario.servers.stun) > 1:
        reasons.append("$.servers.stun: more than one STUN server")
    turn = scenario.servers.turn
    if isinstance(turn, TurnServerSpec):
        reasons += [f"$.servers.turn.faults[{index}]: a TURN fault" for index in range(len(turn.faults))]
    reasons += [
        f"$.timeline[{index}]: {action.__struct_config__.tag}"
        for index, action in enumerate(scenario.timeline)
        if isinstance(action, ForgetNat)
    ]
    return tuple(reasons)


def check_clock(time: ClockKind, network: NetworkKind | None) -> None:
    """Raise :exc:`~calllab.errors.ScenarioError` if nothing can run on this clock and network."""
    if network == "sockets" and time == "virtual":
        raise ScenarioError(
            "virtual time cannot run on real sockets, which nobody can make wait: choose "
            "--time real --network sockets, or --network virtual"
        )


def check_setting(
    scenario: Scenario, *, time: ClockKind, network: NetworkKind | None, seed: int | None = None
) -> NetworkKind:
    """Return the network to run on.

    :param network: None: real sockets in real time if the scenario can run on them, else the virtual network.

    :param seed: another seed than the scenario's: one that it could have itself, so that what is recorded can
        be run again.

    Raises :exc:`~calllab.errors.ScenarioError` if ``scenario`` cannot run on this clock and network.
    """
    if seed is not None and not (
        isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= MAX_SEED
    ):
        raise ScenarioError(f"seed: expected a whole number from 0 to {MAX_SEED}, got {seed!r}")
    check_clock(time, network)
    reasons = needs_virtual_network(scenario)
    if network is None:
        return "virtual" if time == "virtual" or reasons else "sockets"
    if network == "sockets" and reasons:
        raise ScenarioError(
            "this scenario needs the virtual network (--network virtual):\n" + "\n".join(reasons),
            problems=reasons,
        )
    return network


def directions(direction: str) -> tuple[tuple[str, str], ...]:
    """Return (sender, receiver) of a direction, both ways for ``<->``; empty if it is none."""
    matched = DIRECTION.fullmatch(direction)
    if matched is None or matched[1] == matched[3]:
        return ()
    there = (matched[1], matched[3])
    return (there,) if matched[2] == "->" else (there, there[::-1])


def link_of(scenario: Scenario, name: str) -> LinkSettings:
    """Return what a peer's link does beside the faults: its profile, or else what all links do; then its own.

    Raises :exc:`~calllab.errors.InvalidSetting` if they do not go together.
    """
    peer, settings = scenario.peers[name], LinkSettings()
    if (named := profile_name(scenario, name)) is not None:
        settings = profile(named).up
    elif scenario.network.link is not None:
        settings = settings.replace(**scenario.network.link.changes)
    return settings if peer.link is None else settings.replace(**peer.link.changes)


def profile_name(scenario: Scenario, name: str) -> str | None:
    """Return the name of a peer's profile: its own, or that of all peers."""
    return scenario.peers[name].profile or scenario.network.profile


def nat_settings(nat: str | NatSettings) -> NatSettings:
    """Return the settings of a NAT or of a kind of NAT; raises InvalidSetting for an unknown one."""
    return nat_kind(nat) if isinstance(nat, str) else nat


def _peers(scenario: Scenario) -> Iterator[str]:
    for name in scenario.peers:
        if not PEER_NAME.fullmatch(name) or name in SERVERS:
            yield (f"$.peers.{name}: expected 3 to 32 of a-z, 0-9, '.', '_', '-', and no name of a server")
            continue
        peer = scenario.peers[name]
        try:
            if (named := profile_name(scenario, name)) is not None:
                profile(named)
        except InvalidSetting as exc:
            yield f"$.{f'peers.{name}' if peer.profile else 'network'}.profile: {exc}"
            continue
        try:
            link_of(scenario, name)
        except InvalidSetting as exc:
            member = "link" if peer.link is not None else "profile"
            yield _setting(f"$.peers.{name}.{member}", exc)
        if isinstance(peer.nat, str) and peer.nat not in scenario.network.nats:
            yield from _nat(f"$.peers.{name}.nat", peer.nat)
        for member in ("turn_credentials", "turn_ttl_s"):
            if getattr(peer, member) not in ("right", None) and not scenario.servers.turn:
                yield (
                    f"$.peers.{name}.{member}: there is no TURN server to refuse them: "
                    "set $.servers.turn to true"
                )
        if peer.turn_ttl_s is not None and peer.turn_credentials != "right":
            yield f"$.peers.{name}.turn_ttl_s: {peer.turn_credentials} credentials are never good"
        if scenario.codecs == "packets" and isinstance(peer.video, VideoSpec) and peer.video.fps % 1:
            yield f"$.peers.{name}.video.fps: codecs: packets needs a whole number, got {peer.video.fps:g}"


def _nat(path: str, nat: str | NatSettings) -> Iterator[str]:
    try:
        nat_settings(nat)
    except InvalidSetting as exc:
        yield f"{path}: {exc}"


def _network(scenario: Scenario) -> Iterator[str]:
    for name, nat in scenario.network.nats.items():
        path = f"$.network.nats.{name}"
        yield from _nat(path, nat)
        if name in scenario.peers or name in SERVERS or name in NAT_KINDS:
            yield f"{path}: expected a name that is no peer's, no server's and no kind of NAT"
    hosts = [*scenario.peers, *scenario.servers.hosts]
    for index, route in enumerate(scenario.network.routes):
        path = f"$.network.routes[{index}]"
        for end, name in (("from", route.source), ("to", route.to)):
            if name not in hosts:
                yield f"{path}.{end}: {_unknown('host', name, hosts)}"
        if route.source == route.to:
            yield f"{path}: expected two different ends, got {route.to!r} twice"
        yield from _link(path, route, needed=True)


def _actions(scenario: Scenario) -> Iterator[str]:
    in_call_from: dict[str, float] = {}
    for action in sorted(scenario.timeline, key=lambda action: action.at_s):
        if isinstance(action, CallPeer):
            for name in (action.by, action.to):
                in_call_from.setdefault(name, action.at_s)
    if not in_call_from:
        yield "$.timeline: expected at least one call, as in {do: call, by: alice, to: bob}"
    for index, action in enumerate(scenario.timeline):
        path = f"$.timeline[{index}]"
        yield from _peer(f"{path}.by", action.by, scenario)
        yield from _time(path, action.at_s, None, scenario)
        if isinstance(action, CallPeer):
            yield from _peer(f"{path}.to", action.to, scenario)
            if action.by == action.to:
                yield f"{path}.to: expected another peer than {action.by!r}"
            if action.policy == "relay" and not scenario.servers.turn:
                yield f"{path}.policy: relay needs a TURN server: set $.servers.turn to true"
        elif isinstance(action, ForgetNat):
            if action.by in scenario.peers and scenario.peers[action.by].nat is None:
                yield f"{path}.by: {action.by!r} has no NAT: set $.peers.{action.by}.nat"
        elif action.by in scenario.peers and action.at_s < in_call_from.get(action.by, float("inf")):
            yield f"{path}.at_s: {action.by!r} is in no call at {action.at_s:g} s: let there be one before"


def _faults(scenario: Scenario) -> Iterator[str]:
    for index, fault in enumerate(scenario.faults):
        path = f"$.faults[{index}]"
        yield from _direction(path, fault.direction, scenario)
        yield from _time(path, fault.at_s, fault.for_s, scenario)
        yield from _link(path, fault, needed=True)
    for index, planned in enumerate(scenario.signaling_faults):
        path = f"$.signaling_faults[{index}]"
        for name in sorted(planned.users - scenario.peers.keys()):
            yield f"{path}.{'direction' if planned.peer is None else 'peer'}: " + _unknown(
                "peer", name, scenario.peers
            )
        yield from _time(path, planned.at_s, planned.for_s, scenario)
    for index, altered in enumerate(scenario.sdp_faults):
        path = f"$.sdp_faults[{index}]"
        yield from _direction(path, altered.direction, scenario)
        yield from _time(path, altered.at_s, altered.for_s, scenario)


def _servers(scenario: Scenario) -> Iterator[str]:
    turn = scenario.servers.turn
    for index, fault in enumerate(turn.faults if isinstance(turn, TurnServerSpec) else ()):
        path = f"$.servers.turn.faults[{index}]"
        yield from _time(path, fault.at_s, fault.for_s, scenario)
        if sum((fault.reject is not None, fault.silent, fault.dead)) != 1:
            yield f"{path}: expected one of reject, silent and dead"


def _truth(scenario: Scenario) -> Iterator[str]:
    for index, truth in enumerate(scenario.truth):
        path = f"$.truth[{index}]"
        yield from _time(path, truth.at_s, truth.for_s, scenario)
        if truth.direction not in (None, "both", "signaling"):
            yield from _direction(path, truth.direction, scenario)


def _expectations(scenario: Scenario) -> Iterator[str]:
    expect = scenario.expect
    for name in expect.end_reason:
        yield from _peer(f"$.expect.end_reason.{name}", name, scenario)
    if expect.glare is not None:
        for member in ("ignored_by", "rolled_back_by"):
            if (name := getattr(expect.glare, member)) is not None:
                yield from _peer(f"$.expect.glare.{member}", name, scenario)
    for index, pair in enumerate(expect.pairs):
        yield from _peer(f"$.expect.pairs[{index}].peer", pair.peer, scenario)
    for index, finding in enumerate(expect.findings):
        path = f"$.expect.findings[{index}]"
        if finding.direction not in (None, "both", "signaling"):
            yield from _direction(path, finding.direction, scenario)
        for member in ("onset_s", "end_s", "severity"):
            yield from _range(f"{path}.{member}", getattr(finding, member))
        if finding.onset_s is not None and (finding.onset_s.min or 0.0) > scenario.duration_s:
            end = f"the end at {scenario.duration_s:g} s"
            yield f"{path}.onset_s.min: {finding.onset_s.min:g} s is after {end}"
        if finding.cause in expect.not_findings:
            yield f"{path}.cause: {finding.cause!r} is in not_findings, too"
    for index, metric in enumerate(expect.metrics):
        yield from _measure(f"$.expect.metrics[{index}]", metric, scenario)


def _measure(path: str, metric: Measure, scenario: Scenario) -> Iterator[str]:
    yield from _peer(f"{path}.peer", metric.peer, scenario)
    if (metric.type is None) == (metric.event is None):
        yield f"{path}: expected either type (of statistics) or event"
    if metric.member is None and metric.take != "count":
        yield f"{path}.member: expected the name of a member (only take: count needs none)"
    if metric.from_s >= scenario.duration_s:
        yield f"{path}.from_s: {metric.from_s:g} s is not before the end at {scenario.duration_s:g} s"
    if metric.to_s is not None and metric.to_s <= metric.from_s:
        yield f"{path}.to_s: expected more than from_s ({metric.from_s:g}), got {metric.to_s:g}"


def _range(path: str, limits: Range | None) -> Iterator[str]:
    if limits is not None and limits.min is not None and limits.max is not None and limits.max < limits.min:
        yield f"{path}: expected min up to max, got {limits.min:g} to {limits.max:g}"


def _peer(path: str, name: str, scenario: Scenario) -> Iterator[str]:
    if name not in scenario.peers:
        yield f"{path}: {_unknown('peer', name, scenario.peers)}"


def _direction(path: str, direction: str, scenario: Scenario) -> Iterator[str]:
    ways = directions(direction)
    if not ways:
        yield f"{path}.direction: expected 'alice->bob', or 'alice<->bob' for both ways, got {direction!r}"
        return
    for name in ways[0]:
        if name not in scenario.peers:
            yield f"{path}.direction: {_unknown('peer', name, scenario.peers)}"


def _time(path: str, at_s: float, for_s: float | None, scenario: Scenario) -> Iterator[str]:
    if at_s >= scenario.duration_s:
        yield f"{path}.at_s: expected a time before the end at {scenario.duration_s:g} s, got {at_s:g}"
    elif for_s is not None and at_s + for_s > scenario.duration_s:
        yield (
            f"{path}.for_s: it would end at {at_s + for_s:g} s, after the end of the run at "
            f"{scenario.duration_s:g} s: leave for_s out to let it last to the end"
        )


def _link(path: str, members: LinkMembers, *, needed: bool) -> Iterator[str]:
    if members.trace_file is not UNSET:
        yield (
            f"{path}.trace_file: a scenario that is no file has no folder to look in: give the text itself "
            "as trace, from calllab.network.read_trace()"
        )
        return
    if not members.changes and not needed:
        return
    try:
        fault_members(members.changes)
    except InvalidSetting as exc:
        yield _setting(path, exc)


def _setting(path: str, error: InvalidSetting) -> str:
    words = setting_words(str(error))
    return f"{path}: {error}" if words is None else f"{path}.{words}"


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    return f"there is no {what} {name!r}: {hint}"
