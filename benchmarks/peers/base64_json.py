"""Photos as base64 in JSON: what HTTP frameworks that take JSON are sent."""

from __future__ import annotations

import base64
import json
import sys

import numpy as np


def print_request(shape: str, *, path: str, field: str, is_list: bool) -> None:
    """Write path, headers, an empty line and a body with the pixels of standard input and their shape."""
    text = f"{shape};{base64.b64encode(sys.stdin.buffer.read()).decode()}"
    body = json.dumps({field: [text] if is_list else text}).encode()
    sys.stdout.buffer.write(f"{path}\ncontent-type: application/json\n\n".encode() + body)


def to_pixels(text: str) -> np.ndarray:
    """Return uint8 pixels [height, width, channels]."""
    shape, _, content = text.partition(";")
    return np.frombuffer(base64.b64decode(content), np.uint8).reshape([int(size) for size in shape.split(",")[1:]])
