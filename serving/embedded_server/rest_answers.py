"""REST's requests answered: a target and a body in, JSON out.

Its place in the flow: between rest.py, which speaks HTTP, and the same catalogue that gRPC uses.
"""

from __future__ import annotations

import json

from google.protobuf import json_format
from google.protobuf.message import Message

from serving.embedded_server.catalogue import Catalogue
from serving.embedded_server.model_questions import model_status, signature_map
from serving.embedded_server.predict import DEFAULT_SIGNATURE, run_signature
from serving.embedded_server.rest_input import parse_body, to_arrays
from serving.embedded_server.rest_output import predict_body
from serving.embedded_server.rest_paths import RestTarget
from serving.embedded_server.status import Code, StatusError, invalid_argument
from serving.protos import tfs_pb2


def answer(catalogue: Catalogue, target: RestTarget, body: bytes, *, timeout_seconds: float | None) -> str:
    """Return the JSON text of the answer.

    Raises:
        StatusError: what is refused, with TensorFlow Serving's code and words.
    """
    match target.verb:
        case "status":
            return _status(catalogue, target)
        case "metadata":
            return _metadata(catalogue, target)
        case "predict":
            return _predict(catalogue, target, body, timeout_seconds)
        case _:
            raise StatusError(Code.UNIMPLEMENTED, f"{target.verb} is not served here; export a predict signature")


def _predict(catalogue: Catalogue, target: RestTarget, body: bytes, timeout_seconds: float | None) -> str:
    with catalogue.borrow(target.model, version=target.version, label=target.label) as entry:
        assert entry.loaded is not None, "only a loaded version can be borrowed"
        request = parse_body(body)
        name = request.signature_name or DEFAULT_SIGNATURE
        signature = entry.loaded.signature_defs.get(name)
        if signature is None:
            raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
        inputs = to_arrays(request, signature.inputs)
        aliases = sorted(signature.outputs)
        outputs = run_signature(entry.loaded, signature, inputs, aliases=aliases, timeout_seconds=timeout_seconds)
    return predict_body(outputs, layout=request.layout)


def _status(catalogue: Catalogue, target: RestTarget) -> str:
    request = tfs_pb2.GetModelStatusRequest()
    request.model_spec.name = target.model
    if target.version is not None:
        request.model_spec.version.value = target.version
    return json.dumps(_as_dict(model_status(catalogue, request)), indent=1) + "\n"


def _metadata(catalogue: Catalogue, target: RestTarget) -> str:
    with catalogue.borrow(target.model, version=target.version, label=target.label) as entry:
        signatures = _as_dict(signature_map(entry))
        spec = {"name": entry.model, "signature_name": "", "version": str(entry.version)}
    return json.dumps({"model_spec": spec, "metadata": {"signature_def": signatures}}, indent=1) + "\n"


def _as_dict(message: Message) -> object:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
