"""Nested lists of JSON values become arrays of a signature's type.

Its place in the flow: rest_input's workhorse. `dense_array` is quick and takes only what fits in
every way; `exact_array` goes through the values one by one, and says what does not fit.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from serving.embedded_server.dtypes import dtype_of, type_name
from serving.embedded_server.rest_json import is_base64, refuse, shown, string_bytes, type_word
from serving.embedded_server.status import Code, StatusError, invalid_argument
from serving.embedded_server.wire_tensors import MAX_RANK
from serving.protos import tfs_pb2

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
_FLOATS = (tfs_pb2.DT_FLOAT, tfs_pb2.DT_DOUBLE)

Array = npt.NDArray[Any]


class DenseError(Exception):
    """Something does not fit; `exact_array` knows what."""


def dense_array(value: Any, data_type: int) -> Array:
    """Return a nested list, or a single value, as an array.

    Raises:
        DenseError: it does not fit in some way.
        StatusError: INVALID_ARGUMENT: a string cannot be decoded.
    """
    leaves, shape = _leaves(value)
    kinds = set(map(type, leaves))
    if not kinds:
        return np.empty(shape, dtype=_known_dtype(data_type))
    if data_type in _FLOATS and kinds <= {int, float}:
        return _numbers(leaves, np.float64, data_type).reshape(shape)
    if data_type in _INTEGER_RANGES and kinds == {int}:
        return _integers(leaves, data_type).reshape(shape)
    if data_type == tfs_pb2.DT_BOOL and kinds == {bool}:
        return np.array(leaves, dtype=np.bool_).reshape(shape)
    if data_type == tfs_pb2.DT_STRING and (
        kinds == {str} or all(type(leaf) is str or is_base64(leaf) for leaf in leaves)
    ):
        return _strings([string_bytes(leaf) for leaf in leaves], shape)
    raise DenseError


def exact_array(value: Any, data_type: int) -> Array:
    """Return the same, value by value.

    Raises:
        StatusError: INVALID_ARGUMENT: what does not fit; UNIMPLEMENTED: the type.
    """
    shape: list[int] = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    if len(shape) > MAX_RANK:
        raise invalid_argument(f"Encountered list at unexpected level: {MAX_RANK} expected < {MAX_RANK}")
    leaves: list[Any] = []
    _collect(value, 0, shape, data_type, leaves)
    dtype = _known_dtype(data_type)
    if dtype == np.object_:
        return _strings(leaves, shape)
    wide = np.float64 if data_type in _FLOATS else np.int64
    return _numbers(leaves, np.uint64 if data_type == tfs_pb2.DT_UINT64 else wide, data_type).reshape(shape)


def _leaves(value: Any) -> tuple[list[Any], list[int]]:
    """Return the values of a nested list in order, and its shape, list by list rather than value by value."""
    shape: list[int] = []
    level = [value]
    while level and type(level[0]) is list:
        if set(map(type, level)) != {list}:
            raise DenseError
        sizes = set(map(len, level))
        if len(sizes) > 1 or len(shape) == MAX_RANK:
            raise DenseError
        shape.append(sizes.pop())
        level = level[0] if len(level) == 1 else list(chain.from_iterable(level))
    return level, shape


def _collect(value: Any, level: int, shape: list[int], data_type: int, leaves: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid_argument(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} "
                f"in the JSON DOM. Expected at level: {len(shape)}"
            )
        leaves.append(_converted(value, data_type))
        return
    if level >= len(shape):
        raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for item in value:
        _collect(item, level + 1, shape, data_type, leaves)


def _converted(value: Any, data_type: int) -> Any:
    if data_type == tfs_pb2.DT_STRING:
        if isinstance(value, dict) and not is_base64(value):
            refuse(value, "not formatted correctly for base64 data")
        return string_bytes(value) if isinstance(value, str | dict) else _refuse_type(value, data_type)
    if isinstance(value, dict):
        _refuse_type(value, data_type)
    if data_type in _FLOATS:
        return value if type(value) in (int, float) else _refuse_type(value, data_type)
    if data_type in _INTEGER_RANGES:
        low, high = _INTEGER_RANGES[data_type]
        return value if type(value) is int and low <= value <= high else _refuse_type(value, data_type)
    if data_type == tfs_pb2.DT_BOOL:
        return value if isinstance(value, bool) else _refuse_type(value, data_type)
    raise StatusError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {shown(value)} to type: {type_name(data_type)}")


def _refuse_type(value: Any, data_type: int) -> NoReturn:
    refuse(value, f"Type: {type_word(value)} is not of expected type: {type_name(data_type)}")


def _integers(leaves: list[Any], data_type: int) -> Array:
    low, high = _INTEGER_RANGES[data_type]
    try:
        wide = np.array(leaves, dtype=np.uint64 if data_type == tfs_pb2.DT_UINT64 else np.int64)
    except OverflowError:
        raise DenseError from None
    if wide.min() < low or wide.max() > high:
        raise DenseError
    return wide.astype(dtype_of(data_type), copy=False)


def _numbers(leaves: list[Any], wide: npt.DTypeLike, data_type: int) -> Array:
    try:
        # As C++ does it: a double too large for a float becomes infinity, integers lose their upper bits.
        with np.errstate(over="ignore"):
            return np.array(leaves, dtype=wide).astype(dtype_of(data_type), copy=False)
    except OverflowError:
        raise invalid_argument("JSON Parse error: Number too big to be stored in double.") from None


def _strings(values: list[bytes], shape: list[int]) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _known_dtype(data_type: int) -> np.dtype[Any]:
    if data_type not in (*_FLOATS, *_INTEGER_RANGES, tfs_pb2.DT_BOOL, tfs_pb2.DT_STRING):
        raise StatusError(Code.UNIMPLEMENTED, f"Conversion of JSON values to type: {type_name(data_type)}")
    return dtype_of(data_type)
