"""NumPy arrays to and from the C library's tensors.

Its place in the flow: session.py converts what goes into a run and what comes out of it.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.embedded_server.dtypes import data_type_of, dtype_of
from serving.embedded_server.status import Code, StatusError
from serving.embedded_server.tensorflow_library import TensorFlowLibrary
from serving.protos import tfs_pb2

_STRING_BYTES = 24  # sizeof(TF_TString)


def new_tensor(library: TensorFlowLibrary, array: npt.NDArray[Any]) -> Any:
    """Return a TF_Tensor with a copy of `array`; strings are arrays of bytes objects."""
    data_type = data_type_of(array.dtype)
    is_string = data_type == tfs_pb2.DT_STRING
    size_bytes = array.size * _STRING_BYTES if is_string else array.nbytes
    dimensions = (ctypes.c_int64 * array.ndim)(*array.shape)
    tensor = library.allocate_tensor(data_type, dimensions, array.ndim, size_bytes)
    if not tensor:
        raise StatusError(Code.RESOURCE_EXHAUSTED, f"Cannot allocate {size_bytes} bytes for an input")
    if is_string:
        _write_strings(library, tensor, array)
    elif size_bytes:
        contiguous = np.ascontiguousarray(array)
        ctypes.memmove(library.tensor_data(tensor), contiguous.ctypes.data, size_bytes)
    return tensor


def delete_input(library: TensorFlowLibrary, tensor: Any) -> None:
    """Give back a tensor of `new_tensor`, its strings included."""
    if library.tensor_type(tensor) == tfs_pb2.DT_STRING:
        for address in _string_addresses(library, tensor):
            library.free_string(address)
    library.delete_tensor(tensor)


def to_array(library: TensorFlowLibrary, tensor: Any) -> npt.NDArray[Any]:
    """Return a copy of a TF_Tensor's values."""
    shape = [library.tensor_dimension(tensor, axis) for axis in range(library.tensor_rank(tensor))]
    data_type = library.tensor_type(tensor)
    if data_type == tfs_pb2.DT_STRING:
        values = np.empty(_count(library, tensor), dtype=object)
        for index, address in enumerate(_string_addresses(library, tensor)):
            values[index] = ctypes.string_at(library.string_data(address), library.string_size(address))
        return values.reshape(shape)
    dtype = dtype_of(data_type)
    size_bytes = library.tensor_size_bytes(tensor)
    content = ctypes.string_at(library.tensor_data(tensor), size_bytes) if size_bytes else b""
    return np.frombuffer(content, dtype=dtype).reshape(shape)


def _write_strings(library: TensorFlowLibrary, tensor: Any, array: npt.NDArray[Any]) -> None:
    for address, value in zip(_string_addresses(library, tensor), array.ravel(), strict=True):
        library.init_string(address)
        library.copy_string(address, value, len(value))


def _string_addresses(library: TensorFlowLibrary, tensor: Any) -> range:
    start = library.tensor_data(tensor) or 0
    return range(start, start + _count(library, tensor) * _STRING_BYTES, _STRING_BYTES)


def _count(library: TensorFlowLibrary, tensor: Any) -> int:
    size_bytes: int = library.tensor_size_bytes(tensor)
    return size_bytes // _STRING_BYTES
