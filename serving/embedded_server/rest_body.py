"""A request's body: inflated where it is gzip, in memory once, and the large ones known.

Its place in the flow: rest.py makes one of each request; rest_answers takes its bytes out.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from serving.embedded_server.status import StatusError, invalid_argument

MAX_INFLATED_BYTES = 100 * 1024 * 1024
"""What a gzip body may be inflated to, as in the real server."""

_LARGE_BYTES = 16 * 1024 * 1024
_STEP_BYTES = 256 * 1024
_GZIP_WINDOW = 31


class RestBody:
    """A body that can be taken out once, so that it does not stay in memory while it is worked on.

    A gzip body is gone through when this is made, and only counted: a bomb is refused before its
    content takes any memory.

    Raises:
        StatusError: INVALID_ARGUMENT: it is no gzip, or too large.
    """

    def __init__(self, body: bytes | bytearray, *, content_encoding: str = "") -> None:
        self._body = body
        self._is_gzip = bool(body) and "gzip" in content_encoding
        size = _inflated_size(body) if self._is_gzip else len(body)
        self.is_large = size > _LARGE_BYTES

    def take(self) -> bytes | bytearray:
        """Return the content; it is not held here any more."""
        body, self._body = self._body, b""
        return b"".join(_inflated(body)) if self._is_gzip else body


def _inflated_size(body: bytes | bytearray) -> int:
    size = 0
    try:
        for piece in _inflated(body):
            size += len(piece)
            if size > MAX_INFLATED_BYTES:
                raise invalid_argument(f"The gzip body is longer than {MAX_INFLATED_BYTES} bytes when it is inflated")
    except zlib.error as error:
        raise _not_gzip(str(error)) from None
    return size


def _inflated(body: bytes | bytearray) -> Iterator[bytes]:
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    view = memoryview(body)
    for start in range(0, len(view), _STEP_BYTES):
        rest: bytes | memoryview = view[start : start + _STEP_BYTES]
        while rest and not inflater.eof:
            yield inflater.decompress(rest, _STEP_BYTES)
            rest = inflater.unconsumed_tail
    # What the inflater still holds comes out without input.
    while not inflater.eof:
        piece = inflater.decompress(b"", _STEP_BYTES)
        if not piece:
            raise _not_gzip("it ends too early")
        yield piece


def _not_gzip(why: str) -> StatusError:
    return invalid_argument(f"The body is not gzip, as its Content-Encoding says: {why}")
