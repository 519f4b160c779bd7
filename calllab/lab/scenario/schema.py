"""The JSON Schema of scenario files, for editors: names, types, ranges, and what each member means."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from typing import Any, Final

import msgspec

from calllab.lab.scenario import actions, expect, links, model
from calllab.network import HostCosts, LinkSettings, NatSettings
from calllab.signaling import SignalingFault

__all__ = ["json_schema"]

_MODULES: Final = (model, actions, expect, links)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a scenario."""
    schema = msgspec.json.schema(model.Scenario)
    documented = _documented()
    for name, definition in schema["$defs"].items():
        words = documented.get(name, {})
        for member, described in definition.get("properties", {}).items():
            if member in words:
                described["description"] = words[member]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "calllab scenario"
    return schema


@cache
def _documented() -> dict[str, dict[str, str]]:
    """Return what the source says about each member of each class, by schema name."""
    found: dict[str, dict[str, str]] = {}
    for module in _MODULES:
        for name, words in _words(inspect.getsource(module)).items():
            found.setdefault(name.removeprefix("_"), {}).update(words)
    link = _words(inspect.getsource(inspect.getmodule(LinkSettings) or LinkSettings))["LinkSettings"]
    for name in ("LinkChanges", "LinkFault", "Route"):
        found[name] = link | found["LinkMembers"] | found.get(name, {})
    found["Route"]["from"] = found["Route"].pop("source")
    found["SignalingFault"] = _words(inspect.getsource(SignalingFault))["SignalingFault"]
    found["NatSettings"] = _words(inspect.getsource(NatSettings))["NatSettings"]
    found["HostCosts"] = _words(inspect.getsource(HostCosts))["HostCosts"]
    return found


def _words(source: str) -> dict[str, dict[str, str]]:
    """Return the text under each attribute of each class in ``source``."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        members = found.setdefault(node.name, {})
        for attribute, text in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(attribute, ast.AnnAssign)
                and isinstance(attribute.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                members[attribute.target.id] = inspect.cleandoc(text.value.value)
    return found
