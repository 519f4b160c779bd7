"""MediaStream as a collection of tracks (mediacapture-streams 4.2), and the events of all objects."""

from __future__ import annotations

import asyncio

import pytest

from calllab.rtc import AudioStreamTrack, MediaStream, VideoStreamTrack
from tests.rtc.conformance.clauses import clause
from tests.rtc.conformance.steps import Log, offer, peers
from tests.rtc.peers import turns

DOCUMENT = "mediacapture-streams"


@clause("4.2", "a stream is made of nothing, of tracks, or of another stream", document=DOCUMENT)
def test_streams_4_2_constructor() -> None:
    """Tracks are taken once each, in their order; a stream made of a stream has its tracks and another id."""
    audio, video = AudioStreamTrack(), VideoStreamTrack()
    assert MediaStream().getTracks() == []
    stream = MediaStream([video, audio, video])
    assert stream.getTracks() == [video, audio]
    copy = MediaStream(stream)
    assert copy.getTracks() == [video, audio]
    assert len({MediaStream().id, stream.id, copy.id}) == 3


@clause("4.2", "tracks by kind and by id", document=DOCUMENT)
def test_streams_4_2_getters() -> None:
    """Each getter returns a list of its own; an unknown id gives nothing."""
    audio, video = AudioStreamTrack(), VideoStreamTrack()
    stream = MediaStream([audio, video])
    assert (stream.getAudioTracks(), stream.getVideoTracks()) == ([audio], [video])
    assert stream.getTrackById(video.id) is video
    assert stream.getTrackById("nobody") is None
    stream.getTracks().clear()
    assert len(stream.getTracks()) == 2


@clause("4.2", "addTrack and removeTrack of the application fire nothing", document=DOCUMENT)
def test_streams_4_2_changes_by_the_application() -> None:
    """Adding twice and removing what is not there are no errors, and there are no events."""
    stream, track = MediaStream(), AudioStreamTrack()
    log = Log().watch(stream, "addtrack", "removetrack")
    for change in (stream.addTrack, stream.addTrack, stream.removeTrack, stream.removeTrack):
        change(track)
    assert stream.getTracks() == []
    assert log.take() == []


@clause("4.2", "a stream is active while one of its tracks is live", document=DOCUMENT)
def test_streams_4_2_active() -> None:
    """It is inactive without tracks, and when the last one has ended."""
    audio, video = AudioStreamTrack(), VideoStreamTrack()
    stream = MediaStream([audio, video])
    assert not MediaStream().active
    states = []
    for track in (audio, video):
        states.append(stream.active)
        track.stop()
    assert [*states, stream.active] == [True, True, False]


@clause("4.4.2", "RTCPeerConnection and its companions are event targets")
def test_4_4_2_event_targets() -> None:
    """A listener is called once an event however often it was added, and not after it was removed."""
    stream, calls = MediaStream(), []

    def listener(number: int) -> None:
        calls.append(number)

    for _ in range(2):
        stream.addEventListener("x", listener)
    stream.addEventListener("x", lambda number: calls.append(-number), once=True)
    for number in (1, 2):
        stream.emit("x", number)
    stream.removeEventListener("x", listener)
    stream.removeEventListener("x", listener)
    stream.emit("x", 3)
    assert calls == [1, -1, 2]


@clause("4.4.2", "event listeners: one that is removed while an event is told does not hear of it (DOM 2.9)")
def test_4_4_2_removed_during_the_event() -> None:
    """A listener may take away itself, those that come after it, or all of them."""
    stream, heard = MediaStream(), list[str]()

    def last() -> None:
        heard.append("last")

    def first() -> None:
        heard.append("first")
        stream.removeEventListener("x", last)

    for listener in (first, last):
        stream.addEventListener("x", listener)
    stream.emit("x")
    stream.addEventListener("x", last)
    stream.on("y", lambda: stream.remove_all_listeners())
    stream.on("y", last)
    stream.emit("y")
    stream.emit("x")
    assert heard == ["first"]


@clause("4.4.2", "what a listener raises is reported, and goes no further")
async def test_4_4_2_listeners_that_raise() -> None:
    """Not even the CancelledError of somebody else's task reaches the operation that told the event."""
    async with peers() as (a, b):
        heard: list[str] = []

        def raises() -> None:
            raise asyncio.CancelledError

        b.on("signalingstatechange", raises)
        b.on("track", lambda track, *_: heard.append(track.kind))
        a.addTransceiver("audio")
        await offer(a, b)
        assert heard == ["audio"]


@clause("4.4.2", "event handler attributes: onnegotiationneeded, ontrack and so on")
async def test_4_4_2_event_handler_attributes() -> None:
    """One handler an attribute, in the place where the first was; None takes it away; others are refused."""
    async with peers(1) as (a,):
        order: list[str] = []
        assert a.onnegotiationneeded is None
        a.on("negotiationneeded", lambda: order.append("first"))
        a.onnegotiationneeded = lambda: order.append("replaced")
        a.on("negotiationneeded", lambda: order.append("last"))
        a.onnegotiationneeded = lambda: order.append("attribute")
        a.addTransceiver("audio")
        await turns(24)
        assert order == ["first", "attribute", "last"]
        a.onnegotiationneeded = None
        assert a.onnegotiationneeded is None
        order.clear()
        await a.setLocalDescription()
        await a.setLocalDescription({"type": "rollback"})
        await turns(24)
        assert order == ["first", "last"]
        with pytest.raises(TypeError):
            a.ontrack = "handler"  # type: ignore[assignment]
