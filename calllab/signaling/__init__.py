"""Signaling: channels between users, through the service or in memory, and the service's REST interface."""

from __future__ import annotations

from calllab.signaling.backoff import BackoffSettings
from calllab.signaling.channel import Channel, ChannelState, Message, StateChange, StateListener, rejection
from calllab.signaling.fault_plan import FaultPoint, SignalingEvent, SignalingFaults
from calllab.signaling.fault_setting import FaultKind, SignalingFault
from calllab.signaling.fault_timeline import PlannedFault
from calllab.signaling.faults import Direction, MessageTypes
from calllab.signaling.faulty import FaultHandle, FaultyChannel, Hold
from calllab.signaling.memory import MemoryChannel, MemoryHub
from calllab.signaling.relay_channel import RelayChannel, RelayChannelSettings
from calllab.signaling.session import ApiResponse, ServiceSession
from calllab.signaling.turn_api import TurnApi, ice_server

__all__ = [
    "ApiResponse",
    "BackoffSettings",
    "Channel",
    "ChannelState",
    "Direction",
    "FaultHandle",
    "FaultKind",
    "FaultPoint",
    "FaultyChannel",
    "Hold",
    "MemoryChannel",
    "MemoryHub",
    "Message",
    "MessageTypes",
    "PlannedFault",
    "RelayChannel",
    "RelayChannelSettings",
    "ServiceSession",
    "SignalingEvent",
    "SignalingFault",
    "SignalingFaults",
    "StateChange",
    "StateListener",
    "TurnApi",
    "ice_server",
    "rejection",
]
