"""Copies of training photos in the holdout: found although no digest is the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import InputError
from artifact_sync.labelled_photo import LabelledPhoto
from artifact_sync.records import InputContract
from serving.perceptual_hash import PictureHashes, perceptual_hash
from serving.photo import decode_photo
from validation.photos.holdout import PhotoDecoder, freeze_holdout
from validation.photos.near_duplicates import find, hashes_of

CONTRACT = InputContract(height=48, width=48, channels=3)
LABELS = ("cat", "dog")


def _picture(seed: int) -> Image.Image:
    """Blurred noise: smooth shapes, as photos have, and no two alike."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))


def _photo(directory: Path, name: str, image: Image.Image, label: str, **options: Any) -> LabelledPhoto:
    image.save(directory / name, **options)
    return LabelledPhoto(directory / name, label=label, source=name)


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[[range], list[LabelledPhoto]]:
    return lambda seeds: [_photo(tmp_path, f"{seed}.png", _picture(seed), LABELS[seed % 2]) for seed in seeds]


def _training(photos: list[LabelledPhoto]) -> PictureHashes:
    data = [photo.path.read_bytes() for photo in photos]
    return PictureHashes(
        sources=np.array([list(bytes.fromhex(sha256_hex(each))) for each in data], dtype=np.uint8),
        hashes=np.array([list(perceptual_hash(decode_photo(each, CONTRACT))) for each in data], dtype=np.uint8),
    )


def test_a_copy_saved_otherwise_is_named_with_the_training_photo(
    tmp_path: Path, pictures: Callable[[range], list[LabelledPhoto]], decoder: PhotoDecoder
) -> None:
    copied = _photo(tmp_path, "copy.jpg", _picture(100), "cat", quality=80)
    smaller = _photo(tmp_path, "smaller.png", _picture(101).resize((70, 70)), "dog")
    holdout = freeze_holdout(
        [*pictures(range(20)), copied, smaller], labels=LABELS, out_dir=tmp_path / "holdout", decoder=decoder
    )
    training = pictures(range(98, 140))
    told: list[tuple[int, int]] = []
    hashes = hashes_of(holdout, CONTRACT, decoder=decoder, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (22, 22)
    assert [source.tobytes().hex() for source in hashes.sources] == [item.sha256 for item in holdout.record.items]
    found = find(holdout.record.items, hashes, _training(training), maximum_distance=4)
    assert {(near.sha256, near.label, near.training_sha256) for near in found} == {
        (sha256_hex(copied.path.read_bytes()), "cat", sha256_hex(training[2].path.read_bytes())),
        (sha256_hex(smaller.path.read_bytes()), "dog", sha256_hex(training[3].path.read_bytes())),
    }
    assert all(near.distance <= 4 for near in found)
    assert find(holdout.record.items, hashes, _training(training[10:]), maximum_distance=4) == ()


def test_look_alikes_are_on_one_side_and_the_same_photos_give_the_same_holdout(
    tmp_path: Path, pictures: Callable[[range], list[LabelledPhoto]], decoder: PhotoDecoder
) -> None:
    given = pictures(range(30))
    for seed in range(0, 30, 3):
        given.append(_photo(tmp_path, f"{seed}.jpg", _picture(seed), LABELS[seed % 2], quality=85))
        given.append(_photo(tmp_path, f"{seed}.webp", _picture(seed), LABELS[seed % 2], quality=85))
    one, two = (
        freeze_holdout(photos, labels=LABELS, out_dir=tmp_path / name, decoder=decoder, open_share=0.3)
        for photos, name in ((given, "one"), (given[::-1], "two"))
    )
    assert one.sha256 == two.sha256
    sides: dict[str, set[bool]] = {}
    for item in one.record.items:
        sides.setdefault(item.source.split(".")[0], set()).add(item.is_open)
    assert all(len(side) == 1 for side in sides.values())
    assert 0.2 < sum(item.is_open for item in one.record.items) / 50 < 0.4


def test_a_copy_of_a_photo_that_was_looked_at_is_open_too(
    tmp_path: Path, pictures: Callable[[range], list[LabelledPhoto]], decoder: PhotoDecoder
) -> None:
    old = freeze_holdout(pictures(range(4)), labels=LABELS, out_dir=tmp_path / "old", decoder=decoder)
    copied = _photo(tmp_path, "0.jpg", _picture(0), "cat", quality=85)
    new = freeze_holdout(
        [*pictures(range(20)), copied],
        labels=LABELS,
        out_dir=tmp_path / "new",
        decoder=decoder,
        open_from=[old.record],
    )
    opened = {item.source for item in new.record.items if item.is_open}
    assert opened == {"0.png", "1.png", "2.png", "3.png", "0.jpg"}


def test_look_alikes_with_different_labels_are_told(
    tmp_path: Path, pictures: Callable[[range], list[LabelledPhoto]], decoder: PhotoDecoder
) -> None:
    disputed = _photo(tmp_path, "disputed.jpg", _picture(4), "dog", quality=85)
    agreed = _photo(tmp_path, "agreed.jpg", _picture(6), "cat", quality=85)
    told: list[str] = []
    freeze_holdout(
        [*pictures(range(20)), disputed, agreed],
        labels=LABELS,
        out_dir=tmp_path / "holdout",
        decoder=decoder,
        tell=told.append,
    )
    (line,) = told
    assert "nearly the same with different labels" in line
    assert "4.png (cat)" in line
    assert "disputed.jpg (dog)" in line


def test_a_holdout_of_copies_of_one_photo_is_refused(tmp_path: Path, decoder: PhotoDecoder) -> None:
    copies = [_photo(tmp_path, f"{quality}.jpg", _picture(1), "cat", quality=quality) for quality in range(80, 96)]
    with pytest.raises(InputError, match="no photo would be open"):
        freeze_holdout(copies, labels=LABELS, out_dir=tmp_path / "holdout", decoder=decoder)


def test_an_empty_training_set_has_no_copies(
    tmp_path: Path, pictures: Callable[[range], list[LabelledPhoto]], decoder: PhotoDecoder
) -> None:
    holdout = freeze_holdout(pictures(range(6)), labels=LABELS, out_dir=tmp_path / "holdout", decoder=decoder)
    nothing = PictureHashes(np.empty((0, 32), np.uint8), np.empty((0, 16), np.uint8))
    assert find(holdout.record.items, hashes_of(holdout, CONTRACT, decoder=decoder), nothing, maximum_distance=7) == ()


def test_the_pictures_of_these_tests_are_far_from_each_other() -> None:
    """Otherwise the others would show nothing."""
    streams = []
    for seed in range(150):
        stream = io.BytesIO()
        _picture(seed).save(stream, "PNG")
        streams.append(stream.getvalue())
    hashes = np.array([list(perceptual_hash(decode_photo(data, CONTRACT))) for data in streams], dtype=np.uint8)
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2)
    assert distances[~np.eye(150, dtype=bool)].min() > 12
