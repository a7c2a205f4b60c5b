"""Warm-up requests of every method are run before a version is available, and each failure fails the load."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.embedded_server.metrics import Metrics
from serving.embedded_server.status import Code, StatusError, failed_precondition
from serving.embedded_server.warm_up import warm_up
from serving.embedded_server.wire_tensors import to_tensor
from serving.protos import tfs_pb2
from serving.warm_up_records import WARM_UP_PATH, write_warm_up_requests

EXAMPLES = tfs_pb2.Input(example_list=tfs_pb2.ExampleList(examples=[tfs_pb2.Example()] * 2))


class Echo:
    """A model whose every output is as long as what was fed; it keeps what it was asked for."""

    def __init__(self) -> None:
        self.signature_defs: dict[str, tfs_pb2.SignatureDef] = {}
        for name, (input_alias, output_alias) in {
            "predict": ("x", "y"),
            "classify": ("inputs", "scores"),
            "regress": ("inputs", "outputs"),
        }.items():
            signature = self.signature_defs[name] = tfs_pb2.SignatureDef()
            signature.method_name = f"tensorflow/serving/{name}"
            signature.inputs[input_alias].name = "fed"
            signature.outputs[output_alias].name = f"{name}_answer"
        self.fetched: list[list[str]] = []
        self.failure: StatusError | None = None

    def run(self, feeds: Mapping[str, Any], fetches: list[str], *, timeout_seconds: float | None) -> list[Any]:
        if self.failure is not None:
            raise self.failure
        self.fetched.append(fetches)
        return [np.zeros((len(feeds["fed"]), 1), np.float32) for _ in fetches]

    def submit(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    def close(self) -> None: ...


def predict_request(signature: str = "predict") -> tfs_pb2.PredictRequest:
    request = tfs_pb2.PredictRequest(model_spec=tfs_pb2.ModelSpec(signature_name=signature))
    to_tensor(np.zeros(3, np.float32), request.inputs["x"])
    return request


def requests_of_every_method() -> list[Any]:
    classify, regress = (tfs_pb2.ModelSpec(name="any", signature_name=name) for name in ("classify", "regress"))
    tasks = [
        tfs_pb2.InferenceTask(model_spec=spec, method_name=f"tensorflow/serving/{spec.signature_name}")
        for spec in (classify, regress)
    ]
    return [
        predict_request(),
        tfs_pb2.ClassificationRequest(model_spec=classify, input=EXAMPLES),
        tfs_pb2.RegressionRequest(model_spec=regress, input=EXAMPLES),
        tfs_pb2.MultiInferenceRequest(tasks=tasks, input=EXAMPLES),
    ]


@pytest.fixture(scope="module")
def write(repository: Path) -> Callable[..., None]:
    """Write a warm-up file of any records into a version."""
    spec = importlib.util.spec_from_file_location("tiny_models", repository / "tests/tiny_models.py")
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)

    def write_records(version: Path, *records: tfs_pb2.PredictionLog | bytes) -> None:
        tiny.write_warm_up(
            version, *(each if isinstance(each, bytes) else each.SerializeToString() for each in records)
        )

    return write_records


def refusal(version: Path, model: Echo | None = None, **options: Any) -> tuple[Code, str]:
    with pytest.raises(StatusError) as caught:
        warm_up(model or Echo(), version, **{"iterations": 1, **options})
    return caught.value.code, caught.value.message


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_every_method_is_run_as_often_as_asked_for_and_once_at_least(tmp_path: Path, iterations: int) -> None:
    write_warm_up_requests(tmp_path / WARM_UP_PATH, requests_of_every_method())
    model = Echo()
    assert warm_up(model, tmp_path, iterations=iterations) == 4
    once = [["predict_answer"], ["classify_answer"], ["regress_answer"], ["classify_answer", "regress_answer"]]
    assert model.fetched == [fetches for fetches in once for _ in range(max(1, iterations))]


def test_without_a_file_or_with_an_empty_one_there_is_nothing_to_do(tmp_path: Path) -> None:
    metrics = Metrics()
    assert warm_up(Echo(), tmp_path, iterations=1, metrics=metrics) == 0
    assert "warmup" not in _samples(metrics)
    write_warm_up_requests(tmp_path / WARM_UP_PATH, ())
    assert warm_up(Echo(), tmp_path, iterations=1) == 0


def test_a_record_of_nothing_is_passed_over(write: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path, tfs_pb2.PredictionLog())
    assert warm_up(Echo(), tmp_path, iterations=1) == 1


@pytest.mark.parametrize(("kind", "number"), [("session_run_log", 5), ("predict_streamed_log", 7)])
def test_kinds_that_no_server_runs(write: Callable[..., None], tmp_path: Path, kind: str, number: int) -> None:
    write(tmp_path, tfs_pb2.PredictionLog(**{kind: b""}))
    assert refusal(tmp_path) == (Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")


def test_a_file_that_is_not_one_of_records(write: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path, b"")
    (tmp_path / WARM_UP_PATH).write_bytes(b"predict this, please")
    code, message = refusal(tmp_path)
    assert code is Code.DATA_LOSS
    assert message.endswith(" Please verify your warmup data is in TFRecord format.")
    write(tmp_path, b"\xff\xff")
    code, message = refusal(tmp_path)
    assert code is Code.INVALID_ARGUMENT
    assert message.startswith("Failed to parse warmup record: ")


def test_more_records_than_a_server_takes(write: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path, *[tfs_pb2.PredictionLog()] * 1000)
    assert warm_up(Echo(), tmp_path, iterations=1) == 1000
    write(tmp_path, *[tfs_pb2.PredictionLog()] * 1001)
    expected = f"Number of warmup records exceeds the maximum (1000) at {tmp_path / WARM_UP_PATH}"
    assert refusal(tmp_path) == (Code.INVALID_ARGUMENT, expected)


def test_a_request_that_fails_fails_the_load_and_is_counted(tmp_path: Path) -> None:
    write_warm_up_requests(tmp_path / WARM_UP_PATH, [predict_request(), predict_request("none")])
    metrics = Metrics()
    expected = (Code.FAILED_PRECONDITION, 'Serving signature key "none" not found.')
    assert refusal(tmp_path, metrics=metrics) == expected
    assert f'model_path="{tmp_path}",status="FAILED_PRECONDITION"' in _samples(metrics)
    write_warm_up_requests(tmp_path / WARM_UP_PATH, [predict_request()])
    model = Echo()
    model.failure = failed_precondition("no")
    assert refusal(tmp_path, model) == (Code.FAILED_PRECONDITION, "no")


def test_the_name_of_the_method_is_checked_where_it_is_asked_for(tmp_path: Path) -> None:
    for request in requests_of_every_method()[1:]:
        write_warm_up_requests(tmp_path / WARM_UP_PATH, [request])
        model = Echo()
        for signature in model.signature_defs.values():
            signature.method_name = "mine"
        assert warm_up(model, tmp_path, iterations=1) == 1
        assert refusal(tmp_path, model, is_method_name_checked=True)[0] is Code.INVALID_ARGUMENT


def test_a_warm_up_that_succeeds_is_counted_with_its_records(tmp_path: Path) -> None:
    write_warm_up_requests(tmp_path / WARM_UP_PATH, requests_of_every_method())
    metrics = Metrics()
    warm_up(Echo(), tmp_path, iterations=2, metrics=metrics)
    found = re.findall(rf'(\w+){{model_path="{tmp_path}",status="OK"}} (\S+)', _samples(metrics))
    assert ("model_warmup_latency_count", "1") in found
    assert ("model_warmup_records_read", "4") in [(name, value.removesuffix(".0")) for name, value in found]


def _samples(metrics: Metrics) -> str:
    return "\n".join(line for line in metrics.text().splitlines() if not line.startswith("#"))
