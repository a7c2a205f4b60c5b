"""One HTTP/2 session without its socket: bytes in, news of streams out; answers in, bytes out.

Its place in the flow: http2_connection.py feeds it; nghttp2 does HTTP/2 itself (frames, HPACK, flow
control, the order of things). The callbacks only note what came: what follows from it is done
after `receive` has returned, where an exception has somewhere to go and nghttp2 may be called.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from serving.embedded_server.http2_stream import Http2Limits, Stream
from serving.embedded_server.nghttp2_library import FrameHeader, HeaderBlock, Http2, nghttp2_library

_WANTED_HEADERS = frozenset((b":path", b":method", b"content-type", b"grpc-timeout", b"grpc-encoding"))
_PATH = b":path"
_CONNECTION_WINDOW_BYTES = 32 << 20
_STREAM_WINDOW_BYTES = 8 << 20
_FRAME_BYTES = 1 << 20
_OUTPUT_BYTES = 256 << 10
# Pings, settings, priorities, resets and empty data frames between two calls of `calm_down`.
_MAX_CONTROL_FRAMES = 2_000
# Streams that a client may reset at once, and how many more each second.
_RESETS_AT_ONCE, _RESETS_PER_SECOND = 5_000, 1_000

_DATA, _HEADERS, _PING, _WINDOW_UPDATE = Http2.DATA, Http2.HEADERS, Http2.PING, Http2.WINDOW_UPDATE
_END_STREAM, _ACK = Http2.END_STREAM, Http2.ACK
_string_at, _memmove, _frame_at = ctypes.string_at, ctypes.memmove, FrameHeader.from_address


class Http2Error(Exception):
    """The peer has broken HTTP/2 beyond repair, or floods; nothing but closing is left."""


class Http2Session:
    """A server's end of one connection; for one thread at a time.

    Attributes:
        streams: those that are open, by their ids.
        is_greeted: the peer has sent settings, so it speaks HTTP/2.
        is_ping_answered: the peer has answered the ping of `announce_end`.
    """

    def __init__(self, limits: Http2Limits) -> None:
        self._library = nghttp2_library()
        self._limits = limits
        self.streams: dict[int, Stream] = {}
        self.is_greeted = False
        self.is_ping_answered = False
        self._news: list[Stream] = []
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._control_frames = 0
        self._resets_after_output: list[int] = []
        self._pointer = ctypes.c_void_p()
        self._pointer_reference = ctypes.byref(self._pointer)
        self._session: Any = self._library.new_session(_callbacks(), _options(), owner=self)
        self._library.submit_settings(
            self._session,
            {
                Http2.MAX_CONCURRENT_STREAMS: limits.max_streams,
                Http2.INITIAL_WINDOW_SIZE: _STREAM_WINDOW_BYTES,
                Http2.MAX_FRAME_SIZE: _FRAME_BYTES,
                Http2.MAX_HEADER_LIST_SIZE: limits.max_header_bytes,
            },
        )
        self._library.set_window_bytes(self._session, 0, 0, _CONNECTION_WINDOW_BYTES)

    def receive(self, address: int, size: int) -> list[Stream]:
        """Take bytes from the peer; return the streams with news, in their order.

        Raises:
            Http2Error: the connection is of no more use.
        """
        news: list[Stream] = []
        self._news = news
        taken = self._library.receive(self._session, address, size)
        if taken < 0:
            raise Http2Error(self._library.error_text(taken))
        if self._control_frames > _MAX_CONTROL_FRAMES:
            raise Http2Error("a flood of frames that ask for nothing")
        return news

    def take_output(self) -> bytes:
        """Return the next bytes for the peer, some hundred KB at most; b"": there are none now.

        Raises:
            Http2Error: the connection is of no more use.
        """
        send, session, pointer, reference = self._library.send, self._session, self._pointer, self._pointer_reference
        parts: list[bytes] = []
        left = _OUTPUT_BYTES
        while left > 0:
            size = send(session, reference)
            if size < 0:
                raise Http2Error(self._library.error_text(size))
            if not size:
                if not self._resets_after_output:
                    break
                self._submit_resets()
                continue
            parts.append(_string_at(pointer.value or 0, size))
            left -= size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _submit_resets(self) -> None:
        for stream_id in self._resets_after_output:
            if stream_id in self.streams:
                self._library.submit_reset(self._session, 0, stream_id, Http2.NO_ERROR)
        self._resets_after_output.clear()

    def is_over(self) -> bool:
        """Whether nothing will come or go any more, so that the connection should be closed."""
        # In this order: nearly always the first answer is enough.
        return not self._library.wants_to_read(self._session) and not self._library.wants_to_write(self._session)

    def respond(self, stream: Stream, headers: HeaderBlock, *, body: bytes, trailers: HeaderBlock | None) -> None:
        """Begin the answer of an open stream; without trailers more of it comes by `write`."""
        stream.is_answered, stream.since = True, None
        stream.body, stream.trailers = body, trailers
        self._library.submit_response(self._session, stream.id, headers.array, headers.count, _body_source())

    def write(self, stream: Stream, body: bytes, *, trailers: HeaderBlock | None = None) -> None:
        """Add to an answer that has begun; trailers end it."""
        stream.since = None
        stream.body, stream.offset, stream.trailers = stream.body[stream.offset :] + body, 0, trailers
        self._library.resume_data(self._session, stream.id)

    def refuse(self, stream: Stream, headers: HeaderBlock) -> None:
        """Answer an open stream with headers alone; what the client has yet to say is not listened to."""
        stream.is_answered, stream.since = True, None
        stream.chunks.clear()
        self._library.submit_response(self._session, stream.id, headers.array, headers.count, None)
        if not stream.is_complete:
            # nghttp2 would drop headers that wait behind a reset.
            self._resets_after_output.append(stream.id)

    def reset(self, stream: Stream) -> None:
        """Break an open stream off."""
        self._library.submit_reset(self._session, 0, stream.id, Http2.CANCEL)

    def announce_end(self) -> None:
        """Ask the peer to open no more streams, and to answer a ping: then it has heard of it."""
        self._library.submit_shutdown_notice(self._session)
        self._library.submit_ping(self._session, 0, b"draining")

    def accept_no_more(self) -> None:
        """Tell the peer which stream is the last that is answered; later ones it may safely repeat elsewhere."""
        last = self._library.last_stream_id(self._session)
        self._library.submit_goaway(self._session, 0, last, Http2.NO_ERROR, None, 0)

    def calm_down(self) -> None:
        """Forget how many control frames came; to be called about once a second."""
        self._control_frames = 0

    def close(self) -> None:
        """Free what C holds; all streams are closed."""
        if self._session:
            self._library.delete_session(self._session)
            self._session = None
        for stream in self.streams.values():
            stream.is_open = False
        self.streams.clear()

    # What follows is called by C.

    @staticmethod
    def _on_begin_headers(_: int, frame: int, self: Http2Session) -> int:
        self._headers = {}
        self._header_bytes = 0
        return 0

    @staticmethod
    def _on_header(  # noqa: PLR0917  (C's order)
        _: int, frame: int, name: bytes, name_size: int, value: bytes, value_size: int, flags: int, self: Http2Session
    ) -> int:
        # A field costs its sender one byte when the table of HPACK holds it: this counts what it costs here.
        self._header_bytes += name_size + value_size + 32
        if self._header_bytes > self._limits.max_header_bytes:
            return Http2.REFUSE_STREAM
        if name in _WANTED_HEADERS:
            self._headers[name] = value
        return 0

    @staticmethod
    def _on_frame(_: int, frame: int, self: Http2Session) -> int:
        header = _frame_at(frame)
        kind = header.type
        if kind <= _HEADERS:  # or DATA, which is 0
            stream = self.streams.get(header.stream_id)
            if stream is None:
                if kind == _DATA:
                    return 0
                stream_id, headers = header.stream_id, self._headers
                is_heard_whole = headers.get(_PATH) in self._limits.paths_heard_whole
                stream = self.streams[stream_id] = Stream(stream_id, headers, is_heard_whole=is_heard_whole)
            if header.flags & _END_STREAM:
                stream.is_complete = True
                self._news.append(stream)
            elif not stream.is_heard_whole:
                self._news.append(stream)
            elif kind == _DATA and not header.length:
                self._control_frames += 1
        elif kind != _WINDOW_UPDATE:
            self._control_frames += 1
            self.is_greeted = True
            if kind == _PING and header.flags & _ACK:
                self.is_ping_answered = True
        return 0

    @staticmethod
    def _on_data(_: int, flags: int, stream_id: int, data: int, size: int, self: Http2Session) -> int:
        stream = self.streams.get(stream_id)
        if stream is None:
            return 0
        before, limits = stream.received_bytes, self._limits
        stream.received_bytes = before + size
        if stream.received_bytes > limits.max_body_bytes:
            if before <= limits.max_body_bytes:
                # The chunk that goes too far is news at once, the ones after it are not.
                stream.chunks.clear()
                self._news.append(stream)
        elif before or size <= limits.prefix_bytes:
            stream.chunks.append(_string_at(data, size))
        else:
            prefix = limits.prefix_bytes
            stream.chunks = [_string_at(data, prefix), _string_at(data + prefix, size - prefix)]
        return 0

    @staticmethod
    def _on_stream_close(_: int, stream_id: int, code: int, self: Http2Session) -> int:
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            stream.is_open = False
        return 0

    @staticmethod
    def _read_body(  # noqa: PLR0917  (C's order)
        session: int, stream_id: int, buffer: int, size: int, flags: Any, source: int, self: Http2Session
    ) -> int:
        stream = self.streams[stream_id]
        body, offset = stream.body, stream.offset
        left = len(body) - offset
        if left > size:
            _memmove(buffer, body[offset : offset + size], size)
            stream.offset = offset + size
            return size
        _memmove(buffer, body[offset:] if offset else body, left)
        stream.body, stream.offset = b"", 0
        trailers = stream.trailers
        if trailers is None:
            return left or Http2.DEFERRED
        flags[0] = Http2.DATA_EOF | Http2.DATA_NO_END_STREAM
        self._library.submit_trailer(session, stream_id, trailers.array, trailers.count)
        return left


@cache
def _callbacks() -> Any:
    return nghttp2_library().callbacks(
        {
            "on_begin_headers": Http2Session._on_begin_headers,
            "on_header": Http2Session._on_header,
            "on_frame_recv": Http2Session._on_frame,
            "on_data_chunk_recv": Http2Session._on_data,
            "on_stream_close": Http2Session._on_stream_close,
        }
    )


@cache
def _body_source() -> Any:
    return nghttp2_library().data_source(Http2Session._read_body)


@cache
def _options() -> Any:
    return nghttp2_library().options(
        # Closed streams are of interest to priorities only, which gRPC does not use.
        no_closed_streams=1,
        stream_reset_rate_limit=(_RESETS_AT_ONCE, _RESETS_PER_SECOND),
    )
