from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from calllab.errors import InvalidSetting
from calllab.network import DeliveryTrace, LinkSettings, read_trace
from calllab.network.trace import OPPORTUNITY_BYTES, Opportunities


def test_a_file_becomes_settings(tmp_path: Path) -> None:
    """A trace is read, shortened without loss, and makes settings that compare, hash and survive JSON."""
    path = tmp_path / "some.trace"
    path.write_text("0\n4\n4\n4\n9\r\n\n")
    text = read_trace(path)
    assert text == "0 4*3 9"
    trace = DeliveryTrace.parse(text)
    assert trace.times_s == pytest.approx((0.0, 0.004, 0.004, 0.004, 0.009))
    assert trace.length_s == 0.009
    assert trace.mean_kbps == pytest.approx(5 * 12 / 0.009)
    settings = LinkSettings(trace=text)
    assert hash(settings) == hash(LinkSettings(trace=read_trace(str(path))))
    assert msgspec.json.decode(msgspec.json.encode(settings), type=LinkSettings) == settings


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1\n2\nx3\n", r"line 3: 'x3' is no time: give whole milliseconds"),
        ("1\n2.5", "line 2: '2.5' is no time"),
        ("-1", "line 1: '-1' is no time"),
        ("1*x", r"line 1: '1\*x' is no time"),
        ("5\n\n4", "line 3: 4 comes after 5: times must not go backwards"),
        ("0\n0", "ends at 0, so the loop has no length"),
        ("", "no delivery opportunity in it"),
        (" \n\n", "no delivery opportunity in it"),
        ("86400001", "line 1: 86400001 is past 86400000"),
        ("1*1000001", "line 1: more than 1000000 delivery opportunities"),
        ("9" * 30, r"line 1: '99999999999999999999\.\.\.' is no time"),
        ("1 " * 4_200_000, "longer than 8388608 bytes"),
        ("\u0663", "line 1: '\u0663' is no time"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_no_trace_is_refused_with_its_line(text: str, sentence: str) -> None:
    """The message has the number of the line, what stands there, and what would do."""
    with pytest.raises(InvalidSetting, match=sentence):
        DeliveryTrace.parse(text)
    with pytest.raises(InvalidSetting, match=sentence):
        LinkSettings(trace=text)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """A missing file, one with other things in it, and one with a wrong line each say so."""
    with pytest.raises(InvalidSetting, match=r"missing\.trace cannot be read: No such file"):
        read_trace(tmp_path / "missing.trace")
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"12\n\x89PNG")
    with pytest.raises(InvalidSetting, match=r"picture\.png holds other things than digits from byte 3 on"):
        read_trace(picture)
    wrong = tmp_path / "wrong.trace"
    wrong.write_text("1\n0\n")
    with pytest.raises(InvalidSetting, match=r"wrong\.trace: line 2: 0 comes after 1"):
        read_trace(wrong)


def test_a_trace_stands_alone() -> None:
    """A constant rate or a token bucket beside a trace is refused."""
    with pytest.raises(InvalidSetting, match="rate_kbps=100 with a trace: give one of the two"):
        LinkSettings(trace="5", rate_kbps=100)
    with pytest.raises(InvalidSetting, match="burst_bytes=3000 with a trace"):
        LinkSettings(trace="5", burst_bytes=3000)
    with pytest.raises(InvalidSetting, match="trace is a list: give the text"):
        LinkSettings(trace=[5])  # type: ignore[arg-type]


def test_a_used_up_opportunity_begins_nothing() -> None:
    """What comes behind a full opportunity is dequeued at the next one, which is when CoDel looks at it."""
    course = Opportunities(DeliveryTrace.parse("10*2 20"))
    for moment in (0.010, 0.010, 0.020, 0.030):
        first, last = course.schedule(moment if moment > 0.010 else 0.0, 0.0, OPPORTUNITY_BYTES)
        assert (first, last) == pytest.approx((moment, moment))
        course.carry(OPPORTUNITY_BYTES)
    # At the very moment of the last one there is the second of its pair, and then nothing more.
    assert course.schedule(0.030, 0.0, 100) == pytest.approx((0.030, 0.030))
    course.carry(OPPORTUNITY_BYTES)
    assert course.schedule(0.030, 0.0, 100) == pytest.approx((0.040, 0.040))
    assert course.schedule(0.030, 0.0, OPPORTUNITY_BYTES + 1) == pytest.approx((0.040, 0.050))


def test_the_last_opportunity_of_a_loop_is_not_missed() -> None:
    """A datagram that comes at the very end of a loop goes at once, and then the loop begins anew."""
    trace = DeliveryTrace.parse("1 8")
    assert trace.index_at(0.0) == (0, 0)
    assert trace.index_at(0.008) == (0, 1)
    assert trace.index_at(0.0081) == (1, 0)
    assert trace.index_at(0.016) == (1, 1)
    course = Opportunities(trace)
    course.schedule(0.0, 0.0, 10)
    assert course.schedule(0.016, 0.016, 10) == (0.016, 0.016)
