"""A REST classify or regress request: from JSON objects to Examples.

Its place in the flow: rest_answers turns the body into the same message that gRPC brings.
"""

from __future__ import annotations

from typing import Any

from serving.embedded_server.rest_input import parse_body
from serving.embedded_server.rest_json import is_base64, refuse, string_bytes, type_word
from serving.embedded_server.status import StatusError, invalid_argument
from serving.protos import tfs_pb2

_INT64_MAX = 2**63 - 1
_KIND_WORDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def classification_request(body: bytes | bytearray) -> tfs_pb2.ClassificationRequest:
    """Return the request of a body; the model's name is left to the caller.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    request = tfs_pb2.ClassificationRequest()
    _fill(request, body)
    return request


def regression_request(body: bytes | bytearray) -> tfs_pb2.RegressionRequest:
    """Return the request of a body; the model's name is left to the caller.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    request = tfs_pb2.RegressionRequest()
    _fill(request, body)
    return request


def _fill(request: tfs_pb2.ClassificationRequest | tfs_pb2.RegressionRequest, body: bytes | bytearray) -> None:
    parsed = parse_body(body)
    document = parsed.document
    request.model_spec.signature_name = parsed.signature_name
    has_context = "context" in document
    if has_context:
        _fill_example(document["context"], request.input.example_list_with_context.context)
    if "examples" not in document:
        # For regress too: the real server's words.
        refuse(document, "When method is classify, key 'examples' is expected and was not found")
    examples = document["examples"]
    if not isinstance(examples, list):
        refuse(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        refuse(document, "'examples' value is an empty array")
    where = request.input.example_list_with_context if has_context else request.input.example_list
    for example in examples:
        _fill_example(example, where.examples.add())


def _fill_example(value: Any, example: tfs_pb2.Example) -> None:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {type_word(value)}")
    example.features.SetInParent()
    for name, content in value.items():
        _fill_feature(name, content if isinstance(content, list) else [content], example.features)


def _fill_feature(name: str, values: list[Any], features: tfs_pb2.Features) -> None:
    kind = ""
    converted = []
    for value in values:
        value_kind, plain = _plain(name, value)
        if kind and value_kind != kind:
            raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {_KIND_WORDS[kind]}")
        kind = value_kind
        converted.append(plain)
    try:
        feature = features.feature[name]
    except (UnicodeError, ValueError):
        raise invalid_argument("The name of a feature is not UTF-8") from None
    if kind:
        getattr(feature, kind).value.extend(converted)


def _plain(name: str, value: Any) -> tuple[str, Any]:
    """Return the field of a Feature that a value belongs to, and what to put there."""
    if isinstance(value, bool):
        return "int64_list", int(value)
    if isinstance(value, float):
        return "float_list", value
    if isinstance(value, int):
        if value > _INT64_MAX:
            if value < 2 * (_INT64_MAX + 1):
                raise invalid_argument(f"Feature: {name} has uint64 element. Only int64_t is supported.")
            return "float_list", _double(value)
        return ("int64_list", value) if value >= -_INT64_MAX - 1 else ("float_list", _double(value))
    if isinstance(value, str) or is_base64(value):
        return "bytes_list", string_bytes(value)
    raise _type_error(name, value)


def _double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise invalid_argument("JSON Parse error: Number too big to be stored in double.") from None


def _type_error(name: str, value: Any) -> StatusError:
    return invalid_argument(f"Feature: {name} has element with unexpected JSON type: {type_word(value)}")
