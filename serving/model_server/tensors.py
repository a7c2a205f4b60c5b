"""NumPy arrays to and from the wire's tensors.

Its place in the flow: the gRPC client's only codec. Requests carry raw bytes (tensor_content);
servers answer in typed fields or raw bytes, and both are read.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from artifact_sync.errors import InputError, ModelServerError
from serving.model_server.interface import TensorSignature
from serving.protos import tfs_pb2

_DTYPE_NAMES = {
    tfs_pb2.DT_FLOAT: "float32",
    tfs_pb2.DT_DOUBLE: "float64",
    tfs_pb2.DT_INT32: "int32",
    tfs_pb2.DT_UINT8: "uint8",
    tfs_pb2.DT_STRING: "object",
    tfs_pb2.DT_INT64: "int64",
    tfs_pb2.DT_BOOL: "bool",
    tfs_pb2.DT_HALF: "float16",
}


def pixels_to_tensor(pixels: npt.NDArray[np.uint8], tensor: tfs_pb2.Tensor) -> None:
    """Write uint8 pixels [batch, height, width, channels] into `tensor`.

    Raises:
        InputError: another dtype or rank.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4:
        raise InputError(
            f"Prediction refused: pixels must be uint8 [batch, height, width, channels], "
            f"found {pixels.dtype} {list(pixels.shape)}."
        )
    tensor.dtype = tfs_pb2.DT_UINT8
    for size in pixels.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = pixels.tobytes()


def tensor_to_scores(tensor: tfs_pb2.Tensor) -> npt.NDArray[np.float32]:
    """Return a float tensor [batch, classes] as an array of its own.

    Raises:
        ModelServerError: not a float tensor of rank 2, or its values do not fill its shape.
    """
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype != tfs_pb2.DT_FLOAT or len(shape) != 2:
        raise ModelServerError(
            f"Answer refused: scores must be float32 [batch, classes], "
            f"found {_DTYPE_NAMES.get(tensor.dtype, tensor.dtype)} {shape}."
        )
    if tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, dtype="<f4").astype(np.float32)
    else:
        values = np.array(tensor.float_val, dtype=np.float32)
    expected = math.prod(shape)
    if 0 < values.size < expected:
        # The wire format may leave out trailing repetitions of the last value.
        values = np.concatenate([values, np.full(expected - values.size, values[-1], np.float32)])
    if values.size != expected:
        raise ModelServerError(f"Answer refused: {values.size} scores cannot fill the shape {shape}.")
    return values.reshape(shape)


def tensor_signature(info: tfs_pb2.TensorInfo) -> TensorSignature:
    """Return dtype and shape of a signature's tensor."""
    dtype = _DTYPE_NAMES.get(info.dtype, f"type {info.dtype}")
    if info.tensor_shape.unknown_rank:
        return TensorSignature(dtype=dtype, shape=None)
    return TensorSignature(
        dtype=dtype, shape=tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    )
