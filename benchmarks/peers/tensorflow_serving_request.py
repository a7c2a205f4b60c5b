"""Prints TensorFlow Serving's Predict request for pixels on standard input, for those that speak its protocol."""

from __future__ import annotations

import struct
import sys

from serving.protos import tfs_pb2


def print_request(shape: tuple[int, ...], *, model: str) -> None:
    """Write path, headers, an empty line, and the body with its length before it, as gRPC wants it."""
    request = tfs_pb2.PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs["pixels"]
    tensor.dtype = tfs_pb2.DT_UINT8
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = sys.stdin.buffer.read()
    body = request.SerializeToString()
    head = b"/tensorflow.serving.PredictionService/Predict\nprotocol: grpc\n\n"
    sys.stdout.buffer.write(head + b"\0" + struct.pack(">I", len(body)) + body)
