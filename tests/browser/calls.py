"""Calls between a page in Chromium and a calllab peer, through the real relay."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aiohttp import web
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page

from calllab.lab.service import ServiceProcess
from calllab.media import MediaSink, SpeechTrack
from calllab.negotiation import PeerConnectionConfig, PeerConnectionManager, create_peer_connection
from calllab.rtc import MediaStream, RTCDataChannel, RTCPeerConnection
from calllab.rtc.parameters import receives, reverse
from calllab.signaling import ChannelState, FaultyChannel, RelayChannel, ServiceSession, StateChange, TurnApi
from tests.negotiation.linked_peers import SmallVideo
from tests.rtc.peers import more_packets

__all__ = ["Bench", "BrowserCall", "browser_call", "eventually", "made_up_s", "served_pages", "stalls"]

PAGES = Path(__file__).parent / "page"
PASSWORD = "correct horse battery"
PATIENCE_S = 15.0

Policy = Literal["all", "relay"]


async def eventually(condition: Callable[[], Awaitable[bool]], what: Callable[[], str]) -> None:
    """Return as soon as ``condition`` holds; fail with ``what`` if it does not in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while not await condition():
        if loop.time() > deadline:
            raise AssertionError(what())
        await asyncio.sleep(0.03)


def made_up_s(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """Return how much sound the page had to make up between two reports while it could run."""
    grew = {name: after[name] - before[name] for name in ("concealed_s", "stalled_s")}
    return float(grew["concealed_s"] - grew["stalled_s"])


@contextlib.asynccontextmanager
async def stalls() -> AsyncIterator[list[float]]:
    """Note how long each time the event loop stood still though it should have turned."""
    noted: list[float] = []

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.02
            await asyncio.sleep(0.02)
            if (late_s := loop.time() - due) > 0.03:
                noted.append(late_s)

    watching = asyncio.ensure_future(watch())
    try:
        yield noted
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class Bench:
    """The browser, the service, and the users that are logged in."""

    def __init__(self, browser: Browser, service: ServiceProcess | None, page_url: str) -> None:
        self.browser = browser
        self.service = service
        self.page_url = page_url
        self._sessions: dict[str, ServiceSession] = {}
        self._calls = 0

    async def session(self, name: str) -> ServiceSession:
        """Return the session of a user, who is registered at the first time."""
        if name not in self._sessions:
            session = ServiceSession(self.service.http_url)
            self._sessions[name] = session
            await session.register(name, PASSWORD)
            await session.login(name, PASSWORD)
        return self._sessions[name]

    def next_number(self) -> int:
        """Return a number for the next call."""
        self._calls += 1
        return self._calls

    async def open_page(self, problems: list[str], *, may_capture: bool = True) -> Page:
        """Open the page in a context of its own; ``problems`` collects its errors.

        A page that may not use camera and microphone hides its addresses behind mDNS names.
        """
        context = await self.browser.new_context(permissions=["camera", "microphone"] if may_capture else [])
        page = await context.new_page()
        page.on("pageerror", lambda error: problems.append(f"page error: {error}"))
        page.on("console", lambda message: _note_console(message, problems))
        await page.goto(self.page_url)
        return page

    async def part(self, *names: str) -> None:
        """Close the connections of these users' sessions, which live on and connect again when needed."""
        for name in names:
            await self._sessions[name].close()


@contextlib.asynccontextmanager
async def served_pages() -> AsyncIterator[str]:
    """Serve the pages of this folder on loopback; gives their origin."""
    app = web.Application()
    app.router.add_get("/{name}", _serve)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def _serve(request: web.Request) -> web.FileResponse:
    # A connection that is kept open would pass for one that a test has left behind.
    return web.FileResponse(PAGES / request.match_info["name"], headers={"Connection": "close"})


def _note_console(message: ConsoleMessage, problems: list[str]) -> None:
    if message.type in ("error", "warning", "assert"):
        problems.append(f"console {message.type}: {message.text}")


@dataclass(frozen=True)
class Session:
    """What both sides say of the connection: equal before and after means that it lived on."""

    page_states: tuple[str, ...]
    our_states: tuple[str, ...]
    page_dtls: tuple[int | str, ...]
    """The number of DTLS transports that the page ever had, and the states they went through since."""
    certificates: frozenset[str]
    page_certificates: frozenset[str]
    our_dtls: object


class BrowserCall:
    """One call: a page that negotiates perfectly, and a manager on our side."""

    def __init__(self, page: Page, channel: FaultyChannel, problems: list[str]) -> None:
        self.page = page
        self.channel = channel
        self.problems = problems
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.sinks: dict[str, MediaSink] = {}
        self.data: list[tuple[str, str | bytes]] = []
        self.channels: dict[str, RTCDataChannel] = {}
        self.manager: PeerConnectionManager
        self.sent = 0
        self.received = 0
        self._handling: set[asyncio.Future[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._call_id = ""

    @property
    def pc(self) -> RTCPeerConnection:
        """Our peer connection."""
        return self.manager.pc

    async def open(
        self, bench: Bench, ours: str, theirs: str, *, page_is_polite: bool, made_media: bool, policy: Policy
    ) -> None:
        """Connect both sides to the relay, and make both peer connections."""
        session = await bench.session(theirs)
        self._call_id = f"call-{bench.next_number()}"
        self.manager = await create_peer_connection(
            PeerConnectionConfig(
                is_polite=not page_is_polite,
                on_track=self._on_track,
                on_ice_connection_state_change=lambda state: None,
                signaling=self,
                call_id=self._call_id,
                remote_user_id=theirs,
                turn_api=TurnApi(await bench.session(ours)) if policy == "relay" else None,
                ice_transport_policy=policy,
                on_event=lambda event, members: self.events.append((event, members)),
            )
        )
        self.pc.on("datachannel", self.keep)
        configuration: dict[str, Any] = {"iceTransportPolicy": policy, "bundlePolicy": "max-bundle"}
        if policy == "relay":
            credentials = await TurnApi(session).get_credentials()
            configuration["iceServers"] = [
                {
                    "urls": list(credentials.uris),
                    "username": credentials.username,
                    "credential": credentials.password,
                }
            ]
        self._reader = asyncio.get_running_loop().create_task(self._read())
        protocol = await self.page.evaluate(
            "settings => openPeer(settings)",
            {
                "url": f"{bench.service.http_url.replace('http', 'ws', 1)}/ws",
                "token": session.access_token,
                "device": f"page-{self._call_id}",
                "polite": page_is_polite,
                "recipientId": ours,
                "recipientDevice": self.channel.device_id,
                "callId": self._call_id,
                "configuration": configuration,
                "madeMedia": made_media,
            },
        )
        assert protocol == "calllab.v1"

    async def close(self) -> None:
        """Close both sides."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, *self._handling, return_exceptions=True)
        await self.manager.close()
        for sink in self.sinks.values():
            await sink.stop()
        await self.page.evaluate("peer?.close()")

    # Signaling

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a message of the manager's to the page."""
        self.sent += 1
        await self.channel.send({**message, "recipientDevice": f"page-{self._call_id}"})

    async def _read(self) -> None:
        while True:
            message = await self.channel.receive()
            if message.get("callId") != self._call_id:
                self.problems.append(f"from the relay: {message}")
                continue
            self.received += 1
            kind = message["type"].removeprefix("call-")
            if kind == "ice-candidate":
                begun = self.manager.handle_ice_candidate(message["candidate"])
            elif kind in ("offer", "answer"):
                begun = self.manager.handle_remote_description({"type": kind, "sdp": message["sdp"]})
            else:
                self.problems.append(f"from the relay: {message}")
                continue
            self._handling.add(asyncio.ensure_future(begun))

    # Media and data

    def add(self, kind: str) -> None:
        """Send one more track of ours."""
        track = SpeechTrack(seed=1) if kind == "audio" else SmallVideo()
        self.pc.addTrack(track, MediaStream([track]))

    async def page_add(self, kind: str) -> None:
        """Let the page send one more track."""
        await self.page.evaluate("kind => peer.add(kind)", kind)

    async def both_add(self, kind: str) -> dict[str, Any]:
        """Send a track of ours and then one of the page's; return the page's report when both are settled.

        Not at once: see :meth:`_page_gathers`.
        """
        self.add(kind)
        await self.settled()
        await self.page_add(kind)
        return await self.settled()

    def keep(self, channel: RTCDataChannel) -> None:
        """Keep a data channel, and what comes over it."""
        self.channels[channel.label] = channel
        channel.on("message", lambda data: self.data.append((channel.label, data)))

    def _on_track(self, stream: MediaStream) -> None:
        for track in stream.getTracks():
            if track.id not in self.sinks:
                sink = self.sinks[track.id] = MediaSink(track)
                sink.start()

    # Observation

    async def report(self) -> dict[str, Any]:
        """Return what the page sees."""
        seen: dict[str, Any] = await self.page.evaluate("peer.report()")
        return seen

    async def settled(self) -> dict[str, Any]:
        """Wait until both are connected and stable, and nothing is on its way or under way; return the
        page's report.
        """
        seen: dict[str, Any] = {}

        async def is_settled() -> bool:
            seen.update(await self.report())
            return (
                seen["signaling"] == self.pc.signalingState == "stable"
                and seen["connection"] == self.pc.connectionState == "connected"
                and seen["isIdle"]
                and self.manager.is_settled
                and all(handling.done() for handling in self._handling)
                and (seen["sent"], seen["received"]) == (self.received, self.sent)
            )

        await eventually(
            is_settled, lambda: f"did not settle: {self.problems}, page {_short(seen)}, ours {self!r}"
        )
        return seen

    async def session(self) -> Session:
        """Return what must stay the same for as long as the call lives."""
        seen = await self.connected_report()
        states = [str(members["state"]) for event, members in self.events if event == "connectionstatechange"]
        certificates = [
            str(entry["fingerprint"])
            for entry in (await self.manager.get_stats()).values()
            if entry["type"] == "certificate"
        ]
        return Session(
            page_states=tuple(seen["states"]),
            our_states=tuple(states),
            page_dtls=(seen["dtlsTransports"], *seen["dtlsStates"]),
            certificates=frozenset(certificates),
            page_certificates=frozenset(seen["fingerprints"]),
            our_dtls=self.pc.getSenders()[0].transport,
        )

    @contextlib.asynccontextmanager
    async def uninterrupted(self, longest_gap_s: float, *, most_concealed_s: float) -> AsyncIterator[None]:
        """The same session before and after, media at the end, and no long silence in between.

        We measure the longest time between two decoded frames of sound; the page tells how much sound it had
        to make up in all because packets were missing.  The time that the processes themselves stood still,
        on a machine that is busy with something else, is nobody's silence.
        """
        before, began = await self.session(), await self.report()
        for sink in self.sinks.values():
            sink.take()
        async with stalls() as stalled_s:
            yield
            await self.settled()
            await self.media_flows()
        after = await self.session()
        assert after == before, f"{before} became {after}"
        assert before.certificates == before.page_certificates
        gap_s = max(
            sink.take().max_gap_s
            for sink in self.sinks.values()
            if sink.track.kind == "audio" and not sink.ended
        )
        concealed_s = made_up_s(began, await self.report())
        assert gap_s < longest_gap_s + max(stalled_s, default=0.0), stalled_s
        assert concealed_s < most_concealed_s + sum(stalled_s), stalled_s

    async def connected_report(self) -> dict[str, Any]:
        """Return the page's report once it has the pair in use: Chromium's statistics are a moment old."""
        seen: dict[str, Any] = {}

        async def is_complete() -> bool:
            seen.update(await self.report())
            return seen.get("pair") is not None

        await eventually(is_complete, lambda: f"the page has no pair in use: {seen}")
        return seen

    async def glare(self, *, ours: Callable[[], None], page: Callable[[], Awaitable[None]]) -> None:
        """Let both make an offer, and let go of both offers once both exist."""
        out = self.channel.hold("call-offer")
        in_ = self.channel.hold("call-offer", "in")
        ours()
        await page()
        async with asyncio.timeout(PATIENCE_S):
            await out.arrived()
            await in_.arrived()
        await self._page_gathers()
        out.release()
        in_.release()

    async def _page_gathers(self) -> None:
        """Wait until the page has found a candidate.

        A Chromium that rolls its very first offer back within some milliseconds, before it knows its
        networks, never gathers: seen once in some hundred calls; only the next ICE restart helps.
        """

        async def has_found() -> bool:
            return bool((await self.report())["candidates"])

        await eventually(has_found, lambda: f"the page gathers nothing: {self.problems}")

    async def media_flows(self) -> None:
        """Wait until every negotiated direction whose sender has a track has brought more packets, and, for
        video, more decoded frames.
        """
        page = {entry["mid"]: entry for entry in (await self.report())["transceivers"]}
        ours = {transceiver.mid: transceiver for transceiver in self.pc.getTransceivers()}
        to_page = {
            mid
            for mid, entry in page.items()
            if receives(entry["currentDirection"]) and ours[mid].sender.track is not None
        }
        await self._page_receives(to_page)
        for mid, transceiver in ours.items():
            if receives(transceiver.currentDirection) and page[mid]["hasTrack"]:
                await more_packets(transceiver)

    async def _page_receives(self, mids: set[str]) -> None:
        # Chromium begins to count anew after a rollback of its own, so what counts is the last interval.
        before: dict[str, tuple[int, int]] = {}
        missing = set(mids)

        async def all_grew() -> bool:
            for entry in (await self.report())["inbound"]:
                mid, now = entry["mid"], (entry["packets"], entry["frames"])
                then = before.get(mid)
                if then is None or now < then:
                    before[mid] = now
                elif now[0] >= then[0] + 5 and (entry["kind"] == "audio" or now[1] > then[1]):
                    missing.discard(mid)
            return not missing

        await eventually(all_grew, lambda: f"no media comes to the page on {missing}: {before}")

    async def expect_same_directions(self) -> None:
        """Assert that both sides have the same sections, with opposite directions."""
        page = {
            entry["mid"]: (entry["kind"], entry["currentDirection"])
            for entry in (await self.report())["transceivers"]
        }
        ours = {t.mid: (t.kind, reverse(t.currentDirection)) for t in self.pc.getTransceivers()}  # type: ignore[arg-type]
        assert page == ours

    def __repr__(self) -> str:
        """Tell the state of our side."""
        return (
            f"<{self.pc.signalingState}, {self.pc.connectionState}, sent {self.sent}, "
            f"received {self.received}, errors {self.manager.errors}, {self.pc.getTransceivers()}>"
        )


def _short(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name not in ("candidates", "data", "inbound")}


@contextlib.asynccontextmanager
async def browser_call(
    bench: Bench,
    *,
    page_is_polite: bool,
    place: int = 0,
    made_media: bool = False,
    policy: Policy = "all",
    seed: int = 0,
) -> AsyncIterator[BrowserCall]:
    """A call between a page and us; at its end nothing may have gone wrong on either side."""
    ours, theirs = f"ours-{place}", f"page-{place}"
    problems: list[str] = []
    channel = FaultyChannel(await RelayChannel.open(await bench.session(ours)), entropy=random.Random(seed))

    def note_state(change: StateChange) -> None:
        if change.state is not ChannelState.CONNECTED:
            problems.append(f"signaling: {change}")

    stop_noting = channel.on_state(note_state)
    page = await bench.open_page(problems, may_capture=not made_media)
    context: BrowserContext = page.context
    try:
        call = BrowserCall(page, channel, problems)
        try:
            await call.open(
                bench, ours, theirs, page_is_polite=page_is_polite, made_media=made_media, policy=policy
            )
            yield call
            assert (await call.report())["problems"] == []
            assert call.manager.errors == [], call.manager.errors
        finally:
            await call.close()
        assert problems == [], problems
    finally:
        await context.close()
        stop_noting()
        await channel.close()
        await bench.part(ours, theirs)
