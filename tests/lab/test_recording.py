"""Recordings are written as they happen, read back equal, and refuse what they cannot be."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calllab.errors import RecordingError
from calllab.lab import Recorder, Recording
from calllab.lab import recording as module

REPORT = {
    "IT01A": {"id": "IT01A", "type": "inbound-rtp", "timestamp": 1000.5, "jitter": 0.004, "ssrc": 4294967295},
    "T01": {"id": "T01", "type": "transport", "timestamp": 1000.5, "bytesReceived": 12},
}


def record(path: Path | None) -> Recording:
    """Record a little of everything and return what the recorder has of it."""
    with Recorder(path, settings={"seed": 3}) as recorder:
        recorder.add_peer("alice", {"audio": True})
        recorder.event(0.5, "alice", "signalingstatechange", {"callId": "c1", "state": "have-local-offer"})
        recorder.event(0.75, "bob", "icecandidate", {"callId": "c1", "candidate": None})
        recorder.stats(1.0, "alice", "c1", REPORT)
        recorder.truth(
            2.0, "planned", {"id": 1, "cause": "loss-uniform", "direction": "alice->bob", "at_s": 2.0}
        )
        return recorder.recording()


@pytest.mark.parametrize("name", ["folder", "packed.zip"])
def test_a_recording_is_loaded_back_equal(tmp_path: Path, name: str) -> None:
    """What was recorded, saved as folder or zip and loaded again is the same, digest included."""
    recorded = record(None)
    loaded = Recording.load(recorded.save(tmp_path / name))
    assert loaded == recorded
    assert loaded.digest() == recorded.digest()
    pd.testing.assert_frame_equal(loaded.stats(), recorded.stats())
    pd.testing.assert_frame_equal(loaded.events(), recorded.events())
    pd.testing.assert_frame_equal(loaded.truth(), recorded.truth())


def test_the_folder_is_complete_while_recording(tmp_path: Path) -> None:
    """A recorder that never gets to its end leaves a folder that can be read."""
    with Recorder(tmp_path / "run") as recorder:
        recorder.event(0.1, "alice", "negotiationneeded", {})
        assert Recording.load(tmp_path / "run").event_rows == recorder.recording().event_rows


def test_a_folder_that_was_zipped_as_a_whole_is_read(tmp_path: Path) -> None:
    """The files may lie in a folder inside the zip."""
    recorded = record(tmp_path / "run")
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as archive:
        for file in (tmp_path / "run").iterdir():
            archive.write(file, f"run/{file.name}")
    assert Recording.load(tmp_path / "run.zip") == recorded


def test_frames_have_the_promised_columns() -> None:
    """stats() is t_s, peer, id, type and the W3C members; events() t_s, peer, event and members."""
    recorded = record(None)
    stats = recorded.stats()
    assert list(stats.columns[:5]) == ["t_s", "peer", "id", "type", "callId"]
    assert stats.set_index("id").loc["IT01A", "ssrc"] == 4294967295
    assert pd.isna(stats.set_index("id").loc["T01", "jitter"])
    assert list(recorded.events().columns) == ["t_s", "peer", "event", "callId", "state", "candidate"]
    assert list(recorded.truth()["cause"]) == ["loss-uniform"]
    assert recorded.peers == ("alice", "bob")
    assert recorded.duration_s == 1.0


def test_an_empty_recording_is_a_recording(tmp_path: Path) -> None:
    """Nothing recorded gives empty frames with their columns."""
    empty = Recording.load(Recording.build().save(tmp_path / "empty"))
    assert empty.stats().empty
    assert list(empty.events().columns) == ["t_s", "peer", "event"]
    assert empty.duration_s == 0.0
    assert empty.peers == ()


def test_the_digest_covers_events_and_stats_alone() -> None:
    """Neither truth, meta nor the order of members change the digest; events and statistics do."""
    events = [{"t_s": 1.0, "peer": "a", "event": "track", "kind": "audio"}]
    digest = Recording.build(events=events).digest()
    truth = [{"t_s": 1, "kind": "planned", "fault": {}}]
    assert Recording.build(events=events, truth=truth, meta={"x": 1}).digest() == digest
    assert Recording.build(events=[dict(reversed(events[0].items()))]).digest() == digest
    assert Recording.build(events=[{**events[0], "kind": "video"}]).digest() != digest
    assert (
        Recording.build(stats=[{"t_s": 1, "peer": "a", "report": {}}]).digest() != Recording.build().digest()
    )


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    """Half a last line is dropped; half a line in the middle is an error with its place."""
    recorded = record(tmp_path / "run")
    file = tmp_path / "run" / "events.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"t_s": 3, "pe')
    assert Recording.load(tmp_path / "run") == recorded
    file.write_bytes(b'{"t_s": 3, "pe\n' + whole)
    with pytest.raises(RecordingError, match=r"events\.jsonl, line 1: not JSON"):
        Recording.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "line", "complaint"),
    [
        ("events.jsonl", {"t_s": "1", "peer": "a", "event": "track"}, "t_s is '1', expected a number"),
        ("events.jsonl", {"t_s": True, "peer": "a", "event": "track"}, "t_s is True"),
        ("events.jsonl", {"t_s": 1, "event": "track"}, "peer is None, expected a string"),
        ("events.jsonl", [1], "expected an object, got list"),
        ("stats.jsonl", {"t_s": 1, "peer": "a", "report": []}, "report is .*, expected an object"),
        ("stats.jsonl", {"t_s": 1, "peer": "a", "report": {"x": 1}}, "report.'x'. is no object"),
        ("truth.jsonl", {"t_s": 1, "kind": "planned"}, "fault is None"),
    ],
)
def test_wrong_rows_are_refused_with_their_place(
    tmp_path: Path, name: str, line: Any, complaint: str
) -> None:
    """A row of the wrong shape is named by file, line, member and value."""
    record(tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(msgspec.json.encode(line) + b"\n")
    with pytest.raises(RecordingError, match=rf"{name}, line 1: {complaint}"):
        Recording.load(tmp_path / "run")


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    """A missing folder, a foreign folder, a foreign file and a broken zip each get a sentence."""
    with pytest.raises(RecordingError, match="does not exist"):
        Recording.load(tmp_path / "nowhere")
    with pytest.raises(RecordingError, match=r"no meta\.json"):
        Recording.load(tmp_path)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(RecordingError, match=r"is not a \.zip"):
        Recording.load(tmp_path / "text.zip")
    record(tmp_path / "run")
    (tmp_path / "run" / "meta.json").write_text("[]")
    with pytest.raises(RecordingError, match="expected an object, got list"):
        Recording.load(tmp_path / "run")


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that unpacks to more than the limit is refused while it is read."""
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 10_000)
    record(None).save(tmp_path / "fine.zip")
    Recording.load(tmp_path / "fine.zip")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.json", b" " * 1_000_000 + b"{}")
    with pytest.raises(RecordingError, match="more than"):
        Recording.load(tmp_path / "bomb.zip")


