"""One gRPC call, from its complete request to its answer.

Its place in the flow: grpc_dispatch.py makes one for each request and gives its `reply` to the
method's handler, which may use it from any thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeAlias

from google.protobuf.message import DecodeError, Message

from serving.embedded_server import grpc_framing
from serving.embedded_server.grpc_method import Method
from serving.embedded_server.http2_connection import Http2Connection
from serving.embedded_server.http2_stream import Stream
from serving.embedded_server.status import Code, StatusError

_LOG = logging.getLogger(__name__)

Answer: TypeAlias = bytes | StatusError
"""A framed message, or why there is none."""

Post: TypeAlias = Callable[["Call", Answer], None]
"""Takes an answer in any thread, for the thread that serves the connections."""


class Call:
    """A request on its way to an answer.

    Attributes:
        deadline: when the client stops waiting, in time.monotonic()'s seconds; None: never.
    """

    __slots__ = ("_is_replied", "_post", "connection", "deadline", "stream")

    def __init__(
        self,
        connection: Http2Connection,
        stream: Stream,
        *,
        deadline: float | None,
        post: Post,
    ) -> None:
        self.connection = connection
        self.stream = stream
        self.deadline = deadline
        self._post = post
        self._is_replied = False

    def reply(self, answer: Message | StatusError) -> None:
        """Take the answer, once, in any thread; what comes after the client has gone is thrown away."""
        if self._is_replied:
            _LOG.error("a call was answered twice; the second answer is thrown away: %.200s", answer)
            return
        self._is_replied = True
        self._post(self, _framed(answer))

    def run(self, method: Method, message: bytes) -> None:
        """Parse the request and begin to work on it; every failure becomes the answer."""
        try:
            if self.deadline is None:
                timeout_seconds = None
            else:
                timeout_seconds = self.deadline - time.monotonic()
                if timeout_seconds <= 0:
                    return self.reply(deadline_exceeded())
            method.handle(_parsed(method, message), timeout_seconds, self.reply)
        except StatusError as error:
            self.reply(error)
        except Exception as error:  # noqa: BLE001  (the edge of a request: one bug may not end the server)
            _LOG.exception("a request failed unexpectedly")
            self.reply(StatusError(Code.INTERNAL, f"Internal error; see the server's log: {error}"))
        return None

    def run_later(self, method: Method, message: bytes, *, unpack: Callable[[bytes], bytes] | None) -> None:
        """Do the same in a thread of the pool, after `unpack`; a call that nobody waits for is dropped."""
        if not self.stream.is_open:
            return self.reply(StatusError(Code.CANCELLED, "The client has cancelled the call."))
        if unpack is not None:
            try:
                message = unpack(message)
            except StatusError as error:
                return self.reply(error)
        return self.run(method, message)


def deadline_exceeded() -> StatusError:
    """Return the error for an answer that does not come in time."""
    return StatusError(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")


def _parsed(method: Method, message: bytes) -> Message:
    try:
        return method.request_type.FromString(message)
    except DecodeError as error:
        # The code is that of gRPC's C++ servers, whose message is empty.
        raise StatusError(
            Code.INTERNAL, f"The request is not a serialized {method.request_type.DESCRIPTOR.name}: {error}"
        ) from None


def _framed(answer: Message | StatusError) -> Answer:
    if isinstance(answer, StatusError):
        return answer
    try:
        return grpc_framing.framed(answer.SerializeToString())
    except Exception as error:  # noqa: BLE001  (longer than a message can be, or not one)
        _LOG.exception("an answer cannot be sent")
        return StatusError(Code.INTERNAL, f"The answer cannot be serialized: {error}")
