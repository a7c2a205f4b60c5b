"""Warm-up requests: run before a version is available, and a version whose warm-up fails does not come."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import client_lab
import pytest
import server_lab
import tiny_models

FILE = "assets.extra/tf_serving_warmup_requests"


def predict_log(**spec: Any) -> Any:
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(client_lab.predict_request("ignored", {"x": [1.0]}, **spec))
    return log


def classify_log(signature: str = "classify_x_to_y") -> Any:
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    log.classify_log.request.input.CopyFrom(client_lab.example_input([client_lab.example(x=1.0)]))
    client_lab.fill_spec(log.classify_log.request.model_spec, "ignored", signature=signature)
    return log


def regress_log(signature: str = "regress_x_to_y") -> Any:
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    log.regress_log.request.input.CopyFrom(client_lab.example_input([client_lab.example(x=1.0)]))
    client_lab.fill_spec(log.regress_log.request.model_spec, "ignored", signature=signature)
    return log


def multi_inference_log(signature: str = "regress_x_to_y") -> Any:
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    request = log.multi_inference_log.request
    request.input.CopyFrom(client_lab.example_input([client_lab.example(x=1.0)]))
    task = request.tasks.add(method_name="tensorflow/serving/regress")
    client_lab.fill_spec(task.model_spec, "ignored", signature=signature)
    return log


def session_run_log() -> Any:
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.request.model_spec.name = "ignored"
    return log


def bring(operator: Any, prepare: Callable[[Path], object]) -> Any:
    """Let version 2 appear beside version 1 after `prepare` was at it; return its status when it is settled."""
    operator.serve(1)
    version = operator.add("away", source="half_plus_two/123")
    (version / "assets.extra").mkdir()
    prepare(version)
    version.rename(operator.home / "own/2")
    operator.reload(operator.entry(versions=[1, 2]))
    settled = ("AVAILABLE", "END")
    operator.client.until(lambda: operator.states().get(2) in settled, lambda: str(operator.states()))
    return operator.client.status(operator.name)[2]


def written(*makers: Callable[[], Any]) -> Callable[[Path], object]:
    """Return what writes these logs; they are made late, for the messages import TensorFlow."""
    return lambda version: tiny_models.write_warm_up(version, *(make().SerializeToString() for make in makers))


@pytest.mark.parametrize(
    "prepare",
    [
        lambda version: None,
        lambda version: (version / FILE).write_bytes(b""),
        written(predict_log),
        written(partial(predict_log, version=77)),
        written(classify_log),
        written(regress_log),
        written(multi_inference_log),
        written(predict_log, classify_log, regress_log, multi_inference_log),
        written(*[predict_log] * 1000),
    ],
    ids=["none", "empty", "predict", "other version", "classify", "regress", "multi", "all kinds", "1000"],
)
def test_a_version_whose_warm_up_goes_well_is_available(operator: Any, prepare: Any) -> None:
    status = bring(operator, prepare)
    assert (status.state, status.status.error_code) == (30, 0), status
    assert client_lab.numbers(operator.client.predict(operator.name, version=2), "y") == [3.0]


@pytest.mark.parametrize(
    ("prepare", "code", "message"),
    [
        (
            written(*[predict_log] * 1001),
            "INVALID_ARGUMENT",
            "Number of warmup records exceeds the maximum (1000) at ",
        ),
        (
            lambda version: (version / FILE).write_bytes(b"this is no TFRecord, and longer than a header"),
            "DATA_LOSS",
            "Please verify your warmup data is in TFRecord format.",
        ),
        (
            lambda version: tiny_models.write_warm_up(version, b"\xff\xff\xff\xff no message"),
            "INVALID_ARGUMENT",
            "Failed to parse warmup record: ",
        ),
        (written(session_run_log), "UNIMPLEMENTED", "Unsupported log_type for warmup: "),
        (
            written(partial(predict_log, signature="none")),
            "FAILED_PRECONDITION",
            'Serving signature key "none" not found.',
        ),
        (
            written(predict_log, partial(classify_log, "none")),
            "INVALID_ARGUMENT",
            "No signature was found with the name: none",
        ),
        (
            written(partial(regress_log, "none")),
            "INVALID_ARGUMENT",
            "No signature was found with the name: none",
        ),
        (
            written(partial(multi_inference_log, "none")),
            "INVALID_ARGUMENT",
            "Requested signature not found in model graph: none",
        ),
    ],
    ids=["1001", "no TFRecord", "no message", "session run", "predict", "classify", "regress", "multi"],
)
def test_a_version_whose_warm_up_fails_does_not_come(operator: Any, prepare: Any, code: str, message: str) -> None:
    from tensorflow.core.protobuf import error_codes_pb2

    status = bring(operator, prepare)
    assert status.state == 50, status
    assert message in status.status.error_message
    assert error_codes_pb2.Code.Name(status.status.error_code) == code
    assert operator.answer() == 1.0


def test_a_damaged_file_is_found_where_it_is_damaged(operator: Any) -> None:
    def damage(version: Path) -> None:
        written(predict_log, predict_log)(version)
        data = bytearray((version / FILE).read_bytes())
        data[-10] ^= 0xFF
        (version / FILE).write_bytes(bytes(data))

    status = bring(operator, damage)
    assert status.state == 50, status
    assert "Please verify your warmup data is in TFRecord format." in status.status.error_message


@pytest.mark.parametrize("iterations", [1, 3])
def test_each_request_runs_as_often_as_the_flag_says(command: Any, zoo: Path, tmp_path: Path, iterations: int) -> None:
    def count() -> Any:
        from tensorflow_serving.apis import prediction_log_pb2

        log = prediction_log_pb2.PredictionLog()
        request = client_lab.predict_request("ignored", {}, signature="incr_counter")
        log.predict_log.request.CopyFrom(request)
        return log

    shutil.copytree(zoo / "counter/1", tmp_path / "base/1")
    written(count, count)(tmp_path / "base/1")
    flags = (
        "--model_name=counter",
        f"--model_base_path={tmp_path / 'base'}",
        f"--num_request_iterations_for_warmup={iterations}",
    )
    with (
        server_lab.started(command, *flags, with_rest=False) as server,
        server_lab.open_channel(server.target) as channel,
    ):
        client = client_lab.Client(rest_port=0, channel=channel)
        response = client.predict("counter", {}, signature="get_counter")
        assert client_lab.numbers(response, "output") == 2.0 * iterations
