"""One change of a JSEP agent's state, with the actions that go with it."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace
from typing import Final

from calllab.rtc.actions import (
    Action,
    AddRemoteCandidate,
    AddRemoteTrack,
    ConfigureMedia,
    CreateTransceiver,
    DiscardIce,
    PrepareIce,
    RemoveRemoteTrack,
    SetRemoteStreams,
    StartTransport,
    StopTransceiver,
)
from calllab.rtc.jsep_state import (
    Applied,
    IceCandidates,
    JsepState,
    Negotiated,
    Proposal,
    Stable,
    TransceiverState,
)
from calllab.rtc.parameters import Direction, IceCredentials, Kind, receives, sends
from calllab.rtc.sdp import MediaSection

__all__ = ["Transaction"]

# Candidates that come late for a generation that is gone are expected; older ufrags than these are forgotten.
_REMEMBERED_GENERATIONS: Final = 32


class Transaction:
    """A draft of the next state; nothing is visible before the core takes ``state`` over."""

    def __init__(self, state: JsepState, entropy: random.Random) -> None:
        self.state = state
        self.actions: list[Action] = []
        self._entropy = entropy

    def create_transceiver(
        self,
        kind: Kind,
        direction: Direction,
        *,
        track_id: str | None = None,
        stream_ids: tuple[str, ...] = (),
        by_add_track: bool = False,
        by_remote: bool = False,
    ) -> TransceiverState:
        """Add a transceiver of the application's at the end of the set."""
        used = {ssrc for t in self.state.transceivers for ssrc in (t.ssrc, t.rtx_ssrc)} | {0}
        ssrcs: list[int] = []
        while len(ssrcs) < 2:
            ssrc = self._entropy.getrandbits(32)
            if ssrc not in used:
                used.add(ssrc)
                ssrcs.append(ssrc)
        transceiver = TransceiverState(
            id=self.state.next_id,
            kind=kind,
            direction=direction,
            ssrc=ssrcs[0],
            rtx_ssrc=ssrcs[1],
            track_id=track_id or self._new_id(),
            stream_ids=tuple(dict.fromkeys(stream_ids)),
            has_track=track_id is not None,
            by_add_track=by_add_track,
            made_by_add_track=by_add_track,
            by_remote=by_remote,
        )
        self.state = replace(
            self.state,
            transceivers=(*self.state.transceivers, transceiver),
            next_id=transceiver.id + 1,
        )
        return transceiver

    def create_remote_transceiver(self, kind: Kind, track_id: str | None) -> TransceiverState:
        """Add a transceiver that a remote offer asks for; its track has the id that the peer gave it."""
        transceiver = self.create_transceiver(kind, "recvonly", by_remote=True)
        self.actions.append(CreateTransceiver(transceiver.id, track_id))
        return transceiver

    def put(self, transceiver: TransceiverState) -> None:
        """Replace a transceiver by its next state."""
        self.state = self.state.with_transceiver(transceiver)

    def stop(self, transceiver: TransceiverState) -> None:
        """Stop a transceiver for good ("stop the RTCRtpTransceiver"); no rollback undoes it."""
        if transceiver.stopped:
            return
        self.put(
            replace(
                transceiver,
                direction="inactive",
                stopping=True,
                stopped=True,
                negotiated=replace(
                    transceiver.negotiated, current_direction=None, fired_direction=None, remote_stream_ids=()
                ),
            )
        )
        self.actions.append(StopTransceiver(transceiver.id))

    def remove(self, transceiver: TransceiverState) -> None:
        """Take a stopped transceiver out of the set.

        An offer that was created with it can still be set; its section then belongs to nobody, and the next
        offer rejects it.
        """
        self.stop(transceiver)
        self.state = replace(
            self.state,
            transceivers=tuple(t for t in self.state.transceivers if t.id != transceiver.id),
            created_answer=None,
        )

    def remember_stable(self) -> None:
        """Keep what is negotiated, so that a rollback can put it back."""
        if self.state.stable is None:
            negotiated = tuple((t.id, t.negotiated) for t in self.state.transceivers)
            self.state = replace(self.state, stable=Stable(self.state.session, negotiated))

    def receive_track(
        self, transceiver: TransceiverState, direction: Direction, section: MediaSection
    ) -> TransceiverState:
        """Follow the peer's direction, seen from here (webrtc-pc 4.4.1.5, "process remote tracks")."""
        before = transceiver.negotiated
        streams = self._streams(section) if receives(direction) else ()
        after = replace(before, fired_direction=direction, remote_stream_ids=streams)
        if receives(direction):
            after = replace(
                after,
                encodings=section.encodings or before.encodings,
                remote_cname=section.cname or before.remote_cname,
            )
        self._announce(transceiver.id, before, after)
        transceiver = replace(transceiver, negotiated=after)
        self.put(transceiver)
        return transceiver

    def _streams(self, section: MediaSection) -> tuple[str, ...]:
        """Return the ids of the streams of a section's track.

        All tracks of a peer that signals no streams are in one of which nobody else knows (RFC 9429 section
        5.10).
        """
        if section.has_msid:
            return section.stream_ids
        if self.state.default_stream_id is None:
            self.state = replace(self.state, default_stream_id=self._new_id())
        assert self.state.default_stream_id is not None
        return (self.state.default_stream_id,)

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self._entropy.getrandbits(128), version=4))

    def settle_direction(self, transceiver: TransceiverState, negotiated: Negotiated) -> None:
        """Take over what an answer of ours makes of a transceiver."""
        direction = negotiated.current_direction
        after = replace(negotiated, fired_direction=direction)
        if not receives(direction):
            after = replace(after, remote_stream_ids=())
        self._announce(transceiver.id, transceiver.negotiated, after)
        self.put(replace(transceiver, negotiated=after, has_sent=transceiver.has_sent or sends(direction)))

    def _announce(self, id_: int, before: Negotiated, after: Negotiated) -> None:
        """Tell what changes for the application (webrtc-pc 5.1.1): a track that is in one more stream is told
        of again.
        """
        if after.remote_stream_ids != before.remote_stream_ids:
            self.actions.append(SetRemoteStreams(id_, after.remote_stream_ids))
        was, is_ = receives(before.fired_direction), receives(after.fired_direction)
        joins = not set(after.remote_stream_ids) <= set(before.remote_stream_ids)
        if is_ and (joins or not was):
            self.actions.append(AddRemoteTrack(id_))
        elif was and not is_:
            self.actions.append(RemoveRemoteTrack(id_))

    def learn_candidates(self, section: MediaSection) -> None:
        """Take the candidates that stand in a description (only in the section whose transport is used)."""
        if section.ice is None:
            return
        self.know_generation(section.ice.ufrag)
        for candidate in section.candidates:
            self.add_remote_candidate(section.ice.ufrag, candidate)
        # Who cannot trickle has said all with the description.
        if section.end_of_candidates or ("trickle" not in section.ice_options and section.candidates):
            self.add_remote_candidate(section.ice.ufrag, None)

    def know_generation(self, ufrag: str) -> IceCandidates:
        """Return what is known of a remote generation, beginning a new entry if it is new."""
        entries = self.state.remote_candidates
        if (found := next((entry for entry in entries if entry.ufrag == ufrag), None)) is not None:
            return found
        created = IceCandidates(ufrag)
        self.state = replace(self.state, remote_candidates=(*entries, created)[-_REMEMBERED_GENERATIONS:])
        return created

    def add_remote_candidate(self, ufrag: str, candidate: str | None) -> None:
        """Keep a candidate, and hand it on if its generation is connecting already."""
        known = self.know_generation(ufrag)
        if candidate is None:
            updated = replace(known, complete=True)
        elif candidate in known.candidates:
            return
        else:
            updated = replace(known, candidates=(*known.candidates, candidate))
        if updated == known:
            return
        self.state = replace(
            self.state,
            remote_candidates=tuple(
                updated if entry.ufrag == ufrag else entry for entry in self.state.remote_candidates
            ),
        )
        if self.state.started is not None and self.state.started[1].ufrag == ufrag:
            self.actions.append(AddRemoteCandidate(ufrag, candidate))

    def propose_ice(self, offerer: bool, pending_before: IceCredentials | None) -> None:
        """Gather for a description of ours if it has new credentials."""
        stable = self.state.stable.session.local_ice if self.state.stable is not None else None
        now = self.state.session.local_ice
        if now == pending_before:
            return
        if pending_before is not None and pending_before != stable:
            self._discard(pending_before)
        if now is not None and now != stable:
            self.actions.append(PrepareIce(now, offerer))

    def _discard(self, credentials: IceCredentials) -> None:
        """Throw a generation away; its candidates are gone with it.

        A created offer that has its credentials can be set if the application insists, but is not taken for
        the next one: candidates that the peer got of the old generation would pass for the new one's.
        """
        self.actions.append(DiscardIce(credentials))
        state = self.state
        offer = state.created_offer
        self.state = replace(
            state,
            created_offer=offer if offer is None else replace(offer, basis=None),
            local_candidates=tuple(e for e in state.local_candidates if e.ufrag != credentials.ufrag),
        )

    def apply_local(self, proposal: Proposal) -> None:
        """Take over the session of a created description."""
        self.state = replace(self.state, session=proposal.session)

    def conclude(self, current_local: Applied, current_remote: Applied) -> None:
        """Offer and answer are complete: everything negotiated is in force."""
        state = self.state
        # webrtc-pc 4.4.1.4: what counts is which credentials the description has; one without any accepted
        # section has none, so that there is nothing left to restart.
        present = {section.ice for section in current_local.session.media}
        # The channels that it was offered for are closed; the next one asks for it again.
        refused = not state.has_data and any(section.is_data for section in current_local.session.media)
        replaced = not present & (state.ice_to_replace | state.ice_outdated)
        self.state = replace(
            state,
            signaling="stable",
            stable=None,
            current_local=current_local,
            current_remote=current_remote,
            pending_local=None,
            pending_remote=None,
            created_offer=None,
            created_answer=None,
            wants_data=state.wants_data and not refused,
            ice_to_replace=frozenset() if replaced else state.ice_to_replace,
            ice_outdated=frozenset() if replaced else state.ice_outdated,
        )
        self._drop_rejected()
        self.start()

    def start(self) -> None:
        """Connect what is agreed on, and make the media follow."""
        session = self.state.session
        local, remote, role = session.local_ice, session.remote_ice, session.dtls_role
        if local is not None and remote is not None and role is not None:
            if self.state.started != (local, remote):
                self.state = replace(self.state, started=(local, remote))
                known = self.know_generation(remote.ufrag)
                self.actions.append(
                    StartTransport(
                        local=local,
                        remote=remote,
                        remote_lite=session.remote_ice_lite,
                        candidates=(*known.candidates, None) if known.complete else known.candidates,
                        dtls_client=role == "client",
                        fingerprints=session.remote_fingerprints,
                    )
                )
            self.actions.append(ConfigureMedia())

    def _drop_rejected(self) -> None:
        lines = list(self.state.session.lines)
        for index, line in enumerate(lines):
            if not line.rejected:
                continue
            if isinstance(line.owner, int) and (t := self.state.transceiver(line.owner)) is not None:
                self.remove(t)
            lines[index] = replace(line, owner=None)
        self.state = replace(self.state, session=replace(self.state.session, lines=tuple(lines)))

    def restore_stable(self) -> None:
        """Put back what was negotiated when the state was last stable (webrtc-pc 4.4.1.5, rollback)."""
        state = self.state
        if state.stable is None:
            return
        remote_offer = state.pending_remote is not None
        for transceiver in state.transceivers:
            before = state.stable.of(transceiver.id)
            if before is None and remote_offer and transceiver.by_remote and not transceiver.by_add_track:
                self.remove(transceiver)
            elif not transceiver.stopped:
                self.restore(transceiver, before or Negotiated())
        pending_ice, stable_ice = state.session.local_ice, state.stable.session.local_ice
        if pending_ice is not None and pending_ice != stable_ice:
            self._discard(pending_ice)
        self.state = replace(
            self.state,
            signaling="stable",
            session=state.stable.session,
            stable=None,
            pending_local=None,
            pending_remote=None,
        )

    def restore(self, transceiver: TransceiverState, before: Negotiated) -> None:
        """Put back what a transceiver had agreed on before the pending offer."""
        self._announce(transceiver.id, transceiver.negotiated, before)
        transceiver = replace(transceiver, negotiated=before)
        self.put(transceiver)
        if transceiver.stopping and before.mid is None:
            self.remove(transceiver)
