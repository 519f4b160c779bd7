"""The laboratory: a service, peers, calls, faults on purpose, and the recording of it all."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calllab.lab.glare import GlareOutcome
    from calllab.lab.lab import Lab, LabFault
    from calllab.lab.lab_call import LabCall
    from calllab.lab.nat_paths import NatMatrix, NatPath, nat_matrix
    from calllab.lab.peer import LabPeer
    from calllab.lab.recorder import Recorder
    from calllab.lab.recording import Recording
    from calllab.lab.virtual_world import VirtualWorld
    from calllab.lab.world import SocketsWorld

__all__ = [
    "GlareOutcome",
    "Lab",
    "LabCall",
    "LabFault",
    "LabPeer",
    "NatMatrix",
    "NatPath",
    "Recorder",
    "Recording",
    "SocketsWorld",
    "VirtualWorld",
    "nat_matrix",
]

# Recordings are read without aiortc: each name loads only what it needs.
_HOMES = {
    "GlareOutcome": "glare",
    "Lab": "lab",
    "LabCall": "lab_call",
    "LabFault": "lab",
    "LabPeer": "peer",
    "NatMatrix": "nat_paths",
    "NatPath": "nat_paths",
    "Recorder": "recorder",
    "Recording": "recording",
    "SocketsWorld": "world",
    "VirtualWorld": "virtual_world",
    "nat_matrix": "nat_paths",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'calllab.lab' has no attribute {name!r}")
    return getattr(import_module(f"calllab.lab.{_HOMES[name]}"), name)
