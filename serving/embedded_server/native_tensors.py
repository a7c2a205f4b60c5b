"""Tensors to and from the C library's memory.

Its place in the flow: session.py converts what goes into a run and what comes out of it. The parts
of a batch are written one after another into one allocation, straight from the requests' bytes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from serving.embedded_server.host_tensor import HostTensor
from serving.embedded_server.status import Code, StatusError
from serving.embedded_server.tensorflow_library import TensorFlowLibrary
from serving.protos import tfs_pb2

_STRING_BYTES = 24  # sizeof(TF_TString)
_DT_STRING = int(tfs_pb2.DT_STRING)


def new_tensor(library: TensorFlowLibrary, parts: Sequence[HostTensor]) -> Any:
    """Return a TF_Tensor with copies of `parts`, which are equal but for dimension 0.

    Raises:
        StatusError: RESOURCE_EXHAUSTED: there is no memory for it.
    """
    data_type, shape, _ = parts[0]
    if len(parts) > 1:
        shape = (sum([part.shape[0] for part in parts]), *shape[1:])
    length = sum([len(part.content) for part in parts])
    size_bytes = length * _STRING_BYTES if data_type == _DT_STRING else length
    dimensions = (ctypes.c_int64 * len(shape))(*shape)
    tensor = library.allocate_tensor(data_type, dimensions, len(shape), size_bytes)
    address = library.tensor_data(tensor) if tensor else None
    if size_bytes and not address:
        if tensor:
            library.delete_tensor(tensor)
        raise StatusError(Code.RESOURCE_EXHAUSTED, f"Cannot allocate {size_bytes} bytes for an input")
    if data_type == _DT_STRING:
        _write_strings(library, tensor, [value for part in parts for value in part.content])
        return tensor
    _write_bytes(address, [part.content for part in parts])
    return tensor


def delete_input(library: TensorFlowLibrary, tensor: Any) -> None:
    """Give back a tensor of `new_tensor`, its strings included."""
    if library.tensor_type(tensor) == _DT_STRING:
        for address in _string_addresses(library, tensor):
            library.free_string(address)
    library.delete_tensor(tensor)


def read_tensor(library: TensorFlowLibrary, tensor: Any) -> HostTensor:
    """Return a copy of a TF_Tensor's values."""
    dimension = library.tensor_dimension
    shape = tuple([dimension(tensor, axis) for axis in range(library.tensor_rank(tensor))])
    data_type = library.tensor_type(tensor)
    if data_type == _DT_STRING:
        addresses = _string_addresses(library, tensor)
        strings = [ctypes.string_at(library.string_data(at), library.string_size(at)) for at in addresses]
        return HostTensor(data_type, shape, strings)
    size_bytes = library.tensor_size_bytes(tensor)
    content = ctypes.string_at(library.tensor_data(tensor), size_bytes) if size_bytes else b""
    return HostTensor(data_type, shape, content)


def _write_bytes(address: Any, contents: Sequence[Any]) -> None:
    for content in contents:
        if size := len(content):
            ctypes.memmove(address, content, size)
            address += size


def _write_strings(library: TensorFlowLibrary, tensor: Any, values: Sequence[Any]) -> None:
    for address, value in zip(_string_addresses(library, tensor), values, strict=True):
        library.init_string(address)
        library.copy_string(address, value, len(value))


def _string_addresses(library: TensorFlowLibrary, tensor: Any) -> range:
    start = library.tensor_data(tensor) or 0
    return range(start, start + library.tensor_size_bytes(tensor), _STRING_BYTES)
