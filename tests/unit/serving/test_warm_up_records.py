"""Warm-up files: what is written is read back, and what is damaged is refused before memory is taken."""

from __future__ import annotations

import struct
from pathlib import Path

import google_crc32c
import pytest

from artifact_sync.errors import InputError, IntegrityError
from serving.protos import tfs_pb2
from serving.warm_up_records import MAX_RECORDS, read_records, write_warm_up_requests

SPEC = tfs_pb2.ModelSpec(name="m", signature_name="s")
REQUESTS = (
    tfs_pb2.PredictRequest(model_spec=SPEC, output_filter=["y"]),
    tfs_pb2.ClassificationRequest(model_spec=SPEC),
    tfs_pb2.RegressionRequest(model_spec=SPEC),
    tfs_pb2.MultiInferenceRequest(tasks=[tfs_pb2.InferenceTask(model_spec=SPEC)]),
)
KINDS = ("predict_log", "classify_log", "regress_log", "multi_inference_log")


def test_requests_of_every_method_come_back_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "assets.extra/tf_serving_warmup_requests"
    write_warm_up_requests(path, iter(REQUESTS))
    logs = [tfs_pb2.PredictionLog.FromString(record) for record in read_records(path)]
    assert tuple(log.WhichOneof("log_type") for log in logs) == KINDS
    assert tuple(getattr(log, kind).request for log, kind in zip(logs, KINDS, strict=True)) == REQUESTS


def test_a_file_is_replaced_and_may_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_warm_up_requests(path, REQUESTS)
    write_warm_up_requests(path, ())
    assert path.read_bytes() == b""
    assert list(read_records(path)) == []
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_more_than_a_server_takes_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_warm_up_requests(path, [REQUESTS[0]] * MAX_RECORDS)
    whole = path.read_bytes()
    with pytest.raises(InputError, match="1001 requests, and a model server takes 1000"):
        write_warm_up_requests(path, [REQUESTS[0]] * (MAX_RECORDS + 1))
    assert path.read_bytes() == whole


def test_a_file_that_is_cut_anywhere_or_changed_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_warm_up_requests(path, REQUESTS[:2])
    whole = path.read_bytes()
    first_bytes = 12 + struct.unpack("<Q", whole[:8])[0] + 4
    for length in range(1, len(whole)):
        if length != first_bytes:  # There it is a file of one record.
            path.write_bytes(whole[:length])
            with pytest.raises(IntegrityError, match="refused: it is cut, changed or not a TFRecord file"):
                list(read_records(path))
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0x10]) + whole[index + 1 :])
        with pytest.raises(IntegrityError):
            list(read_records(path))


@pytest.mark.parametrize("size_bytes", [1, 2**40, 2**63, 2**64 - 1])
def test_a_length_alone_takes_no_memory(tmp_path: Path, size_bytes: int) -> None:
    length = struct.pack("<Q", size_bytes)
    crc = google_crc32c.value(length)
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    path = tmp_path / "file"
    path.write_bytes(length + struct.pack("<I", masked))
    with pytest.raises(IntegrityError):
        list(read_records(path))
