"""A REST predict request: from JSON to arrays, in the row and in the columnar format.

Its place in the flow: rest_answers hands it the body and the signature. Values that fit become
arrays without a step of Python for each of them (dense_values); where something does not fit, they
are gone through one by one for the error, in TensorFlow Serving's order and words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from serving.embedded_server.dense_values import DenseError, dense_array, exact_array
from serving.embedded_server.json_reader import read_json
from serving.embedded_server.rest_json import is_base64, refuse, shown
from serving.embedded_server.status import StatusError, invalid_argument
from serving.protos import tfs_pb2

Inputs = Mapping[str, tfs_pb2.TensorInfo]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class JsonRequest:
    """A parsed body: the signature asked for ("" for the default) and where the values lie."""

    signature_name: str
    document: dict[str, Any]


@dataclass(frozen=True)
class JsonInputs:
    """What a request feeds, and the format that its answer is to have."""

    layout: Literal["row", "columnar"]
    arrays: dict[str, Array]


def parse_body(body: bytes | bytearray) -> JsonRequest:
    """Return the document of a body, and the signature that it names.

    Raises:
        StatusError: INVALID_ARGUMENT: it is no JSON object.
    """
    document = read_json(body)
    if not isinstance(document, dict):
        refuse(document, "Is not object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        refuse(document, "not formatted correctly. 'signature_name' key must be a string value.")
    return JsonRequest(name, document)


def to_arrays(request: JsonRequest, inputs: Inputs) -> JsonInputs:
    """Return one array for each input of the signature.

    Raises:
        StatusError: INVALID_ARGUMENT: values, names or shapes do not fit; UNIMPLEMENTED: the type.
    """
    document = request.document
    if not inputs:
        raise invalid_argument(f"Failed to get input map for signature: {request.signature_name or 'DEFAULT'}")
    if "instances" in document and "inputs" in document:
        refuse(document, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ")
    if "inputs" in document:
        return JsonInputs("columnar", _columns(document["inputs"], inputs))
    if "instances" not in document:
        raise invalid_argument("Missing 'inputs' or 'instances' key")
    instances = document["instances"]
    if not isinstance(instances, list):
        refuse(document, "Expecting 'instances' to be an list/array")
    if not instances:
        refuse(document, "No values in 'instances' array")
    return JsonInputs("row", _rows(instances, inputs))


def _columns(value: Any, inputs: Inputs) -> dict[str, Array]:
    if not isinstance(value, dict) or is_base64(value):
        if len(inputs) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        return {name: _array(value, info.dtype) for name, info in inputs.items()}
    arrays = {}
    for name, info in inputs.items():
        if name not in value:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = _array(value[name], info.dtype)
    return arrays


def _rows(rows: list[Any], inputs: Inputs) -> dict[str, Array]:
    are_objects = _is_named(rows[0])
    if not are_objects and len(inputs) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    try:
        if not are_objects:
            return {name: dense_array(rows, info.dtype) for name, info in inputs.items()}
        if all(_is_named(row) and row.keys() == inputs.keys() for row in rows):
            return {name: dense_array([row[name] for row in rows], info.dtype) for name, info in inputs.items()}
    except DenseError:
        pass
    return _rows_one_by_one(rows, inputs, are_objects=are_objects)


def _rows_one_by_one(rows: list[Any], inputs: Inputs, *, are_objects: bool) -> dict[str, Array]:
    columns: dict[str, list[Array]] = {name: [] for name in inputs}
    for index, row in enumerate(rows):
        if _is_named(row) != are_objects:
            expected, found = ("object", "list") if are_objects else ("value/list", "object")
            raise invalid_argument(f"Expecting {expected} but got {found} at item {index} of input list")
        for name, value in row.items() if are_objects else ((next(iter(inputs)), row),):
            where = f"{index} key: {name}" if are_objects else f"{index}"
            _add_element(columns, name, value, inputs, where)
        if are_objects and row.keys() != inputs.keys():
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: {shown(row)} "
                f"keys must be equal to: {','.join(sorted(inputs))}"
            )
    return {name: np.stack(column) for name, column in columns.items()}


def _add_element(columns: dict[str, list[Array]], name: str, value: Any, inputs: Inputs, where: str) -> None:
    try:
        if name not in inputs:
            raise invalid_argument(f"JSON object: does not have named input: {name}")
        array = _array(value, inputs[name].dtype)
        first = columns[name][0] if columns[name] else array
        if first.size != array.size:
            raise invalid_argument(f"Expecting tensor size: {first.size} but got: {array.size}")
        if first.shape != array.shape:
            raise invalid_argument(f"Expecting shape {_shape_text(first)} but got: {_shape_text(array)}")
    except StatusError as error:
        raise invalid_argument(f"Failed to process element: {where} of 'instances' list. Error: {error}") from None
    columns[name].append(array)


def _array(value: Any, data_type: int) -> Array:
    try:
        return dense_array(value, data_type)
    except DenseError:
        return exact_array(value, data_type)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _shape_text(array: Array) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"
