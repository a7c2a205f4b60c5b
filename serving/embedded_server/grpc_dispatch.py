"""From HTTP/2 streams to method calls, and from answers back to streams.

Its place in the flow: grpc_transport.py hands over every stream with news, and every answer; all
of it happens in the thread that serves the connections, so nothing here waits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from google.protobuf.message import DecodeError

from serving.embedded_server import grpc_framing
from serving.embedded_server.grpc_call import Answer, Call, Post, deadline_exceeded
from serving.embedded_server.grpc_method import DialogueMethod, Method
from serving.embedded_server.http2_connection import Http2Connection
from serving.embedded_server.http2_stream import Http2Limits, Stream
from serving.embedded_server.nghttp2_library import HeaderBlock
from serving.embedded_server.status import Code, StatusError

_GRPC = (b"content-type", b"application/grpc")
_STATUS_200 = (b":status", b"200")
_ACCEPTED_ENCODINGS = (b"grpc-accept-encoding", b"identity,gzip")
_LONGEST_MESSAGE_BYTES = (1 << 32) - 1
# Messages that take longer than this to copy and parse are not worked on in the thread of all connections.
_QUICK_BYTES = 1 << 20
_DIALOGUE_BYTES = 1 << 20


@dataclass(frozen=True)
class GrpcLimits:
    """What clients may ask for.

    Attributes:
        max_request_bytes: how long a request may be; 0: no limit of ours.
        max_inflated_bytes: how long a compressed request may become, where that is less.
        max_streams: requests at once on one connection.
        max_header_bytes: headers of one request, uncompressed.
        greeting_seconds: how long TLS and the first HTTP/2 frame may take.
        transfer_seconds: how long a request may take to arrive, or an answer to be taken.
    """

    max_request_bytes: int = 0
    max_inflated_bytes: int = 256 << 20
    max_streams: int = 1_000
    max_header_bytes: int = 64 << 10
    greeting_seconds: float = 20.0
    transfer_seconds: float = 120.0

    @property
    def longest_message_bytes(self) -> int:
        """The limit for a request, whether one was set or not."""
        return self.max_request_bytes or _LONGEST_MESSAGE_BYTES


class GrpcDispatcher:
    """The methods of a server.

    Args:
        methods: by path.
        limits: what clients may ask for.
        executor: runs what may take longer.
    """

    def __init__(
        self,
        methods: Mapping[str, Method | DialogueMethod],
        *,
        limits: GrpcLimits,
        executor: Executor,
    ) -> None:
        self._methods = {path.encode(): method for path, method in methods.items()}
        self._limits = limits
        self._executor = executor
        self._headers = HeaderBlock((_STATUS_200, _GRPC))
        self._trailers = HeaderBlock(((b"grpc-status", b"0"),))

    def http2_limits(self) -> Http2Limits:
        """Return what a session has to know."""
        return Http2Limits(
            max_streams=self._limits.max_streams,
            max_header_bytes=self._limits.max_header_bytes,
            max_body_bytes=self._limits.longest_message_bytes + grpc_framing.PREFIX_BYTES,
            prefix_bytes=grpc_framing.PREFIX_BYTES,
            paths_heard_whole={path for path, method in self._methods.items() if isinstance(method, Method)},
        )

    def take(self, connection: Http2Connection, stream: Stream, post: Post) -> None:
        """Go on with a stream that has news; `post` takes answers from any thread and brings them to `answer`."""
        if not stream.is_open or stream.call is not None or stream.is_ended:
            return
        headers = stream.headers
        method = self._methods.get(headers.get(b":path", b""))
        try:
            if method is None or not _is_plain(headers):
                self._refuse_strangers(connection, stream, method, post)
            elif isinstance(method, Method):
                self._begin(connection, stream, method, post)
            else:
                self._go_on(connection, stream, method)
        except StatusError as error:
            self._fail(connection, stream, error)

    def answer(self, call: Call, answer: Answer) -> None:
        """Send what a handler has replied, if somebody still waits for it."""
        connection, stream = call.connection, call.stream
        connection.running -= 1
        if not stream.is_open or stream.is_answered:
            return
        if isinstance(answer, StatusError):
            self._fail(connection, stream, answer)
        else:
            connection.session.respond(stream, self._headers, body=answer, trailers=self._trailers)

    def sweep(self, connection: Http2Connection, *, now: float) -> None:
        """Answer what is past its deadline, and break off what does not get on."""
        late = now - self._limits.transfer_seconds
        for stream in list(connection.session.streams.values()):
            deadline = stream.call.deadline if stream.call is not None else None
            if stream.since is None:
                # Counted from the first look, so that a request in a hurry need not ask for the time.
                stream.since = now
            if stream.is_answered:
                if stream.since < late and (stream.is_ended or stream.unsent_bytes):
                    connection.session.reset(stream)
            elif deadline is not None and deadline <= now:
                self._fail(connection, stream, deadline_exceeded())
            elif stream.call is None and stream.since < late:
                seconds = f"{self._limits.transfer_seconds:g}"
                error = StatusError(Code.DEADLINE_EXCEEDED, f"The request did not arrive within {seconds} s.")
                self._fail(connection, stream, error)

    def abort(self, connection: Http2Connection) -> None:
        """Answer UNAVAILABLE to all that is not answered yet."""
        for stream in list(connection.session.streams.values()):
            if not stream.is_answered:
                self._fail(connection, stream, StatusError(Code.UNAVAILABLE, "The server is shutting down."))
            elif self._is_dialogue(stream):
                connection.session.reset(stream)

    def _begin(self, connection: Http2Connection, stream: Stream, method: Method, post: Post) -> None:
        limits = self._limits
        message_bytes = stream.received_bytes - grpc_framing.PREFIX_BYTES
        grpc_framing.check_length(message_bytes, max_bytes=limits.longest_message_bytes)
        if not stream.is_complete:
            return None
        is_compressed, message = grpc_framing.only_message(stream.chunks, max_bytes=limits.longest_message_bytes)
        stream.chunks.clear()
        encoding = _encoding(stream)
        timeout_seconds = grpc_framing.timeout_seconds(stream.headers.get(b"grpc-timeout"))
        if connection.running >= limits.max_streams:
            # Streams that were reset do not count as open, but the work for them may still go on.
            raise StatusError(
                Code.RESOURCE_EXHAUSTED, f"{connection.running} requests of this connection are still being worked on."
            )
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        call = Call(connection, stream, deadline=deadline, post=post)
        stream.call = call
        connection.running += 1
        if not (is_compressed or method.is_blocking or len(message) > _QUICK_BYTES):
            return call.run(method, message)
        max_bytes = min(limits.max_inflated_bytes, limits.longest_message_bytes)
        unpack = partial(grpc_framing.inflated, encoding=encoding, max_bytes=max_bytes) if is_compressed else None
        self._executor.submit(call.run_later, method, message, unpack=unpack)
        return None

    def _go_on(self, connection: Http2Connection, stream: Stream, method: DialogueMethod) -> None:
        session = connection.session
        if not stream.is_answered:
            session.respond(stream, self._headers, body=b"", trailers=None)
        limit = min(self._limits.longest_message_bytes, _DIALOGUE_BYTES)
        try:
            while (found := grpc_framing.first_message(stream.chunks, max_bytes=limit)) is not None:
                is_compressed, message, rest = found
                stream.chunks[:] = [rest] if rest else []
                if is_compressed:
                    message = grpc_framing.inflated(message, encoding=_encoding(stream), max_bytes=limit)
                answer = method.answer(method.request_type.FromString(message))
                session.write(stream, grpc_framing.framed(answer.SerializeToString()))
            stream.received_bytes = sum(map(len, stream.chunks))
        except (StatusError, DecodeError) as error:
            status = error if isinstance(error, StatusError) else StatusError(Code.INTERNAL, str(error))
            session.write(stream, b"", trailers=HeaderBlock(grpc_framing.status_fields(status)))
            return
        if stream.is_complete:
            session.write(stream, b"", trailers=self._trailers)
        elif stream.unsent_bytes > _DIALOGUE_BYTES:
            session.reset(stream)

    def _refuse_strangers(
        self,
        connection: Http2Connection,
        stream: Stream,
        method: Method | DialogueMethod | None,
        post: Post,
    ) -> None:
        headers = stream.headers
        if headers.get(b":method") != b"POST":
            return connection.session.refuse(stream, HeaderBlock(((b":status", b"405"), (b"allow", b"POST"))))
        if not grpc_framing.is_grpc(headers.get(b"content-type")):
            return connection.session.refuse(stream, HeaderBlock(((b":status", b"415"), (b"accept", _GRPC[1]))))
        if method is None:
            path = headers.get(b":path", b"").decode("utf-8", errors="replace")
            raise StatusError(Code.UNIMPLEMENTED, f"Method not found: {path}")
        # It was a content type such as application/grpc+proto.
        headers[b"content-type"] = _GRPC[1]
        return self.take(connection, stream, post)

    def _fail(self, connection: Http2Connection, stream: Stream, error: StatusError) -> None:
        fields = [_STATUS_200, _GRPC, *grpc_framing.status_fields(error)]
        if error.code is Code.UNIMPLEMENTED:
            fields.append(_ACCEPTED_ENCODINGS)
        connection.session.refuse(stream, HeaderBlock(fields))

    def _is_dialogue(self, stream: Stream) -> bool:
        return isinstance(self._methods.get(stream.headers.get(b":path", b"")), DialogueMethod)


def _is_plain(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"content-type") == b"application/grpc" and headers.get(b":method") == b"POST"


def _encoding(stream: Stream) -> bytes:
    encoding = stream.headers.get(b"grpc-encoding", b"identity")
    if encoding not in {b"identity", b"gzip"}:
        text = encoding.decode("ascii", errors="replace")
        raise StatusError(Code.UNIMPLEMENTED, f"Compression algorithm {text!r} is not supported; gzip is.")
    return encoding
