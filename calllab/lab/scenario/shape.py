"""Plain data to a typed scenario, with the path, the value and what was expected where it does not fit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import inspect as types

from calllab.errors import ScenarioError
from calllab.lab.scenario.model import Scenario

__all__ = ["explained", "setting_words", "shaped"]

_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]|(\[\.\.\.\])")
_MESSAGE: Final = re.compile(r"(.*?)(?: - at `(?:key in )?(.*)`)?", re.DOTALL)
_SETTING: Final = re.compile(r"(\w+)=(.+?): (.*)", re.DOTALL)
_LITERAL: Final = re.compile(r"""'.*'|".*"|[\[({].*[\])}]|\S+""", re.DOTALL)
_PYTHON: Final = re.compile(r"\b(?:None|True|False|\d+(?:\.\d+)?e\+\d+|\d+\.0)\b")
_MAX_PLAIN: Final = 1e15
_SHOWN = 60


def shaped(data: Any) -> Scenario:
    """Return plain data as a scenario.

    Raises :exc:`~calllab.errors.ScenarioError`, as in ``$.peers.alice.video.fps: expected a number of at most
    120, got 8000``.
    """
    try:
        return msgspec.convert(data, Scenario)
    except msgspec.ValidationError as exc:
        raise ScenarioError(explained(data, Scenario, "$", str(exc))) from None


def explained(data: Any, kind: Any, root: str, message: str) -> str:
    """Return what msgspec said about ``data``, which is no ``kind``, in words.

    :param root: what ``data`` itself is called.
    """
    matched = _MESSAGE.fullmatch(message)
    assert matched is not None
    said, path = matched[1], matched[2] or "$"
    place, value, expected = root, data, types.type_info(kind)
    for name, index, anything in _STEP.findall(path):
        if anything:
            # msgspec does not say which key it was: find the value that does not fit by itself.
            return _explained_value(value, expected, place, said)
        expected = _inner(expected, value, name)
        try:
            value = value[int(index)] if index else value[name]
        except (KeyError, IndexError, TypeError):
            value = msgspec.UNSET
        place += f"[{index}]" if index else f".{name}"
    if (setting := setting_words(said)) is not None:
        return f"{place}.{setting}"
    return f"{place}: {_said(said, value, expected)}"


def _explained_value(values: Any, expected: Any, place: str, said: str) -> str:
    """Explain what is wrong with one of the values of a mapping whose keys are free."""
    mapping = next((kind for kind in _alternatives(expected) if isinstance(kind, types.DictType)), None)
    if mapping is not None and isinstance(values, Mapping):
        kind = _python_type(mapping.value_type)
        for key, value in values.items():
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError as exc:
                return explained(value, kind, f"{place}.{key}", str(exc))
    return f"{place}: {said}"


def _python_type(kind: types.Type) -> Any:
    if isinstance(kind, types.StructType):
        return kind.cls
    plain: dict[type[types.Type], Any] = {
        types.StrType: str,
        types.FloatType: float,
        types.BoolType: bool,
        types.IntType: int,
    }
    if isinstance(kind, types.UnionType):
        made: Any = None
        for each in kind.types:
            made = _python_type(each) if made is None else made | _python_type(each)
        return made
    return plain.get(type(kind), Any)


def _inner(expected: Any, value: Any, name: str) -> Any:
    """Return the type of a member or element, None if that cannot be told."""
    kinds = list(_alternatives(expected))
    if name and any(getattr(kind, "tag_field", None) == name for kind in kinds):
        return types.LiteralType(tuple(kind.tag for kind in kinds if isinstance(kind, types.StructType)))
    for kind in kinds:
        if name and isinstance(kind, types.StructType) and _is_meant(kind, value):
            for member in kind.fields:
                if member.encode_name == name:
                    return member.type
        elif not name and isinstance(kind, types.ListType):
            return kind.item_type
    return None


def _is_meant(kind: types.StructType, value: Any) -> bool:
    """Whether ``value`` could be of this kind, by its tag."""
    return not kind.tag_field or (isinstance(value, Mapping) and value.get(kind.tag_field) == kind.tag)


def _alternatives(expected: Any) -> Iterator[Any]:
    if isinstance(expected, types.Metadata):
        yield from _alternatives(expected.type)
    elif isinstance(expected, types.UnionType):
        for each in expected.types:
            yield from _alternatives(each)
    elif expected is not None:
        yield expected


def _said(said: str, value: Any, expected: Any) -> str:
    """Put what msgspec said into words, with what was expected and what there was."""
    kinds = list(_alternatives(expected))
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", said):
        known = _members(kinds, value)
        return f"unknown member {unknown[1]!r}{_nearest(unknown[1], known)}"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", said):
        return f"{missing[1]!r} is missing"
    got = "" if value is msgspec.UNSET else f", got {_shown(value)}"
    if re.match(r"Invalid (enum )?value", said):
        options = [str(option) for kind in kinds for option in getattr(kind, "values", ())]
        if options:
            return f"expected one of {', '.join(options)}{got}"
    words = said[:1].lower() + said[1:]
    for pattern, word in _WORDS:
        words = re.sub(pattern, word, words)
    # msgspec's own "got `str`" says less than the value itself.
    return re.sub(r", got .*", "", words) + got


def setting_words(message: str) -> str | None:
    """Return the message of an InvalidSetting, which begins with ``name=value``, in the words used here."""
    setting = _SETTING.fullmatch(message)
    if setting is None:
        return None
    name, value, said = setting.groups()
    value = value if value.startswith(("'", '"')) else _in_yaml(value)
    said = _in_yaml(said)
    wanted = re.fullmatch(r"(?:give|write) (.*)", said, re.DOTALL)
    if wanted and _LITERAL.fullmatch(value):
        return f"{name}: expected {wanted[1]}, got {value}"
    return f"{name}: {value}: {said}"


def _in_yaml(text: str) -> str:
    """Return what was said in Python's words in those of scenarios."""
    known = {"None": "null", "True": "true", "False": "false"}
    return _PYTHON.sub(lambda found: known.get(found[0]) or _number_text(float(found[0])), text)


def _number_text(value: float) -> str:
    """Return a number as people write it: 8 for 8.0, 100000000 for 1e+08."""
    return str(int(value)) if value.is_integer() and abs(value) < _MAX_PLAIN else repr(value)


_WORDS: Final = (
    (r"\b(int|float)( \| (int|float))*\b", "a number"),
    (r"\bstr\b", "text"),
    (r"\bbool\b", "true or false"),
    (r"\barray\b", "a list"),
    (r"\bobject\b", "a mapping"),
    (r" \| ", " or "),
    (r"(\d)\.0\b", r"\1"),
    (r"of length ", "with a length "),
    (r">= ([-\d.]+)", r"of at least \1"),
    (r"<= ([-\d.]+)", r"of at most \1"),
    (r"(?<!\w)> ([-\d.]+)", r"over \1"),
    (r"(?<!\w)< ([-\d.]+)", r"below \1"),
    (r"`", ""),
)


def _members(kinds: Sequence[Any], value: Any) -> list[str]:
    found = []
    for kind in kinds:
        if isinstance(kind, types.StructType) and _is_meant(kind, value):
            found += [member.encode_name for member in kind.fields]
    return found


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=2)
    if near:
        return f": did you mean {' or '.join(near)}?"
    return f": there are {', '.join(known)}" if known else ""


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return _number_text(value)
    words = "nothing" if value is None else repr(value)
    return words if len(words) <= _SHOWN else words[: _SHOWN - 3] + "..."
