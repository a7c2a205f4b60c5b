"""The image set as people would hand it over: one folder a class, one file a photo."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from liftgate.demo.images import LabelledImages

TRAINING_PHOTOS = 20_000
HOLDOUT_PHOTOS = 2_000
_PHONE_PIXELS = 480


@dataclass(frozen=True)
class PhonePhoto:
    """A photo to upload: JPEG bytes and the label that people gave it."""

    jpeg: bytes
    label: str


def write_training_photos(images: LabelledImages, folder: Path) -> int:
    """Write photos to train on as `folder/<label>/<number>.png` and return how many."""
    return _write(images, images.train_pixels[:TRAINING_PHOTOS], images.train_classes, folder)


def write_holdout_photos(images: LabelledImages, folder: Path) -> int:
    """Write photos to judge by, none of them among those to train on, and return how many."""
    return _write(images, images.test_pixels[:HOLDOUT_PHOTOS], images.test_classes, folder)


def phone_photos(images: LabelledImages, *, count: int) -> Iterator[PhonePhoto]:
    """Yield photos that are neither trained on nor judged by, as a phone would send them: larger, as JPEG."""
    for index in range(HOLDOUT_PHOTOS, HOLDOUT_PHOTOS + count):
        picture = _picture(images.test_pixels[index]).resize((_PHONE_PIXELS, _PHONE_PIXELS), Image.Resampling.LANCZOS)
        encoded = io.BytesIO()
        picture.convert("RGB").save(encoded, "JPEG", quality=90)
        yield PhonePhoto(encoded.getvalue(), images.labels[images.test_classes[index]])


def _write(images: LabelledImages, pixels: NDArray[np.uint8], classes: NDArray[np.uint8], folder: Path) -> int:
    for label in images.labels:
        (folder / label).mkdir(parents=True)
    for number, array in enumerate(pixels):
        path = folder / images.labels[classes[number]] / f"{number:05d}.png"
        # Level 1: these files live as long as the demo.
        _picture(array).save(path, compress_level=1)
    return len(pixels)


def _picture(array: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(array[:, :, 0] if array.shape[-1] == 1 else array)
