"""The perceptual hash: near for the same picture saved otherwise, far for any other."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from artifact_sync.records import InputContract
from serving.perceptual_hash import HASH_BYTES, perceptual_hash
from serving.photo import decode_photo

Pixels = NDArray[np.uint8]
_CONTRACT = InputContract(height=224, width=224, channels=3)


def _distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def _photograph() -> Image.Image:
    # Found without importing scikit-learn, which takes seconds.
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    with Image.open(Path(package.origin).parent / "datasets" / "images" / "china.jpg") as image:
        return image.convert("RGB")


def _encoded(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, **{"format": "PNG", **options})  # type: ignore[arg-type]
    return stream.getvalue()


def _hash(image: Image.Image, **options: object) -> bytes:
    return perceptual_hash(decode_photo(_encoded(image, **options), _CONTRACT))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: _hash(image, format="JPEG", quality=75),
        lambda image: _hash(image, format="JPEG", quality=40),
        lambda image: _hash(image, format="WEBP", quality=80),
        lambda image: _hash(image.resize((image.width // 2, image.height // 2))),
        lambda image: _hash(image.resize((image.width * 2, image.height * 2))),
        lambda image: _hash(image.crop((1, 1, image.width - 1, image.height - 1))),
        lambda image: _hash(image.point(lambda value: min(255, value + 8))),
        lambda image: _hash(image.point(lambda value: int(value * 0.93))),
    ],
    ids=["jpeg-75", "jpeg-40", "webp-80", "half", "double", "cropped", "lighter", "darker"],
)
def test_a_real_photograph_saved_otherwise_is_near(change: Callable[[Image.Image], bytes]) -> None:
    image = _photograph()
    assert _distance(_hash(image), change(image)) <= 4


def test_views_of_one_photograph_are_far_from_each_other() -> None:
    image = _photograph()
    boxes = [(x, y, x + 200, y + 200) for x in range(0, 440, 110) for y in range(0, 220, 110)]
    hashes = [_hash(image.crop(box)) for box in boxes]
    nearest = min(_distance(one, other) for index, one in enumerate(hashes) for other in hashes[:index])
    assert nearest > 10


def test_its_bits_are_fixed() -> None:
    """Bits are written beside datasets and compared years later."""
    y, x = np.mgrid[0:40, 0:60]
    wave = (128 + 80 * np.sign(np.sin(x / 5.0)) * np.sign(np.cos(y / 7.0))).astype(np.uint8)
    assert perceptual_hash(wave[..., None]).hex() == "9898636363636398003333000000cccc"
    assert (
        perceptual_hash(np.stack([wave, wave.T[:40, :40].repeat(2, axis=1)[:, :60], wave], axis=-1)).hex()
        == "8888437373734388e0331f1f0000e0c4"
    )


def test_a_bit_says_that_the_latter_field_is_lighter() -> None:
    rising = np.tile(np.arange(0, 180, 2, dtype=np.uint8), (80, 1))[..., None]
    assert perceptual_hash(rising) == b"\xff" * 8 + b"\x00" * 8
    assert perceptual_hash(rising[:, ::-1]) == bytes(HASH_BYTES)
    assert perceptual_hash(rising.transpose(1, 0, 2)) == b"\x00" * 8 + b"\xff" * 8


def test_plain_pictures_are_near_to_nothing_but_themselves() -> None:
    random = np.random.default_rng(3)
    plain = [np.full((64, 64, 3), level, dtype=np.uint8) for level in (0, 1, 128, 254, 255)]
    noisy = [(picture // 2 + 60 + random.integers(0, 3, picture.shape)).astype(np.uint8) for picture in plain]
    dotted = [picture.copy() for picture in plain]
    for picture in dotted:
        picture[30:34, 30:34] ^= 0x7F
    hashes = [perceptual_hash(picture) for picture in (*plain, *noisy, *dotted)]
    assert min(_distance(one, other) for index, one in enumerate(hashes) for other in hashes[:index]) > 20
    assert perceptual_hash(plain[2].copy()) == hashes[2]


def test_noise_on_an_even_ground_changes_no_bit_of_the_rest() -> None:
    rising = np.full((80, 180, 1), 100, dtype=np.uint8)
    rising[:, 60:] = np.arange(100, 220)[None, :, None]
    noise = np.random.default_rng(5).integers(-2, 3, rising.shape)
    assert perceptual_hash(rising) == perceptual_hash((rising + noise).astype(np.uint8))


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 4, 3), (8, 8, 1), (9, 8, 3), (33, 17, 1), (500, 300, 3)])
def test_every_size_has_one_and_a_view_of_memory_makes_no_difference(shape: tuple[int, int, int]) -> None:
    pixels: Pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    assert len(perceptual_hash(pixels)) == HASH_BYTES
    assert perceptual_hash(np.asfortranarray(pixels)) == perceptual_hash(pixels)
