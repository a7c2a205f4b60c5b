"""Warm-up: the requests that an export brings along, run before its version is available.

Its place in the flow: the last part of a load; the first user's request finds everything prepared.
Whatever goes wrong here fails the load, as in TensorFlow Serving.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from artifact_sync.errors import IntegrityError
from serving.embedded_server.catalogue import LoadedModel
from serving.embedded_server.example_methods import CLASSIFY, REGRESS
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.multi_inference import run_multi_inference
from serving.embedded_server.predict import run_predict
from serving.embedded_server.status import Code, StatusError, invalid_argument
from serving.protos import tfs_pb2
from serving.warm_up_records import MAX_RECORDS, WARM_UP_PATH, read_records


def warm_up(
    model: LoadedModel,
    version_path: Path,
    *,
    iterations: int,
    is_method_name_checked: bool = False,
    metrics: Metrics | None = None,
) -> int:
    """Run every warm-up request of a version; without a warm-up file there are none.

    Args:
        model: the version, loaded and not yet available.
        version_path: its directory.
        iterations: how often each request is run.
        is_method_name_checked: whether signatures have to call themselves of the method they are used by.
        metrics: is told how it went, where there was a file.

    Returns:
        how many records there were.

    Raises:
        StatusError: the file is damaged, too long or of an unknown kind, or a request fails.
    """
    path = version_path / WARM_UP_PATH
    if not path.is_file():
        return 0
    started = time.perf_counter()
    count = 0
    status = Code.UNKNOWN
    try:
        for log in _logs(path):
            for _ in range(max(1, iterations)):
                _run(model, log, is_method_name_checked=is_method_name_checked)
            count += 1
        status = Code.OK
    except StatusError as error:
        status = error.code
        raise
    finally:
        if metrics is not None:
            microseconds = (time.perf_counter() - started) * 1e6
            metrics.warm_up(path=str(version_path), status=status, records=count, microseconds=microseconds)
    return count


def _logs(path: Path) -> Iterator[tfs_pb2.PredictionLog]:
    try:
        for number, record in enumerate(read_records(path), start=1):
            if number > MAX_RECORDS:
                raise invalid_argument(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
            yield tfs_pb2.PredictionLog.FromString(record)
    except IntegrityError as error:
        raise StatusError(Code.DATA_LOSS, f"{error} Please verify your warmup data is in TFRecord format.") from None
    except DecodeError as error:
        raise invalid_argument(f"Failed to parse warmup record: {error} from {path}") from None


def _run(model: LoadedModel, log: tfs_pb2.PredictionLog, *, is_method_name_checked: bool) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        run_predict(model, log.predict_log.request, timeout_seconds=None)
    elif kind == "classify_log":
        request = log.classify_log.request
        CLASSIFY.run(model, request, timeout_seconds=None, is_method_name_checked=is_method_name_checked)
    elif kind == "regress_log":
        REGRESS.run(model, log.regress_log.request, timeout_seconds=None, is_method_name_checked=is_method_name_checked)
    elif kind == "multi_inference_log":
        run_multi_inference(
            model, log.multi_inference_log.request, timeout_seconds=None, is_method_name_checked=is_method_name_checked
        )
    elif kind is not None:
        number = tfs_pb2.PredictionLog.DESCRIPTOR.fields_by_name[kind].number
        raise StatusError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")
