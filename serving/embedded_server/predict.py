"""One Predict request, from message to message.

Its place in the flow: the gRPC service starts requests, which are answered from the threads in which
models run; REST and warm-up wait for theirs. The wording of the errors is TensorFlow Serving's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from serving.embedded_server.catalogue import Catalogue, LoadedModel, ModelVersion
from serving.embedded_server.executor import ExecutedModel
from serving.embedded_server.grpc_method import Reply
from serving.embedded_server.host_tensor import HostTensor
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.model_spec import fill_model_spec, take_for
from serving.embedded_server.predict_checks import check_inputs, output_aliases
from serving.embedded_server.predict_wire import read_input, write_response
from serving.embedded_server.signature_plan import SignaturePlan
from serving.embedded_server.status import Code, StatusError, failed_precondition
from serving.embedded_server.wire_tensors import to_array, to_tensor
from serving.protos import tfs_pb2

DEFAULT_SIGNATURE = "serving_default"

_LOG = logging.getLogger(__name__)


def start_predict(
    catalogue: Catalogue,
    request: tfs_pb2.PredictRequest,
    *,
    timeout_seconds: float | None,
    reply: Reply,
    metrics: Metrics,
    is_tensor_content: bool = False,
) -> None:
    """Begin to answer `request` and return at once.

    Args:
        catalogue: where the version is taken from; it is given back before the answer goes out.
        request: what is asked.
        timeout_seconds: how long the client waits; None for ever.
        reply: takes the PredictResponse or the StatusError, once, from any thread.
        metrics: where the time in TensorFlow is counted.
        is_tensor_content: whether outputs are answered as raw bytes instead of in typed fields.
    """
    try:
        entry = take_for(catalogue, request)
    except StatusError as error:
        reply(error)
        return
    call = _Call(catalogue, entry, request, reply=reply, metrics=metrics, is_tensor_content=is_tensor_content)
    try:
        call.start(timeout_seconds)
    except StatusError as error:
        call.finish(error)
    except Exception as error:  # noqa: BLE001  (the version has to be given back, and the client to be answered)
        call.finish(_internal(error))


class _Call:
    """A request under way, from taking the version to giving it back."""

    __slots__ = ("_began", "_catalogue", "_entry", "_is_tensor_content", "_metrics", "_reply", "_request")

    def __init__(
        self,
        catalogue: Catalogue,
        entry: ModelVersion,
        request: tfs_pb2.PredictRequest,
        *,
        reply: Reply,
        metrics: Metrics,
        is_tensor_content: bool,
    ) -> None:
        self._catalogue = catalogue
        self._entry = entry
        self._request = request
        self._reply = reply
        self._metrics = metrics
        self._is_tensor_content = is_tensor_content
        self._began = time.perf_counter()

    def start(self, timeout_seconds: float | None) -> None:
        model, request = self._entry.loaded, self._request
        assert model is not None, "only a loaded version can be taken"
        if isinstance(model, ExecutedModel) and not request.output_filter:
            plan = model.signatures.get(request.model_spec.signature_name or DEFAULT_SIGNATURE)
            tensors = _inputs_of(plan, request) if plan is not None else None
            if plan is not None and tensors is not None:
                model.start(
                    plan.run,
                    tensors,
                    timeout_seconds=timeout_seconds,
                    done=lambda answer: self._take(lambda outputs: self._plan_response(plan, outputs), answer),
                )
                return
        prepared = _prepare(model, request)
        model.submit(
            prepared.feeds,
            prepared.fetches,
            timeout_seconds=timeout_seconds,
            done=lambda answer: self._take(lambda arrays: self._response(prepared, arrays), answer),
        )

    def finish(self, answer: tfs_pb2.PredictResponse | StatusError) -> None:
        self._catalogue.give_back(self._entry)
        self._reply(answer)

    # What follows runs in the threads of the models.

    def _take(self, respond: Callable[[Any], tfs_pb2.PredictResponse], answer: list[Any] | StatusError) -> None:
        if isinstance(answer, StatusError):
            return self.finish(answer)
        microseconds = (time.perf_counter() - self._began) * 1e6
        self._metrics.runtime(
            model=self._entry.model, version=self._entry.version, api="Predict", microseconds=microseconds
        )
        try:
            response = respond(answer)
        except StatusError as error:
            return self.finish(error)
        except Exception as error:  # noqa: BLE001  (as in start_predict)
            return self.finish(_internal(error))
        return self.finish(response)

    def _plan_response(self, plan: SignaturePlan, outputs: list[HostTensor]) -> tfs_pb2.PredictResponse:
        return write_response(
            plan.output_keys, outputs, model_spec=plan.model_spec, is_tensor_content=self._is_tensor_content
        )

    def _response(self, prepared: _Prepared, arrays: list[Any]) -> tfs_pb2.PredictResponse:
        outputs = dict(zip(prepared.aliases, arrays, strict=True))
        return _response_of(self._entry, self._request, outputs, is_tensor_content=self._is_tensor_content)


def predict(
    entry: ModelVersion,
    request: tfs_pb2.PredictRequest,
    *,
    timeout_seconds: float | None,
    is_tensor_content: bool = False,
) -> tfs_pb2.PredictResponse:
    """Answer `request` with a version that the caller has borrowed; wait for it.

    Raises:
        StatusError: the request is refused, or the graph fails.
    """
    assert entry.loaded is not None, "only a loaded version can be borrowed"
    outputs = run_predict(entry.loaded, request, timeout_seconds=timeout_seconds)
    return _response_of(entry, request, outputs, is_tensor_content=is_tensor_content)


def run_predict(
    model: LoadedModel, request: tfs_pb2.PredictRequest, *, timeout_seconds: float | None
) -> dict[str, npt.NDArray[Any]]:
    """Return the outputs of a request by alias.

    Raises:
        StatusError: the request is refused, or the graph fails.
    """
    prepared = _prepare(model, request)
    arrays = model.run(prepared.feeds, prepared.fetches, timeout_seconds=timeout_seconds)
    return dict(zip(prepared.aliases, arrays, strict=True))


def run_signature(
    model: LoadedModel,
    signature: tfs_pb2.SignatureDef,
    inputs: Mapping[str, npt.NDArray[Any]],
    *,
    aliases: Sequence[str],
    timeout_seconds: float | None,
) -> dict[str, npt.NDArray[Any]]:
    """Return the outputs `aliases` for inputs by alias; inputs that are left out take their defaults."""
    fetches = [signature.outputs[alias].name for alias in aliases]
    arrays = model.run(_feeds(signature, inputs), fetches, timeout_seconds=timeout_seconds)
    return dict(zip(aliases, arrays, strict=True))


class _Prepared(NamedTuple):
    feeds: dict[str, npt.NDArray[Any]]
    fetches: list[str]
    aliases: list[str]


def _prepare(model: LoadedModel, request: tfs_pb2.PredictRequest) -> _Prepared:
    signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = model.signature_defs.get(signature_name)
    if signature is None:
        raise failed_precondition(f'Serving signature key "{signature_name}" not found.')
    check_inputs(signature, request)
    aliases = output_aliases(signature, request.output_filter)
    inputs = {alias: to_array(tensor, alias=alias) for alias, tensor in request.inputs.items()}
    return _Prepared(_feeds(signature, inputs), [signature.outputs[alias].name for alias in aliases], aliases)


def _feeds(signature: tfs_pb2.SignatureDef, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    feeds = {signature.inputs[alias].name: array for alias, array in inputs.items()}
    for alias, value in signature.defaults.items():
        if alias not in inputs and alias in signature.inputs:
            feeds[signature.inputs[alias].name] = to_array(value, alias=alias)
    return feeds


def _inputs_of(plan: SignaturePlan, request: tfs_pb2.PredictRequest) -> list[HostTensor] | None:
    """Return the values of a request that has exactly the signature's inputs."""
    inputs = request.inputs
    if len(inputs) != len(plan.input_aliases):
        return None
    tensors = []
    for alias in plan.input_aliases:
        if alias not in inputs:
            return None
        tensors.append(read_input(inputs[alias], alias=alias))
    return tensors


def _response_of(
    entry: ModelVersion,
    request: tfs_pb2.PredictRequest,
    outputs: Mapping[str, npt.NDArray[Any]],
    *,
    is_tensor_content: bool,
) -> tfs_pb2.PredictResponse:
    response = tfs_pb2.PredictResponse()
    for alias, array in outputs.items():
        to_tensor(array, response.outputs[alias], as_content=is_tensor_content)
    fill_model_spec(response.model_spec, entry, signature_name=request.model_spec.signature_name or DEFAULT_SIGNATURE)
    return response


def _internal(error: Exception) -> StatusError:
    _LOG.exception("a request failed unexpectedly")
    return StatusError(Code.INTERNAL, f"Internal error; see the server's log: {type(error).__name__}: {error}")
