"""Classify and Regress, from message to message: two methods of one form.

Its place in the flow: called by the gRPC service, by REST after it has made a message of its JSON,
and by warm-up; the rules of the outputs are in inference_outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from serving.embedded_server.catalogue import LoadedModel, ModelVersion
from serving.embedded_server.examples import ExampleTensors, OnRun, run_counter, run_on_examples
from serving.embedded_server.inference_outputs import (
    classification_tensors,
    fill_classifications,
    fill_regressions,
    regression_tensors,
)
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.model_spec import fill_model_spec
from serving.embedded_server.predict import DEFAULT_SIGNATURE
from serving.embedded_server.status import invalid_argument
from serving.protos import tfs_pb2

_Request = TypeVar("_Request", tfs_pb2.ClassificationRequest, tfs_pb2.RegressionRequest)
_Result = TypeVar("_Result", tfs_pb2.ClassificationResult, tfs_pb2.RegressionResult)
_Response = TypeVar("_Response", tfs_pb2.ClassificationResponse, tfs_pb2.RegressionResponse)


@dataclass(frozen=True)
class ExampleMethod(Generic[_Request, _Result, _Response]):
    """A method that runs one signature on Examples.

    Args:
        api: its name in metrics.
        tensors: returns what a signature feeds and fetches, or refuses it.
        fill: writes a result from the outputs, or refuses them.
        new_result: makes an empty result.
        new_response: makes an empty response.
    """

    api: str
    tensors: Callable[..., ExampleTensors]
    fill: Callable[..., None]
    new_result: Callable[[], _Result]
    new_response: Callable[..., _Response]

    def answer(
        self,
        entry: ModelVersion,
        request: _Request,
        *,
        timeout_seconds: float | None,
        is_method_name_checked: bool = False,
        metrics: Metrics | None = None,
    ) -> _Response:
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
        result: Any = self.run(
            entry.loaded,
            request,
            timeout_seconds=timeout_seconds,
            is_method_name_checked=is_method_name_checked,
            on_run=run_counter(metrics, entry, self.api),
        )
        response = self.new_response(result=result)
        signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        fill_model_spec(response.model_spec, entry, signature_name=signature_name)
        return response

    def run(
        self,
        model: LoadedModel,
        request: _Request,
        *,
        timeout_seconds: float | None,
        is_method_name_checked: bool = False,
        on_run: OnRun | None = None,
    ) -> _Result:
        """Return the result of the request's Examples.

        Raises:
            StatusError: the request is refused, or the graph fails.
        """
        signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = model.signature_defs.get(signature_name)
        if signature is None:
            raise invalid_argument(f"No signature was found with the name: {signature_name}")
        tensors = self.tensors(signature, is_method_name_checked=is_method_name_checked)
        outputs = run_on_examples(model, request.input, tensors=tensors, timeout_seconds=timeout_seconds, on_run=on_run)
        result = self.new_result()
        self.fill(signature, outputs, result)
        return result


CLASSIFY: ExampleMethod[tfs_pb2.ClassificationRequest, tfs_pb2.ClassificationResult, tfs_pb2.ClassificationResponse] = (
    ExampleMethod(
        api="Classify",
        tensors=classification_tensors,
        fill=fill_classifications,
        new_result=tfs_pb2.ClassificationResult,
        new_response=tfs_pb2.ClassificationResponse,
    )
)
"""Classes, scores or both for each Example."""

REGRESS: ExampleMethod[tfs_pb2.RegressionRequest, tfs_pb2.RegressionResult, tfs_pb2.RegressionResponse] = ExampleMethod(
    api="Regress",
    tensors=regression_tensors,
    fill=fill_regressions,
    new_result=tfs_pb2.RegressionResult,
    new_response=tfs_pb2.RegressionResponse,
)
"""One number for each Example."""
