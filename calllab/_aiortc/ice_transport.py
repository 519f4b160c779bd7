"""The ICE transport: generations come and go below one DTLS session.

Theory.  A generation is one exchange of ICE credentials.  It stands in one of four places:

    proposed   belongs to a description that is not settled: it gathers; a rollback discards it
    next       settled, looks for a pair; what must be sent meanwhile is held if nothing else can carry it
    active     has connected: carries everything
    old        was replaced; receives for a few seconds more, for what is still under way

    prepare: (none) -> proposed        discard: proposed -> (none)
    commit: proposed -> next           next connects: next -> active, active -> old

All generations feed one queue, so what is above never notices a restart.  Role and tie-breaker belong to the
agent, not to a generation.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from calllab._aiortc.candidates import IceCandidateError, SelectedPair, from_aioice, to_line
from calllab._aiortc.datagrams import DatagramHost, DatagramInterface, host_of
from calllab._aiortc.gathering import IcePolicy, IceServerLike, servers_of
from calllab._aiortc.ice_contract import Credentials, GenerationSettings
from calllab._aiortc.ice_generation import IceGeneration
from calllab._aiortc.ice_snapshot import IceSnapshot, snapshot_of
from calllab._aiortc.liveness import IceTimers
from calllab._aiortc.simulated import entropy as default_entropy

__all__ = ["IceGatheringState", "IceParameters", "IceRole", "IceState", "IceTransport"]

logger = logging.getLogger(__name__)

IceState = Literal["new", "checking", "connected", "completed", "disconnected", "failed", "closed"]
IceGatheringState = Literal["new", "gathering", "complete"]
IceRole = Literal["controlling", "controlled", "unknown"]

# Datagrams that wait: to be sent by the next generation, and to be read by DTLS.
_MAX_HELD = 64
_MAX_UNREAD = 4096


def _nothing(*_: object) -> None:
    """What a callback does until somebody sets it."""


@dataclass(frozen=True, slots=True)
class IceParameters:
    """ICE credentials under their W3C names."""

    usernameFragment: str
    password: str


class IceTransport:
    """One ICE agent with one component, as aiortc's DTLS transport wants it, and with restarts.

    ``servers`` are objects with ``urls``, ``username`` and ``credential``; ValueError if a URL is malformed.
    ``interface`` stands below every UDP socket.  ``entropy`` gives tie-breaker and timing (default: the
    system's).  The callbacks are attributes; each is called with the state already changed.
    """

    def __init__(
        self,
        *,
        servers: Sequence[IceServerLike] = (),
        policy: IcePolicy = "all",
        interface: DatagramInterface | None = None,
        entropy: random.Random | None = None,
        timers: IceTimers | None = None,
    ) -> None:
        entropy = entropy if entropy is not None else default_entropy()
        self.on_candidate: Callable[[str, str | None], None] = _nothing
        self.on_candidate_error: Callable[[str, IceCandidateError], None] = _nothing
        self.on_state_change: Callable[[], None] = _nothing
        self.on_gathering_state_change: Callable[[], None] = _nothing
        self.on_selected_pair_change: Callable[[], None] = _nothing
        self.recovery_listeners: set[Callable[[], None]] = set()
        """Called when packets get through again after an outage or over a new path."""
        self._settings = GenerationSettings(
            servers=servers_of(servers),
            policy=policy,
            interface=interface,
            timers=timers if timers is not None else IceTimers(),
            entropy=entropy,
            tie_breaker=entropy.getrandbits(64),
        )
        self._active: IceGeneration | None = None
        self._next: IceGeneration | None = None
        self._proposed: IceGeneration | None = None
        self._old: set[IceGeneration] = set()
        self._controlling: bool | None = None
        self._unread: deque[bytes] = deque(maxlen=_MAX_UNREAD)
        self._readable = asyncio.Event()
        self._held: deque[bytes] = deque(maxlen=_MAX_HELD)
        self._connected = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._last: IceSnapshot | None = None
        """What is left to be reported once the generations are taken down, piece by piece."""
        self._close_task: asyncio.Task[None] | None = None
        self._told_state: IceState = "new"
        self._told_gathering: IceGatheringState = "new"
        self._pair_changes = 0
        self._packets_dropped = 0

    # States

    @property
    def state(self) -> IceState:
        """The W3C RTCIceTransportState of the path in use, or of the one being looked for."""
        if self._closed:
            return "closed"
        active, coming = self._active, self._next
        if active is not None and active.state == "connected":
            return "completed" if active.finished and coming is None else "connected"
        if coming is not None:
            if coming.state == "failed":
                return "failed"
            # webrtc-pc 5.6.3: "checking" begins with the first remote candidate.
            return "checking" if active is not None or coming.has_remote else "new"
        return active.state if active is not None else "new"

    @property
    def gathering_state(self) -> IceGatheringState:
        """The W3C RTCIceGathererState of the newest generation."""
        if self._closed:
            return "complete"
        newest = self._proposed or self._next or self._active
        if newest is None:
            return "new"
        return "complete" if newest.gathered else "gathering"

    @property
    def host(self) -> DatagramHost | None:
        """The machine whose sockets it uses; None: this one."""
        return host_of(self._settings.interface)

    @property
    def role(self) -> IceRole:
        """The role of the agent; aiortc reads it too (rtcdtlstransport.py:501, 541)."""
        if self._controlling is None:
            return "unknown"
        return "controlling" if self._controlling else "controlled"

    @property
    def can_send(self) -> bool:
        """Whether there is a path with consent."""
        return self._active is not None and self._active.can_send and not self._closed

    @property
    def _current(self) -> IceGeneration | None:
        return self._active or self._next

    @property
    def selected_pair(self) -> SelectedPair | None:
        """The pair that carries the media, None until there is one."""
        active = self._active
        if active is None or (pair := active.selected_pair) is None:
            return None
        local = from_aioice(pair.local_candidate, getattr(pair.protocol, "url", None))
        remote = from_aioice(pair.remote_candidate)
        return SelectedPair(local, remote, active.local_username, active.remote_username or "")

    @property
    def local_candidates(self) -> tuple[str, ...]:
        """The local candidates of the current generation, as ``candidate:`` lines."""
        current = self._current
        return tuple(to_line(c) for c in current.local_candidates) if current is not None else ()

    @property
    def remote_candidates(self) -> tuple[str, ...]:
        """The signalled remote candidates of the current generation, as ``candidate:`` lines."""
        current = self._current
        if current is None:
            return ()
        return tuple(to_line(c) for c in current.remote_candidates if c.type != "prflx")

    @property
    def local_credentials(self) -> IceParameters | None:
        """The local credentials of the current generation."""
        current = self._current
        return IceParameters(current.local_username, current.local_password) if current is not None else None

    @property
    def remote_credentials(self) -> IceParameters | None:
        """The peer's credentials of the current generation."""
        current = self._current
        if current is None or current.remote_username is None or current.remote_password is None:
            return None
        return IceParameters(current.remote_username, current.remote_password)

    @property
    def failure(self) -> str | None:
        """Why the state is "failed", in a sentence; None in any other state."""
        failed = self._next if self._next is not None else self._active
        return failed.failure if failed is not None and self.state == "failed" else None

    def statistics(self) -> IceSnapshot:
        """Return the counters of this agent as they stand, or stood when it was closed; changes nothing."""
        if self._last is not None:
            return self._last
        return snapshot_of(
            tuple(g for g in (self._active, self._next, self._proposed) if g is not None),
            active=self._active,
            state=self.state,
            role=self.role,
            pair_changes=self._pair_changes,
            packets_dropped=self._packets_dropped,
        )

    def server_of(self, ufrag: str, line: str) -> str | None:
        """Return the URL of the server that a local candidate came from; None for a host candidate."""
        for generation in self._generations():
            if generation.local_username == ufrag and line in generation.servers_asked:
                return generation.servers_asked[line]
        return None

    # Generations

    def configure(self, servers: Sequence[IceServerLike], policy: IcePolicy) -> None:
        """Use these servers and this policy for generations prepared from now on."""
        self._settings = replace(self._settings, servers=servers_of(servers), policy=policy)

    def prepare(self, credentials: Credentials, *, offerer: bool) -> None:
        """Open a generation for a pending description and begin to gather; it replaces a proposed one."""
        if self._closed:
            return
        if self._proposed is not None:
            self._retire(self._proposed)
        if self._controlling is None:
            self._controlling = offerer
        self._proposed = IceGeneration(
            self, credentials, offerer=offerer, controlling=self._controlling, settings=self._settings
        )
        self._proposed.start_gathering()
        self._tell()

    def discard(self, local: Credentials) -> None:
        """Throw the proposed generation with these credentials away; nothing happens if there is none."""
        generation = self._proposed
        if generation is None or generation.local_username != local.ufrag:
            return
        self._proposed = None
        self._retire(generation)
        if self._current is None:
            self._controlling = None
        self._tell()

    def commit(
        self,
        local: Credentials,
        remote: Credentials,
        *,
        remote_lite: bool = False,
        candidates: Sequence[str | None] = (),
    ) -> None:
        """Offer and answer are exchanged: the proposed generation begins its checks.

        One that has begun them after a provisional answer begins anew, if the answer has other credentials
        (RFC 9429 section 5.10).  ``candidates`` are the peer's, as far as they are known; None among them
        marks their end.
        """
        generation = self._proposed
        if generation is None or generation.local_username != local.ufrag:
            generation = self._turning_to(local, remote)
        if self._closed or generation is None:
            return
        if self._next not in (None, generation):
            self._retire(self._next)
        if generation is self._proposed:
            self._proposed = None
        else:
            self._unread.clear()  # of the peer that it turns away from
        if generation is self._active:
            self._active = None
        self._next = generation
        # RFC 8445 section 6.1.1 gives the offerer control.  libwebrtc applies it to restarts too, so a peer
        # that kept its role would meet a conflict.
        self.role_changed(generation.offerer or remote_lite)
        generation.start_checks(remote, remote_lite=remote_lite, candidates=candidates)
        self._tell()

    def _turning_to(self, local: Credentials, remote: Credentials) -> IceGeneration | None:
        """Return the generation that has these local credentials, and other remote ones."""
        for generation in (self._next, self._active):
            if generation is not None and generation.local_username == local.ufrag:
                facing = generation.remote_username, generation.remote_password
                return generation if facing != (remote.ufrag, remote.pwd) else None
        return None

    def add_remote_candidate(self, remote_ufrag: str, candidate: str | None) -> bool:
        """Give a candidate to the generation that faces this user name fragment; False if none does."""
        facing = [
            g for g in (self._next, self._active) if g is not None and g.remote_username == remote_ufrag
        ]
        for generation in facing:
            generation.add_remote(candidate)
        return bool(facing)

    def _generations(self) -> Iterator[IceGeneration]:
        yield from (g for g in (self._active, self._next, self._proposed) if g is not None)
        yield from self._old

    def _activate(self, generation: IceGeneration) -> None:
        replaced, self._active, self._next = self._active, generation, None
        self._pair_changes += 1
        self._connected.set()
        if replaced is not None:
            replaced.stop_checking()
            self._old.add(replaced)
            self._spawn(self._retire_later(replaced))
        held = list(self._held)
        self._held.clear()
        if held:
            self._spawn(self._send_held(held))
        self._call(self.on_selected_pair_change)
        self._recovered()

    async def _send_held(self, held: list[bytes]) -> None:
        for data in held:
            await self._send(data)

    async def _retire_later(self, generation: IceGeneration) -> None:
        await asyncio.sleep(self._settings.timers.retire_after_s)
        await self._shut_down_generation(generation)

    def _retire(self, generation: IceGeneration) -> None:
        generation.silence()
        for place in ("_proposed", "_next"):
            if getattr(self, place) is generation:
                setattr(self, place, None)
        self._old.add(generation)
        self._spawn(self._shut_down_generation(generation))

    async def _shut_down_generation(self, generation: IceGeneration) -> None:
        # Known until its sockets are closed: the transport's closing may cut this short and ends the rest.
        await generation.shutdown()
        self._old.discard(generation)

    # What a generation tells (GenerationOwner)

    def generation_received(self, data: bytes) -> None:
        """Queue a packet for DTLS."""
        if not self._closed:
            self._unread.append(data)
            self._readable.set()

    def generation_candidate(self, generation: IceGeneration, line: str | None) -> None:
        """Pass a local candidate on."""
        if not self._closed and generation not in self._old:
            self._call(self.on_candidate, generation.local_username, line)
            if line is None:
                self._tell()

    def generation_candidate_error(self, generation: IceGeneration, error: IceCandidateError) -> None:
        """Pass the failure of a server on."""
        if not self._closed and generation not in self._old:
            self._call(self.on_candidate_error, generation.local_username, error)

    def generation_state_changed(self, generation: IceGeneration) -> None:
        """Move a generation that has connected to its place, and tell."""
        if self._closed:
            return
        if generation is self._next and generation.state == "connected":
            self._activate(generation)
        elif generation is self._active and generation.state == "connected" != self._told_state:
            self._recovered()
        self._tell()

    def generation_pair_changed(self, generation: IceGeneration) -> None:
        """Tell that the selected pair of the path in use is another."""
        if not self._closed and generation is self._active:
            self._pair_changes += 1
            self._call(self.on_selected_pair_change)

    def role_changed(self, controlling: bool) -> None:
        """Give every generation the role of the agent."""
        self._controlling = controlling
        for generation in self._generations():
            generation.apply_role(controlling)

    # What aiortc's RTCDtlsTransport calls

    async def _send(self, data: bytes) -> None:
        """Send a datagram if there is a path.

        It never raises: a ConnectionError would end the RTP task for good (rtcrtpsender.py:408).  Without a
        path, what the next generation can send is held, anything else is lost as on any network.
        """
        active = self._active
        if active is not None and active.can_send and not self._closed:
            try:
                await active.send(data)
            except (ConnectionError, OSError):
                self._packets_dropped += 1
        elif self._next is not None and not self._closed:
            self._held.append(data)
        else:
            self._packets_dropped += 1

    async def _recv(self) -> bytes:
        """Return the next datagram of any generation; raise ConnectionError once closed."""
        while not self._unread:
            if self._closed:
                raise ConnectionError("the ICE transport is closed")
            self._readable.clear()
            await self._readable.wait()
        return self._unread.popleft()

    # Life

    async def wait_connected(self) -> None:
        """Wait until a generation has connected; raise ConnectionError if the transport is closed first."""
        await self._connected.wait()
        if self._closed:
            raise ConnectionError("the ICE transport was closed before it connected")

    async def close(self) -> None:
        """Close all sockets; the state is "closed" at once, the sockets are when this returns. Idempotent."""
        if self._close_task is None:
            self._closed = True
            self._last = self.statistics()
            self._unread.clear()
            self._held.clear()
            self._readable.set()
            self._connected.set()
            for generation in self._generations():
                generation.silence()
            self._tell()
            self._close_task = asyncio.create_task(self._shut_down())
        await asyncio.shield(self._close_task)

    async def _shut_down(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(generation.shutdown() for generation in self._generations()))
        self._active = self._next = self._proposed = None
        self._old.clear()

    def _recovered(self) -> None:
        for listener in list(self.recovery_listeners):
            self._call(listener)

    def _tell(self) -> None:
        """Call back for what is different from what was told last."""
        gathering, state = self.gathering_state, self.state
        if gathering != self._told_gathering:
            self._told_gathering = gathering
            self._call(self.on_gathering_state_change)
        if state != self._told_state:
            self._told_state = state
            self._call(self.on_state_change)

    def _call(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            callback(*args)
        except Exception:
            logger.exception("a callback of the ICE transport raised")

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
