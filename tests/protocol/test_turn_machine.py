"""The TURN server core against a model that knows only the rules: what lives until when, and who may send."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from calllab.protocol.stun_attributes import Address, Attribute
from calllab.protocol.turn_actions import SendToPeer, TurnLimits
from tests.protocol.turn_desk import Client, Desk, received

QUOTA = 2
CLIENTS = (("alice", 1), ("alice", 2), ("alice", 3), ("bob", 4))
HOSTS = ("9.9.9.9", "9.9.9.10")
PEERS = tuple((host, port) for host in HOSTS for port in (1, 2))
CHANNELS = (0x4000, 0x4001)

clients = st.integers(0, len(CLIENTS) - 1)
peers = st.sampled_from(PEERS)
channels = st.sampled_from(CHANNELS)


@dataclass
class Model:
    """What one allocation should be."""

    expires_at: float
    permissions: dict[str, float] = field(default_factory=dict)
    channels: dict[int, tuple[Address, float]] = field(default_factory=dict)

    def permits(self, host: str, now: float) -> bool:
        return self.permissions.get(host, 0) > now

    def peer(self, channel: int, now: float) -> Address | None:
        peer, until = self.channels.get(channel, (("", 0), 0.0))
        return peer if until > now else None

    def channel(self, peer: Address, now: float) -> int | None:
        return next((number for number in self.channels if self.peer(number, now) == peer), None)


class TurnMachine(RuleBasedStateMachine):
    """Four clients of two users allocate, permit, bind, send and wait in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(limits=TurnLimits(max_allocations_per_user=QUOTA))
        self.clients = [self.desk.client(user, port=port, ttl=10**6) for user, port in CLIENTS]
        self.models: dict[int, Model] = {}

    def live(self, index: int) -> Model | None:
        model = self.models.get(index)
        return model if model is not None and model.expires_at > self.desk.now else None

    def client(self, index: int) -> Client:
        client = self.clients[index]
        # Nonces have tests of their own: here each request gets a fresh one.
        client.nonce = self.desk.core._authenticator.new_nonce(client.address, self.desk.now)
        return client

    @rule(index=clients, lifetime_s=st.sampled_from([600, 1200]))
    def allocate(self, index: int, lifetime_s: int) -> None:
        user = CLIENTS[index][0]
        others = [i for i, (name, _) in enumerate(CLIENTS) if name == user and self.live(i)]
        answer = self.client(index).allocate((Attribute.LIFETIME, lifetime_s.to_bytes(4, "big")))
        if self.live(index):
            assert answer.code == 437
        elif len(others) >= QUOTA:
            assert answer.code == 486
        else:
            assert (answer.code, answer.lifetime_s) == (0, lifetime_s)
            self.models[index] = Model(self.desk.now + lifetime_s)

    @rule(index=clients, lifetime_s=st.sampled_from([0, 600, 1200]))
    def refresh(self, index: int, lifetime_s: int) -> None:
        answer = self.client(index).refresh(lifetime_s)
        model = self.live(index)
        assert answer.code == (0 if model else 437)
        if model:
            model.expires_at = self.desk.now + lifetime_s

    @rule(index=clients, wanted=st.lists(peers, min_size=1, max_size=3))
    def permit(self, index: int, wanted: list[Address]) -> None:
        answer = self.client(index).permit(*wanted)
        model = self.live(index)
        assert answer.code == (0 if model else 437)
        if model:
            model.permissions.update((host, self.desk.now + 300) for host, _ in wanted)

    @rule(index=clients, channel=channels, peer=peers)
    def bind(self, index: int, channel: int, peer: Address) -> None:
        answer = self.client(index).bind(channel, peer)
        model, now = self.live(index), self.desk.now
        if model is None:
            assert answer.code == 437
        elif model.peer(channel, now) not in (None, peer) or model.channel(peer, now) not in (None, channel):
            assert answer.code == 400
        else:
            assert answer.code == 0
            model.channels[channel] = (peer, now + 600)
            model.permissions[peer[0]] = now + 300

    @rule(index=clients, peer=peers)
    def indicate(self, index: int, peer: Address) -> None:
        outputs = self.clients[index].indicate(b"data", peer)
        model = self.live(index)
        if model and model.permits(peer[0], self.desk.now):
            assert [(output.peer, output.data) for output in outputs if isinstance(output, SendToPeer)] == [
                (peer, b"data")
            ]
        else:
            assert outputs == []

    @rule(index=clients, channel=channels)
    def send_on_channel(self, index: int, channel: int) -> None:
        outputs = self.clients[index].channel(channel, b"data")
        model, now = self.live(index), self.desk.now
        peer = model.peer(channel, now) if model else None
        if model and peer and model.permits(peer[0], now):
            assert [(output.peer, output.data) for output in outputs if isinstance(output, SendToPeer)] == [
                (peer, b"data")
            ]
        else:
            assert outputs == []

    @rule(index=clients, peer=peers)
    def hear(self, index: int, peer: Address) -> None:
        allocation = self.desk.core.allocation_of(self.clients[index].address)
        if allocation is None:
            assert self.live(index) is None
            return
        outputs = self.desk.from_peer(allocation.id, b"data", peer)
        model, now = self.live(index), self.desk.now
        if model is None or not model.permits(peer[0], now):
            assert outputs == []
            return
        channel = model.channel(peer, now)
        expected = ("data", peer, b"data") if channel is None else ("channel", channel, b"data")
        assert received(outputs) == expected

    @rule(wait_s=st.sampled_from([0.5, 1.0, 60.0, 299.0, 300.0, 599.0]), punctual=st.booleans())
    def wait(self, wait_s: float, punctual: bool) -> None:
        """Let time pass, with a timer or without: what is true must not depend on it."""
        end = self.desk.now + wait_s
        if punctual:
            while (due := self.desk.core.next_timeout()) is not None and due <= end:
                self.desk.now = max(due, self.desk.now)
                assert self.desk.timeouts() == []
                after = self.desk.core.next_timeout()
                assert after is None or after > self.desk.now
        self.desk.now = end

    @invariant()
    def nothing_expires_unseen(self) -> None:
        """The timer is set no later than the first thing that ends."""
        ends = [
            end
            for index in range(len(CLIENTS))
            if (model := self.live(index))
            for end in (
                model.expires_at,
                *model.permissions.values(),
                *(until for _, until in model.channels.values()),
            )
            if end > self.desk.now
        ]
        due = self.desk.core.next_timeout()
        assert not ends or (due is not None and due <= min(ends))

    @invariant()
    def ports_are_those_of_live_allocations(self) -> None:
        """After the timer has run, a port is open for each live allocation and for nothing else."""
        self.desk.core.counters()
        if (due := self.desk.core.next_timeout()) is None or due > self.desk.now:
            live = sum(1 for index in range(len(CLIENTS)) if self.live(index))
            assert len(self.desk.ports) == live == self.desk.core.counters().allocations

    @invariant()
    def fast_path_sees_no_more_than_is_allowed(self) -> None:
        """The routes that a driver reads are what channels and permissions allow together."""
        now = self.desk.now
        if (due := self.desk.core.next_timeout()) is not None and due <= now:
            return
        for index, client in enumerate(self.clients):
            model, allocation = self.live(index), self.desk.core.allocation_of(client.address)
            assert (model is None) == (allocation is None)
            if model and allocation:
                allowed = {
                    number: peer
                    for number in CHANNELS
                    if (peer := model.peer(number, now)) and model.permits(peer[0], now)
                }
                assert allocation.routes == allowed
                assert allocation.returns == {peer: number for number, peer in allowed.items()}


TestTurnMachine = TurnMachine.TestCase
TestTurnMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.binary(max_size=120), max_size=5), st.data())
@settings(deadline=None)
def test_the_core_survives_any_datagrams(noise: list[bytes], data: st.DataObject) -> None:
    """Any bytes, and signed requests with any attributes, are answered or dropped, never an error."""
    desk = Desk(can_forbid_fragments=True, rfc5766_channels=True)
    client = desk.client()
    client.allocate()
    client.bind(0x4000, PEERS[0])
    attributes = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from([int(kind) for kind in Attribute if kind not in (0x0008, 0x001C, 0x8028)]),
                st.binary(max_size=24),
            ),
            max_size=5,
        )
    )
    for method in (3, 4, 8, 9):
        client.address = ("5.6.7.8", data.draw(st.sampled_from([40_000, 40_001])))
        client.challenge()
        answer = client.request(method, *attributes)  # type: ignore[arg-type]
        assert answer.code in (0, 400, 401, 403, 420, 437, 438, 440, 441, 442, 443, 508)
    for one in noise:
        desk.from_client(one, client.address)
        desk.from_client(b"\x40\0" + one, client.address)
        desk.from_peer(1, one, PEERS[0])
