"""Traces that a scenario names by file, put into it as text before it is checked.

A scenario may come from a stranger, so it can read nothing but regular files of its own folder and of those
below, however its path or a symbolic link is written; and all that it reads together is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from calllab.errors import InvalidSetting, ScenarioError
from calllab.network import read_trace

__all__ = ["with_traces"]

MAX_TEXT_BYTES: Final = 8 * 1024 * 1024
"""The most that the traces of one scenario have together, each as often as it is named."""


def with_traces(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a scenario's plain data with ``trace`` in place of each ``trace_file``.

    Raises :exc:`~calllab.errors.ScenarioError` with path, value and reason for a file that cannot be taken.

    :param folder: that of the scenario; paths are from there.
    """
    known: dict[str, str] = {}
    room = MAX_TEXT_BYTES
    for place, links, key in list(_links(data)):
        link = links[key]
        # What is no text is refused as any other value that does not fit.
        if not isinstance(link, Mapping) or not isinstance(name := link.get("trace_file"), str):
            continue
        path = f"{place}.trace_file"
        if link.get("trace") is not None:
            raise ScenarioError(f"{path}: {name!r} with a trace: give one of the two")
        if name not in known:
            known[name] = _read(path, name, folder)
        room -= len(known[name])
        if room < 0:
            raise ScenarioError(
                f"{path}: the traces of a scenario have at most {MAX_TEXT_BYTES // 2**20} MiB together"
            )
        links[key] = {k: v for k, v in link.items() if k != "trace_file"} | {"trace": known[name]}
    return data


def _links(data: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield everything that may be settings of a link: where it is, what holds it, and under which key."""
    # The containers on the way are copied, so that the caller's data stays as it was.
    network = data["network"] = _copied(data.get("network", {}))
    peers = data["peers"] = _copied(data.get("peers", {}))
    faults = data["faults"] = _copied(data.get("faults", []))
    if isinstance(network, dict):
        if "link" in network:
            yield "$.network", network, "link"
        network["routes"] = routes = _copied(network.get("routes", []))
        if isinstance(routes, list):
            yield from ((f"$.network.routes[{index}]", routes, index) for index in range(len(routes)))
    if isinstance(peers, dict):
        for name in peers:
            peers[name] = _copied(peers[name])
            if isinstance(peers[name], dict) and "link" in peers[name]:
                yield f"$.peers.{name}.link", peers[name], "link"
    if isinstance(faults, list):
        yield from ((f"$.faults[{index}]", faults, index) for index in range(len(faults)))
