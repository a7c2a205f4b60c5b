"""One request on an HTTP/2 session and its answer, and what a client may ask for.

Its place in the flow: http2_session.py fills them in; the dispatcher reads them.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from serving.embedded_server.nghttp2_library import HeaderBlock


@dataclass(frozen=True)
class Http2Limits:
    """What one connection may ask for.

    Attributes:
        max_streams: requests at once.
        max_header_bytes: names and values of one request's headers, uncompressed.
        max_body_bytes: what of a request's body is kept; one that is longer shows by its `received_bytes`.
        prefix_bytes: where to cut the first chunk of a body, so that what follows need not be copied again.
        paths_heard_whole: requests to these paths are news only when they are complete.
    """

    max_streams: int
    max_header_bytes: int
    max_body_bytes: int
    prefix_bytes: int
    paths_heard_whole: Container[bytes]


class Stream:
    """One request and its answer.

    Attributes:
        chunks: the body as it came; whoever has used them clears the list.
        received_bytes: the length of the body so far, also of what was not kept.
        is_complete: the client has said all.
        is_open: neither finished nor reset.
        is_answered: an answer has begun.
        call, since: for the owner's use.
        body, offset, trailers: what the answer still is to say, from where on, and how it ends; for the session's use.
    """

    __slots__ = (
        *("id", "headers", "is_heard_whole", "chunks", "received_bytes", "is_complete", "is_open", "call"),
        *("since", "is_answered", "body", "offset", "trailers"),
    )

    def __init__(self, stream_id: int, headers: dict[bytes, bytes], *, is_heard_whole: bool) -> None:
        self.id = stream_id
        self.headers = headers
        self.is_heard_whole = is_heard_whole
        self.chunks: list[bytes] = []
        self.received_bytes = 0
        self.is_complete = False
        self.is_open = True
        self.is_answered = False
        self.call: Any = None
        self.since: float | None = None
        self.body = b""
        self.offset = 0
        self.trailers: HeaderBlock | None = None

    @property
    def is_ended(self) -> bool:
        """Whether nothing will be added to the answer."""
        return self.is_answered and self.trailers is not None

    @property
    def unsent_bytes(self) -> int:
        """How much of the answer waits for the client to take it."""
        return len(self.body) - self.offset
