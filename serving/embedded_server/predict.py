"""One Predict request, from message to message.

Its place in the flow: called by the gRPC service, by REST after it has made a message of its JSON,
and by warm-up; the wording of the errors is TensorFlow Serving's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from serving.embedded_server.catalogue import LoadedModel, ModelVersion
from serving.embedded_server.model_spec import fill_model_spec
from serving.embedded_server.status import failed_precondition, invalid_argument
from serving.embedded_server.wire_tensors import to_array, to_tensor
from serving.protos import tfs_pb2

DEFAULT_SIGNATURE = "serving_default"


def predict(
    entry: ModelVersion, request: tfs_pb2.PredictRequest, *, timeout_seconds: float | None
) -> tfs_pb2.PredictResponse:
    """Answer `request` with a version that the caller has borrowed.

    Raises:
        StatusError: the request is refused, or the graph fails.
    """
    assert entry.loaded is not None, "only a loaded version can be borrowed"
    response = tfs_pb2.PredictResponse()
    outputs = run_predict(entry.loaded, request, timeout_seconds=timeout_seconds)
    for alias, array in outputs.items():
        to_tensor(array, response.outputs[alias])
    fill_model_spec(response.model_spec, entry, signature_name=request.model_spec.signature_name or DEFAULT_SIGNATURE)
    return response


def run_predict(
    model: LoadedModel, request: tfs_pb2.PredictRequest, *, timeout_seconds: float | None
) -> dict[str, npt.NDArray[Any]]:
    """Return the outputs of a request by alias.

    Raises:
        StatusError: the request is refused, or the graph fails.
    """
    signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = model.signature_defs.get(signature_name)
    if signature is None:
        raise failed_precondition(f'Serving signature key "{signature_name}" not found.')
    _check_inputs(signature, request)
    aliases = _output_aliases(signature, request.output_filter)
    inputs = {alias: to_array(tensor, alias=alias) for alias, tensor in request.inputs.items()}
    return run_signature(model, signature, inputs, aliases=aliases, timeout_seconds=timeout_seconds)


def run_signature(
    model: LoadedModel,
    signature: tfs_pb2.SignatureDef,
    inputs: Mapping[str, npt.NDArray[Any]],
    *,
    aliases: Sequence[str],
    timeout_seconds: float | None,
) -> dict[str, npt.NDArray[Any]]:
    """Return the outputs `aliases` for inputs by alias; inputs that are left out take their defaults."""
    feeds = {signature.inputs[alias].name: array for alias, array in inputs.items()}
    for alias, value in signature.defaults.items():
        if alias not in inputs and alias in signature.inputs:
            feeds[signature.inputs[alias].name] = to_array(value, alias=alias)
    fetches = [signature.outputs[alias].name for alias in aliases]
    arrays = model.run(feeds, fetches, timeout_seconds=timeout_seconds)
    return dict(zip(aliases, arrays, strict=True))


def _check_inputs(signature: tfs_pb2.SignatureDef, request: tfs_pb2.PredictRequest) -> None:
    sent, expected = set(request.inputs), set(signature.inputs)
    required = expected - set(signature.defaults)
    if len(sent) > len(expected) or len(sent) < len(required):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(expected)} len({_set(sent)}) != "
            f"len({_set(expected)}). Sent extra: {_set(sent - expected)}. "
            f"Missing but required: {_set(required - sent)}."
        )
    for alias in sorted(sent - expected):
        raise invalid_argument(
            f"input tensor alias not found in signature: {alias}. Inputs expected to be in the set {_set(expected)}."
        )


def _output_aliases(signature: tfs_pb2.SignatureDef, output_filter: Collection[str]) -> list[str]:
    if not output_filter:
        return list(signature.outputs)
    aliases: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_set(signature.outputs)}."
            )
        if alias in aliases:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        aliases.append(alias)
    return aliases


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
