"""NumPy arrays to and from the wire's tensors, as TensorFlow Serving reads and writes them.

Its place in the flow: predict decodes inputs, which may be raw bytes or typed fields, and encodes
outputs into typed fields, which every client reads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.embedded_server.dtypes import data_type_of, dtype_of
from serving.embedded_server.status import Code, StatusError, invalid_argument
from serving.protos import tfs_pb2

_FIELDS: dict[int, str] = {
    tfs_pb2.DT_FLOAT: "float_val",
    tfs_pb2.DT_DOUBLE: "double_val",
    tfs_pb2.DT_INT32: "int_val",
    tfs_pb2.DT_UINT8: "int_val",
    tfs_pb2.DT_INT16: "int_val",
    tfs_pb2.DT_INT8: "int_val",
    tfs_pb2.DT_UINT16: "int_val",
    tfs_pb2.DT_STRING: "string_val",
    tfs_pb2.DT_COMPLEX64: "scomplex_val",
    tfs_pb2.DT_INT64: "int64_val",
    tfs_pb2.DT_BOOL: "bool_val",
    tfs_pb2.DT_COMPLEX128: "dcomplex_val",
    tfs_pb2.DT_HALF: "half_val",
    tfs_pb2.DT_UINT32: "uint32_val",
    tfs_pb2.DT_UINT64: "uint64_val",
}
MAX_RANK = 64
"""The most dimensions that NumPy knows."""

# A shape costs a few bytes to send: memory is not taken on its word alone.
_MAX_FILLED_BYTES = 1024**3
# Fields of fixed width: on the wire a packed field is the little-endian array itself.
_PACKED_KEYS = {"float_val": b"\x2a", "double_val": b"\x32", "scomplex_val": b"\x4a", "dcomplex_val": b"\x62"}


def to_array(tensor: tfs_pb2.Tensor, *, alias: str) -> npt.NDArray[Any]:
    """Return a tensor's values; strings are objects (bytes).

    Args:
        tensor: the message.
        alias: the input's name, for the message of the error.

    Raises:
        StatusError: INVALID_ARGUMENT: the values do not fill the shape; UNIMPLEMENTED: the type.
    """
    dtype = dtype_of(tensor.dtype)
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    unparsable = invalid_argument(f"tensor parsing error: {alias}")
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape) or len(shape) > MAX_RANK:
        raise unparsable
    count = math.prod(shape)
    if tensor.tensor_content:
        if tensor.dtype == tfs_pb2.DT_STRING or len(tensor.tensor_content) != count * dtype.itemsize:
            raise unparsable
        return np.frombuffer(tensor.tensor_content, dtype=dtype).reshape(shape)
    return _filled(_typed_values(tensor, dtype, unparsable), count, unparsable).reshape(shape)


def to_tensor(array: npt.NDArray[Any], tensor: tfs_pb2.Tensor) -> None:
    """Write an array into a message's typed field."""
    tensor.dtype = data_type_of(array.dtype)
    # An empty shape is a scalar's, and has to be there.
    tensor.tensor_shape.SetInParent()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    field = _FIELDS[tensor.dtype]
    if field in _PACKED_KEYS:
        content = np.ascontiguousarray(array).tobytes()
        tensor.MergeFromString(_PACKED_KEYS[field] + _varint(len(content)) + content)
    elif field == "half_val":
        tensor.half_val.extend(array.ravel().view(np.uint16).tolist())
    else:
        getattr(tensor, field).extend(array.ravel().tolist())


def _typed_values(tensor: tfs_pb2.Tensor, dtype: np.dtype[Any], unparsable: StatusError) -> npt.NDArray[Any]:
    field = _FIELDS[tensor.dtype]
    values = getattr(tensor, field)
    if dtype == np.object_:
        return np.array([*values, None], dtype=object)[:-1]
    if field == "half_val":
        return np.array(values, dtype=np.uint16).view(np.float16)
    if field in ("scomplex_val", "dcomplex_val"):
        parts = np.array(values, dtype=np.float32 if field == "scomplex_val" else np.float64)
        if parts.size % 2:
            raise unparsable
        return parts.view(dtype)
    # Wider than asked for, then narrowed as C++ does it, by cutting bits.
    wide = np.array(values) if len(values) else np.empty(0, dtype)
    return wide.astype(dtype)


def _filled(values: npt.NDArray[Any], count: int, unparsable: StatusError) -> npt.NDArray[Any]:
    if values.size == count:
        return values
    if values.size > count:
        raise unparsable
    if count * values.dtype.itemsize > _MAX_FILLED_BYTES:
        raise StatusError(
            Code.RESOURCE_EXHAUSTED, f"A tensor of {count} values was sent with {values.size} of them; send them all"
        )
    # Trailing repetitions of the last value may be left out; with none at all it is zero, or empty.
    nothing = b"" if values.dtype == np.object_ else 0
    filled = np.full(count, values[-1] if values.size else nothing, dtype=values.dtype)
    filled[: values.size] = values
    return filled


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
