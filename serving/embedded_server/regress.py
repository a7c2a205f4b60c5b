"""One Regress request, from message to message.

Its place in the flow: called by the gRPC service, by REST after it has made a message of its JSON,
and by warm-up; the rules of the outputs are in inference_outputs.
"""

from __future__ import annotations

from serving.embedded_server.catalogue import LoadedModel, ModelVersion
from serving.embedded_server.examples import OnRun, run_counter, run_on_examples
from serving.embedded_server.inference_outputs import fill_regressions, regression_tensors
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.model_spec import fill_model_spec
from serving.embedded_server.predict import DEFAULT_SIGNATURE
from serving.embedded_server.status import invalid_argument
from serving.protos import tfs_pb2


def regress(
    entry: ModelVersion,
    request: tfs_pb2.RegressionRequest,
    *,
    timeout_seconds: float | None,
    is_method_name_checked: bool = False,
    metrics: Metrics | None = None,
) -> tfs_pb2.RegressionResponse:
    """Answer `request` with a version that the caller has borrowed.

    Args:
        entry: the version.
        request: the Examples, and the signature to use.
        timeout_seconds: when to give up; None for never.
        is_method_name_checked: whether the signature has to call itself one of this method.
        metrics: is told the time that the graph took.

    Raises:
        StatusError: the request is refused, or the graph fails.
    """
    assert entry.loaded is not None, "only a loaded version can be borrowed"
    result = run_regress(
        entry.loaded,
        request,
        timeout_seconds=timeout_seconds,
        is_method_name_checked=is_method_name_checked,
        on_run=run_counter(metrics, entry, "Regress"),
    )
    response = tfs_pb2.RegressionResponse(result=result)
    fill_model_spec(response.model_spec, entry, signature_name=request.model_spec.signature_name or DEFAULT_SIGNATURE)
    return response


def run_regress(
    model: LoadedModel,
    request: tfs_pb2.RegressionRequest,
    *,
    timeout_seconds: float | None,
    is_method_name_checked: bool = False,
    on_run: OnRun | None = None,
) -> tfs_pb2.RegressionResult:
    """Return the regressions of the request's Examples.

    Raises:
        StatusError: the request is refused, or the graph fails.
    """
    signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = model.signature_defs.get(signature_name)
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {signature_name}")
    tensors = regression_tensors(signature, is_method_name_checked=is_method_name_checked)
    outputs = run_on_examples(model, request.input, tensors=tensors, timeout_seconds=timeout_seconds, on_run=on_run)
    result = tfs_pb2.RegressionResult()
    fill_regressions(signature, outputs, result)
    return result
