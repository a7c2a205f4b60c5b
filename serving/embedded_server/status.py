"""The canonical status codes, and the one error that travels through the embedded server.

Its place in the flow: raised anywhere while a request or a load is worked on; grpc_services and
rest turn it into their own form.
"""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """The codes that gRPC and TensorFlow share (google.rpc.Code)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class StatusError(Exception):
    """A code and a message, TensorFlow Serving's own wherever it has one for the case."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def invalid_argument(message: str) -> StatusError:
    """Return the error for a request that is wrong in itself."""
    return StatusError(Code.INVALID_ARGUMENT, message)


def failed_precondition(message: str) -> StatusError:
    """Return the error for a request that the current state forbids."""
    return StatusError(Code.FAILED_PRECONDITION, message)


def not_found(message: str) -> StatusError:
    """Return the error for a model, version or file that is not there."""
    return StatusError(Code.NOT_FOUND, message)
