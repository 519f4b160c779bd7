"""Statistics of what is below the media: transport, candidates, pairs, certificates; and of data channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from calllab._aiortc.channel_ledger import ChannelsSnapshot
from calllab._aiortc.dtls import CertificateSnapshot, DtlsSnapshot
from calllab._aiortc.ice_snapshot import CandidateSnapshot, IceSnapshot, PairSnapshot
from calllab.rtc.description import relay_protocol

__all__ = ["CERTIFICATES", "TRANSPORT_ID", "Add", "add_data", "add_transport"]

TRANSPORT_ID: Final = "transport"
"""There is one: everything is bundled."""
CERTIFICATES: Final = ("issuerCertificateId",)


class Add(Protocol):
    """Takes a statistics object and returns its identifier; members that are None are left out."""

    def __call__(
        self, type_: str, id_: str, members: Mapping[str, Any], *, timestamp_ms: float | None = None
    ) -> str:
        """Add an object."""


def add_transport(add: Add, ice: IceSnapshot, dtls: DtlsSnapshot) -> str:
    """Add the transport and all that it refers to; returns the transport's identifier."""
    for candidate in ice.candidates:
        _add_candidate(add, candidate)
    for pair in ice.pairs:
        _add_pair(add, pair)
    local_certificate = _add_certificate(add, dtls.local_certificate)
    remote_certificate = _add_certificate(add, dtls.remote_certificate) if dtls.remote_certificate else None
    return add(
        "transport",
        TRANSPORT_ID,
        {
            "packetsSent": dtls.packets_sent,
            "packetsReceived": dtls.packets_received,
            "bytesSent": dtls.bytes_sent,
            "bytesReceived": dtls.bytes_received,
            "iceRole": ice.role,
            "iceLocalUsernameFragment": ice.local_ufrag,
            "iceState": ice.state,
            "dtlsState": dtls.state,
            "dtlsRole": dtls.role or "unknown",
            "tlsVersion": dtls.tls_version,
            "dtlsCipher": dtls.dtls_cipher,
            "srtpCipher": dtls.srtp_cipher,
            "selectedCandidatePairId": ice.selected_pair_key,
            "selectedCandidatePairChanges": ice.selected_pair_changes,
            "localCertificateId": local_certificate,
            "remoteCertificateId": remote_certificate,
        },
    )


def _add_candidate(add: Add, snapshot: CandidateSnapshot) -> None:
    candidate = snapshot.candidate
    add(
        "remote-candidate" if snapshot.remote else "local-candidate",
        snapshot.key,
        {
            "transportId": TRANSPORT_ID,
            "address": candidate.address,
            "port": candidate.port,
            "protocol": candidate.protocol,
            "candidateType": candidate.type,
            "priority": candidate.priority,
            "foundation": candidate.foundation,
            "relatedAddress": candidate.related_address,
            "relatedPort": candidate.related_port,
            "usernameFragment": snapshot.ufrag or None,
            "url": candidate.url,
            "relayProtocol": relay_protocol(candidate.url)
            if candidate.type == "relay" and candidate.url is not None
            else None,
        },
    )


def _add_pair(add: Add, pair: PairSnapshot) -> None:
    traffic = pair.traffic
    add(
        "candidate-pair",
        pair.key,
        {
            "transportId": TRANSPORT_ID,
            "localCandidateId": pair.local_key,
            "remoteCandidateId": pair.remote_key,
            "state": pair.state,
            "nominated": pair.nominated,
            "priority": pair.priority,
            "packetsSent": traffic.packets_sent,
            "packetsReceived": traffic.packets_received,
            "bytesSent": traffic.bytes_sent,
            "bytesReceived": traffic.bytes_received,
            "lastPacketSentTimestamp": traffic.last_sent_at_ms,
            "lastPacketReceivedTimestamp": traffic.last_received_at_ms,
            "requestsSent": traffic.requests_sent,
            "requestsReceived": traffic.requests_received,
            "responsesSent": traffic.responses_sent,
            "responsesReceived": traffic.responses_received,
            "consentRequestsSent": traffic.consent_requests_sent,
            "totalRoundTripTime": traffic.total_rtt_s,
            "currentRoundTripTime": traffic.current_rtt_s,
        },
    )


def _add_certificate(add: Add, certificate: CertificateSnapshot) -> str:
    return add(
        "certificate",
        f"certificate-{certificate.fingerprint}",
        {
            "fingerprint": certificate.fingerprint,
            "fingerprintAlgorithm": certificate.algorithm,
            "base64Certificate": certificate.base64,
        },
    )


def add_data(add: Add, data: ChannelsSnapshot) -> None:
    """Add the data channels, and the peer connection that counts them."""
    for channel in data.channels:
        add(
            "data-channel",
            f"data-channel-{channel.key}",
            {
                "label": channel.label,
                "protocol": channel.protocol,
                "dataChannelIdentifier": channel.identifier,
                "state": channel.state,
                "messagesSent": channel.messages_sent,
                "bytesSent": channel.bytes_sent,
                "messagesReceived": channel.messages_received,
                "bytesReceived": channel.bytes_received,
            },
        )
    add(
        "peer-connection",
        "peer-connection",
        {
            "dataChannelsOpened": data.opened,
            "dataChannelsClosed": data.closed,
        },
    )
