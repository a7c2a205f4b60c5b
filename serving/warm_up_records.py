"""Warm-up files: TFRecord files of PredictionLog, the requests that a model server runs before a version is available.

Its place in the flow: an export or an operator writes one into a version; TensorFlow Serving and the
embedded server read it while they load. A record is framed as length (8 bytes, little-endian), masked
CRC-32C of the length, data, masked CRC-32C of the data.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import google_crc32c

from artifact_sync.durable import write_durably
from artifact_sync.errors import InputError, IntegrityError
from serving.protos import tfs_pb2

WARM_UP_PATH = Path("assets.extra/tf_serving_warmup_requests")
"""Where a version has its warm-up file."""

MAX_RECORDS = 1000
"""How many a model server takes; with more it refuses the version."""

WarmUpRequest: TypeAlias = (
    tfs_pb2.PredictRequest | tfs_pb2.ClassificationRequest | tfs_pb2.RegressionRequest | tfs_pb2.MultiInferenceRequest
)

_HEAD_BYTES = 12
_CRC_BYTES = 4


def write_warm_up_requests(path: Path, requests: Iterable[WarmUpRequest]) -> None:
    """Create or replace the warm-up file at `path`.

    Args:
        path: the file, which stands at WARM_UP_PATH in a version.
        requests: what to run, in this order; the name of the model in them does not count.

    Raises:
        InputError: there are more than a model server takes; nothing is written.
    """
    records = [_log_of(request).SerializeToString(deterministic=True) for request in requests]
    if len(records) > MAX_RECORDS:
        raise InputError(
            f"Warm-up file refused: {len(records)} requests, and a model server takes {MAX_RECORDS}. Leave some out."
        )
    write_durably(path, b"".join(_framed(record) for record in records))


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file.

    Raises:
        IntegrityError: the file is cut or a checksum is wrong.
    """
    damaged = IntegrityError(f"TFRecord file {path} refused: it is cut, changed or not a TFRecord file.")
    with path.open("rb") as stream:
        left_bytes = os.fstat(stream.fileno()).st_size
        while head := stream.read(_HEAD_BYTES):
            if len(head) < _HEAD_BYTES or head[8:] != _masked_crc(head[:8]):
                raise damaged
            (size_bytes,) = struct.unpack("<Q", head[:8])
            left_bytes -= _HEAD_BYTES + size_bytes + _CRC_BYTES
            # Before anything is read: a length alone takes no memory.
            if left_bytes < 0:
                raise damaged
            data = stream.read(size_bytes)
            if stream.read(_CRC_BYTES) != _masked_crc(data):
                raise damaged
            yield data


def _log_of(request: WarmUpRequest) -> tfs_pb2.PredictionLog:
    if isinstance(request, tfs_pb2.PredictRequest):
        return tfs_pb2.PredictionLog(predict_log=tfs_pb2.PredictLog(request=request))
    if isinstance(request, tfs_pb2.ClassificationRequest):
        return tfs_pb2.PredictionLog(classify_log=tfs_pb2.ClassifyLog(request=request))
    if isinstance(request, tfs_pb2.RegressionRequest):
        return tfs_pb2.PredictionLog(regress_log=tfs_pb2.RegressLog(request=request))
    return tfs_pb2.PredictionLog(multi_inference_log=tfs_pb2.MultiInferenceLog(request=request))


def _framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked_crc(length), data, _masked_crc(data)))


def _masked_crc(data: bytes) -> bytes:
    crc: int = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
