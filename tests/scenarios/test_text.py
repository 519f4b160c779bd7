"""Scenario text is plain data in YAML, and nothing that could hurt whoever reads it."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calllab.errors import ScenarioError
from calllab.lab.scenario.text import MAX_BYTES, MAX_DEPTH, parse_text


def test_plain_data_is_read() -> None:
    """Mappings, lists, text, numbers, booleans and null come out as such, JSON too."""
    assert parse_text("a: [1, -2.5, 1e3, .5, true, null, ~, text]") == {
        "a": [1, -2.5, 1000.0, 0.5, True, None, None, "text"]
    }
    assert parse_text('{"a": {"b": "1"}}') == {"a": {"b": "1"}}


@pytest.mark.parametrize("text", ["yes", "on", "NO", "12:30", "2026-01-02", "0x1F", "010", "1_000", ".inf"])
def test_what_only_yaml_1_1_knows_is_text(text: str) -> None:
    """Neither a boolean, nor minutes, nor dates, nor octal numbers are made of what looks like text."""
    assert parse_text(f"a: {text}") == {"a": text}


BOMB = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)),
    ]
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x" * (10 * 1024 * 1024), "more than 256 KiB"),
        ("a: 1\n" * (MAX_BYTES // 5 + 1), "256 KiB"),
        (BOMB, "line 1, column 5: anchors and aliases"),
        ("a: &x 1\nb: *x", "anchors and aliases"),
        ("a: *nowhere", "anchors and aliases"),
        ("<<: {a: 1}\n<<: {a: 2}", "twice"),
        ("a: !!python/object/apply:os.system [ls]", "the tag"),
        ("a: !!int '3'", "the tag"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is there twice"),
        ("a: {b: 1, b: 2}", "the key 'b' is there twice"),
        ("1: a", "the key 1 is no text"),
        ("? {a: 1}\n: 2", "is no text"),
        ("a: 1\n---\nb: 2", "a second document"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "levels"),
        ("[" * 50_000, "levels"),
        ("a: [" + "1," * 25_000 + "]", "more than 20,000 values"),
        ("a: 1e999", "line 1, column 4: 1e999 is too big"),
        ("a: [1", "not YAML: line 2, column 1"),
        ("a:\n\t- 1", "not YAML: line 2, column 1"),
        (b"a: \xff\xfe", "not YAML"),
        ("a: \x00", "not YAML"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_no_plain_data_is_refused(text: str | bytes, complaint: str) -> None:
    """Too much, too deep, bombs, tags, twice, and broken text: each is refused at once, with its place."""
    begun = time.perf_counter()
    with pytest.raises(ScenarioError, match=complaint):
        parse_text(text)
    assert time.perf_counter() - begun < 2.0


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_data_or_an_error(text: bytes) -> None:
    """Nothing but plain data or a ScenarioError comes of any bytes."""
    try:
        parse_text(text)
    except ScenarioError:
        pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text("abc: #-[]{}", max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_json_is_read_as_what_it_says(value: object) -> None:
    """Any JSON of ordinary values comes back as it was."""
    assert parse_text(json.dumps(value)) == value
