from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import calllab._aiortc
from calllab._aiortc import selftest

SOURCES = sorted(Path(calllab._aiortc.__file__).parent.glob("*.py"))


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in SOURCES:
        yield path.name, ast.parse(path.read_text())


def test_every_import_from_the_libraries_is_checked() -> None:
    """What this room imports from aiortc and aioice stands in the self-test's list."""
    unlisted = []
    for name, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            if node.module.split(".")[0] not in selftest.VERSIONS:
                continue
            listed = {path.split(".")[0] for path in selftest.ATTRIBUTES.get(node.module, ())}
            for alias in node.names:
                is_module = f"{node.module}.{alias.name}" in selftest.ATTRIBUTES
                if alias.name not in listed and not is_module:
                    unlisted.append(f"{name}: {node.module}.{alias.name}")
    assert not unlisted


def test_every_private_name_of_others_is_checked() -> None:
    """A private attribute that no class of this room defines is one of the libraries': it must be listed."""
    used: dict[str, str] = {}
    defined: set[str] = set()
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                defined.add(node.name)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                defined |= {target.id for target in targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.Attribute):
                if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
                    defined.add(node.attr)
                if node.attr.startswith("_") and not node.attr.startswith("__"):
                    used[node.attr] = name
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("inside", "set_inside"):
                used[ast.literal_eval(node.args[2])] = name
    listed = {path.split(".")[-1] for paths in selftest.ATTRIBUTES.values() for path in paths}
    listed |= {name for names in selftest.INSTANCE_ATTRIBUTES.values() for name in names}
    # aiortc sets RtpPacket._data on the way to the jitter buffer, and the others when a chunk is queued; no
    # constructor knows of them.
    listed |= {"_data", "_abandoned", "_sent_count"}
    unlisted = sorted(used.keys() - defined - listed)
    assert not unlisted, ", ".join(unlisted)
