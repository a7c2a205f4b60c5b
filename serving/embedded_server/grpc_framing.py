"""The form that gRPC gives to messages, status and deadlines on top of HTTP/2.

Its place in the flow: pure functions between HTTP/2 streams (bytes) and calls (messages, errors);
grpc_call.py and grpc_dispatch.py use them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from serving.embedded_server.status import Code, StatusError

PREFIX_BYTES = 5
_MAX_DETAILS = 1024
_PREFIX = struct.Struct(">BI")
_GZIP_WINDOW_BITS = 31
_TIMEOUT_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MAX_TIMEOUT_DIGITS = 8
_UNESCAPED = frozenset(range(0x20, 0x7F)) - {ord("%")}


def framed(message: bytes) -> bytes:
    """Return a message as it goes on a stream: not compressed, its length before it."""
    return _PREFIX.pack(0, len(message)) + message


def first_message(body: Sequence[bytes], *, max_bytes: int) -> tuple[bool, bytes, bytes] | None:
    """Take the first message of a body.

    Args:
        body: the bytes in the pieces in which they came.
        max_bytes: how long a message may be.

    Returns:
        whether the message is compressed, the message, and what follows it; None: it is not whole yet.

    Raises:
        StatusError: it is longer than allowed, or no message.
    """
    size = sum(map(len, body))
    if size < PREFIX_BYTES:
        return None
    flag, length = _PREFIX.unpack_from(body[0] if len(body[0]) >= PREFIX_BYTES else b"".join(body))
    check_length(length, max_bytes=max_bytes)
    if flag > 1:
        raise StatusError(Code.INTERNAL, f"Malformed request: the first byte of a message is {flag}, not 0 or 1.")
    end = PREFIX_BYTES + length
    if size < end:
        return None
    if size == end and len(body[0]) == PREFIX_BYTES:
        # The way in which bodies come: the prefix cut off already. A large message is not copied once more.
        return bool(flag), body[1] if len(body) == 2 else b"".join(body[1:]), b""
    whole = body[0] if len(body) == 1 else b"".join(body)
    return bool(flag), whole[PREFIX_BYTES:end], whole[end:]


def only_message(body: Sequence[bytes], *, max_bytes: int) -> tuple[bool, bytes]:
    """Take the one message of a complete unary request: whether it is compressed, and its bytes.

    Raises:
        StatusError: there is not exactly one, or it is longer than allowed.
    """
    if not body:
        raise StatusError(Code.INTERNAL, "No payload")
    found = first_message(body, max_bytes=max_bytes)
    if found is None:
        raise StatusError(Code.INTERNAL, "Malformed request: it ends before its message does.")
    is_compressed, message, rest = found
    if rest:
        raise StatusError(
            Code.UNIMPLEMENTED, f"This method takes one message; {len(rest)} bytes of others followed the first."
        )
    return is_compressed, message


def check_length(length: int, *, max_bytes: int) -> None:
    """Refuse a message by the length that it announces.

    Raises:
        StatusError: RESOURCE_EXHAUSTED.
    """
    if length > max_bytes:
        raise StatusError(Code.RESOURCE_EXHAUSTED, f"Received message larger than max ({length} vs. {max_bytes})")


def inflated(message: bytes, *, encoding: bytes, max_bytes: int) -> bytes:
    """Return a compressed message as it was before.

    Raises:
        StatusError: the encoding is not gzip, the bytes are not of that form, or there are too many.
    """
    if encoding != b"gzip":
        said = encoding.decode("ascii", errors="replace") or "identity"
        raise StatusError(Code.INTERNAL, f"Compressed flag set with {said} encoding")
    inflater = zlib.decompressobj(_GZIP_WINDOW_BITS)
    try:
        whole = inflater.decompress(message, max_bytes)
    except zlib.error as error:
        raise StatusError(Code.INTERNAL, f"Malformed request: its message is not gzip: {error}") from None
    if not inflater.eof and len(whole) >= max_bytes:
        raise StatusError(
            Code.RESOURCE_EXHAUSTED, f"Received message larger than max (more than {max_bytes} bytes when inflated)"
        )
    if not inflater.eof:
        raise StatusError(Code.INTERNAL, "Malformed request: its gzip message is cut off.")
    return whole


def timeout_seconds(header: bytes | None) -> float | None:
    """Return what a grpc-timeout header says ("100m" is 0.1); None: no limit.

    Raises:
        StatusError: INTERNAL: it is not of gRPC's form.
    """
    if header is None:
        return None
    digits, unit = header[:-1], header[-1:]
    if not digits.isdigit() or len(digits) > _MAX_TIMEOUT_DIGITS or unit not in _TIMEOUT_UNITS:
        text = header.decode("ascii", errors="replace")
        raise StatusError(Code.INTERNAL, f"Malformed grpc-timeout {text!r}: 1 to 8 digits and one of HMSmun are due.")
    return int(digits) * _TIMEOUT_UNITS[unit]


def is_grpc(content_type: bytes | None) -> bool:
    """Whether a content type announces gRPC: application/grpc, with "+proto" or parameters after it."""
    kind = (content_type or b"").lower()
    return kind == b"application/grpc" or kind.startswith((b"application/grpc+", b"application/grpc;"))


def status_fields(error: StatusError) -> list[tuple[bytes, bytes]]:
    """Return an error as header fields; long messages are cut as the real server cuts them."""
    fields = [(b"grpc-status", str(int(error.code)).encode())]
    if error.message:
        fields.append((b"grpc-message", percent_encoded(cut(error.message))))
    return fields


def cut(message: str) -> str:
    """Return the part of an error's message that is told."""
    return message if len(message) <= _MAX_DETAILS else f"{message[:_MAX_DETAILS]}...TRUNCATED"


def percent_encoded(text: str) -> bytes:
    """Return text as grpc-message carries it: printable ASCII, all else as %XX of its UTF-8."""
    raw = text.encode("utf-8", errors="replace")
    if _UNESCAPED.issuperset(raw):
        return raw
    return b"".join(bytes((byte,)) if byte in _UNESCAPED else b"%%%02X" % byte for byte in raw)
