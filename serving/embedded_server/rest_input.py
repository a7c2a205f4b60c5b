"""A REST predict request: from JSON to arrays, in the row and in the columnar format.

Its place in the flow: rest.py hands it the body and the signature; the wording of the refusals is
TensorFlow Serving's.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from serving.embedded_server.dtypes import dtype_of, type_name
from serving.embedded_server.status import Code, StatusError, invalid_argument
from serving.embedded_server.wire_tensors import MAX_RANK
from serving.protos import tfs_pb2

_MAX_SHOWN_BYTES = 256
_INT32 = (-(2**31), 2**31 - 1)
_INTEGER_RANGES: dict[int, tuple[int, int]] = {
    tfs_pb2.DT_INT32: _INT32,
    tfs_pb2.DT_INT16: _INT32,
    tfs_pb2.DT_INT8: _INT32,
    tfs_pb2.DT_UINT8: _INT32,
    tfs_pb2.DT_INT64: (-(2**63), 2**63 - 1),
    tfs_pb2.DT_UINT32: (0, 2**32 - 1),
    tfs_pb2.DT_UINT64: (0, 2**64 - 1),
}
_WORDS = {dict: "Object", list: "Array", str: "String", bool: "Bool", type(None): "Null"}

Inputs = Mapping[str, tfs_pb2.TensorInfo]


@dataclass(frozen=True)
class JsonRequest:
    """A parsed body: the signature asked for ("" for the default) and where the values lie."""

    signature_name: str
    layout: Literal["row", "columnar"]
    values: Any


def parse_body(body: bytes) -> JsonRequest:
    """Return the parts of a predict request's body; text after the closing brace is ignored.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    document = _parse(body)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        _refuse(document, "not formatted correctly. 'signature_name' key must be a string value.")
    if "instances" in document and "inputs" in document:
        _refuse(document, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ")
    if "inputs" in document:
        return JsonRequest(name, "columnar", document["inputs"])
    if "instances" not in document:
        raise invalid_argument("Missing 'inputs' or 'instances' key")
    instances = document["instances"]
    if not isinstance(instances, list):
        _refuse(document, "Expecting 'instances' to be an list/array")
    if not instances:
        _refuse(document, "No values in 'instances' array")
    return JsonRequest(name, "row", instances)


def to_arrays(request: JsonRequest, inputs: Inputs) -> dict[str, npt.NDArray[Any]]:
    """Return one array for each input of the signature.

    Raises:
        StatusError: INVALID_ARGUMENT: values, names or shapes do not fit; UNIMPLEMENTED: the type.
    """
    return _row_arrays(request.values, inputs) if request.layout == "row" else _columns(request.values, inputs)


def _parse(body: bytes) -> dict[str, Any]:
    if not body.strip():
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        text = body.decode("utf-8").lstrip()
        document, _ = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        raise invalid_argument(f"JSON Parse error: Invalid value. at offset: {error.pos}") from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise invalid_argument(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        _refuse(document, "Is not object")
    return document


def _columns(value: Any, inputs: Inputs) -> dict[str, npt.NDArray[Any]]:
    if not isinstance(value, dict) or _is_base64(value):
        if len(inputs) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        return {name: _array(value, info.dtype) for name, info in inputs.items()}
    for name in inputs:
        if name not in value:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return {name: _array(value[name], info.dtype) for name, info in inputs.items()}


def _row_arrays(rows: list[Any], inputs: Inputs) -> dict[str, npt.NDArray[Any]]:
    are_objects = isinstance(rows[0], dict) and not _is_base64(rows[0])
    if not are_objects and len(inputs) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in inputs}
    for index, row in enumerate(rows):
        is_object = isinstance(row, dict) and not _is_base64(row)
        if is_object != are_objects:
            expected, found = ("object", "list") if are_objects else ("value/list", "object")
            raise invalid_argument(f"Expecting {expected} but got {found} at item {index} of input list")
        for name, value in _items(row if are_objects else {next(iter(inputs)): row}, inputs, index):
            where = f"{index} key: {name} of" if are_objects else f"{index} of"
            columns[name].append(_element(value, inputs[name].dtype, columns[name], where))
    return {name: np.stack(column) for name, column in columns.items()}


def _items(row: dict[str, Any], inputs: Inputs, index: int) -> Iterable[tuple[str, Any]]:
    if set(row) != set(inputs):
        raise invalid_argument(
            f"Failed to process element: {index} of 'instances' list. JSON object: {_shown(row)} "
            f"keys must be equal to: {','.join(sorted(inputs))}"
        )
    return row.items()


def _element(value: Any, data_type: int, before: list[npt.NDArray[Any]], where: str) -> npt.NDArray[Any]:
    try:
        array = _array(value, data_type)
        if before and before[0].size != array.size:
            raise invalid_argument(f"Expecting tensor size: {before[0].size} but got: {array.size}")
        if before and before[0].shape != array.shape:
            raise invalid_argument(f"Expecting shape {_shape_text(before[0])} but got: {_shape_text(array)}")
    except StatusError as error:
        raise invalid_argument(f"Failed to process element: {where} 'instances' list. Error: {error}") from None
    return array


def _array(value: Any, data_type: int) -> npt.NDArray[Any]:
    """Return a nested list, or a single value, as an array of the signature's type."""
    shape: list[int] = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    if len(shape) > MAX_RANK:
        raise invalid_argument(f"Encountered list at unexpected level: {len(shape)} expected < {MAX_RANK}")
    leaves: list[Any] = []
    _flatten(value, 0, shape, leaves.append, _converter(data_type))
    dtype = dtype_of(data_type)
    if dtype == np.object_:
        return np.array([*leaves, None], dtype=object)[:-1].reshape(shape)
    with np.errstate(over="ignore"):
        # As C++ does it: a double too large for a float becomes infinity, integers lose their upper bits.
        wide = np.array(leaves, dtype=np.float64) if dtype.kind == "f" else np.array(leaves)
        return wide.astype(dtype).reshape(shape)


def _flatten(
    value: Any, level: int, shape: list[int], add: Callable[[Any], None], convert: Callable[[Any], Any]
) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid_argument(
                f"JSON Value: {_shown(value)} found at incorrect level: {level + 1} "
                f"in the JSON DOM. Expected at level: {len(shape)}"
            )
        return add(convert(value))
    if level >= len(shape):
        raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for item in value:
        _flatten(item, level + 1, shape, add, convert)
    return None


def _converter(data_type: int) -> Callable[[Any], Any]:
    if data_type in (tfs_pb2.DT_FLOAT, tfs_pb2.DT_DOUBLE):
        return lambda value: float(value) if _is_number(value) else _type_error(value, data_type)
    if data_type in _INTEGER_RANGES:
        low, high = _INTEGER_RANGES[data_type]
        return lambda value: value if type(value) is int and low <= value <= high else _type_error(value, data_type)
    if data_type == tfs_pb2.DT_BOOL:
        return lambda value: value if isinstance(value, bool) else _type_error(value, data_type)
    if data_type == tfs_pb2.DT_STRING:
        return _string
    return lambda value: _unsupported(value, data_type)


def _string(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", errors="surrogatepass")
    if not isinstance(value, dict):
        _type_error(value, tfs_pb2.DT_STRING)
    if not _is_base64(value):
        _refuse(value, "not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"] + "=" * (-len(value["b64"]) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument("Unable to base64 decode") from None


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _type_error(value: Any, data_type: int) -> NoReturn:
    word = "Number" if _is_number(value) else _WORDS[type(value)]
    if isinstance(value, bool):
        word = str(value)
    raise invalid_argument(f"JSON Value: {_shown(value)} Type: {word} is not of expected type: {type_name(data_type)}")


def _unsupported(value: Any, data_type: int) -> NoReturn:
    raise StatusError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {_shown(value)} to type: {type_name(data_type)}")


def _refuse(value: Any, why: str) -> NoReturn:
    raise invalid_argument(f"JSON Value: {_shown(value)} {why}")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN_BYTES else f"{text[:_MAX_SHOWN_BYTES]}..."


def _shape_text(array: npt.NDArray[Any]) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"
