"""The exceptions of calllab, in one tree.

* :exc:`CalllabError`

  * :exc:`WireError` -- a message on the signaling wire is not what the protocol allows
  * :exc:`SignalingError`

    * :exc:`AuthenticationError` -- the service does not know this user, password or token
    * :exc:`ServiceUnavailable` -- the service cannot be reached, or answered with a server error
    * :exc:`ChannelClosed` -- the signaling channel is closed for good
    * :exc:`RelayRejected` -- the relay answered a message with an error code

  * :exc:`TurnError` -- a STUN or TURN server refused, or did not answer

    * :exc:`TurnUnauthorized` -- 401: wrong or expired credentials

  * :exc:`CallError`

    * :exc:`InvalidCallState` -- the call cannot do this now
    * :exc:`CallFailed` -- the call ended without ever being connected

  * :exc:`LabError` -- the laboratory was asked for something it cannot do

    * :exc:`ServiceStartError` -- the service did not come up
    * :exc:`ExpectationFailed` -- what was asked of a run did not happen
    * :exc:`InvalidSetting` -- a setting of the network or the media is out of its range
    * :exc:`ScenarioError` -- a scenario cannot be run as it is written
    * :exc:`SimulationStuck` -- in virtual time nothing can happen any more, or too much, or for too long

  * :exc:`RecordingError` -- a recording cannot be read or written
  * :exc:`UnsupportedAiortc` -- the installed aiortc or aioice is not the one calllab knows

The errors of W3C objects (InvalidStateError and its like) live in :mod:`calllab.rtc`, under their DOM names.
Every message says what happened, with what value, and what to do next.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationError",
    "CallError",
    "CallFailed",
    "CalllabError",
    "ChannelClosed",
    "ExpectationFailed",
    "InvalidCallState",
    "InvalidSetting",
    "LabError",
    "RecordingError",
    "RelayRejected",
    "ScenarioError",
    "ServiceStartError",
    "ServiceUnavailable",
    "SignalingError",
    "SimulationStuck",
    "TurnError",
    "TurnUnauthorized",
    "UnsupportedAiortc",
    "WireError",
]


class CalllabError(Exception):
    """Base of everything calllab raises on purpose."""


class WireError(CalllabError):
    """A message on the signaling wire is not what the protocol allows.

    ``code`` is the wire's error code (``bad-json``, ``bad-message``, ``unknown-type``, ``sender-forbidden``).
    """

    def __init__(self, code: str, message: str, *, in_reply_to: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.in_reply_to = in_reply_to


class SignalingError(CalllabError):
    """The signaling service or the channel to it failed."""


class AuthenticationError(SignalingError):
    """The service does not know this user, password or token."""


class ServiceUnavailable(SignalingError):
    """The service cannot be reached, or answered with a server error.

    ``retry_after_s`` is how long the service asked to be left alone, if it did.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ChannelClosed(SignalingError):
    """The signaling channel is closed for good; ``code`` is the WebSocket close code, if there was one."""

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class RelayRejected(SignalingError):
    """The relay answered a message with an error; ``code`` is the wire's error code."""

    def __init__(self, code: str, message: str, *, recipient_id: str | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.recipient_id = recipient_id


class TurnError(CalllabError):
    """A STUN or TURN server refused, or did not answer; ``code`` is the STUN error code (701: no answer)."""

    def __init__(self, message: str, *, code: int | None = None, url: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.url = url


class TurnUnauthorized(TurnError):
    """The TURN server answered 401: wrong or expired credentials."""


class CallError(CalllabError):
    """A call could not be made, answered or kept."""


class InvalidCallState(CallError):
    """The call cannot do this in the state it is in."""


class CallFailed(CallError):
    """The call ended without ever being connected; ``reason`` is its end reason."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class LabError(CalllabError):
    """The laboratory was asked for something it cannot do."""


class ServiceStartError(LabError):
    """The service did not come up; the message carries what it printed."""


class ExpectationFailed(LabError):
    """What was asked of a run did not happen."""


class InvalidSetting(LabError, ValueError):
    """A setting of network or media is out of its range; the message names it, its value and the range."""


class SimulationStuck(LabError):
    """In virtual time nothing can happen any more, something polls, or the program has overrun its end; the
    message names who waits.
    """


class ScenarioError(LabError):
    """A scenario cannot be run as it is written; ``problems`` has one sentence for each place in it."""

    def __init__(self, message: str, *, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems or (message,)


class RecordingError(CalllabError):
    """A recording cannot be read or written."""


class UnsupportedAiortc(CalllabError, ImportError):
    """The installed aiortc or aioice is not the one calllab knows; the message names what moved."""
