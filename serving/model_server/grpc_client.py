"""A client of TensorFlow Serving's gRPC interface, without TensorFlow.

Its place in the flow: the only way in which Liftgate talks to a model server, real or embedded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from artifact_sync.errors import InputError, ModelServerError, ModelServerUnavailableError, SettingsError
from serving.model_server.channel import ServerTls, open_channel
from serving.model_server.config_text import model_config_message
from serving.model_server.interface import (
    PREDICT_TIMEOUT_SECONDS,
    ModelConfig,
    ModelSignature,
    Prediction,
    VersionMissingError,
    VersionState,
    VersionStatus,
)
from serving.model_server.tensors import pixels_to_tensor, tensor_signature, tensor_to_scores
from serving.protos import tfs_pb2
from serving.tls_files import FileState

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
_QUESTION_TIMEOUT_SECONDS = 10.0
_CUT_OFF = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)
_MISSING = ("Unrecognized servable version label", "Servable not found for request")

_Response = TypeVar("_Response", bound=Message)


class GrpcModelServer:
    """A model server at `target`; connects at the first call, and again whenever the server comes back.

    Make it after forking: a connection does not survive a fork.

    Args:
        target: "host:port" or "unix:/absolute/path".
        tls: the files for TLS; None for a server that speaks without. Files that were replaced are
            used for the calls after that, while calls under way keep their connection.
        signature_name: the signature that predict asks for.
        input_name: the name of its uint8 input.
        scores_name: the name of its float32 output.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: ServerTls | None = None,
        signature_name: str = "serving_default",
        input_name: str = "pixels",
        scores_name: str = "probabilities",
    ) -> None:
        if tls is not None and tls.server_name is None and target.startswith("unix:"):
            raise SettingsError(
                f"TLS to {target} refused: a socket has no host name to compare the certificate with. Set server_name."
            )
        self.target = target
        self._tls = tls
        self._tls_state: FileState = ()
        self._signature_name = signature_name
        self._input_name = input_name
        self._scores_name = scores_name
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._calls: dict[str, Callable[..., Message]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        with self._lock:
            channel, self._channel = self._channel, None
            self._calls = {}
        if channel is not None:
            channel.close()

    def predict(
        self,
        model: str,
        pixels: npt.NDArray[np.uint8],
        *,
        version: int | None = None,
        label: str | None = None,
        timeout_seconds: float = PREDICT_TIMEOUT_SECONDS,
    ) -> Prediction:
        """See ModelServer."""
        request = tfs_pb2.PredictRequest(output_filter=[self._scores_name])
        _choose(request.model_spec, model=model, version=version, label=label)
        request.model_spec.signature_name = self._signature_name
        pixels_to_tensor(pixels, request.inputs[self._input_name])
        response = self._ask(_PREDICT, request, tfs_pb2.PredictResponse, model=model, timeout_seconds=timeout_seconds)
        if self._scores_name not in response.outputs:
            raise ModelServerError(f"Model {model} at {self.target} answered without {self._scores_name!r}.")
        scores = tensor_to_scores(response.outputs[self._scores_name])
        if len(scores) != len(pixels):
            raise ModelServerError(
                f"Model {model} at {self.target} answered {len(scores)} rows of scores for {len(pixels)} photos."
            )
        return Prediction(scores=scores, version=response.model_spec.version.value)

    def status(self, model: str) -> tuple[VersionStatus, ...]:
        """See ModelServer."""
        request = tfs_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        try:
            response = self._ask(_STATUS, request, tfs_pb2.GetModelStatusResponse, model=model)
        except ModelServerError as error:
            cause = error.__cause__
            if isinstance(cause, grpc.RpcError) and cause.code() is grpc.StatusCode.NOT_FOUND:
                return ()
            raise
        return tuple(_version_status(entry) for entry in response.model_version_status)

    def signature(self, model: str, *, version: int | None = None, label: str | None = None) -> ModelSignature:
        """See ModelServer."""
        request = tfs_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        _choose(request.model_spec, model=model, version=version, label=label)
        response = self._ask(_METADATA, request, tfs_pb2.GetModelMetadataResponse, model=model)
        signatures = tfs_pb2.SignatureDefMap.FromString(response.metadata["signature_def"].value)
        if self._signature_name not in signatures.signature_def:
            found = ", ".join(sorted(signatures.signature_def)) or "none"
            raise ModelServerError(
                f"Model {model} at {self.target} has no signature {self._signature_name!r}; found: {found}."
            )
        signature = signatures.signature_def[self._signature_name]
        return ModelSignature(
            version=response.model_spec.version.value,
            inputs={name: tensor_signature(info) for name, info in signature.inputs.items()},
            outputs={name: tensor_signature(info) for name, info in signature.outputs.items()},
        )

    def reload(self, configs: tuple[ModelConfig, ...], *, timeout_seconds: float) -> None:
        """See ModelServer."""
        request = tfs_pb2.ReloadConfigRequest(config=model_config_message(configs))
        names = ", ".join(config.name for config in configs) or "(none)"
        response = self._ask(
            _RELOAD, request, tfs_pb2.ReloadConfigResponse, model=names, timeout_seconds=timeout_seconds
        )
        if response.status.error_code:
            raise ModelServerError(
                f"The model server at {self.target} refused the configuration of {names}: "
                f"{response.status.error_message}"
            )

    def _ask(
        self,
        method: str,
        request: Message,
        response_type: type[_Response],
        *,
        model: str,
        timeout_seconds: float = _QUESTION_TIMEOUT_SECONDS,
    ) -> _Response:
        call = self._call(method, response_type)
        deadline = time.monotonic() + timeout_seconds
        try:
            try:
                response = call(request, timeout=timeout_seconds)
            except grpc.RpcError as error:
                if method == _RELOAD or not _is_cut_off(error):
                    raise
                # Part of the answer was here, so gRPC's own policy does not ask again.
                response = call(request, timeout=max(0.001, deadline - time.monotonic()))
        except grpc.RpcError as error:
            raise self._translated(error, method=method, model=model, timeout_seconds=timeout_seconds) from error
        except ValueError as error:
            # grpc says so when close() ran between looking up the call and making it.
            raise ModelServerUnavailableError(f"The connection to {self.target} was closed meanwhile.") from error
        assert isinstance(response, response_type)
        return response

    def _call(self, method: str, response_type: type[_Response]) -> Callable[..., Message]:
        if self._tls is not None:
            self._follow_tls_files(self._tls)
        call = self._calls.get(method)
        if call is not None:
            return call
        with self._lock:
            if self._channel is None:
                self._channel = open_channel(self.target, self._tls)
            call = self._channel.unary_unary(
                method, request_serializer=_bytes_of, response_deserializer=response_type.FromString
            )
            self._calls[method] = call
            return call

    def _follow_tls_files(self, tls: ServerTls) -> None:
        """Open a new channel when a file of `tls` changed; calls under way end on the old one.

        Three stat(2) a call, some 5 us. Files that cannot be used leave the connection that there is:
        they may be in the midst of being replaced.
        """
        state = tls.state
        if not state or state == self._tls_state:
            return
        with self._lock:
            if state == self._tls_state:
                return
            try:
                channel = open_channel(self.target, tls)
            except SettingsError:
                if self._channel is None:
                    raise
                return
            # The old channel is not closed: that would cancel calls. It ends with the last of them.
            self._channel, self._calls, self._tls_state = channel, {}, state

    def _translated(self, error: grpc.RpcError, *, method: str, model: str, timeout_seconds: float) -> ModelServerError:
        code, verb, details = error.code(), method.rpartition("/")[2], error.details()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ModelServerUnavailableError(
                f"The model server at {self.target} did not answer {verb} of model {model} within "
                f"{timeout_seconds:g} s. Look at its load and its log; ask again later."
            )
        # Nothing here cancels a call, so CANCELLED is a server, or this client, that closes.
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or _is_cut_off(error):
            return ModelServerUnavailableError(
                f"The model server at {self.target} cannot be reached ({details}). "
                f"Check that it runs and listens at that address; ask again later."
            )
        # The server has no code of its own for it: a missing label is an INVALID_ARGUMENT like many others.
        kind = VersionMissingError if (details or "").startswith(_MISSING) else ModelServerError
        return kind(f"The model server at {self.target} refused {verb} of model {model}: {code.name}: {details}")


def _is_cut_off(error: grpc.RpcError) -> bool:
    """Return whether the answer ended before its status came: the other end died in the midst of it."""
    details = error.details() or ""
    return error.code() in _CUT_OFF and ("Stream removed" in details or "RST_STREAM" in details)


def _choose(spec: tfs_pb2.ModelSpec, *, model: str, version: int | None, label: str | None) -> None:
    if version is not None and label is not None:
        raise InputError(f"Ask model {model} for a version or for a label, not for both ({version}, {label!r}).")
    spec.name = model
    if version is not None:
        spec.version.value = version
    elif label is not None:
        spec.version_label = label


def _version_status(entry: tfs_pb2.ModelVersionStatus) -> VersionStatus:
    return VersionStatus(
        version=entry.version, state=VersionState(entry.state), error_message=entry.status.error_message
    )


def _bytes_of(message: Message) -> bytes:
    return message.SerializeToString()
