"""A transport that serves an echo service, and a client that sends frames made by hand."""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.wrappers_pb2 import BytesValue, DoubleValue, StringValue

from serving.embedded_server.grpc_dispatch import GrpcLimits
from serving.embedded_server.grpc_method import DialogueMethod, Method, Reply
from serving.embedded_server.grpc_transport import GrpcTransport
from serving.embedded_server.status import Code, StatusError

PATIENCE_SECONDS = 30
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8


@dataclass
class Echo:
    """Methods of every kind, and what they saw.

    Attributes:
        may_answer: `Wait` and `Block` answer when it is set.
        waiting: is set by each request to them.
        timeouts: the seconds left of each request to `Wait`.
    """

    may_answer: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    timeouts: list[float | None] = field(default_factory=list)
    bound: str = ""

    def methods(self) -> dict[str, Method | DialogueMethod]:
        return {
            "/test.Echo/Echo": Method(BytesValue, lambda request, _, reply: reply(request), is_blocking=False),
            "/test.Echo/Blocking": Method(BytesValue, lambda request, _, reply: reply(request), is_blocking=True),
            "/test.Echo/Wait": Method(BytesValue, self._wait, is_blocking=False),
            "/test.Echo/Block": Method(BytesValue, self._block, is_blocking=True),
            "/test.Echo/Zeros": Method(DoubleValue, self._zeros, is_blocking=False),
            "/test.Echo/Fail": Method(StringValue, self._fail, is_blocking=False),
            "/test.Echo/Bug": Method(BytesValue, self._bug, is_blocking=False),
            "/test.Echo/Twice": Method(BytesValue, self._twice, is_blocking=False),
            "/test.Echo/Talk": DialogueMethod(BytesValue, self._talk),
        }

    def _wait(self, request: BytesValue, timeout_seconds: float | None, reply: Reply) -> None:
        self.timeouts.append(timeout_seconds)

        def answer() -> None:
            self.may_answer.wait(PATIENCE_SECONDS)
            reply(request)

        threading.Thread(target=answer, daemon=True).start()
        self.waiting.release()

    def _block(self, request: BytesValue, _: float | None, reply: Reply) -> None:
        self.waiting.release()
        self.may_answer.wait(PATIENCE_SECONDS)
        reply(request)

    @staticmethod
    def _zeros(request: DoubleValue, _: float | None, reply: Reply) -> None:
        reply(BytesValue(value=bytes(int(request.value))))

    @staticmethod
    def _fail(request: StringValue, _: float | None, reply: Reply) -> None:
        raise StatusError(Code.FAILED_PRECONDITION, request.value)

    @staticmethod
    def _bug(request: BytesValue, _: float | None, reply: Reply) -> None:
        raise RuntimeError("a bug")

    @staticmethod
    def _twice(request: BytesValue, _: float | None, reply: Reply) -> None:
        reply(request)
        reply(BytesValue(value=b"the second answer"))

    @staticmethod
    def _talk(request: BytesValue) -> BytesValue:
        if request.value == b"stop":
            raise StatusError(Code.ABORTED, "stopped")
        return BytesValue(value=request.value.upper())


@contextmanager
def served(
    *, unix_path: Path | None = None, limits: GrpcLimits | None = None, tls: Any = None, max_threads: int = 4
) -> Iterator[tuple[Echo, GrpcTransport]]:
    """Serve an Echo, whose `bound` says where; all its waiting requests are let go in the end."""
    echo = Echo()
    transport = GrpcTransport(echo.methods(), max_threads=max_threads, limits=limits, tls=tls)
    echo.bound = transport.bind_tcp("127.0.0.1", 0) if unix_path is None else transport.bind_unix(unix_path)
    transport.start()
    try:
        yield echo, transport
    finally:
        echo.may_answer.set()
        transport.begin_drain(5)
        transport.wait_closed()