def test_names_in_a_zip_cannot_escape(tmp_path: Path) -> None:
    """A zip with a hostile name is read in memory: nothing is written anywhere."""
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name in ("../../meta.json", "../events.jsonl", "/stats.jsonl", "truth.jsonl"):
            archive.writestr(name, b"{}" if name.endswith("meta.json") else b"")
    Recording.load(tmp_path / "evil.zip")
    assert [file.name for file in tmp_path.iterdir()] == ["evil.zip"]


def test_a_folder_in_use_is_not_overwritten(tmp_path: Path) -> None:
    """Neither a recorder nor save() writes over something."""
    record(tmp_path / "run")
    with pytest.raises(RecordingError, match="not empty"), Recorder(tmp_path / "run"):
        pass
    with pytest.raises(RecordingError, match="exists"):
        record(None).save(tmp_path / "run")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(members=st.lists(st.dictionaries(st.text(max_size=8), json_values, max_size=4), max_size=4))
def test_any_members_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, members: list[Any]
) -> None:
    """Whatever JSON an event carries comes back as it was."""
    rows = [{**m, "t_s": 1.5, "peer": "a", "event": "e"} for m in members]
    recorded = Recording.build(events=rows)
    folder = tmp_path_factory.mktemp("round")
    assert Recording.load(recorded.save(folder)) == recorded


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_never_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """A file of garbage gives a recording or a RecordingError, and nothing else."""
    folder = Recording.build().save(tmp_path_factory.mktemp("fuzz"))
    (folder / "events.jsonl").write_bytes(content)
    try:
        Recording.load(folder)
    except RecordingError:
        pass


def test_a_recording_shows_itself_in_one_line() -> None:
    """The last expression of a cell says who was recorded for how long, not all that is known of it."""
    shown = repr(Recording.build(events=[{"t_s": 4.0, "peer": "alice", "event": "call", "state": "ended"}]))
    assert shown == "<Recording of alice: 4.0 s, 1 events, 0 statistics reports>"
