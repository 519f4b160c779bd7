"""Where calllab.rtc does otherwise than the specifications say, and why.

Each entry is on docs/conformance.md; a test demands that each one names a test that shows what we do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.rtc.conformance.clauses import Clause

__all__ = ["DEVIATIONS", "Deviation"]


@dataclass(frozen=True, slots=True)
class Deviation:
    """One clause that we do not follow to the letter."""

    clause: Clause
    ours: str
    """What we do instead."""
    why: str
    """Why that is better here, or why it cannot be had."""
    test: str = ""
    """``module::test`` that shows it; empty where a whole feature is absent."""


DEVIATIONS: Final[tuple[Deviation, ...]] = (
    Deviation(
        Clause("4.4.1.2", "operations under way when the connection is closed"),
        "What was waiting raises InvalidStateError; the specification never settles its promise.",
        "A promise nobody settles is collected as garbage; a Python task that waits for ever is a leak, and "
        "asyncio would say so.",
        "test_chain::test_4_4_1_2_closed_while_waiting",
    ),
    Deviation(
        Clause("4.4.1.2", "arguments of the wrong type"),
        "TypeErrors of methods that return an awaitable are raised by the call, not by awaiting its result.",
        "Python finds wrong arguments at the call; with `await` in front there is no difference.",
        "test_descriptions::test_4_6_description_types",
    ),
    Deviation(
        Clause("4.4.1.2", "an operation whose caller was cancelled"),
        "Cancelling the task that awaits an operation takes the operation out of the chain.",
        "Promises cannot be cancelled; asyncio tasks can, and the chain must not stall for it.",
    ),
    Deviation(
        Clause("4.4.2", "close does not end scripts"),
        "Coroutine handlers that still run when the connection is closed are cancelled, but for those that "
        "await close() themselves.",
        "They are tasks, and the connection is their owner: nobody else would end or await them.",
        "test_chain::test_4_4_2_a_coroutine_handler_closes",
    ),
    Deviation(
        Clause("5.8.3", "answers whose directions add to the offer's are errors", "RFC 9429"),
        "Such an answer is taken, and only what both allow happens.",
        "Gateways answer sendrecv to sendonly offers, and browsers take that; nothing more is sent.",
        "test_descriptions::test_9429_5_8_3_directions_of_an_answer",
    ),
    Deviation(
        Clause("4.4.1.1", "bundlePolicy"),
        "Only max-bundle: sections outside of the one BUNDLE group are answered with port zero.",
        "One transport for everything is what makes rollback and ICE restarts exact here; browsers bundle "
        "everything anyway.",
        "test_offers::test_9429_5_10_unbundled_sections",
    ),
    Deviation(
        Clause("4.1.1", "bundle-only in offers with max-bundle", "RFC 9429"),
        "All sections are offered with port 9, none with a=bundle-only and port zero.",
        "Chromium writes the same with max-bundle, and peers that do not know the attribute, plain aiortc "
        "among them, take a section with port zero for a rejected one.  Such offers are accepted.",
        "test_offers::test_9429_4_1_1_no_bundle_only",
    ),
    Deviation(
        Clause("5.2.1", "a=ice-options and a=rtcp-mux-only", "RFC 9429"),
        "trickle stands in each section, without ice2, and there is no a=rtcp-mux-only.",
        "As in Chromium's descriptions; rtcp-mux is required of the answer all the same.",
        "test_offers::test_9429_5_2_1_section_attributes",
    ),
    Deviation(
        Clause("5.4", "stop() of a transceiver that was never negotiated"),
        "It is stopped for good and leaves the set at once, and nothing is negotiated.",
        "To the letter it would stay stopping: each check would ask for an offer that cannot mention it, "
        "for ever.",
        "test_transceivers::test_5_4_stop_before_negotiation",
    ),
    Deviation(
        Clause("5.4", "the ended event of stop()"),
        "The track tells that it ended before stop() returns, not in a task of its own.",
        "Tracks are aiortc's, which tell it at once and forget their handlers.",
        "test_transceivers::test_5_4_stop",
    ),
    Deviation(
        Clause("5.4", "an unknown value set as direction"),
        "It is a TypeError; a browser ignores it without a word.",
        "A typing mistake that is ignored costs hours.",
        "test_transceivers::test_5_4_direction_of_a_stopped_transceiver",
    ),
    Deviation(
        Clause("5.4.1", "simulcast"),
        "One encoding a sender: of several the first is kept, as the specification provides; a=rid and "
        "a=simulcast of the peer are not answered.",
        "aiortc has no simulcast.",
        "test_transceivers::test_5_1_send_encodings_are_cut",
    ),
    Deviation(
        Clause("5.2", "RangeError"),
        "Numbers out of range raise ValueError.",
        "It is what Python has in its place.",
        "test_senders::test_5_2_set_parameters_validation",
    ),
    Deviation(
        Clause("5.2.7", "maxBitrate near zero"),
        "No video is encoded with less than 10 kbit/s, no Opus with less than 6; G.722 and G.711 ignore it.",
        "The encoders need that much, and G.722 and G.711 have one rate.",
        "test_senders::test_5_2_7_max_bitrate",
    ),
    Deviation(
        Clause("5.2.7", "maxBitrate: Web IDL cuts any number down to an unsigned long"),
        "A fraction is a TypeError, what has more than 32 bits or is negative a ValueError.",
        "Cut down, 2**32 would be no bit rate at all, and -1 nearly no limit.",
        "test_senders::test_5_2_7_numbers",
    ),
    Deviation(
        Clause("5.2", "black frames for a track without a picture"),
        "A video track that ended before its first frame, or whose frames come encoded, is not sent; tracks "
        "have no enabled.",
        "Black of which size nobody knows; and MediaStreamTrack is aiortc's.",
        "test_senders::test_5_2_an_ended_track_without_a_picture",
    ),
    Deviation(
        Clause("5.3", "when sources are noted"),
        "getSynchronizationSources() and getContributingSources() tell of packets as they arrive, not as "
        "their frames are delivered; contributors have no audioLevel.",
        "aiortc's decoder does not keep the way from a frame back to its packets, and the levels of RFC "
        "6465 are not negotiated.",
        "test_receivers::test_5_3_contributing_sources",
    ),
    Deviation(
        Clause("7.2", "DTMF"),
        "sender.dtmf is there for audio, with a canInsertDTMF that is always false.",
        "aiortc has no telephone-event, so it is never negotiated; this is what the specification has for "
        "that case.",
        "test_receivers::test_7_2_dtmf",
    ),
    Deviation(
        Clause("5.7", "event objects"),
        "Handlers get the members of an event as arguments: a track handler gets track, receiver, "
        "transceiver and streams.",
        "That is how emitters are used in Python; names, number and order of the events are the browser's.",
        "test_remote_tracks::test_5_7_track_event",
    ),
    Deviation(
        Clause("4.3.3", "MediaStreamTrack: an event target with handler attributes", "mediacapture-streams"),
        "Received tracks are; those that the application makes have on() and remove_listener() alone.  Both "
        "tell ended of the application's own stop(), too.",
        "They are aiortc's, with its emitter.",
        "test_receivers::test_streams_4_3_3_tracks_of_the_application",
    ),
    Deviation(
        Clause("4.2", "MediaStreamTrack.clone and MediaStream.clone", "mediacapture-streams"),
        "A cloned stream has the same tracks, not clones of them.",
        "Tracks of aiortc cannot be cloned.",
        "test_streams::test_streams_4_2_constructor",
    ),
)
