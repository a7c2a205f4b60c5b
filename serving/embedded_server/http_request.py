"""HTTP/1.1 requests out of a connection's bytes, strictly: what can be read in two ways is refused.

Its place in the flow: http_server feeds it whatever arrives, in whatever pieces, and takes whole
requests out. It knows no sockets. After a refusal nothing that follows on the connection can be
trusted to begin where a request begins, so that the connection ends.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_HEADER_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\x00]*?)[ \t]*")
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\x00]*)?")
_MAX_CHUNK_LINE_BYTES = 1024
_ONLY_ONCE = ("content-length", "transfer-encoding", "host")


@dataclass(frozen=True)
class HttpLimits:
    """How large the parts of a request may be, in bytes."""

    target: int = 8 * 1024
    headers: int = 64 * 1024
    body: int = 256 * 1024 * 1024


@dataclass
class HttpRequest:
    """One whole request; names of headers are in lower case.

    Whoever reads the body may take it out, so that a large one does not stay while it is worked on.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | bytearray = b""
    is_keep_alive: bool = True
    received_at: float = field(default_factory=time.monotonic)


class HttpError(Exception):
    """The connection's bytes are no request that is taken; it ends with this status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


Stage = Literal["idle", "head", "body"]


class RequestReader:
    """The requests of one connection, one after the other.

    Args:
        limits: what is taken.
    """

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._head: HttpRequest | None = None
        self._length: int | None = None
        self._chunks: _Chunks | None = None
        self._searched = 0
        self.is_continue_wanted = False

    @property
    def stage(self) -> Stage:
        """What it waits for: a request, the rest of its head, the rest of its body."""
        if self._head is not None:
            return "body"
        return "head" if self._buffer else "idle"

    @property
    def buffered_bytes(self) -> int:
        """How much memory the part that has come takes."""
        return len(self._buffer) + (len(self._chunks.body) if self._chunks else 0)

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        self._buffer += data

    def next_request(self) -> HttpRequest | None:
        """Return the next request once all of it is there.

        After a head that asks for it, `is_continue_wanted` is set until the body is there.

        Raises:
            HttpError: the bytes are refused.
        """
        if self._head is None:
            self._read_head()
        if self._head is None:
            return None
        body = self._read_body()
        if body is None:
            return None
        head, self._head, self._length, self._chunks = self._head, None, None, None
        self.is_continue_wanted = False
        return HttpRequest(head.method, head.target, head.headers, body, head.is_keep_alive)

    def _read_head(self) -> None:
        buffer = self._buffer
        # Clients of old send an empty line after a body.
        while buffer[:2] == b"\r\n":
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        self._searched = len(buffer)
        first = buffer.find(b"\n", 0, self._limits.target + 256)
        if (first if first >= 0 else len(buffer)) > self._limits.target + 32:
            raise HttpError(414, f"The request's address is longer than {self._limits.target} bytes")
        if (end if end >= 0 else len(buffer)) > self._limits.headers:
            raise HttpError(431, f"The request's headers are longer than {self._limits.headers} bytes")
        if end < 0:
            if b"\n\n" in buffer or (first >= 0 and (first == 0 or buffer[first - 1] != 0x0D)):
                raise HttpError(400, "A line of the request's head does not end with CR LF")
            return
        lines = bytes(buffer[:end]).split(b"\r\n")
        del buffer[: end + 4]
        self._searched = 0
        self._head = _parse_head(lines)
        self._frame_body(self._head.headers)

    def _frame_body(self, headers: Mapping[str, str]) -> None:
        length, encoding = headers.get("content-length"), headers.get("transfer-encoding")
        if encoding is not None:
            if length is not None:
                raise HttpError(400, "A request has either a Content-Length or a Transfer-Encoding, not both")
            if encoding.lower() != "chunked":
                raise HttpError(501, "The only Transfer-Encoding that is known here is chunked")
            self._chunks = _Chunks(self._limits)
        else:
            if length is not None and not _LENGTH.fullmatch(length):
                raise HttpError(400, "The Content-Length is not a number of bytes")
            self._length = int(length or 0)
            if self._length > self._limits.body:
                raise HttpError(413, f"The body is longer than {self._limits.body} bytes")
        expectation = headers.get("expect")
        if expectation is not None:
            if expectation.lower() != "100-continue":
                raise HttpError(417, "The only Expect that is known here is 100-continue")
            self.is_continue_wanted = bool(encoding or self._length)

    def _read_body(self) -> bytes | bytearray | None:
        if self._chunks is not None:
            return self._chunks.take(self._buffer)
        assert self._length is not None, "a head without chunks has a length"
        if len(self._buffer) < self._length:
            return None
        if len(self._buffer) == self._length:
            # The usual case, and for a large body it is not copied.
            body, self._buffer = self._buffer, bytearray()
            return body
        found = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        return found


class _Chunks:
    """A body in chunks; trailers are read and dropped."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._missing = 0
        self._stage: Literal["size", "data", "trailers"] = "size"
        self._trailer_bytes = 0
        self.body = bytearray()

    def take(self, buffer: bytearray) -> bytearray | None:
        """Move what has come from the buffer; return the body once it is whole."""
        while True:
            if self._stage == "data":
                if not self._take_data(buffer):
                    return None
                continue
            end = buffer.find(b"\r\n", 0, _MAX_CHUNK_LINE_BYTES + 2)
            if end < 0:
                if len(buffer) > _MAX_CHUNK_LINE_BYTES:
                    raise HttpError(400, "A line between the chunks is too long")
                return None
            line = bytes(buffer[:end])
            del buffer[: end + 2]
            if self._stage == "size":
                self._begin_chunk(line)
            elif self._is_end(line):
                return self.body

    def _begin_chunk(self, line: bytes) -> None:
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise HttpError(400, "A chunk's size is not a hexadecimal number")
        self._missing = int(match[1], 16)
        if len(self.body) + self._missing > self._limits.body:
            raise HttpError(413, f"The body is longer than {self._limits.body} bytes")
        self._stage = "data" if self._missing else "trailers"

    def _take_data(self, buffer: bytearray) -> bool:
        if self._missing:
            taken = min(self._missing, len(buffer))
            self.body += buffer[:taken]
            del buffer[:taken]
            self._missing -= taken
        if self._missing or len(buffer) < 2:
            return False
        if buffer[:2] != b"\r\n":
            raise HttpError(400, "A chunk does not end where its size says")
        del buffer[:2]
        self._stage = "size"
        return True

    def _is_end(self, line: bytes) -> bool:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > self._limits.headers:
            raise HttpError(431, "The trailers after the chunks are too long")
        return not line


def _parse_head(lines: list[bytes]) -> HttpRequest:
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise HttpError(400, "The first line is not that of an HTTP request")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise HttpError(505, "This server speaks HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        found = _HEADER_LINE.fullmatch(line)
        if found is None:
            raise HttpError(400, "A line of the request's head is not a header")
        name, value = found[1].decode("latin-1").lower(), found[2].decode("latin-1")
        if name in headers and name in _ONLY_ONCE:
            raise HttpError(400, f"The header {name} stands there more than once")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "transfer-encoding" in headers and minor == b"0":
        raise HttpError(400, "HTTP/1.0 has no Transfer-Encoding")
    words = {word.strip().lower() for word in headers.get("connection", "").split(",")}
    is_keep_alive = "close" not in words and (minor != b"0" or "keep-alive" in words)
    return HttpRequest(method.decode(), _origin_form(target.decode()), headers, b"", is_keep_alive)


def _origin_form(target: str) -> str:
    """Return the path of "http://host/path", as proxies send it."""
    match = re.match(r"https?://[^/?#]*", target, re.IGNORECASE)
    return (target[match.end() :] or "/") if match else target