@dataclass
class Frame:
    """One frame that the server has sent."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[4:8] if self.kind == GOAWAY else self.payload[:4], "big")


class RawClient:
    """A connection on which everything can be said."""

    def __init__(self, bound: str, *, greets: bool = True) -> None:
        host, port = bound.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), PATIENCE_SECONDS)
        self.frames: list[Frame] = []
        self._inflater = _Inflater()
        self._unread = b""
        if greets:
            self.socket.sendall(PREFACE + frame(SETTINGS))

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def call(self, stream: int, body: bytes, *, method: str = "Echo", **fields: str) -> None:
        self.send(headers(stream, method, **fields), frame(DATA, END_STREAM, stream, body))

    def read_frame(self) -> Frame | None:
        """Return the next frame; None: the server has closed the connection."""
        head = self._read(9)
        if head is None:
            return None
        payload = self._read(int.from_bytes(head[:3], "big"))
        if payload is None:
            return None
        found = Frame(head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, payload)
        self.frames.append(found)
        return found

    def answer(self, stream: int) -> Answer:
        """Read until a stream is ended."""
        found = Answer()
        while True:
            read = self.read_frame()
            assert read is not None, "the connection was closed before the answer was whole"
            if read.kind == HEADERS:
                fields = self._inflater.fields(read.payload)
                if read.stream == stream:
                    found.fields.update(fields)
            if read.stream == stream and read.kind == DATA:
                found.body += read.payload
            if read.stream == stream and read.kind == RST_STREAM:
                found.reset_code = read.code
            if read.stream == stream and (read.kind == RST_STREAM or (read.kind < 2 and read.flags & END_STREAM)):
                return found

    def until_closed(self) -> list[Frame]:
        """Read to the end of the connection; return all frames that ever came."""
        try:
            while self.read_frame() is not None:
                pass
        except ConnectionError:
            pass  # closed while bytes of ours were on the way
        return self.frames

    def until(self, kind: int, flags: int = 0) -> Frame:
        while True:
            found = self.read_frame()
            assert found is not None, f"the connection was closed before a frame {kind}"
            if found.kind == kind and found.flags & flags == flags:
                return found

    def is_alive(self, stream: int) -> bool:
        """Whether a good request on this connection is answered."""
        self.call(stream, echo_body(b"alive"))
        return self.answer(stream).body == echo_body(b"alive")

    def _read(self, size: int) -> bytes | None:
        while len(self._unread) < size:
            more = self.socket.recv(1 << 16)
            if not more:
                return None
            self._unread += more
        found, self._unread = self._unread[:size], self._unread[size:]
        return found


@dataclass
class Answer:
    """What came on one stream."""

    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset_code: int | None = None

    @property
    def status(self) -> Code:
        return Code(int(self.fields["grpc-status"]))


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(stream: int, method: str = "Echo", *, flags: int = END_HEADERS, **fields: str) -> bytes:
    return frame(HEADERS, flags, stream, header_block(method, **fields))


def header_block(method: str = "Echo", **fields: str) -> bytes:
    """Return request headers as literals without indexing; `_` in names stands for `-`."""
    wanted = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/test.Echo/{method}",
        ":authority": "test",
        "te": "trailers",
        "content-type": "application/grpc",
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in wanted.items())


def echo_body(content: bytes) -> bytes:
    message = BytesValue(value=content).SerializeToString()
    return struct.pack(">BI", 0, len(message)) + message


def integer(value: int, *, prefix_bits: int = 7, first: int = 0) -> bytes:
    """Return an integer as HPACK writes it."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((first | value,))
    out, value = [first | limit], value - limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes((*out, value))


def _text(value: str) -> bytes:
    raw = value.encode("latin-1")
    return integer(len(raw)) + raw


class _Inflater:
    """HPACK's other half, by nghttp2: what the server's headers say."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libnghttp2.so.14")
        self._inflate = self._library.nghttp2_hd_inflate_hd2
        self._inflate.restype = ctypes.c_ssize_t
        self._inflate.argtypes = [*[ctypes.c_void_p] * 4, ctypes.c_size_t, ctypes.c_int]
        self._state = ctypes.c_void_p()
        self._library.nghttp2_hd_inflate_new(ctypes.byref(self._state))

    def fields(self, block: bytes) -> dict[str, str]:
        found: dict[str, str] = defaultdict(str)
        pair, flags = (ctypes.c_size_t * 5)(), ctypes.c_int()
        while True:
            source = ctypes.create_string_buffer(block, len(block))
            used = self._inflate(self._state, pair, ctypes.byref(flags), source, len(block), 1)
            assert used >= 0, "the server's header block is broken"
            block = block[used:]
            if flags.value & 2:
                name, value = ctypes.string_at(pair[0], pair[2]), ctypes.string_at(pair[1], pair[3])
                found[name.decode()] = value.decode("latin-1")
            if flags.value & 1:
                self._library.nghttp2_hd_inflate_end_headers(self._state)
                return dict(found)
