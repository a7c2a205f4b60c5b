"""One MultiInference request: several classifications and regressions of the same Examples, in one run.

Its place in the flow: called by the gRPC service and by warm-up; the rules of the outputs are in
inference_outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serving.embedded_server.catalogue import LoadedModel, ModelVersion
from serving.embedded_server.examples import (
    ExampleOutputs,
    ExampleTensors,
    OnRun,
    example_count,
    run_counter,
    run_on_examples,
)
from serving.embedded_server.inference_outputs import (
    CLASSIFY_METHOD,
    REGRESS_METHOD,
    classification_tensors,
    fill_classifications,
    fill_regressions,
    regression_tensors,
)
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.model_spec import fill_model_spec
from serving.embedded_server.predict import DEFAULT_SIGNATURE
from serving.embedded_server.status import Code, StatusError, invalid_argument
from serving.protos import tfs_pb2


@dataclass(frozen=True)
class _Task:
    signature: tfs_pb2.SignatureDef
    tensors: ExampleTensors
    fill: Callable[[tfs_pb2.SignatureDef, ExampleOutputs, tfs_pb2.InferenceResult], None]


def first_model_spec(request: tfs_pb2.MultiInferenceRequest) -> tfs_pb2.ModelSpec:
    """Return the first task's ModelSpec, which alone says the version; an empty one when there is none."""
    return request.tasks[0].model_spec if request.tasks else tfs_pb2.ModelSpec()


def multi_inference(
    entry: ModelVersion,
    request: tfs_pb2.MultiInferenceRequest,
    *,
    timeout_seconds: float | None,
    is_method_name_checked: bool = False,
    metrics: Metrics | None = None,
) -> tfs_pb2.MultiInferenceResponse:
    """Answer `request` with the version that its first task names, which the caller has borrowed.

    Args:
        entry: the version.
        request: the Examples, and what to make of them.
        timeout_seconds: when to give up; None for never.
        is_method_name_checked: whether each signature has to call itself one of its task's method.
        metrics: is told the time that the graph took.

    Raises:
        StatusError: the request is refused, or the graph fails.
    """
    assert entry.loaded is not None, "only a loaded version can be borrowed"
    results = run_multi_inference(
        entry.loaded,
        request,
        timeout_seconds=timeout_seconds,
        is_method_name_checked=is_method_name_checked,
        on_run=run_counter(metrics, entry, "MultiInference"),
    )
    if metrics is not None:
        metrics.examples(model=entry.model, count=example_count(request.input))
    for task, result in zip(request.tasks, results, strict=True):
        fill_model_spec(result.model_spec, entry, signature_name=task.model_spec.signature_name or DEFAULT_SIGNATURE)
    return tfs_pb2.MultiInferenceResponse(results=results)


def run_multi_inference(
    model: LoadedModel,
    request: tfs_pb2.MultiInferenceRequest,
    *,
    timeout_seconds: float | None,
    is_method_name_checked: bool = False,
    on_run: OnRun | None = None,
) -> list[tfs_pb2.InferenceResult]:
    """Return each task's result, in their order, without ModelSpecs.

    Raises:
        StatusError: the request is refused, or the graph fails.
    """
    tasks = _tasks(model, request, is_method_name_checked=is_method_name_checked)
    tensors = ExampleTensors(
        input_name=tasks[0].tensors.input_name if tasks else "",
        output_names=sorted({name for task in tasks for name in task.tensors.output_names}),
    )
    outputs = run_on_examples(model, request.input, tensors=tensors, timeout_seconds=timeout_seconds, on_run=on_run)
    results = []
    for task in tasks:
        result = tfs_pb2.InferenceResult()
        task.fill(task.signature, outputs, result)
        results.append(result)
    return results


def _tasks(model: LoadedModel, request: tfs_pb2.MultiInferenceRequest, *, is_method_name_checked: bool) -> list[_Task]:
    found: dict[str, _Task] = {}
    for task in request.tasks:
        spec = task.model_spec
        if not spec.name:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if spec.name != request.tasks[0].model_spec.name:
            raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        signature_name = spec.signature_name or DEFAULT_SIGNATURE
        if signature_name in found:
            raise invalid_argument(f"Duplicate evaluation of signature: {signature_name}")
        signature = model.signature_defs.get(signature_name)
        if signature is None:
            raise invalid_argument(f"Requested signature not found in model graph: {signature_name}")
        found[signature_name] = _task(task.method_name, signature, is_method_name_checked=is_method_name_checked)
        if len({other.tensors.input_name for other in found.values()}) > 1:
            raise invalid_argument("Input tensor must be the same for all Signatures.")
    return list(found.values())


def _task(method_name: str, signature: tfs_pb2.SignatureDef, *, is_method_name_checked: bool) -> _Task:
    if method_name == CLASSIFY_METHOD:
        tensors = classification_tensors(signature, is_method_name_checked=is_method_name_checked)
        return _Task(signature, tensors, _fill_classification_result)
    if method_name == REGRESS_METHOD:
        tensors = regression_tensors(signature, is_method_name_checked=is_method_name_checked)
        return _Task(signature, tensors, _fill_regression_result)
    raise StatusError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {method_name}")


def _fill_classification_result(
    signature: tfs_pb2.SignatureDef, outputs: ExampleOutputs, result: tfs_pb2.InferenceResult
) -> None:
    fill_classifications(signature, outputs, result.classification_result)


def _fill_regression_result(
    signature: tfs_pb2.SignatureDef, outputs: ExampleOutputs, result: tfs_pb2.InferenceResult
) -> None:
    fill_regressions(signature, outputs, result.regression_result)
