"""The Open Inference Protocol's gRPC request for pixels on standard input, for the servers that speak it."""

from __future__ import annotations

import struct
import sys
from typing import Any


def print_request(request: Any, shape: str) -> None:
    """Fill a ModelInferRequest, and write path, headers, an empty line and the body with its length before it."""
    request.model_name = "benchmark"
    tensor = request.inputs.add(name="pixels", datatype="UINT8")
    tensor.shape.extend(int(size) for size in shape.split(","))
    request.raw_input_contents.append(sys.stdin.buffer.read())
    body = request.SerializeToString()
    head = b"/inference.GRPCInferenceService/ModelInfer\nprotocol: grpc\n\n"
    sys.stdout.buffer.write(head + b"\0" + struct.pack(">I", len(body)) + body)
