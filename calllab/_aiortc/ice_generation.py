"""One ICE generation: the candidates, checks and consent that belong to one pair of user name fragments."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from aioice import Candidate, TransportPolicy, ice

from calllab._aiortc.candidates import IceCandidateError, parse_candidate, to_line
from calllab._aiortc.datagrams import Address, host_addresses
from calllab._aiortc.gathering import (
    NO_ANSWER,
    GatheringError,
    Server,
    gather_host,
    gather_reflexive,
    gather_relay,
)
from calllab._aiortc.ice_checks import CheckedConnection, is_direct
from calllab._aiortc.ice_contract import Credentials, GenerationOwner, GenerationSettings, GenerationState
from calllab._aiortc.ice_socket import ConsentCheck, IceSocket
from calllab._aiortc.liveness import Liveness

__all__ = ["Credentials", "GenerationOwner", "GenerationState", "IceGeneration"]

logger = logging.getLogger(__name__)

# RFC 8445 section 6.1.2.5 limits the check list to 100 pairs; no honest peer signals more candidates.
MAX_REMOTE_CANDIDATES = 100
# Consent checks that may be without an answer at a time: all those of one consent lifetime at 4 Hz.
_MAX_OPEN_CHECKS = 128


class IceGeneration(CheckedConnection):
    """An aioice connection that trickles, survives doubt, and shares role and tie-breaker with its siblings.

    :meth:`start_gathering`, then :meth:`start_checks` once the peer's credentials are known, in the end
    ``await shutdown()``.
    """

    def __init__(
        self,
        owner: GenerationOwner,
        credentials: Credentials,
        *,
        offerer: bool,
        controlling: bool,
        settings: GenerationSettings,
    ) -> None:
        super().__init__(
            ice_controlling=controlling,
            local_username=credentials.ufrag,
            local_password=credentials.pwd,
            transport_policy=TransportPolicy.RELAY if settings.policy == "relay" else TransportPolicy.ALL,
        )
        # aioice draws one for each connection (ice.py:457); with generations of different tie-breakers both
        # peers can lose the same role conflict and wait for each other for ever.
        self._tie_breaker = settings.tie_breaker
        self.offerer = offerer
        self.state: GenerationState = "new"
        self.gathered = False
        self.gathering_errors: list[IceCandidateError] = []
        self._known_pairs: dict[Any, None] = {}
        self._former: set[Address] = set()
        """The addresses of peers that it turned away from."""
        self.servers_asked: dict[str, str] = {}
        """The URL that gave each reflexive or relayed candidate, by its line."""
        self.failure: str | None = None
        self._owner = owner
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._peer_tasks: set[asyncio.Task[None]] = set()
        """Those of them that have to do with the peer, and not with gathering."""
        self._hosts_ready = asyncio.Event()
        self._liveness: Liveness | None = None
        self._liveness_changed = asyncio.Event()
        self._end_of_candidates_due = False
        self._remote_count = 0
        self._deadline_from = 0.0
        self._shut_down = False
        self._shutdown_task: asyncio.Task[None] | None = None
        self._reported_pair: ice.CandidatePair | None = None

    # Facts

    @property
    def selected_pair(self) -> Any:
        """The nominated aioice pair, None as long as there is none."""
        return self._nominated.get(1)

    @property
    def can_send(self) -> bool:
        """Whether there is a pair, and consent to use it."""
        return self.state in ("connected", "disconnected") and self.selected_pair is not None

    @property
    def pairs(self) -> list[Any]:
        """All pairs that ever were in the check list; aioice removes some when one is nominated."""
        return list(self._known_pairs)

    def sort_check_list(self) -> None:
        """Aioice has added to the check list: remember what is new."""
        super().sort_check_list()
        for pair in self._check_list:
            self._known_pairs.setdefault(pair)

    @property
    def finished(self) -> bool:
        """Whether both peers have named all their candidates."""
        return self.gathered and self._remote_candidates_end

    @property
    def has_remote(self) -> bool:
        """Whether the peer has named a candidate, or was heard from an address that it had not named."""
        return self._remote_count > 0 or bool(self._remote_candidates)

    # Gathering

    def start_gathering(self) -> None:
        """Begin to gather: hosts first, then all servers at once, each candidate told as it comes."""
        self._spawn(self._gather())

    async def _gather(self) -> None:
        settings = self._settings
        addresses = host_addresses(settings.interface) if settings.policy == "all" else []
        for address in addresses:
            protocol = await gather_host(address, self._make_socket, settings.interface)
            if protocol is not None:
                self._protocols.append(protocol)
                self._add_local(protocol.local_candidate)
        # connect() insists on this flag (ice.py:618); what comes later is paired by hand.
        self._local_candidates_end = True
        hosts: list[Any] = list(self._protocols)
        self._hosts_ready.set()
        jobs: list[Coroutine[Any, Any, None]] = []
        for server in settings.servers:
            if server.url.scheme == "stun":
                if settings.policy == "all":
                    jobs.append(self._gather_reflexive(hosts, server))
            else:
                jobs.append(self._gather_relay(server))
        await asyncio.gather(*jobs)
        self.gathered = True
        if self._end_of_candidates_due:
            self._spawn(self._end_remote(), of_peer=True)
        self._owner.generation_candidate(self, None)
        if not self._local_candidates:
            self._give_up("no local candidate was found")

    async def _gather_reflexive(self, hosts: Sequence[IceSocket], server: Server) -> None:
        """Ask one server from every host socket.

        That it cannot be reached is told once, and only if none of them can reach it (webrtc-pc 4.8.3).
        """
        asking = [
            self._ask_reflexive(host, server)
            for host in hosts
            if ipaddress.ip_address(host.local_candidate.host).version == 4
        ]
        answers = await asyncio.gather(*asking)
        errors = [answer for answer in answers if answer is not None]
        unreachable = [error for error in errors if error.errorCode == NO_ANSWER]
        for error in errors:
            if error.errorCode != NO_ANSWER:
                self._report_error(error)
        if unreachable and len(unreachable) == len(answers):
            alone = len(unreachable) == 1
            self._report_error(unreachable[0] if alone else replace(unreachable[0], address=None, port=None))

    async def _ask_reflexive(self, host: IceSocket, server: Server) -> IceCandidateError | None:
        try:
            candidate = await gather_reflexive(
                host, server, self._settings.interface, timeout_s=self._settings.timers.gather_timeout_s
            )
        except GatheringError as error:
            return error.error
        if not any((c.host, c.port) == (candidate.host, candidate.port) for c in self._local_candidates):
            self._add_local(candidate, server)
        return None

    async def _gather_relay(self, server: Server) -> None:
        settings = self._settings
        try:
            protocol = await gather_relay(
                server,
                self._make_socket,
                settings.interface,
                hide_related=settings.policy == "relay",
                timeout_s=settings.timers.gather_timeout_s,
            )
        except GatheringError as error:
            self._report_error(error.error)
            return
        self._protocols.append(protocol)
        if not self._check_list_done:
            for remote in list(self._remote_candidates):
                self._pair_remote_candidate(remote)
            self.sort_check_list()
        self._add_local(protocol.local_candidate, server)

    def _make_socket(self, url: str | None) -> IceSocket:
        return IceSocket(self, self._note_received, url)

    def _add_local(self, candidate: Candidate, server: Server | None = None) -> None:
        self._local_candidates.append(candidate)
        line = to_line(candidate)
        if server is not None:
            self.servers_asked[line] = server.url.url
        self._owner.generation_candidate(self, line)

    def _report_error(self, error: IceCandidateError) -> None:
        self.gathering_errors.append(error)
        self._owner.generation_candidate_error(self, error)

    # The remote peer

    def add_remote(self, line: str | None) -> None:
        """Take a candidate that the peer signalled; None: there will be no more."""
        if self._shut_down or self._end_of_candidates_due:
            return  # RFC 8838 section 14: candidates after the end are ignored
        if line is None or not line.strip():
            self._end_of_candidates_due = True
            # Told to aioice only when our own gathering is done: else it would see every pair failed before
            # our relayed ones exist, and give up.
            if self.gathered:
                self._spawn(self._end_remote(), of_peer=True)
            return
        candidate = parse_candidate(line)
        if candidate is None or self._remote_count >= MAX_REMOTE_CANDIDATES:
            return
        self._remote_count += 1
        self._deadline_from = self._loop.time()
        self._owner.generation_state_changed(self)
        self._spawn(self.take_remote_candidate(candidate), of_peer=True)

    def check_incoming(self, message: Any, addr: tuple[str, int], protocol: Any) -> None:
        """Take a check of the peer's, which may come before any candidate of its own."""
        super().check_incoming(message, addr, protocol)
        self._owner.generation_state_changed(self)

    async def _end_remote(self) -> None:
        if not self._remote_candidates_end:
            await self.add_remote_candidate(None)
            self._owner.generation_state_changed(self)

    def start_checks(
        self, remote: Credentials, *, remote_lite: bool, candidates: Sequence[str | None]
    ) -> None:
        """Begin to look for a pair that works.

        Another time it turns from one peer to another, as after the provisional answer of a fork.
        """
        if self.remote_username is not None:
            self._turn_away()
        self.remote_username, self.remote_password = remote.ufrag, remote.pwd
        self.remote_is_lite = remote_lite
        self._deadline_from = self._loop.time()
        for line in candidates:
            self.add_remote(line)
        self._set_state("checking")
        self._spawn(self._connect(), of_peer=True)
        self._spawn(self._watch_deadline(), of_peer=True)

    def _turn_away(self) -> None:
        for task in self._peer_tasks:
            task.cancel()
        self.forget_remote()
        self._drop_consent_checks()
        self._former.update(pair.remote_addr for pair in self._known_pairs)
        self._known_pairs.clear()
        self._liveness = self._reported_pair = self.failure = None
        self._end_of_candidates_due = False
        self._remote_count = 0
        self.state = "new"

    async def _connect(self) -> None:
        await self._hosts_ready.wait()
        if self.gathered and not self._local_candidates:
            self._give_up("no local candidate was found")
            return
        try:
            await self.connect()
        except ConnectionError:
            self._fail("no candidate pair works")
            return
        self._note_pair()
        if not is_direct(self.selected_pair):
            await self.look_for_a_direct_path(self._settings.timers.direct_search_s)

    def check_complete(self, pair: ice.CandidatePair) -> None:
        """Take the outcome of a check, and tell if another pair carries the packets from now on."""
        super().check_complete(pair)
        if self._reported_pair is not None:
            self._note_pair()

    async def _watch_deadline(self) -> None:
        """Give up after a while: aioice does so only after the peer's end of candidates (ice.py:622)."""
        timeout_s = self._settings.timers.connect_timeout_s
        while self.state == "checking":
            left = self._deadline_from + timeout_s - self._loop.time()
            if left <= 0:
                self._give_up(f"no candidate pair worked within {timeout_s:g} s")
                return
            await asyncio.sleep(left)

    def _give_up(self, reason: str) -> None:
        if self.state == "checking":
            if not self._check_list_done:
                # What close() does to end connect() (ice.py:675).
                self._check_list_done = True
                self._check_list_state.put_nowait(ice.ICE_FAILED)
            self._fail(reason)

    def _fail(self, reason: str) -> None:
        if self.state != "failed":
            self.failure = reason
            self._set_state("failed")

    # Role

    def switch_role(self, ice_controlling: bool) -> None:
        """Aioice lost a role conflict: all generations follow."""
        self._owner.role_changed(ice_controlling)

    def apply_role(self, controlling: bool) -> None:
        """Take the role of the agent."""
        if self.ice_controlling == controlling:
            return
        super().switch_role(ice_controlling=controlling)
        if not controlling:
            self.take_nominations()
        elif not self._check_list_done:
            # A pair that succeeded while we were controlled waits for the peer to nominate it, and aioice
            # never looks at it again (ice.py:1379): check it once more, now nominating.
            states = ice.CandidatePair.State
            for pair in list(self._check_list):
                if pair.state is states.SUCCEEDED and not pair.nominated:
                    pair.state = states.WAITING
                    self.check_start_task(pair)

    # A connected path

    def data_received(self, data: bytes, component: int) -> None:
        """Hand a packet on: all generations feed one receiver."""
        self._owner.generation_received(data)

    def is_former(self, address: Address) -> bool:
        """Whether an address is that of a peer that was turned away from: its DTLS is not for us any more."""
        return address in self._former and all(pair.remote_addr != address for pair in self._known_pairs)

    def _note_received(self) -> None:
        if self._liveness is not None:
            in_doubt = self.state == "disconnected"
            self._liveness.received(self._loop.time())
            if in_doubt:
                self._liveness_changed.set()

    def _note_pair(self) -> None:
        if self.selected_pair is not self._reported_pair:
            self._reported_pair = self.selected_pair
            self._owner.generation_pair_changed(self)

    async def query_consent(self) -> None:
        """Check the selected pair for as long as this generation lives (RFC 7675).

        Replaces aioice's own loop, which closes the connection when consent is lost (ice.py:1275): a path
        that works in one direction only would look like a peer that hung up.
        """
        loop = self._loop
        self._liveness = liveness = Liveness(self._settings.timers, self._settings.entropy, loop.time())
        self._set_state("connected")
        while True:
            self._liveness_changed.clear()
            now = loop.time()
            state = liveness.state(now)
            self._note_pair()
            if state == "failed":
                self._fail(f"no answer to checks for {self._settings.timers.consent_s:g} s: consent is lost")
                return
            self._set_state(state)
            if liveness.check_due(now):
                self._send_check()
                liveness.sent(now)
            try:
                async with asyncio.timeout(max(0.0, liveness.next_event(now) - loop.time())):
                    await self._liveness_changed.wait()
            except TimeoutError:
                continue

    def _send_check(self) -> None:
        pair = self.selected_pair
        if pair is None or self.remote_password is None:
            return
        protocol, address = pair.protocol, pair.remote_addr
        request = self.build_request(pair, nominate=False)
        key = self.remote_password.encode()
        request.add_message_integrity(key)

        def answered(sent_at: float) -> None:
            protocol.transactions.pop(request.transaction_id, None)
            protocol.note_consent(address, sent_at)
            if self._liveness is not None:
                self._liveness.answered(self._loop.time(), sent_at)
                self._liveness_changed.set()

        controlling = self.ice_controlling
        open_checks = [tid for tid, check in protocol.transactions.items() if isinstance(check, ConsentCheck)]
        for transaction_id in open_checks[: max(0, len(open_checks) + 1 - _MAX_OPEN_CHECKS)]:
            del protocol.transactions[transaction_id]
        protocol.transactions[request.transaction_id] = ConsentCheck(
            self._loop.time(), address, key, answered, lambda: self.switch_role(not controlling)
        )
        traffic = protocol.with_peer(address)
        traffic.requests_sent += 1
        traffic.consent_requests_sent += 1
        protocol.send_stun(request, address)

    def stop_checking(self) -> None:
        """End the consent checks: the generation was replaced and only receives from now on."""
        if self._query_consent_task is not None:
            self._query_consent_task.cancel()

    # Life

    def _set_state(self, state: GenerationState) -> None:
        if state != self.state and not self._shut_down and self.state != "failed":
            self.state = state
            self._owner.generation_state_changed(self)

    def _spawn(self, work: Coroutine[Any, Any, None], *, of_peer: bool = False) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        if of_peer:
            self._peer_tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._peer_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("ICE generation %s stumbled", self.local_username, exc_info=error)

    def silence(self) -> None:
        """Tell the owner nothing any more; :meth:`shutdown` must follow."""
        self._shut_down = True

    async def shutdown(self) -> None:
        """Close every socket and end every task; nothing is told any more.

        Whoever asks waits for the same end: a protocol's close() cancelled half-way (ice.py:312 awaits
        a bare future) would take every later one along.
        """
        self._shut_down = True
        if self._shutdown_task is None:
            self._shutdown_task = asyncio.create_task(self._end())
        await asyncio.shield(self._shutdown_task)

    async def _end(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._drop_consent_checks()
        await self.close()

    def _drop_consent_checks(self) -> None:
        for protocol in self._protocols:
            for transaction_id, check in list(protocol.transactions.items()):
                if isinstance(check, ConsentCheck):
                    del protocol.transactions[transaction_id]
