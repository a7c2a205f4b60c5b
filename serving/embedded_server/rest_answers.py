"""REST's requests answered: a target and a body in, JSON out.

Its place in the flow: between rest.py, which speaks HTTP, and the same catalogue that gRPC uses.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from serving.embedded_server.catalogue import Catalogue, LoadedModel, ModelVersion
from serving.embedded_server.example_methods import CLASSIFY, REGRESS, ExampleMethod
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.model_questions import model_status, signature_map
from serving.embedded_server.predict import DEFAULT_SIGNATURE, run_signature
from serving.embedded_server.rest_body import RestBody
from serving.embedded_server.rest_examples import classification_request, regression_request
from serving.embedded_server.rest_input import JsonInputs, JsonRequest, parse_body, to_arrays
from serving.embedded_server.rest_output import classification_body, predict_body, regression_body
from serving.embedded_server.rest_paths import RestTarget
from serving.embedded_server.status import Code, StatusError, invalid_argument
from serving.protos import tfs_pb2


@dataclass
class Served:
    """Which version answered or failed, for the count; it is known as soon as it is found."""

    version: int | None = None


class RestAnswers:
    """Answers from a catalogue.

    Args:
        catalogue: where the versions are.
        metrics: is told how long the graph took.
        is_method_name_checked: as --enable_signature_method_name_check.
    """

    def __init__(self, catalogue: Catalogue, *, metrics: Metrics, is_method_name_checked: bool) -> None:
        self._catalogue = catalogue
        self._metrics = metrics
        self._is_method_name_checked = is_method_name_checked
        # Read, a body takes many times its size: large ones take turns.
        self._large_turn = threading.Lock()

    def answer(self, target: RestTarget, body: RestBody, *, deadline: float | None, served: Served) -> str:
        """Return the JSON text of the answer.

        Args:
            target: what is asked.
            body: the request's body.
            deadline: when to give up, on the monotonic clock.
            served: is told the version.

        Raises:
            StatusError: what is refused, with TensorFlow Serving's code and words.
        """
        if target.verb == "status":
            return self._status(target)
        if target.verb == "metadata":
            return self._metadata(target, served)
        if not body.is_large:
            return self._run(target, body, deadline, served)
        if not self._large_turn.acquire(timeout=_seconds_left(deadline) or -1):
            raise _too_late()
        try:
            return self._run(target, body, deadline, served)
        finally:
            self._large_turn.release()

    def _run(self, target: RestTarget, body: RestBody, deadline: float | None, served: Served) -> str:
        # As in the real server a body that cannot be read is refused before the model is looked for.
        match target.verb:
            case "classify":
                request = classification_request(body.take())
                return classification_body(self._on_examples(CLASSIFY, target, request, deadline, served))
            case "regress":
                regression = regression_request(body.take())
                return regression_body(self._on_examples(REGRESS, target, regression, deadline, served))
            case _:
                return self._predict(target, parse_body(body.take()), deadline, served)

    @contextmanager
    def _borrow(self, target: RestTarget, served: Served) -> Iterator[ModelVersion]:
        with self._catalogue.borrow(target.model, version=target.version, label=target.label) as entry:
            served.version = entry.version
            yield entry

    def _predict(self, target: RestTarget, request: JsonRequest, deadline: float | None, served: Served) -> str:
        with self._borrow(target, served) as entry:
            assert entry.loaded is not None, "only a loaded version can be borrowed"
            signature = _signature(entry.loaded, request.signature_name)
            inputs = _read_inputs(request, signature)
            timeout_seconds = _seconds_left(deadline)
            began = time.perf_counter()
            outputs = run_signature(
                *(entry.loaded, signature, inputs.arrays),
                aliases=sorted(signature.outputs),
                timeout_seconds=timeout_seconds,
            )
            microseconds = (time.perf_counter() - began) * 1e6
            self._metrics.runtime(model=entry.model, version=entry.version, api="Predict", microseconds=microseconds)
        return predict_body(outputs, layout=inputs.layout)

    def _on_examples(
        self,
        method: ExampleMethod[Any, Any, Any],
        target: RestTarget,
        request: Any,
        deadline: float | None,
        served: Served,
    ) -> Any:
        with self._borrow(target, served) as entry:
            response = method.answer(
                *(entry, request),
                timeout_seconds=_seconds_left(deadline),
                is_method_name_checked=self._is_method_name_checked,
                metrics=self._metrics,
            )
        return response.result

    def _status(self, target: RestTarget) -> str:
        request = tfs_pb2.GetModelStatusRequest()
        _set_name(request.model_spec, target.model)
        if target.version is not None:
            request.model_spec.version.value = target.version
        return json.dumps(_as_dict(model_status(self._catalogue, request)), indent=1) + "\n"

    def _metadata(self, target: RestTarget, served: Served) -> str:
        with self._borrow(target, served) as entry:
            signatures = _as_dict(signature_map(entry))
            spec = {"name": entry.model, "signature_name": "", "version": str(entry.version)}
        document = {"model_spec": spec, "metadata": {"signature_def": signatures}}
        return json.dumps(document, indent=1) + "\n"


def _signature(model: LoadedModel, signature_name: str) -> tfs_pb2.SignatureDef:
    name = signature_name or DEFAULT_SIGNATURE
    found: tfs_pb2.SignatureDef | None = model.signature_defs.get(name)
    if found is None:
        raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
    return found


def _read_inputs(request: JsonRequest, signature: tfs_pb2.SignatureDef) -> JsonInputs:
    inputs = to_arrays(request, signature.inputs)
    # The lists of a large request take many times what the arrays take: they are not kept while the graph runs.
    request.document.clear()
    return inputs


def _set_name(spec: tfs_pb2.ModelSpec, name: str) -> None:
    try:
        spec.name = name
    except UnicodeError:
        raise invalid_argument("The name of a model is not UTF-8") from None


def _seconds_left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise _too_late()
    return left


def _too_late() -> StatusError:
    return StatusError(Code.DEADLINE_EXCEEDED, "The request's time was over before its turn came")


def _as_dict(message: Message) -> object:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
