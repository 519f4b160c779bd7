"""The errors of W3C objects, under their DOM names.

* :exc:`RtcError` -- base; ``name`` is the DOMException name

  * :exc:`InvalidStateError` -- the object cannot do this in the state it is in
  * :exc:`InvalidAccessError` -- the object does not belong here, or the content does not fit
  * :exc:`InvalidModificationError` -- something that must not be changed was changed
  * :exc:`OperationError` -- the operation failed

    * :exc:`SdpError` -- a session description is not valid SDP

  * :exc:`NotSupportedError` -- valid, but not supported here
  * :exc:`SyntaxError_` -- a string does not have the form it must have

Bad types and values of arguments raise TypeError and ValueError, as in the browser's bindings.
"""

from __future__ import annotations

from typing import ClassVar

from calllab.errors import CalllabError

__all__ = [
    "InvalidAccessError",
    "InvalidModificationError",
    "InvalidStateError",
    "NotSupportedError",
    "OperationError",
    "RtcError",
    "SdpError",
    "SyntaxError_",
]


class RtcError(CalllabError):
    """Base of the errors that W3C objects raise; ``name`` is the DOMException name."""

    name: ClassVar[str] = "Error"

    @property
    def message(self) -> str:
        """What happened, with what value, and what to do."""
        return str(self)


class InvalidStateError(RtcError):
    """The object cannot do this in the state it is in."""

    name = "InvalidStateError"


class InvalidAccessError(RtcError):
    """The object does not belong here, or the content of a description does not fit."""

    name = "InvalidAccessError"


class InvalidModificationError(RtcError):
    """Something that must not be changed was changed."""

    name = "InvalidModificationError"


class OperationError(RtcError):
    """The operation failed."""

    name = "OperationError"


class NotSupportedError(RtcError):
    """What was asked for is valid, but not supported here."""

    name = "NotSupportedError"


class SyntaxError_(RtcError):  # noqa: N801 -- Python's own SyntaxError is something else
    """A string does not have the form that it must have."""

    name = "SyntaxError"


class SdpError(OperationError):
    """A session description is not valid SDP (W3C RTCError, ``errorDetail`` "sdp-syntax-error").

    ``sdpLineNumber`` counts from 1; None where the fault is not in one line.
    """

    errorDetail: ClassVar[str] = "sdp-syntax-error"

    def __init__(self, message: str, line_number: int | None = None) -> None:
        super().__init__(message if line_number is None else f"line {line_number}: {message}")
        self.sdpLineNumber = line_number
