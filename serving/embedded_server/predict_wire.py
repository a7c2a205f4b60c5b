"""The tensors of Predict between the wire and memory, with as few steps as there can be.

Its place in the flow: predict.py reads inputs and writes the answer with it. What is sent as raw
bytes is used as it is; what is answered in a field of fixed width is on the wire the memory itself.
Everything else goes by way of wire_tensors, with the same results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from serving.embedded_server.dtypes import dtype_of
from serving.embedded_server.host_tensor import HostTensor, from_array
from serving.embedded_server.host_tensor import to_array as values_of
from serving.embedded_server.status import invalid_argument
from serving.embedded_server.wire_tensors import MAX_RANK, to_array, to_tensor, varint
from serving.protos import tfs_pb2

_RAW_TYPES = (
    *(tfs_pb2.DT_FLOAT, tfs_pb2.DT_DOUBLE, tfs_pb2.DT_HALF, tfs_pb2.DT_BOOL, tfs_pb2.DT_COMPLEX64),
    *(tfs_pb2.DT_COMPLEX128, tfs_pb2.DT_INT8, tfs_pb2.DT_INT16, tfs_pb2.DT_INT32, tfs_pb2.DT_INT64),
    *(tfs_pb2.DT_UINT8, tfs_pb2.DT_UINT16, tfs_pb2.DT_UINT32, tfs_pb2.DT_UINT64),
    tfs_pb2.DT_BFLOAT16,
)
_ITEM_BYTES = {int(data_type): dtype_of(data_type).itemsize for data_type in _RAW_TYPES}
# Repeated fields that are packed on the wire as memory has them, by their tags.
_MEMORY_FIELDS = {
    int(tfs_pb2.DT_FLOAT): b"\x2a",
    int(tfs_pb2.DT_DOUBLE): b"\x32",
    int(tfs_pb2.DT_COMPLEX64): b"\x4a",
    int(tfs_pb2.DT_COMPLEX128): b"\x62",
    int(tfs_pb2.DT_BOOL): b"\x5a",
}
_CONTENT_FIELD = b"\x22"
_OUTPUTS_FIELD, _KEY_FIELD, _VALUE_FIELD, _MODEL_SPEC_FIELD = b"\x0a", b"\x0a", b"\x12", b"\x12"
_MAX_SIZE_BYTES = 2**62


def read_input(tensor: tfs_pb2.Tensor, *, alias: str) -> HostTensor:
    """Return the values of one input.

    Raises:
        StatusError: INVALID_ARGUMENT: the values do not fill the shape; UNIMPLEMENTED: the type.
    """
    shape, count = _shape(tensor.tensor_shape.SerializeToString(), alias)
    content, data_type = tensor.tensor_content, tensor.dtype
    if content and len(content) == count * _ITEM_BYTES.get(data_type, 0):
        return HostTensor(data_type, shape, content)
    return from_array(to_array(tensor, alias=alias))


def write_response(
    keys: Sequence[bytes], outputs: Sequence[HostTensor], *, model_spec: bytes, is_tensor_content: bool
) -> tfs_pb2.PredictResponse:
    """Return the answer.

    Args:
        keys: of `output_key`, for each output.
        outputs: their values.
        model_spec: of `model_spec_field`.
        is_tensor_content: whether values are sent as raw bytes instead of in typed fields.

    Raises:
        StatusError: UNIMPLEMENTED: an output's type is none that can be sent.
    """
    pieces = [model_spec]
    for key, output in zip(keys, outputs, strict=True):
        data_type, shape, content = output
        head = _memory_head(key, data_type, shape, len(content), is_tensor_content)
        pieces += (head, content) if head and isinstance(content, bytes) else (_typed_entry(key, output),)
    return tfs_pb2.PredictResponse.FromString(b"".join(pieces))


def output_key(alias: str) -> bytes:
    """Return an output's name as it begins its entry in the answer."""
    return _field(_KEY_FIELD, alias.encode())


def model_spec_field(spec: tfs_pb2.ModelSpec) -> bytes:
    """Return the answer's model_spec as it is on the wire."""
    return _field(_MODEL_SPEC_FIELD, spec.SerializeToString())


@lru_cache(maxsize=1024)
def _shape(message: bytes, alias: str) -> tuple[tuple[int, ...], int]:
    shape = tfs_pb2.TensorShape.FromString(message)
    sizes = tuple(dim.size for dim in shape.dim)
    # TensorFlow ends the process over a shape whose values could not be numbered, even where it has none.
    is_countable = math.prod(max(1, size) for size in sizes) < _MAX_SIZE_BYTES // 16
    if shape.unknown_rank or len(sizes) > MAX_RANK or any(size < 0 for size in sizes) or not is_countable:
        raise invalid_argument(f"tensor parsing error: {alias}")
    return sizes, math.prod(sizes)


@lru_cache(maxsize=1024)
def _memory_head(key: bytes, data_type: int, shape: tuple[int, ...], size: int, is_tensor_content: bool) -> bytes:
    """Return an entry of the answer up to its values, which follow as they are in memory; nothing if they do not."""
    tag = _CONTENT_FIELD if is_tensor_content and data_type in _ITEM_BYTES else _MEMORY_FIELDS.get(data_type)
    if tag is None:
        return b""
    dimensions = tfs_pb2.TensorShape(dim=[tfs_pb2.TensorShape.Dim(size=length) for length in shape])
    head = tfs_pb2.Tensor(dtype=data_type, tensor_shape=dimensions).SerializeToString()  # type: ignore[arg-type]
    head += tag + varint(size)
    tensor = key + _VALUE_FIELD + varint(len(head) + size) + head
    return _OUTPUTS_FIELD + varint(len(tensor) + size) + tensor


def _typed_entry(key: bytes, output: HostTensor) -> bytes:
    tensor = tfs_pb2.Tensor()
    to_tensor(values_of(output), tensor)
    return _field(_OUTPUTS_FIELD, key + _field(_VALUE_FIELD, tensor.SerializeToString()))


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + varint(len(content)) + content
