"""Two real peers below the W3C layer: ICE, DTLS, media and data, without SDP."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from calllab._aiortc import (
    Address,
    AudioStreamTrack,
    Deliver,
    DtlsTransport,
    IceCandidateError,
    IceTimers,
    IceTransport,
    MediaStreamTrack,
    RtpReceiver,
    RtpSender,
    SctpTransport,
    VideoStreamTrack,
)
from calllab.rtc.parameters import (
    HeaderExtension,
    IceCredentials,
    ReceiveParameters,
    RtcpFeedback,
    RtpCodec,
    SendParameters,
    StreamEncoding,
)

FAST = IceTimers(
    check_interval_s=0.2,
    overdue_interval_s=0.05,
    disconnected_after_s=0.6,
    consent_s=1.5,
    connect_timeout_s=5.0,
    gather_timeout_s=1.5,
    retire_after_s=0.3,
)
"""Every time of ICE, a few times shorter than in life."""

OPUS = RtpCodec(111, "audio/opus", 48000, 2, (("minptime", "10"), ("useinbandfec", "1")))
VP8 = RtpCodec(
    96,
    "video/VP8",
    90000,
    None,
    (),
    (RtcpFeedback("nack"), RtcpFeedback("nack", "pli"), RtcpFeedback("goog-remb")),
)
RTX = RtpCodec(97, "video/rtx", 90000, None, (("apt", "96"),))
CODECS = {"audio": (OPUS,), "video": (VP8, RTX)}
EXTENSIONS = (
    HeaderExtension(1, "urn:ietf:params:rtp-hdrext:ssrc-audio-level"),
    HeaderExtension(2, "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"),
    HeaderExtension(4, "urn:ietf:params:rtp-hdrext:sdes:mid"),
)


class Wire:
    """A DatagramInterface that counts, and that can cut either direction or drop what a test chooses."""

    def __init__(self) -> None:
        self.sent = self.received = 0
        self.cut_out = self.cut_in = False
        self.drop: Callable[[bytes], bool] = lambda data: False
        self.open: set[object] = set()

    def opened(self, socket: object) -> None:
        self.open.add(socket)

    def send(self, socket: object, data: bytes, address: Address, deliver: Deliver) -> None:
        assert socket in self.open
        self.sent += 1
        if not self.cut_out and not self.drop(data):
            deliver(data, address)

    def receive(self, socket: object, data: bytes, address: Address, deliver: Deliver) -> None:
        assert socket in self.open
        self.received += 1
        if not self.cut_in:
            deliver(data, address)

    def closed(self, socket: object) -> None:
        self.open.remove(socket)


async def until(condition: Callable[[], Any], *, timeout_s: float = 10.0) -> None:
    """Wait until a condition holds; looks again every few milliseconds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def credentials(entropy: random.Random) -> IceCredentials:
    """Draw ICE credentials."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return IceCredentials("".join(entropy.choices(alphabet, k=4)), "".join(entropy.choices(alphabet, k=22)))


@dataclass
class Side:
    """One agent and what it told."""

    name: str
    ice: IceTransport
    wire: Wire
    entropy: random.Random
    states: list[str] = field(default_factory=list)
    gathering: list[str] = field(default_factory=list)
    errors: list[IceCandidateError] = field(default_factory=list)
    candidates: dict[str, list[str | None]] = field(default_factory=dict)
    pair_changes: int = 0
    credentials: IceCredentials = field(default_factory=lambda: IceCredentials("", ""))

    def __post_init__(self) -> None:
        self.ice.on_state_change = lambda: self.states.append(self.ice.state)
        self.ice.on_gathering_state_change = lambda: self.gathering.append(self.ice.gathering_state)
        self.ice.on_candidate_error = lambda ufrag, error: self.errors.append(error)
        self.ice.on_candidate = lambda ufrag, line: self.candidates.setdefault(ufrag, []).append(line)
        self.ice.on_selected_pair_change = self._pair_changed

    def _pair_changed(self) -> None:
        self.pair_changes += 1

    def prepare(self, *, offerer: bool) -> None:
        """Open a generation with fresh credentials."""
        self.credentials = credentials(self.entropy)
        self.candidates[self.credentials.ufrag] = []
        self.ice.prepare(self.credentials, offerer=offerer)


@dataclass
class IcePair:
    """Two agents that face each other."""

    alice: Side
    bob: Side

    def negotiate(self, offerer: Side | None = None) -> None:
        """Exchange credentials, and candidates as they come: a first connection, or a restart."""
        offerer = offerer or self.alice
        answerer = self.bob if offerer is self.alice else self.alice
        offerer.prepare(offerer=True)
        answerer.prepare(offerer=False)
        for here, there in ((self.alice, self.bob), (self.bob, self.alice)):
            here.ice.on_candidate = self._trickle(here, there)
            known = tuple(there.candidates[there.credentials.ufrag])
            here.ice.commit(here.credentials, there.credentials, candidates=known)

    @staticmethod
    def _trickle(here: Side, there: Side) -> Callable[[str, str | None], None]:
        def trickle(ufrag: str, line: str | None) -> None:
            here.candidates[ufrag].append(line)
            there.ice.add_remote_candidate(ufrag, line)

        return trickle

    async def connected(self) -> None:
        """Wait until both have a path and no other is looked for."""
        await until(lambda: self.alice.ice.state == self.bob.ice.state == "completed")


@asynccontextmanager
async def ice_pair(*, seed: int = 1, timers: IceTimers = FAST, **options: Any) -> AsyncIterator[IcePair]:
    """Two agents on this machine, closed at the end."""
    sides = []
    for name in ("alice", "bob"):
        entropy = random.Random(f"{seed}-{name}")
        wire = Wire()
        ice = IceTransport(interface=wire, entropy=entropy, timers=timers, **options)
        sides.append(Side(name, ice, wire, entropy))
    pair = IcePair(*sides)
    try:
        yield pair
    finally:
        await asyncio.gather(*(side.ice.close() for side in sides))
        assert not any(side.wire.open for side in sides)


@dataclass
class Peer:
    """One side of a call."""

    side: Side
    dtls: DtlsTransport
    senders: dict[str, RtpSender] = field(default_factory=dict)
    receivers: dict[str, RtpReceiver] = field(default_factory=dict)
    sctp: SctpTransport | None = None

    async def close(self) -> None:
        if self.sctp is not None:
            await self.sctp.stop()
        for half in (*self.senders.values(), *self.receivers.values()):
            await half.stop()
        await self.dtls.stop()


@dataclass
class Call:
    """Two peers with DTLS up."""

    ice: IcePair
    alice: Peer
    bob: Peer

    async def send_media(
        self, here: Peer, there: Peer, track: MediaStreamTrack, mid: str | None = None
    ) -> None:
        """Let ``here`` send a track to ``there``."""
        kind = track.kind
        mid = mid or kind
        ssrc = 1000 + 10 * len(here.senders) + (5000 if here is self.bob else 0)
        rtx = ssrc + 1 if kind == "video" else None
        sender = here.senders[mid] = RtpSender(here.dtls, kind, ssrc=ssrc, rtx_ssrc=rtx)
        receiver = there.receivers[mid] = RtpReceiver(there.dtls, kind, rtcp_ssrc=ssrc + 70000)
        sender.replace_track(track)
        receiver.set_active(True)
        sender.set_active(True)
        await receiver.configure(
            ReceiveParameters(mid, CODECS[kind], EXTENSIONS, (StreamEncoding(ssrc, rtx),), "cname")
        )
        await sender.configure(SendParameters(mid, "cname", CODECS[kind], EXTENSIONS))


@asynccontextmanager
async def call(**options: Any) -> AsyncIterator[Call]:
    """Two peers connected up to DTLS, closed at the end with nothing left."""
    async with ice_pair(**options) as pair:
        alice, bob = (Peer(side, DtlsTransport(side.ice)) for side in (pair.alice, pair.bob))
        try:
            pair.negotiate()
            await asyncio.gather(
                alice.dtls.start("server", bob.dtls.fingerprints),
                bob.dtls.start("client", alice.dtls.fingerprints),
            )
            assert alice.dtls.state == bob.dtls.state == "connected", (
                alice.dtls.error_text,
                bob.dtls.error_text,
            )
            yield Call(pair, alice, bob)
        finally:
            await asyncio.gather(alice.close(), bob.close())


def tone() -> AudioStreamTrack:
    """A sound source that does not need the media room."""
    return AudioStreamTrack()


def picture() -> VideoStreamTrack:
    """A picture source that does not need the media room."""
    return VideoStreamTrack()
