"""A small picture of the photo for the result page, as a data: URL.

Its place in the flow: pages.py shows it; the photo is decoded by the pool like any other, so the
page shows it upright and the server keeps nothing.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from artifact_sync.records import InputContract
from serving.decode_pool import DecodePool
from serving.photo_format import read_structure

_LONGEST_SIDE = 720
_SMALLEST_SIDE = 96


@dataclass(frozen=True)
class Preview:
    """A JPEG as a data: URL, its size in pixels, and whether it is so small that it should be enlarged crisply."""

    url: str
    width: int
    height: int
    is_tiny: bool


def make_preview(photo: bytes, decode_pool: DecodePool) -> Preview:
    """Return a picture of the whole photo, at most 720 pixels long.

    Raises:
        PhotoError: the photo is refused.
    """
    width, height = read_structure(photo, decode_pool.limits).upright_size
    scale = min(1.0, _LONGEST_SIDE / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    pixels = decode_pool.decode(photo, InputContract(height=size[1], width=size[0], channels=3))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=82)
    url = "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
    return Preview(url=url, width=size[0], height=size[1], is_tiny=max(size) < _SMALLEST_SIDE)
