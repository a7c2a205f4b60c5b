"""The few rules of protobuf's wire format that writing known messages takes.

Its place in the flow: examples of shards and warm-up requests are written with this, so that neither
dataset build needs TensorFlow nor a training host the messages of TensorFlow Serving. Equal
arguments give equal bytes.
"""

from __future__ import annotations


def field(number: int, payload: bytes) -> bytes:
    """Return a field of bytes, of a string, of a message or of packed numbers."""
    # Wire type 2: a length, then that many bytes.
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def map_entry(key: bytes, value: bytes) -> bytes:
    """Return one entry of a map from strings to messages."""
    return field(1, key) + field(2, value)


def varint(value: int) -> bytes:
    """Return a number that is not negative in the variable-length form."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
