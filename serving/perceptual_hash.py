"""A picture's look as 128 bits, which re-encoding, resizing and a little more light hardly change.

Its place in the flow: dataset build writes it for each example and the gate compares it with the
holdout's photos, both from the pixels that the photo contract gives, so that a photo is not judged
by a model that has seen nearly the same one.

    uint8 pixels → grey (Rec. 601) → mean of each field of 8 rows by 9 columns, and of 9 by 8
        → one bit for each two neighbours in a row, one for each two in a column: is the latter
          lighter by more than two grey levels?

It is the difference hash in both directions (N. Krawetz, "Kind of like that", 2013). The means are
exact: a pixel counts in each field with the area that it shares with it, in whole numbers, so every
machine gives the same bits. Two grey levels are more than re-encoding does to an even ground, whose
bits would else be drawn by its noise.

A plain picture (sky, a wall, a closed lens) has too few differences to be told from another plain
one, and most of its bits would be equal for all of them. With fewer than 32 differences in either
direction its bits are those of the digest of its pixels: it is near to the very same pixels only.

Measured by benchmarks/perceptual_hash.py, with at most 4 of 128 bits different (the default of a
policy): of 117 views of 21 photographs (scikit-learn's, scikit-image's) at 224 x 224 pixels, 98 % are
found again as JPEG of quality 75 or 50, 99 % at half their size, 95 % without their outermost pixels,
97 % with a tenth less light; what is missing is one plain picture and little else. Among the 1.8 billion
pairs of CIFAR-10's 60,000 photos 69 are near, and looked at, all but about 3 show the same picture.

Where it is weak: at 32 x 32 pixels a field has 3.5 pixels, and fewer copies are found (90 % at quality
75, 59 % at half the size, 2 % of those cut by a pixel; with 7 bits 99 %, 91 % and 14 %). Small shapes on
an even ground look alike to it: 15 % of Fashion-MNIST's test pictures are near one of its 60,000
training pictures, 2 % with 1 bit, so for such data set a smaller distance. Mirrored, turned and
strongly cut pictures are not found.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

HASH_BYTES = 16
NAME = "liftgate-difference/1"
"""Names the bits: hashes of another name cannot be compared with these."""

_FIELDS = 8
_LEAST_STEP = 2
_LEAST_DIFFERENCES = 32
_GREY_WEIGHTS = np.array([299.0, 587.0, 114.0])
_GREY_SCALE = 1000.0


@dataclass(frozen=True, eq=False)
class PictureHashes:
    """The looks of many pictures.

    Attributes:
        sources: the SHA-256 of each photo's file, uint8 [n, 32].
        hashes: its perceptual hash, uint8 [n, 16].
    """

    sources: NDArray[np.uint8]
    hashes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.hashes)


def perceptual_hash(pixels: NDArray[np.uint8]) -> bytes:
    """Return the 16 bytes for pixels uint8 [height, width, 1 or 3 channels]."""
    steps, level = _steps(pixels)
    if (np.abs(steps) > _LEAST_STEP * level).sum() < _LEAST_DIFFERENCES:
        return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).digest()[:HASH_BYTES]
    return np.packbits(steps > _LEAST_STEP * level).tobytes()


def _steps(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], float]:
    """Return the 128 differences of neighbouring fields, and what one grey level is among them.

    Every number is a whole one below 2^53, so the sums are exact whatever order they are taken in.
    """
    height, width, channels = pixels.shape
    grey = pixels[..., 0] * _GREY_SCALE if channels == 1 else pixels @ _GREY_WEIGHTS
    in_rows = _areas(height, _FIELDS) @ grey @ _areas(width, _FIELDS + 1).T
    in_columns = _areas(height, _FIELDS + 1) @ grey @ _areas(width, _FIELDS).T
    steps = np.concatenate([np.diff(in_rows, axis=1).ravel(), np.diff(in_columns, axis=0).ravel()])
    return steps, _GREY_SCALE * height * width


@lru_cache(maxsize=32)
def _areas(pixels: int, fields: int) -> NDArray[np.float64]:
    """Return how much of each pixel [fields, pixels] lies in each field, in `fields`-ths of a pixel."""
    pixel, field = np.arange(pixels), np.arange(fields)[:, None]
    shared = np.minimum((pixel + 1) * fields, (field + 1) * pixels) - np.maximum(pixel * fields, field * pixels)
    areas: NDArray[np.float64] = np.clip(shared, 0, None).astype(np.float64)
    return areas
