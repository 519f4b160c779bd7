"""Connectivity checks: when they are sent, and which of the pairs that work is taken.

aioice looks every 20 ms whether there is a pair to check, and whether one has worked (ice.py:641).  With
trickled candidates the first look finds nothing, and a call would begin 20 to 40 ms late.  And it stops at
the first pair that works, which is the relayed one where a direct path takes the NATs half a second longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any

from aioice import Candidate, Connection, ice

__all__ = ["CheckedConnection", "is_direct"]

# Ta, the pace of connectivity checks (RFC 8445 section 14.2).
_SPACING_S = 0.02


def is_direct(pair: ice.CandidatePair) -> bool:
    """Whether neither end of a pair is on a TURN server."""
    return "relay" not in (pair.local_candidate.type, pair.remote_candidate.type)


class CheckedConnection(Connection):
    """An aioice connection whose checks are prompt, and which prefers direct paths."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._checked_at = -math.inf

    async def connect(self) -> None:
        """Look for a pair that works; raises ConnectionError if there is none.

        Gathering must have begun, and the peer's credentials must be known.
        """
        for remote in self._remote_candidates:
            self._pair_remote_candidate(remote)
        self.sort_check_list()
        self._unfreeze_initial()
        for early in self._early_checks:
            self.check_incoming(*early)
        self._early_checks.clear()
        self._early_checks_done = True
        outcome = None
        while outcome is None and self._check_periodic():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SPACING_S):
                    outcome = await self._check_list_state.get()
        if outcome is None:
            outcome = await self._check_list_state.get() if self._check_list else ice.ICE_FAILED
        for pair in self._check_list:
            if pair.task is not None:
                pair.task.cancel()
        if outcome != ice.ICE_COMPLETED:
            raise ConnectionError("no candidate pair works")
        self._query_consent_task = asyncio.create_task(self.query_consent())

    def forget_remote(self) -> None:
        """Forget the peer and all that was found out about it: :meth:`connect` may begin anew, with another.

        Nobody may be in :meth:`connect` any more.  The sockets, and what they are known by, stay.
        """
        for pair in self._check_list:
            if pair.task is not None:
                pair.task.cancel()
        if self._query_consent_task is not None:
            self._query_consent_task.cancel()
        self.remote_username = self.remote_password = None
        self._remote_candidates = []
        self._remote_candidates_end = False
        self._components = {1}  # the peer's end of candidates takes one out that has none
        self._early_checks.clear()
        self._early_checks_done = False
        self._check_list = []
        self._check_list_done = False
        self._check_list_state = asyncio.Queue()
        self._nominated.clear()
        self._nominating.clear()

    async def take_remote_candidate(self, candidate: Candidate) -> None:
        """Pair a candidate, and check it at once if nothing was checked within the last interval."""
        await self.add_remote_candidate(candidate)
        if self._early_checks_done and not self._check_list_done:
            now = asyncio.get_running_loop().time()
            if now - self._checked_at >= _SPACING_S:
                self._check_periodic()

    def check_start_task(self, pair: ice.CandidatePair) -> None:
        """Start a check, and remember when."""
        self._checked_at = asyncio.get_running_loop().time()
        super().check_start_task(pair)

    def check_complete(self, pair: ice.CandidatePair) -> None:
        """Take the outcome of a check; a relayed pair never takes the place of a direct one."""
        before = self._nominated.get(1)
        super().check_complete(pair)
        if before is not None and is_direct(before) and not is_direct(self._nominated[1]):
            self._nominated[1] = before

    def check_incoming(self, message: Any, addr: tuple[str, int], protocol: Any) -> None:
        """Take a check of the peer's, and remember a nomination that aioice ignores.

        A check that came before the answer was answered in the role of that moment.  When it is looked at, a
        negotiation may have changed the role for a moment, until the next conflict of roles settles it.  The
        peer, whose nomination was answered, does not repeat it.
        """
        super().check_incoming(message, addr, protocol)
        if "USE-CANDIDATE" in message.attributes and self.ice_controlling:
            for pair in self._check_list:
                if pair.protocol is protocol and pair.remote_addr == addr:
                    pair.remote_nominated = True

    def take_nominations(self) -> None:
        """Take what the peer nominated while we believed to be in control; we are controlled now."""
        works = ice.CandidatePair.State.SUCCEEDED
        # The list begins with the highest priority, which aggressive nomination ends on.
        for pair in reversed(list(self._check_list)):
            if pair.remote_nominated and pair.state is works and not pair.nominated:
                pair.nominated = True
                self.check_complete(pair)

    async def look_for_a_direct_path(self, search_s: float) -> None:
        """Go on checking the direct pairs for a while, though a relayed one works already.

        A relay answers the first check, while a NAT may let the direct one through only once both ends have
        sent theirs.  Without this the call would be relayed for as long as it lasts; a browser changes over
        as well.
        """
        states = ice.CandidatePair.State
        stopped = [p for p in self._check_list if is_direct(p) and p.state is not states.SUCCEEDED]
        for pair in stopped:
            self._check_list.remove(pair)
        for remote in self._remote_candidates:
            self._pair_remote_candidate(remote)
        self.sort_check_list()
        pairs = [p for p in self._check_list if is_direct(p)]
        for pair in pairs:
            if pair.state is not states.SUCCEEDED:
                pair.state = states.WAITING
                self.check_start_task(pair)
                await asyncio.sleep(_SPACING_S)
        tasks = [pair.task for pair in pairs if pair.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=search_s)
            for task in late:
                task.cancel()
