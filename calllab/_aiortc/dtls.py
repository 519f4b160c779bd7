"""The DTLS transport: one session for all generations of an ICE transport."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from aiortc import RTCIceTransport
from aiortc.rtcdtlstransport import (
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    RtpRouter,
    State,
)
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate as Certificate509

from calllab._aiortc.certificates import Certificate, DtlsFingerprint
from calllab._aiortc.ice_transport import IceTransport
from calllab._aiortc.insides import inside

__all__ = ["Certificate", "DtlsFingerprint", "DtlsRole", "DtlsSnapshot", "DtlsState", "DtlsTransport"]

logger = logging.getLogger(__name__)

DtlsState = Literal["new", "connecting", "connected", "closed", "failed"]
DtlsRole = Literal["client", "server"]


class FingerprintLike(Protocol):
    """A hash of a certificate, whatever its class."""

    @property
    def algorithm(self) -> str:
        """The name of the hash function, in lower case."""

    @property
    def value(self) -> str:
        """The hash, in hexadecimal with colons."""


@dataclass(frozen=True, slots=True)
class CertificateSnapshot:
    """One certificate in use."""

    fingerprint: str
    algorithm: str
    base64: str


@dataclass(frozen=True, slots=True)
class DtlsSnapshot:
    """The counters of a DTLS transport; packets and bytes are those of DTLS, SRTP and SRTCP."""

    state: DtlsState
    role: DtlsRole | None
    packets_sent: int
    packets_received: int
    bytes_sent: int
    bytes_received: int
    tls_version: str | None
    dtls_cipher: str | None
    srtp_cipher: str | None
    local_certificate: CertificateSnapshot
    remote_certificate: CertificateSnapshot | None


# W3C writes the version as the two bytes on the wire.
_TLS_VERSIONS = {"DTLSv1": "FEFF", "DTLSv1.2": "FEFD", "DTLSv1.3": "FEFC"}


def _snapshot_certificate(certificate: Certificate509) -> CertificateSnapshot:
    return CertificateSnapshot(
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        algorithm="sha-256",
        base64=base64.b64encode(certificate.public_bytes(Encoding.DER)).decode(),
    )


class _MidRouter(RtpRouter):
    """Routes RTP by the MID header extension before anything else (RFC 8843 section 9.2).

    aiortc keeps a table of MIDs and never looks into it (rtcdtlstransport.py:309): with two video sections, a
    stream whose SSRC was not signalled is dropped.  And what comes before the answer that announces its
    section would be given to the one section that takes its payload type.
    """

    def route_rtp(self, packet: Any) -> Any:
        mid = packet.extensions.mid
        if mid is None:
            return super().route_rtp(packet)
        receiver = self.mid_table.get(mid)
        if receiver is None:
            return None
        if packet.ssrc not in self.ssrc_table:
            self.ssrc_table[packet.ssrc] = receiver
        return super().route_rtp(packet)


class _Dtls(RTCDtlsTransport):
    """aiortc's transport, which says why it failed."""

    def __init__(self, ice: IceTransport, certificate: RTCCertificate) -> None:
        # All that aiortc asks of it is role, _send and _recv (rtcdtlstransport.py:501, 541, 650, 727, 757).
        super().__init__(cast(RTCIceTransport, ice), [certificate])
        self._rtp_router = _MidRouter()
        self.error_text: str | None = None
        self.identity_refused = False
        self._validating = False
        self.packets_refused = 0
        self.rtp_packet_bytes = 0
        """The size of the RTP packet that is being handled, without SRTP's tag."""

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        self.rtp_packet_bytes = len(data)
        try:
            await super()._handle_rtp_data(data, arrival_time_ms)
        except ConnectionError:
            raise
        except Exception:
            self._survive("RTP")

    async def _handle_rtcp_data(self, data: bytes) -> None:
        try:
            await super()._handle_rtcp_data(data)
        except ConnectionError:
            raise
        except Exception:
            self._survive("RTCP")

    def _survive(self, what: str) -> None:
        """Leave a packet out whose handling raised; aiortc would close (rtcdtlstransport.py:527)."""
        self.packets_refused += 1
        if self.packets_refused == 1:
            logger.warning("a packet of %s could not be handled and is left out", what, exc_info=True)

    def _validate_peer_identity(self, remoteParameters: RTCDtlsParameters) -> None:
        self._validating = True
        super()._validate_peer_identity(remoteParameters)
        self._validating = False

    def _set_state(self, state: State) -> None:
        if state == State.FAILED and self._validating:
            # Known before anybody is told of the state.
            self.identity_refused = True
            self.error_text = "the peer's certificate does not match the fingerprint that it signalled"
        super()._set_state(state)


