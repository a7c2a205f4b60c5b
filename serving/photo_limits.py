"""How much one photo may cost: bytes, pixels, scans, frames, processor time and memory.

Its place in the flow: photo.py holds the sizes before a pixel is allocated, decode_pool.py holds
time and memory from outside. The figures are for photos from phones: a 108-megapixel JPEG passes,
since a JPEG is decoded at an eighth of its size; other formats must be decoded whole.
"""

from __future__ import annotations

from dataclasses import dataclass

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class PhotoLimits:
    """What a photo may be and what decoding it may cost.

    Attributes:
        max_bytes: size of the file.
        max_jpeg_pixels: width times height of a JPEG.
        max_pixels: width times height of a photo in any other format.
        max_scans: scans of a JPEG; each progressive scan costs a pass over the whole image.
        max_frames: frames of a PNG or WebP; more than one is an animation.
        cpu_seconds: processor time for one photo in a decode pool, whole seconds.
        wall_seconds: time for one photo in a decode pool.
        memory_bytes: address space of one child of a decode pool.
    """

    max_bytes: int = 25 * _MEBIBYTE
    max_jpeg_pixels: int = 110_000_000
    max_pixels: int = 50_000_000
    max_scans: int = 100
    max_frames: int = 1
    cpu_seconds: int = 5
    wall_seconds: float = 15.0
    memory_bytes: int = 2048 * _MEBIBYTE
