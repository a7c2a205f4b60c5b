"""PredictionService and ModelService: each method's way from its request to its answer.

Its place in the flow: the transport calls the methods with parsed requests; what they refuse leaves
as gRPC's codes with TensorFlow Serving's messages. Requests are counted here for the gRPC side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import Message

from serving.embedded_server.catalogue import Catalogue
from serving.embedded_server.example_methods import CLASSIFY, REGRESS, ExampleMethod
from serving.embedded_server.grpc_method import Method, Reply
from serving.embedded_server.lifecycle import Lifecycle
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.model_questions import model_metadata, model_status
from serving.embedded_server.model_spec import borrow_for
from serving.embedded_server.multi_inference import first_model_spec, multi_inference
from serving.embedded_server.predict import start_predict
from serving.embedded_server.server_config import served_models
from serving.embedded_server.status import Code, StatusError, invalid_argument
from serving.protos import tfs_pb2

_Request = TypeVar("_Request", bound=Message)


class GrpcServices:
    """The methods of both services.

    Args:
        catalogue: which version answers.
        lifecycle: takes new configurations.
        metrics: counts requests.
        may_new_labels_wait: whether a label may be given to a version that is not loaded yet.
        is_method_name_checked: whether Classify, Regress and MultiInference take only signatures that
            call themselves so.
        is_tensor_content: whether Predict answers in tensor_content instead of in typed fields.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        lifecycle: Lifecycle,
        *,
        metrics: Metrics,
        may_new_labels_wait: bool,
        is_method_name_checked: bool = False,
        is_tensor_content: bool = False,
    ) -> None:
        self._catalogue = catalogue
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._may_new_labels_wait = may_new_labels_wait
        self._is_method_name_checked = is_method_name_checked
        self._is_tensor_content = is_tensor_content

    def methods(self) -> Mapping[str, Method]:
        """Return every method by path."""
        prediction, model = "/tensorflow.serving.PredictionService", "/tensorflow.serving.ModelService"
        return {
            f"{prediction}/Predict": Method(tfs_pb2.PredictRequest, self._predict, is_blocking=False),
            f"{prediction}/Classify": self._blocking(
                "Classify", tfs_pb2.ClassificationRequest, partial(self._on_examples, CLASSIFY)
            ),
            f"{prediction}/Regress": self._blocking(
                "Regress", tfs_pb2.RegressionRequest, partial(self._on_examples, REGRESS)
            ),
            f"{prediction}/MultiInference": self._blocking(
                "MultiInference", tfs_pb2.MultiInferenceRequest, self._multi_inference
            ),
            f"{prediction}/GetModelMetadata": self._blocking(
                "GetModelMetadata", tfs_pb2.GetModelMetadataRequest, self._metadata
            ),
            f"{model}/GetModelStatus": self._blocking("GetModelStatus", tfs_pb2.GetModelStatusRequest, self._status),
            f"{model}/HandleReloadConfigRequest": self._blocking("", tfs_pb2.ReloadConfigRequest, self._reload),
        }

    def _blocking(
        self, api: str, request_type: type[_Request], answer: Callable[[_Request, float | None], Message]
    ) -> Method:
        def handle(request: Any, timeout_seconds: float | None, reply: Reply) -> None:
            counted = self._counted(api, request, reply) if api else reply
            try:
                counted(answer(request, timeout_seconds))
            except StatusError as error:
                counted(error)

        return Method(request_type, handle, is_blocking=True)

    def _counted(self, api: str, request: Any, reply: Reply) -> Reply:
        """Return a reply that counts the request before it passes the answer on."""
        started = time.perf_counter()

        def count(answer: Message | StatusError) -> None:
            self._metrics.request(
                model=_model_name(request),
                version=_version_of(answer),
                api=api,
                entrypoint="GRPC",
                status=answer.code if isinstance(answer, StatusError) else Code.OK,
                microseconds=(time.perf_counter() - started) * 1e6,
            )
            reply(answer)

        return count

    def _predict(self, request: Any, timeout_seconds: float | None, reply: Reply) -> None:
        start_predict(
            self._catalogue,
            request,
            timeout_seconds=timeout_seconds,
            reply=self._counted("Predict", request, reply),
            metrics=self._metrics,
            is_tensor_content=self._is_tensor_content,
        )

    def _on_examples(
        self, method: ExampleMethod[Any, Any, Any], request: Any, timeout_seconds: float | None
    ) -> Message:
        with borrow_for(self._catalogue, request) as entry:
            response: Message = method.answer(
                entry,
                request,
                timeout_seconds=timeout_seconds,
                is_method_name_checked=self._is_method_name_checked,
                metrics=self._metrics,
            )
            return response

    def _multi_inference(self, request: tfs_pb2.MultiInferenceRequest, timeout_seconds: float | None) -> Message:
        if not request.tasks:
            raise invalid_argument("Missing ModelSpec")
        with borrow_for(self._catalogue, request.tasks[0]) as entry:
            return multi_inference(
                entry,
                request,
                timeout_seconds=timeout_seconds,
                is_method_name_checked=self._is_method_name_checked,
                metrics=self._metrics,
            )

    def _metadata(self, request: tfs_pb2.GetModelMetadataRequest, _: float | None) -> Message:
        return model_metadata(self._catalogue, request)

    def _status(self, request: tfs_pb2.GetModelStatusRequest, _: float | None) -> Message:
        return model_status(self._catalogue, request)

    def _reload(self, request: tfs_pb2.ReloadConfigRequest, timeout_seconds: float | None) -> Message:
        before = {name: self._metrics.value(name) for name in request.metric_names}
        models = served_models(request.config, served=self._lifecycle.model_names)
        new = self._lifecycle.apply(models, may_new_labels_wait=self._may_new_labels_wait)
        # New versions of known models are not waited for; GetModelStatus tells when they are there.
        self._lifecycle.wait_until_settled(new, timeout_seconds=timeout_seconds)
        response = tfs_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        for name, value in before.items():
            response.metric.add(name=name, int64_value_increase=self._metrics.value(name) - value)
        return response


def _model_name(request: Any) -> str:
    if isinstance(request, tfs_pb2.MultiInferenceRequest):
        return first_model_spec(request).name
    name: str = request.model_spec.name
    return name


def _version_of(answer: Message | StatusError) -> int | None:
    """Return the version that answered; the statuses of all versions are nobody's answer."""
    if isinstance(answer, tfs_pb2.MultiInferenceResponse):
        return answer.results[0].model_spec.version.value if answer.results else None
    spec = getattr(answer, "model_spec", None)
    return spec.version.value if spec is not None else None
