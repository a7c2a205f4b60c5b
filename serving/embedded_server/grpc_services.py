"""PredictionService and ModelService over gRPC, with the health service beside them.

Its place in the flow: requests come in here; errors leave as gRPC's codes with TensorFlow Serving's
messages. A method that is not built answers UNIMPLEMENTED, as gRPC does by itself.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from serving.embedded_server.catalogue import Catalogue
from serving.embedded_server.lifecycle import Lifecycle
from serving.embedded_server.model_questions import model_metadata, model_status
from serving.embedded_server.model_spec import borrow_for
from serving.embedded_server.predict import predict
from serving.embedded_server.server_config import served_models
from serving.embedded_server.status import StatusError
from serving.protos import tfs_pb2

_LOG = logging.getLogger(__name__)
_MAX_DETAILS = 1024
_CODES = {code.value[0]: code for code in grpc.StatusCode}

_Methods: TypeAlias = "dict[str, grpc.RpcMethodHandler[Any, Any]]"
_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


class GrpcServices:
    """The methods of both services, over a catalogue and its lifecycle."""

    def __init__(self, catalogue: Catalogue, lifecycle: Lifecycle, *, may_new_labels_wait: bool) -> None:
        self._catalogue = catalogue
        self._lifecycle = lifecycle
        self._may_new_labels_wait = may_new_labels_wait
        self._health = health.HealthServicer()

    def add_to(self, server: grpc.Server) -> None:
        """Register every method with a server that is not started yet."""
        prediction: _Methods = {
            "Predict": _method(self._predict, tfs_pb2.PredictRequest),
            "GetModelMetadata": _method(self._metadata, tfs_pb2.GetModelMetadataRequest),
        }
        model: _Methods = {
            "GetModelStatus": _method(self._status, tfs_pb2.GetModelStatusRequest),
            "HandleReloadConfigRequest": _method(self._reload, tfs_pb2.ReloadConfigRequest),
        }
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", prediction),
                grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", model),
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for service in ("", "ModelService", "PredictionService"):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def leave(self) -> None:
        """Say NOT_SERVING to whoever checks health, before the server stops."""
        self._health.enter_graceful_shutdown()

    def _predict(self, request: tfs_pb2.PredictRequest, timeout_seconds: float | None) -> tfs_pb2.PredictResponse:
        with borrow_for(self._catalogue, request) as entry:
            return predict(entry, request, timeout_seconds=timeout_seconds)

    def _metadata(self, request: tfs_pb2.GetModelMetadataRequest, _: float | None) -> tfs_pb2.GetModelMetadataResponse:
        return model_metadata(self._catalogue, request)

    def _status(self, request: tfs_pb2.GetModelStatusRequest, _: float | None) -> tfs_pb2.GetModelStatusResponse:
        return model_status(self._catalogue, request)

    def _reload(
        self, request: tfs_pb2.ReloadConfigRequest, timeout_seconds: float | None
    ) -> tfs_pb2.ReloadConfigResponse:
        models = served_models(request.config)
        new = self._lifecycle.apply(models, may_new_labels_wait=self._may_new_labels_wait)
        # New versions of known models are not waited for; GetModelStatus tells when they are there.
        self._lifecycle.wait_until_settled(new, timeout_seconds=timeout_seconds)
        response = tfs_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        return response


def _method(
    answer: Callable[[_Request, float | None], _Response], request_type: type[_Request]
) -> grpc.RpcMethodHandler[_Request, _Response]:
    def handle(request: _Request, context: grpc.ServicerContext) -> _Response:
        remaining = context.time_remaining()
        timeout_seconds = None if remaining is None or math.isinf(remaining) or remaining > 1e6 else remaining
        try:
            return answer(request, timeout_seconds)
        except StatusError as error:
            context.abort(_CODES[error.code], _cut(error.message))
        except Exception as error:  # noqa: BLE001  (the edge of a request: one bug may not end the server)
            _LOG.exception("a request failed unexpectedly")
            context.abort(grpc.StatusCode.INTERNAL, _cut(f"Internal error; see the server's log: {error}"))

    return grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=request_type.FromString, response_serializer=_bytes_of
    )


def _cut(message: str) -> str:
    return message if len(message) <= _MAX_DETAILS else f"{message[:_MAX_DETAILS]}...TRUNCATED"


def _bytes_of(message: Message) -> bytes:
    return message.SerializeToString()
