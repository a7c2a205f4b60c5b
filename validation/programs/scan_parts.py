"""How many parts a protobuf message unfolds to, counted on its bytes before any of it is parsed.

Its place in the flow: model_scan.py asks before it parses a SavedModel: an empty node takes 2 bytes in the file and
hundreds in memory, so a cap on the file's size alone protects nobody.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SKIPPED = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BYTES = 10


class NotAMessageError(Exception):
    """The bytes are no protobuf message, or one of a form that no TensorFlow writes."""


def count_parts(content: bytes, message: type[Message], *, limit: int) -> int:
    """Return the number of sub-messages and strings that parsing would make; counting ends one above `limit`.

    Args:
        content: its bytes.
        message: its kind; fields that it does not know are kept as bytes by a parser and not counted.
        limit: how many parts are too many.

    Raises:
        NotAMessageError: the bytes cannot be read to their end.
    """
    count = 0
    pending: list[tuple[Any, int, int]] = [(message.DESCRIPTOR, 0, len(content))]
    while pending:
        kind, position, end = pending.pop()
        fields = _fields(kind)
        while position < end:
            tag, position = _varint(content, position, end)
            number, wire_type = tag >> 3, tag & 7
            if wire_type == _BYTES:
                size, start = _varint(content, position, end)
                position = start + size
                if number in fields:
                    count += 1
                    inner = fields[number]
                    if inner is not None and size:
                        pending.append((inner, start, position))
            elif wire_type == _VARINT:
                _, position = _varint(content, position, end)
            elif wire_type in _SKIPPED:
                position += _SKIPPED[wire_type]
            else:
                # Groups, which the format gave up before TensorFlow was written.
                raise NotAMessageError(f"field {number} has the wire type {wire_type}")
            if position > end:
                raise NotAMessageError(f"field {number} ends behind its message")
            if count > limit:
                return count
    return count


@cache
def _fields(descriptor: Any) -> dict[int, Any]:
    """Return what a message of this kind holds by number: the kind of a sub-message, or None for a string."""
    return {
        field.number: field.message_type
        for field in descriptor.fields
        if field.type in {FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}
    }


def _varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    """Return a number and the position behind it."""
    value = shift = 0
    if position < end and content[position] < 128:
        # Nearly always: small numbers take one byte.
        return content[position], position + 1
    for index in range(position, min(end, position + _VARINT_BYTES)):
        byte = content[index]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, index + 1
        shift += 7
    raise NotAMessageError(f"the number at byte {position} does not end")
