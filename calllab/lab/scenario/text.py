"""Scenario text to plain data: a strict, bounded part of YAML.

Scenarios come from strangers, too.  What YAML offers beyond plain data is refused: aliases (which let a few
bytes stand for gigabytes), tags, several documents, keys twice or that are no strings.  Numbers and booleans
are those of YAML 1.2: ``1e3`` is a number, ``yes`` and ``12:30`` are text.
"""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar, Final

import yaml

from calllab.errors import ScenarioError

__all__ = ["MAX_BYTES", "parse_text"]

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 20
MAX_NODES: Final = 20_000

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema, and no key twice."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            place = _place(key_node.start_mark)
            if not isinstance(key, str):
                raise ScenarioError(f"{place}: the key {key!r} is no text: put it in quotes if it is a name")
            if key in seen:
                raise ScenarioError(f"{place}: the key {key!r} is there twice: leave one")
            seen.add(key)
        made: dict[str, Any] = super().construct_mapping(node, deep=deep)
        return made

    def construct_yaml_float(self, node: Any) -> float:
        value = float(self.construct_scalar(node))
        if not math.isfinite(value):
            raise ScenarioError(f"{_place(node.start_mark)}: {node.value:.40} is too big for a number")
        return value


for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", list("tf")),
    # Whole numbers that a program can hold; longer ones are text, and then refused for what they are.
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,17})", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def parse_text(text: str | bytes, *, source: str = "the scenario") -> Any:
    """Return the plain data of YAML (or JSON) text.

    Raises :exc:`~calllab.errors.ScenarioError` with line, column and reason.

    :param source: what the text is, for error messages.
    """
    data = text.encode() if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise ScenarioError(f"{source} has more than {MAX_BYTES // 1024} KiB: no scenario needs so much text")
    try:
        _check_events(data)
        return yaml.load(data, Loader=_Loader)  # the loader is a safe one
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f"{_place(mark)}: " if mark is not None else ""
        raise ScenarioError(f"{source} is not YAML: {place}{exc.problem or exc.context}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ScenarioError(f"{source} is not YAML: {str(exc).splitlines()[0]}") from exc
    except ScenarioError as exc:
        raise ScenarioError(f"{source}, {exc}") from exc.__cause__


def _check_events(data: bytes) -> None:
    """Refuse what is too deep, too much or no plain data, before anything is made of it."""
    depth = nodes = documents = 0
    for event in yaml.parse(data, Loader=_Loader):
        place = _place(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise ScenarioError(f"{place}: a second document: a file has one scenario")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ScenarioError(f"{place}: anchors and aliases (&name, *name) are not taken: write it out")
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
            if nodes > MAX_NODES:
                raise ScenarioError(f"{place}: more than {MAX_NODES:,} values")
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise ScenarioError(f"{place}: the tag {tag:.60} is not taken: write plain values")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ScenarioError(f"{place}: more than {MAX_DEPTH} levels, one inside the other")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
