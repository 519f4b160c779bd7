"""The JSEP agent: signaling states, offers and answers, rollback, ICE credentials (RFC 9429, webrtc-pc 4.4).

Theory.  The signaling state is a table (:data:`TRANSITIONS`, RFC 9429 section 3.2); what is not in it is an
InvalidStateError.  All else is one frozen :class:`~calllab.rtc.jsep_state.JsepState`; every operation
drafts the next one and the actions that go with it, and only a draft that came to its end is taken over, so
an operation that raises has changed nothing.  There is always one transport for everything (BUNDLE,
``max-bundle``).

The core does no IO and asks nobody for the time.  Carry out the actions that an operation returns, in order,
before the next operation.  Randomness (credentials, SSRCs, ids) comes from the injected source.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias

from calllab.rtc.actions import Action
from calllab.rtc.codecs import CodecKey
from calllab.rtc.description import parse_candidate_attribute
from calllab.rtc.errors import InvalidModificationError, InvalidStateError, OperationError
from calllab.rtc.jsep_describe import LocalIdentity, describe_answer, describe_offer, render
from calllab.rtc.jsep_remote import apply_remote_answer, apply_remote_offer, with_candidates
from calllab.rtc.jsep_state import (
    Applied,
    IceCandidates,
    JsepState,
    Negotiated,
    Proposal,
    TransceiverState,
    canonical,
)
from calllab.rtc.jsep_transaction import Transaction
from calllab.rtc.negotiation_needed import negotiation_needed
from calllab.rtc.parameters import Direction, Fingerprint, IceCredentials, Kind, SdpType, SignalingState
from calllab.rtc.sdp import MediaSection
from calllab.rtc.sdp_parser import parse_session

__all__ = ["TRANSITIONS", "JsepCore"]

# RFC 8445 section 6.1.2.5 limits the check list to 100 pairs; more candidates than this no honest peer names.
_MAX_REMOTE_CANDIDATES: Final = 256

Side: TypeAlias = Literal["local", "remote"]

TRANSITIONS: Final[dict[tuple[Side, SdpType], dict[SignalingState, SignalingState]]] = {
    ("local", "offer"): {"stable": "have-local-offer", "have-local-offer": "have-local-offer"},
    ("local", "pranswer"): {
        "have-remote-offer": "have-local-pranswer",
        "have-local-pranswer": "have-local-pranswer",
    },
    ("local", "answer"): {"have-remote-offer": "stable", "have-local-pranswer": "stable"},
    ("local", "rollback"): {"have-local-offer": "stable"},
    ("remote", "offer"): {"stable": "have-remote-offer", "have-remote-offer": "have-remote-offer"},
    ("remote", "pranswer"): {
        "have-local-offer": "have-remote-pranswer",
        "have-remote-pranswer": "have-remote-pranswer",
    },
    ("remote", "answer"): {"have-local-offer": "stable", "have-remote-pranswer": "stable"},
    ("remote", "rollback"): {"have-remote-offer": "stable"},
}
"""Which description may be set by whom in which signaling state, and which state it leads to."""


class JsepCore:
    """One end of a session, without IO."""

    def __init__(self, entropy: random.Random, fingerprints: tuple[Fingerprint, ...], cname: str) -> None:
        self._entropy = entropy
        self._identity = LocalIdentity(cname, fingerprints)
        self._state = JsepState(session_id=entropy.getrandbits(62))

    # What is known

    @property
    def state(self) -> JsepState:
        """All that this agent knows, frozen."""
        return self._state

    @property
    def signaling_state(self) -> SignalingState:
        """The W3C signaling state (never "closed": that is the driver's)."""
        return self._state.signaling

    @property
    def transceivers(self) -> tuple[TransceiverState, ...]:
        """The set of transceivers in creation order."""
        return self._state.transceivers

    def transceiver(self, id_: int) -> TransceiverState:
        """Return a transceiver of the set; raises InvalidStateError if it has been stopped and removed."""
        found = self._state.transceiver(id_)
        if found is None:
            raise InvalidStateError("the transceiver was stopped: add another one")
        return found

    def text(self, applied: Applied) -> str:
        """Return a set description as SDP, with the candidates of its generation that are known by now."""
        if applied.text is not None:
            theirs = next((e for e in self._state.remote_candidates if e.ufrag == applied.ufrag), None)
            return applied.text if theirs is None else with_candidates(applied, applied.text, theirs)
        known = self._generation(applied.ufrag)
        return render(applied, known.candidates if known else (), known is not None and known.complete)

    def negotiation_needed(self) -> bool:
        """Return whether an offer is needed (webrtc-pc 4.7.3, "check if negotiation is needed")."""
        return negotiation_needed(self._state)

    def snapshot(self) -> Hashable:
        """Return the whole state, to be given back to :meth:`restore`; the random source is not in it."""
        return self._state

    def restore(self, snapshot: Hashable) -> None:
        """Become again what :meth:`snapshot` saw."""
        if not isinstance(snapshot, JsepState):
            raise TypeError(f"not a snapshot of a JSEP core: {snapshot!r}")
        self._state = snapshot

    def key(self, names: dict[object, int] | None = None) -> Hashable:
        """Return the state in canonical form, random tokens numbered by order of appearance.

        Agents with equal keys act alike (as long as descriptions are neither created by hand nor set with
        their text).  Give the same
        ``names`` to both peers' keys to keep their tokens related.
        """
        return canonical(self._state, names)

    # What the application wants

    def add_transceiver(
        self,
        kind: Kind,
        direction: Direction = "sendrecv",
        *,
        track_id: str | None = None,
        stream_ids: Sequence[str] = (),
    ) -> int:
        """Add a transceiver and return its id (webrtc-pc 5.1, addTransceiver)."""
        tx = self._begin()
        added = tx.create_transceiver(kind, direction, track_id=track_id, stream_ids=tuple(stream_ids))
        self._end(tx)
        return added.id

    def add_track(self, kind: Kind, track_id: str, stream_ids: Sequence[str] = ()) -> int:
        """Send a track and return its transceiver's id: one whose sender was never used, else a new one."""
        streams = tuple(dict.fromkeys(stream_ids))
        for transceiver in self._state.transceivers:
            if (
                transceiver.kind == kind
                and not transceiver.has_track
                and not transceiver.has_sent
                and not transceiver.stopping
            ):
                self._put(
                    replace(
                        transceiver,
                        direction=_with_sending(transceiver.direction),
                        track_id=track_id,
                        stream_ids=streams,
                        has_track=True,
                        by_add_track=True,
                    )
                )
                return transceiver.id
        tx = self._begin()
        added = tx.create_transceiver(
            kind, "sendrecv", track_id=track_id, stream_ids=streams, by_add_track=True
        )
        self._end(tx)
        return added.id

    def remove_track(self, id_: int) -> None:
        """Stop sending without stopping the transceiver (webrtc-pc 5.1, removeTrack)."""
        transceiver = self.transceiver(id_)
        if transceiver.has_track and not transceiver.stopping:
            direction = _without_sending(transceiver.direction)
            self._put(replace(transceiver, has_track=False, direction=direction))

    def set_has_track(self, id_: int, has_track: bool) -> None:
        """Note that replaceTrack() put a track in or took it out; nothing is negotiated by it."""
        self._put(replace(self.transceiver(id_), has_track=has_track))

    def set_direction(self, id_: int, direction: Direction) -> None:
        """Set what the application wants a transceiver to do; raises InvalidStateError if it is stopping."""
        transceiver = self.transceiver(id_)
        if transceiver.stopping:
            raise InvalidStateError("the direction of a stopped transceiver cannot be set: add another one")
        self._put(replace(transceiver, direction=direction))

    def set_streams(self, id_: int, stream_ids: Sequence[str]) -> None:
        """Set the MediaStreams that are announced for a sender."""
        self._put(replace(self.transceiver(id_), stream_ids=tuple(dict.fromkeys(stream_ids))))

    def set_codec_preferences(self, id_: int, preferences: Sequence[CodecKey]) -> None:
        """Set which codecs are negotiated, and in which order; none: our own order."""
        self._put(replace(self.transceiver(id_), preferences=tuple(preferences) or None))

    def stop(self, id_: int) -> tuple[Action, ...]:
        """Begin to stop a transceiver; negotiating makes it final (webrtc-pc 5.4, "stop sending and
        receiving").

        One that was never negotiated goes at once: following the letter, an offer would be needed to reject
        an m-line that never existed, and the next one again.
        """
        transceiver = self._state.transceiver(id_)
        if transceiver is None or transceiver.stopping:
            return ()
        tx = self._begin()
        if transceiver.mid is None:
            tx.remove(transceiver)
        else:
            tx.put(replace(transceiver, stopping=True, direction="inactive"))
        return self._end(tx)

    def want_data_channel(self) -> None:
        """Negotiate data channels from the next offer on."""
        self._state = replace(self._state, wants_data=True)

    def restart_ice(self) -> None:
        """Want new ICE credentials in place of all that are set now (webrtc-pc 4.4.2, restartIce)."""
        self._state = replace(self._state, ice_to_replace=self._ice_in_use())

    def outdate_ice(self) -> None:
        """Let the next offer, whatever it is for, restart ICE: what was gathered follows old settings
        (RFC 9429 section 4.1.18).
        """
        self._state = replace(self._state, ice_outdated=self._ice_in_use())

    def _ice_in_use(self) -> frozenset[IceCredentials]:
        return frozenset(
            section.ice
            for applied in (self._state.current_local, self._state.pending_local)
            if applied is not None
            for section in applied.session.media
            if section.ice is not None
        )

    # Offer, answer, rollback

    def create_offer(self, *, ice_restart: bool = False) -> str:
        """Make an offer and return its text; it takes effect when it is set."""
        proposal = describe_offer(self._state, self._identity, self._entropy, ice_restart)
        self._state = replace(self._state, created_offer=proposal, version=self._state.version + 1)
        return proposal.text

    def create_answer(self) -> str:
        """Make an answer to the pending remote offer and return its text; it takes effect when it is set."""
        proposal = describe_answer(self._state, self._identity, self._entropy, "answer")
        self._state = replace(self._state, created_answer=proposal, version=self._state.version + 1)
        return proposal.text

    def set_local(self, type_: SdpType, text: str | None = None) -> tuple[Action, ...]:
        """Set a description of ours; without a text it is made now.

        Without a text, what was created last is set if nothing has changed since.  Raises
        InvalidModificationError if the text is not the last one that was created, or InvalidStateError, in
        this order (webrtc-pc 4.4.2, setLocalDescription).
        """
        if type_ == "rollback":
            return self.rollback("local")
        created = self._state.created_offer if type_ == "offer" else self._state.created_answer
        if text and (created is None or created.text != text):
            raise InvalidModificationError(
                f"the {type_} is not the one that was created last: create it again, and set it unchanged"
            )
        self._check("local", type_)
        if created is None or (not text and created.basis != self._state.basis()):
            before = self._state
            if type_ == "offer":
                self.create_offer()
                created = self._state.created_offer
            else:
                self.create_answer()
                created = self._state.created_answer
            if created is None:
                self._state = before
                raise AssertionError("creating a description leaves it in the state")
        tx = self._begin()
        if type_ == "offer":
            self._apply_offer(tx, created)
        else:
            self._apply_answer(tx, created, type_)
        return self._end(tx)

    def set_remote(self, type_: SdpType, text: str = "") -> tuple[Action, ...]:
        """Set a description of the peer's; an offer rolls a pending offer of ours back by itself.

        Raises InvalidStateError, SdpError, or InvalidAccessError if the content does not fit the session.
        The implicit rollback stays even if the offer is refused (webrtc-pc 4.4.1.4).
        """
        if type_ == "rollback":
            return self.rollback("remote")
        actions: tuple[Action, ...] = ()
        if type_ == "offer" and self._state.signaling == "have-local-offer":
            actions = self.rollback("local")
        self._check("remote", type_)
        session = parse_session(text)
        tx = self._begin()
        if type_ == "offer":
            apply_remote_offer(tx, session, text)
        else:
            apply_remote_answer(tx, session, text, type_)
        return actions + self._end(tx)

    def rollback(self, side: Side) -> tuple[Action, ...]:
        """Take the pending offer back, ours or the peer's (RFC 9429 section 5.7)."""
        self._check(side, "rollback")
        tx = self._begin()
        tx.restore_stable()
        return self._end(tx)

    # Candidates

    def add_local_candidate(self, ufrag: str, candidate: str | None) -> tuple[str, int] | None:
        """Note a gathered candidate (None: the end); return the mid and index of its section.

        None means that the generation belongs to no description that is set now: there is nothing to tell.
        """
        known = self._generation(ufrag) or IceCandidates(ufrag)
        if candidate is None:
            known = replace(known, complete=True)
        else:
            known = replace(known, candidates=(*known.candidates, candidate))
        others = tuple(entry for entry in self._state.local_candidates if entry.ufrag != ufrag)
        self._state = replace(self._state, local_candidates=(*others, known)[-8:])
        for applied in (self._state.pending_local, self._state.current_local):
            if applied is not None and applied.ufrag == ufrag and (tagged := applied.tagged) is not None:
                return tagged.mid, applied.session.media.index(tagged)
        return None

    def add_remote_candidate(self, init: Mapping[str, Any]) -> tuple[Action, ...]:
        """Add a candidate of the peer's (webrtc-pc 4.4.2, addIceCandidate), given as RTCIceCandidateInit.

        An empty ``candidate`` is the end of candidates.  Raises InvalidStateError without a remote
        description, OperationError if the candidate belongs to none of its sections or to an unknown ICE
        generation.
        """
        applied = [
            description
            for description in (self._state.pending_remote, self._state.current_remote)
            if description is not None
        ]
        if not applied:
            raise InvalidStateError("a candidate needs a remote description: set that first")
        mid, index, ufrag = init.get("sdpMid"), init.get("sdpMLineIndex"), init.get("usernameFragment")
        media = applied[0].session.media
        if mid is not None:
            if all(section.mid != mid for section in media):
                raise OperationError(f"no section of the remote description has the mid {mid!r}")
            index = next(place for place, section in enumerate(media) if section.mid == mid)
        elif index is not None and not 0 <= index < len(media):
            raise OperationError(f"sdpMLineIndex {index}: the remote description has {len(media)} sections")
        if index is not None and self._is_rejected(media[index], index):
            return ()
        line = init.get("candidate") or None
        known = next((entry for entry in self._state.remote_candidates if entry.ufrag == ufrag), None)
        if ufrag is not None and known is None:
            raise OperationError(f"no remote description has the ufrag {ufrag!r}")
        if line is not None and parse_candidate_attribute(line) is None:
            raise OperationError(f"{line[:200]!r} is no ICE candidate (RFC 8839 section 5.1)")
        if ufrag is None:
            ufrag = applied[0].ufrag
            if ufrag is None or (line is None and self._is_stale_end(ufrag)):
                return ()
            known = next((entry for entry in self._state.remote_candidates if entry.ufrag == ufrag), None)
        elif all(description.ufrag != ufrag for description in applied):
            return ()  # of a generation that was replaced while it was under way
        if line is not None and known is not None and len(known.candidates) >= _MAX_REMOTE_CANDIDATES:
            raise OperationError(f"the peer has named {_MAX_REMOTE_CANDIDATES} candidates: it takes no more")
        tx = self._begin()
        tx.add_remote_candidate(ufrag, line)
        return self._end(tx)

    # Inside

    def _is_rejected(self, section: MediaSection, index: int) -> bool:
        """Whether the transceiver of a section of the newest remote description is stopped."""
        state = self._state
        held = state.stable if state.pending_remote is None else None
        line = (state.session if held is None else held.session).lines[index]
        transceiver = state.transceiver(line.owner) if isinstance(line.owner, int) else None
        stopped = line.owner is None or (transceiver is not None and transceiver.stopped)
        return section.rejected or stopped

    def _is_stale_end(self, ufrag: str) -> bool:
        # An end of candidates that names no generation may be that of the one before: in order, but after
        # the offer of an ICE restart.  Taken for the new one's, it would fail it before its first candidate.
        known = next((entry for entry in self._state.remote_candidates if entry.ufrag == ufrag), None)
        return known is None or not known.candidates

    def _check(self, side: Side, type_: SdpType) -> None:
        if self._state.signaling not in TRANSITIONS[side, type_]:
            raise InvalidStateError(
                f"a {side} {type_} cannot be set in signaling state {self._state.signaling}"
            )

    def _apply_offer(self, tx: Transaction, offer: Proposal) -> None:
        pending_ice = tx.state.session.local_ice
        if tx.state.stable is not None:
            for held in tx.state.transceivers:
                tx.put(replace(held, negotiated=tx.state.stable.of(held.id) or Negotiated()))
        tx.remember_stable()
        tx.apply_local(offer)
        for id_, negotiated in offer.negotiated:
            if (transceiver := tx.state.transceiver(id_)) is not None:
                tx.put(replace(transceiver, negotiated=negotiated))
        tx.state = replace(tx.state, signaling="have-local-offer", pending_local=offer.applied)
        tx.propose_ice(offerer=True, pending_before=pending_ice)

    def _apply_answer(self, tx: Transaction, answer: Proposal, type_: SdpType) -> None:
        applied = replace(answer.applied, type=type_)
        pending_ice = tx.state.session.local_ice
        tx.apply_local(answer)
        for id_, negotiated in answer.negotiated:
            if (transceiver := tx.state.transceiver(id_)) is not None and not transceiver.stopped:
                tx.settle_direction(transceiver, negotiated)
        tx.propose_ice(offerer=False, pending_before=pending_ice)
        if type_ == "pranswer":
            tx.state = replace(tx.state, signaling="have-local-pranswer", pending_local=applied)
            tx.start()
            return
        if tx.state.pending_remote is None:
            raise AssertionError("an answer is only set while a remote offer is pending")
        tx.conclude(current_local=applied, current_remote=tx.state.pending_remote)

    def _generation(self, ufrag: str | None) -> IceCandidates | None:
        return next((entry for entry in self._state.local_candidates if entry.ufrag == ufrag), None)

    def _put(self, transceiver: TransceiverState) -> None:
        self._state = self._state.with_transceiver(transceiver)

    def _begin(self) -> Transaction:
        return Transaction(self._state, self._entropy)

    def _end(self, tx: Transaction) -> tuple[Action, ...]:
        self._state = tx.state
        return tuple(tx.actions)


def _with_sending(direction: Direction) -> Direction:
    if direction == "recvonly":
        return "sendrecv"
    return "sendonly" if direction == "inactive" else direction


def _without_sending(direction: Direction) -> Direction:
    if direction == "sendrecv":
        return "recvonly"
    return "inactive" if direction == "sendonly" else direction