class DtlsTransport:
    """DTLS over an ICE transport, and SRTP with its keys.  Needs a running event loop."""

    def __init__(self, ice: IceTransport, *, certificate: Certificate | None = None) -> None:
        self.ice = ice
        self.certificate = certificate if certificate is not None else Certificate.generate()
        self.inner = _Dtls(ice, self.certificate.inner)
        """aiortc's own transport: for this room alone."""
        self.inner.on("statechange", self._state_changed)
        self.on_state_change: Callable[[], None] = lambda: None
        self.end_listeners: set[Callable[[], None]] = set()
        """Called when the session has ended or failed, before :attr:`on_state_change`."""
        self.role: DtlsRole | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._stopped = False
        self._told: DtlsState = "new"

    @property
    def state(self) -> DtlsState:
        """The W3C RTCDtlsTransportState."""
        if self._stopped and self.inner.state != "failed":
            return "closed"
        return cast(DtlsState, self.inner.state)

    @property
    def fingerprints(self) -> tuple[DtlsFingerprint, ...]:
        """What to signal to the peer."""
        return self.certificate.fingerprints

    @property
    def error_text(self) -> str | None:
        """Why the state is "failed", in words; None in any other state."""
        return (self.inner.error_text or "the DTLS handshake failed") if self.state == "failed" else None

    @property
    def error_detail(self) -> Literal["dtls-failure", "fingerprint-failure"]:
        """What kind of failure it is, in W3C's words (RTCErrorDetailType)."""
        return "fingerprint-failure" if self.inner.identity_refused else "dtls-failure"

    @property
    def remote_certificates(self) -> list[bytes]:
        """The peer's certificates (DER); empty before the handshake."""
        remote = self._remote_certificate()
        return [] if remote is None else [remote.public_bytes(Encoding.DER)]

    def _remote_certificate(self) -> Certificate509 | None:
        session = self.inner._ssl if self.inner.state in ("connected", "closed") else None
        return session.get_peer_certificate(as_cryptography=True) if session is not None else None

    async def start(self, role: DtlsRole, fingerprints: Sequence[FingerprintLike]) -> None:
        """Wait for ICE, then shake hands; returns when connected, failed or closed: read ``state``.

        ``fingerprints`` are the peer's; those with an unknown hash function are ignored.  Call it once.
        Raises RuntimeError on a second call, ValueError without fingerprints.
        """
        if self._handshake is not None:
            raise RuntimeError("this DTLS transport was started before; one session lasts for the whole call")
        if not fingerprints:
            raise ValueError("the peer signalled no certificate fingerprint (a=fingerprint)")
        if self._stopped:
            return
        self.role = role
        parameters = RTCDtlsParameters([RTCDtlsFingerprint(f.algorithm, f.value) for f in fingerprints])
        self._handshake = asyncio.create_task(self._shake_hands(role, parameters))
        try:
            await asyncio.wait([self._handshake])
        finally:
            self._handshake.cancel()

    async def _shake_hands(self, role: DtlsRole, parameters: RTCDtlsParameters) -> None:
        try:
            await self.ice.wait_connected()
            self.inner._set_role(role)
            await self.inner.start(parameters)
        except ConnectionError:
            return  # ICE was closed, and this with it
        except Exception as error:
            # What OpenSSL raises from its timer leaves aiortc's own handler (rtcdtlstransport.py:437).
            logger.debug("DTLS handshake failed", exc_info=True)
            self.inner.error_text = f"the DTLS handshake failed: {error or type(error).__name__}"
            self.inner._set_state(State.FAILED)

    async def stop(self) -> None:
        """End the session, telling the peer if there is one. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        if self._handshake is not None and not self._handshake.done():
            self._handshake.cancel()
            await asyncio.wait([self._handshake])
        pump = self.inner._task
        await self.inner.stop()
        if pump is not None:
            await asyncio.wait([pump])
        self._state_changed()

    def statistics(self) -> DtlsSnapshot:
        """Return the counters as they stand; changes nothing."""
        inner = self.inner
        session = inner._ssl if inner.state in ("connected", "closed") else None
        profile = session.get_selected_srtp_profile() if session is not None else b""
        remote = self._remote_certificate()
        return DtlsSnapshot(
            state=self.state,
            role=self.role,
            packets_sent=inside(inner, RTCDtlsTransport, "__tx_packets"),
            packets_received=inside(inner, RTCDtlsTransport, "__rx_packets"),
            bytes_sent=inside(inner, RTCDtlsTransport, "__tx_bytes"),
            bytes_received=inside(inner, RTCDtlsTransport, "__rx_bytes"),
            tls_version=_TLS_VERSIONS.get(session.get_protocol_version_name())
            if session is not None
            else None,
            dtls_cipher=session.get_cipher_name() if session is not None else None,
            srtp_cipher=profile.decode() or None,
            local_certificate=_snapshot_certificate(self.certificate.inner._cert),
            remote_certificate=_snapshot_certificate(remote) if remote is not None else None,
        )

    def _state_changed(self) -> None:
        if self.state == self._told:
            return
        self._told = self.state
        ended = list(self.end_listeners) if self.state in ("closed", "failed") else []
        for callback in (*ended, self.on_state_change):
            try:
                callback()
            except Exception:
                logger.exception("a callback of the DTLS transport raised")
