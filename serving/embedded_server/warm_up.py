"""Warm-up: the requests that an export brings along, run before its version is available.

Its place in the flow: the last part of a load; the first user's request finds everything prepared.
Whatever goes wrong here fails the load, as in TensorFlow Serving.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c
from google.protobuf.message import DecodeError

from serving.embedded_server.catalogue import LoadedModel
from serving.embedded_server.predict import run_predict
from serving.embedded_server.status import Code, StatusError, invalid_argument
from serving.protos import tfs_pb2

WARM_UP_PATH = Path("assets.extra/tf_serving_warmup_requests")
_MAX_RECORDS = 1000
_HEAD_BYTES = 12
_CRC_BYTES = 4


def warm_up(model: LoadedModel, version_path: Path, *, iterations: int) -> int:
    """Run every warm-up request `iterations` times; return how many records there were.

    Raises:
        StatusError: the file is damaged, too long or of an unknown kind, or a request fails.
    """
    path = version_path / WARM_UP_PATH
    if not path.is_file():
        return 0
    count = 0
    with path.open("rb") as stream:
        for record in _records(stream, path):
            count += 1
            if count > _MAX_RECORDS:
                raise invalid_argument(f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {path}")
            _run(model, record, iterations=max(1, iterations))
    return count


def _run(model: LoadedModel, record: bytes, *, iterations: int) -> None:
    try:
        log = tfs_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        raise invalid_argument(f"Failed to parse warmup record: {error}") from None
    kind = log.WhichOneof("log_type")
    if kind != "predict_log":
        number = tfs_pb2.PredictionLog.DESCRIPTOR.fields_by_name[kind].number if kind else 0
        raise StatusError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")
    for _ in range(iterations):
        run_predict(model, log.predict_log.request, timeout_seconds=None)


def _records(stream: BinaryIO, path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file: length, its checksum, data, its checksum."""
    damaged = StatusError(
        Code.DATA_LOSS, f"Failed to read warmup record at {path}. Please verify your warmup data is in TFRecord format."
    )
    while head := stream.read(_HEAD_BYTES):
        if len(head) < _HEAD_BYTES or head[8:] != _masked_crc(head[:8]):
            raise damaged
        data = stream.read(struct.unpack("<Q", head[:8])[0])
        if stream.read(_CRC_BYTES) != _masked_crc(data):
            raise damaged
        yield data


def _masked_crc(data: bytes) -> bytes:
    crc: int = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
