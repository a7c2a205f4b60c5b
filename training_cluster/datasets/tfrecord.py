"""TFRecord files of canonical pixels, written and read without TensorFlow.

Its place in the flow: dataset build writes shards and the export writes its warm-up records with
this; TensorFlow reads both. A record is framed as length (8 bytes little-endian), masked CRC-32C of
the length, data, masked CRC-32C of the data (TensorFlow's record_writer). A shard's records are
`tf.train.Example` messages with the features

    pixels   bytes, the row-major uint8 array [height, width, channels]
    label    int64, the index into the manifest's labels
    source   bytes, the SHA-256 of the photo's file as 32 bytes
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from artifact_sync.errors import IntegrityError
from training_cluster.protobuf_wire import field, map_entry, varint


def frame(data: bytes) -> bytes:
    """Return one record as it stands in a file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked_crc(length), data, _masked_crc(data)))


def read_frames(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the data of each record.

    Raises:
        IntegrityError: the file is cut or a checksum is wrong.
    """
    while head := stream.read(12):
        length = head[:8]
        if len(head) < 12 or head[8:] != _masked_crc(length):
            raise IntegrityError("TFRecord file refused: a record's length is cut or changed.")
        size_bytes = struct.unpack("<Q", length)[0]
        data = stream.read(size_bytes)
        if len(data) < size_bytes or stream.read(4) != _masked_crc(data):
            raise IntegrityError("TFRecord file refused: a record is cut or changed.")
        yield data


def example(*, pixels: bytes, label: int, source: bytes) -> bytes:
    """Return a serialized `tf.train.Example`; equal arguments give equal bytes."""
    features = (
        map_entry(b"label", field(3, field(1, varint(label)))),
        map_entry(b"pixels", field(1, field(1, pixels))),
        map_entry(b"source", field(1, field(1, source))),
    )
    return field(1, b"".join(field(1, feature) for feature in features))


def _masked_crc(data: bytes) -> bytes:
    crc: int = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def example_source(data: bytes) -> bytes:
    """Return the `source` of an example that `example` made: its feature comes last, and it is the feature's end.

    Raises:
        IntegrityError: it is no such example.
    """
    source = data[-32:]
    if not data.endswith(field(1, map_entry(b"source", field(1, field(1, source))))):
        raise IntegrityError("TFRecord file refused: a record was not written by `liftgate dataset build`.")
    return source
