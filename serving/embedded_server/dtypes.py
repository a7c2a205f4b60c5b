"""TensorFlow's data types and NumPy's.

Its place in the flow: both codecs, of the wire and of the C library, look here.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from serving.embedded_server.status import Code, StatusError, invalid_argument
from serving.protos import tfs_pb2

_DTYPES: dict[tfs_pb2.DataType, npt.DTypeLike] = {
    tfs_pb2.DT_FLOAT: np.float32,
    tfs_pb2.DT_DOUBLE: np.float64,
    tfs_pb2.DT_INT32: np.int32,
    tfs_pb2.DT_UINT8: np.uint8,
    tfs_pb2.DT_INT16: np.int16,
    tfs_pb2.DT_INT8: np.int8,
    tfs_pb2.DT_STRING: np.object_,
    tfs_pb2.DT_COMPLEX64: np.complex64,
    tfs_pb2.DT_INT64: np.int64,
    tfs_pb2.DT_BOOL: np.bool_,
    tfs_pb2.DT_BFLOAT16: ml_dtypes.bfloat16,
    tfs_pb2.DT_UINT16: np.uint16,
    tfs_pb2.DT_COMPLEX128: np.complex128,
    tfs_pb2.DT_HALF: np.float16,
    tfs_pb2.DT_UINT32: np.uint32,
    tfs_pb2.DT_UINT64: np.uint64,
}
_BY_NUMBER = {int(data_type): np.dtype(dtype) for data_type, dtype in _DTYPES.items()}
_BY_DTYPE = {np.dtype(dtype): data_type for data_type, dtype in _DTYPES.items()}


def dtype_of(data_type: int) -> np.dtype[Any]:
    """Return NumPy's dtype of a DataType; strings are objects (bytes).

    Raises:
        StatusError: INVALID_ARGUMENT: the type is not said; UNIMPLEMENTED: NumPy has none (quantised types,
            resources).
    """
    dtype = _BY_NUMBER.get(data_type)
    if dtype is not None:
        return dtype
    if data_type == tfs_pb2.DT_INVALID:
        raise invalid_argument("A tensor has no dtype; set it to the one that the signature names")
    raise StatusError(
        Code.UNIMPLEMENTED,
        f"Tensors of type {type_name(data_type)} are not supported; export a signature that takes and "
        "returns float, integer, bool or string tensors",
    )


def data_type_of(dtype: np.dtype[Any]) -> tfs_pb2.DataType:
    """Return the DataType of one of the dtypes that `dtype_of` returns."""
    return _BY_DTYPE[dtype]


def type_name(data_type: int) -> str:
    """Return TensorFlow's word for a type in messages: "float", "uint8"."""
    if data_type not in tfs_pb2.DataType.values():
        return str(data_type)
    return tfs_pb2.DataType.Name(data_type).removeprefix("DT_").lower()
