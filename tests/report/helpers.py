"""A small recording whose every number is known: two peers, one call, glare, an outage with heavy loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from calllab.lab import Recording

CALL = "call-1"
EPOCH_MS = 1_700_000_000_000.0
SECONDS = 30
# In each second: packets that were sent, and of those to bob, how many were lost in seconds 10 to 19.
PACKETS, LOST = 50, 5
BYTES = 12_500
RTT_S = {"alice": 0.040, "bob": 0.060}

Row = dict[str, Any]


def event(t_s: float, peer: str, name: str, **members: Any) -> Row:
    return {"t_s": t_s, "peer": peer, "event": name, "callId": CALL, **members}


def message(
    kind: str, sender: str, receiver: str, sent_s: float, received_s: float | None, number: str
) -> list[Row]:
    """Return the events of one message: sent, and if ``received_s`` is not None, received."""
    rows = [event(sent_s, sender, "signal-sent", type=kind, id=number, to=receiver)]
    if received_s is not None:
        rows.append(event(received_s, receiver, "signal-received", type=kind, id=number, **{"from": sender}))
    return rows


def glare_events() -> list[Row]:
    """Return a call that connects, then offers that cross: alice ignores, bob rolls back."""
    return [
        *message("call-offer", "alice", "bob", 0.50, 0.51, "a1"),
        *message("call-ice-candidate", "alice", "bob", 0.52, 0.53, "a2"),
        *message("call-ice-candidate", "alice", "bob", 0.54, 0.55, "a3"),
        *message("call-answer", "bob", "alice", 0.60, 0.61, "b1"),
        event(0.70, "alice", "connectionstatechange", state="connected"),
        event(0.71, "bob", "connectionstatechange", state="connected"),
        *message("call-offer", "alice", "bob", 5.000, 5.030, "a4"),
        *message("call-offer", "bob", "alice", 5.001, 5.031, "b2"),
        event(5.032, "alice", "offer-ignored"),
        event(5.033, "bob", "rollback", implicit=True),
        *message("call-answer", "bob", "alice", 5.040, 5.050, "b3"),
    ]


def stats_rows() -> Iterator[Row]:
    for second in range(SECONDS):
        for peer, other in (("alice", "bob"), ("bob", "alice")):
            lost = LOST * min(max(second - 9, 0), 10) if peer == "bob" else 0
            timestamp = EPOCH_MS + second * 1000
            entries: list[Row] = [
                {
                    "id": "in-audio",
                    "type": "inbound-rtp",
                    "kind": "audio",
                    "mid": "0",
                    "timestamp": timestamp,
                    "trackIdentifier": f"{other}-voice",
                    "packetsReceived": PACKETS * (second + 1) - lost,
                    "packetsLost": lost,
                    "bytesReceived": BYTES * (second + 1),
                    "jitter": 0.004,
                },
                {
                    "id": "in-video",
                    "type": "inbound-rtp",
                    "kind": "video",
                    "mid": "1",
                    "timestamp": timestamp,
                    "trackIdentifier": f"{other}-face",
                    "packetsReceived": PACKETS * (second + 1),
                    "packetsLost": 0,
                    "bytesReceived": 2 * BYTES * (second + 1),
                    "framesDecoded": 15 * (second + 1),
                    "freezeCount": 3,
                    "jitter": 0.006,
                },
                {
                    "id": "transport",
                    "type": "transport",
                    "timestamp": timestamp,
                    "selectedCandidatePairId": "pair",
                },
                {
                    "id": "pair",
                    "type": "candidate-pair",
                    "timestamp": timestamp,
                    "nominated": True,
                    "currentRoundTripTime": RTT_S[peer],
                },
            ]
            report = {entry["id"]: entry for entry in entries}
            yield {"t_s": 1.0 + second, "peer": peer, "callId": CALL, "report": report}


def playouts() -> list[Row]:
    return [
        event(
            2.0 + second, "bob", "playout", kind="audio", trackId="alice-voice", maxGap_s=gap_s, latency_s=0.1
        )
        for second, gap_s in enumerate((0.02, 0.32, 0.02))
    ]


def truth_rows() -> list[Row]:
    fault = {
        "id": 1,
        "cause": "loss-uniform",
        "direction": "alice->bob",
        "at_s": 11.0,
        "settings": {"loss": 0.1},
    }
    return [
        {"t_s": 11.0, "kind": "planned", "fault": {**fault, "for_s": 100}},
        {"t_s": 21.0, "kind": "realised", "fault": {**fault, "for_s": 10.0}},
    ]


def example() -> Recording:
    """Return the whole recording."""
    return Recording.build(
        events=[*glare_events(), *playouts()],
        stats=stats_rows(),
        truth=truth_rows(),
        meta={
            "peers": {"alice": {"video": True}, "bob": {"video": True}},
            "settings": {"seed": 7},
            "versions": {"aiortc": "1.16.0"},
            "startedAt": "2026-01-02T03:04:05Z",
        },
    )
