"""Deviations of data channels, transports, candidates, configuration and statistics."""

from __future__ import annotations

from typing import Final

from tests.rtc.conformance.clauses import Clause
from tests.rtc.conformance.deviations import Deviation

__all__ = ["DEVIATIONS"]

DEVIATIONS: Final[tuple[Deviation, ...]] = (
    Deviation(
        Clause("4.2.1", "the default bundlePolicy is balanced"),
        ours="max-bundle is the default and the only policy; the others are NotSupportedErrors.",
        why="There is one transport for everything. To take a policy and not to follow it would be worse.",
        test="test_configuration::test_4_2_5_what_cannot_be_had_is_refused",
    ),
    Deviation(
        Clause("4.2.1", "iceCandidatePoolSize gathers candidates in advance"),
        ours="Any size but 0 is a NotSupportedError.",
        why="There is no pool.",
        test="test_configuration::test_4_2_5_what_cannot_be_had_is_refused",
    ),
    Deviation(
        Clause("4.2.1", "several certificates: the browser chooses"),
        ours="The first certificate is used.",
        why="A peer needs one. ECDSA and RSA ones are both understood by every peer.",
        test="test_certificates::test_4_9_1_a_call_with_a_certificate_of_ones_own",
    ),
    Deviation(
        Clause(
            "3.1", "a changed fingerprint with an ICE restart begins another DTLS association", "RFC 8842"
        ),
        ours="It is an InvalidAccessError: a call that moves to another endpoint needs a new connection.",
        why="aiortc's DTLS transport starts once, and SRTP, SCTP and all senders and receivers hang on it. "
        "a=tls-id is not read either: with the same fingerprint the association goes on.",
        test="test_forking::test_8842_3_1_changed_fingerprints",
    ),
    Deviation(
        Clause("5.10", "an answer of another fork than the provisional one", "RFC 9429"),
        ours="ICE turns to it if it has the same certificate; with another it is an InvalidAccessError.  A "
        "DTLS handshake that the first fork has begun is not begun again.",
        why="As above: there is one DTLS association.  Forks with certificates of their own need one each.",
        test="test_forking::test_8842_3_1_changed_fingerprints",
    ),
    Deviation(
        Clause("4.4.2", "addIceCandidate: a usernameFragment of no applied description is an OperationError"),
        ours="A candidate of a generation that was applied before and has been replaced is ignored.",
        why="It was right when it was sent, and crossed an ICE restart on its way. Unknown ones are errors.",
        test="test_candidates::test_4_4_2_generations",
    ),
    Deviation(
        Clause("4.4.2", "addIceCandidate: the number of candidates has no limit"),
        ours="Of one generation 256 candidates are taken; further ones are OperationErrors.",
        why="What a peer can make us keep has to be bounded.",
        test="test_candidates::test_4_4_2_candidates_are_bounded",
    ),
    Deviation(
        Clause("6.1", "announcing a channel: open fires in the task of datachannel"),
        ours="open and the first messages come one turn of the event loop later.",
        why="A handler that is a coroutine function begins a turn after the event, and shall miss nothing.",
        test="test_data_channels::test_6_1_a_coroutine_handler_misses_nothing",
    ),
    Deviation(
        Clause("6.2", "binaryType may be blob"),
        ours="It is always arraybuffer, which means bytes; blob is a NotSupportedError.",
        why="Python has no blobs.",
        test="test_data_channels::test_6_2_binary_type",
    ),
    Deviation(
        Clause("11.3", "RTCError: receivedAlert and sentAlert of a DTLS failure"),
        ours="They are always None.",
        why="The DTLS library below does not tell them.",
    ),
    Deviation(
        Clause("8", "statistics of replaced ICE generations", "webrtc-stats"),
        ours="Pairs and candidates of a generation that an ICE restart replaced leave the report.",
        why="They are gone. The counters of the transport go on.",
        test="test_statistics::test_8_5_counters_and_identifiers_over_a_restart",
    ),
)
