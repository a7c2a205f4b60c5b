"""One connection of the HTTP server: its reader, what is still to be written, and when it has had its time.

Its place in the flow: http_server keeps one for each socket.
"""

from __future__ import annotations

import email.utils
import functools
import http
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from serving.embedded_server.http_request import HttpError, HttpLimits, RequestReader

_PHRASES = {499: "Client Closed Request"}
# So slow is no network; whoever sends or reads more slowly holds a connection for its own sake.
_LEAST_BYTES_PER_SECOND = 250_000


@dataclass(frozen=True)
class HttpTimes:
    """How long a connection may take over something, in seconds."""

    idle: float = 60.0
    head: float = 10.0
    transfer: float = 30.0
    closing: float = 2.0


@dataclass(frozen=True)
class HttpResponse:
    """An answer; the server adds what HTTP itself wants."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


ConnectionState = Literal["reading", "working", "writing", "closing"]


class HttpConnection:
    """What the server knows of one socket.

    Args:
        sock: the socket, which does not block.
        limits: of its requests.
        times: how long it may take.
    """

    def __init__(self, sock: socket.socket, *, limits: HttpLimits, times: HttpTimes) -> None:
        self.sock = sock
        self.reader = RequestReader(limits)
        self.state: ConnectionState = "reading"
        self.pending = memoryview(b"")
        self.is_last = False
        self.charged_bytes = 0
        self.refusal: HttpError | None = None
        self._times = times
        self._moved_bytes = 0
        self.since = time.monotonic()

    @property
    def is_idle(self) -> bool:
        """Whether it has asked nothing that is not answered."""
        return self.state == "reading" and self.reader.stage == "idle"

    def enter(self, state: ConnectionState) -> None:
        """Go on to something else; its time begins anew."""
        self.state = state
        self.since = time.monotonic()
        self._moved_bytes = 0

    def moved(self, count: int) -> None:
        """Note bytes that went over the socket: they earn it time."""
        self._moved_bytes += count

    def is_late(self, now: float) -> bool:
        """Return whether it has had its time."""
        if self.state == "working":
            return False
        allowed = self._times.transfer + self._moved_bytes / _LEAST_BYTES_PER_SECOND
        if self.state == "closing":
            allowed = self._times.closing
        elif self.state == "reading" and self.reader.stage != "body":
            allowed = self._times.idle if self.reader.stage == "idle" else self._times.head
        return now - self.since > allowed


def render(response: HttpResponse, *, is_head: bool, is_last: bool) -> bytes:
    """Return the bytes of an answer."""
    phrase = _PHRASES.get(response.status) or http.HTTPStatus(response.status).phrase
    lines = [
        f"HTTP/1.1 {response.status} {phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        f"Date: {_date(int(time.time()))}",
        *(f"{name}: {value}" for name, value in response.headers.items()),
    ]
    if is_last:
        lines.append("Connection: close")
    head = "\r\n".join([*lines, "", ""]).encode("ascii")
    return head if is_head else head + response.body


def error_response(status: int, message: str) -> HttpResponse:
    """Return a refusal in TensorFlow Serving's form."""
    body = '{\n    "error": ' + json.dumps(message, ensure_ascii=False) + "\n}"
    return HttpResponse(status, body.encode("utf-8", errors="replace"))


@functools.lru_cache(maxsize=2)
def _date(now: int) -> str:
    return email.utils.formatdate(now, usegmt=True)
